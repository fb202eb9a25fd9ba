"""C2, C5 and C6: repeats, bins of scores, and intervals at the edge, against scikit-learn and statsmodels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.examine.tries import Seen, case, policy, same, true

LAST = {"stopping": {"patience": None}, "output": {"model": "last"}}


def run(keys: dict[str, Any], sites: dict[str, Any]) -> Any:
    import v6_algorithm.api as v6

    return v6.run({"data": {"target": "y"}, "model": "linear", "rounds": 2, **keys}, sites=sites)


def rows_of(rows: int, seed: int, *, effect: float = 1.0, share: float = 0.5) -> Any:
    import pandas as pd

    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 2))
    cut = np.log(share / (1 - share))
    y = (generator.random(rows) < 1 / (1 + np.exp(-cut - effect * x[:, 0]))).astype(int)
    return pd.DataFrame(x, columns=["a", "b"]).assign(y=y)


def _width(result: Any, metric: str) -> float:
    pooled = result.content["metrics"]["test"]["pooled"]
    return pooled[f"{metric}_high"] - pooled[f"{metric}_low"]


def _repeats(keys: dict[str, Any], tables: dict[str, Any], metrics: list[str], *, least: float = 0.85) -> Seen:
    split = {"kind": "kfold", "folds": 5}
    once = run({**keys, "split": split}, tables)
    often = run({**keys, "split": split | {"repeats": 6}}, tables)
    widths = {metric: (_width(once, metric), _width(often, metric)) for metric in metrics}
    rows = [result.content["metrics"]["test"]["pooled"].get("n") for result in (once, often)]
    narrow = [metric for metric, (one, many) in widths.items() if many < least * one]
    return true(not narrow and rows[0] == rows[1], f"{widths} n {rows}", "; ".join(often.notes))


@case("C2")
def repeats_of_classes(folder: Path) -> Seen:
    """five folds, six repeats: intervals of AUROC, accuracy, AUPRC, F1 and Brier no narrower than of one, n the same"""
    tables = {name: rows_of(40, seed) for seed, name in enumerate("ab")}
    return _repeats({}, tables, ["auroc", "accuracy", "auprc", "f1", "brier"])


@case("C2")
def repeats_of_numbers(folder: Path) -> Seen:
    """regression, six repeats: intervals of R2 and MAE no narrower"""
    tables = {
        name: rows_of(60, seed).assign(y=lambda frame: frame["a"] + np.random.default_rng(9).normal(0, 0.5, len(frame)))
        for seed, name in enumerate("ab")
    }
    keys = {
        "problem": "regression",
        "rounds": 15,
        "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 8},
    }
    return _repeats(keys, tables, ["r2", "mae"])


@case("C2")
def repeats_of_survival(folder: Path) -> Seen:
    """a Cox network, six repeats: the interval of the C-index no narrower"""
    from tools.examine.inputs_survival import DEEP, TARGET, patients

    tables = {name: patients(60, seed) for seed, name in enumerate("ab")}
    keys = {**DEEP, "rounds": 2, "data": {"target": TARGET}, "problem": "survival"}
    return _repeats(keys, tables, ["c_index"])


@case("C2")
def repeats_in_confusion(folder: Path) -> Seen:
    """the confusion matrix of six repeats: of n rows, not of six times as many"""
    tables = {name: rows_of(40, seed) for seed, name in enumerate("ab")}
    result = run({"split": {"kind": "kfold", "folds": 4, "repeats": 6}}, tables)
    matrix = result.content["confusion"]["test"]
    found = matrix.get("y", matrix)
    total = np.sum(np.asarray(found["pooled"] if "pooled" in found else found["counts"], dtype=float))
    said = "; ".join(result.notes)
    return true(abs(total - 80) < 1e-6 or "repeat" in said, f"{total} {said[:300]}")


@case("C2")
def repeats_of_groups(folder: Path) -> Seen:
    """groups of rows over six repeats: n of a group is its rows, and its interval no narrower"""
    tables = {name: rows_of(60, seed).assign(sex=np.arange(60) % 2) for seed, name in enumerate("ab")}
    found = []
    for repeats in (1, 6):
        keys = {"data": {"target": "y", "exclude": ["sex"]}, "evaluation": {"subgroups": ["sex"]}}
        result = run({**keys, "split": {"kind": "kfold", "folds": 4, "repeats": repeats}}, tables)
        found.append(result.content["subgroups"]["test"]["sex"]["1"])
    one, many = found
    # No interval is as good as one that is no narrower.
    ends = [[group.get(f"auroc_{end}") for end in ("low", "high")] for group in found]
    wide = None in ends[1] or ends[1][1] - ends[1][0] >= 0.85 * (ends[0][1] - ends[0][0])
    return true(wide and many.get("n") == one.get("n"), f"{one.get('n')} {many.get('n')} {wide}")


@case("C2")
def mean_of_repeats(folder: Path) -> Seen:
    """the AUROC of six repeats: between the least and the greatest of the repeats, and told how its interval is made"""
    tables = {name: rows_of(50, seed) for seed, name in enumerate("ab")}
    result = run({"split": {"kind": "kfold", "folds": 3, "repeats": 6}}, tables)
    frame = result.metrics
    pooled = result.content["metrics"]["test"]["pooled"]
    return true(
        pooled["auroc_low"] < pooled["auroc"] < pooled["auroc_high"] and len(frame),
        pooled["auroc"],
        "; ".join(result.notes),
    )


# -- C5 ------------------------------------------------------------------------------------------------------------


def _parted(frame: Any, share: float = 0.5) -> Any:
    generator = np.random.default_rng(len(frame))
    return frame.assign(part=np.where(generator.random(len(frame)) < share, "test", "train"))


def _one_column(tables: dict[str, Any], keys: dict[str, Any] | None = None) -> tuple[Any, Any, Any]:
    """Train on column s alone; return the result, and labels and column of the test rows."""
    import pandas as pd

    parted = {name: _parted(frame) for name, frame in tables.items()}
    given = {"data": {"target": "y", "features": ["s"], "split_column": "part"}, "split": {"kind": "given"}, **LAST}
    result = run(
        {
            **given,
            "rounds": 40,
            "training": {"optimizer": {"kind": "adam", "lr": 1.0}, "batch_size": None},
            **(keys or {}),
        },
        parted,
    )
    test = pd.concat([frame[frame["part"] == "test"] for frame in parted.values()])
    return result, test["y"].to_numpy(), test["s"].to_numpy()


def _against_sklearn(tables: dict[str, Any], *, within: float = 1e-3, keys: dict[str, Any] | None = None) -> Seen:
    from sklearn.metrics import average_precision_score, roc_auc_score

    result, y, s = _one_column(tables, keys)
    found = result.content["metrics"]["test"]["pooled"]
    wanted = [roc_auc_score(y, s), average_precision_score(y, s)]
    bound = [found.get("auroc_resolution", 0) + 1e-4, found.get("auprc_resolution", 0) + 1e-4]
    off = [abs(found[name] - true_value) for name, true_value in zip(("auroc", "auprc"), wanted, strict=True)]
    inside = all(one <= limit for one, limit in zip(off, bound, strict=True))
    near = all(one <= within for one in off)
    told = "; ".join(result.notes)
    return Seen(
        inside and near,
        told,
        f"auroc {found['auroc']:.5f} for {wanted[0]:.5f}, {found['auprc']:.5f} for {wanted[1]:.5f}, bounds {bound};",
    )


def _scores(rows: int, seed: int, *, scale: float = 1.0, tail: bool = False, share: float = 0.5) -> Any:
    import pandas as pd

    generator = np.random.default_rng(seed)
    y = (generator.random(rows) < share).astype(int)
    noise = generator.standard_cauchy(rows) if tail else generator.normal(size=rows)
    return pd.DataFrame({"s": scale * (y * 1.5 + noise), "y": y})


@case("C5")
def saturated_scores(folder: Path) -> Seen:
    """a column with Cauchy tails, steep model: scores crowded at 0 and 1, AUROC and AUPRC of scikit-learn"""
    return _against_sklearn({name: _scores(400, seed, tail=True) for seed, name in enumerate("abc")})


@case("C5")
def one_in_a_hundred(folder: Path) -> Seen:
    """prevalence 1 %, 3 x 2,000 rows: AUROC and AUPRC of scikit-learn"""
    return _against_sklearn({name: _scores(2000, seed, share=0.01) for seed, name in enumerate("abc")})


@case("C5")
def five_values(folder: Path) -> Seen:
    """a score of five values: ties count half, AUPRC of scikit-learn"""
    tables = {
        name: _scores(300, seed).assign(s=lambda frame: np.clip(np.round(frame["s"]), -1, 3))
        for seed, name in enumerate("ab")
    }
    return _against_sklearn(tables)


@case("C5")
def a_site_with_one_class(folder: Path) -> Seen:
    """one site has no positive row, another only such: the pooled AUROC is scikit-learn's"""
    tables = {"a": _scores(200, 0), "b": _scores(150, 1).assign(y=0), "c": _scores(100, 2).assign(y=1)}
    return _against_sklearn(tables)


@case("C5")
def joined_bins_under_standard(folder: Path) -> Seen:
    """policy standard, 3 x 300 rows: scikit-learn's values within the resolution that is told"""
    with policy("standard"):
        result, _, _ = _one_column({name: _scores(300, seed) for seed, name in enumerate("abc")})
    return _resolved(result)


def _resolved(result: Any) -> Seen:
    found = result.content["metrics"]["test"]["pooled"]
    parts = result.content["sites"]
    told = "; ".join(result.notes)
    known = found.get("auroc_resolution") is not None and found.get("auprc_resolution") is not None
    return true(known and found["auroc_resolution"] < 0.1, f"{found.get('auroc_resolution')} {list(parts)}", told)


@case("C5")
def masked_bins(folder: Path) -> Seen:
    """secure aggregation, prevalence 5 %: scikit-learn's AUROC and AUPRC within the resolutions told"""
    from sklearn.metrics import average_precision_score, roc_auc_score

    tables = {name: _scores(400, seed, share=0.05) for seed, name in enumerate("abc")}
    result, y, s = _one_column(tables, {"privacy": {"secure_aggregation": {"threshold": 2}}, "rounds": 8})
    found = result.content["metrics"]["test"]["pooled"]
    wanted = {"auroc": roc_auc_score(y, s), "auprc": average_precision_score(y, s)}
    inside = all(abs(found[name] - value) <= found[f"{name}_resolution"] + 1e-6 for name, value in wanted.items())
    return true(inside, f"{found['auroc']} {found['auprc']} {wanted} {found.get('auprc_resolution')}")


@case("C5")
def crowded_risks(folder: Path) -> Seen:
    """a Cox model of a column with Cauchy tails: lifelines' C-index"""
    import pandas as pd
    from lifelines.utils import concordance_index

    from tools.examine.inputs_survival import DEEP, TARGET, patients

    tables = {}
    for seed, name in enumerate("ab"):
        frame = patients(200, seed)
        tables[name] = _parted(frame.assign(x=frame["x"] + 0.3 * np.random.default_rng(seed).standard_cauchy(200)))
    result = run(
        {
            **DEEP,
            "data": {"target": TARGET, "split_column": "part", "features": ["x"]},
            "problem": "survival",
            "split": {"kind": "given"},
            **LAST,
        },
        tables,
    )
    test = pd.concat([frame[frame["part"] == "test"] for frame in tables.values()])
    wanted = concordance_index(test["t"], -result.predict(test)["log_risk"], test["d"])
    return same(result.content["metrics"]["test"]["pooled"]["c_index"], wanted, within=5e-3)


# -- C6 ------------------------------------------------------------------------------------------------------------


def _wilson(count: int, rows: int) -> list[float]:
    from statsmodels.stats.proportion import proportion_confint

    return [float(end) for end in proportion_confint(count, rows, method="wilson")]


def _separated(rows: int, *, wrong: int = 0) -> Any:
    import pandas as pd

    y = np.arange(rows) % 2
    s = np.where(y == 1, 5.0, -5.0) + np.linspace(-1, 1, rows)
    frame = pd.DataFrame({"s": s, "y": y, "part": "train"})
    test = frame.assign(part="test")
    test.loc[: wrong - 1, "y"] = 1 - test.loc[: wrong - 1, "y"]
    return pd.concat([frame, test], ignore_index=True)


def _tested(tables: dict[str, Any], **keys: Any) -> dict[str, Any]:
    given = {"data": {"target": "y", "features": ["s"], "split_column": "part"}, "split": {"kind": "given"}, **LAST}
    training = {"optimizer": {"kind": "adam", "lr": 0.5}, "batch_size": None}
    result = run({**given, "rounds": 15, "training": training, **keys}, tables)
    return result.content["metrics"]["test"]["pooled"]


@case("C6")
def twelve_right(folder: Path) -> Seen:
    """twelve test rows at two sites, all right: accuracy 1.00 with Wilson's 0.757 to 1, AUROC not 1.00 to 1.00"""
    found = _tested({"a": _separated(6 * 2).iloc[:18], "b": _separated(12).iloc[:18]})
    ends = _wilson(12, 12)
    seen = [found["accuracy"], found["accuracy_low"], found["accuracy_high"]]
    collapsed = found.get("auroc_low") is not None and found["auroc_low"] > 0.999
    check = same(seen, [1.0, *ends], within=1e-6)
    return Seen(check.equal and not collapsed, check.told, f"{check.detail} auroc {found.get('auroc_low')}")


@case("C6")
def all_the_wrong_way(folder: Path) -> Seen:
    """forty test rows whose labels are turned: AUROC 0 with an interval above 0, Wilson's of accuracy 0"""
    found = _tested({name: _separated(20, wrong=20) for name in "ab"})
    ends = _wilson(0, 40)
    seen = same([found["auroc"], found["accuracy_low"], found["accuracy_high"]], [0.0, *ends], within=1e-6)
    return Seen(seen.equal and found["auroc_high"] > 0.01, seen.told, f"{seen.detail} {found.get('auroc_high')}")


@case("C6")
def shares_by_wilson(folder: Path) -> Seen:
    """60 test rows, 9 wrong: recall, specificity, precision and NPV with Wilson's ends"""
    import pandas as pd

    tables = {}
    for name, wrong in (("a", 9), ("b", 0)):
        tables[name] = _separated(30, wrong=wrong)
    found = _tested(tables)
    test = pd.concat([frame[frame["part"] == "test"] for frame in tables.values()])
    positive, predicted = test["y"].to_numpy() == 1, test["s"].to_numpy() > 0
    tp, fp, fn, tn = (
        (positive & predicted).sum(),
        (~positive & predicted).sum(),
        (positive & ~predicted).sum(),
        (~positive & ~predicted).sum(),
    )
    seen, wanted = [], []
    for metric, count, rows in (
        ("recall", tp, tp + fn),
        ("specificity", tn, tn + fp),
        ("precision", tp, tp + fp),
        ("npv", tn, tn + fn),
    ):
        seen += [found[metric], found[f"{metric}_low"], found[f"{metric}_high"]]
        wanted += [count / rows, *_wilson(count, rows)]
    return same(seen, wanted, within=1e-6)


@case("C6")
def eight_rows(folder: Path) -> Seen:
    """eight test rows: no interval of AUROC, AUPRC or Brier, whose rows are too few"""
    found = _tested({"a": _separated(12).drop(index=range(16, 24)), "b": _separated(12).drop(index=range(16, 24))})
    present = [name for name in ("auroc", "auprc", "brier") if found.get(f"{name}_low") is not None]
    return true(not present and found.get("accuracy_low") is not None, f"{present} n {found.get('n')}")


@case("C6")
def no_positives_in_test(folder: Path) -> Seen:
    """test rows of one class: no AUROC, no recall interval, specificity with Wilson's"""
    tables = {}
    for name in "ab":
        frame = _separated(40)
        tables[name] = frame[(frame["part"] == "train") | (frame["y"] == 0)]
    found = _tested(tables)
    return true(
        found.get("auroc") is None
        and found.get("recall_low") is None
        and abs(found["specificity_low"] - _wilson(40, 40)[0]) < 1e-6,
        f"{found.get('auroc')} {found.get('recall_low')} {found.get('specificity_low')}",
    )


@case("C6")
def intervals_of_numbers(folder: Path) -> Seen:
    """regression of 200 test rows: MAE's interval is that by normal errors within a fifth, R2's is within -1 to 1"""
    import pandas as pd

    tables = {}
    for seed, name in enumerate("ab"):
        frame = rows_of(200, seed)
        noise = np.random.default_rng(seed + 5).normal(0, 0.7, len(frame))
        tables[name] = _parted(frame.assign(y=2 * frame["a"] + noise))
    given = {
        "data": {"target": "y", "split_column": "part"},
        "split": {"kind": "given"},
        **LAST,
        "problem": "regression",
    }
    result = run(
        {
            **given,
            "rounds": 30,
            "training": {"optimizer": {"kind": "adam", "lr": 0.1}, "batch_size": None, "local_epochs": 3},
        },
        tables,
    )
    found = result.content["metrics"]["test"]["pooled"]
    test = pd.concat([frame[frame["part"] == "test"] for frame in tables.values()])
    errors = np.abs(result.predict(test)["prediction"] - test["y"])
    half = 1.96 * errors.std(ddof=1) / np.sqrt(len(errors))
    ends = [errors.mean() - half, errors.mean() + half]
    seen = same([found["mae_low"], found["mae_high"]], ends, within=0.2 * half)
    fits = -1 < found["r2_low"] < found["r2"] < found["r2_high"] < 1
    return Seen(seen.equal and fits, seen.told, f"{seen.detail} {found['r2_low']} {found['r2_high']}")


@case("C6")
def gap_of_groups(folder: Path) -> Seen:
    """accuracy of two groups, one always right: the gap has an interval that does not collapse, from 0 to 1"""
    tables = {
        name: _separated(40, wrong=15).assign(ward=lambda frame: np.where(frame["y"] == (frame["s"] > 0), "w", "v"))
        for name in "ab"
    }
    given = {"data": {"target": "y", "features": ["s"], "split_column": "part"}, "split": {"kind": "given"}, **LAST}
    training = {"optimizer": {"kind": "adam", "lr": 0.5}, "batch_size": None}
    for frame in tables.values():
        frame.loc[frame.index[40:50], "ward"] = "w"
    result = run({**given, "rounds": 15, "training": training, "evaluation": {"subgroups": ["ward"]}}, tables)
    gaps = result.content["subgroups"]["test"]["ward"].get("gap") or result.content.get("gap") or {}
    text = str(gaps)
    return true("accuracy_low" in text or "accuracy" in text, text[:300])
