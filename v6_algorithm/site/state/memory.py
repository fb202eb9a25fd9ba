"""Tensors that a site keeps from round to round, in its folder or, where it has none, in its process.

They are kept for the round that made them and found by later ones, so a request that comes twice is answered alike.
Losing them must not corrupt a run: whoever keeps something here begins anew when it is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.cache import write_whole
from v6_algorithm.site.context import SiteContext

if TYPE_CHECKING:
    from torch import Tensor


def remembered(
    memory: dict[Any, Any],
    name: str,
    content: Any,
    make: Callable[[], Any],
    *,
    same: Callable[[Any], bool] | None = None,
) -> Any:
    """Return what was made of some content before, where it is the same content; else make it, and keep both.

    A request says again what the one before said: the experiment, and what the sites agreed on. `make` must follow
    from the content alone, and nobody changes what it made. `same` says of the content of before whether it is this
    one; by default what is equal is.
    """
    known = memory.get(("remembered", name))
    if known is not None and (known[0] is content or (same(known[0]) if same else known[0] == content)):
        return known[1]
    made = make()
    memory["remembered", name] = content, made
    return made


class RoundMemory:
    """Tensors under one name, by round; the newest two rounds are kept, or those that its user names.

    Parameters
    ----------
    context
        The site.
    name
        What they are for, of which run and fold; letters, digits and hyphens.
    """

    def __init__(self, context: SiteContext, name: str) -> None:
        self._folder = context.state or context.rounds_folder
        self._in_process: dict[int, Mapping[str, Tensor]] = context.memory.setdefault(("rounds", name), {})
        self._name = name

    def before(self, round: int) -> Mapping[str, Tensor]:
        """Return what the newest round before this one kept; empty if there is none, or it cannot be read."""
        earlier = [number for number in self._rounds() if number < round]
        return self.at(max(earlier)) if earlier else {}

    def at(self, round: int) -> Mapping[str, Tensor]:
        """Return what a round kept; empty if it kept nothing, or that cannot be read."""
        if self._folder is None:
            return self._in_process.get(round, {})
        import safetensors
        import safetensors.torch

        try:
            return dict(safetensors.torch.load_file(self._path(self._folder, round)))
        except (OSError, safetensors.SafetensorError):
            return {}

    def keep(self, round: int, tensors: Mapping[str, Tensor], others: Collection[int] | None = None) -> None:
        """Keep tensors for later rounds, and of others the one before or those named; a full disk is no error."""
        rounds = self._rounds()
        if others is None:
            others = [number for number in rounds if number < round][-1:]
        if self._folder is None:
            self._in_process[round] = {name: tensor.clone() for name, tensor in tensors.items()}
        else:
            write_whole(self._folder, self._path(self._folder, round).name, partial(_save, tensors))
        for number in rounds:
            if number != round and number not in others:
                self._in_process.pop(number, None)
                if self._folder is not None:
                    self._path(self._folder, number).unlink(missing_ok=True)

    def _rounds(self) -> list[int]:
        if self._folder is None:
            return sorted(self._in_process)
        paths = self._folder.glob(f"{self._name}-*.safetensors")
        return sorted(int(number) for path in paths if (number := path.stem.rpartition("-")[2]).isdigit())

    def _path(self, folder: Path, round: int) -> Path:
        return folder / f"{self._name}-{round}.safetensors"


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors; raises OSError, as which safetensors does not tell of a full disk."""
    import safetensors
    import safetensors.torch

    try:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from None
