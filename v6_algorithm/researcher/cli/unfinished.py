"""What `run` leaves in its folder while it lasts, so that `resume` can go on from it; gone when the run is done."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v6_algorithm.errors import CheckpointError, ExperimentError
from v6_algorithm.researcher.cli.terminal import writing

if TYPE_CHECKING:
    from v6_algorithm.coordinator.checkpoint import Checkpoints
    from v6_algorithm.engines.simulation.local import Way
    from v6_algorithm.experiment import Experiment

_OPTIONS = "checkpoint-run.json"
_SITES = "checkpoint-sites"
# Of the time of a run on this machine, for checkpoints, where no more than a second is lost by it.
_SHARE = 0.02


@dataclass(frozen=True)
class UnfinishedRun:
    """A run on this machine that is not done.

    Attributes
    ----------
    experiment
        With the sites' tables, relative to `files`.
    files
        The folder of the experiment file.
    engine, baselines, track, policy, exact, workers
        As `run` was told.
    """

    experiment: Experiment
    files: Path
    engine: str
    baselines: bool
    track: list[str]
    policy: str | None = None
    exact: bool = False
    workers: int | None = None

    @property
    def way(self) -> Way:
        """How messages pass on this machine, and whether sites are trained together."""
        return "wire" if self.engine == "wire" else "exact" if self.exact else "fast"

    def begin(self, folder: Path) -> None:
        """Write down what to do in the folder of the results.

        Raises
        ------
        ExperimentError
            When another run that is not done has its checkpoint there.
        """
        refuse_unfinished(folder)
        content = {
            "experiment": self.experiment.resolved(),
            "files": str(self.files.resolve()),
            "engine": self.engine,
            "baselines": self.baselines,
            "track": self.track,
            "policy": self.policy,
            "exact": self.exact,
            "workers": self.workers,
        }
        with writing(folder):
            (folder / _OPTIONS).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> UnfinishedRun:
        """Read what `begin` wrote; raises CheckpointError where there is none, or it cannot be read."""
        from v6_algorithm.experiment import Experiment

        path = folder / _OPTIONS
        if not path.exists():
            done = "; this run is done" if (folder / "result.json").exists() else ""
            if not folder.exists():
                raise CheckpointError(f"{folder}: there is no such folder")
            raise CheckpointError(f"{folder}: holds no checkpoint to go on from{done}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                Experiment.parse(content["experiment"], where=str(path)),
                Path(content["files"]),
                str(content["engine"]),
                bool(content["baselines"]),
                [str(name) for name in content["track"]],
                content["policy"],
                bool(content["exact"]),
                None if content.get("workers") is None else int(content["workers"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: cannot be read: {type(error).__name__}") from None


def checkpoints_in(folder: Path, experiment: Experiment | None = None) -> Checkpoints:
    """Return the place of a run's checkpoint; of an experiment that is to be run, written as often as it has to be."""
    from v6_algorithm.coordinator.checkpoint import NAME, Checkpoints

    # Sites keep layers of their own, and what compression left over, for the newest rounds only.
    forgets = experiment is None or experiment.private is not None or bool(experiment.strategy.compress.stages)
    return Checkpoints(folder / NAME, share=None if forgets else _SHARE)


def sites_folder(folder: Path) -> Path:
    """Return where the sites of a run keep tensors from round to round."""
    return folder / _SITES


def holds_checkpoint(folder: Path) -> bool:
    """Say whether there is a state to go on from."""
    return checkpoints_in(folder).path.exists()


def refuse_unfinished(folder: Path) -> None:
    """Keep a command from writing over a run that is not done; raises ExperimentError where there is one."""
    if holds_checkpoint(folder):
        raise ExperimentError(
            f"--out {folder}: holds the checkpoint of a run that is not done; `v6-algorithm resume {folder}` goes on "
            "from it, --force or another --out starts anew"
        )


def discard(folder: Path) -> None:
    """Remove what `resume` needs."""
    for path in folder.glob("checkpoint*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
