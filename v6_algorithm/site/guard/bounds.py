"""Upper bounds on what a request may cost this node, checked before anything is read or built. Called by the guard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import PolicyError
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD

if TYPE_CHECKING:
    from torch import nn

_LARGEST_SHOWN = 10**300


def _check(policy: Policy, field: str, number: float, what: str) -> None:
    most = getattr(policy, field)
    if most is not None and number > most:
        # An integer may be larger than any float.
        given = f"{number:g}" if number < _LARGEST_SHOWN else "more than 1e+300"
        raise PolicyError(f"{what}: {given} is over this node's bound of {most:g} ({BY_FIELD[field].variable})")


def check_experiment(policy: Policy, experiment: Experiment) -> None:
    """Refuse an experiment that is too large by what it says itself; names the key."""
    _check(policy, "maximum_rounds", experiment.rounds, "rounds")
    private = experiment.privacy.differential_privacy
    if policy.maximum_epsilon is not None and private is not None:
        _check(policy, "maximum_epsilon", private.epsilon, "privacy.differential_privacy.epsilon")
        _check(policy, "maximum_delta", private.delta, "privacy.differential_privacy.delta")
    split = experiment.split
    folds = (getattr(split, "folds", None) or 1) * (getattr(split, "repeats", None) or 1)
    _check(policy, "maximum_folds", max(folds, len(experiment.data.split_columns)), "split.folds x split.repeats")
    if experiment.personal is not None:
        _check(policy, "maximum_row_passes", experiment.personal.epochs, "personal.epochs")
    for path, value in _numbers(experiment.model.model_dump(mode="json"), "model"):
        if isinstance(value, list):
            _check(policy, "maximum_layers", len(value), path)
            value = max([item for item in value if isinstance(item, (int, float))], default=0)
        if value > 1:
            _check(policy, "maximum_width", value, path)
    image = experiment.data.image
    size = [length for length in (getattr(image, "size", None) or []) if isinstance(length, int)]
    if size:
        _check(policy, "maximum_pixels", prod(size), "data.image.size")


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


def check_networks(policy: Policy, networks: Mapping[str, nn.Module]) -> None:
    """Refuse a model of too many numbers; the networks may be without memory (torch's meta device)."""
    total = sum(tensor.numel() for network in networks.values() for tensor in network.state_dict().values())
    _check(policy, "maximum_parameters", total, "model: numbers")


def check_training(policy: Policy, experiment: Experiment, round: int, rows: int, item: Mapping[str, Any]) -> None:
    """Refuse a round's training of one fold that is too long, or whose update would be of few rows.

    An update of one step on a batch of one row is that row; so the batch, and the rows that all steps see, have a
    least size, where there are so many rows.
    """
    training = experiment.training
    batch = min(training.batch_size or rows, rows)
    epochs = item.get("epochs") or training.epochs_in(round)
    steps = None if epochs else (training.steps_in(round) or 1)
    seen = rows * epochs if epochs else batch * training.accumulate * (steps or 1)
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
