"""The few calls of Kubernetes that nodes of vantage6 5 make: stand_in_kubernetes.py PORT. Every job is a process here.

A stand-in for tests on loopback. Of jobs, pods and secrets it keeps what it is told; ALGORITHM_COMMAND, split at
spaces, is what runs in place of a job's image, with paths of mounts replaced by the node's own. Where ALGORITHM_IMAGE
names one, every job is a container of that image instead, with the mounts and variables that the node asks for.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

JOBS: dict[str, dict] = {}
PODS: dict[str, dict] = {}
SECRETS: dict[str, dict] = {}
LOGS: dict[str, str] = {}
TABLES = {"pods": PODS, "jobs": JOBS, "secrets": SECRETS}
WRAPPER = "from vantage6.algorithm.tools.wrap import wrap_algorithm; wrap_algorithm()"
# What the wrapper of a process needs of this one's environment; other kernels of OpenBLAS round otherwise.
KEPT = ("PATH", "PKG_NAME", "PYTHONPATH", "OMP_NUM_THREADS", "HOME", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def pod(name: str, labels: dict | None, phase: str = "Running", code: int | None = None) -> dict:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"running": {"startedAt": now}} if code is None else {"terminated": {"exitCode": code}}
    container = {"name": "c", "image": "", "imageID": "", "ready": True, "restartCount": 0, "state": state}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": []},
        "status": {"phase": phase, "containerStatuses": [container]},
    }


def at_home(value: str, mounts: dict[str, str]) -> str:
    """Replace a mount's path in a value, which nodes write in base32."""
    try:
        plain = base64.b32decode(value.replace("!", "=")).decode()
    except ValueError:
        return value
    for mount, host in mounts.items():
        if plain == mount or plain.startswith(f"{mount}/"):
            plain = host + plain[len(mount) :]
    return base64.b32encode(plain.encode()).decode().replace("=", "!")


def execute(job: dict) -> None:
    """Run a job's container as a process, and book how it ended."""
    name, template = job["metadata"]["name"], job["spec"]["template"]
    container = template["spec"]["containers"][0]
    hosts = {volume["name"]: volume["hostPath"]["path"] for volume in template["spec"]["volumes"]}
    mounts = {mount["mountPath"]: hosts[mount["name"]] for mount in container["volumeMounts"]}
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    for source in container.get("envFrom") or []:
        environment |= SECRETS.get(source["secretRef"]["name"], {})
    labels = {**template["metadata"]["labels"], "job-name": name}
    PODS[name] = pod(name, labels)
    if image := os.environ.get("ALGORITHM_IMAGE"):
        # On the host's network, since a node's proxy is on its loopback here; values stay out of the arguments.
        volumes = [part for mount, host in mounts.items() for part in ("--volume", f"{host}:{mount}")]
        variables = [part for name in environment for part in ("--env", name)]
        command = ["docker", "run", "--rm", "--network", "host", *volumes, *variables, image]
        given = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ} | environment
    else:
        command = [*os.environ["ALGORITHM_COMMAND"].split(), "-c", WRAPPER]
        given = {name: os.environ[name] for name in KEPT if name in os.environ}
        given |= {name: at_home(value, mounts) for name, value in environment.items()}
    ended = subprocess.run(
        command,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    LOGS[name] = ended.stdout
    PODS[name] = pod(name, labels, "Failed" if ended.returncode else "Succeeded", ended.returncode)
    job["status"] = {"failed": 1} if ended.returncode else {"succeeded": 1}


def matches(labels: dict | None, selector: str) -> bool:
    pairs = [pair.split("=", 1) for pair in selector.split(",") if pair]
    return all((labels or {}).get(name) == value for name, value in pairs)


class Handler(BaseHTTPRequestHandler):
    """Jobs, pods with their logs, and secrets of one namespace."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def answer(self, code: int, body: object) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def respond(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = address.path.strip("/").split("/")
        parts = parts[parts.index("namespaces") + 1 :]
        if len(parts) < 2:
            self.answer(200, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": parts[0]}})
            return
        kind, name = parts[1], parts[2] if len(parts) > 2 else None
        if self.command == "POST":
            self.create(kind, json.loads(content))
        elif self.command == "DELETE":
            there = TABLES[kind].pop(name, None) is not None
            self.answer(200 if there else 404, {"kind": "Status", "status": "Success"})
        elif name and len(parts) == 4:
            self.log(name, follow=query.get("follow") == "true")
        elif name:
            there = name in TABLES[kind]
            self.answer(200 if there else 404, TABLES[kind][name] if there else {"kind": "Status"})
        elif query.get("watch"):
            self.watch(kind, query)
        else:
            self.answer(200, {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": self.chosen(kind, query)})

    do_GET = do_POST = do_DELETE = do_PATCH = respond

    def create(self, kind: str, body: dict) -> None:
        name = body["metadata"]["name"]
        if kind == "secrets":
            SECRETS[name] = body.get("stringData") or {}
        elif kind == "pods":
            # The node tries whether an algorithm could reach the world; it could not.
            PODS[name] = pod(name, body["metadata"].get("labels"), "Failed", 1)
        else:
            body["status"] = {"active": 1}
            JOBS[name] = body
            threading.Thread(target=execute, args=(body,), daemon=True).start()
        self.answer(201, body)

    def log(self, name: str, *, follow: bool) -> None:
        while follow and PODS.get(name, {}).get("status", {}).get("phase") == "Running":
            time.sleep(0.1)
        self.answer(200, LOGS.get(name, ""))

    def chosen(self, kind: str, query: dict[str, str]) -> list[dict]:
        selector = query.get("labelSelector", "")
        return [item for item in TABLES[kind].values() if matches(item["metadata"].get("labels"), selector)]

    def watch(self, kind: str, query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end, phase = time.time() + int(query.get("timeoutSeconds", 60)), None
        try:
            while time.time() < end:
                for item in self.chosen(kind, query):
                    if item["status"]["phase"] != phase:
                        phase = item["status"]["phase"]
                        event = json.dumps({"type": "MODIFIED", "object": item}).encode() + b"\n"
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                        self.wfile.flush()
                time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        self.close_connection = True


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
