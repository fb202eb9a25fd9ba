"""Two finished models measured on the same rows of this site: what DeLong's paired comparison needs, as sums.

`learning` calls it for a fold of a test that names a second model (``against``). The first call tells the second
model's metrics. The second call brings the placements that all sites' histograms come to, and tells sums of their
squares and products over each class: six numbers a class, whatever the rows. Where the node joins score bins of few
rows, a row counts as its joined bin here too, so that the sums are about the bins that were told. With them go the
differences of both models' losses, and how many rows of each class which model takes for class 1: of these
`coordinator.evaluation.resampling` draws the bootstrap of rows, which needs no more than the counts.

References
----------
DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under two or more correlated ROC curves, Biometrics 44(3).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.errors import DataError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Tested
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.problems.base import Networks, Problem
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.loop import Rows

Array = np.ndarray
# Sections of `data` in which two models may differ: they say which inputs a row has, not which rows there are.
_OF_INPUTS = (
    "features",
    "exclude",
    "categorical",
    "missing",
    "scaling",
    "target_scaling",
    "harmonisation",
    "categories",
)
# Of each model what a message has: bins of the others' class, and the share of its rows at them or below.
PLACEMENTS = ("negatives", "below", "positives", "reached")


class _Collected:
    """Keeps what is predicted for each row, in the order of the rows."""

    def __init__(self) -> None:
        self._parts: list[tuple[Array, Array]] = []

    def update(self, prediction: Any, target: Any, loss: Any) -> None:
        """Take in rows: (rows, 2) probabilities and (rows,) classes."""
        self._parts.append((np.array(prediction, dtype=np.float64), np.array(target)))

    def state(self) -> dict[str, Any]:
        """Return them, (rows,) each."""
        return {
            "risk": np.concatenate([np.zeros(0), *(rows[:, 1] for rows, _ in self._parts)]),
            "taken": np.concatenate([np.zeros(0, dtype=bool), *(rows[:, 1] > rows[:, 0] for rows, _ in self._parts)]),
            "target": np.concatenate([np.zeros(0), *(target for _, target in self._parts)]),
        }


def compare(
    work: Work,
    item: Mapping[str, Any],
    problem: Problem,
    networks: Networks,
    rows: Rows,
    part: Tensor,
    table: TableData,
    device: Device,
) -> dict[str, Any]:
    """Return `compared`, the second model's metrics by hospital, or with placements `paired`, sums by hospital.

    Raises
    ------
    PolicyError
        When the node's rules are against the second model's experiment.
    DataError
        When the models are measured on other rows here.
    """
    from v6_algorithm.learning.training import loop

    against = item["against"]
    other = _other(work, against)
    problem_b, networks_b, rows_b, table_b = _loaded(other, against, device)
    same = table_b.members == table.members and np.array_equal(table_b.member, table.member)
    if not same or not np.array_equal(table_b.origin, table.origin):
        raise DataError(
            "the two models are measured on other rows here, for one of them leaves rows with empty cells out "
            "(data.missing drop); a paired comparison needs the same rows"
        )
    evaluated = partial(loop.evaluate, fold=0, device=device)
    if against.get("placements") is None:
        return {"compared": evaluated(problem_b, networks_b, rows_b, part, table.members)}
    placements = _check_placements(against["placements"])
    first = evaluated(problem, networks, rows, part, table.members, accumulator=_Collected)
    second = evaluated(problem_b, networks_b, rows_b, part, table.members, accumulator=_Collected)
    joins = work.policy.minimum_cell if work.policy.coarse_histograms else None
    least = work.policy.minimum_cell
    return {
        "paired": {
            name: _sums(first[name]["target"], (first[name]["risk"], second[name]["risk"]), placements, joins, least)
            | {"joint": _joint(first[name], second[name], least)}
            for name in table.members
        }
    }


def _other(work: Work, against: Mapping[str, Any]) -> Work:
    """Return the second model's own request, which the node's rules must allow."""
    split, parameters = work.experiment.split, against.get("parameters")
    if not isinstance(split, Tested) or wire.digest(str(parameters)) not in split.models:
        raise WireError("a second model is measured in a test that names it (split.models), and in no other task")
    item = {"fold": 0, "parameters": parameters, "evaluate": ["test"], "train": False}
    request = {**work.request, "experiment": against["experiment"], "setup": against["setup"], "folds": [item]}
    other = Work(request, work.context)
    if not isinstance(other.experiment.split, Tested) or other.experiment.problem.kind != "classification":
        raise WireError("the second model must be of a test too, of problem classification")
    here, there = (side.experiment.data.model_dump(mode="json", exclude=set(_OF_INPUTS)) for side in (work, other))
    if differing := [key for key in here if here[key] != there[key]]:
        raise WireError(f"the two models' data differ in {', '.join(differing)}; only their inputs may")
    other.guard.admit_compared()
    return other


def _loaded(other: Work, against: Mapping[str, Any], device: Device) -> tuple[Problem, Networks, Rows, TableData]:
    from v6_algorithm.learning.problems import create_problem
    from v6_algorithm.learning.training.state import build_shapes, load_state, spec_of

    setup = other.setup()
    table = other.table(setup)
    problem = create_problem(other.experiment, setup)
    problem.folder = other.folder
    networks = build_shapes(problem)
    other.guard.check_networks(networks, problem.sums_of_squares)
    load_state(networks, wire.unpack(against["parameters"], spec_of(networks)))
    for network in networks.values():
        network.to(device.kind)
    return problem, networks, other.rows(table, setup, 0, device), table


def _check_placements(packed: Any) -> list[dict[str, Array]]:
    """Read the placements of both models: rising bins, and shares that rise from 0 to 1."""
    from v6_algorithm.data.preparation.setup import unpack_arrays
    from v6_algorithm.learning.metrics.histogram import FINE_BINS

    arrays = unpack_arrays(packed)
    if set(arrays) != {f"{model}_{name}" for model in ("first", "second") for name in PLACEMENTS}:
        raise WireError("placements must be of both models and both classes")
    for bins, shares in (("negatives", "below"), ("positives", "reached")):
        for model in ("first", "second"):
            places, share = arrays[f"{model}_{bins}"], arrays[f"{model}_{shares}"]
            rising = places.ndim == 1 and places.shape == share.shape and len(places) <= FINE_BINS
            if not rising or (np.diff(places) <= 0).any() or (np.diff(share) < 0).any():
                raise WireError("placements must be of rising bins, and their shares must rise")
            if not np.isfinite(share).all() or not ((share >= 0) & (share <= 1 + 1e-9)).all():
                raise WireError("the shares of placements must be from 0 to 1")
    return [{name: arrays[f"{model}_{name}"] for name in PLACEMENTS} for model in ("first", "second")]


def _sums(
    target: Array, risks: tuple[Array, Array], placements: list[dict[str, Array]], joins: int | None, least: int
) -> dict[str, list[float] | None]:
    """Return of each class rows, and sums of both placements, their squares and product; of Brier's differences too."""
    usable = np.isfinite(risks[0]) & np.isfinite(risks[1])
    event = target[usable] == 1
    values = []
    for risk, placement in zip(risks, placements, strict=True):
        bins = _bins(risk[usable], event, joins)
        above = _share(placement["negatives"], placement["below"], bins)
        below = 1 - _share(placement["positives"], placement["reached"], bins)
        values.append(np.where(event, above, below))
    sums: dict[str, list[float] | None] = {}
    for name, chosen in (("positives", event), ("negatives", ~event)):
        a, b = values[0][chosen], values[1][chosen]
        told = [float(len(a)), *(float(column.sum()) for column in (a, b, a * a, b * b, a * b))]
        sums[name] = None if 0 < len(a) < least else told
    squares = [(risk[usable] - event) ** 2 for risk in risks]
    # Of the class that a row has; a probability of 0 counts as one of 1e-15.
    losses = [-np.log(np.maximum(np.where(event, risk[usable], 1 - risk[usable]), 1e-15)) for risk in risks]
    for name, (of_first, of_second) in (("brier", squares), ("log_loss", losses)):
        gap = of_first - of_second
        told = [float(column.sum()) for column in (of_first, of_second, gap**2)]
        sums[name] = None if 0 < len(gap) < least else [float(len(gap)), *told]
    return sums


def _joint(first: Mapping[str, Array], second: Mapping[str, Array], least: int) -> list[float] | None:
    """Count the rows of class 0, then of class 1, that neither, the second, the first or both take for class 1.

    None where a class has few rows. A crafted model could tell each of these counts by its confusion matrix alone.
    """
    usable = np.isfinite(first["risk"]) & np.isfinite(second["risk"])
    event = first["target"][usable] == 1
    if any(0 < int(chosen.sum()) < least for chosen in (event, ~event)):
        return None
    place = 4 * event + 2 * first["taken"][usable] + second["taken"][usable]
    return [float(count) for count in np.bincount(place, minlength=8)]


def _bins(risk: Array, event: Array, joins: int | None) -> Array:
    """Return the bin of each row, or where bins of few rows are joined that of its cell."""
    from v6_algorithm.learning.metrics.histogram import FINE_BINS, bin_index
    from v6_algorithm.site.guard.join import joined_groups

    bins = np.asarray(bin_index(risk, FINE_BINS), dtype=np.int64)
    if joins is None or not len(bins):
        return bins
    places, number = np.unique(bins, return_inverse=True)
    counts = np.stack([np.bincount(number[kind], minlength=len(places)) for kind in (event, ~event)])
    standing = np.zeros(len(places), dtype=np.int64)
    for place, group in joined_groups(counts, joins, places):
        standing[group] = place
    return standing[number]


def _share(places: Array, shares: Array, bins: Array) -> Array:
    """Return the share of the other class below each bin, half of those in it."""
    steps = np.concatenate([[0.0], shares])
    below, reached = (steps[np.searchsorted(places, bins, side=side)] for side in ("left", "right"))
    halfway: Array = (below + reached) / 2
    return halfway
