"""B6, C1 and C3: units of time, discrete time, and Cox models, against lifelines and statsmodels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.examine.tries import Seen, case, policy, same, true

ALL_TRAIN = {
    "split": {"kind": "ratio", "train": 1.0, "validation": 0.0, "test": 0.0},
    "stopping": {"patience": None},
    "output": {"model": "last"},
}
TARGET = {"duration": "t", "event": "d"}
FITTING = {"optimizer": {"kind": "adam", "lr": 0.05}, "local_epochs": 5, "batch_size": None}


def patients(rows: int, seed: int, *, rate: float = 0.002, effect: float = 0.8, last: float = 1000.0) -> Any:
    """Return x, z, t in days and d of exponential times, censored uniformly and at the end of the study."""
    import pandas as pd

    generator = np.random.default_rng(seed)
    x, z = generator.normal(size=rows), generator.integers(0, 2, rows)
    event = generator.exponential(1 / (rate * np.exp(effect * x + 0.5 * z)))
    leave = np.minimum(generator.uniform(0, 2 * last, rows), last)
    return pd.DataFrame({"x": x, "z": z, "t": np.minimum(event, leave) + 0.5, "d": (event <= leave).astype(int)})


def run(keys: dict[str, Any], sites: dict[str, Any]) -> Any:
    import v6_algorithm.api as v6

    # A column called x is taken for row names, and left out with a note, where features are not named.
    features = [name for name in ("x", "z") if all(name in frame for frame in sites.values())]
    return v6.run({"data": {"target": TARGET, "features": features}, "problem": "survival", **keys}, sites=sites)


def scaled(tables: dict[str, Any], factor: float) -> dict[str, Any]:
    return {name: frame.assign(t=frame["t"] * factor) for name, frame in tables.items()}


def three(**options: Any) -> dict[str, Any]:
    return {
        name: patients(rows, seed, **options) for seed, (name, rows) in enumerate({"a": 90, "b": 120, "c": 70}.items())
    }


def pooled(result: Any, part: str = "test") -> dict[str, float]:
    return result.content["metrics"][part]["pooled"]


DEEP = {"model": "linear", "rounds": 4, "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": None}}


def _in_two_units(keys: dict[str, Any], factor: float, within: float = 2e-3) -> Seen:
    tables = three()
    days, other = run(keys, tables), run(keys, scaled(tables, factor))
    names = ["c_index", "brier", "c_index_low", "c_index_high"]
    one, two = ([pooled(result).get(name, np.nan) for name in names] for result in (days, other))
    if np.isnan(one[:2]).any():
        return true(False, f"no metrics: {one}")
    rows = patients(5, 77)
    times = [100.0, 250.0]
    a = days.predict(rows, times=times).to_numpy(dtype=float)
    b = other.predict(rows, times=[time * factor for time in times]).to_numpy(dtype=float)
    return same([*two, *b.ravel()], [*one, *a.ravel()], within=within, told="; ".join(other.notes))


@case("B6")
def cox_in_milliseconds(folder: Path) -> Seen:
    """a Cox network in days and in milliseconds: the same C-index, Brier score, interval and survival"""
    return _in_two_units(DEEP, 86_400_000.0)


@case("B6")
def cox_in_tiny_units(folder: Path) -> Seen:
    """a Cox network in units of 1e12 days: the same"""
    return _in_two_units(DEEP, 1e-12)


@case("B6")
def cox_beyond_32_bits(folder: Path) -> Seen:
    """a Cox network with times of 2^40 and more: the same"""
    return _in_two_units(DEEP, 2.0**40)


@case("B6")
def discrete_in_seconds(folder: Path) -> Seen:
    """discrete time in days and in seconds: the same"""
    return _in_two_units(DEEP | {"problem": {"kind": "survival", "method": "discrete_time", "intervals": 6}}, 86_400.0)


@case("B6")
def discrete_in_centuries(folder: Path) -> Seen:
    """discrete time in days and in 1e-10 of them, pooled baseline of none: the same"""
    return _in_two_units(DEEP | {"problem": {"kind": "survival", "method": "discrete_time", "intervals": 5}}, 1e-10)


@case("B6")
def regression_in_nanoseconds(folder: Path) -> Seen:
    """model cox in nanoseconds: lifelines' coefficients, and its survival at 400 days"""
    from lifelines import CoxPHFitter

    tables = three()
    factor = 86_400e9
    result = run({"model": "cox"}, scaled(tables, factor))
    import pandas as pd

    whole = pd.concat(tables.values())
    fit = CoxPHFitter().fit(whole, "t", "d")
    rows = patients(4, 9)
    ours = result.predict(rows, times=[400 * factor]).iloc[:, 1]
    theirs = fit.predict_survival_function(rows[["x", "z"]], times=[400]).iloc[0]
    return same([*result.coefficients["estimate"], *ours], [*fit.params_, *theirs], within=0.02)


@case("B6")
def curves_in_tiny_units(folder: Path) -> Seen:
    """Kaplan-Meier curves of describe in units of 1e11 days: those of days"""
    import v6_algorithm.api as v6

    tables = three()
    keys = {"data": {"target": TARGET}, "problem": "survival"}
    one = v6.describe(keys, tables, by="z").curves
    other = v6.describe(keys, scaled(tables, 1e-11), by="z").curves
    column = next(name for name in one.columns if "surv" in name.lower())
    return same(other[column], one[column], within=1e-6)


@case("B6")
def months_of_thirds(folder: Path) -> Seen:
    """times of whole days told in months of 30.4375 days, many ties: the C-index of days by lifelines"""
    from lifelines.utils import concordance_index

    tables = {name: frame.assign(t=np.ceil(frame["t"] / 30)) for name, frame in three().items()}
    months = scaled(tables, 1 / 30.4375)
    split = {
        name: frame.assign(part=np.where(np.arange(len(frame)) % 2, "test", "train")) for name, frame in months.items()
    }
    result = run(
        DEEP
        | {
            "data": {"target": TARGET, "split_column": "part", "features": ["x", "z"]},
            "split": {"kind": "given"},
            "stopping": {"patience": None},
            "output": {"model": "last"},
        },
        split,
    )
    import pandas as pd

    test = pd.concat([frame[frame["part"] == "test"] for frame in split.values()])
    risk = result.predict(test)["log_risk"]
    return same(pooled(result)["c_index"], concordance_index(test["t"], -risk, test["d"]), within=2e-3)


@case("B6", told="unit|times|lie as far apart")
def days_and_months(folder: Path) -> Seen:
    """times in days at two sites and in months at the third: told"""
    tables = three()
    tables["c"] = tables["c"].assign(t=tables["c"]["t"] / 30.4375)
    result = run(DEEP, tables)
    return Seen(None, "; ".join(note for note in result.notes if "unit of time" in note))


@case("B6")
def standard_policy_in_milliseconds(folder: Path) -> Seen:
    """discrete time under policy standard, days and milliseconds: metrics there, and within 5 % of each other"""
    with policy("standard"):
        return _in_two_units(
            DEEP | {"problem": {"kind": "survival", "method": "discrete_time", "intervals": 5}},
            86_400_000.0,
            within=0.06,
        )


# -- C1 ------------------------------------------------------------------------------------------------------------


def _against_kaplan_meier(tables: dict[str, Any], ends: list[float], times: list[float], within: float = 0.012) -> Seen:
    """Fit hazards with a column that tells nothing, and compare mean survival with Kaplan-Meier of the pooled rows."""
    import pandas as pd
    from lifelines import KaplanMeierFitter

    keys = {
        "data": {"target": TARGET, "features": ["z"]}, "model": "linear", "rounds": 60,
        "problem": {"kind": "survival", "method": "discrete_time", "intervals": ends},
        "training": {"optimizer": {"kind": "adam", "lr": 0.1}, "local_epochs": 4, "batch_size": None}, **ALL_TRAIN,
    }  # fmt: skip
    result = run(keys, tables)
    whole = pd.concat(tables.values())
    curve = KaplanMeierFitter().fit(whole["t"], whole["d"])
    ours = result.predict(whole, times=times).iloc[:, 1:].mean()
    return same(ours, curve.predict(times), within=within, told="; ".join(result.notes))


def _table(times: Any, events: Any, seed: int = 0) -> Any:
    import pandas as pd

    z = np.random.default_rng(seed).integers(0, 2, len(times))
    return pd.DataFrame({"z": z, "t": np.asarray(times, float), "d": np.asarray(events, int)})


@case("C1")
def censored_at_the_end(folder: Path) -> Seen:
    """everybody without an event leaves at 365, an interval's end: S(365) is Kaplan-Meier's"""
    generator = np.random.default_rng(1)
    tables = {}
    for name in ("a", "b"):
        event = generator.exponential(900, 150)
        tables[name] = _table(np.minimum(event, 365), event < 365)
    return _against_kaplan_meier(tables, [100, 200, 365], [100, 200, 365])


@case("C1")
def censored_at_every_end(folder: Path) -> Seen:
    """visits at 90, 180, 270 and 365: people leave at each of them, just after the interval's events"""
    generator = np.random.default_rng(2)
    tables = {}
    for name in ("a", "b", "c"):
        event, leave = generator.exponential(500, 140), generator.choice([90, 180, 270, 365], 140)
        tables[name] = _table(np.minimum(event, leave), event <= leave)
    return _against_kaplan_meier(tables, [90, 180, 270, 365], [90, 180, 270, 365])


@case("C1")
def events_at_the_ends(folder: Path) -> Seen:
    """whole years, events and leaving at the ends of years: S at each year is Kaplan-Meier's"""
    generator = np.random.default_rng(3)
    tables = {}
    for name in ("a", "b"):
        event, leave = np.ceil(generator.exponential(4, 200)), generator.integers(1, 7, 200)
        tables[name] = _table(np.minimum(event, leave), event <= leave)
    return _against_kaplan_meier(tables, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], within=0.02)


@case("C1")
def an_interval_without_events(folder: Path) -> Seen:
    """no event between 200 and 300, where many leave at 300: survival is flat there"""
    generator = np.random.default_rng(4)
    tables = {}
    for name in ("a", "b"):
        event = np.where(generator.random(160) < 0.4, generator.uniform(1, 200, 160), generator.uniform(300, 900, 160))
        leave = np.where(generator.random(160) < 0.5, 300, 600)
        tables[name] = _table(np.minimum(event, leave), event <= leave)
    return _against_kaplan_meier(tables, [100, 200, 300, 450, 600], [200, 300, 600])


@case("C1")
def unlike_follow_up(folder: Path) -> Seen:
    """one hospital watches for 200 days, the other for 600: S(600) is that of the pooled rows"""
    generator = np.random.default_rng(5)
    one, other = generator.exponential(500, 200), generator.exponential(500, 200)
    tables = {"a": _table(np.minimum(one, 200), one < 200), "b": _table(np.minimum(other, 600), other < 600)}
    return _against_kaplan_meier(tables, [200, 400, 600], [200, 400, 600])


@case("C1")
def intervals_by_number(folder: Path) -> Seen:
    """ten intervals at quantiles, all leave at the end of the study: S(365) is Kaplan-Meier's, not 0"""
    generator = np.random.default_rng(6)
    tables = {}
    for name in ("a", "b"):
        event = generator.exponential(900, 200)
        tables[name] = _table(np.minimum(event, 365), event < 365)
    return _against_kaplan_meier(tables, 10, [200, 300], within=0.03)  # type: ignore[arg-type]


@case("C1", told="joins|cells|standard|policy|withh|joined|smallest")
def discrete_under_standard(folder: Path) -> Seen:
    """discrete time with intervals of its own under policy standard: metrics, or a note of what is withheld"""
    with policy("standard"):
        result = run(DEEP | {"problem": {"kind": "survival", "method": "discrete_time"}}, three())
    return Seen("c_index" in pooled(result), "; ".join(result.notes))


# -- C3 ------------------------------------------------------------------------------------------------------------


def _by_lifelines(tables: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    import pandas as pd
    from lifelines import CoxPHFitter

    whole = pd.concat([frame.assign(place=name) for name, frame in tables.items()])
    strata = options.pop("strata", None)
    fit = CoxPHFitter(strata=strata).fit(whole if strata else whole.drop(columns="place"), "t", "d", **options)
    return fit, whole


@case("C3")
def stratified_with_ties(folder: Path) -> Seen:
    """model cox, strata site, heavy ties, unlike hazards: lifelines' estimates, errors, and survival at site c"""
    tables = {
        name: patients(90, seed, rate=rate).assign(t=lambda frame: np.ceil(frame["t"] / 50))
        for seed, (name, rate) in enumerate({"a": 0.001, "b": 0.004, "c": 0.02}.items())
    }
    fit, _ = _by_lifelines(tables, strata=["place"])
    result = run({"model": {"kind": "cox", "strata": "site"}}, tables)
    rows = patients(3, 50)
    ours = result.predict(rows, site="c", times=[5]).iloc[:, 1]
    theirs = fit.predict_survival_function(rows[["x", "z"]].assign(place="c"), times=[5]).iloc[0]
    table = result.coefficients
    return same(
        [*table["estimate"], *table["standard_error"], *ours],
        [*fit.params_, *fit.standard_errors_, *theirs],
        within=2e-3,
    )


@case("C3")
def late_entries(folder: Path) -> Seen:
    """left truncation at three sites: lifelines with an entry column"""
    tables = {}
    for name, frame in three().items():
        entry = np.random.default_rng(len(frame)).uniform(0, 0.6, len(frame)) * frame["t"]
        tables[name] = frame.assign(start=entry)
    fit, _ = _by_lifelines(tables, entry_col="start")
    result = run({"data": {"target": TARGET | {"entry": "start"}, "features": ["x", "z"]}, "model": "cox"}, tables)
    table = result.coefficients
    return same([*table["estimate"], *table["standard_error"]], [*fit.params_, *fit.standard_errors_], within=2e-3)


@case("C3")
def breslow_ties(folder: Path) -> Seen:
    """ties after Breslow, four distinct times: statsmodels' PHReg"""
    import pandas as pd
    from statsmodels.duration.hazard_regression import PHReg

    tables = {name: frame.assign(t=np.minimum(np.ceil(frame["t"] / 200), 4)) for name, frame in three().items()}
    whole = pd.concat(tables.values())
    fit = PHReg(whole["t"], whole[["x", "z"]], status=whole["d"], ties="breslow").fit()
    result = run({"model": {"kind": "cox", "ties": "breslow"}}, tables)
    return same(
        [*result.coefficients["estimate"], *result.coefficients["standard_error"]], [*fit.params, *fit.bse], within=1e-3
    )


@case("C3")
def network_baselines_by_site(folder: Path) -> Seen:
    """a Cox network at sites of unlike hazards: survival at each site is Breslow's of that site's own rows"""
    tables = {
        name: patients(150, seed, rate=rate)
        for seed, (name, rate) in enumerate({"a": 0.001, "b": 0.004, "c": 0.01}.items())
    }
    result = run(DEEP | {"rounds": 20, **ALL_TRAIN}, tables)
    rows, at = patients(6, 51), 200.0
    ours, theirs = [], []
    for name, frame in tables.items():
        risk = np.exp(result.predict(frame, site=name)["log_risk"].to_numpy())
        hazard = sum(
            1 / risk[frame["t"].to_numpy() >= t].sum() for t in frame.loc[(frame["d"] == 1) & (frame["t"] <= at), "t"]
        )
        new = result.predict(rows, site=name, times=[at])
        ours += new.iloc[:, 1].tolist()
        theirs += np.exp(-hazard * np.exp(new["log_risk"])).tolist()
    return same(ours, theirs, within=0.03)


@case("C3")
def headline_and_within(folder: Path) -> Seen:
    """sites of unlike hazards: the headline C-index is of all pairs, c_index_within of pairs of one site"""
    from lifelines.utils import concordance_index

    tables = {
        name: patients(100, seed, rate=rate).assign(
            part=lambda frame: np.where(np.arange(len(frame)) % 2, "test", "train")
        )
        for seed, (name, rate) in enumerate({"a": 0.001, "b": 0.01}.items())
    }
    result = run(
        DEEP
        | {
            "data": {"target": TARGET, "split_column": "part"},
            "split": {"kind": "given"},
            "stopping": {"patience": None},
            "output": {"model": "last"},
        },
        tables,
    )
    import pandas as pd

    tests = [frame[frame["part"] == "test"] for frame in tables.values()]
    whole = pd.concat(tests)
    risks = [result.predict(frame)["log_risk"].to_numpy() for frame in tests]
    pairs = concordant = 0.0
    for frame, risk in zip(tests, risks, strict=True):
        t, d = frame["t"].to_numpy(), frame["d"].to_numpy()
        first = (t[:, None] < t[None]) & (d[:, None] == 1)
        pairs += first.sum()
        concordant += (first * ((risk[:, None] > risk[None]) + 0.5 * (risk[:, None] == risk[None]))).sum()
    wanted = [concordance_index(whole["t"], -np.concatenate(risks), whole["d"]), concordant / pairs]
    found = pooled(result)
    return same([found["c_index"], found["c_index_within"]], wanted, within=3e-3, told="; ".join(result.notes))


@case("C3", told="batch")
def small_batches(folder: Path) -> Seen:
    """a Cox network with batches of 16: told that risk sets are then of the batch"""
    keys = DEEP | {"training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 16}}
    return Seen(None, "; ".join(run(keys, three()).notes))


@case("C3", refused="event", told="")
def hardly_any_events(folder: Path) -> Seen:
    """model cox with a single event in all: refused or told, with the number of events"""
    tables = {name: frame.assign(d=0) for name, frame in three().items()}
    tables["a"].loc[3, "d"] = 1
    return Seen(None, "; ".join(run({"model": "cox"}, tables).notes))


@case("C3")
def centralised_is_stratified(folder: Path) -> Seen:
    """mode centralised of a Cox network at sites of unlike hazards: its slope is the stratified one, not the pooled"""
    tables = {}
    for seed, (name, rate) in enumerate({"a": 0.0005, "b": 0.02}.items()):
        frame = patients(250, seed, rate=rate)
        tables[name] = frame.assign(x=frame["x"] + (1.5 if name == "b" else 0.0))
    for frame in tables.values():
        frame.drop(columns="z", inplace=True)
    fit, _ = _by_lifelines(tables, strata=["place"])
    keys = {"model": "linear", "rounds": 60, "mode": "centralised", "training": FITTING, **ALL_TRAIN}
    result = run(keys, tables)
    import pandas as pd

    rows = pd.DataFrame({"x": [0.0, 1.0]})
    risk = result.predict(rows)["log_risk"]
    return same(risk[1] - risk[0], fit.params_["x"], within=0.03)
