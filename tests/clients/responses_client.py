"""OpenAI's own package through the Responses door, with a model of every provider behind it."""

import json

import openai
from openai import OpenAI
from pydantic import BaseModel

from common import EMBEDDERS, HELLO, HTTP, KEY, MODELS, PNG, SAID, TWO_CALLS, fails

TOOLS = [
    {
        "type": "function",
        "name": "weather",
        "description": "d",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    }
]


class Weather(BaseModel):
    city: str
    warm: bool


def chat(client, model):
    answer = client.responses.create(model=model, input=HELLO, instructions="be brief")
    assert answer.output_text == SAID and answer.status == "completed", answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0
    assert answer._request_id.startswith("req_")


def stream(client, model):
    kinds, text, final = [], "", None
    for event in client.responses.create(model=model, input=HELLO, stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.completed":
            final = event.response
    assert text == SAID and final.output_text == SAID and final.usage.output_tokens > 0, kinds
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds


def tools(client, model, streamed):
    turns = [{"role": "user", "content": TWO_CALLS}]

    def ask():
        if not streamed:
            return client.responses.create(model=model, input=turns, tools=TOOLS)
        with client.responses.stream(model=model, input=turns, tools=TOOLS) as events:
            return events.get_final_response()

    first = ask()
    calls = [item for item in first.output if item.type == "function_call"]
    assert len(calls) == 2 and calls[0].call_id != calls[1].call_id, first
    assert all(isinstance(json.loads(call.arguments)["city"], str) for call in calls), calls
    for item in first.output:
        given = {key: value for key, value in item.model_dump(exclude_none=True).items() if key != "parsed_arguments"}
        turns.append(given)
    for number, call in enumerate(calls):
        turns.append({"type": "function_call_output", "call_id": call.call_id, "output": f"sunny {number}"})
    second = ask()
    assert second.output_text == "The tools said: sunny 0, sunny 1", second


def structured(client, model):
    answer = client.responses.parse(model=model, input=HELLO, text_format=Weather)
    assert isinstance(answer.output_parsed, Weather), answer


def image(client, model):
    content = [
        {"type": "input_text", "text": HELLO},
        {"type": "input_image", "image_url": "data:image/png;base64," + PNG, "detail": "auto"},
    ]
    answer = client.responses.create(model=model, input=[{"role": "user", "content": content}])
    assert answer.output_text == SAID + " [1 image]", answer


def reasoning(client, model):
    answer = client.responses.create(model=model, input=HELLO, reasoning={"effort": "low", "summary": "auto"})
    assert any(item.type == "reasoning" for item in answer.output), answer
    assert answer.output_text == SAID, answer


def errors(client, model):
    def ask(text, **more):
        return client.responses.create(model=model, input=text, **more)

    assert fails(openai.RateLimitError, lambda: ask("#sim:status=429")).status_code == 429
    long = fails(openai.BadRequestError, lambda: ask("#sim:error_kind=context_length"))
    assert long.code == "context_length_exceeded", long
    fails(openai.APIError, lambda: list(ask("one two three four #sim:cut=2", stream=True)))


def main():
    client = OpenAI(base_url=HTTP + "/v1", api_key=KEY, max_retries=0)
    for model in MODELS:
        chat(client, model)
        stream(client, model)
        tools(client, model, False)
        tools(client, model, True)
        structured(client, model)
        image(client, model)
        reasoning(client, model)
        errors(client, model)
    kept = fails(
        openai.BadRequestError, lambda: client.responses.create(model=MODELS[0], input="x", previous_response_id="resp_1")
    )
    assert kept.param == "previous_response_id", kept
    for model in EMBEDDERS:
        for texts in ("a", ["a", "bb"]):
            vectors = client.embeddings.create(model=model, input=texts)
            assert len(vectors.data) == (1 if texts == "a" else 2) and len(vectors.data[0].embedding) > 1, vectors
        plain = client.embeddings.create(model=model, input="a", encoding_format="float", dimensions=4)
        assert len(plain.data[0].embedding) == 4
    chat(OpenAI(base_url=HTTP + "/openai/v1", api_key=KEY, max_retries=0), MODELS[0])
    print("openai responses", openai.__version__, "ok")


main()
