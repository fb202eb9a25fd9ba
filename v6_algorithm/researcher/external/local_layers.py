"""A run's model with what of it stayed at a site: private layers, or the personal model, for `predict`.

A hospital has its own from its node (`V6_ALGORITHM_MODEL_FOLDER`), a run on this machine has those of its sites in its
folder. See `v6_algorithm.site.state.local_models`, which writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v6_algorithm.coordinator.evaluation.returned_model import ReturnedModel
from v6_algorithm.errors import ExperimentError
from v6_algorithm.site.state.local_models import MARK, PRIVATE

if TYPE_CHECKING:
    from torch import Tensor

# Of a run's folder: what of its model stayed at the sites, where those are on this machine.
LAYERS = "layers"


@dataclass(frozen=True)
class Layers:
    """Tensors of one site and fold; `kind` is ``private`` or ``personal``."""

    site: str
    fold: int
    kind: str
    tensors: dict[str, Tensor]


def read_layers(paths: Sequence[Path]) -> list[Layers]:
    """Read files; raises ExperimentError, naming the file, where one is none of these."""
    import safetensors

    read = []
    for path in paths:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            read.append(Layers(about["site"], int(about["fold"]), about[MARK], tensors))
        except OSError as error:
            raise ExperimentError(
                f"--layers {path}: cannot be read: {error.strerror or 'there is no such file'}"
            ) from None
        except (safetensors.SafetensorError, KeyError, ValueError):
            raise ExperimentError(
                f"--layers {path}: is no file of layers that a node wrote into its V6_ALGORITHM_MODEL_FOLDER"
            ) from None
    return read


def layers_of_run(run: Path) -> list[Path]:
    """Return the files that a run on this machine has of its sites."""
    return sorted((run / LAYERS).rglob("*.safetensors")) if run.is_dir() else []


def forget_layers(run: Path) -> None:
    """Remove what an earlier run left of its sites' models in a folder; files of anybody else's stay."""
    import safetensors

    for path in layers_of_run(run):
        with suppress(OSError, safetensors.SafetensorError):
            with safetensors.safe_open(path, framework="np") as file:
                is_ours = MARK in (file.metadata() or {})
            if is_ours:
                path.unlink()
                for folder in (path.parent, run / LAYERS):
                    folder.rmdir()  # until one that is not empty


def model_for(run: Path, layers: Sequence[Path], site: str | None) -> ReturnedModel:
    """Read a run's model: with the layers given, else as it came, or with those of its sites where those are needed.

    Parameters
    ----------
    run
        A folder, result.json or model file.
    layers
        Files of what stayed at hospitals.
    site
        Whose model is wanted; None: of all, whose predictions are averaged where the model is not whole without.
    """
    if layers:
        return ReturnedModel.load(run, read_layers(layers))
    here = layers_of_run(run)
    if here and site is not None:
        return ReturnedModel.load(run, read_layers(here))
    private = [part for part in read_layers(here) if part.kind == PRIVATE]
    return ReturnedModel.load(run, private)
