"""What grpcurl does: finds the service by reflection, builds the messages from what it is told, and calls."""

import json
import os

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from common import EMBEDDERS, HELLO, MODELS, PNG, SAID, SHAPE, TWO_CALLS, fits
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(os.environ["TOLLGATE_GRPC"].removeprefix("http://"))
reflection = ProtoReflectionDescriptorDatabase(channel)
assert "tollgate.v1.Gateway" in reflection.get_services(), reflection.get_services()
service = DescriptorPool(reflection).FindServiceByName("tollgate.v1.Gateway")
metadata = [("authorization", "Bearer " + os.environ["TOLLGATE_API_KEY"])]
request = {"model": "sim-mini", "messages": [{"role": "ROLE_USER", "content": [{"text": "hello"}]}]}


def call(name, fields, metadata=metadata):
    method = service.FindMethodByName(name)
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    stub = kind(
        f"/{service.full_name}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return stub(json_format.ParseDict(fields, GetMessageClass(method.input_type)()), metadata=metadata, timeout=20)


assert call("CompleteUnary", request).text == "You said: hello"
events = list(call("Complete", request))
assert "".join(event.text for event in events) == "You said: hello"
assert events[0].start.request_id.startswith("req_") and events[-1].usage.input_tokens > 0
assert any(model.name == "sim-mini" for model in call("ListModels", {}).models)


def of(model, text, **more):
    return {"model": model, "messages": [{"role": "ROLE_USER", "content": [{"text": text}]}], **more}


TOOLS = [{"name": "weather", "parametersJson": json.dumps({"type": "object", "properties": {"city": {"type": "string"}}})}]
for model in MODELS:
    assert call("CompleteUnary", of(model, HELLO)).text == SAID, model
    pieces = [event.text for event in call("Complete", of(model, HELLO)) if event.text]
    assert "".join(pieces) == SAID and len(pieces) > 2, (model, pieces)
    assert call("CountTokens", of(model, HELLO)).input_tokens > 0, model

    turns = of(model, TWO_CALLS, tools=TOOLS)
    first = call("CompleteUnary", turns)
    calls = [part.tool_call for part in first.content if part.WhichOneof("part") == "tool_call"]
    assert len(calls) == 2 and all(isinstance(json.loads(c.arguments_json)["city"], str) for c in calls), (model, first)
    # An answer's content is the assistant's turn as it is.
    said = [json_format.MessageToDict(part) for part in first.content]
    results = [{"toolResult": {"callId": c.id, "content": [{"text": f"sunny {n}"}]}} for n, c in enumerate(calls)]
    turns["messages"] += [{"role": "ROLE_ASSISTANT", "content": said}, {"role": "ROLE_TOOL", "content": results}]
    assert call("CompleteUnary", turns).text == "The tools said: sunny 0, sunny 1", model

    shape = {"jsonSchema": {"name": "weather", "schemaJson": json.dumps(SHAPE), "strict": True}}
    assert fits(call("CompleteUnary", of(model, HELLO, responseFormat=shape)).text), model
    thinking = call("CompleteUnary", of(model, HELLO, reasoning={"budgetTokens": 1024, "shown": True}, maxOutputTokens=4000))
    assert any(part.WhichOneof("part") == "reasoning" for part in thinking.content), (model, thinking)
    picture = {"image": {"media": {"inline": {"mediaType": "image/png", "data": PNG}}}}
    seen = of(model, HELLO)
    seen["messages"][0]["content"].append(picture)
    assert call("CompleteUnary", seen).text == SAID + " [1 image]", model
for model in EMBEDDERS:
    vectors = call("Embed", {"model": model, "input": [{"text": "a"}, {"text": "b"}], "dimensions": 4}).vectors
    assert [len(vector.values) for vector in vectors] == [4, 4], model

try:
    call("CompleteUnary", request, metadata=[])
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
else:
    raise AssertionError("served without a key")

health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
assert health == b"\x08\x01", health
print("grpcio", grpc.__version__, "ok")
