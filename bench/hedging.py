"""What a hedge brings when a provider has a long tail, and what it costs: the same requests with and without, in one run.

    tollgate simulator --listen 127.0.0.1:18990 --script bench/hedging.json &
    SIMULATOR_KEY=any TOLLGATE_API_KEY=tg_hedging tollgate up --config bench/hedging.yaml --exec python3 bench/hedging.py

Three of a hundred calls to the first target begin and then hang; the worker gives such a call up after a second and the router
goes on to the next target. Prints the time to the first piece of the answer for both models, and what the ledger says.
"""

import collections
import http.client
import json
import os
import subprocess
import threading
import time
from urllib.parse import urlsplit

REQUESTS, CLIENTS = 4000, 8


def ask(connection, key, model, number):
    """Seconds to the first piece of a streamed answer."""
    message = {"role": "user", "content": f"request {number}"}
    body = json.dumps({"model": model, "stream": True, "messages": [message]})
    begun = time.perf_counter()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    first = answer.readline()
    took = time.perf_counter() - begun
    rest = answer.read()
    assert answer.status == 200 and rest.rstrip().endswith(b"data: [DONE]"), (answer.status, first, rest[-200:])
    return took


def main():
    url, key = urlsplit(os.environ["TOLLGATE_HTTP"]), os.environ["TOLLGATE_API_KEY"]
    waits, lock, numbers = collections.defaultdict(list), threading.Lock(), iter(range(REQUESTS))

    def client():
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            model = ("plain", "hedged")[number % 2]
            took = ask(connection, key, model, number)
            with lock:
                waits[model].append(took * 1000)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    print(f"{'ms to the first piece':<22} {'requests':>8} {'p50':>8} {'p95':>8} {'p99':>8} {'p99.9':>8}")
    for model, times in sorted(waits.items(), reverse=True):
        times.sort()
        marks = (f"{times[min(int(len(times) * share), len(times) - 1)]:8.1f}" for share in (0.5, 0.95, 0.99, 0.999))
        print(f"{model:<22} {len(times):>8}", *marks)
    # The last settlements are on their way.
    time.sleep(3)
    for sql in (
        "SELECT model, count(DISTINCT request_id) AS requests, count(*) AS calls, sum(input_tokens) AS input, "
        "sum(output_tokens) AS output FROM ledger GROUP BY model ORDER BY model",
        "SELECT hedged_requests, hedges, answered_by_hedge FROM cost_of_hedges",
    ):
        subprocess.run(["psql", os.environ["DATABASE_URL"], "-c", sql], check=True)


main()
