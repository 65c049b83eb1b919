"""Whether budgets and rate limits hold over three ingress replicas, how much of them can be used, and what they cost.

    cargo run --release -- up --simulate --exec python3 bench/limits.py [budget] [rate] [cost]

Needs psql, which samples the ledger. Starts two more ingresses, like the one that runs, and ends them.

budget: $1.00, calls of about a tenth of a cent, 64 at a time, one replica killed with -9 after 300 of them. What the ledger says was
    spent or reserved is sampled all the while.
rate: 1,000 requests a minute, offered several times as many for some minutes, evenly over the replicas and then nearly all to
    one. What was admitted is counted by the ledger's own times, in every sliding minute.
cost: requests with and without a budget and a rate limit, in turns: latency and CPU.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from urllib.parse import urlsplit

TOLLGATE = os.environ.get("tollgate", "target/release/tollgate")
DATABASE = os.environ["DATABASE_URL"]
TICK = os.sysconf("SC_CLK_TCK")
WIDTH = 64
BODY = {
    "model": "sim-mini",
    "messages": [{"role": "user", "content": "one two three four five six seven eight #sim:words=8"}],
    "max_tokens": 8,
}


def psql():
    found = shutil.which("psql")
    places = [found] if found else [f"/usr/lib/postgresql/{version}/bin/psql" for version in range(18, 13, -1)]
    return next(place for place in places if os.path.exists(place))


def sql(query):
    told = subprocess.run([psql(), DATABASE, "-qAtc", query], check=True, capture_output=True, text=True).stdout
    return told.strip()


def command(*arguments):
    return subprocess.run([TOLLGATE, *arguments], check=True, capture_output=True, text=True).stdout


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def processes(role):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            args = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
        except OSError:
            continue
        if os.path.basename(args[0]) == b"tollgate" and args[1:2] == [role.encode()]:
            yield int(pid), args[0].decode()


class Ingress:
    """One more, with the environment of the one that runs."""

    def __init__(self, log):
        pid, program = next(processes("ingress"))
        held = open(f"/proc/{pid}/environ", "rb").read().decode().split("\0")
        env = dict(pair.split("=", 1) for pair in held if "=" in pair)
        self.http, self.admin = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        env |= {
            "TOLLGATE_HTTP_LISTEN": urlsplit(self.http).netloc,
            "TOLLGATE_GRPC_LISTEN": f"127.0.0.1:{free_port()}",
            "TOLLGATE_DELIVERY_LISTEN": f"127.0.0.1:{free_port()}",
            "TOLLGATE_ADMIN_LISTEN": urlsplit(self.admin).netloc,
        }
        self.process = subprocess.Popen([program, "ingress"], env=env, stdout=log, stderr=log)
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{self.admin}/readyz", timeout=1).read()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("an ingress is not ready")

    def lease_times(self):
        """Upper bounds in seconds, and how many answers of audit took no longer."""
        text = urllib.request.urlopen(f"{self.admin}/metrics", timeout=5).read().decode()
        buckets = {}
        for line in text.splitlines():
            if "lease_duration" in line and "_bucket{" in line:
                bound = line.split('le="')[1].split('"')[0]
                buckets[float(bound)] = float(line.rsplit(" ", 1)[1])
        return buckets


class Client:
    def __init__(self, bases, key):
        self.key, self.bases, self.connections = key, bases, {}

    def ask(self, number, body=BODY):
        """Status and code; 0 when the replica is away."""
        base = self.bases[number % len(self.bases)]
        try:
            connection = self.connections.get(base)
            if connection is None:
                url = urlsplit(base)
                connection = self.connections[base] = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            told = answer.read()
            return answer.status, told
        except (OSError, http.client.HTTPException):
            self.connections.pop(base, None)
            return 0, b""


def hammer(width, work):
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(width)]
    [thread.start() for thread in threads]
    return threads


def key(name):
    return command("keys", "create", name).splitlines()[0]


def budget(ingresses):
    command("prices", "set", "simulator", "sim-mini", "input=40", "output=60", "--source", "bench")
    secret = key("purse")
    command("limits", "put", "purse", "--usd", "1", "--key", "purse")
    time.sleep(1)
    committed = (
        "SELECT state.used + state.open FROM limits l CROSS JOIN LATERAL limit_state(l, '15 s') AS state "
        "WHERE l.name = 'purse'"
    )
    held = "SELECT coalesce(sum(coalesce(cost_usd, hold_usd)), 0) FROM attempts WHERE key_name = 'purse'"
    spent = "SELECT coalesce(sum(cost_usd), 0) FROM ledger WHERE key_name = 'purse'"
    samples = tempfile.TemporaryFile("w+")
    watch = subprocess.Popen([psql(), DATABASE, "-qAt"], stdin=subprocess.PIPE, stdout=samples, text=True)
    watch.stdin.write(f"SELECT ({committed}), ({held}) \\watch 0.02\n")
    watch.stdin.flush()
    tally, stop, count, lock = Counter(), threading.Event(), iter(range(10**9)), threading.Lock()
    killed = []

    def work(_):
        client = Client([ingress.http for ingress in ingresses] + [os.environ["TOLLGATE_HTTP"]], secret)
        while not stop.is_set():
            with lock:
                number = next(count)
                if tally[200] >= 300 and not killed:
                    killed.append(time.perf_counter())
                    ingresses[0].process.kill()
            status, _ = client.ask(number)
            with lock:
                tally[status] += 1
            if status == 402:
                time.sleep(0.05)

    begun = time.perf_counter()
    threads = hammer(WIDTH, work)
    reached = {}
    while time.perf_counter() - begun < 120 and 0.99 not in reached:
        now = float(sql(spent))
        for share in (0.5, 0.9, 0.95, 0.99):
            if now >= share:
                reached.setdefault(share, round(time.perf_counter() - begun, 1))
        time.sleep(0.2)
    time.sleep(5)
    stop.set()
    [thread.join(5) for thread in threads]
    watch.terminate()
    samples.seek(0)
    rows = [[float(cell) for cell in line.split("|")] for line in samples if line.count("|") == 1]
    print(f"budget of $1.00: spent {sql(spent)}, calls {sql(spent.replace('coalesce(sum(cost_usd), 0)', 'count(*)'))}")
    print(f"  of {len(rows)} samples the highest: spent and in hand {max(row[0] for row in rows)}, "
          f"spent and reserved for calls {max(row[1] for row in rows)}")
    print(f"  seconds until a share was spent: {reached}; a replica killed after {killed[0] - begun:.1f} s")
    print(f"  answers by status: {dict(tally)}")
    assert all(max(row) <= 1 for row in rows), "more than the budget"


def rate(ingresses):
    bases = [ingress.http for ingress in ingresses if ingress.process.poll() is None] + [os.environ["TOLLGATE_HTTP"]]
    for name, weights in (("even", [1] * len(bases)), ("skewed", [18] + [1] * (len(bases) - 1))):
        secret = key(f"rate-{name}")
        command("limits", "put", f"rate-{name}", "--requests", "1000", "--per", "60s", "--key", f"rate-{name}")
        time.sleep(1)
        spread = [base for base, weight in zip(bases, weights) for _ in range(weight)]
        stop, tally, lock = threading.Event(), Counter(), threading.Lock()

        def work(number):
            client = Client(spread, secret)
            while not stop.is_set():
                status, _ = client.ask(number)
                with lock:
                    tally[status] += 1
                if status == 429:
                    time.sleep(0.1)

        threads = hammer(WIDTH, work)
        time.sleep(185)
        stop.set()
        [thread.join(5) for thread in threads]
        time.sleep(2)
        times = [float(line) for line in sql(
            "SELECT extract(epoch FROM accepted_at) FROM requests "
            f"WHERE key_name = 'rate-{name}' AND state = 'answered' ORDER BY 1").splitlines()]
        most, first = 0, 0
        for last, at in enumerate(times):
            while at - times[first] >= 60:
                first += 1
            most = max(most, last - first + 1)
        # From the first of one burst to the first of the burst two windows later.
        cycle = next(at for at in times if at > times[0] + 115) - times[0]
        used = sum(1 for at in times if at < times[0] + cycle)
        print(f"1,000 a minute, {name}: at most {most} in a sliding minute, {used / cycle * 60 / 10:.1f}% used, {dict(tally)}")


def cpu():
    used = Counter()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            args = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if os.path.basename(args[0]) == b"tollgate" and args[1:2] in ([b"ingress"], [b"audit"]):
            used[args[1].decode()] += (int(fields[11]) + int(fields[12])) / TICK
    return used


def cost(ingresses):
    base = next(ingress for ingress in ingresses if ingress.process.poll() is None)
    plain, limited = key("plain"), key("limited")
    command("limits", "put", "cost-usd", "--usd", "1000", "--per", "month", "--key", "limited")
    command("limits", "put", "cost-rate", "--requests", "1000000", "--per", "60s", "--key", "limited")
    time.sleep(1)
    total, rounds = 1500, 4
    times, spent = {"plain": [], "limited": []}, {"plain": Counter(), "limited": Counter()}
    for number in range(rounds + 1):
        for name, secret in (("plain", plain), ("limited", limited)):
            left, lock, taken = iter(range(total)), threading.Lock(), []

            def work(_):
                client = Client([base.http], secret)
                while True:
                    with lock:
                        if next(left, None) is None:
                            return
                    begun = time.perf_counter()
                    status, told = client.ask(0)
                    assert status == 200, (status, told)
                    taken.append(time.perf_counter() - begun)

            before = cpu()
            [thread.join() for thread in hammer(8, work)]
            # The first round warms up.
            if number > 0:
                times[name] += taken
                spent[name].update({role: seconds - before[role] for role, seconds in cpu().items()})
    for name in times:
        found = sorted(times[name])
        shares = ", ".join(f"{role} {seconds / len(found) * 1e6:.0f}" for role, seconds in sorted(spent[name].items()))
        print(f"{name:8} p50 {found[len(found) // 2] * 1e3:.2f} ms, p99 {found[int(len(found) * 0.99)] * 1e3:.2f} ms, "
              f"CPU µs a request: {shares}")
    buckets = sorted(base.lease_times().items())
    counted = buckets[-1][1] if buckets else 0
    for share in (0.5, 0.99):
        bound = next((bound for bound, count in buckets if count >= share * counted), None)
        print(f"  {share:.0%} of {counted:.0f} questions for slices were answered within {bound} s")


def main(parts):
    with tempfile.TemporaryFile() as log:
        ingresses = [Ingress(log), Ingress(log)]
        try:
            for part in parts:
                {"budget": budget, "rate": rate, "cost": cost}[part](ingresses)
        finally:
            [ingress.process.kill() for ingress in ingresses]


if __name__ == "__main__":
    main(sys.argv[1:] or ["cost", "budget", "rate"])
