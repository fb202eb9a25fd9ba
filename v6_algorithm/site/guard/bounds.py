"""Upper bounds on what a request may cost this node, checked before anything is read or built. Called by the guard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import PolicyError
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD

if TYPE_CHECKING:
    from torch import nn

    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.experiment.imaging.images import Image

_LARGEST_SHOWN = 10**300
# Of a body, for the number of voxels that a spacing makes of it, in millimetres.
_FIELD = 256
# Newest, averaged and personal models, before and after a site was lost: no run asks more of one fold at once.
_ITEMS_PER_FOLD = 8


def _check(policy: Policy, field: str, number: float, what: str) -> None:
    most = getattr(policy, field)
    if most is not None and number > most:
        # An integer may be larger than any float.
        given = f"{number:g}" if number < _LARGEST_SHOWN else "more than 1e+300"
        raise PolicyError(f"{what}: {given} is over this node's bound of {most:g} ({BY_FIELD[field].variable})")


def check_experiment(policy: Policy, experiment: Experiment) -> None:
    """Refuse an experiment that is too large by what it says itself; names the key."""
    _check(policy, "maximum_rounds", experiment.rounds, "rounds")
    noise = experiment.privacy.differential_privacy
    if policy.maximum_epsilon is not None and noise is not None:
        _check(policy, "maximum_epsilon", noise.epsilon, "privacy.differential_privacy.epsilon")
        _check(policy, "maximum_delta", noise.delta, "privacy.differential_privacy.delta")
    folds, missing = _folds(experiment), experiment.data.missing
    what = "data.missing.imputations" if missing.kind == "impute" else "split.folds x split.repeats"
    _check(policy, "maximum_folds", max(folds, len(experiment.data.split_columns)), what)
    if missing.kind == "impute":
        _check(policy, "maximum_rounds", missing.iterations, "data.missing.iterations")
    personal, private = experiment.personal, experiment.private
    for path, epochs in (
        ("personal.epochs", personal.epochs if personal is not None else None),
        ("strategy.private.epochs", private.epochs if private is not None else None),
        ("start.pretrain_epochs", experiment.start.pretrain_epochs),
    ):
        _check(policy, "maximum_row_passes", epochs or 0, path)
    for path, value in _numbers(experiment.model.model_dump(mode="json"), "model"):
        if path.startswith("model.splines."):
            # Places of knots are in units of a column, and how many there are is bounded by their section.
            continue
        if isinstance(value, list):
            _check(policy, "maximum_layers", len(value), path)
            value = max([item for item in value if isinstance(item, (int, float))], default=0)
        if value > 1:
            _check(policy, "maximum_width", value, path)
    if experiment.data.image is not None:
        _check_image(policy, experiment.data.image)
    for number, stage in enumerate(experiment.strategy.compress.stages):
        iterations = getattr(stage, "iterations", None) or 0
        _check(policy, "maximum_rounds", iterations, f"strategy.compress.stages.{number}.iterations")
    _check(policy, "maximum_layers", len(experiment.training.augmentation), "training.augmentation: entries")
    _check(policy, "maximum_width", len(experiment.data.target_columns), "data.targets: entries")


def _check_image(policy: Policy, image: Image) -> None:
    for path, lengths in (("size", [image.channels or 1, *(image.size or [1])]), ("shape", image.shape or [1])):
        _check(policy, "maximum_pixels", prod(int(length) for length in lengths), f"data.image.{path}")
    if image.spacing:
        voxels = prod(_FIELD / max(float(length), 1e-99) for length in image.spacing)
        _check(policy, "maximum_pixels", voxels, f"data.image.spacing: voxels of a cube of {_FIELD} mm")


def _numbers(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the numbers of a section, and its lists of numbers, with their paths."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _numbers(value, f"{path}.{name}")
    elif isinstance(content, list):
        yield path, content
        yield from (pair for place, item in enumerate(content) for pair in _numbers(item, f"{path}[{place}]"))
    elif isinstance(content, (int, float)) and not isinstance(content, bool):
        yield path, content


def _folds(experiment: Experiment) -> int:
    """Return how many folds an experiment has: those of its split, or the tables that are imputed.

    One where only the sites that take part say how many there are: see `_hospitals`.
    """
    split, missing = experiment.split, experiment.data.missing
    if missing.kind == "impute":
        return missing.imputations
    return (getattr(split, "folds", None) or 1) * (getattr(split, "repeats", None) or 1)


def _hospitals(experiment: Experiment, request: Mapping[str, Any]) -> int:
    """Return how many hospitals are tested in turn, a fold each, by the request's setup; 0 of any other split."""
    if experiment.split.kind != "leave_one_site_out":
        return 0
    setup = request.get("setup")
    hospitals = setup.get("hospitals") if isinstance(setup, Mapping) else None
    return len(hospitals) if isinstance(hospitals, list) else 0


def check_folds(policy: Policy, experiment: Experiment, request: Mapping[str, Any]) -> None:
    """Refuse a request that names more folds than its experiment has, each as often as a run may need."""
    hospitals, folds = _hospitals(experiment, request), request.get("folds") or []
    _check(policy, "maximum_folds", hospitals, "setup.hospitals, of which each is tested in turn")
    number = max(_folds(experiment), len(experiment.data.split_columns), hospitals)
    most = _ITEMS_PER_FOLD * number
    if len(folds) > most:
        raise PolicyError(
            f"the request's folds: {len(folds)} are asked for, an experiment of {number} needs at most {most} "
            f"({BY_FIELD['maximum_folds'].variable} bounds those of an experiment)"
        )


def check_inputs(policy: Policy, setup: Setup, rows: int) -> None:
    """Refuse a table that is too large once it is encoded: one-hot categories, series filled up to one length.

    Raises
    ------
    PolicyError
        Naming the part of the setup, which is the coordinator's to say.
    """
    for name, labels in {"classes": setup.classes or [], **setup.task_classes}.items():
        _check(policy, "maximum_width", len(labels), f"setup: classes ('{name[:40]}')")
    if setup.image_shape:
        _check(policy, "maximum_pixels", prod(setup.image_shape), "setup.image_shape")
        return
    columns = len(setup.features) * (setup.sequence_length or 1)
    columns += sum(len(labels) + 1 for labels in setup.categories.values())
    _check(policy, "maximum_cells", rows * columns, "setup: rows x inputs, each category and each time one")


def check_features(policy: Policy, features: Sequence[str], rows: int) -> None:
    """Refuse a description of more numbers than a table may have; a request may name a column many times."""
    _check(policy, "maximum_cells", rows * len(features), "features: rows x columns")


def check_networks(policy: Policy, networks: Mapping[str, nn.Module], columns: int = 0) -> None:
    """Refuse a model of too many numbers; the networks may be without memory (torch's meta device).

    A model that is fitted by sums sends those of products of its `columns`.
    """
    total = sum(tensor.numel() for network in networks.values() for tensor in network.state_dict().values())
    _check(policy, "maximum_parameters", total, "model: numbers")
    _check(policy, "maximum_parameters", columns**2, "model: sums of products of its columns")


def row_passes(experiment: Experiment, round: int, rows: int, item: Mapping[str, Any]) -> int:
    """Return how often a training of one fold sees a row: epochs x rows, or batch size x steps."""
    training = experiment.training
    batch = min(training.batch_size or rows, rows)
    epochs = item.get("epochs") or training.epochs_in(round)
    return int(rows * epochs if epochs else batch * training.accumulate * (training.steps_in(round) or 1))


def check_passes(
    policy: Policy, experiment: Experiment, round: int, folds: Sequence[tuple[int, Mapping[str, Any]]]
) -> None:
    """Refuse a request whose trainings are too long together.

    Parameters
    ----------
    folds
        Training rows and item of each: trained where it says so, its private layers first, and anew if personal.
    """
    total, first = 0, experiment.private.epochs if experiment.private is not None else None
    for rows, item in folds:
        if item.get("train"):
            total += row_passes(experiment, round, rows, item) + rows * (first or 0)
        if item.get("personal") and experiment.personal is not None:
            total += rows * experiment.personal.epochs
    _check(policy, "maximum_row_passes", total, "all folds of a request: rows x epochs, or batch size x steps")


def check_training(policy: Policy, experiment: Experiment, round: int, rows: int, item: Mapping[str, Any]) -> None:
    """Refuse a round's training of one fold that is too long, or whose update would be of few rows.

    An update of one step on a batch of one row is that row; so the batch, and the rows that all steps see, have a
    least size, where there are so many rows.
    """
    batch = min(experiment.training.batch_size or rows, rows)
    seen = row_passes(experiment, round, rows, item)
    _check(policy, "maximum_row_passes", seen, "training: rows x epochs, or batch size x steps")
    if batch < min(policy.minimum_batch, rows):
        raise PolicyError(
            f"training.batch_size: {batch} is below this node's least of {policy.minimum_batch} "
            f"({BY_FIELD['minimum_batch'].variable}); the update of a small batch tells its rows"
        )
    if min(seen, rows) < min(policy.minimum_update_rows, rows):
        raise PolicyError(
            f"training: an update of {seen} rows is below this node's least of {policy.minimum_update_rows} "
            f"({BY_FIELD['minimum_update_rows'].variable}); take more steps, larger batches or whole epochs"
        )


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Stop a request that takes longer; in the main thread of a process that has such alarms, elsewhere not."""
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not usable:
        yield
        return

    def stop(*_: Any) -> None:
        raise PolicyError(
            f"the request took longer than this node's {seconds} s ({BY_FIELD['maximum_seconds'].variable})"
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
