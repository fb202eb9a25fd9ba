"""Synthetic images of a generative model, round by round: in the report page, and as files."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from v6_algorithm.researcher.report import reading
from v6_algorithm.researcher.report.formatting import number
from v6_algorithm.researcher.report.reading import finite, mapping, sequence

_PNG = b"\x89PNG\r\n\x1a\n"


def pictures(result: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
    """Yield each round that has a picture, and its PNG; what is none is left out."""
    for entry in sequence(result, "samples", "rounds"):
        at, text = finite(mapping(entry).get("round")), mapping(entry).get("png")
        try:
            content = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        except binascii.Error:
            continue
        if at is not None and content.startswith(_PNG):
            yield int(at), content


def section(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the section of the page shows; None where there are no pictures."""
    shown = []
    for at, content in pictures(result):
        fid = _fid(result, at)
        shown.append(
            {
                "round": at,
                "png": base64.b64encode(content).decode(),
                "fid": "" if fid is None else number(fid),
                "kept": finite(result.get("best_round")) == at,
            }
        )
    classes = [str(name) for name in sequence(result, "samples", "classes")]
    return {"pictures": shown, "classes": classes} if shown else None


def _fid(result: dict[str, Any], at: int) -> float | None:
    """Return the validation FID of a round's model."""
    history = reading.history_columns(mapping(result, "history"))
    values = dict(zip(history["round"], history.get("validation_fid", []), strict=False))
    return finite(values.get(at))
