"""What the scripts share: where Tollgate is, one model for each provider's dialect, and what the simulator says."""

import json
import os

HTTP = os.environ["TOLLGATE_HTTP"]
KEY = os.environ["TOLLGATE_API_KEY"]
MODELS = os.environ["TOLLGATE_MODELS"].split(",")
EMBEDDERS = os.environ["TOLLGATE_EMBEDDERS"].split(",")

# One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

HELLO = "hello"
SAID = "You said: hello"
TWO_CALLS = "weather in Rome and Oslo #sim:calls=2"
SHAPE = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}


def fits(text):
    """Whether a text is JSON of SHAPE."""
    value = json.loads(text) if isinstance(text, str) else value_of(text)
    return isinstance(value["city"], str) and isinstance(value["warm"], bool)


def value_of(thing):
    return thing if isinstance(thing, dict) else thing.model_dump()


def fails(kind, call):
    """The error of this kind that the call ends in."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
