"""What grpcurl does: finds the service by reflection, builds the messages from what it is told, and calls."""

import os

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
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

try:
    call("CompleteUnary", request, metadata=[])
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
else:
    raise AssertionError("served without a key")

health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
assert health == b"\x08\x01", health
print("grpcio", grpc.__version__, "ok")
