"""How soon an ingress knows that a key was issued, and that it was disabled.

    cargo run --release -- up --simulate --exec python3 bench/keys.py [ROUNDS]

Each round issues a key and asks until it is accepted, disables it and asks until it is refused. Times are from the answer of
`tollgate keys` to the first request that is answered otherwise; the command's own time is apart.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

TOLLGATE = os.environ.get("tollgate", "target/release/tollgate")
URL = os.environ["TOLLGATE_HTTP"] + "/v1/models"


def accepted(key):
    request = urllib.request.Request(URL, headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request) as answer:
            json.load(answer)
            return True
    except urllib.error.HTTPError as error:
        assert error.code == 401, error
        return False


def command(*arguments):
    begun = time.perf_counter()
    told = subprocess.run([TOLLGATE, "keys", *arguments], check=True, capture_output=True, text=True).stdout
    return told, time.perf_counter() - begun


def until(key, expected):
    begun = time.perf_counter()
    while accepted(key) is not expected:
        assert time.perf_counter() - begun < 10, "not within ten seconds"
    return time.perf_counter() - begun


def main(rounds):
    known, ended, commands = [], [], []
    for number in range(rounds):
        told, spent = command("create", f"bench-{number}")
        key = told.splitlines()[0]
        commands.append(spent)
        known.append(until(key, True))
        _, spent = command("disable", f"bench-{number}")
        commands.append(spent)
        ended.append(until(key, False))
    for name, times in [("issued", known), ("disabled", ended), ("command", commands)]:
        times.sort()
        worst, median = times[-1] * 1000, statistics.median(times) * 1000
        print(f"{name:9} median {median:6.1f} ms  worst {worst:6.1f} ms  of {len(times)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
