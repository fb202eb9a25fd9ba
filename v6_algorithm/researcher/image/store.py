"""What a vantage6 algorithm store is given: the file of a checkout, with the publisher's image and links.

`algorithm_store.json` of a checkout names no registry and no pages that exist, for they are the publisher's. `image
store` calls `entry`, so that no store gets a link that leads nowhere.
"""

from __future__ import annotations

import json
import re
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.image.build import checkout
from v6_algorithm.researcher.image.names import check_vantage6, split_tag

# By version of vantage6.
FILES = {4: "algorithm_store.json", 5: "algorithm_store_5.json"}
_TIMEOUT_S = 10


def entry(
    image: str, code_url: str, documentation_url: str | None = None, *, vantage6: int = 4, source: Path | None = None
) -> dict[str, Any]:
    """Return what a store takes.

    Parameters
    ----------
    image
        As nodes pull it: ``REGISTRY/NAME:TAG`` or ``REGISTRY/NAME@sha256:…``.
    code_url, documentation_url
        Pages that a reader of the store may open; None: the code's, for the documentation too.
    vantage6
        4 or 5: which store.
    source
        A checkout; None: the one this package runs from.

    Raises
    ------
    ExperimentError
        When the image has no registry, a link is no http address, or there is no checkout.
    """
    name, at, digest = image.partition("@")
    split_tag(name, "IMAGE")
    host = name.partition("/")[0]
    if "/" not in name or (host != "localhost" and "." not in host and ":" not in host):
        raise ExperimentError(
            f"IMAGE {image}: has no registry; write it as HOST[:PORT]/NAME, as `image push` prints it"
        )
    if at and re.fullmatch(r"sha256:[0-9a-f]{64}", digest) is None:
        raise ExperimentError(f"IMAGE {image}: what follows @ is no digest; allowed: sha256: and 64 digits")
    for option, url in {"--code-url": code_url, "--documentation-url": documentation_url}.items():
        if url is not None and "@" in url:
            # Not shown: what stands before it may be a password.
            raise ExperimentError(f"{option}: takes no user or password, which every reader of the store would see")
        if url is not None and not _is_web_address(url):
            raise ExperimentError(f"{option} {url}: must be an http:// or https:// address")
    check_vantage6(vantage6)
    content: dict[str, Any] = json.loads((checkout(source) / FILES[vantage6]).read_text(encoding="utf-8"))
    return {**content, "image": image, "code_url": code_url, "documentation_url": documentation_url or code_url}


def _is_web_address(url: str) -> bool:
    """Say whether a browser would open it."""
    try:
        parts = urlsplit(url)
    except ValueError:  # such as brackets that hold no address
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def unreachable(url: str) -> str | None:
    """Ask for a page; return why a reader would not get it, or None when it is there."""
    try:
        with urlopen(Request(url, headers={"User-Agent": "v6-algorithm"}), timeout=_TIMEOUT_S):  # noqa: S310 (`entry` checks)
            return None
    except HTTPError as error:
        return f"status {error.code}"
    except (OSError, HTTPException, ValueError) as error:  # the last two: blanks in it, a port that is none
        return str(getattr(error, "reason", error)) or type(error).__name__
