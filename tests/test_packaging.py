"""What installing the package brings along: nothing may pull torchvision or replace the CPU torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions, entry_points, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
INSTALLED_EXTRAS = {"vantage6", "files", "demo", "dev", "tracking", "profiling", "plots", "onnx", "ray", "docs"}
# Their packages are large; a dry run of pip looks at them, see below.
OTHER_EXTRAS = {"dp", "imaging", "wandb"}
# In an environment of its own: it installs the same names as vantage6 4.
APART = {"vantage6-5"}


def constraints() -> dict[str, str]:
    """Return the pinned version of each package of constraints.txt, for this Python."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def closure(name: str, extras: set[str], seen: set[tuple[str, str]] | None = None) -> Iterator[str]:
    """Yield the names of all installed packages that `name` with these extras asks for, directly or not."""
    seen = set() if seen is None else seen
    for extra in {"", *extras}:
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        yield name
        try:
            wanted = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        for requirement in wanted:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                yield from closure(canonicalize_name(requirement.name), requirement.extras, seen)


def test_no_requirement_of_a_requirement_is_torchvision():
    found = set(closure("v6-algorithm", INSTALLED_EXTRAS))
    assert {"torch", "pandas", "vantage6-algorithm-tools", "pyarrow", "scikit-learn", "hypothesis"} <= found
    assert not found & {"torchvision", "torchaudio", "tensorflow"}


def test_torch_is_the_version_that_the_constraints_pin():
    assert version("torch").split("+")[0] == constraints()["torch"]


def test_nothing_is_pinned_exactly_and_vantage6_is_an_extra():
    """The tools pin a dozen packages themselves: exact pins of ours would not install beside theirs."""
    for text in requires("v6-algorithm") or []:
        requirement = Requirement(text)
        assert "==" not in str(requirement.specifier), text
        if requirement.name.startswith("vantage6"):
            assert "extra ==" in str(requirement.marker), text


def test_extras_are_the_ones_that_messages_and_docs_name():
    assert (
        set(distribution("v6-algorithm").metadata.get_all("Provides-Extra")) == INSTALLED_EXTRAS | OTHER_EXTRAS | APART
    )
    named = {
        extra
        for path in (ROOT / "v6_algorithm").rglob("*.py")
        for extra in re.findall(r"v6-algorithm\[([\w-]+)\]", path.read_text())
    }
    assert named <= INSTALLED_EXTRAS | OTHER_EXTRAS | APART


def test_the_version_is_in_one_place():
    text = (ROOT / "v6_algorithm" / "VERSION").read_text().strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", text)
    assert version("v6-algorithm") == text


def test_the_console_script_is_the_command_line():
    (script,) = entry_points(group="console_scripts", name="v6-algorithm")
    assert script.value == "v6_algorithm.researcher.cli:main"
    command = Path(sys.executable).with_name("v6-algorithm")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"v6-algorithm {version('v6-algorithm')}"


def test_the_wheel_has_every_module_and_file_and_no_tests():
    """What is found next to the sources in an editable install may be missing from a real one."""
    code = """
from setuptools.dist import Distribution
found = Distribution({"script_name": "setup.py"})
found.parse_config_files()
build = found.get_command_obj("build_py")
build.ensure_finalized()
print(*build.get_outputs(), sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    built = {
        str(Path(line).relative_to("build/lib")) for line in done.stdout.split("\n") if line.startswith("build/lib")
    }
    files = {path for path in (ROOT / "v6_algorithm").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert built == {str(path.relative_to(ROOT)) for path in files}
    assert "v6_algorithm/researcher/report/templates/report.html" in built


@pytest.mark.slow
def test_the_other_extras_bring_neither_torchvision_nor_another_torch():
    arguments = ["install", "--dry-run", "--quiet", "--report", "-", "--no-build-isolation", "-c", "constraints.txt"]
    extras = ",".join(sorted(OTHER_EXTRAS))
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, f".[{extras}]"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    if done.returncode and re.search(r"connection|timed out|resolve host", done.stderr, re.I):
        pytest.skip(f"pip cannot reach an index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    proposed = {canonicalize_name(item["metadata"]["name"]) for item in json.loads(done.stdout)["install"]}
    present = {canonicalize_name(found.metadata["Name"]) for found in distributions()}
    assert {"opacus", "monai", "nibabel", "wandb"} <= proposed | present
    assert not proposed & {"torch", "torchvision", "torchaudio", "vantage6", "numpy"}
