"""Writes a corpus to begin from, and a dictionary, out of the reviewed snapshots: fuzz/seeds.py CORPUS DICTIONARY"""

import json
import pathlib
import re
import sys

SNAPSHOTS = pathlib.Path(__file__).parent / "../crates/tollgate-dialect/src/golden/snapshots"
DIALECTS = ["openai_chat", "openai_responses", "anthropic", "gemini", "bedrock", "native"]

corpus, dictionary = map(pathlib.Path, sys.argv[1:])
words = set()
for name in ("request", "answer"):
    (corpus / name).mkdir(parents=True, exist_ok=True)


def seed(target, name, head, body):
    (corpus / target / f"seed_{name}").write_bytes(bytes(head) + body.encode())


for path in SNAPSHOTS.glob("*.snap"):
    text = path.read_text().split("---\n", 2)[2]
    words.update(re.findall(r'"[A-Za-z0-9_.]{2,40}"', text))
    snapshot = json.loads(text)
    if "_to_" in path.stem:
        body = json.dumps(snapshot["body"])
        written_for = DIALECTS.index(path.stem.split("_to_")[1])
        for provider in range(len(DIALECTS)):
            seed("request", f"{path.stem}_{provider}", [written_for, provider], body)
    elif path.stem.startswith("answer_for_"):
        dialect = DIALECTS.index(path.stem.removeprefix("answer_for_"))
        events = snapshot["stream"]
        stream = "".join(
            (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n"
            for event in events
            if isinstance(event, dict)
        )
        for client in range(5):
            seed("answer", f"whole_{dialect}_{client}", [client, dialect % 5, 50], json.dumps(snapshot["whole"]))
            seed("answer", f"stream_{dialect}_{client}", [client, dialect % 5, 50], stream + "data: [DONE]\n\n")
escaped = (word.strip('"') for word in sorted(words))
dictionary.write_text("".join(f'"\\"{word}\\""\n' for word in escaped))
