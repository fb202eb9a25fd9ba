"""Tensors that a site keeps from round to round, in its folder or, where it has none, in its process.

They are kept for the round that made them and found by later ones, so a request that comes twice is answered alike.
Losing them must not corrupt a run: whoever keeps something here begins anew when it is not found.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from v6_algorithm.site.context import SiteContext

if TYPE_CHECKING:
    from torch import Tensor


class RoundMemory:
    """Tensors under one name, by round; the newest two rounds are kept.

    Parameters
    ----------
    context
        The site.
    name
        What they are for, of which run and fold; letters, digits and hyphens.
    """

    def __init__(self, context: SiteContext, name: str) -> None:
        self._folder = context.state
        self._in_process: dict[int, Mapping[str, Tensor]] = context.memory.setdefault(("rounds", name), {})
        self._name = name

    def before(self, round: int) -> Mapping[str, Tensor]:
        """Return what the newest round before this one kept; empty if there is none, or it cannot be read."""
        earlier = [number for number in self._rounds() if number < round]
        if not earlier:
            return {}
        if self._folder is None:
            return self._in_process[max(earlier)]
        import safetensors
        import safetensors.torch

        try:
            return dict(safetensors.torch.load_file(self._path(self._folder, max(earlier))))
        except (OSError, safetensors.SafetensorError):
            return {}

    def keep(self, round: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors for later rounds; a full or read-only disk is no error."""
        rounds = self._rounds()
        used = max((number for number in rounds if number < round), default=None)
        if self._folder is None:
            self._in_process[round] = {name: tensor.clone() for name, tensor in tensors.items()}
        else:
            self._write(self._folder, round, tensors)
        for number in rounds:
            if number not in (used, round):
                self._in_process.pop(number, None)
                if self._folder is not None:
                    self._path(self._folder, number).unlink(missing_ok=True)

    def _write(self, folder: Path, round: int, tensors: Mapping[str, Tensor]) -> None:
        import safetensors.torch

        temporary = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".rounds-")
            with os.fdopen(handle, "wb") as file:
                file.write(safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            os.replace(temporary, self._path(folder, round))
        except OSError:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)

    def _rounds(self) -> list[int]:
        if self._folder is None:
            return list(self._in_process)
        found = self._folder.glob(f"{self._name}-*.safetensors")
        return [int(number) for path in found if (number := path.stem.rpartition("-")[2]).isdigit()]

    def _path(self, folder: Path, round: int) -> Path:
        return folder / f"{self._name}-{round}.safetensors"
