"""Gaps between the chunks of a stream: straight from the simulator and through Tollgate, side by side, in one run.

    tollgate up --exec python3 bench/stream_gaps.py

The simulator sends a chunk every 10 ms. Nagle's algorithm meeting a delayed acknowledgement shows as gaps of 40 ms.
Prints medians and high percentiles of the gaps, the time to the first chunk, and how many gaps passed 30 ms.
"""

import http.client
import json
import os
import statistics
import sys
import time
from urllib.parse import urlsplit

STREAMS, WORDS, EVERY_MS = 20, 60, 10


def stream(base, key):
    """Seconds to the first event, and the gaps between the events of one stream."""
    url = urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    prompt = f"go on #sim:words={WORDS} #sim:chunk_delay_ms={EVERY_MS}"
    body = {"model": "sim-mini", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    begun = time.perf_counter()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    times = []
    while line := answer.readline():
        # Only chunks with content are spaced by the simulator; the finish follows the last of them at once.
        if line.startswith(b"data: ") and b'"content":"' in line and b'"content":""' not in line:
            times.append(time.perf_counter())
    connection.close()
    return times[0] - begun, [after - before for before, after in zip(times, times[1:])]


def main():
    ways = {
        "direct": (os.environ["TOLLGATE_SIMULATOR"], "sk-bench"),
        "tollgate": (os.environ["TOLLGATE_HTTP"], os.environ["TOLLGATE_API_KEY"]),
    }
    seen = {name: ([], []) for name in ways}
    for round_ in range(STREAMS + 1):
        for name, way in ways.items():
            first, gaps = stream(*way)
            if round_:  # the first round opens connections
                seen[name][0].append(first)
                seen[name][1].extend(gaps)
    print(f"{STREAMS} streams of {WORDS} chunks, one every {EVERY_MS} ms; milliseconds")
    print(f"{'':10}{'first p50':>10}{'gap p50':>10}{'gap p99':>10}{'gap max':>10}{'over 30':>10}")
    for name, (first, gaps) in seen.items():
        gaps.sort()
        row = (statistics.median(first), statistics.median(gaps), gaps[int(len(gaps) * 0.99)], gaps[-1])
        cells = "".join(f"{value * 1000:10.2f}" for value in row)
        print(f"{name:10}{cells}{sum(gap > 0.03 for gap in gaps):10}")


sys.exit(main())
