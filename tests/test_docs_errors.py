"""docs/errors.md quotes messages: each stands in the package, so that a reader who searches for one finds it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def texts() -> str:
    """Return all texts of the package, those in pieces joined; what is filled in is an ellipsis."""
    found = []
    for path in (ROOT / "v6_algorithm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_every_message_that_the_page_quotes_is_one_of_the_packages():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    quoted = re.findall(r'^\| "(.*?)" \|', page, re.M)
    assert len(quoted) >= 15
    known = texts()
    assert [message for message in quoted if message not in known] == []
