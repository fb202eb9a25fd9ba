"""C, third sample: tables that statsmodels, lifelines, scikit-learn and scikit-survival ship, cut into three hospitals.

What comes is compared with the same library's value of the pooled rows: coefficients and errors, likelihoods, survival
curves, metrics of what the model predicts. Sets of scikit-survival are tried where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tools.examine.tries import Seen, case, policy, same, true

Array = np.ndarray
_third = {"sample": "third"}
ALL_TRAIN = {"split": {"kind": "ratio", "train": 1.0, "validation": 0.0, "test": 0.0}}


def cut(frame: Any, seed: int = 0, hospitals: int = 3) -> dict[str, Any]:
    """Deal rows to hospitals by a draw."""
    order = np.random.default_rng(seed).permutation(len(frame))
    places = np.array_split(order, hospitals)
    return {name: frame.iloc[place].reset_index(drop=True) for name, place in zip("abcdef", places, strict=False)}


def run(keys: Mapping[str, Any], frame: Any, **options: Any) -> Any:
    import v6_algorithm.api as v6

    return v6.run(dict(keys), sites=cut(frame, **options))


def statsmodels(name: str) -> Any:
    """Return a set of statsmodels, with names in lower case."""
    import statsmodels.api as sm

    frame = getattr(sm.datasets, name).load_pandas().data
    return frame.rename(columns=lambda column: column.lower())


def regression(
    frame: Any, target: str, family: str, link: str | None = None, within: float = 1e-5, **data: Any
) -> Seen:
    """Fit a GLM, and compare estimates, errors and the likelihood with statsmodels'."""
    import statsmodels.api as sm

    links = {"inverse": sm.families.links.InversePower(), "log": sm.families.links.Log()}
    of = {
        "gaussian": sm.families.Gaussian, "binomial": sm.families.Binomial, "poisson": sm.families.Poisson,
        "gamma": sm.families.Gamma,
    }[family]  # fmt: skip
    features = [column for column in frame if column != target]
    fit = sm.GLM(frame[target], sm.add_constant(frame[features].astype(float)), of(links[link]) if link else of()).fit(
        tol=1e-12, maxiter=200
    )
    model = {"kind": "glm", "family": family} | ({"link": link} if link else {})
    problem = {"binomial": "classification", "poisson": "count"}.get(family, "regression")
    result = run(
        {"data": {"target": target, "features": features, **data}, "model": model, "problem": problem, **ALL_TRAIN},
        frame,
        hospitals=2,
    )
    found = result.coefficients
    expected = np.concatenate([fit.params[features] / fit.bse[features], np.ones(len(features))])
    given = np.concatenate(
        [found.loc[features, "estimate"] / fit.bse[features], found.loc[features, "standard_error"] / fit.bse[features]]
    )
    return same(given, expected, within=within, told="; ".join(result.notes))


def _register(function: Callable[[Path], Seen], kind: str, about: str, **options: str) -> None:
    function.__doc__ = about
    case(kind, **options, **_third)(function)


def fair() -> Any:
    frame = statsmodels("fair")
    return frame.assign(affairs=(frame["affairs"] > 0).astype(int))


def star() -> Any:
    frame = statsmodels("star98")
    high = frame["nabove"] / (frame["nabove"] + frame["nbelow"]) > 0.5
    return frame[["lowinc", "perasian", "perblack", "perhisp", "pctchrt", "pctyrrnd"]].assign(high=high.astype(int))


def modechoice() -> Any:
    frame = statsmodels("modechoice")
    return frame[["choice", "ttme", "invc", "gc", "hinc"]].astype(float).assign(choice=frame["choice"].astype(int))


def longley() -> Any:
    import pandas as pd

    frame = statsmodels("longley")
    return pd.concat([frame, frame.assign(totemp=frame["totemp"] + 7)], ignore_index=True)


def grunfeld() -> Any:
    return statsmodels("grunfeld")[["invest", "value", "capital"]]


GLMS: tuple[tuple[str, str, str, str | None, Callable[[], Any]], ...] = (
    ("scotland's taxes, gamma with the inverse link", "yes", "gamma", "inverse", lambda: statsmodels("scotland")),
    ("spector's grades, 32 rows", "grade", "binomial", None, lambda: statsmodels("spector")),
    ("fair's affairs, 6,366 rows", "affairs", "binomial", None, fair),
    ("star98's districts", "high", "binomial", None, star),
    ("modechoice", "choice", "binomial", None, modechoice),
    ("randhie's visits, 20,190 rows", "mdvis", "poisson", None, lambda: statsmodels("randhie")),
    ("longley's 16 years twice, nearly singular", "totemp", "gaussian", None, longley),
    ("stackloss, 21 rows", "stackloss", "gaussian", None, lambda: statsmodels("stackloss")),
    ("engel's food, a line", "foodexp", "gaussian", None, lambda: statsmodels("engel")),
    ("statecrime's murders", "murder", "gaussian", None, lambda: statsmodels("statecrime")),
    ("ccard's expenses", "avgexp", "gaussian", None, lambda: statsmodels("ccard")),
    ("copper's consumption", "worldconsumption", "gaussian", None, lambda: statsmodels("copper")),
    ("strikes' duration, gamma with the log link", "duration", "gamma", "log", lambda: statsmodels("strikes")),
    ("cancer's counts", "cancer", "poisson", None, lambda: statsmodels("cancer")),
    ("grunfeld's investments", "invest", "gaussian", None, grunfeld),
)  # fmt: skip
for _about, _target, _family, _link, _load in GLMS:

    def _glm(
        folder: Path, load: Any = _load, target: str = _target, family: str = _family, link: str | None = _link
    ) -> Seen:
        return regression(load(), target, family, link)

    _register(_glm, "C3", f"statsmodels' {_about}: its own estimates and errors")


def lived(name: str) -> Any:
    from lifelines import datasets

    return getattr(datasets, f"load_{name}")()


def lymph_node() -> Any:
    dates = ["id", "rectime", "censrec", "diagdateb", "recdate", "deathdate"]
    return lived("lymph_node").drop(columns=dates, errors="ignore").select_dtypes("number")


COXES: tuple[tuple[str, str, str, Callable[[], Any]], ...] = (
    ("rossi", "week", "arrest", lambda: lived("rossi")),
    ("gbsg2, numbers only", "time", "cens", lambda: lived("gbsg2").select_dtypes("number")),
    ("larynx", "time", "death", lambda: lived("larynx").drop(columns="Stage_IV", errors="ignore")),
    ("kidney_transplant", "time", "death", lambda: lived("kidney_transplant").drop(columns="white_male")),
    ("lymph_node", "survtime", "censdead", lymph_node),
    ("regression_dataset", "T", "E", lambda: lived("regression_dataset")),
    ("waltons", "T", "E", lambda: lived("waltons").assign(group=lambda f: (f["group"] == "control").astype(int))),
    ("leukemia", "t", "status", lambda: lived("leukemia")),
    ("dd", "duration", "observed", lambda: lived("dd")[["duration", "observed", "start_year"]]),
)  # fmt: skip


def scikit_survival(frame: Any, features: list[str], time: str, event: str, ties: str) -> tuple[Array, None]:
    """Return scikit-survival's estimates, which has no errors."""
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    outcome = Surv.from_arrays(frame[event] == 1, frame[time])
    return CoxPHSurvivalAnalysis(ties=ties, tol=1e-12, n_iter=200).fit(frame[features], outcome).coef_, None


def by_statsmodels(frame: Any, features: list[str], time: str, event: str, ties: str) -> tuple[Array, Array]:
    """Return statsmodels' estimates and errors."""
    import statsmodels.api as sm

    fit = sm.PHReg(frame[time], frame[features].astype(float), frame[event], ties=ties).fit()
    return fit.params, fit.bse


def cox(
    frame: Any, time: str, event: str, ties: str = "efron", within: float = 1e-4, reference: Any = by_statsmodels
) -> Seen:
    """Fit Cox's model over one baseline, and compare with a reference."""
    frame = frame.dropna().reset_index(drop=True)
    features = [column for column in frame if column not in (time, event)]
    estimates, errors = reference(frame, features, time, event, ties)
    result = run(
        {
            "data": {"target": {"duration": time, "event": event}, "features": features},
            "problem": "survival", "model": {"kind": "cox", "strata": "none", "ties": ties}, **ALL_TRAIN,
        },
        frame,
    )  # fmt: skip
    found = result.coefficients.loc[features]
    errors = found["standard_error"].to_numpy() if errors is None else errors
    given = np.concatenate([found["estimate"] / errors, found["standard_error"] / errors])
    wanted = np.concatenate([estimates / errors, np.ones(len(features))])
    return same(given, wanted, within=within, told="; ".join(result.notes))


for _about, _time, _event, _load in COXES:
    for _ties in ("efron", "breslow"):

        def _cox(folder: Path, load: Any = _load, time: str = _time, event: str = _event, ties: str = _ties) -> Seen:
            return cox(load(), time, event, ties)

        _register(_cox, "C3", f"lifelines' {_about}, {_ties}: statsmodels' estimates and errors")


@case("C1", refused="1 and 2|positive", **_third)
def lung_of_r(folder: Path) -> Seen:
    """lifelines' lung, whose status is 1 for censored and 2 for dead, as R has it"""
    import lifelines.datasets as sets
    import pandas as pd

    frame = pd.read_csv(Path(sets.__file__).parent / "lung.csv")
    frame["status"] += 1
    target = {"duration": "time", "event": "status"}
    result = run({"data": {"target": target, "features": ["age", "sex"]}, "problem": "survival"}, frame)
    return true(False, told="; ".join(result.notes))


def _reversed_at(site: str) -> dict[str, Any]:
    sites = cut(lived("rossi"))
    sites[site] = sites[site].assign(arrest=1 - sites[site]["arrest"])
    return sites


@case("C1", told="other way round", **_third)
def events_reversed(folder: Path) -> Seen:
    """lifelines' rossi with events coded in reverse at one hospital"""
    import v6_algorithm.api as v6

    data = {"target": {"duration": "week", "event": "arrest"}}
    result = v6.run({"data": data, "problem": "survival", "rounds": 2}, sites=_reversed_at("c"))
    return true(True, told="; ".join(result.notes))


@case("C1", told="other way round", **_third)
def events_reversed_standard(folder: Path) -> Seen:
    """the same where nodes hold policy standard"""
    import v6_algorithm.api as v6

    data = {"target": {"duration": "week", "event": "arrest"}}
    with policy("standard"):
        result = v6.run({"data": data, "problem": "survival", "rounds": 2}, sites=_reversed_at("c"))
    return true(True, told="; ".join(result.notes))


def _described(frame: Any, time: str, event: str, group: str) -> Any:
    import v6_algorithm.api as v6

    data = {"target": {"duration": time, "event": event}}
    return v6.describe({"data": data, "problem": "survival"}, sites=cut(frame), by=group)


@cache
def scored(name: str) -> tuple[Any, Any, Any, list[str]]:
    """Train on a set of scikit-learn; return the result, test rows, their targets and the features."""
    import pandas as pd
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = loaded.frame.rename(columns=lambda column: str(column).replace(" ", "_"))
    frame["part"] = np.where(np.random.default_rng(3).random(len(frame)) < 0.4, "test", "train")
    features = [column for column in frame if column not in ("target", "part")]
    problem = "regression" if name == "diabetes" else "classification"
    result = run(
        {
            "data": {"target": "target", "features": features, "split_column": "part"}, "split": "given",
            "problem": problem, "model": "linear", "rounds": 8,
        },
        frame,
    )  # fmt: skip
    test = pd.concat([part[part["part"] == "test"] for part in cut(frame).values()], ignore_index=True)
    return result, test, result.predict(test), features


def _pooled(result: Any) -> dict[str, float]:
    return result.content["metrics"]["test"]["pooled"]


def _probabilities(predicted: Any, classes: Sequence[int]) -> Array:
    return predicted[[f"p({label})" for label in classes]].to_numpy(dtype=float)


@case("C5", **_third)
def metrics_of_breast_cancer(folder: Path) -> Seen:
    """scikit-learn's breast cancer: AUROC, AUPRC, Brier score, log loss and accuracy as scikit-learn has them"""
    from sklearn import metrics as sk

    result, test, predicted, _ = scored("breast_cancer")
    share, truth, found = _probabilities(predicted, [0, 1])[:, 1], test["target"], _pooled(result)
    wanted = [
        sk.roc_auc_score(truth, share), sk.average_precision_score(truth, share), sk.brier_score_loss(truth, share),
        sk.accuracy_score(truth, share > 0.5),
    ]  # fmt: skip
    return same([found[name] for name in ("auroc", "auprc", "brier", "accuracy")], wanted, within=1e-4)


@case("C5", **_third)
def metrics_of_wine(folder: Path) -> Seen:
    """scikit-learn's wine, three classes: accuracy, balanced accuracy, macro F1 and one-against-rest AUROC"""
    from sklearn import metrics as sk

    result, test, predicted, _ = scored("wine")
    shares, truth, found = _probabilities(predicted, [0, 1, 2]), test["target"], _pooled(result)
    guess = shares.argmax(axis=1)
    wanted = [
        sk.accuracy_score(truth, guess),
        sk.balanced_accuracy_score(truth, guess),
        sk.f1_score(truth, guess, average="macro"),
        sk.roc_auc_score(truth, shares, multi_class="ovr"),
    ]
    return same([found[name] for name in ("accuracy", "balanced_accuracy", "f1", "auroc")], wanted, within=1e-4)


@case("C5", **_third)
def metrics_of_diabetes(folder: Path) -> Seen:
    """scikit-learn's diabetes: R2, MAE and MSE as scikit-learn has them"""
    from sklearn import metrics as sk

    result, test, predicted, _ = scored("diabetes")
    column = predicted.select_dtypes("number").iloc[:, -1]
    found, truth = _pooled(result), test["target"]
    wanted = [sk.r2_score(truth, column), sk.mean_absolute_error(truth, column), sk.mean_squared_error(truth, column)]
    return same([found[name] for name in ("r2", "mae", "mse")], wanted, within=1e-5)


@case("C6", **_third)
def intervals_hold_the_value(folder: Path) -> Seen:
    """each metric of breast cancer, wine and diabetes is inside its interval, and the interval inside its range"""
    wrong = []
    for name in ("breast_cancer", "wine", "diabetes"):
        found = _pooled(scored(name)[0])
        for metric, value in found.items():
            low, high = found.get(f"{metric}_low"), found.get(f"{metric}_high")
            if low is not None and high is not None and not low <= value <= high:
                wrong.append((name, metric, low, value, high))
            if (
                metric in ("auroc", "auprc", "accuracy", "f1", "brier")
                and low is not None
                and not 0 <= low <= high <= 1
            ):
                wrong.append((name, metric, low, high))
    return true(not wrong, wrong)


@case("C4", **_third)
def quantiles_of_randhie(folder: Path) -> Seen:
    """statsmodels' randhie described: means, deviations and medians of columns as pandas has them"""
    import v6_algorithm.api as v6

    frame = statsmodels("randhie")
    found = v6.describe({"data": {"target": "mdvis"}, "problem": "regression"}, sites=cut(frame)).content["columns"]
    wrong = []
    for name in ("linc", "xage", "disea", "lpi"):
        name = name if name in frame else None
        if name is None:
            continue
        numbers, values = found[name]["pooled"], frame[name]
        if not np.isclose(numbers["mean"], values.mean(), rtol=1e-6):
            wrong.append((name, numbers["mean"], values.mean()))
        median = numbers["quantiles"]["0.5"]["value"]
        if not abs(median - values.median()) <= 0.01 * values.std() + 1e-12:
            wrong.append((name, median, values.median()))
    return true(not wrong, wrong)


SKSURV = ("veterans_lung_cancer", "whas500", "gbsg2", "flchain", "aids")
if find_spec("sksurv") is not None:
    for _name in SKSURV:

        def _sksurv(folder: Path, name: str = _name) -> Seen:
            from sksurv import datasets

            columns, outcome = getattr(datasets, f"load_{name}")()
            event, time = outcome.dtype.names
            frame = columns.select_dtypes("number").dropna(axis=1).astype(float)
            frame = frame.loc[:, frame.nunique() > 1].rename(columns=lambda column: column.lower())
            frame["lived"], frame["seen"] = outcome[time], outcome[event].astype(int)
            return cox(frame, "lived", "seen", reference=scikit_survival)

        _register(_sksurv, "C3", f"scikit-survival's {_name}, numbers only: its own estimates")

    @case("C5", **_third)
    def c_index_of_whas(folder: Path) -> Seen:
        """scikit-survival's whas500: Harrell's C-index of the model's risks, within what the result says"""
        import pandas as pd
        from sksurv import datasets
        from sksurv.metrics import concordance_index_censored

        columns, outcome = datasets.load_whas500()
        frame = columns.select_dtypes("number").astype(float)
        frame["t"], frame["d"] = outcome["lenfol"], outcome["fstat"].astype(int)
        frame["part"] = np.where(np.random.default_rng(3).random(len(frame)) < 0.4, "test", "train")
        features = [column for column in frame if column not in ("t", "d", "part")]
        result = run(
            {
                "data": {"target": {"duration": "t", "event": "d"}, "features": features, "split_column": "part"},
                "split": "given", "problem": "survival", "model": {"kind": "cox", "strata": "none"},
            },
            frame,
        )  # fmt: skip
        test = pd.concat([part[part["part"] == "test"] for part in cut(frame).values()], ignore_index=True)
        risk = test[features].to_numpy() @ result.coefficients.loc[features, "estimate"].to_numpy()
        wanted = concordance_index_censored(test["d"] == 1, test["t"], risk)[0]
        found = _pooled(result)
        return true(abs(found["c_index"] - wanted) <= found["c_index_resolution"] + 1e-9, (found["c_index"], wanted))


@case("C3", **_third)
def heart_of_statsmodels(folder: Path) -> Seen:
    """statsmodels' heart transplants, a column called age: Cox's estimates"""
    frame = statsmodels("heart")
    return cox(frame, "survival", "censors")


@case("C9", told="all weight|one site|weight", **_third)
def agnostic_on_one(folder: Path) -> Seen:
    """agnostic on scikit-learn's breast cancer: it is said that one site may carry all weight"""
    from sklearn import datasets

    frame = datasets.load_breast_cancer(as_frame=True).frame
    result = run(
        {"data": {"target": "target"}, "model": "linear", "rounds": 3, "strategy": {"kind": "agnostic"}}, frame
    )
    return true(True, told="; ".join(result.notes))


@case("C2", **_third)
def repeats_of_wine(folder: Path) -> Seen:
    """scikit-learn's breast cancer with five repeats: n is that of one, and the interval is no narrower than of one"""
    from sklearn import datasets

    frame = datasets.load_breast_cancer(as_frame=True).frame.sample(150, random_state=1)
    keys = {"data": {"target": "target"}, "model": "linear", "rounds": 3}
    one = _pooled(run(keys | {"split": {"kind": "kfold", "folds": 3}}, frame))
    five = _pooled(run(keys | {"split": {"kind": "kfold", "folds": 3, "repeats": 5}}, frame))
    widths = [found["accuracy_high"] - found["accuracy_low"] for found in (one, five)]
    return true(widths[1] > 0.6 * widths[0], widths)


@case("C8", **_third)
def columns_called_x_and_y(folder: Path) -> Seen:
    """a column called X that holds fractions is a feature"""
    from sklearn import datasets

    frame = datasets.load_breast_cancer(as_frame=True).frame[["mean radius", "mean texture", "target"]]
    frame = frame.rename(columns={"mean radius": "X", "mean texture": "y"})
    result = run({"data": {"target": "target"}, "model": "linear", "rounds": 2}, frame)
    return true(result.content["preparation"]["features"] == ["X", "y"], result.content["preparation"]["features"])


@case("C8", told="in one unit", **_third)
def rossi_in_pounds(folder: Path) -> Seen:
    """a weight in kg at two hospitals and in lb at the third, whose values overlap"""
    generator = np.random.default_rng(0)
    frame = lived("rossi").drop(columns=["week"]).assign(weight=generator.normal(80, 18, 432))
    sites = cut(frame)
    sites["b"] = sites["b"].assign(weight=lambda f: f["weight"] * 0.9 * 2.2046)
    import v6_algorithm.api as v6

    result = v6.run({"data": {"target": "arrest"}, "model": "linear", "rounds": 2}, sites=sites)
    return true(True, told="; ".join(result.notes))
