"""LangChain's three packages against Tollgate: invoke, stream, a tool loop and structured output."""

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from common import EMBEDDERS, HELLO, HTTP, KEY, MODELS, SAID, TWO_CALLS


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    warm: bool


@tool
def weather(city: str) -> str:
    """Tells the weather in a city."""
    return "sunny"


def clients(model):
    yield ChatOpenAI(model=model, base_url=HTTP + "/openai/v1", api_key=KEY, max_retries=0)
    yield ChatOpenAI(model=model, base_url=HTTP + "/openai/v1", api_key=KEY, max_retries=0, use_responses_api=True)
    yield ChatAnthropic(model=model, base_url=HTTP + "/anthropic", api_key=KEY, max_retries=0, max_tokens=1000)
    yield ChatGoogleGenerativeAI(model=model, base_url=HTTP + "/gemini", api_key=KEY, max_retries=1)


def check(client):
    answer = client.invoke(HELLO)
    assert answer.text == SAID, answer
    assert answer.usage_metadata["input_tokens"] > 0 and answer.usage_metadata["output_tokens"] > 0, answer
    pieces = [piece.text for piece in client.stream(HELLO)]
    assert "".join(pieces) == SAID and len(pieces) > 2, pieces
    bound = client.bind_tools([weather])
    turns = [HumanMessage(TWO_CALLS)]
    turns.append(bound.invoke(turns))
    calls = turns[-1].tool_calls
    assert len(calls) == 2 and all(isinstance(call["args"]["city"], str) for call in calls), turns[-1]
    for number, call in enumerate(calls):
        turns.append(ToolMessage(f"sunny {number}", tool_call_id=call["id"], name=call["name"]))
    said = bound.invoke(turns).text
    assert said.startswith("The tools said: ") and "sunny 0" in said and "sunny 1" in said, said
    shaped = client.with_structured_output(Weather).invoke(HELLO)
    assert isinstance(shaped, Weather), shaped


def main():
    for model in MODELS:
        for client in clients(model):
            try:
                check(client)
            except Exception as error:
                error.add_note(f"{type(client).__name__} with {model}")
                raise
    for model in EMBEDDERS:
        embedder = OpenAIEmbeddings(
            model=model, base_url=HTTP + "/openai/v1", api_key=KEY, max_retries=0, check_embedding_ctx_length=False
        )
        assert len(embedder.embed_documents(["a", "b"])) == 2
    print("langchain ok")


main()
