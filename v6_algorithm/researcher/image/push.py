"""Pushing the image to a registry, and the name with a digest that a node's owner allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from v6_algorithm.errors import ImageError
from v6_algorithm.researcher.image.engine import image_of
from v6_algorithm.researcher.image.names import VARIANTS, VERSIONS, default_tag, name_at, own_version


def built(client: Any) -> list[str]:
    """Return those of this version's images that the engine has.

    Raises
    ------
    ImageError
        When it has none.
    """
    names = [default_tag(own_version(), variant, vantage6) for vantage6 in VERSIONS for variant in VARIANTS]
    here = {tag for image in client.images.list() for tag in image.tags}
    images = [name for name in names if name in here]
    if not images:
        raise ImageError(
            f"this Docker engine has none of {', '.join(names)}; `v6-algorithm image build` makes them, or name "
            "another with --tag"
        )
    return images


def push(client: Any, image: str, registry: str, on_line: Callable[[str], None]) -> str:
    """Push an image under its own name and tag.

    Returns
    -------
    str
        ``REGISTRY/NAME@sha256:…``: this very image, whatever becomes of the tag.

    Raises
    ------
    ImageError
        When the registry does not take it.
    """
    repository, tag = name_at(registry, image)
    image_of(client, image).tag(repository, tag)
    digest = ""
    for answer in client.api.push(repository, tag=tag, stream=True, decode=True):
        if "error" in answer:
            raise ImageError(_refused(f"{repository}:{tag}", repository.split("/")[0], str(answer["error"])))
        digest = answer.get("aux", {}).get("Digest", digest)
        if "status" in answer and "progress" not in answer:
            on_line(" ".join(filter(None, [answer.get("id"), answer["status"]])))
    if not digest:
        raise ImageError(f"{repository}:{tag} was pushed, but the registry told no digest")
    return f"{repository}@{digest}"


def _refused(name: str, host: str, error: str) -> str:
    said = error.strip().splitlines()[0]
    if any(word in said.lower() for word in ("denied", "unauthorized", "authentication", "no basic auth")):
        return f"{name}: refused by the registry: `docker login {host}` as a user who may push there ({said})"
    if "server gave http response to https client" in said.lower():
        return (
            f"{name}: the registry speaks no TLS: put it in the engine's insecure-registries, or give it a certificate"
        )
    return f"{name} was not pushed: {said}"
