"""Memory of every role while the database is stalled, the provider is stalled, and clients read slowly.

    tollgate up --exec python3 bench/memory.py [SECONDS]

Four things at once, after a warm-up: ordinary clients without a pause; clients that ask for prompts whose answer never
comes; clients that read long answers a few bytes at a time; and Postgres held with SIGSTOP for the middle half of the run.
Together they ask for a few calls more than the worker has permits. Prints each process's resident memory in MiB over time,
and what the clients were told.
"""

import collections
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 120
CLIENTS, STALLED, SLOW = 16, 30, 20
URL, KEY = urlsplit(os.environ["TOLLGATE_HTTP"]), os.environ["TOLLGATE_API_KEY"]
told, lock, over = collections.Counter(), threading.Lock(), threading.Event()


def request(connection, prompt, stream):
    body = {"model": "sim-mini", "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return connection.getresponse()


def tell(kind, answer):
    with lock:
        waits = answer.getheader("retry-after") is not None
        told[kind, answer.status, "with Retry-After" if waits else ""] += 1


def ordinary():
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
    while not over.is_set():
        answer = request(connection, "hello " * 200, False)
        answer.read()
        tell("ordinary", answer)
        if answer.status != 200:
            time.sleep(0.1)


def stalled():
    while not over.is_set():
        connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=SECONDS)
        try:
            answer = request(connection, "wait #sim:stall", False)
            answer.read()
            tell("stalled", answer)
        except OSError:
            pass
        connection.close()
        over.wait(1)


def slow():
    while not over.is_set():
        sock = socket.create_connection((URL.hostname, URL.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = {"model": "sim-mini", "stream": True}
        body["messages"] = [{"role": "user", "content": "go on #sim:words=20000 #sim:chunk_tokens=4"}]
        body = json.dumps(body)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        sock.sendall(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        while not over.is_set() and sock.recv(512):
            time.sleep(0.2)
        sock.close()


def processes():
    """Names and process ids: the roles, which `up` started, and its servers."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in table.stdout.splitlines()[1:]]
    family = {str(os.getppid())}
    found = {}
    while True:
        more = {row[0]: row[2] for row in rows if row[1] in family and row[0] not in family}
        if not more:
            return found
        family |= set(more)
        for pid, args in more.items():
            words = args.split()
            name = os.path.basename(words[0])
            if name == "tollgate" and len(words) > 1:
                found[" ".join(words[1:4:2] if words[1] == "worker" else words[1:2])] = pid
            elif name in ("nats-server", "postgres"):
                found.setdefault(name, pid)


def resident(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return float("nan")


def database():
    """The server and its children, each by its own id, as far as they are of this stack."""
    server = processes()["postgres"]
    table = subprocess.run(["ps", "-o", "pid=", "--ppid", server], capture_output=True, text=True)
    return [int(pid) for pid in [server, *table.stdout.split()]]


def main():
    kinds = [(ordinary, CLIENTS), (stalled, STALLED), (slow, SLOW)]
    for kind, count in kinds:
        for _ in range(count):
            threading.Thread(target=kind, daemon=True).start()
    names, begun, held, samples = processes(), time.monotonic(), [], []
    while (now := time.monotonic() - begun) < SECONDS:
        if SECONDS / 4 < now < SECONDS * 3 / 4 and not held:
            held = database()
            for pid in held:
                os.kill(pid, signal.SIGSTOP)
        if now > SECONDS * 3 / 4 and held:
            for pid in held:
                os.kill(pid, signal.SIGCONT)
            held = []
        samples.append((now, {name: resident(pid) for name, pid in names.items()}))
        time.sleep(1)
    over.set()
    marks = [0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1]
    chosen = [samples[min(int(len(samples) * mark), len(samples) - 1)] for mark in marks]
    print(f"{'MiB after':<28}", *(f"{at:6.0f}s" for at, _ in chosen))
    for name in names:
        print(f"{name:<28}", *(f"{memory[name]:7.1f}" for _, memory in chosen))
    print("the database was held from", f"{SECONDS / 4:.0f} s to {SECONDS * 3 / 4:.0f} s")
    with lock:
        for (kind, status, waits), count in sorted(told.items()):
            print(f"{kind:<10} {status} {count:>8} {waits}")


main()
