"""Google's own package against Tollgate, with a model of every provider behind it."""

import base64

from google import genai
from google.genai import errors, types

from common import HELLO, HTTP, KEY, MODELS, PNG, SAID, SHAPE, TWO_CALLS, fails, fits

WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="d",
            parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}},
        )
    ]
)
BY_HAND = types.AutomaticFunctionCallingConfig(disable=True)


def client_at(url, key=KEY):
    options = types.HttpOptions(base_url=url, retry_options=types.HttpRetryOptions(attempts=1))
    return genai.Client(api_key=key, http_options=options)


def chat(client, model):
    answer = client.models.generate_content(
        model=model, contents=HELLO, config=types.GenerateContentConfig(system_instruction="be brief")
    )
    assert answer.text == SAID, answer
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.usage_metadata.prompt_token_count > 0 and answer.usage_metadata.candidates_token_count > 0


def stream(client, model):
    chunks = list(client.models.generate_content_stream(model=model, contents=HELLO))
    assert "".join(chunk.text or "" for chunk in chunks) == SAID and len(chunks) > 2, chunks
    assert chunks[-1].usage_metadata.candidates_token_count > 0, chunks[-1]


def tools(client, model, streamed):
    config = types.GenerateContentConfig(tools=[WEATHER], automatic_function_calling=BY_HAND)
    turns = [types.Content(role="user", parts=[types.Part(text=TWO_CALLS)])]

    def ask():
        if not streamed:
            return client.models.generate_content(model=model, contents=turns, config=config).candidates[0].content
        parts = []
        for chunk in client.models.generate_content_stream(model=model, contents=turns, config=config):
            parts.extend(chunk.candidates[0].content.parts or [] if chunk.candidates and chunk.candidates[0].content else [])
        return types.Content(role="model", parts=parts)

    first = ask()
    calls = [part.function_call for part in first.parts if part.function_call]
    assert len(calls) == 2 and all(isinstance(call.args["city"], str) for call in calls), first
    turns.append(first)
    results = [
        types.Part(
            function_response=types.FunctionResponse(id=call.id, name=call.name, response={"content": f"sunny {number}"})
        )
        for number, call in enumerate(calls)
    ]
    turns.append(types.Content(role="user", parts=results))
    said = "".join(part.text or "" for part in ask().parts)
    assert "sunny 0" in said and "sunny 1" in said and said.startswith("The tools said: "), said


def structured(client, model):
    config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=SHAPE)
    answer = client.models.generate_content(model=model, contents=HELLO, config=config)
    assert fits(answer.text), answer


def image(client, model):
    picture = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    answer = client.models.generate_content(model=model, contents=[picture, HELLO])
    assert answer.text == SAID + " [1 image]", answer


def reasoning(client, model):
    thinking = types.ThinkingConfig(thinking_budget=1024, include_thoughts=True)
    config = types.GenerateContentConfig(thinking_config=thinking, max_output_tokens=4000)
    answer = client.models.generate_content(model=model, contents=HELLO, config=config)
    parts = answer.candidates[0].content.parts
    assert any(part.thought and part.text for part in parts), parts
    assert answer.text == SAID, answer


def failures(client, model):
    def ask(text):
        return client.models.generate_content(model=model, contents=text)

    assert fails(errors.ClientError, lambda: ask("#sim:status=429")).status == "RESOURCE_EXHAUSTED"
    assert fails(errors.ClientError, lambda: ask("#sim:error_kind=context_length")).code == 400
    assert fails(errors.ServerError, lambda: ask("#sim:status=503")).code == 503

    def cut():
        for chunk in client.models.generate_content_stream(model=model, contents="one two three four #sim:cut=2"):
            assert not (chunk.candidates and chunk.candidates[0].finish_reason), chunk

    fails(errors.APIError, cut)


def main():
    client = client_at(HTTP)
    for model in MODELS:
        chat(client, model)
        stream(client, model)
        tools(client, model, False)
        tools(client, model, True)
        structured(client, model)
        image(client, model)
        reasoning(client, model)
        failures(client, model)
        assert client.models.count_tokens(model=model, contents=HELLO).total_tokens > 0
    assert fails(errors.ClientError, lambda: chat(client_at(HTTP, "tg_wrong"), MODELS[0])).code == 401
    assert fails(errors.ClientError, lambda: chat(client, "nothing")).code == 404
    assert MODELS[0] in [model.name.removeprefix("models/") for model in client.models.list()]
    chat(client_at(HTTP + "/gemini"), MODELS[0])
    print("google-genai", genai.__version__, "ok")


main()
