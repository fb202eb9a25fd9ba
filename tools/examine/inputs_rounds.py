"""C4 and C7 to C11: quantiles, missed calls, dealing, agnostic learning, BatchNorm, unknown categories, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tools.examine.inputs_metrics import LAST, rows_of, run
from tools.examine.inputs_survival import ALL_TRAIN
from tools.examine.tries import Seen, case, policy, same, true

# -- C4 ------------------------------------------------------------------------------------------------------------

GENERATOR = np.random.default_rng(23)
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def _columns(
    make: Callable[[np.random.Generator, int], Any], sizes: tuple[int, ...] = (300, 200, 150)
) -> dict[str, Any]:
    import pandas as pd

    tables = {}
    for seed, rows in enumerate(sizes):
        generator = np.random.default_rng(seed)
        values = make(generator, rows)
        tables["abc"[seed]] = pd.DataFrame({"v": values, "w": generator.normal(size=rows), "y": np.arange(rows) % 2})
    return tables


def _quantiles(tables: dict[str, Any], *, within: float = 0.05, preset: str = "trusted") -> Seen:
    """Compare with NumPy's of the pooled rows: bounds hold them, and estimates are off by a share of the IQR."""
    import pandas as pd

    import v6_algorithm.api as v6

    with policy(preset):
        described = v6.describe({"data": {"target": "y"}}, tables)
    told = described.content["columns"]["v"]["pooled"]["quantiles"]
    values = pd.concat(tables.values())["v"].to_numpy(dtype=float)
    spread = max(float(np.subtract(*np.quantile(values, [0.75, 0.25]))), 1e-12)
    wrong = []
    for share in SHARES:
        quantile = told[str(share)]
        low, high = np.quantile(values, share, method="lower"), np.quantile(values, share, method="higher")
        low_told, high_told = quantile["low"], quantile["high"]
        held = low_told is None or (low_told <= high + 1e-9 * abs(high) and high_told >= low - 1e-9 * abs(low))
        near = low - within * spread <= quantile["value"] <= high + within * spread or (
            low_told is not None and low_told <= quantile["value"] <= high_told
        )
        inside = values.min() <= quantile["value"] <= values.max()
        if not (held and inside and (near or preset != "trusted")):
            wrong.append((share, quantile, low, high))
    return true(not wrong, wrong, "; ".join(described.notes))


@case("C4")
def one_outlier(folder: Path) -> Seen:
    """one value of 1e12 among numbers around 0.02: quantiles of the pooled rows"""

    def make(generator: np.random.Generator, rows: int) -> Any:
        values = generator.gamma(2, 0.01, rows)
        if rows == 200:
            values[7] = 1e12
        return values

    return _quantiles(_columns(make))


@case("C4")
def cauchy_tails(folder: Path) -> Seen:
    """Cauchy tails at three sites: quantiles of the pooled rows"""
    return _quantiles(_columns(lambda generator, rows: generator.standard_cauchy(rows)))


@case("C4")
def steep_lognormal(folder: Path) -> Seen:
    """lognormal with sigma 5: over twelve orders of magnitude"""
    return _quantiles(_columns(lambda generator, rows: generator.lognormal(0, 5, rows)))


@case("C4")
def mostly_zeros(folder: Path) -> Seen:
    """eight of ten are 0, the rest counts up to thousands"""
    return _quantiles(_columns(lambda generator, rows: generator.poisson(900, rows) * (generator.random(rows) < 0.2)))


@case("C4")
def standard_with_tails(folder: Path) -> Seen:
    """policy standard, Cauchy tails: bounds that hold the pooled quantiles, never outside the range"""
    return _quantiles(_columns(lambda generator, rows: generator.standard_cauchy(rows)), preset="standard")


@case("C4")
def robust_scale_and_median(folder: Path) -> Seen:
    """scaling robust, missing median, an outlier and a tenth empty: median and IQR of the pooled training rows"""
    import pandas as pd

    def make(generator: np.random.Generator, rows: int) -> Any:
        values = generator.normal(3, 0.4, rows)
        values[5], values[::10] = -1e9, np.nan
        return values

    tables = _columns(make)
    result = run({"data": {"target": "y", "scaling": "robust", "missing": "median"}, **ALL_TRAIN, "rounds": 1}, tables)
    prepared = result.content["preparation"]
    of_fold = prepared[0] if isinstance(prepared, list) else prepared
    place = of_fold["features"].index("v")
    values = pd.concat(tables.values())["v"].dropna()
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    seen = [of_fold["fill"][place], of_fold["shift"][place], of_fold["scale"][place]]
    # The scale may be that of the filled column; either is within a tenth.
    return same(seen, [middle, middle, high - low], within=0.06, told="; ".join(result.notes))


@case("C4")
def ranges_that_do_not_meet(folder: Path) -> Seen:
    """site a from 0 to 1, site b around 1e6, site c around -1e6: quantiles of the pooled rows"""
    return _quantiles(_columns(lambda generator, rows: generator.random(rows) + {300: 0, 200: 1e6, 150: -1e6}[rows]))


# -- C7 ------------------------------------------------------------------------------------------------------------


class Losing:
    """A federation in which some sites' answers to training are lost on the way, in some rounds."""

    def __init__(self, federation: Any, lost: Callable[[str, int], bool]) -> None:
        self._federation, self._lost = federation, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._federation, name)

    def call(self, method: str, requests: Any, *, deadline_s: float) -> Any:
        from v6_algorithm.exchange import wire
        from v6_algorithm.exchange.protocol import Arrival, Missing, Replies

        inner = self._federation.call(method, requests, deadline_s=deadline_s)

        def arrivals() -> Any:
            for site, reply in inner:
                gone = method == "RPC_train" and self._lost(site, int(requests[site]["round"]))
                yield Arrival(site, None, Missing("crashed", "lost")) if gone else Arrival(site, wire.to_text(reply))
            for site, missing in inner.missing.items():
                yield Arrival(site, None, missing)

        return Replies(requests, arrivals(), {})


def _losing(keys: dict[str, Any], tables: dict[str, Any], lost: Callable[[str, int], bool]) -> dict[str, Any]:
    from v6_algorithm.coordinator.master import run as run_master
    from v6_algorithm.engines.simulation.simulate import local_federation
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.python.sites import tables_of_sites

    experiment = Experiment.parse({"data": {"target": "y"}, "model": "linear", **keys})
    federation = local_federation(experiment, tables_of_sites(tables, experiment))
    return run_master(Losing(federation, lost), experiment)


def _hard() -> dict[str, Any]:
    """Two easy sites and a hard one, whose labels are nearly noise."""
    tables = {name: rows_of(120, seed, effect=4.0) for seed, name in enumerate("ab")}
    hard = rows_of(240, 9, effect=0.1)
    return {**tables, "hard": hard}


SLOW = {
    "rounds": 12,
    "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 32},
    "stopping": {"monitor": "loss", "patience": None},
}


@case("C7")
def best_round_and_a_missed_call(folder: Path) -> Seen:
    """the hard site misses the call of round 3: the best round is a late one, as it is without that"""
    content = _losing(SLOW, _hard(), lambda site, number: site == "hard" and number == 3)
    notes = "; ".join(content["notes"])
    return true(content["best_round"] > 5, content["best_round"], notes)


@case("C7")
def stopping_and_a_missed_call(folder: Path) -> Seen:
    """patience 3, the hard site misses round 2: training does not stop for that"""
    keys = {**SLOW, "stopping": {"monitor": "loss", "patience": 3}}
    content = _losing(keys, _hard(), lambda site, number: site == "hard" and number == 2)
    return true(
        content["rounds_done"] > 8 if "rounds_done" in content else content["best_round"] > 5, content["best_round"]
    )


@case("C7")
def plateau_and_a_missed_call(folder: Path) -> Seen:
    """rate on plateau, the hard site misses round 2: the rate is that of the run without it until round 6"""
    keys = {
        **SLOW,
        "training": SLOW["training"] | {"scheduler": {"kind": "reducelronplateau", "patience": 1, "factor": 0.1}},
    }
    rates = []
    for lost in (lambda site, number: False, lambda site, number: site == "hard" and number == 2):
        content = _losing(keys, _hard(), lost)
        history = content["history"]
        rates.append((history["train_lr"] if isinstance(history, dict) else [line["train_lr"] for line in history])[:6])
    return same(rates[1], rates[0])


@case("C7")
def accuracy_and_two_missed_calls(folder: Path) -> Seen:
    """monitor AUROC, the hard site misses rounds 1 and 5: no round in which it is away is best without a note"""
    keys = {**SLOW, "stopping": {"monitor": "auroc", "patience": None}}
    content = _losing(keys, _hard(), lambda site, number: site == "hard" and number in (1, 5))
    notes = "; ".join(content["notes"])
    said = any(word in notes for word in ("common", "answered", "compar"))
    return true(content["best_round"] not in (1, 5) or said, content["best_round"], notes)


@case("C7", told="common to both|missed|hard")
def a_site_that_goes_for_good(folder: Path) -> Seen:
    """the hard site is away from round 3 on: told, and the best round is not simply the first without it"""
    content = _losing(SLOW, _hard(), lambda site, number: site == "hard" and number >= 3)
    return Seen(content["best_round"] != 3, "; ".join(content["notes"]), f"best {content['best_round']}")


@case("C7")
def drawn_sites(folder: Path) -> Seen:
    """fraction 0.67, so that the hard site trains in some rounds: the best round is a late one"""
    keys = {**SLOW, "rounds": 15, "participation": {"fraction": 0.67}}
    content = _losing(keys, _hard(), lambda site, number: False)
    return true(content["best_round"] > 5, content["best_round"], "; ".join(content["notes"]))


# -- C8 ------------------------------------------------------------------------------------------------------------


def _rare(sites: int, positives: int, rows: int = 30) -> dict[str, Any]:
    tables = {}
    for number in range(sites):
        frame = rows_of(rows, number)
        frame["y"] = 0
        frame.loc[np.random.default_rng(number).choice(rows, positives, replace=False), "y"] = 1
        tables[f"s{number:02}"] = frame
    return tables


def _positives(result: Any, part: str = "test") -> float:
    matrix = result.content["confusion"][part]["y"]["pooled"]
    return float(np.asarray(matrix)[1].sum())


@case("C8")
def twenty_with_one(folder: Path) -> Seen:
    """20 hospitals with one positive each, a fifth to test: about four in test over three seeds, never none or all"""
    counts = [_positives(run({"rounds": 1, "seed": seed}, _rare(20, 1))) for seed in range(3)]
    return true(all(0 < count < 12 for count in counts) and 6 <= sum(counts) <= 20, counts)


@case("C8")
def thirty_with_two(folder: Path) -> Seen:
    """30 hospitals with two positives each, 60/20/20: a fifth of 60 in test, within a third"""
    count = _positives(run({"rounds": 1}, _rare(30, 2)))
    return true(6 <= count <= 19, count)


@case("C8")
def folds_test_each_once(folder: Path) -> Seen:
    """five folds, two positives a site: each positive row tested just once"""
    count = _positives(run({"rounds": 1, "split": {"kind": "kfold", "folds": 5}}, _rare(6, 2, rows=40)))
    return true(count == 12, count)


@case("C8")
def another_seed_another_deal(folder: Path) -> Seen:
    """the same seed deals alike, another one otherwise"""
    tables = _rare(8, 1)
    first, again, other = (run({"rounds": 1, "seed": seed}, tables) for seed in (4, 4, 5))
    alike = first.content["metrics"]["test"]["pooled"]["loss"] == again.content["metrics"]["test"]["pooled"]["loss"]
    differs = first.content["metrics"]["test"]["pooled"]["loss"] != other.content["metrics"]["test"]["pooled"]["loss"]
    return true(alike and differs, f"{alike} {differs}")


@case("C8")
def three_rare_classes(folder: Path) -> Seen:
    """25 hospitals, classes 1 and 2 with one row each: both are in train, validation and test of the federation"""
    tables = _rare(25, 1)
    for frame in tables.values():
        frame.loc[frame.index[frame["y"] == 0][3], "y"] = 2
    result = run({"rounds": 1}, tables)
    confusion = result.content["confusion"]
    text = {part: np.asarray(confusion[part]["y"]["pooled"]).sum(axis=1) for part in ("validation", "test")}
    return true(all((rows > 0).all() for rows in text.values()), text)


@case("C8")
def shares_of_all_rows(folder: Path) -> Seen:
    """40 hospitals of 20 rows, 60/20/20: test and validation have a fifth of all rows each, within a tenth of them"""
    tables = {f"s{number:02}": rows_of(20, number) for number in range(40)}
    result = run({"rounds": 1}, tables)
    parts = result.sites[["train", "validation", "test"]].sum()
    return same(parts / parts.sum(), [0.6, 0.2, 0.2], within=0.05)


# -- C9 ------------------------------------------------------------------------------------------------------------

AGNOSTIC = {
    "strategy": {"kind": "agnostic", "lr": 0.5},
    "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 32},
}


def _numbers(factor: float = 1.0) -> dict[str, Any]:
    tables = {}
    for seed, name in enumerate("abcde"):
        frame = rows_of(60, seed)
        frame["y"] = factor * (frame["a"] * (1 + seed) + np.random.default_rng(seed).normal(0, 0.3, 60))
        tables[name] = frame
    return tables


@case("C9")
def agnostic_with_some(folder: Path) -> Seen:
    """agnostic with fraction 0.4 over fifteen rounds of five sites: finishes"""
    tables = {name: rows_of(60, seed) for seed, name in enumerate("abcde")}
    result = run({**AGNOSTIC, "rounds": 15, "participation": {"fraction": 0.4}}, tables)
    return true(
        np.isfinite(result.content["metrics"]["test"]["pooled"]["loss"]),
        result.content["metrics"]["test"]["pooled"]["loss"],
    )


@case("C9")
def agnostic_of_any_unit(folder: Path) -> Seen:
    """a target in millimetres and in metres, scaled: predictions differ by just that factor"""
    found = []
    for factor in (1.0, 1000.0):
        keys = {"problem": "regression", "data": {"target": "y", "target_scaling": "standard"}, **AGNOSTIC, "rounds": 8}
        result = run(keys, _numbers(factor))
        found.append(result.predict(rows_of(6, 99)[["a", "b"]])["prediction"].to_numpy() / factor)
    return same(found[1], found[0], within=1e-3)


@case("C9")
def agnostic_with_a_lost_round(folder: Path) -> Seen:
    """agnostic, the worst site misses rounds 2 to 4: finishes with finite numbers"""
    content = _losing({**AGNOSTIC, "rounds": 8}, _hard(), lambda site, number: site == "hard" and number in (2, 3, 4))
    return true(np.isfinite(content["metrics"]["test"]["pooled"]["loss"]), content["status"])


@case("C9", told="weight|agnostic")
def agnostic_said_to_nodes(folder: Path) -> Seen:
    """agnostic under policy standard: told that one site may come to carry all weight, or refused for it"""
    with policy("standard"):
        result = run({**AGNOSTIC, "rounds": 4}, {name: rows_of(80, seed) for seed, name in enumerate("abc")})
    return Seen(None, "; ".join(result.notes))


@case("C9")
def agnostic_of_two_sites(folder: Path) -> Seen:
    """agnostic with a large step over twenty rounds: the worst site's loss is no higher than FedAvg's"""
    tables = _hard()
    worst = []
    for keys in ({"strategy": "fedavg"}, {"strategy": {"kind": "agnostic", "lr": 1.0}}):
        result = run({**AGNOSTIC, **keys, "rounds": 20}, tables)
        worst.append(max(site["loss"] for site in result.content["metrics"]["test"]["sites"].values()))
    return true(worst[1] <= worst[0] + 0.05, worst)


# -- C10 -----------------------------------------------------------------------------------------------------------


def _tensors(result: Any) -> dict[str, np.ndarray]:
    import base64

    from safetensors.numpy import load

    parameters = result.content["parameters"]
    try:
        return load(base64.b64decode(parameters))
    except Exception:
        return {name: tensor.numpy() for name, tensor in result.model.network.state_dict().items()}


def _normalised(strategy: Any, weights: tuple[int, int] = (200, 200)) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    from torch import nn

    import v6_algorithm.api as v6

    tables = {
        name: rows_of(rows, seed).assign(a=lambda frame, seed=seed: frame["a"] + (5 if seed else -5))
        for seed, (name, rows) in enumerate(zip("ab", weights, strict=True))
    }

    def network(inputs: int, outputs: int) -> Any:
        return nn.Sequential(nn.BatchNorm1d(inputs, momentum=0.5), nn.Linear(inputs, outputs))

    keys = {
        "data": {"target": "y", "scaling": "none"},
        "strategy": strategy,
        "rounds": 8,
        **ALL_TRAIN,
        "training": {"optimizer": {"kind": "sgd", "lr": 0.01}, "batch_size": None, "local_epochs": 4},
    }
    tensors = _tensors(v6.run(keys, sites=tables, model=network))
    mean = next(value for name, value in tensors.items() if name.endswith("running_mean"))
    variance = next(value for name, value in tensors.items() if name.endswith("running_var"))
    return mean, variance, tables


@case("C10")
def moments_of_sites(folder: Path) -> Seen:
    """two sites 10 apart, sd 1: BatchNorm's running variance is 26, that of all rows"""
    mean, variance, tables = _normalised("fedavg")
    import pandas as pd

    a = pd.concat(tables.values())["a"]
    return same([mean[0], variance[0]], [a.mean(), a.var()], within=0.02)


@case("C10")
def moments_of_unlike_sites(folder: Path) -> Seen:
    """300 and 60 rows, an adaptive server: the running variance is that of all rows"""
    mean, variance, tables = _normalised({"kind": "fedadam", "lr": 0.01}, (300, 60))
    import pandas as pd

    a = pd.concat(tables.values())["a"]
    return same([mean[0], variance[0]], [a.mean(), a.var()], within=0.02)


@case("C10")
def average_on_request(folder: Path) -> Seen:
    """strategy batch_norm average: the plain mean of the sites' variances, about 1"""
    _, variance, _ = _normalised({"kind": "fedavg", "batch_norm": "average"})
    return true(0.7 < variance[0] < 1.4, variance[0])


def _with_rare_category(frame: Any) -> Any:
    frame = frame.assign(
        colour=np.where(np.arange(len(frame)) % 2, "red", "blue"),
        part=np.where(np.arange(len(frame)) % 4 == 0, "test", "train"),
    )
    frame.loc[frame.index[[0, 4]], "colour"] = "green"
    return frame


@case("C10")
def category_of_test_rows(folder: Path) -> Seen:
    """a category that only test rows have: predicted as one that no site has, not by an untrained weight"""
    tables = {name: _with_rare_category(rows_of(80, seed)) for seed, name in enumerate("ab")}
    keys = {
        "data": {"target": "y", "categorical": ["colour"], "split_column": "part"},
        "split": {"kind": "given"},
        "model": {"kind": "mlp", "hidden": [4]},
        **LAST,
    }
    result = run(keys, tables)
    rows = tables["a"].head(6)
    green, none = (
        result.predict(rows.assign(colour=colour)).iloc[:, 0].to_numpy(dtype=float) for colour in ("green", "violet")
    )
    return same(green, none, told="; ".join(result.notes))


@case("C10", told="in common at")
def patients_at_two_sites(folder: Path) -> Seen:
    """ten patients of `group` with rows at two hospitals: told, without their numbers"""
    tables = {
        name: rows_of(60, seed).assign(patient=[f"P{number // 2 + shift}" for number in range(60)])
        for seed, (name, shift) in enumerate({"a": 0, "b": 20}.items())
    }
    notes = "; ".join(run({"data": {"target": "y", "group": "patient"}}, tables).notes)
    return Seen("P2" not in notes, notes)


@case("C10", told="in common at")
def patients_as_numbers(folder: Path) -> Seen:
    """patient numbers as 7 at one site and "7.0" as text at the other: the same patients, told"""
    tables = {
        name: rows_of(60, seed).assign(patient=[number // 2 + 100 for number in range(60)])
        for seed, name in enumerate("ab")
    }
    tables["b"]["patient"] = tables["b"]["patient"].map(lambda number: f"{number}")
    return Seen(None, "; ".join(run({"data": {"target": "y", "group": "patient"}}, tables).notes))


# -- C11 -----------------------------------------------------------------------------------------------------------


def _report(result: Any, folder: Path) -> str:
    result.save(folder / "run")
    return next((folder / "run").glob("*.html")).read_text()


@case("C11")
def network_of_its_own(folder: Path) -> Seen:
    """a network handed over in Python: the report names it, and not a built-in kind"""
    from torch import nn

    import v6_algorithm.api as v6

    def heart_network(inputs: int, outputs: int) -> Any:
        return nn.Linear(inputs, outputs)

    result = v6.run(
        {"data": {"target": "y"}, "rounds": 1},
        sites={name: rows_of(60, seed) for seed, name in enumerate("ab")},
        model=heart_network,
    )
    page = _report(result, folder)
    return true(
        "a network of one" in page and "<dd>mlp" not in page,
        [line for line in page.splitlines() if "Model" in line][:3],
    )


@case("C11")
def calibration_of_few(folder: Path) -> Seen:
    """16 test rows: the calibration chart draws no bin of one row as a share of 0 or 1"""
    result = run({"rounds": 2}, {name: rows_of(40, seed) for seed, name in enumerate("ab")})
    page = _report(result, folder)
    place = page.lower().find("calibration")
    text = page[place : place + 6000].lower()
    return true(place < 0 or "fewer" in text or "joined" in text or "rows" in text or "too few" in text, text[:200])


@case("C11")
def gan_without_fid(folder: Path) -> Seen:
    """a GAN whose FID no site may tell: no round is called best by it"""
    import json

    from tools.examine.making import hospital, png

    images = [(f"{n}.png", lambda path: png(path, GENERATOR.integers(0, 256, (16, 16)), 0, 8)) for n in range(30)]
    sites = {name: hospital(folder, name, images, [n % 2 for n in range(30)]) for name in "ab"}
    import v6_algorithm.api as v6

    keys = {
        "data": {"target": "label", "image": {"column": "file"}}, "problem": "gan",
        "model": {"kind": "dcgan", "width": 4}, "rounds": 2,
    }  # fmt: skip
    result = v6.run(keys, sites=sites)
    pooled = result.content["metrics"].get("validation", {}).get("pooled", {})
    history = json.dumps(result.content.get("history"), default=str)
    by_fid = result.content["best_round"] is not None and pooled.get("fid") is None and "fid" not in history
    page = _report(result, folder)
    return true(
        not by_fid and not ("best round" in page.lower() and "fid" in page.lower() and pooled.get("fid") is None),
        result.content["best_round"],
        "; ".join(result.notes),
    )


@case("C11")
def report_of_eight_rows(folder: Path) -> Seen:
    """12 rows a site, so that few are tested: a report without nan, inf or None"""
    result = run({"rounds": 1}, {name: rows_of(16, seed) for seed, name in enumerate("ab")})
    page = _report(result, folder)
    import re

    words = re.findall(r">\s*(nan|inf|None|-inf)\s*<", page)
    return true(not words, words[:5])


@case("C11")
def history_without_validation(folder: Path) -> Seen:
    """no validation rows: the history has no validation columns of NaN"""
    result = run({**ALL_TRAIN, "rounds": 3}, {name: rows_of(40, seed) for seed, name in enumerate("ab")})
    history = result.history
    return true(
        not history.isna().any().any(),
        f"{result.content['best_round']} {list(history.columns)}",
    )


@case("C11")
def round_of_a_missed_call(folder: Path) -> Seen:
    """history of a run in which a site missed a round: that round's answers are named in participation"""
    content = _losing({"rounds": 4}, _hard(), lambda site, number: site == "hard" and number == 2)
    missed = [call for call in content["participation"] if "hard" in call["missing"]]
    return true(len(missed) == 1 and missed[0]["round"] == 2, missed)
