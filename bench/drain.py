"""How fast audit writes: calls are made while it is held, and then it has a backlog to write.

    cargo run --release -- up --simulate --exec python3 bench/drain.py [REQUESTS] [CONCURRENCY]

Each call is two events of the ledger, its start and its end, and each request one. Needs psql. Prints how many of them audit writes in a
second from the backlog, and its CPU for a call.
"""

import os
import signal
import subprocess
import sys
import time

from limits import processes, psql
from load import run, stack_cpu


def count():
    query = "SELECT count(*) FROM attempts WHERE state <> 'open'"
    told = subprocess.run([psql(), os.environ["DATABASE_URL"], "-qAtc", query], check=True, capture_output=True, text=True)
    return int(told.stdout)


requests = int(sys.argv[1]) if len(sys.argv) > 1 else 30000
width = int(sys.argv[2]) if len(sys.argv) > 2 else 32
base, key = os.environ["TOLLGATE_HTTP"], os.environ["TOLLGATE_API_KEY"]
run(base, key, 200, 4)
while count() < 200:
    time.sleep(0.1)
((audit, _),) = processes("audit")
os.kill(audit, signal.SIGSTOP)
try:
    run(base, key, requests, width)
finally:
    cpu, begun = stack_cpu()["audit"], time.perf_counter()
    os.kill(audit, signal.SIGCONT)
while (written := count()) < 200 + requests:
    assert time.perf_counter() - begun < 600, written
    time.sleep(0.1)
took, cpu = time.perf_counter() - begun, stack_cpu()["audit"] - cpu
print(f"{requests} calls written in {took:.1f} s: {requests / took:.0f} calls, {3 * requests / took:.0f} events a second")
print(f"audit's CPU for a call: {cpu / requests * 1e6:.0f} µs")
