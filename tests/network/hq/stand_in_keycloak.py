"""The few calls of Keycloak that HQ, nodes and clients of vantage6 5 make: stand_in_keycloak.py PORT.

A stand-in for tests on loopback, without any security: whoever knows a client's name and secret gets a token.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_KEY = base64.b64encode(
    KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
LIFETIME_S = 3600
USERS: dict[str, dict] = {}
CLIENTS: dict[str, dict] = {}


def add_user(name: str, **more) -> str:
    number = str(uuid.uuid4())
    USERS[number] = {"id": number, "username": name, "attributes": {}, **more}
    return number


def add_client(name: str, kind: str = "user", secret: str | None = None, user: str | None = None) -> str:
    number = str(uuid.uuid4())
    CLIENTS[number] = {
        "id": number,
        "clientId": name,
        "secret": secret or uuid.uuid4().hex,
        "kind": kind,
        "user": user or add_user(f"service-account-{name}"),
    }
    return number


add_client("backend-admin-client", secret="backend-secret")
add_client("admin-user-client", secret="admin-secret", user=add_user("admin"))


class Handler(BaseHTTPRequestHandler):
    """Realm, tokens, and the users and clients that HQ creates."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def answer(self, code: int, body: object = None, **headers: str) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def respond(self) -> None:
        address = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [part for part in address.path.split("/") if part]
        if parts[0] == "realms":
            self.realm(parts, content)
        elif parts[0] == "admin" and parts[3] == "users":
            self.users(parts[4:], content, parse_qs(address.query))
        elif parts[0] == "admin" and parts[3] == "clients":
            self.clients(parts[4:], content)
        else:
            self.answer(404, {"error": address.path})

    do_GET = do_POST = do_PUT = do_DELETE = respond

    def realm(self, parts: list[str], content: bytes) -> None:
        base = f"http://{self.headers['Host']}/realms/{parts[1]}"
        if len(parts) == 2:
            self.answer(200, {"realm": parts[1], "public_key": PUBLIC_KEY})
        elif parts[-1] == "openid-configuration":
            self.answer(200, {"issuer": base, "token_endpoint": f"{base}/protocol/openid-connect/token"})
        elif parts[-1] == "token":
            self.token(base, {name: values[0] for name, values in parse_qs(content.decode()).items()})
        else:
            self.answer(404, {"error": self.path})

    def token(self, base: str, form: dict[str, str]) -> None:
        name, secret = form.get("client_id"), form.get("client_secret")
        if (header := self.headers.get("Authorization", "")).startswith("Basic "):
            name, secret = base64.b64decode(header[6:]).decode().split(":", 1)
        client = next((c for c in CLIENTS.values() if c["clientId"] == name and c["secret"] == secret), None)
        if client is None:
            self.answer(401, {"error": "unauthorized_client"})
            return
        now = int(time.time())
        claims = {"sub": client["user"], "iss": base, "aud": "account", "azp": name, "iat": now}
        claims |= {"exp": now + LIFETIME_S, "vantage6_client_type": client["kind"]}
        token = jwt.encode(claims, KEY, algorithm="RS256")
        self.answer(
            200, {"access_token": token, "refresh_token": token, "expires_in": LIFETIME_S, "token_type": "Bearer"}
        )

    def users(self, rest: list[str], content: bytes, query: dict[str, list[str]]) -> None:
        if not rest and self.command == "GET":
            name = query.get("username", [None])[0]
            self.answer(200, [user for user in USERS.values() if name in (None, user["username"])])
        elif not rest:
            body = json.loads(content)
            self.answer(201, Location=f"{self.path}/{add_user(body.pop('username'), **body)}")
        elif self.command == "GET":
            self.answer(200, USERS[rest[0]])
        elif self.command == "PUT":
            USERS[rest[0]].update(json.loads(content))
            self.answer(204)
        else:
            USERS.pop(rest[0])
            self.answer(204)

    def clients(self, rest: list[str], content: bytes) -> None:
        if not rest and self.command == "GET":
            self.answer(200, list(CLIENTS.values()))
        elif not rest:
            body = json.loads(content)
            mappers = [mapper["config"] for mapper in body.get("protocolMappers", [])]
            claims = {mapper.get("claim.name"): mapper.get("claim.value") for mapper in mappers}
            number = add_client(body["clientId"], claims.get("vantage6_client_type", "user"))
            self.answer(201, Location=f"/admin/realms/x/clients/{number}")
        elif rest[1:] == ["client-secret"]:
            self.answer(200, {"value": CLIENTS[rest[0]]["secret"]})
        else:
            CLIENTS.pop(rest[0])
            self.answer(204)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
