"""Fresh inputs of C1, C3 and B6: published survival sets, dealt to hospitals, against lifelines on the pooled rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from paper_outcomes import Kind, Outcome, apart, hospitals

import v6_algorithm.api as v6


def survival_sets() -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield published survival sets: columns that are numbers, `time` and `event`."""
    from lifelines import datasets

    columns = {
        "rossi": ("week", "arrest"), "gbsg2": ("time", "cens"), "larynx": ("time", "death"),
        "kidney_transplant": ("time", "death"), "lung": ("time", "status"), "regression_dataset": ("T", "E"),
        "lymph_node": ("survtime", "censdead"), "waltons": ("T", "E"),
    }  # fmt: skip
    for name, (time, event) in columns.items():
        frame = getattr(datasets, f"load_{name}")().rename(columns={time: "time", event: "event"})
        if name == "waltons":
            frame["group"] = (frame["group"] == "control") * 1.0
        frame = frame.select_dtypes("number").drop(
            columns=["id", "rectime", "censrec", "diagdateb", "recdate", "deathdate", "inst"], errors="ignore"
        )
        frame = frame.dropna().astype(float).rename(columns=lambda column: column.replace(".", "_"))
        frame = frame[frame["time"] > 0].reset_index(drop=True)
        if frame["event"].max() > 1:
            frame["event"] -= 1
        yield name, frame.astype({"event": int}).sample(min(len(frame), 700), random_state=0)


def discrete_time(generator: np.random.Generator) -> Iterator[Outcome]:
    """The most likely hazards of a model without columns give Kaplan-Meier's curve where times end intervals."""
    from lifelines import KaplanMeierFitter

    from v6_algorithm.data.preparation import Setup, times
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.learning.problems import create_problem

    for name, frame in survival_sets():
        for parts in (3, 5, 8):
            ends = np.unique(np.quantile(frame["time"], np.arange(1, parts) / parts))
            place = np.searchsorted(ends, frame["time"])
            time = np.append(ends, ends[-1] * 1.5)[place]
            content = {
                "data": {"target": {"duration": "time", "event": "event"}},
                "problem": {"kind": "survival", "method": "discrete_time", "intervals": ends.tolist()},
            }
            setup = Setup(["x"], {}, None, sums={"event_times": times.count_times(time)})
            problem = create_problem(Experiment.parse(content), setup)
            logits = torch.zeros(len(ends) + 1, dtype=torch.float64, requires_grad=True)
            target = torch.tensor(np.column_stack([time, frame["event"]]))
            optimiser = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

            def loss(logits=logits, target=target, problem=problem, optimiser=optimiser) -> torch.Tensor:  # type: ignore[no-untyped-def]
                optimiser.zero_grad()
                total = problem.row_loss(logits.expand(len(target), -1), target, 0).mean()
                total.backward()
                return total

            optimiser.step(loss)
            curve = problem.prediction(logits.detach()[None])[0, 1:].numpy()
            wanted = KaplanMeierFitter().fit(time, frame["event"]).survival_function_at_times(ends).to_numpy()
            yield f"{name}, {parts} intervals", apart(curve, wanted, 1e-4)


def cox(generator: np.random.Generator) -> Iterator[Outcome]:
    """Coefficients, errors and predicted survival of `model: cox` are lifelines' of the pooled rows."""
    from lifelines import CoxPHFitter

    for name, frame in survival_sets():
        # A node with fewer than ten rows takes no part.
        sites = {site: rows for site, rows in hospitals(frame, generator).items() if len(rows) >= 10}
        pooled = pd.concat([rows.assign(site=site) for site, rows in sites.items()], ignore_index=True)
        new = pooled.drop(columns=["time", "event", "site"]).head(25)
        for strata in ("none", "site"):
            content = {
                "data": {"target": {"duration": "time", "event": "event"}, "missing": "error"},
                "problem": "survival",
                "model": {"kind": "cox", "strata": strata},
            }
            result = v6.run(content, sites)
            fit = CoxPHFitter().fit(
                pooled if strata == "site" else pooled.drop(columns="site"),
                "time",
                "event",
                strata=["site"] if strata == "site" else None,
                fit_options={"precision": 1e-10, "step_size": 0.5},
            )
            lines = result.coefficients.loc[fit.params_.index]
            yield (
                f"{name}, strata {strata}, coefficients",
                apart(lines["estimate"] / fit.standard_errors_, fit.params_ / fit.standard_errors_, 1e-5),
            )
            yield f"{name}, strata {strata}, errors", apart(lines["standard_error"] / fit.standard_errors_, 1, 1e-5)
            yield from predicted(f"{name}, strata {strata}", result, fit, new, pooled)


def predicted(name: str, result: Any, fit: Any, new: pd.DataFrame, pooled: pd.DataFrame) -> Iterator[Outcome]:
    """Survival of new rows: of one baseline Efron's steps, of a site's constant hazards between the times."""
    own = sorted(result.content["preparation"].get("baseline", {}).get("sites", {}))
    for site in own or [None]:
        rows = pooled if site is None else pooled[pooled["site"] == site]
        found = result.predict(new, site)
        curves = [column for column in found if column.startswith("survival(")]
        what = f"{name}, survival{f' at {site}' if site else ''}"
        if not curves:
            yield what, "none is predicted"
            continue
        risk = np.exp(rows[fit.params_.index].to_numpy() @ fit.params_.to_numpy())
        hazard = efron_hazard(rows["time"].to_numpy(), rows["event"].to_numpy(), risk)
        at = np.array([hazard[hazard["time"] <= float(curve[9:-1])]["step"].sum() for curve in curves])
        wanted = np.exp(-np.outer(np.exp(new[fit.params_.index].to_numpy() @ fit.params_.to_numpy()), at))
        yield what, apart(found[curves], wanted, 1e-4 if site is None else 0.06)


def efron_hazard(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> pd.DataFrame:
    """Return Efron's steps of the baseline hazard, by event time."""
    steps = []
    for moment in np.unique(time[event == 1]):
        tied = risk[(time == moment) & (event == 1)]
        shares = np.arange(len(tied)) / len(tied)
        steps.append((moment, (1 / (risk[time >= moment].sum() - shares * tied.sum())).sum()))
    return pd.DataFrame(steps, columns=["time", "step"])


def units(generator: np.random.Generator) -> Iterator[Outcome]:
    """The same data in another unit of time have the same metrics and baseline."""
    from lifelines.datasets import load_gbsg2

    frame = load_gbsg2()[["time", "cens", "age", "tsize", "pnodes"]].astype(float)
    sites = hospitals(frame, generator)
    for method in ("cox", "discrete_time"):
        results = {}
        for unit, factor in (("days", 1.0), ("ms", 86_400_000.0), ("years", 1 / 365.25), ("femto", 1e-15)):
            content = {
                "data": {"target": {"duration": "time", "event": "cens"}},
                "problem": {"kind": "survival", "method": method},
                "model": "linear",
                "rounds": 4,
                "training": {"batch_size": None, "optimizer": {"kind": "sgd", "lr": 0.1}},
            }
            scaled = {site: rows.assign(time=rows["time"] * factor) for site, rows in sites.items()}
            content = v6.run(content, scaled).content
            pooled = content["metrics"]["test"]["pooled"]
            hazard = content["preparation"].get("baseline", {}).get("cumulative_hazard", [])
            results[unit] = [pooled["c_index"], pooled["brier"], *hazard]
            if unit != "days":
                yield f"units, {method}, {unit}", apart(results[unit], results["days"], 1e-6)


KINDS: dict[str, Kind] = {
    "survival": ("C1", "lifelines: Kaplan-Meier at the intervals' ends, published sets", discrete_time),
    "cox": ("C3", "lifelines: coefficients, errors, survival of new rows, published sets", cox),
    "units": ("B6", "the same data in other units of time", units),
}
