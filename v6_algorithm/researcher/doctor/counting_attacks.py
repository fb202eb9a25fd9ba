"""Attacks that count rows on one side of a point, which moves from round to round.

Two points between which the count changes by one have one row between them, and halving finds where. A model of one
column says of each row whether it is above the point: its confusion matrix counts these rows by label, and so does the
update of a layer that sees a step. The point moves with the model, which whoever is in `master`'s place may choose in
each round, or with the scales that a request says. Answers that are exact sums, of models that the asker chooses by the
answers before, can always be turned into rows [1]_; what bounds it is noise.

References
----------
.. [1] Dinur and Nissim (2003), Revealing information while preserving privacy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.researcher.doctor.hospital import SITE, Hospital, initial

if TYPE_CHECKING:
    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.experiment import Experiment

_ROUNDS = 120
_ALL_TRAIN = {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}
_EPSILON = 8.0
_LABELS = (0, 1)
_GRID = 25
# A value is read to this share of its column's spread.
_NEAR = 1e-3
# Rows above a point, of label 0 and of label 1; or those of label 0 less those of label 1.
_Counts = tuple[int, ...]


def moving_models(hospital: Hospital) -> int:
    """Models of one column whose bias moves from round to round."""
    experiment, setup = _prepared(hospital)
    return _read_by_counting(hospital, lambda number, point: _count(hospital, experiment, setup, number, point))


def moving_scales(hospital: Hospital) -> int:
    """One model of one column, and requests whose scales put the column elsewhere in each round."""
    from v6_algorithm.data.preparation import Preparation

    experiment, setup = _prepared(hospital)
    zero = np.zeros((1, len(hospital.features)))

    def count(number: int, point: float) -> _Counts:
        shift = zero.copy()
        shift[0, 0] = point
        moved = replace(setup, preparation=Preparation(zero, shift, zero + 1))
        return _count(hospital, experiment, moved, number, 0.0)

    return _read_by_counting(hospital, count)


def moving_steps(hospital: Hospital) -> int:
    """A step of two hidden units, flat but for a few thousandths: the next layer's update counts rows beyond it."""
    import torch

    from v6_algorithm.exchange import wire

    privacy: dict[str, Any] = {}
    if (epsilon := hospital.policy.maximum_epsilon) is not None:
        noise = {"unit": "sample", "epsilon": min(epsilon, _EPSILON), "delta": hospital.policy.maximum_delta}
        privacy = {"privacy": {"differential_privacy": noise}}
    one_step = {"optimizer": {"kind": "sgd", "lr": 1.0}, "batch_size": None, "local_epochs": 1}
    model = {"kind": "mlp", "hidden": [2], "norm": "none"}
    experiment = hospital.experiment(model=model, split=_ALL_TRAIN, rounds=_ROUNDS, training=one_step, **privacy)
    setup, rows = hospital.setup(1), len(hospital.frame)
    hospital.prepare(experiment, setup)
    flat = {name: torch.zeros_like(tensor) for name, tensor in initial(experiment, setup).items()}
    first, second = (name for name in flat if name.endswith("weight"))
    steep = 3 / (_NEAR * hospital.values[:, 0].std())

    def count(number: int, point: float) -> _Counts:
        # The output's weights stay 0: each row is predicted as 0.5, and no gradient reaches the first layer.
        state = {name: tensor.clone() for name, tensor in flat.items()}
        state[first][:, 0] = steep
        state[first.replace("weight", "bias")] -= torch.tensor([steep * point, steep * point + 1])
        item = {"fold": 0, "parameters": wire.pack(state), "evaluate": [], "train": True}
        reply = hospital.ask("train", experiment, number, setup=setup.to_json(), folds=[item])
        moved = (state[second] - wire.unpack(reply["folds"][0]["parameters"])[second]).double().numpy()[-1]
        return (round(float(moved[0] - moved[1]) * 2 * rows),)

    return _read_by_counting(hospital, count)


def _prepared(hospital: Hospital) -> tuple[Experiment, Setup]:
    """Go through the preparation and the first round as a training run does."""
    split = {"kind": "ratio", "train": 0.2, "validation": 0.4, "test": 0.4}
    experiment = hospital.experiment(split=split, rounds=_ROUNDS)
    setup = hospital.setup(1)
    hospital.prepare(experiment, setup)
    first: dict[str, Any] = {"fold": 0, "parameters": None, "evaluate": [], "train": True}
    hospital.ask("train", experiment, 1, setup=setup.to_json(), folds=[first])
    return experiment, setup


def _count(hospital: Hospital, experiment: Experiment, setup: Setup, number: int, point: float) -> _Counts:
    """Let the node measure, in a round, a model that says whether the first column is above a point."""
    import torch

    from v6_algorithm.exchange import wire

    state = {name: torch.zeros_like(tensor) for name, tensor in initial(experiment, hospital.setup(1)).items()}
    weight = next(name for name in state if name.endswith("weight"))
    state[weight][-1, 0] = 1.0
    state[weight.replace("weight", "bias")][-1] = -point
    item = {"fold": 0, "parameters": wire.pack(state), "evaluate": ["validation"], "train": False}
    reply = hospital.ask("train", experiment, number, setup=setup.to_json(), folds=[item])
    (_, above_of_0), (_, above_of_1) = reply["folds"][0]["metrics"]["validation"][SITE]["confusion"]
    return above_of_0, above_of_1


def _read_by_counting(hospital: Hospital, count: Callable[[int, float], _Counts]) -> int:
    """Halve the distance between points whose counts differ; return how many values, with labels, came out."""
    values, labels = hospital.values[:, 0], hospital.frame[hospital.target].to_numpy()
    near, number = _NEAR * values.std(), 1
    counts: dict[float, _Counts] = {}
    points = np.linspace(values.min() - 0.1, values.max() + 0.1, _GRID).tolist()
    while points and number < _ROUNDS:
        for point in points[: _ROUNDS - number]:
            number += 1
            counts[point] = count(number, point)
        known = sorted(counts)
        points = [
            (left + right) / 2
            for left, right in pairwise(known)
            if counts[left] != counts[right] and right - left > near
        ]
        # One after another, for rounds are few.
        points = points[: _GRID // 3]
    known, read = sorted(counts), 0
    for left, right in pairwise(known):
        fewer = np.subtract(counts[left], counts[right]).tolist()
        if right - left > near or sorted(map(abs, fewer)) not in ([1], [0, 1]):
            continue
        label = fewer.index(1) if len(fewer) == len(_LABELS) else int(fewer[0] < 0)
        read += int(((values >= left - 1e-6) & (values <= right + 1e-6) & (labels == label)).any())
    return read
