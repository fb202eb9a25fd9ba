"""What vantage6-node 4.15 asks of docker-py's client, answered with processes: for machines without a Docker engine.

A run gets the variables, files and volumes that a container would get. Paths under /mnt are translated to where they
lie on this machine. Not here: isolation, read-only mounts, pulling, and the image's own Python and libraries.
"""

import base64
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

from docker.errors import ImageNotFound, NotFound

COMMAND = "from vantage6.algorithm.tools.wrap import wrap_algorithm; wrap_algorithm()"  # as in the Dockerfile
# Of this machine, for the linear algebra libraries; encoded, since the wrapper decodes every variable.
INHERITED = ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS")


def encode(value: str) -> str:
    """As `DockerTaskManager._encode_environment_variables` does."""
    return base64.b32encode(value.encode()).decode().replace("=", "!")


def decode(value: str) -> str:
    return base64.b32decode(value.replace("!", "=")).decode()


class Container:
    """One run of an algorithm."""

    def __init__(self, name: str, labels: dict[str, str], process: subprocess.Popen, log: Path, forget) -> None:
        self.name, self.labels, self.id = name, labels, str(process.pid)
        self.status = "running"
        self.attrs = {"State": {"ExitCode": 0}}
        self._process, self._log, self._forget = process, log, forget

    def reload(self) -> None:
        code = self._process.poll()
        if code is not None:
            self.status = "exited"
            self.attrs["State"]["ExitCode"] = code if code >= 0 else 128 - code

    def logs(self, stream: bool = False):
        return self._follow() if stream else self._log.read_bytes()

    def _follow(self):
        with self._log.open("rb") as file:
            line = b""
            while True:
                ended = self._process.poll() is not None
                line += file.readline()
                if line.endswith(b"\n") or (ended and line):
                    yield line
                    line = b""
                elif ended:
                    return
                else:
                    time.sleep(0.1)

    def remove(self, force: bool = False) -> None:
        if force and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._forget(self.name)


class ProcessEngine:
    """Stands in for `docker.DockerClient`.

    Parameters
    ----------
    folder
        Where volumes and logs are kept.
    python
        The interpreter that algorithms run under.
    images
        For every image name the variables that its Dockerfile would set, `PKG_NAME` among them.
    """

    def __init__(self, folder: Path, python: str, images: dict[str, dict[str, str]]) -> None:
        self._folder, self._python, self._images = folder, python, images
        self._containers: dict[str, Container] = {}
        for part in ("volumes", "logs", "home"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.containers = SimpleNamespace(run=self._run, list=self._list)
        self.images = SimpleNamespace(list=self._list_images, pull=self._pull)
        self.volumes = SimpleNamespace(
            get=self._get_volume, create=lambda name: self._volume(name).mkdir(exist_ok=True)
        )
        no_network = SimpleNamespace(connect=lambda *_, **__: None, disconnect=lambda *_, **__: None)
        self.networks = SimpleNamespace(list=lambda **_: [], create=lambda *_, **__: no_network)

    @classmethod
    def from_file(cls, path: Path) -> "ProcessEngine":
        settings = json.loads(path.read_text())
        return cls(Path(settings["folder"]), settings["python"], settings["images"])

    def ping(self) -> bool:
        return True

    def _volume(self, name: str) -> Path:
        return self._folder / "volumes" / name

    def _get_volume(self, name: str) -> None:
        if not self._volume(name).exists():
            raise NotFound(name)

    def _list_images(self, name: str) -> list[str]:
        return [name] if name in self._images else []

    def _pull(self, name: str) -> None:
        raise ImageNotFound(f"no registry has {name}; `require_algorithm_pull: false` lets a local image run")

    def _list(self, filters: dict, all: bool = False) -> list[Container]:
        containers = []
        for container in self._containers.values():
            container.reload()
            labels = {f"{key}={value}" for key, value in container.labels.items()}
            if filters.get("name", container.name) == container.name and labels.issuperset(filters.get("label", [])):
                containers.append(container)
        return [container for container in containers if all or container.status == "running"]

    def _run(self, image: str, *, environment: dict, volumes: dict, name: str, labels: dict, **_) -> Container:
        hosts = {mount["bind"]: Path(host) for host, mount in volumes.items()}
        hosts = {bind: host if host.is_absolute() else self._volume(str(host)) for bind, host in hosts.items()}
        log = self._folder / "logs" / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [self._python, "-c", COMMAND],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self._folder / "home"),
                    **{key: encode(os.environ[key]) for key in INHERITED if key in os.environ},
                    **self._images[image],
                    **{key: encode(on_this_machine(decode(value), hosts)) for key, value in environment.items()},
                },
                cwd=self._folder / "home",
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._containers[name] = Container(name, labels, process, log, self._containers.pop)
        return self._containers[name]


def on_this_machine(value: str, hosts: dict[str, Path]) -> str:
    """Translate a path in a container into the path of the mounted folder or file behind it."""
    for bind, host in hosts.items():
        if value == bind or value.startswith(f"{bind}/"):
            return f"{host}{value[len(bind) :]}"
    return value
