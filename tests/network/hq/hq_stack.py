"""HQ of vantage6 5 with one node a site, on loopback; `hq_network` runs it with a Python of vantage6 5.

Lines of JSON come in and go out: first the sites, then one line for each thing to do, answered by one line.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
import yaml
from vantage6.client import UserClient
from vantage6.common.encryption import DummyCryptor

HERE = Path(__file__).parent
UP_S, TASK_S = 120, 400
LOGGING = {
    "level": "DEBUG",
    "file": "log.txt",
    "use_console": True,
    "backup_count": 1,
    "max_size": 1024,
    "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
    "datefmt": "%H:%M:%S",
    "loggers": [],
}
# What a task's runs are when it is over.
ALIVE = {"pending", "initializing", "active", "awaiting", "queued"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(done: Callable[[], object], seconds: float = UP_S) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if done():
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise TimeoutError("not within the time it may take")


class Stack:
    """Keycloak's and Kubernetes' stand-ins, HQ, and nodes."""

    def __init__(self, folder: Path, sites: dict[str, dict]) -> None:
        self.folder, self.sites = folder, sites
        self.processes: dict[str, subprocess.Popen] = {}
        self.keycloak, self.hq, self.kubernetes = free_port(), free_port(), free_port()
        os.environ.update(
            KEYCLOAK_URL=f"http://127.0.0.1:{self.keycloak}",
            KEYCLOAK_REALM="vantage6",
            KEYCLOAK_ADMIN_USERNAME="admin",
            KEYCLOAK_ADMIN_PASSWORD="x",
            KEYCLOAK_ADMIN_CLIENT="backend-admin-client",
            KEYCLOAK_ADMIN_CLIENT_SECRET="backend-secret",
            K8S_URL=f"http://127.0.0.1:{self.kubernetes}",
            **{f"XDG_{name}_HOME": str(folder) for name in ("CONFIG", "DATA", "CACHE", "STATE")},
        )

    def start(self) -> None:
        self._begin("keycloak", HERE / "stand_in_keycloak.py", self.keycloak)
        until(lambda: requests.get(f"{os.environ['KEYCLOAK_URL']}/realms/vantage6", timeout=5).ok)
        self._begin("kubernetes", HERE / "stand_in_kubernetes.py", self.kubernetes)
        config = self.folder / "hq.yaml"
        content = {
            "api_path": "/hq",
            "uri": f"sqlite:///{self.folder}/hq.sqlite",
            "jwt_secret_key": secrets.token_hex(16),
            "logging": LOGGING,
        }
        config.write_text(yaml.safe_dump(content))
        self._begin("hq", HERE / "run_hq.py", config, self.hq)
        until(lambda: requests.get(f"http://127.0.0.1:{self.hq}/hq/health", timeout=5).ok)
        root = self._client("admin", "admin-secret")
        address = dict.fromkeys(("address1", "address2", "zipcode", "country"), "")
        self.organizations = {
            name: root.organization.create(name=name, domain=f"{name}.example", **address)["id"] for name in self.sites
        }
        ids = list(self.organizations.values())
        self.collaboration = root.collaboration.create(name="hospitals", organizations=ids, encrypted=False)["id"]
        for name in self.sites:
            self._start_node(root, name)
        roles = [role["id"] for role in root.role.list(per_page=50)["data"] if role["name"] == "Collaboration Admin"]
        user = root.user.create(username="researcher", organization=ids[0], roles=roles, is_service_account=True)
        self.secret = user["client_secret"]
        self.client = self._client("researcher", self.secret)
        until(lambda: all(node["status"] == "online" for node in self.client.node.list()["data"]))
        session = self.client.session.create(name="s", collaboration=self.collaboration, scope="collaboration")
        self.session = session["id"]

    def _start_node(self, root: UserClient, name: str) -> None:
        site = self.sites[name]
        node = root.node.create(collaboration=self.collaboration, organization=self.organizations[name], name=name)
        work = self.folder / name
        for part in ("databases", "tasks"):
            (work / part).mkdir(parents=True)
        environment = {"V6_API_KEY": node["api_key"], "V6_NODE_NAME": node["name"], "V6_PROXY_HOST": "http://127.0.0.1"}
        environment["DATABASE_LABELS"] = ",".join(site["databases"])
        for label, (uri, kind) in site["databases"].items():
            os.symlink(uri, work / "databases" / f"{label}.{kind}")
            environment |= {f"DATABASE_{label.upper()}_URI": uri, f"DATABASE_{label.upper()}_TYPE": kind}
        config = {
            "hq_url": "http://127.0.0.1",
            "port": self.hq,
            "api_path": "/hq",
            "production": False,
            "encryption": {"enabled": False, "private_key": None},
            "logging": LOGGING,
            "task_dir": str(work / "tasks"),
            "task_namespace": "v6",
            "node_proxy_port": free_port(),
            "policies": {},
            "algorithm_env": site.get("environment", {}),
        }
        (work / f"{name}.yaml").write_text(yaml.safe_dump(config))
        self._begin(name, HERE / "run_node.py", work / f"{name}.yaml", work, **environment)

    def _begin(self, name: str, *command: object, **environment: str) -> None:
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *map(str, command)],
                env={**os.environ, **environment},
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _client(self, name: str, secret: str) -> UserClient:
        client = UserClient(f"http://127.0.0.1:{self.hq}/hq", os.environ["KEYCLOAK_URL"], log_level="error")
        client.initialize_service_account(secret, username=name)
        client.authenticate_service_account()
        # 5.0.3 sets none for a service account.
        client.cryptor = DummyCryptor()
        return client

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGKILL)  # at SIGTERM a node waits for its threads

    # -- what a test asks for -------------------------------------------------------------------------------------

    def extract(self, name: str, label: str, method: str = "extract", arguments: dict | None = None) -> dict:
        """Make a dataframe of each site's database `label`."""
        frame = self.client.dataframe.create(
            label=label, name=name, image="local", method=method, arguments=arguments or {}, session=self.session
        )
        return {"dataframe": frame["id"], **self._over(frame["last_session_task"]["id"])}

    def task(
        self, method: str, arguments: dict, dataframe: int, action: str, sites: list[str], kill: list[str] | None = None
    ) -> dict:
        """Run a task on a dataframe; `kill` is a method and a site whose job of it is killed on the way."""
        start = time.monotonic()
        created = self.client.task.create(
            collaboration=self.collaboration,
            session=self.session,
            organizations=[self.organizations[name] for name in sites],
            name=method,
            description="",
            image="local",
            method=method,
            arguments=arguments,
            action=action,
            databases=[{"type": "dataframe", "dataframe_id": dataframe}],
        )
        if "id" not in created:
            return {"refused": created}
        if kill:
            self.kill_job(kill[0], site=kill[1])
        over = self._over(created["id"])
        results = [item["result"] for item in self.client.result.from_task(created["id"])["data"] if item["result"]]
        return {"results": [json.loads(text) for text in results], "seconds": time.monotonic() - start, **over}

    def stop_node(self, site: str) -> dict:
        """Take a site away."""
        self.processes[site].send_signal(signal.SIGKILL)
        return {}

    def kill_job(self, method: str, children: int = 0, site: str | None = None) -> dict:
        """SIGKILL the process of a method, once its task has so many subtasks, or that of one site; return its task."""

        def newest() -> dict:
            listed = self.client.task.list(per_page=50)["data"]
            return max((task for task in listed if task["method"] == method), key=lambda task: task["id"])

        if children:
            until(lambda: len(self.client.task.list(parent=newest()["id"], per_page=50)["data"]) >= children, TASK_S)
        wanted = {"ALGORITHM_METHOD": method} | ({"ORGANIZATION_ID": str(self.organizations[site])} if site else {})
        until(lambda: self._killed(wanted), TASK_S)
        task = newest()["id"]
        return {"task": task, **(self._over(task) if site is None else {})}

    def _killed(self, wanted: dict[str, str]) -> bool:
        """Kill the jobs with these variables, which nodes write in base32; say whether there was one."""
        lines = {
            f"{name}={base64.b32encode(text.encode()).decode().replace('=', '!')}" for name, text in wanted.items()
        }
        killed = False
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = set((folder / "environ").read_text(errors="replace").split("\0"))
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.processes["kubernetes"].pid and lines <= environment:
                    os.kill(int(folder.name), signal.SIGKILL)
                    killed = True
            except OSError:
                continue
        return killed

    def _over(self, task: int) -> dict:
        end = time.monotonic() + TASK_S
        while time.monotonic() < end:
            runs = self.client.run.from_task(task)["data"]
            if runs and not any(run["status"] in ALIVE for run in runs):
                names = {number: name for name, number in self.organizations.items()}
                statuses = {names[run["organization"]["id"]]: run["status"] for run in runs}
                return {"task": task, "runs": statuses, "log": "\n".join(str(run["log"]) for run in runs)}
            time.sleep(0.3)
        raise TimeoutError(f"task {task} is not over")


def main() -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    # vantage6's client prints what it waits for.
    os.dup2(2, 1)
    folder, sites = Path(sys.argv[1]), json.loads(sys.stdin.readline())
    stack = Stack(folder, sites)
    try:
        stack.start()
        about = {"organizations": stack.organizations, "hq": stack.hq, "keycloak": stack.keycloak}
        out.write(json.dumps({**about, "secret": stack.secret}) + "\n")
        for line in sys.stdin:
            order = json.loads(line)
            try:
                answer = getattr(stack, order.pop("do"))(**order)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(answer) + "\n")
    finally:
        stack.stop()


if __name__ == "__main__":
    main()
