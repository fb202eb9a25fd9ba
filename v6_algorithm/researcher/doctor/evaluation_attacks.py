"""Attacks through what is measured in the rounds: rows counted on one side of a point that moves from round to round.

A model of one column says of each row whether it is above a point. Its confusion matrix counts these rows by label; two
points between which the count changes by one have one row between them, and halving finds where. The point moves with
the model's bias, which whoever is in `master`'s place may choose in each round, or with the scales that a request says.
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
_GRID = 25
# A value is read to this share of its column's spread.
_NEAR = 1e-3
# Rows above a point, of label 0 and of label 1.
_Counts = tuple[int, int]


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
        if right - left <= near and sorted(fewer) == [0, 1]:
            inside = (values >= left - 1e-6) & (values <= right + 1e-6) & (labels == fewer.index(1))
            read += int(inside.any())
    return read
