"""One file that holds everything that lasts from round to round, from which a run goes on as if it had never stopped.

`master` saves one after the preparation and after each round. It is a safetensors file whose header has the rest as
JSON: nothing in it is code. The file is replaced whole, so a process or machine that dies while it is written leaves
the one before.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import CheckpointError, WireError
from v6_algorithm.exchange import tensor_file, wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import CheckedState

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
NAME = "checkpoint.safetensors"
# How a tree names its leaves that are tensors, and models that are packed.
_TENSOR, _PACKED = "$tensor", "$packed"
# Where writing may take a share of the time only, a process that is killed loses this much, or one round, at most.
_MOST_UNWRITTEN_S = 1.0
# And this share of the time is the most that goes into writing, of models that take long to write.
_MOST_SHARE = 0.1


class Checkpoints:
    """The checkpoint of one run.

    Parameters
    ----------
    path
        The file.
    federation
        Returns what the federation wants to find again: JSON, and packed models.
    share
        About how much of the time may go into writing: a state that comes sooner after the one before is left out, but
        never one that comes more than 1 s after it, so that a run that dies does one round again, or rounds of 1 s; or
        of ten times what writing costs, where that is more.
        None: every state is written, which sites that keep something for a round or two need.

    Attributes
    ----------
    trouble
        Why the newest state could not be written; None where it could.
    """

    def __init__(
        self,
        path: Path,
        federation: Callable[[], Mapping[str, Any]] | None = None,
        *,
        share: float | None = None,
    ) -> None:
        self.path = path
        self._share, self._not_before, self._begun = share, 0.0, time.perf_counter()
        self.trouble: str | None = None
        self._federation = federation or (lambda: {})

    def due(self) -> bool:
        """Say whether it is time to write again; what the state costs that is then saved is counted from here."""
        self._begun = time.perf_counter()
        return self._share is None or self._begun >= self._not_before

    def save(self, experiment: Experiment, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint; a disk that refuses costs no run, `trouble` says so."""
        content = {
            "format": FORMAT,
            "experiment": experiment.resolved(),
            "federation": self._federation(),
            "state": state,
        }
        try:
            write_whole(self.path, pieces_of(content))
            self.trouble = None
        except OSError as error:
            self.trouble = f"the checkpoint could not be written: {error.strerror}"
        if self._share is not None:
            end = time.perf_counter()
            cost = end - self._begun
            self._not_before = end + min(cost / self._share, max(cost / _MOST_SHARE, _MOST_UNWRITTEN_S))

    def load(self, experiment: Experiment | None = None) -> dict[str, Any] | None:
        """Read the checkpoint: ``experiment``, ``federation`` and ``state``; None where there is none.

        Raises
        ------
        CheckpointError
            When it cannot be read, or is of another experiment than the one given.
        """
        try:
            content = from_bytes(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror}") from None
        except WireError as error:
            raise CheckpointError(f"{self.path}: is no checkpoint: {error}") from None
        if content.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.path}: is of format {content.get('format')!r}; this version reads format {FORMAT}"
            )
        if experiment is not None and content["experiment"] != experiment.resolved():
            raise CheckpointError(f"{self.path}: is of another experiment")
        return content


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the whole of what `pieces_of` yields."""
    return b"".join(pieces_of(content))


def pieces_of(content: Mapping[str, Any]) -> Iterator[Any]:
    """Yield a tree of JSON, tensors and packed models as a safetensors file, piece by piece; none of it is copied.

    What occurs twice is written once.

    Raises
    ------
    TypeError
        When a mapping in it has a key that is no text, which JSON would change.
    """
    parts: dict[str, _Part] = {}
    tree = json.dumps(_without_tensors(content, parts)).encode()
    # The header has a limit of its own (100 MB), which long runs of many sites would meet; a tensor has none.
    parts["tree"] = _Part("uint8", (len(tree),), len(tree), [tree])
    about = {name: (part.dtype, part.shape, part.size) for name, part in parts.items()}
    header, places = tensor_file.header(about, {"v6_algorithm": "checkpoint"})
    yield header
    for name in places:
        yield from parts[name].pieces


@dataclass(frozen=True)
class _Part:
    """A tensor of the file: its type, shape and size in bytes, and these bytes, made when they are written."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    pieces: Iterable[Any]


def _without_tensors(value: Any, parts: dict[str, _Part]) -> Any:
    """Return JSON with the names of tensors and packed models, which are put into `parts`."""
    if type(value) in wire.PLAIN:
        return value
    if isinstance(value, CheckedState):
        return dict(value.whole())
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"keys of a state must be text, not {wrong[0]!r}")
        return {key: _without_tensors(item, parts) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        # Most are long lists of numbers.
        return value if wire.PLAIN.issuperset(map(type, value)) else [_without_tensors(item, parts) for item in value]
    import torch

    if isinstance(value, (wire.Held, wire.Packed)):
        if isinstance(value, wire.Held):
            name, size = f"held-{id(value)}", tensor_file.size(value.tensors)
            pieces: Iterable[Any] = tensor_file.pieces(value.tensors)
        else:
            name, size = f"packed-{wire.digest(value)}", len(value) // 4 * 3 - value[-2:].count("=")
            pieces = tensor_file.from_base64(value)
        parts.setdefault(name, _Part("uint8", (size,), size, pieces))
        return {_PACKED: name}
    if isinstance(value, torch.Tensor):
        name = f"tensor-{len(parts)}"
        dtype, shape, size = tensor_file.about({name: value})[name]
        parts[name] = _Part(dtype, tuple(shape), size, (tensor_file.bytes_of(each) for each in [value]))
        return {_TENSOR: name}
    return value


def from_bytes(data: bytes) -> dict[str, Any]:
    """Read what `to_bytes` wrote; raises WireError when it is something else."""
    import safetensors
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(data)
        tree = json.loads(tensors["tree"].numpy().tobytes())
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        raise WireError("it is not whole, or was written by something else") from None
    try:
        read = _with_tensors(tree, tensors, {})
    except KeyError:
        raise WireError("it lacks tensors that it names") from None
    if not isinstance(read, dict):
        raise WireError("it is not whole, or was written by something else")
    return read


def _with_tensors(value: Any, tensors: Mapping[str, Tensor], models: dict[str, wire.Packed]) -> Any:
    """Put back what `_without_tensors` took out, a model as one object; raises KeyError where it is not there."""
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        if set(value) == {_PACKED}:
            name = value[_PACKED]
            if name not in models:
                letters = tensor_file.in_base64([tensor_file.bytes_of(tensors[name])])
                models[name] = wire.Packed("".join(letters))
            return models[name]
        return {key: _with_tensors(item, tensors, models) for key, item in value.items()}
    return [_with_tensors(item, tensors, models) for item in value] if isinstance(value, list) else value


def write_whole(path: Path, data: Iterable[Any]) -> None:
    """Replace a file by bytes that come in pieces; raises OSError.

    After a crash or a power cut there is the old one or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            for piece in data:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
