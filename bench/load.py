"""Load, straight to the simulator and through Tollgate, in one run: latency and CPU per request.

    tollgate up --exec python3 bench/load.py [REQUESTS] [CONCURRENCY]

CPU is what every process of the stack but the simulator and Postgres used, read from /proc, per request.
"""

import http.client
import json
import os
import sys
import threading
import time
from urllib.parse import urlsplit

TICK = os.sysconf("SC_CLK_TCK")


def stack_cpu():
    """Seconds of CPU by process name, of all processes that `up` started and that are part of the gateway."""
    used = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            args = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        program = os.path.basename(args[0]).decode(errors="replace")
        if program == "nats-server":
            name = "nats-server"
        elif program == "tollgate" and len(args) > 1 and args[1] not in (b"up", b"simulator"):
            name = args[1].decode()
        else:
            continue
        used[name] = used.get(name, 0) + (int(fields[11]) + int(fields[12])) / TICK
    return used


def run(base, key, total, width):
    """Latencies in seconds, sorted."""
    url, latencies, lock, left = urlsplit(base), [], threading.Lock(), iter(range(total))
    body = json.dumps({"model": "sim-mini", "messages": [{"role": "user", "content": "hello"}]})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def client():
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        while True:
            with lock:
                if next(left, None) is None:
                    return
            begun = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            latencies.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=client) for _ in range(width)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(latencies) == total, "a request failed"
    return sorted(latencies)


def main():
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    width = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    ways = {
        "direct": (os.environ["TOLLGATE_SIMULATOR"], "sk-bench"),
        "tollgate": (os.environ["TOLLGATE_HTTP"], os.environ["TOLLGATE_API_KEY"]),
    }
    print(f"{total} requests, {width} at a time")
    print(f"{'':10}{'rate/s':>10}{'p50 ms':>10}{'p99 ms':>10}")
    for name, way in ways.items():
        run(*way, max(width, 50), width)
        before, begun = stack_cpu(), time.perf_counter()
        latencies = run(*way, total, width)
        seconds = time.perf_counter() - begun
        p50, p99 = latencies[total // 2], latencies[int(total * 0.99)]
        print(f"{name:10}{total / seconds:10.0f}{p50 * 1000:10.2f}{p99 * 1000:10.2f}")
        if name == "tollgate":
            after = stack_cpu()
            shares = {role: (after[role] - before.get(role, 0)) / total * 1e6 for role in after}
            print("CPU microseconds per request: " + ", ".join(f"{role} {us:.0f}" for role, us in sorted(shares.items())))
            print(f"in all {sum(shares.values()):.0f}")


if __name__ == "__main__":
    main()
