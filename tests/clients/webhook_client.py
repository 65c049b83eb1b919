"""The reference library of Standard Webhooks, as the receiver of Tollgate's: a job's end is told until it is taken."""

import json
import os
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

received = Queue()


class Receiver(BaseHTTPRequestHandler):
    statuses = {"/moved": [302, 200], "/taken": [200]}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        status = self.statuses[self.path].pop(0)
        self.send_response(status)
        self.send_header("location", "/taken")
        self.send_header("content-length", "0")
        self.end_headers()
        received.put((self.path, status, dict(self.headers), body))

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()


def submit(webhook, text="hello"):
    job = {
        "url": "/v1/chat/completions",
        "body": {"model": "sim-mini", "messages": [{"role": "user", "content": text}]},
        "webhook": webhook,
        "batch": "told",
    }
    request = urllib.request.Request(
        os.environ["TOLLGATE_HTTP"] + "/v1/jobs",
        data=json.dumps(job).encode(),
        headers={"authorization": "Bearer " + os.environ["TOLLGATE_API_KEY"]},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["id"]


library = Webhook(os.environ["TOLLGATE_WEBHOOK_SECRET"])


def told():
    path, status, headers, body = received.get(timeout=30)
    headers = {name.lower(): value for name, value in headers.items()}
    event = library.verify(body, headers)
    try:
        library.verify(body.replace(b"told", b"sold"), headers)
        raise AssertionError("a changed body was verified")
    except WebhookVerificationError:
        pass
    return path, status, headers["webhook-id"], event


# A redirection is not followed; what is not taken comes again, as the same event.
job = submit(f"http://127.0.0.1:{server.server_port}/moved")
first, second = told(), told()
assert [first[:2], second[:2]] == [("/moved", 302), ("/moved", 200)], (first, second)
assert first[2] == second[2] and first[3] == second[3]
event = first[3]
assert event["type"] == "job.answered", event
assert event["data"]["id"] == job and event["data"]["batch"] == "told" and event["data"]["ended_at"]
assert "You said" not in json.dumps(event), "the answer is fetched, not sent"

job = submit(f"http://127.0.0.1:{server.server_port}/taken", "again")
path, status, _, event = told()
assert (path, status, event["data"]["id"]) == ("/taken", 200, job), event
assert event["type"] == "job.answered", event

for address in ("http://example.com/", "https://169.254.169.254/latest/meta-data", "https://[::1]/", "nonsense"):
    try:
        submit(address)
        raise AssertionError(address)
    except urllib.error.HTTPError as error:
        refused = json.load(error)["error"]
        assert (error.code, refused["param"]) == (400, "webhook"), refused
assert received.empty()
