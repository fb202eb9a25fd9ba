"""`doctor`, `image test` and `image push` with a real Docker engine; `image build` has made the image they work on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_cli import docker

from v6_algorithm.researcher.image.names import own_version

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MAIN = "from v6_algorithm.researcher.cli import main; main()"
IMPOSSIBLE = 3


def image_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `v6-algorithm image …` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MAIN, "image", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def in_container(*options: str) -> dict[str, Any]:
    return json.loads(docker("run", "--rm", *options, "v6-algorithm", "doctor", "--json"))


def finding(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [found for found in report["findings"] if found["name"] == name]
    return found


@pytest.fixture(scope="module")
def derived(algorithm_image: str, tmp_path_factory: pytest.TempPathFactory):
    """`derived("ENV …")`: an image built FROM ours, as researchers make theirs; removed with the module."""
    made: list[str] = []

    def make(line: str) -> str:
        folder = tmp_path_factory.mktemp("derived")
        (folder / "Dockerfile").write_text(f"FROM {algorithm_image}\n{line}\n")
        made.append(f"derived-{len(made)}:test")
        docker("build", "--tag", made[-1], str(folder))
        return made[-1]

    yield make
    for image in made:
        docker("image", "rm", image)


@pytest.fixture(scope="module")
def local_registry(algorithm_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty registry on loopback."""
    folder = str(tmp_path_factory.mktemp("registry"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = subprocess.run([HERE / "registry.sh", "start", folder, port], capture_output=True, text=True)
    if started.returncode == IMPOSSIBLE and not os.environ.get("V6_REQUIRE_NETWORK"):
        pytest.skip(started.stderr.strip().splitlines()[-1])
    assert started.returncode == 0, started.stderr
    yield started.stdout.strip()
    subprocess.run([HERE / "registry.sh", "stop", folder], check=True)


# -- doctor --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_image_is_usable_by_its_own_doctor(algorithm_image):
    lines = docker("run", "--rm", algorithm_image, "v6-algorithm", "doctor").splitlines()
    assert lines[-1] == "usable"
    assert not [line for line in lines if line.startswith(("note", "problem"))]


@pytest.mark.slow
def test_the_doctor_sees_the_limits_of_its_container(algorithm_image):
    report = in_container("--memory", "900m", "--cpus", "0.5", "--shm-size", "32m", algorithm_image)
    assert finding(report, "memory")["details"]["limit_bytes"] == 900 * 2**20
    assert finding(report, "cpu")["details"]["limit"] == 0.5
    assert "OMP_NUM_THREADS=1" in finding(report, "cpu")["advice"]
    assert finding(report, "shared memory")["details"]["bytes"] == 32 * 2**20
    assert report["usable"]


@pytest.mark.slow
def test_labels_and_doctor_agree_on_what_is_inside(algorithm_image):
    labels = json.loads(docker("image", "inspect", algorithm_image))[0]["Config"]["Labels"]
    report = in_container(algorithm_image)
    assert labels["org.opencontainers.image.version"] == report["versions"]["v6-algorithm"] == own_version()
    assert labels["vantage6.version"] == report["versions"]["vantage6-algorithm-tools"]
    assert labels["v6-algorithm.variant"] == "cpu"
    assert finding(report, "torch")["details"]["cuda"] is None
    assert labels["org.opencontainers.image.created"]


# -- image test ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_image_works_as_a_node_runs_it(algorithm_image):
    # A network that still runs has containers of its own.
    others = set(docker("ps", "--all", "--quiet").split())
    done = image_command("test", "--tag", algorithm_image)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "RPC_prepare through vantage6's wrapper: 30 rows, 3 columns" in lines
    assert lines[-1] == f"{algorithm_image}: works"
    assert set(docker("ps", "--all", "--quiet", "--filter", f"ancestor={algorithm_image}").split()) <= others


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ENV GROUP=AGEGROUP", "problem: variables: vantage6's wrapper stops at GROUP"),
        ("RUN pip uninstall --quiet --yes openpyxl", "problem: readers: excel cannot be read"),
        ("ENV PKG_NAME=my_package", "problem: functions: my_package cannot be imported (ModuleNotFoundError)"),
    ],
)
def test_an_image_that_was_spoilt_does_not_pass(derived, line, says):
    done = image_command("test", "--tag", derived(line))
    assert done.returncode == 3
    assert says in done.stdout
    assert "its doctor finds it not usable" in done.stderr


@pytest.mark.slow
def test_a_command_that_is_not_the_wrapper_does_not_pass(derived):
    done = image_command("test", "--tag", derived('CMD ["python", "-c", "raise SystemExit(\'no wrapper\')"]'))
    assert done.returncode == 3
    assert "a call of RPC_prepare failed\n  no wrapper" in done.stderr


@pytest.mark.slow
def test_an_image_of_something_else_is_told_apart(algorithm_image):
    base = os.environ.get("V6_BASE_IMAGE", "v6-python-base:bookworm")
    done = image_command("test", "--tag", base)
    assert done.returncode == 3
    assert "the container does not start" in done.stderr
    assert "v6-algorithm" in done.stderr


# -- image push ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_pushed_can_be_pulled_by_the_digest_that_was_printed(derived, local_registry):
    image = derived("LABEL pushed=yes")
    done = image_command("push", local_registry, "--tag", image)
    assert done.returncode == 0, done.stderr
    name = image.split(":")[0]
    (by_digest,) = [line for line in done.stdout.splitlines() if line.startswith(f"{local_registry}/{name}@sha256:")]
    docker("image", "rm", f"{local_registry}/{image}")
    docker("pull", by_digest)
    labels = json.loads(docker("image", "inspect", by_digest))[0]["Config"]["Labels"]
    docker("image", "rm", by_digest)
    assert labels["pushed"] == "yes"


@pytest.mark.slow
def test_a_registry_that_does_not_answer_is_told_in_one_line(algorithm_image):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        registry = f"127.0.0.1:{closed.getsockname()[1]}"
        done = image_command("push", registry, "--tag", algorithm_image)
    name = algorithm_image.rsplit("/", 1)[-1]
    docker("image", "rm", f"{registry}/{name}")
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {registry}/{name} was not pushed: ")
    assert len(done.stderr.splitlines()) == 1
