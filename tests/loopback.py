"""A node's proxy server on loopback, enough of it for vantage6's real `AlgorithmClient`.

Subtasks run in this process, through the package's own entry functions, with the JSON that would reach a container.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, urlparse

import jwt

import v6_algorithm


def numbered(tables: Mapping[str, Any]) -> dict[int, tuple[str, Any]]:
    """Return the organisations of these tables as a proxy takes them, from number 3 on."""
    return {number: (name, table.frame) for number, (name, table) in enumerate(tables.items(), start=3)}


class LoopbackProxy:
    """Answers `/organization`, `/task`, `/task/ID`, `/task/ID/status`, `/result`, `/run` and `/blobstream/status`.

    Parameters
    ----------
    organizations
        Id to (name, dataframe).
    outcome
        (organisation id, number of the call to it) to the status that run ends with, instead of being run.
    flaky
        Every n-th status request fails as the proxy does when the server is slow; 0: none.
    """

    def __init__(
        self,
        organizations: dict[int, tuple[str, Any]],
        *,
        outcome: Callable[[int, int], str | None] = lambda organization, call: None,
        flaky: int = 0,
    ) -> None:
        self.organizations = organizations
        self.outcome = outcome
        self.flaky = flaky
        self.tasks: dict[int, dict[str, Any]] = {}
        self.calls: dict[int, int] = {}
        self.looks = 0
        # Subtasks are asked for side by side; the sites' code runs in this one process.
        self._creating = threading.Lock()
        self.encrypted = True
        # The task whose container the client is in.
        self.parent = 1000
        # Organisations whose nodes the server calls offline.
        self.offline: set[int] = set()
        # (path, number of the request to it) to what goes wrong, as in `fails`.
        self.trouble: Callable[[str, int], str | None] = lambda path, number: None
        self.requests: dict[str, int] = {}
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlparse(self.path)
                path = url.path.strip("/")
                of_result = path.startswith("result") or "include=results" in url.query
                if not self._fails("result" if of_result else path.split("/")[-1]):
                    self._send(*proxy.get(path, parse_qs(url.query)))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self._fails("create"):
                    created = proxy.create(body)
                    if not self._fails("created"):
                        self._send(200, created)

            def _fails(self, what: str) -> bool:
                """Answer as the proxy of a node does when the server is away or being restarted."""
                number = proxy.requests[what] = proxy.requests.get(what, 0) + 1
                trouble = proxy.trouble(what, number)
                if trouble == "page":
                    self.send_response(502)
                    self.send_header("Content-Length", "18")
                    self.end_headers()
                    self.wfile.write(b"<h1>Bad Gateway</h")
                elif trouble == "message":
                    self._send(500, {"msg": "Request failed, see node logs"})
                return trouble is not None

            def _send(self, code: int, content: Any) -> None:
                text = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> LoopbackProxy:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def client(self) -> Any:
        """Return a real AlgorithmClient that talks to this proxy."""
        from vantage6.algorithm.client import AlgorithmClient

        identity = {
            "image": "image",
            "node_id": 1,
            "collaboration_id": 1,
            "organization_id": 1,
            "databases": [],
            "task_id": self.parent,
        }
        token = jwt.encode({"sub": identity}, "a key that nobody checks: long enough", algorithm="HS256")
        port = self.server.server_address[1]
        return AlgorithmClient(token=token, host="http://127.0.0.1", port=port, path="")

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        parts = path.split("/")
        if path == "organization":
            found = [{"id": key, "name": name} for key, (name, _) in self.organizations.items()]
            return 200, {"data": found, "links": {}}
        if parts[0] == "organization":
            return 200, {"id": int(parts[1]), "public_key": ""}
        if parts[0] == "task" and parts[-1] == "status":
            self.looks += 1
            if self.flaky and self.looks % self.flaky == 0:
                return 500, {"msg": "Request failed, see node logs"}
            return 200, {"status": self.tasks[int(parts[1])]["status"]}
        if parts[0] == "task" and query.get("include") == ["results"]:
            result = self.tasks[int(parts[1])]["result"]
            return 200, {"id": int(parts[1]), "results": [{"result": result, "blob_storage_used": False}]}
        if parts[0] == "collaboration":
            return 200, {"id": int(parts[1]), "encrypted": self.encrypted}
        if path == "task":
            parent, page = (int(query[key][0]) for key in ("parent_id", "page"))
            listed = [task for task in self.tasks.values() if task["parent"] == parent]
            size = int(query["per_page"][0])
            return 200, {"data": listed[size * (page - 1) : size * page]}
        task = self.tasks.get(int(query.get("task_id", ["0"])[0]), {})
        if path == "result":
            return 200, {"data": [{"result": task["result"], "blob_storage_used": False}], "links": {}}
        if path == "run":
            node = {"status": "offline" if task.get("organization") in self.offline else "online"}
            return 200, {"data": [{"log": task.get("log", ""), "node": node}], "links": {}}
        return 200, {"blob_store_enabled": False}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        with self._creating:
            return self._create(body)

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        (organization,) = body["organizations"]
        key = organization["id"]
        self.calls[key] = self.calls.get(key, 0) + 1
        number = len(self.tasks) + 1
        status = self.outcome(key, self.calls[key])
        if status == "not created":
            return {"msg": "Container-token is not valid"}
        task: dict[str, Any] = {
            "status": status or "completed",
            "result": None,
            "log": "info > ok\nerror > disk full\n",
            "id": number,
            "parent": self.parent,
            "organization": key,
            "name": body["name"],
            "description": body["description"],
            "init_org": {"id": 1},
        }
        if status is None:
            task_input = json.loads(base64.b64decode(organization["input"]))
            method = getattr(v6_algorithm, task_input["method"])
            task["result"] = base64.b64encode(self._output(method, key, task_input["kwargs"])).decode()
        self.tasks[number] = task
        return {"id": number}

    def _output(self, method: Callable[..., Any], organization: int, arguments: dict[str, Any]) -> bytes:
        """Return what a container leaves in its output: JSON, or what it wrote itself before it ended with 0."""
        with tempfile.NamedTemporaryFile() as output, patch.dict(os.environ, {"OUTPUT_FILE": output.name}):
            try:
                return json.dumps(method(self.organizations[organization][1], **arguments)).encode()
            except SystemExit:
                return output.read()
