"""Building the image from a checkout: what goes into the Dockerfile's arguments, and the engine's long answer."""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from v6_algorithm.errors import ExperimentError, ImageError
from v6_algorithm.researcher.image.engine import image_of
from v6_algorithm.researcher.image.names import check_vantage6, check_variant, default_tag, split_tag

# By version of vantage6: where its packages are pinned, and the image to build on; None: the Dockerfile's.
_PINS = {4: "constraints.txt", 5: "constraints-vantage6-5.txt"}
_BASES = {4: None, 5: "python:3.13-slim-bookworm"}
_NEEDED = ("Dockerfile", "pyproject.toml", "setup.py", *_PINS.values(), "v6_algorithm/VERSION")
_OLDER_PYTHON = "PIP_IGNORE_REQUIRES_PYTHON"
_LOG_LINES = 12  # of a failed build that are shown
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Plan:
    """One build, decided before the engine is asked.

    Attributes
    ----------
    source
        The checkout.
    tag
        The image's name.
    base
        The image it is built on.
    arguments
        The Dockerfile's ARGs.
    host_network
        Build in this machine's network, where the index of wheels is on its loopback.
    """

    source: Path
    tag: str
    base: str
    arguments: dict[str, str]
    host_network: bool = False


@dataclass(frozen=True)
class Sizes:
    """Bytes of an image, and of the base in it; None when the engine does not tell."""

    image: int
    base: int | None


def plan(
    source: Path | None = None,
    *,
    variant: str = "cpu",
    vantage6: int = 4,
    tag: str | None = None,
    base_image: str | None = None,
    torch_index: str | None = None,
) -> Plan:
    """Decide on a build.

    Parameters
    ----------
    source
        A checkout of v6_algorithm; None: the one this package runs from.
    variant
        ``cpu`` or ``cuda``: which build of torch goes in.
    vantage6
        4 or 5: for nodes of which vantage6.
    tag
        The image's name; None: ``v6-algorithm:VERSION``, with ``-cuda`` for that variant, ``-vantage6-5`` for that.
    base_image
        An image with Python and pip; None: the Dockerfile's, for vantage6 5 one with Python 3.13.
    torch_index
        Where pip looks for torch besides its default index; None: the Dockerfile's choice for the variant.

    Raises
    ------
    ExperimentError
        When there is no checkout there, or a name is not one that Docker accepts.
    """
    source = checkout(source)
    check_variant(variant)
    version = (source / "v6_algorithm" / "VERSION").read_text().strip()
    check_vantage6(vantage6)
    tag = tag or default_tag(version, variant, vantage6)
    split_tag(tag)
    if torch_index is not None and "@" in torch_index:
        raise ExperimentError("--torch-index: takes no user or password: they would stay in the image's history")
    if torch_index is not None and urlsplit(torch_index).scheme not in ("http", "https"):
        raise ExperimentError(f"--torch-index {torch_index}: must be an http:// or https:// address")
    base_image = base_image or _BASES[vantage6]
    arguments = {
        "VARIANT": variant,
        "VANTAGE6": str(vantage6),
        "VERSION": version,
        "VANTAGE6_VERSION": _pinned(source, "vantage6-algorithm-tools", _PINS[vantage6]),
        "TORCH_VERSION": _pinned(source, "torch"),
        "SOURCE": _origin(source),
        "REVISION": _revision(source),
        "CREATED": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **({"BASE_IMAGE": base_image} if base_image else {}),
        **({"TORCH_INDEX": torch_index} if torch_index else {}),
        # pip's own, of whoever builds: for a base image with an older Python than vantage6 5's tools ask for.
        **{name: os.environ[name] for name in (_OLDER_PYTHON,) if os.environ.get(name)},
    }
    local = torch_index is not None and urlsplit(torch_index).hostname in _LOOPBACK
    return Plan(source, tag, base_image or _default_base(source), arguments, local)


def build(client: Any, plan: Plan, on_line: Callable[[str], None]) -> Sizes:
    """Build, telling every line of the engine's log as it comes.

    Raises
    ------
    ImageError
        When a step fails: with the step and the end of the log.
    """
    answers = client.api.build(
        path=str(plan.source),
        tag=plan.tag,
        buildargs=plan.arguments,
        network_mode="host" if plan.host_network else None,
        rm=True,
        forcerm=True,
        decode=True,
    )
    tail: deque[str] = deque(maxlen=_LOG_LINES)
    step = ""
    for answer in answers:
        if "error" in answer:
            log = "".join(f"\n  {line}" for line in tail)
            raise ImageError(f"the build of {plan.tag} failed{step and f' at {step}'}{_why(answer['error'])}{log}")
        for line in _lines(answer):
            tail.append(line)
            if line.startswith("Step "):
                step = line.split(" : ")[0].lower()
                tail.clear()
            on_line(line)
    return Sizes(image_of(client, plan.tag).attrs["Size"], _size_of(client, plan.base))


def _why(error: str) -> str:
    """Return the engine's reason; of a command only how it ended, for it repeats all of its text, which is long."""
    ended = re.search(r"returned a non-zero code: (\d+)", error)
    return f": its command ended with code {ended[1]}" if ended else f": {error.strip().splitlines()[0]}"


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    # Escape sequences: what a command writes to stderr comes coloured.
    text = re.sub(r"\x1b\[[0-9;]*m", "", answer.get("stream", ""))
    # While the base image is pulled there is a line a layer; its progress is not for a log.
    if "status" in answer and "progress" not in answer:
        text = " ".join(filter(None, [answer.get("id"), answer["status"]]))
    for line in text.splitlines():
        if line.strip():
            yield line.rstrip()


def _size_of(client: Any, name: str) -> int | None:
    try:
        return int(image_of(client, name).attrs["Size"])
    except ImageError:
        return None


# -- what the checkout says ----------------------------------------------------------------------------------------


def checkout(source: Path | None) -> Path:
    """Return the folder of a checkout; None: the one this package runs from. Raises ExperimentError when it is none."""
    folder = Path(__file__).parents[3] if source is None else source.expanduser()
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if not missing:
        return folder.resolve()
    if source is None:
        raise ExperimentError(
            "this installation of v6-algorithm is not a checkout, and the image is built from one: git clone it, and "
            "give its folder as --source DIR"
        )
    raise ExperimentError(f"--source {source}: is not a checkout of v6_algorithm: it has no {', '.join(missing)}")


def _pinned(source: Path, package: str, file: str = "constraints.txt") -> str:
    pins = (source / file).read_text()
    (version,) = re.findall(rf"^{re.escape(package)}==([^;\s]+)$", pins, re.MULTILINE)
    return str(version)


def _default_base(source: Path) -> str:
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", (source / "Dockerfile").read_text(), re.MULTILINE)
    return str(base)


def _revision(source: Path) -> str:
    """Return the commit, with ``-dirty`` when files differ from it; empty outside git."""
    commit = _git(source, "rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and _git(source, "status", "--porcelain") else commit


def _origin(source: Path) -> str:
    """Return the repository's address for people, without a user or password in it; empty when it has none."""
    address = _git(source, "config", "--get", "remote.origin.url")
    ssh = re.fullmatch(r"(?:ssh://)?(?:[^@/]+@)([^:/]+)(?::\d+)?[:/](.+)", address)
    if ssh:
        return f"https://{ssh[1]}/{ssh[2].removesuffix('.git')}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return ""  # a folder of this machine
    return f"https://{parts.netloc.rsplit('@', 1)[-1]}{parts.path.removesuffix('.git')}"


def _git(source: Path, *arguments: str) -> str:
    command = ["git", "-C", str(source), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
