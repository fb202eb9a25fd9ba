"""Pictures of what a generative model makes, round by round: in the report page, and as files."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from v6_algorithm.researcher.report import reading
from v6_algorithm.researcher.report.markup import safe
from v6_algorithm.researcher.report.reading import finite, mapping, number, sequence

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


def section(result: dict[str, Any]) -> str:
    """Return the part of the page that shows them; empty where there are none."""
    found = list(pictures(result))
    if not found:
        return ""
    classes = [str(name) for name in sequence(result, "samples", "classes")]
    figures = "".join(_figure(result, at, content, classes) for at, content in found)
    of_classes = "A line is a class. " if classes else ""
    return (
        f'<section><h2>What the model makes</h2><div class="samples">{figures}</div><p class="hint">{of_classes}'
        "The same random numbers in every round, so that what changes is the model. "
        "Made images, not patients’.</p></section>"
    )


def _figure(result: dict[str, Any], at: int, content: bytes, classes: list[str]) -> str:
    fid = _fid(result, at)
    caption = f"<b>Round {at}</b>" + (f", FID {number(fid)}" if fid is not None else "")
    if finite(result.get("best_round")) == at:
        caption += ", the model that was kept"
    of = f" of the classes {', '.join(classes)}" if classes else ""
    names = "".join(f"<span>{safe(name)}</span>" for name in classes)
    return (
        f'<figure><div class="lines"><div class="classes">{names}</div>'
        f'<img alt="{safe(f"Images{of} that the model of round {at} makes")}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _fid(result: dict[str, Any], at: int) -> float | None:
    """Return the validation FID of a round's model."""
    history = reading.history_columns(mapping(result, "history"))
    values = dict(zip(history["round"], history.get("validation_fid", []), strict=False))
    return finite(values.get(at))
