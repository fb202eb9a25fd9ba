"""What `make network` measures on its way, printed as a table when its tests are done. Nothing is judged by it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

PROCESSES, CONTAINERS, ENCRYPTED = "processes", "containers", "containers, encrypted"
COLUMNS = (PROCESSES, CONTAINERS, ENCRYPTED)
STARTUP = "start-up to first task (s)"
ROUND = "a round, median (s)"
TRAFFIC = "a round and site, to/from it (bytes)"
DIFFERENCE = "largest difference to a local run"


class Figures:
    """Cells of a table with one column for each kind of network, and lines below it."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, str]] = {}
        self.remarks: list[str] = []

    def note(self, row: str, column: str, text: str) -> None:
        self._rows.setdefault(row, {})[column] = text

    def note_rounds(self, column: str, result: Mapping[str, Any]) -> None:
        """Take seconds and bytes from a result of `master`; the first round counts, in which libraries load, too."""
        calls = [call for call in result["timing"]["rounds"] if call["call"] == "train"]
        sent, received = (
            median(size for call in calls for size in call[direction].values())
            for direction in ("bytes_sent", "bytes_received")
        )
        self.note(ROUND, column, f"{median(call['seconds'] for call in calls):.1f}")
        self.note(TRAFFIC, column, f"{sent:,.0f} / {received:,.0f}")

    def remark_on_calls(self, what: str, result: Mapping[str, Any]) -> None:
        """Add a line with the least and the most seconds that each kind of call of a result took."""
        seconds: dict[str, list[float]] = {}
        for call in result["timing"]["rounds"]:
            seconds.setdefault(call["call"], []).append(call["seconds"])
        taken = ", ".join(f"{name} {min(of_call):.1f} to {max(of_call):.1f}" for name, of_call in seconds.items())
        self.remarks.append(f"{what}, seconds: {taken}")

    def lines(self) -> list[str]:
        """Return the table; nothing when nothing was measured."""
        columns = [column for column in COLUMNS if any(column in cells for cells in self._rows.values())]
        table = [["", *columns]]
        table += [[row, *(cells.get(column, "") for column in columns)] for row, cells in sorted(self._rows.items())]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
        return [*(rows if self._rows else []), *self.remarks]
