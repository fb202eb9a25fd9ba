"""TensorBoard: one run a site and one for all together, so that it lays their curves over each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class Board:
    """Event files under `folder`, a subfolder each for the sites and for `pooled`; tags are ``validation/auroc``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def log(self, scope: str, part: str, metric: str, value: float, round: int) -> None:
        """Write one number."""
        if scope not in self._writers:
            # A site's name is no path: `../x` or `a/b` would be written elsewhere.
            name = "".join(letter if letter.isalnum() or letter in "-_. " else "-" for letter in scope)
            # Numbers of an earlier run in the same folder, or of one that was left and is watched again, are hidden.
            self._writers[scope] = SummaryWriter(str(self._folder / (name.strip(". ") or "-")), purge_step=0)
        self._writers[scope].add_scalar(f"{part}/{metric}", value, round)

    def flush(self) -> None:
        """Bring the numbers to the files, for a TensorBoard that is looking."""
        for writer in self._writers.values():
            writer.flush()

    def about(self, experiment: Mapping[str, Any]) -> None:
        """Leave the experiment out: it is in report.html, beside the files."""

    def close(self, best: Mapping[str, float]) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
