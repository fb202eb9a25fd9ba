"""TensorBoard: one run a site and one for all together, so that it lays their curves over each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class Board:
    """Event files under `folder`, a subfolder each for the sites and for `pooled`; tags are ``validation/auroc``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def log(self, scope: str, part: str, metric: str, value: float, round: int) -> None:
        """Write one number, to be seen at once by a TensorBoard that is looking."""
        if scope not in self._writers:
            # A site's name is no path: `../x` or `a/b` would be written elsewhere.
            name = "".join(letter if letter.isalnum() or letter in "-_. " else "-" for letter in scope)
            self._writers[scope] = SummaryWriter(str(self._folder / (name.strip(". ") or "-")), flush_secs=5)
        self._writers[scope].add_scalar(f"{part}/{metric}", value, round)

    def close(self, best: Mapping[str, float]) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
