"""What `image build`, `test` and `push` say when Docker says no: one sentence, and what to do.

The engine is a stand-in here, for answers that a real one gives only on a broken machine; tests/network has a real one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hospitals import command

pytest.importorskip("docker", reason="the Docker SDK is not installed: pip install '.[dev]'")
import docker
from docker.errors import APIError, DockerException, ImageNotFound

from v6_algorithm.researcher.image.names import default_tag, own_version

ROOT = Path(__file__).parents[3]
DIGEST = "sha256:" + "ab" * 32


class Engine:
    """Answers as docker-py's client would; what it was asked is in `asked`."""

    def __init__(self, built: Any = (), pushed: Any = (), images: dict[str, int] | None = None) -> None:
        self.asked: dict[str, Any] = {}
        self._sizes = {"v6-algorithm:1": 1_100_000_000} if images is None else images
        self.api = SimpleNamespace(build=self._answer("build", built), push=self._answer("push", pushed))
        self.images = SimpleNamespace(get=self._get, list=lambda: [self._get(name) for name in self._sizes])

    def _answer(self, what: str, answers: Any):
        def ask(*arguments: Any, **options: Any):
            self.asked[what] = (arguments, options)
            return iter(answers)

        return ask

    def _get(self, name: str) -> Any:
        if name not in self._sizes:
            raise ImageNotFound(f"No such image: {name}")
        return SimpleNamespace(
            attrs={"Size": self._sizes[name]}, tags=[name], tag=lambda *names: self.asked.setdefault("tag", names)
        )

    def ping(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def engine(monkeypatch):
    """`engine(…)` puts an `Engine` in the place of this machine's."""

    def use(**answers: Any) -> Engine:
        found = Engine(**answers)
        monkeypatch.setattr(docker, "from_env", lambda **_: found)
        return found

    return use


def told(*arguments: str, exit_code: int = 3) -> str:
    """Run `v6-algorithm image …` that must fail; return what it says."""
    result = command("image", *arguments)
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    return result.output.strip()


EVERY = [["build"], ["test", "--tag", "v6-algorithm:1"], ["push", "example.org", "--tag", "v6-algorithm:1"]]


# -- no engine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", EVERY)
def test_without_the_sdk_it_says_what_to_install(monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "docker", None)
    assert told(*arguments) == "error: the package docker is not installed: pip install 'v6-algorithm[vantage6]'"


@pytest.mark.parametrize("arguments", EVERY)
def test_without_an_engine_it_says_where_it_looked(monkeypatch, tmp_path, arguments):
    host = f"unix://{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", host)
    assert told(*arguments) == f"error: no Docker engine answers at {host}: start it, or name another in DOCKER_HOST"


def test_without_permission_it_names_the_group(monkeypatch):
    def refused(**_: Any):
        inner = "('Connection aborted.', PermissionError(13, 'Permission denied'))"
        raise DockerException(f"Error while fetching server API version: {inner}")

    monkeypatch.setattr(docker, "from_env", refused)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    said = told("build")
    assert said.startswith(
        "error: no permission to use the Docker engine at unix:///var/run/docker.sock: join its group"
    )
    assert len(said.splitlines()) == 1


def test_an_answer_that_nobody_foresaw_is_the_engines_own_sentence(engine, monkeypatch):
    def full(*_: Any, **__: Any):
        raise APIError("500 Server Error", explanation="no space left on device")

    found = engine()
    found.api.build = full
    assert told("build") == "error: Docker says: no space left on device"


# -- build ---------------------------------------------------------------------------------------------------------

STEPS = [
    {"stream": "Step 1/2 : FROM base\n"},
    {"stream": " ---> 0123\n"},
    {"stream": f"Step 2/2 : RUN {'pip install ' * 40}\n"},
]


def test_a_build_shows_its_steps_and_what_it_added_to_its_base(engine):
    found = engine(built=[*STEPS, {"stream": "noise\n"}], images={"v6-algorithm:1": 1_104_000_000, "b:1": 142_000_000})
    result = command("image", "build", "--tag", "v6-algorithm:1", "--base-image", "b:1", "--source", ROOT)
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert [line[:8] for line in lines[:2]] == ["Step 1/2", "Step 2/2"]
    assert max(map(len, lines[:2])) <= 110
    assert lines[2:] == ["v6-algorithm:1 (cpu): 1.1 GB, 962 MB more than b:1"]
    _, options = found.asked["build"]
    assert (options["path"], options["tag"], options["network_mode"]) == (str(ROOT), "v6-algorithm:1", None)
    assert options["buildargs"]["BASE_IMAGE"] == "b:1"


def test_a_step_that_fails_is_named_with_the_end_of_its_log(engine):
    log = [{"stream": f"\x1b[91mline {number}\n\x1b[0m"} for number in range(30)]
    error = f"The command '/bin/sh -c {'pip install ' * 40}' returned a non-zero code: 1"
    engine(built=[*STEPS, *log, {"error": error, "errorDetail": {"code": 1}}])
    said = told("build", "--tag", "v6-algorithm:1").splitlines()
    shown = [line for line in said if not line.startswith("Step")]
    assert shown[0] == "error: the build of v6-algorithm:1 failed at step 2/2: its command ended with code 1"
    assert shown[1:] == [f"  line {number}" for number in range(18, 30)]


def test_a_base_that_cannot_be_pulled_is_told_in_the_engines_words(engine):
    engine(built=[STEPS[0], {"error": "Get https://registry-1.docker.io/v2/: no such host\nmore"}])
    said = told("build", "--tag", "v6-algorithm:1").splitlines()
    assert said[-1] == (
        "error: the build of v6-algorithm:1 failed at step 1/2: Get https://registry-1.docker.io/v2/: no such host"
    )


@pytest.mark.parametrize("arguments", [["build"], ["test"], ["push", "example.org"]])
def test_a_name_that_cannot_be_is_refused_before_docker_is_asked(monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "docker", None)
    said = told(*arguments, "--tag", "Not A Name", exit_code=2)
    assert said.startswith("error: --tag Not A Name: is not an image name; allowed:")


# -- test ----------------------------------------------------------------------------------------------------------


def test_an_image_that_is_not_there_is_named_and_how_to_make_it(engine):
    engine(images={})
    assert told("test") == (
        f"error: {default_tag(own_version(), 'cpu')}: this Docker engine has no such image; "
        "`v6-algorithm image build` makes it"
    )


# -- push ----------------------------------------------------------------------------------------------------------


def test_a_push_prints_the_name_by_digest(engine):
    found = engine(pushed=[{"status": "Pushed", "id": "layer"}, {"aux": {"Tag": "1", "Digest": DIGEST, "Size": 1}}])
    result = command("image", "push", "example.org/group", "--tag", "v6-algorithm:1")
    assert result.exit_code == 0
    assert f"example.org/group/v6-algorithm@{DIGEST}" in result.output.splitlines()
    assert found.asked["tag"] == ("example.org/group/v6-algorithm", "1")
    assert found.asked["push"][0] == ("example.org/group/v6-algorithm",)


def test_no_credentials_are_handed_to_docker(engine):
    """They come from its own configuration, which `docker login` writes."""
    found = engine(pushed=[{"aux": {"Digest": DIGEST}}])
    command("image", "push", "example.org", "--tag", "v6-algorithm:1")
    assert found.asked["push"][1].keys() == {"tag", "stream", "decode"}


def test_both_variants_are_pushed_where_both_are_built(engine):
    names = [default_tag(own_version(), variant) for variant in ("cpu", "cuda")]
    engine(pushed=[{"aux": {"Digest": DIGEST}}], images=dict.fromkeys([*names, "other:1"], 1))
    result = command("image", "push", "example.org")
    pushed = [line for line in result.output.splitlines() if line.startswith("pushed ")]
    assert pushed == [f"pushed example.org/{name}" for name in names]


def test_with_neither_built_it_says_how(engine):
    engine(images={"other:1": 1})
    assert "`v6-algorithm image build` makes them" in told("push", "example.org")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("denied: requested access to the resource is denied", "`docker login example.org`"),
        ("unauthorized: authentication required", "`docker login example.org`"),
        ("no basic auth credentials", "`docker login example.org`"),
        ("http: server gave HTTP response to HTTPS client", "insecure-registries"),
        ("received unexpected HTTP status: 503", "was not pushed: received unexpected HTTP status: 503"),
    ],
)
def test_a_push_that_is_refused_says_what_to_do(engine, error, says):
    engine(pushed=[{"status": "Preparing"}, {"error": error, "errorDetail": {"message": error}}])
    said = told("push", "example.org/group", "--tag", "v6-algorithm:1")
    assert said.startswith("error: example.org/group/v6-algorithm:1")
    assert says in said


def test_a_registry_that_tells_no_digest_is_told(engine):
    engine(pushed=[{"status": "Pushed"}])
    assert told("push", "example.org", "--tag", "v6-algorithm:1").endswith("but the registry told no digest")


# -- containers ----------------------------------------------------------------------------------------------------


class Container:
    """One that ends with this code and log."""

    def __init__(self, log: str = "", code: int = 0) -> None:
        self._log, self._code, self.removed = log, code, False

    def start(self) -> None:
        pass

    def wait(self, timeout: int) -> dict[str, int]:
        return {"StatusCode": self._code}

    def logs(self, **_: Any) -> bytes:
        return self._log.encode()

    def put_archive(self, *_: Any) -> bool:
        return True

    def remove(self, v: bool, force: bool) -> None:
        self.removed = v and force


@pytest.fixture
def container(engine):
    """`container(log, code)`: what the image's containers do; returns the engine's and what they were created with."""

    def make(log: str, code: int = 0):
        found, made = engine(), Container(log, code)
        options: dict[str, Any] = {}
        found.containers = SimpleNamespace(create=lambda image, **given: options.update(given) or made)
        return made, options

    return make


def test_an_image_whose_doctor_finds_a_problem_does_not_pass(container):
    finding = {"name": "gpu", "status": "problem", "message": "driver too old", "advice": "update it", "details": {}}
    made, options = container(json.dumps({"usable": False, "findings": [finding], "versions": {}}), code=3)
    said = told("test", "--tag", "v6-algorithm:1")
    assert said.splitlines() == [
        "problem: gpu: driver too old; update it",
        "error: v6-algorithm:1: its doctor finds it not usable",
    ]
    assert made.removed
    assert (options["network_mode"], options["read_only"]) == ("none", True)


def test_an_image_without_a_doctor_is_told_with_its_log(container):
    container("python: command not found", code=127)
    assert told("test", "--tag", "v6-algorithm:1").splitlines() == [
        "error: v6-algorithm:1: its doctor gave no report",
        "  python: command not found",
    ]
