"""OpenAI's own package against Tollgate: chat, stream, tools, models, and the errors that its users catch."""

import os

import openai
from openai import OpenAI

base_url = os.environ["TOLLGATE_HTTP"] + "/v1"
client = OpenAI(base_url=base_url, api_key=os.environ["TOLLGATE_API_KEY"], max_retries=0)
hello = [{"role": "user", "content": "hello"}]

model = "sim-mini"
assert model in [m.id for m in client.models.list()]
assert client.models.retrieve(model).id == model

answer = client.chat.completions.create(model=model, messages=hello)
assert answer.choices[0].message.content == "You said: hello", answer
assert answer.usage.prompt_tokens > 0 and answer.choices[0].finish_reason == "stop"
assert answer._request_id.startswith("req_")

pieces = [
    chunk.choices[0].delta.content or ""
    for chunk in client.chat.completions.create(model=model, messages=hello, stream=True)
]
assert "".join(pieces) == "You said: hello" and len(pieces) > 3, pieces

chunks = list(
    client.chat.completions.create(model=model, messages=hello, stream=True, stream_options={"include_usage": True})
)
assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens

tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
called = client.chat.completions.create(model=model, messages=hello, tools=[tool], tool_choice="required")
assert called.choices[0].finish_reason == "tool_calls"
assert called.choices[0].message.tool_calls[0].function.name == "weather"


def fails(kind, text="hello", key=None, **changed):
    one = client.with_options(api_key=key) if key else client
    arguments = {"model": model, "messages": [{"role": "user", "content": text}], **changed}
    try:
        answer = one.chat.completions.create(**arguments)
        if arguments.get("stream"):
            list(answer)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


assert fails(openai.AuthenticationError, key="tg_wrong").code == "invalid_api_key"
assert fails(openai.NotFoundError, model="nothing").code == "model_not_found"
assert fails(openai.BadRequestError, temperature=9).status_code == 400
limited = fails(openai.RateLimitError, text="#sim:status=429")
assert limited.status_code == 429, limited
assert fails(openai.InternalServerError, text="#sim:status=503").status_code == 503
assert fails(openai.APIError, text="one two three four #sim:cut=2", stream=True).code == "provider_broken"
print("openai", openai.__version__, "ok")
