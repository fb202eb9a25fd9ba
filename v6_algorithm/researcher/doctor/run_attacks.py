"""Attacks in the course of a training run: weights made by hand after the first round, or sums of several tasks.

What `attacks` holds needs requests that no run makes, or settings that the node's rules know. These look like a run:
whoever holds `master`'s place, or may send two ordinary tasks, can try them. They are tried, and counted, as those are.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.researcher.doctor.hospital import SITE, Hospital, Refused, initial

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment

_ALL_TRAIN = {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}
_ONE_STEP = {"optimizer": {"kind": "sgd", "lr": 1.0}, "batch_size": None, "local_epochs": 1}


def crafted_layer_later(hospital: Hospital) -> int:
    """Weights whose units each begin to see one row more than the unit before, sent in the second round of a run."""
    import torch

    units = 256
    experiment = hospital.experiment(model={"kind": "mlp", "hidden": [units], "norm": "none"}, training=_ONE_STEP)
    setup = hospital.setup(1)
    hospital.prepare(experiment, setup)
    state = initial(experiment, setup)
    first, second = (name for name in state if name.endswith("weight"))
    values = hospital.values[:, 0]
    edges = np.linspace(values.mean() - 3 * values.std(), values.mean() + 3 * values.std(), units)
    # Turned a little, each in a direction of its own, so that no two units are parallel.
    state[first] = torch.randn(state[first].shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    state[first][:, 0] = 1
    state[first.replace("weight", "bias")] = -torch.as_tensor(edges, dtype=torch.float32)
    state[second] = torch.full_like(state[second], 1e-3)
    state[second][0] *= -1
    units_sent = _step(hospital, experiment, setup, state, first, 2)
    return _read(hospital, units_sent[:-1] - units_sent[1:])


def wide_layer(hospital: Hospital) -> int:
    """An ordinary wide layer, one step over all rows: pairs of random units differ in a row here and there."""
    experiment = hospital.experiment(model={"kind": "mlp", "hidden": [256], "norm": "none"}, training=_ONE_STEP)
    setup = hospital.setup(1)
    hospital.prepare(experiment, setup)
    state = initial(experiment, setup)
    first, second = (name for name in state if name.endswith("weight"))
    sent = _step(hospital, experiment, setup, None, first, 1)
    outgoing = state[second].double().numpy()
    sent = sent / (outgoing[0] if len(outgoing) == 1 else outgoing[0] - outgoing[1])[:, None]
    left, other = np.triu_indices(len(sent), 1)
    return _read(hospital, np.concatenate([sent, sent[left] - sent[other]]))


def moving_coefficients(hospital: Hospital) -> int:
    """A logistic model so steep that its gradient counts rows beyond a point, which moves from round to round."""
    import torch

    rounds = 150
    experiment = hospital.experiment(training=_ONE_STEP, rounds=rounds)
    setup = hospital.setup(1)
    hospital.prepare(experiment, setup)
    state = initial(experiment, setup)
    first = next(name for name in state if name.endswith("weight"))
    values, sent = hospital.values[:, 0], []
    steep = 3e3
    for number, edge in enumerate(np.linspace(values.min() - 0.1, values.max() + 0.1, rounds - 1), 2):
        state = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        state[first][-1, 0] = steep
        state[first.replace("weight", "bias")][-1] = -steep * float(edge)
        try:
            sent.append(_step(hospital, experiment, setup, state, first, number)[-1])
        except Refused:
            if not sent:
                raise
            # A site that refuses one round answers the next one.
    return _read(hospital, np.diff(np.array(sent), axis=0)) if len(sent) > 1 else 0


def glm_coefficients(hospital: Hospital) -> int:
    """Coefficients at which one row after another carries the whole information matrix of a logistic regression."""
    import torch

    from v6_algorithm.exchange import wire

    rounds = 150
    experiment = hospital.experiment(model={"kind": "glm"}, rounds=rounds)
    setup = hospital.setup(1)
    hospital.prepare(experiment, setup)
    state = initial(experiment, setup)
    weight = next(name for name in state if name.endswith("weight"))
    name = weight.removesuffix("weight")
    values, guesses, refused = hospital.values[:, 0], [], None
    for number, edge in enumerate(np.linspace(values.min() - 0.1, values.max() + 0.1, rounds - 1), 2):
        state = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
        state[weight][0], state[f"{name}bias"] = 1e3, torch.tensor(-1e3 * float(edge), dtype=torch.float64)
        state[f"{name}totals"][0] = 1.0
        item = {"fold": 0, "parameters": wire.pack(state), "evaluate": [], "train": True}
        try:
            reply = hospital.ask("train", experiment, number, setup=setup.to_json(), folds=[item])
        except Refused as refusal:
            refused = refusal
            continue
        sums = wire.unpack(reply["folds"][0]["parameters"])[f"{name}information"].numpy()
        guesses.append(sums[0, 1:] / sums[0, 0])
    if not guesses and refused is not None:
        raise refused
    return hospital.recovered(np.array(guesses))


def survival_cells(hospital: Hospital) -> int:
    """A Cox model that passes one column through: its cells are a list of the column beside each row's time."""
    import torch

    from v6_algorithm.data.preparation import Preparation, Setup
    from v6_algorithm.exchange import wire
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.learning.metrics.survival.collector import SCORE_RANGE, scores_at

    column = hospital.features[0]
    frame = hospital.frame.assign(
        time=np.random.default_rng(5).exponential(10, len(hospital.frame)).round(3) + 0.01, event=1
    )
    node = replace(hospital, frame=frame)
    experiment = Experiment.parse(
        {
            "data": {"target": {"duration": "time", "event": "event"}, "features": [column], "scaling": "none"},
            "problem": "survival", "model": "linear", "rounds": 20, "training": {"batch_size": None},
            "split": {"kind": "ratio", "train": 0.2, "validation": 0.4, "test": 0.4},
        }
    )  # fmt: skip
    zero = np.zeros((1, 1))
    setup = Setup([column], {}, None, preparation=Preparation(zero, zero, zero + 1))
    sums = node.prepare(experiment, setup)["sums"]
    from v6_algorithm.data.preparation.setup import unpack_arrays

    setup = replace(setup, sums=unpack_arrays(sums))
    first: dict[str, Any] = {"fold": 0, "parameters": None, "evaluate": [], "train": True}
    with suppress(Refused):
        node.ask("train", experiment, 1, setup=setup.to_json(), folds=[first])
    state = {name: torch.zeros_like(tensor) for name, tensor in initial(experiment, setup).items()}
    weight = next(name for name in state if name.endswith("weight"))
    values = hospital.values[:, 0]
    slope = SCORE_RANGE / (3 * values.std())
    state[weight][0, 0] = slope
    item = {"fold": 0, "parameters": wire.pack(state), "evaluate": ["validation", "test"], "train": False}
    reply = node.ask("evaluate", experiment, 1, setup=setup.to_json(), folds=[item])
    read, claimed = 0, 0
    times = frame["time"].to_numpy()
    for part in ("validation", "test"):
        state_of_part = reply["folds"][0]["metrics"][part][SITE]
        edges = np.array([0, *state_of_part["edges"], np.inf])
        for time, score, events, censored in state_of_part["cells"]:
            if events + censored > 1:
                continue
            claimed += 1
            low, high = scores_at([score, score + 1]) / slope
            inside = (values >= low - 1e-6) & (values < high + 1e-6)
            read += int((inside & (times > edges[time]) & (times <= edges[time + 1])).sum() == 1)
    return read if read > claimed / 2 else 0


def two_tasks(hospital: Hospital) -> int:
    """Two ordinary tasks whose rows differ by one patient: the difference of their means is the patient."""
    from v6_algorithm.data.preparation.setup import unpack_arrays

    column = hospital.features[0]
    values = hospital.frame[column].to_numpy()
    ordered = np.sort(values)
    setup = replace(hospital.setup(1), preparation=None)
    sums = []
    middle = len(ordered) // 2
    for number, threshold in enumerate(ordered[middle : middle + 2].tolist()):
        data = {
            "target": hospital.target, "features": hospital.features, "scaling": "none",
            "where": {column: f"> {threshold!r}"},
        }  # fmt: skip
        node = hospital.in_another_job(number)
        experiment = hospital.experiment(data=data, split=_ALL_TRAIN)
        moments = unpack_arrays(node.prepare(experiment, setup)["moments"])
        sums.append(moments["mean"][0] * moments["count"][0])
    return hospital.recovered((sums[0] - sums[1])[None])


def _step(hospital: Hospital, experiment: Experiment, setup: Any, state: Any, first: str, number: int) -> np.ndarray:
    """Train one round from a state; return how far each unit of the first layer moved, (units, inputs + 1)."""
    from v6_algorithm.exchange import wire

    packed = None if state is None else wire.pack(state)
    item: dict[str, Any] = {"fold": 0, "parameters": packed, "evaluate": [], "train": True}
    reply = hospital.ask("train", experiment, number, setup=setup.to_json(), folds=[item])
    before = initial(experiment, setup) if state is None else state
    after = wire.unpack(reply["folds"][0]["parameters"])
    bias = first.replace("weight", "bias")
    moved = [(before[name] - after[name]).double().numpy() for name in (first, bias)]
    return np.concatenate([moved[0], moved[1][:, None]], axis=1)


def _read(hospital: Hospital, sums: np.ndarray) -> int:
    """Count rows among the ratios of sums, (sums, inputs + 1), to a hundredth of each column's spread."""
    usable = sums[np.abs(sums[:, -1]) > 1e-9]
    # Float32 differences: no closer.
    return hospital.recovered(usable[:, :-1] / usable[:, -1:], near=1e-2) if len(usable) else 0


def imputations(hospital: Hospital) -> int:
    """Sums of many imputed tables, by regressions of the asker's: equations for the rows whose cells are empty.

    With regressions of zeros the first five rows lend their values, in draws that follow from the seed: how often each
    lends, and so whose cells it filled, the asker knows. The tables' sums are then linear in those five values, and
    with these in the rows that borrow them. A column that is empty in one row needs no more than two tables: what their
    sums of products differ in is that row.
    """
    from v6_algorithm import seeding
    from v6_algorithm.data.preparation.imputation import DONORS, Imputation
    from v6_algorithm.data.preparation.setup import unpack_arrays

    tables, generator = 100, np.random.default_rng(0)
    first, second, *others = hospital.features
    rows = len(hospital.frame)
    borrowing = np.sort(generator.choice(np.arange(2 * DONORS, rows), rows // 4, replace=False))
    alone = next(row for row in range(2 * DONORS, rows) if row not in borrowing)
    frame = hospital.frame.copy()
    frame.loc[borrowing, first] = np.nan
    frame.loc[alone, second] = np.nan
    holed = replace(hospital, frame=frame)
    data = {
        "target": hospital.target, "features": hospital.features,
        "missing": {"kind": "impute", "imputations": tables, "iterations": 2},
    }  # fmt: skip
    experiment = hospital.experiment(data=data, model="glm")
    setup, width = holed.setup(tables), 2 + len(hospital.features)
    holed.prepare(experiment, replace(setup, preparation=None))
    made = Imputation.empty([first, second], experiment.seed, tables, width)
    made = made.followed_by(np.zeros((tables, 2, width)), np.ones((tables, 2, 1)))
    reply = holed.ask("prepare", experiment, step="imputation", setup=replace(setup, imputation=made).to_json())
    sums = unpack_arrays(reply["products"])["products"]
    known = others if len(others) else hospital.features[2:]
    places = [1 + hospital.features.index(name) for name in known]
    truth, guesses = frame[known].to_numpy(dtype=float), []
    # The row that is alone: of sums over the rows that have a value of the first column.
    gaps = sums[1:, 0, 2] - sums[:-1, 0, 2]
    moved = np.abs(gaps[:, 0]) > 1e-9
    guesses += (gaps[moved][:, places] / gaps[moved][:, :1]).tolist()
    # The rows that borrow: of sums over the rows that have a value of the second.
    drawn = np.stack([
        seeding.numpy_generator(experiment.seed, "imputation", SITE, number, 0, 0).integers(0, DONORS, len(borrowing))
        for number in range(tables)
    ])  # fmt: skip
    lent = np.stack([(drawn == donor).sum(axis=1) for donor in range(DONORS)], axis=1).astype(float)
    design = np.column_stack([np.ones(tables), lent])
    values = np.linalg.lstsq(design, sums[:, 1, 1, 0], rcond=None)[0][1:]
    equations = np.column_stack([np.ones(tables), values[drawn]])
    if np.linalg.matrix_rank(equations) == equations.shape[1]:
        guesses += np.linalg.lstsq(equations, sums[:, 1, 1][:, places], rcond=None)[0][1:].tolist()
    if not guesses:
        return 0
    near = truth.std(axis=0) * 1e-3
    return int(sum((np.abs(np.array(guesses) - row) <= near).all(axis=1).any() for row in truth[[*borrowing, alone]]))


def imputed_thresholds(hospital: Hospital) -> int:
    """Regressions so steep that a logistic model counts imputed rows beyond a point, which each table has elsewhere.

    The cells of one column are filled with a multiple of how far another column is beyond that point, without noise.
    In the score of a model that looks at the filled column alone, a row then counts as its outcome or as its outcome
    less 1; what two tables' scores differ in is the rows between their two points.
    """
    import torch

    from v6_algorithm.data.preparation.imputation import Imputation
    from v6_algorithm.exchange import wire

    generator = np.random.default_rng(0)
    filled, seen, *_ = hospital.features
    frame = hospital.frame.copy()
    holes = generator.choice(len(frame), len(frame) // 2, replace=False)
    frame.loc[holes, filled] = np.nan
    holed = replace(hospital, frame=frame)
    tables = min(hospital.policy.maximum_folds or 40, 40)
    data = {
        "target": hospital.target, "features": hospital.features,
        "missing": {"kind": "impute", "imputations": tables, "iterations": 1},
    }  # fmt: skip
    experiment = hospital.experiment(data=data, model="glm")
    setup, width = holed.setup(tables), 2 + len(hospital.features)
    holed.prepare(experiment, replace(setup, preparation=None))
    made = Imputation.empty([filled], experiment.seed, tables, width)
    regressions, steep = np.zeros((tables, 1, width)), 1e9
    low, high = np.percentile(frame[seen], [20, 80]).tolist()
    points = np.linspace(low, high, tables)
    regressions[:, 0, 0], regressions[:, 0, 1 + hospital.features.index(seen)] = -steep * points, steep
    made = made.followed_by(regressions, np.zeros((tables, 1, 1)))
    setup = replace(setup, imputation=made)
    state = {name: torch.zeros_like(tensor) for name, tensor in initial(experiment, setup).items()}
    weight = next(name for name in state if name.endswith("weight"))
    name = weight.removesuffix("weight")
    # Rows that have a value of the column weigh alike, so that the sums are over many rows.
    state[weight][hospital.features.index(filled)] = 1e-6
    state[f"{name}totals"][0] = 1.0
    for number, parameters in enumerate((None, wire.pack(state)), 1):
        items: list[dict[str, Any]] = [
            {"fold": fold, "parameters": parameters, "evaluate": [], "train": True} for fold in range(tables)
        ]
        reply = holed.ask("train", experiment, number, setup=setup.to_json(), folds=items)
    scores = np.stack([wire.unpack(item["parameters"])[f"{name}score"].numpy() for item in reply["folds"]])
    gaps = np.diff(scores, axis=0)
    gaps = gaps[np.abs(gaps[:, 0]) > 1e-6]
    others = [place for place, column in enumerate(hospital.features) if column != filled]
    truth = hospital.values[:, others]
    guesses = gaps[:, 1:][:, others] / gaps[:, :1]
    near = truth.std(axis=0) * 1e-2
    return int(sum((np.abs(guesses - row) <= near).all(axis=1).any() for row in truth[holes])) if len(gaps) else 0
