"""docs/reference.md is what `python -m tools.reference` writes from the models and the parser."""

from __future__ import annotations

from tools import reference


def test_the_page_is_what_its_tool_writes():
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run: python -m tools.reference"


def test_it_has_keys_kinds_defaults_and_commands():
    page = reference.page()
    for line in (
        "| `rounds` | whole number | `20` |  |",
        "### `strategy` of kind fedprox",
        "### `strategy`, every kind",
        "### `v6-algorithm network start`",
        "| `--test` | run |  | Train nothing",
    ):
        assert line in page, line
    assert page.count("| `weighting` |") < 5
