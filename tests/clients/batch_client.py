"""OpenAI's own package against Tollgate's files and batches."""

import io
import json
import os
import time

import openai
from openai import OpenAI

client = OpenAI(
    base_url=os.environ["TOLLGATE_HTTP"] + "/v1", api_key=os.environ["TOLLGATE_API_KEY"], max_retries=0
)


def line(name, text, url="/v1/chat/completions", **changed):
    body = {"model": "sim-mini", "messages": [{"role": "user", "content": text}], **changed}
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body})


def upload(*lines):
    content = io.BytesIO("\n".join(lines).encode())
    return client.files.create(file=("requests.jsonl", content), purpose="batch")


def run(file, endpoint="/v1/chat/completions", **more):
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)
    assert batch.status == "validating" and batch.object == "batch", batch
    for _ in range(600):
        batch = client.batches.retrieve(batch.id)
        if batch.status not in ("validating", "in_progress", "finalizing"):
            return batch
        time.sleep(0.1)
    raise AssertionError(batch)


def rows(file_id):
    content = client.files.content(file_id).text
    assert client.files.retrieve(file_id).bytes == len(content.encode())
    return {row["custom_id"]: row for row in map(json.loads, content.splitlines())}


names = [f"request-{n}" for n in range(40)]
lines = [line(name, f"hello {name}" if n % 10 else "#sim:status=400") for n, name in enumerate(names)]
file = upload(*lines, "")
assert (file.filename, file.purpose, file.bytes) == ("requests.jsonl", "batch", len("\n".join(lines)) + 1), file
assert client.files.content(file.id).text.splitlines() == lines
batch = run(file, metadata={"project": "x"})
assert batch.status == "completed" and batch.metadata == {"project": "x"}, batch
assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (40, 36, 4), batch
answers, failures = rows(batch.output_file_id), rows(batch.error_file_id)
assert len(answers) == 36 and len(failures) == 4 and set(answers) | set(failures) == set(names)
for name, row in answers.items():
    assert row["error"] is None and row["response"]["status_code"] == 200, row
    assert row["response"]["body"]["choices"][0]["message"]["content"] == f"You said: hello {name}", row
for row in failures.values():
    assert row["response"] is None and row["error"]["code"] == "provider_refused", row

# Embeddings too.
embed = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"model": "sim-embed", "input": "hello"}}
batch = run(upload(json.dumps(embed)), endpoint="/v1/embeddings")
assert rows(batch.output_file_id)["e"]["response"]["body"]["data"][0]["embedding"] and batch.error_file_id is None

# A file with mistakes: every one is told, and nothing is called.
bad = upload(
    line("a", "x"),
    line("a", "x"),
    "{",
    line("b", "x", url="/v1/embeddings"),
    line("c", "x", model="nobody"),
    line("d", "x", stream=True),
)
batch = run(bad)
assert batch.status == "failed" and batch.failed_at and batch.output_file_id is None, batch
told = [(error.line, error.code) for error in batch.errors.data]
assert told == [
    (2, "duplicate_custom_id"),
    (3, "invalid_json_line"),
    (4, "mismatched_endpoint"),
    (5, "model_not_found"),
    (6, "invalid_request"),
], told
assert run(upload("")).errors.data[0].code == "empty_file"

# Cancelled: what has not begun never does.
slow = upload(*(line(f"s{n}", "#sim:delay_ms=200 slow") for n in range(2000)))
batch = client.batches.create(input_file_id=slow.id, endpoint="/v1/chat/completions", completion_window="1h")
while client.batches.retrieve(batch.id).status == "validating":
    time.sleep(0.05)
assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
for _ in range(600):
    batch = client.batches.retrieve(batch.id)
    if batch.status == "cancelled":
        break
    time.sleep(0.1)
counts = batch.request_counts
assert batch.status == "cancelled" and counts.failed > 0 and counts.completed + counts.failed == counts.total, batch
assert rows(batch.error_file_id).popitem()[1]["error"]["code"] == "batch_cancelled"


def fails(kind, code, call):
    try:
        call()
    except kind as error:
        assert error.code == code, (code, error.body)
        return
    raise AssertionError(code)


listed = client.batches.list(limit=2)
assert listed.has_more and listed.data[0].id == batch.id, listed
assert len(list(client.batches.list(limit=2))) == 5
assert len(client.files.list(purpose="batch").data) == 5
client.files.delete(file.id)
fails(openai.NotFoundError, "file_not_found", lambda: client.files.content(file.id))
fails(openai.NotFoundError, "batch_not_found", lambda: client.batches.retrieve("batch_00000000000000000000000000000000"))
fails(openai.NotFoundError, "batch_not_found", lambda: client.batches.retrieve("../../etc"))
fails(openai.BadRequestError, "invalid_request", lambda: client.batches.cancel(batch.id))
fails(openai.BadRequestError, "invalid_request", lambda: run(bad, endpoint="/v1/nothing"))
fails(openai.NotFoundError, "file_not_found", lambda: run(file))
fails(
    openai.BadRequestError,
    "invalid_request",
    lambda: client.files.create(file=("x", b"x"), purpose="fine-tune"),
)
