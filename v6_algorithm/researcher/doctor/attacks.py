"""Attacks on a node through the very functions that it runs, to see which its rules hold off.

Each is what a curious researcher could do who may write requests by hand; nothing is guessed that she would not know.
`doctor --policy` tries them offline, on made-up rows or a table of the node's own; tests try them under every preset.
An attack says how many rows, or cells, came out exactly; what it read stays here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.errors import PolicyError
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.doctor import counting_attacks, run_attacks
from v6_algorithm.researcher.doctor.hospital import FEATURES, SITE, Hospital, Refused, initial

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.site.policy import Policy


def known_folds(hospital: Hospital) -> int:
    """Means over the training rows of 500 folds that the asker can compute: linear equations for every cell."""
    from v6_algorithm.data.preparation.setup import unpack_arrays
    from v6_algorithm.data.splits import make_folds

    split = {"kind": "kfold", "folds": 5, "repeats": 100, "stratify": False}
    experiment = hospital.experiment(split=split, seed=7)
    reply = hospital.prepare(experiment, replace(hospital.setup(500), preparation=None))
    moments = unpack_arrays(reply["moments"])
    rows = len(hospital.frame)
    folds = make_folds(experiment.split, rows, seeding.numpy_generator(7, "split", SITE))
    known = np.zeros((len(folds), rows))
    for number, fold in enumerate(folds):
        known[number, fold.train] = 1
    return hospital.recovered(np.linalg.lstsq(known, moments["mean"] * moments["count"], rcond=None)[0])


def batch_of_one(hospital: Hospital) -> int:
    """One step on a batch of one row, in many folds at once: the update is the row."""
    training = {"optimizer": {"kind": "sgd", "lr": 1.0}, "batch_size": 1, "local_steps": 1}
    repeats = 20
    experiment = hospital.experiment(
        split={"kind": "kfold", "folds": 5, "repeats": repeats, "stratify": False}, training=training
    )
    setup = hospital.setup(5 * repeats)
    hospital.prepare(experiment, setup)
    items: list[dict[str, Any]] = [
        {"fold": fold, "parameters": None, "evaluate": [], "train": True} for fold in range(5 * repeats)
    ]
    reply = hospital.ask("train", experiment, 1, setup=setup.to_json(), folds=items)
    guesses = []
    for item in reply["folds"]:
        weight, bias = _moved(hospital, experiment, setup, item["parameters"])
        if bias.all():
            guesses.append((weight / bias[:, None])[0])
    return hospital.recovered(np.array(guesses))


def crafted_first_layer(hospital: Hospital) -> int:
    """One step over all rows from weights whose units each begin to see one row more than the unit before."""
    import torch

    from v6_algorithm.exchange import wire

    units = 256
    training = {"optimizer": {"kind": "sgd", "lr": 1.0}, "batch_size": None, "local_epochs": 1}
    experiment = hospital.experiment(model={"kind": "mlp", "hidden": [units], "norm": "none"}, training=training)
    setup = hospital.setup(1)
    hospital.prepare(experiment, setup)
    state = initial(experiment, setup)
    first, second = (name for name in state if name.endswith("weight"))
    values = hospital.values[:, 0]
    edges = np.linspace(values.mean() - 3 * values.std(), values.mean() + 3 * values.std(), units)
    state[first] = torch.zeros_like(state[first])
    state[first][:, 0] = 1
    state[first.replace("weight", "bias")] = -torch.as_tensor(edges, dtype=torch.float32)
    state[second] = torch.full_like(state[second], 1e-3)
    state[second][0] *= -1
    item = {"fold": 0, "parameters": wire.pack(state), "evaluate": [], "train": True}
    reply = hospital.ask("train", experiment, 1, setup=setup.to_json(), folds=[item])
    trained = wire.unpack(reply["folds"][0]["parameters"])
    weight = (state[first] - trained[first]).double().numpy()
    bias = (state[first.replace("weight", "bias")] - trained[first.replace("weight", "bias")]).double().numpy()
    weight, bias = weight[:-1] - weight[1:], bias[:-1] - bias[1:]
    seen = np.abs(bias) > 1e-9
    guesses = weight[seen] / bias[seen, None]
    # Float32 differences: to a hundredth of the spread.
    near = np.abs(hospital.values[:, None] - guesses[None]) <= 1e-2 * hospital.values.std(axis=0)
    return int(near.all(axis=2).any(axis=1).sum())


def crafted_evaluation(hospital: Hospital) -> int:
    """A logistic model that passes one column through: its histograms are a list of the column, with each label."""
    import torch

    from v6_algorithm.exchange import wire
    from v6_algorithm.learning.metrics.histogram import LOGIT_RANGE, logit_edges

    experiment = hospital.experiment(split={"kind": "ratio", "train": 0.2, "validation": 0.4, "test": 0.4})
    setup = hospital.setup(1)
    hospital.prepare(experiment, setup)
    with suppress(Refused):
        # As in a training run; where this is not allowed, neither is what follows.
        first: dict[str, Any] = {"fold": 0, "parameters": None, "evaluate": [], "train": True}
        hospital.ask("train", experiment, 1, setup=setup.to_json(), folds=[first])
    state = initial(experiment, setup)
    weight = next(name for name in state if name.endswith("weight"))
    values = hospital.values[:, 0]
    slope = LOGIT_RANGE / (3 * values.std())
    state = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    state[weight][0, 0] = slope
    state[weight.replace("weight", "bias")][0] = -slope * values.mean()
    item = {"fold": 0, "parameters": wire.pack(state), "evaluate": ["validation", "test"], "train": False}
    reply = hospital.ask("evaluate", experiment, 1, setup=setup.to_json(), folds=[item])
    recovered = claimed = 0
    truth = hospital.frame[hospital.target].to_numpy()
    left = {label: sorted(values[truth == label].tolist()) for label in (0, 1)}
    for part in ("validation", "test"):
        metrics = reply["folds"][0]["metrics"][part][SITE]
        edges = np.concatenate([[-np.inf], logit_edges(metrics["bins"]), [np.inf]])
        for label, counts in ((1, metrics["positives"][0]), (0, metrics["negatives"][0])):
            for place, rows in zip(counts["bins"], counts["rows"], strict=True):
                low, high = (edges[place + side] / slope + values.mean() for side in (0, 1))
                # Whoever is in the bin that was told, but for rounding; a bin of several rows names none of them.
                slack = 1e-6 * values.std()
                near = [value for value in left[label] if low - slack <= value <= high + slack]
                claimed += rows
                recovered += rows if len(near) == rows else 0
    # Guesses of which most are wrong tell nothing of any.
    return recovered if recovered > claimed / 2 else 0


def rare_labels(hospital: Hospital) -> int:
    """A column of text called the target: its values leave as labels."""
    experiment = Experiment.parse({"data": {"target": hospital.text, "features": hospital.features}})
    reply = hospital.ask("prepare", experiment, step="schema")
    return len(set(reply["members"][SITE]["labels"]) & set(hospital.frame[hospital.text].astype(str)))


def rare_categories(hospital: Hospital) -> int:
    """A column of text called categorical: its values leave as categories."""
    data = {"target": hospital.target, "features": hospital.features, "categorical": [hospital.text]}
    reply = hospital.ask("prepare", Experiment.parse({"data": data}), step="schema")
    return len(
        set(reply["members"][SITE]["categories"][hospital.text]) & set(hospital.frame[hospital.text].astype(str))
    )


def missing_codes(hospital: Hospital) -> int:
    """Two statistics that differ by one code for a missing value: how many rows have that value, exactly."""
    from v6_algorithm.data.preparation.setup import unpack_arrays

    name, recovered = hospital.features[0], 0
    setup = replace(hospital.setup(1), preparation=None)
    split = {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}
    data = {"target": hospital.target, "features": hospital.features, "scaling": "none"}
    counts = []
    for codes in ([-12345.0], [float(hospital.frame[name].iloc[0])]):
        experiment = Experiment.parse({"data": data | {"missing_values": {name: codes}}, "split": split})
        counts.append(unpack_arrays(hospital.prepare(experiment, setup)["moments"])["count"][0, 0])
    recovered += int(counts[0] - counts[1])
    return recovered


def moving_condition(hospital: Hospital) -> int:
    """Two class counts whose condition moves by a little: how many rows lie between, exactly."""
    values = np.sort(hospital.values[:, 0])
    split = {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}
    middle, counts = len(values) // 2, []
    for threshold in values[middle : middle + 2].tolist():
        data = {"target": hospital.features[0], "positive": f"> {threshold!r}", "features": hospital.features[1:]}
        setup = replace(hospital.setup(1), features=hospital.features[1:], preparation=None)
        counts.append(hospital.prepare(Experiment.parse({"data": data, "split": split}), setup)["class_counts"][0][1])
    return int(counts[0] - counts[1])


def moving_windows(hospital: Hospital) -> int:
    """Cells of quantiles where the asker wants them cut, again and again, until what all tell together is one row."""
    from v6_algorithm.data.preparation.setup import pack_arrays, unpack_arrays

    data = {"target": hospital.target, "features": hospital.features, "scaling": "robust"}
    split = {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}
    experiment = Experiment.parse({"data": data, "split": split})
    setup = replace(hospital.setup(1), preparation=None)
    hospital.prepare(experiment, setup)
    column, spread = hospital.values[:, 0], hospital.values[:, 0].std()
    width, edges = 0.1 * spread, {float("-inf"): 0}
    for start in np.arange(column.mean() - 3 * spread, column.mean() + 3 * spread, width):
        windows = np.tile(np.array([[[start, start + width]]]), (len(hospital.features), 1, 1))
        packed = pack_arrays({"windows": windows})
        reply = hospital.ask("prepare", experiment, step="quantiles", setup=setup.to_json(), windows=packed)
        cells = unpack_arrays(reply["cells"])
        of_column = slice(0, int(cells["number"][0]))
        edges |= dict(
            zip(cells["low"][of_column][1:].tolist(), np.cumsum(cells["rows"][of_column]).tolist(), strict=False)
        )
    edges[float("inf")] = len(column)
    return int((np.diff([edges[edge] for edge in sorted(edges)]) == 1).sum())


def sql_alias(hospital: Hospital) -> int:
    """A query that calls a column of names the target; needs no more than a database with a query in the task."""
    import sqlite3
    from contextlib import closing

    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.errors import DataError
    from v6_algorithm.site.guard.queries import guarded_source

    file = hospital.folder / "registry.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        hospital.frame.to_sql("patients", connection, index=False, if_exists="replace")
    query = f'select "{hospital.text}" as y from patients'  # noqa: S608 (the attacker's own)
    try:
        source = guarded_source(hospital.policy, TableSource(str(file), "sql", query))
        names = set(source.read()["y"].astype(str))
    except (PolicyError, DataError) as error:
        raise Refused(str(error)) from None
    finally:
        file.unlink()
    return len(names & set(hospital.frame[hospital.text].astype(str)))


def _moved(hospital: Hospital, experiment: Experiment, setup: Setup, packed: str) -> tuple[np.ndarray, np.ndarray]:
    """Return how far training moved the weight, (units, inputs), and the bias, (units,), of a linear model."""
    from v6_algorithm.exchange import wire

    before, after = initial(experiment, setup), wire.unpack(packed)
    name = next(name for name in before if name.endswith("weight"))
    bias = name.replace("weight", "bias")
    return (before[name] - after[name]).double().numpy(), (before[bias] - after[bias]).double().numpy()


# What standard leaves open, since early stopping and the best round need the metrics of a round.
IN_ROUNDS = "models that move from round to round"
# What no preset holds off: differential privacy does.
IN_UPDATES = "steps that move from round to round"
# Name for a reader to the attack; each is tried on a node that has answered nothing yet.
ATTACKS: Mapping[str, Callable[[Hospital], int]] = {
    "sums over folds that the asker knows": known_folds,
    "one step on a batch of one row": batch_of_one,
    "one step from a crafted first layer": crafted_first_layer,
    "evaluation of a crafted model": crafted_evaluation,
    "labels of a text column": rare_labels,
    "categories of a text column": rare_categories,
    "codes for a missing value": missing_codes,
    "a condition that moves": moving_condition,
    "windows of quantiles that move": moving_windows,
    "an SQL query that renames a column": sql_alias,
    "a crafted first layer in a later round": run_attacks.crafted_layer_later,
    "one step of a wide layer": run_attacks.wide_layer,
    "coefficients that move from round to round": run_attacks.moving_coefficients,
    "coefficients under which one row counts": run_attacks.glm_coefficients,
    "cells of a crafted survival model": run_attacks.survival_cells,
    "regressions of an imputation": run_attacks.imputations,
    "thresholds of an imputation": run_attacks.imputed_thresholds,
    "two tasks that differ by one patient": run_attacks.two_tasks,
    "scales that move from round to round": counting_attacks.moving_scales,
    IN_ROUNDS: counting_attacks.moving_models,
    IN_UPDATES: counting_attacks.moving_steps,
}


def attempt(name: str, policy: Policy, frame: pd.DataFrame, *, volume: bool = True) -> tuple[int, str]:
    """Try one attack on a node with these rules; return how many rows came out, and what the node said if it refused.

    The table is as `made_up_rows` makes it. Without a `volume` nothing of the node's outlives a task but what the owner
    names a folder for, as from session to session of vantage6 5. A node whose ledger lasts gets an empty one for the
    attack, which is not to be among the node's answers.
    """
    features = [column for column in frame.columns if column in FEATURES]
    with tempfile.TemporaryDirectory() as folder:
        if policy.ledger_folder is not None:
            policy = replace(policy, ledger_folder=str(Path(folder, "ledger")))
        hospital = Hospital(
            frame, features, "ill", "name", policy, Path(folder), Path(folder, "node") if volume else None
        )
        try:
            return ATTACKS[name](hospital), ""
        except Refused as refusal:
            return 0, str(refusal)


def rows_of(path: Path, limit: int = 400) -> pd.DataFrame:
    """Return up to four complete numeric columns of a table file, named as those of made-up rows; no other cells."""
    import pandas as pd

    from v6_algorithm.data.sources import TableSource

    table = TableSource(str(path)).read().head(limit)
    numbers = table.apply(pd.to_numeric, errors="coerce").dropna(axis=1)
    numbers = numbers.loc[:, numbers.nunique() > 1].iloc[:, : len(FEATURES)]
    if numbers.shape[1] < 2:
        raise PolicyError(f"{path.name} has no two numeric columns without empty cells to try attacks on")
    frame = numbers.astype(float).set_axis(FEATURES[: numbers.shape[1]], axis=1).reset_index(drop=True)
    frame["ill"] = (frame.iloc[:, 0] > frame.iloc[:, 0].median()).astype(int)
    return frame.assign(name=[f"patient {number}" for number in range(len(frame))])


def made_up_rows(rows: int = 96, seed: int = 0) -> pd.DataFrame:
    """Return a table of made-up patients: four numbers, a diagnosis of 0 and 1, and a name each."""
    import pandas as pd

    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(size=(rows, 4)).round(4), columns=FEATURES)
    frame["ill"] = (frame["age"] + generator.normal(size=rows) > 0).astype(int)
    return frame.assign(name=[f"patient {number}" for number in generator.permutation(rows)])
