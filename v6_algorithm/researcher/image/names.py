"""What images are called: the tags of a version, and names that Docker accepts."""

from __future__ import annotations

import re
from pathlib import Path

from v6_algorithm.errors import ExperimentError

NAME = "v6-algorithm"
# One Dockerfile, two tags: 0.1.0 and 0.1.0-cuda.
VARIANTS = {"cpu": "", "cuda": "-cuda"}
# And of which vantage6 it is: 0.1.0-vantage6-5.
VERSIONS = {4: "", 5: "-vantage6-5"}

# As in Docker's reference grammar, https://pkg.go.dev/github.com/distribution/reference
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?"
_TAG = r"[\w][\w.-]{0,127}"
_REFERENCE = re.compile(rf"(?P<repository>(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>{_TAG}))?", re.ASCII)
_REGISTRY = re.compile(rf"{_HOST}(?:/{_COMPONENT})*", re.ASCII)


def default_tag(version: str, variant: str, vantage6: int = 4) -> str:
    """Return the name of a version's image, such as ``v6-algorithm:0.1.0-cuda``."""
    return f"{NAME}:{version}{VARIANTS[check_variant(variant)]}{VERSIONS[check_vantage6(vantage6)]}"


def own_version() -> str:
    """Return the version of the package that runs."""
    return (Path(__file__).parents[2] / "VERSION").read_text().strip()


def check_variant(variant: str) -> str:
    """Return the variant; raises ExperimentError when there is no such one."""
    if variant not in VARIANTS:
        raise ExperimentError(f"--variant {variant}: is not known; allowed: {', '.join(VARIANTS)}")
    return variant


def check_vantage6(version: int) -> int:
    """Return the version of vantage6; raises ExperimentError when there is no image for it."""
    if version not in VERSIONS:
        raise ExperimentError(f"--vantage6 {version}: is not known; allowed: {', '.join(map(str, VERSIONS))}")
    return version


def split_tag(image: str, given_as: str = "--tag") -> tuple[str, str]:
    """Return an image's repository and tag, ``latest`` when it has none.

    Raises
    ------
    ExperimentError
        When Docker would not accept it.
    """
    match = _REFERENCE.fullmatch(image)
    if match is None:
        raise ExperimentError(
            f"{given_as} {image}: is not an image name; allowed: [HOST[:PORT]/]name[:tag], the name in small letters, "
            f"such as {NAME}:1.0"
        )
    return match["repository"], match["tag"] or "latest"


def name_at(registry: str, image: str) -> tuple[str, str]:
    """Return the repository and tag that an image of this machine gets in a registry.

    Raises
    ------
    ExperimentError
        When the registry is not written as HOST[:PORT][/PATH].
    """
    given = registry.rstrip("/")
    if "@" in given:
        # Not shown: what stands before it may be a password.
        raise ExperimentError("REGISTRY: takes no user or password; log in with `docker login`")
    if _REGISTRY.fullmatch(given) is None:
        raise ExperimentError(f"REGISTRY {registry}: write it as HOST[:PORT][/PATH], without https://")
    repository, tag = split_tag(image)
    return f"{given}/{repository.rsplit('/', 1)[-1]}", tag
