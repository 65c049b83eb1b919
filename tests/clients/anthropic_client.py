"""Anthropic's own package against Tollgate, with a model of every provider behind it."""

import anthropic
from anthropic import Anthropic

from common import HELLO, HTTP, KEY, MODELS, PNG, SAID, SHAPE, TWO_CALLS, fails, fits

TOOLS = [{"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def chat(client, model):
    message = client.messages.create(model=model, max_tokens=200, system="be brief", messages=[{"role": "user", "content": HELLO}])
    assert text_of(message) == SAID, message
    assert message.stop_reason == "end_turn" and message.usage.input_tokens > 0 and message.usage.output_tokens > 0
    assert message._request_id.startswith("req_"), message._request_id


def stream(client, model):
    with client.messages.stream(model=model, max_tokens=200, messages=[{"role": "user", "content": HELLO}]) as events:
        pieces = list(events.text_stream)
        final = events.get_final_message()
    assert "".join(pieces) == SAID and len(pieces) > 2, pieces
    assert final.stop_reason == "end_turn" and final.usage.input_tokens > 0 and final.usage.output_tokens > 0, final


def tools(client, model, streamed):
    turns = [{"role": "user", "content": TWO_CALLS}]
    asked = {"model": model, "max_tokens": 500, "tools": TOOLS}

    def ask(**more):
        if not streamed:
            return client.messages.create(**asked, messages=turns, **more)
        with client.messages.stream(**asked, messages=turns, **more) as events:
            return events.get_final_message()

    first = ask()
    calls = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use" and len(calls) == 2 and calls[0].id != calls[1].id, first
    assert all(call.name == "weather" and isinstance(call.input["city"], str) for call in calls), calls
    turns.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]})
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": f"sunny {n}"} for n, call in enumerate(calls)]
    turns.append({"role": "user", "content": results})
    second = ask()
    assert text_of(second) == "The tools said: sunny 0, sunny 1", second


def structured(client, model):
    message = client.messages.create(
        model=model,
        max_tokens=500,
        messages=[{"role": "user", "content": HELLO}],
        output_config={"format": {"type": "json_schema", "schema": SHAPE}},
    )
    assert fits(text_of(message)), message


def image(client, model):
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "text", "text": HELLO},
    ]
    message = client.messages.create(model=model, max_tokens=200, messages=[{"role": "user", "content": content}])
    assert text_of(message) == SAID + " [1 image]", message


def reasoning(client, model):
    message = client.messages.create(
        model=model,
        max_tokens=4000,
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=[{"role": "user", "content": HELLO}],
    )
    assert any(block.type == "thinking" and block.thinking for block in message.content), message
    assert text_of(message) == SAID, message


def errors(client, model):
    def ask(text, **more):
        return client.messages.create(model=model, max_tokens=200, messages=[{"role": "user", "content": text}], **more)

    limited = fails(anthropic.RateLimitError, lambda: ask("#sim:status=429"))
    assert limited.status_code == 429 and limited.body["error"]["type"] == "rate_limit_error", limited.body
    long = fails(anthropic.BadRequestError, lambda: ask("#sim:error_kind=context_length"))
    assert "prompt is too long" in long.body["error"]["message"], long.body

    def broken():
        with client.messages.stream(
            model=model, max_tokens=200, messages=[{"role": "user", "content": "one two three four #sim:cut=2"}]
        ) as events:
            events.get_final_message()

    fails(anthropic.APIError, broken)


def main():
    client = Anthropic(base_url=HTTP, api_key=KEY, max_retries=0)
    for model in MODELS:
        chat(client, model)
        stream(client, model)
        tools(client, model, False)
        tools(client, model, True)
        structured(client, model)
        image(client, model)
        reasoning(client, model)
        errors(client, model)
        counted = client.messages.count_tokens(model=model, messages=[{"role": "user", "content": HELLO}])
        assert counted.input_tokens > 0, counted
    wrong = Anthropic(base_url=HTTP, api_key="tg_wrong", max_retries=0)
    fails(anthropic.AuthenticationError, lambda: chat(wrong, MODELS[0]))
    fails(anthropic.NotFoundError, lambda: chat(client, "nothing"))
    assert MODELS[0] in [model.id for model in client.models.list()]
    # Under the prefix by which LangChain's gateway variables name it, with a bearer token.
    chat(Anthropic(base_url=HTTP + "/anthropic", auth_token=KEY, api_key=None, max_retries=0), MODELS[0])
    print("anthropic", anthropic.__version__, "ok")


main()
