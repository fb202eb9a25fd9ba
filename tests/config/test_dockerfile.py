"""What a careless change of the Dockerfile would break. Building it is left to the tests marked `docker`."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) in order, continuation lines joined and comments dropped."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def arguments() -> dict[str, str]:
    """Every ARG with its default."""
    pairs = (rest.partition("=") for word, rest in instructions() if word == "ARG")
    return {name: default for name, _, default in pairs}


def environment() -> dict[str, str]:
    """Every ENV of the image, build arguments filled in with their defaults."""
    pairs = re.findall(r"(\w+)=(\S+)", " ".join(rest for word, rest in instructions() if word == "ENV"))
    return {name: re.sub(r"\$\{(\w+)\}", lambda m: arguments()[m[1]], value) for name, value in pairs}


def pinned(package: str) -> str:
    """The version that constraints.txt gives a package that has one pin."""
    (version,) = re.findall(rf"^{re.escape(package)}==([^;\s]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version


def torch_and_index(**arguments: str) -> list[str]:
    """Run the Dockerfile's own choice by VARIANT in a shell: what torch is pinned to, and the index besides pip's."""
    (text,) = [rest for word, rest in instructions() if word == "RUN" and "case" in rest]
    (choice,) = re.findall(r'case "\$\{VARIANT\}" .*? esac', text)
    environment = {"TORCH_VERSION": pinned("torch"), "TORCH_INDEX": "", "PATH": "/usr/bin:/bin", **arguments}
    script = f'set -eu; {choice}; printf "%s\\n" "$torch" "$index"'
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:2]


def garbled_by_the_wrapper(value: str) -> bool:
    """Whether vantage6's wrapper would change this plain value, or stop at it, instead of leaving it alone."""
    try:
        return base64.b32decode(value.replace("!", "=").encode()).decode() != value
    except binascii.Error:
        return False
    except UnicodeDecodeError:
        return True


@pytest.mark.parametrize(
    ("value", "garbled"), [("v6_algorithm", False), ("1", False), ("ABCDEFGH", True), ("AGEGROUP", True)]
)
def test_the_check_for_base32_knows_the_trap(value, garbled):
    assert garbled_by_the_wrapper(value) is garbled


def test_no_environment_value_is_base32():
    assert {name for name, value in environment().items() if garbled_by_the_wrapper(value)} == set()


def test_the_wrapper_finds_this_package_and_logs_reach_the_node_at_once():
    assert environment() == {"PKG_NAME": "v6_algorithm", "PYTHONUNBUFFERED": "1"}
    assert (ROOT / environment()["PKG_NAME"] / "__init__.py").exists()


def test_the_container_runs_the_wrapper_without_a_shell():
    (command,) = [json.loads(rest) for word, rest in instructions() if word == "CMD"]
    assert command[:2] == ["python", "-c"]
    called = {node.func.id for node in ast.walk(ast.parse(command[2])) if isinstance(node, ast.Call)}
    assert called == {"wrap_algorithm"}


def test_the_image_stays_root_because_the_node_writes_the_files_as_root():
    assert not [rest for word, rest in instructions() if word == "USER"]


def test_arguments_agree_with_the_versions_they_repeat():
    default = arguments()
    assert default["TORCH_VERSION"] == pinned("torch")
    assert default["VANTAGE6_VERSION"] == pinned("vantage6-algorithm-tools")
    assert default["VERSION"] == (ROOT / "v6_algorithm" / "VERSION").read_text().strip()


def test_the_base_is_an_argument_because_not_every_builder_reaches_a_registry():
    assert instructions()[:2] == [("ARG", "BASE_IMAGE=python:3.11-slim-bookworm"), ("FROM", "${BASE_IMAGE}")]


def test_every_package_installed_in_one_step_comes_from_the_constraints_or_is_our_own():
    for rest in (rest for word, rest in instructions() if word == "RUN"):
        for command in re.findall(r"pip install ([^;&]+)", rest):
            assert "-c /tmp/constraints.txt" in command or "--no-deps" in command
            assert "PIP_NO_CACHE_DIR=1" in rest or "--no-cache-dir" in command, "the cache would stay in the layer"


def test_every_file_copied_is_let_through_by_dockerignore():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*", "an allow-list: a new file stays out unless it is named"
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    sources = {source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]} - {"."}
    assert {source.split("/")[0] for source in sources} <= allowed
    assert not {name for name in allowed if name.startswith((".git", "tests", "config", "data"))}


def test_dependencies_have_a_layer_before_our_code():
    words = [f"{word} {rest}" for word, rest in instructions() if word in ("COPY", "RUN")]
    everything = words.index("COPY . /src")
    assert any("[${extra},files,imaging]" in step for step in words[:everything])
    assert all("--no-deps" in step for step in words[everything + 1 :])


def test_cpu_is_the_default_and_takes_only_a_cpu_build_of_torch():
    assert arguments()["VARIANT"] == "cpu"
    assert torch_and_index(VARIANT="cpu") == [f"{pinned('torch')}+cpu", "https://download.pytorch.org/whl/cpu"]


def test_cuda_takes_pypis_torch_which_is_a_cuda_build():
    assert torch_and_index(VARIANT="cuda") == [pinned("torch"), ""]


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_an_index_that_is_given_replaces_the_variants_own(variant):
    torch, index = torch_and_index(VARIANT=variant, TORCH_INDEX="https://mirror.example.org/torch")
    assert (torch.split("+")[0], index) == (pinned("torch"), "https://mirror.example.org/torch")


def test_a_torch_version_that_names_its_build_is_kept():
    assert torch_and_index(VARIANT="cpu", TORCH_VERSION="2.13.0+cpu")[0] == "2.13.0+cpu"
    assert torch_and_index(VARIANT="cuda", TORCH_VERSION="2.13.0+cu126")[0] == "2.13.0+cu126"


@pytest.mark.parametrize(("version", "extra"), [("4", "vantage6"), ("5", "vantage6-5")])
def test_each_vantage6_has_its_extra(version, extra):
    (text,) = [rest for word, rest in instructions() if word == "RUN" and "case" in rest]
    (choice,) = re.findall(r'case "\$\{VANTAGE6\}" .*? esac', text)
    script = f'set -eu; {re.sub(r" > /tmp/pins.txt", " > /dev/null", choice)}; echo "$extra"'.replace(
        "/src/", f"{ROOT}/"
    )
    given = {"VANTAGE6": version, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", script], env=given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == extra
    other = subprocess.run(["sh", "-c", script], env={**given, "VANTAGE6": "6"}, capture_output=True, text=True)
    assert other.stderr == "VANTAGE6=6: allowed: 4, 5\n"


def test_another_variant_ends_the_build():
    with pytest.raises(subprocess.CalledProcessError) as stopped:
        torch_and_index(VARIANT="rocm")
    assert stopped.value.stderr == "VARIANT=rocm: allowed: cpu, cuda\n"


def test_the_labels_say_what_is_inside_and_where_it_is_from():
    (labels,) = [dict(re.findall(r'(\S+)="([^"]*)"', rest)) for word, rest in instructions() if word == "LABEL"]
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert {name: said[name] for name in ("version", "source", "revision", "created")} == {
        name: f"${{{name.upper()}}}" for name in ("version", "source", "revision", "created")
    }
    assert (said["vantage6.version"], said["v6-algorithm.variant"]) == ("${VANTAGE6_VERSION}", "${VARIANT}")
