"""An identity provider: publishes its keys, and signs whatever claims it is asked to.

Prints its address, and serves until its standard input ends.
"""

import json
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

MAKERS = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS384": lambda: rsa.generate_private_key(65537, 3072),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Keys:
    def __init__(self):
        self.fetched = 0
        self.rotate()

    def rotate(self):
        self.keys = {name: (uuid.uuid4().hex, make()) for name, make in MAKERS.items()}

    def published(self):
        self.fetched += 1
        known = get_default_algorithms()
        published = []
        for name, (kid, key) in self.keys.items():
            jwk = known[name].to_jwk(key.public_key(), as_dict=True)
            published.append(jwk | {"kid": kid, "use": "sig", "alg": name})
        return {"keys": published}

    def sign(self, asked):
        name = asked["alg"]
        kid, key = self.keys[name]
        return jwt.encode(asked["claims"], key, algorithm=name, headers={"kid": kid} | asked.get("headers", {}))


class Handler(BaseHTTPRequestHandler):
    keys = Keys()

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        base = "http://%s:%d" % self.server.server_address
        if self.path == "/.well-known/openid-configuration":
            self.answer({"issuer": base, "jwks_uri": base + "/keys"})
        elif self.path == "/keys":
            self.answer(self.keys.published())
        else:
            self.send_error(404)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/rotate":
            self.keys.rotate()
            self.answer({"fetched": self.keys.fetched})
        else:
            self.answer({"token": self.keys.sign(asked)})

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("http://%s:%d" % server.server_address, flush=True)
sys.stdin.read()
