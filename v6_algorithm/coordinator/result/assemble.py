"""The Result: from folds and their metric states to the plain JSON that DESIGN's contract names."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from v6_algorithm.coordinator.call_log import Caller
from v6_algorithm.coordinator.evaluation.sample_grid import gallery
from v6_algorithm.coordinator.evaluation.subgroups import gaps, merged_groups
from v6_algorithm.coordinator.inference.coefficients import inference
from v6_algorithm.coordinator.inference.meta_analysis import of_coefficients, of_metrics
from v6_algorithm.coordinator.inference.rubin import pooled_inference
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.result.averages import mean_of, round_scores, scores
from v6_algorithm.coordinator.result.diagnostics import diagnostics
from v6_algorithm.coordinator.result.notes import notes_of_result
from v6_algorithm.coordinator.result.privacy_report import notes as notes_of_privacy
from v6_algorithm.coordinator.result.privacy_report import section as privacy_section
from v6_algorithm.coordinator.result.privacy_report import with_epsilon
from v6_algorithm.coordinator.result.repeats import over_folds, repeats_in, repeats_of
from v6_algorithm.coordinator.rounds.folds import FoldProgress, States
from v6_algorithm.coordinator.run_context import RunContext
from v6_algorithm.data.preparation.times import horizons
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import PARTS, Experiment
from v6_algorithm.learning.metrics import compute, merge_states
from v6_algorithm.learning.metrics.intervals import over_repeats
from v6_algorithm.learning.problems import problem_class

SCHEMA = 1


def assemble(
    experiment: Experiment, runs: Sequence[RunContext], caller: Caller, *, notes: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Put the result together.

    Parameters
    ----------
    experiment
        As it was run.
    runs
        Each group of sites that trained together: one, but in mode ``local`` one a site.
    caller
        With the books of all calls.
    notes
        Sentences from the preparation.
    seconds
        Total time.
    """
    stopped = [run.stopped_because for run in runs if run.stopped_because]
    folds = [fold for run in runs for fold in run.folds]
    plans = [run.plan for run in runs]
    devices = {site: device for run in runs for site, device in sorted(run.check.devices.items())}
    crossed = any(len(plan.counts) > 1 for plan in plans)
    measured = _merged([fold.measured for fold in folds])
    personal = _merged([fold.personal for fold in folds])
    history = folds[0].columns() if len(folds) == 1 else _mean_history(folds)
    repeats = repeats_of(folds, experiment)
    metrics = {
        part: _scopes_of_repeats(repeats, part) | (over_folds(folds, part, plans, experiment) if crossed else {})
        for part in measured
    }
    group_sums = [run.subgroups for run in runs]
    subgroups = merged_groups(group_sums, experiment.evaluation, repeats_in(experiment))
    private = privacy_section(experiment, runs)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "name": experiment.name,
        "status": "stopped" if stopped else "completed",
        "stopped_because": "\n".join(stopped) or None,
        "experiment": experiment.resolved(),
        "sites": _sites(plans, _times_counted(experiment), tells_synthetic=experiment.data.synthetic is not None),
        "rounds_run": max(fold.rounds_done for fold in folds),
        "best_round": folds[0].kept_round if len(folds) == 1 else None,
        "history": history,
        "site_history": _site_history(folds),
        "metrics": metrics,
        "metrics_table": _table(metrics),
        **_diagnostics(measured, experiment, plans[0]),
        "subgroups": subgroups,
        "gap": gaps(subgroups, metrics),
        "folds": [_fold(fold, run.plan, experiment) for run in runs for fold in run.folds] if crossed else [],
        "participation": with_epsilon(caller.participation, runs) if private else caller.participation,
        "timing": {
            "total_s": round(seconds, 3),
            "finished": utc_now(),
            "sites": _phases(caller.timing),
            "rounds": caller.timing,
        },
        "devices": devices,
        "notes": [
            *notes,
            *notes_of_privacy(experiment, private),
            *dict.fromkeys(note for run in runs for note in run.all_notes),
            *notes_of_result(experiment, runs, measured, subgroups, metrics),
        ],
        "data": _data(plans),
        "preparation": plans[0].setup.readable(),
        **_network(experiment),
        "software": software(),
    }
    if personal:
        result["baselines"] = {"personal": {"metrics": {part: _scopes(states) for part, states in personal.items()}}}
    if len(runs) == 1 and (pictures := gallery(experiment, plans[0].setup, folds[0])):
        result["samples"] = pictures
    if len(runs) == 1 and len(folds) == 1:
        told_of_fit, notes_of_fit = inference(folds[0], plans[0], experiment)
        result |= told_of_fit
        result["notes"] += notes_of_fit
    elif len(runs) == 1 and experiment.data.missing.kind == "impute":
        told_of_fit, notes_of_fit = pooled_inference(folds, plans[0], experiment)
        result |= told_of_fit
        result["notes"] += notes_of_fit
    if experiment.mode == "local" and all(len(run.folds) == 1 for run in runs):
        _add_sites_fits(result, runs, experiment)
    if sample := of_metrics(metrics):
        result["meta_analysis"] = sample | result.get("meta_analysis", {})
    if private is not None:
        result["differential_privacy"] = private
    result["parameters"] = _parameters(runs, experiment, private)
    return result


def _add_sites_fits(result: dict[str, Any], runs: Sequence[RunContext], experiment: Experiment) -> None:
    """Put the coefficients of each site alone into the result, and their mean over sites as a sample."""
    by_site: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        site_fit, site_notes = inference(run.folds[0], run.plan, experiment)
        if site_fit:
            by_site[run.plan.sites[0]] = site_fit["coefficients"]
            result["notes"] += [f"site '{run.plan.sites[0]}': {note}" for note in site_notes]
    if by_site:
        result["site_coefficients"] = by_site
    categories = runs[0].plan.setup.categories
    references = {f"{name}={values[0]}": name for name, values in categories.items() if values}
    sample, sample_notes = of_coefficients(by_site, references)
    result["notes"] += sample_notes
    if sample:
        result["meta_analysis"] = {"coefficients": sample}


def _site_history(folds: Sequence[FoldProgress]) -> dict[str, dict[str, list[Any]]]:
    """List what was measured at each site, a column a metric, None where a round has none."""
    history: dict[str, dict[str, list[Any]]] = {}
    for site in sorted({site for fold in folds for site in fold.at_sites}):
        rounds = range(1, max(max(fold.at_sites.get(site, [0])) for fold in folds) + 1)
        rows = [
            round_scores(folds, number, "train", site) | round_scores(folds, number, "validation", site)
            for number in rounds
        ]
        names = dict.fromkeys(name for row in rows for name in row)
        history[site] = {"round": list(rounds), **{name: [row.get(name) for row in rows] for name in names}}
    return history


def _phases(calls: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Add up the seconds that each site spent on each phase, over all calls."""
    total: dict[str, dict[str, float]] = {}
    for call in calls:
        for site, phases in call["phases"].items():
            for phase, seconds in phases.items():
                seconds_by_phase = total.setdefault(site, {})
                seconds_by_phase[phase] = round(seconds_by_phase.get(phase, 0.0) + seconds, 4)
    return dict(sorted(total.items()))


def _merged(folds: Sequence[dict[str, States]]) -> dict[str, States]:
    """Merge the folds' states: part to hospital to state."""
    merged: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for fold in folds:
        for part, members in fold.items():
            for name, state in members.items():
                merged.setdefault(part, {}).setdefault(name, []).append(state)
    return {
        part: {name: merge_states(states) for name, states in sorted(members.items())}
        for part, members in merged.items()
        if members
    }


def _scopes(states: States) -> dict[str, Any]:
    sites = {name: compute(state) for name, state in states.items()}
    with_rows = [scores(metrics) for metrics in sites.values() if metrics.get("n")]
    return {"pooled": compute(merge_states(states.values())), "sites": sites, "mean_over_sites": mean_of(with_rows)}


def _scopes_of_repeats(repeats: Sequence[Sequence[FoldProgress]], part: str) -> dict[str, Any]:
    """Return the scopes of a part: over the repeats of a cross-validation the means, since patients are the same."""
    scopes = [_scopes(states) for folds in repeats if (states := _merged([fold.measured for fold in folds]).get(part))]
    if len(scopes) == 1:
        return scopes[0]
    sites = dict.fromkeys(site for scope in scopes for site in scope["sites"])
    return {
        "pooled": over_repeats([scope["pooled"] for scope in scopes]),
        "sites": {
            site: over_repeats([scope["sites"][site] for scope in scopes if site in scope["sites"]]) for site in sites
        },
        "mean_over_sites": mean_of([scope["mean_over_sites"] for scope in scopes]),
    }


def _diagnostics(measured: dict[str, States], experiment: Experiment, plan: Plan) -> dict[str, Any]:
    """Return `confusion`, `calibration` and `roc`, each by part; empty of problems without classes."""
    by_part = {part: diagnostics(states, experiment, plan.setup) for part, states in measured.items()}
    return {
        name: {part: shown[name] for part, shown in by_part.items() if name in shown}
        for name in ("confusion", "calibration", "roc", "decision", "risk", "auroc_over_time", "calibration_over_time")
    }


def _table(metrics: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the metrics as rows with the same keys: the form that vantage6's web interface draws as a table."""
    rows: list[dict[str, Any]] = []
    for part, scopes in metrics.items():
        rows.append({"part": part, "site": "all, pooled", **scopes["pooled"]})
        rows += [{"part": part, "site": name, **values} for name, values in scopes["sites"].items()]
        rows.append({"part": part, "site": "mean over sites", **scopes["mean_over_sites"]})
    hidden = ("_resolution", "_low", "_high")
    columns = [name for name in dict.fromkeys(key for row in rows for key in row) if not name.endswith(hidden)]
    return [{name: _shown(row.get(name)) for name in columns} for row in rows]


def _shown(value: Any) -> Any:
    """Cut a number to four digits, for a reader; `metrics` has all of them."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _times_counted(experiment: Experiment) -> int:
    """Return in how many of the folds a row is that it counts once in: repeats, or imputations."""
    missing = experiment.data.missing
    return missing.imputations if missing.kind == "impute" else repeats_in(experiment)


def _sites(plans: Sequence[Plan], repeats: int, *, tells_synthetic: bool) -> dict[str, Any]:
    """Count rows by hospital and part, and tell its node's rules; rows of a repeat's folds add up."""
    counts: dict[str, dict[str, int]] = {}
    for plan in plans:
        for fold in plan.counts:
            for name, parts in fold.items():
                part_counts = counts.setdefault(name, dict.fromkeys(PARTS, 0))
                for part in PARTS:
                    part_counts[part] += parts[part]
        for name in plan.counts[0]:
            counts[name] = {part: n // repeats for part, n in counts[name].items()}
            counts[name]["rows"] = sum(plan.counts[0][name].values())
            if tells_synthetic:
                counts[name]["synthetic"] = plan.synthetic.get(name, 0)
    policies = {name: part_counts for plan in plans for name, part_counts in plan.policies.items() if part_counts}
    prints = {name: text for plan in plans for name, text in plan.fingerprints.items()}
    return {
        name: {"n": n}
        | ({"policy": policies[name]} if name in policies else {})
        | ({"fingerprint": prints[name]} if name in prints else {})
        for name, n in sorted(counts.items())
    }


def _data(plans: Sequence[Plan]) -> dict[str, Any]:
    """Tell what training rows are like: means by site, and of the first fold the rows of each class, of all sites."""
    means = {site: described for plan in plans for site, described in plan.means.items()}
    classes = plans[0].setup.classes or []
    counts = [plan.class_rows[0] for plan in plans if plan.class_rows and len(plan.class_rows[0]) == len(classes)]
    totals = [sum(rows) for rows in zip(*counts, strict=True)]
    return {"means": means, "classes": {str(label): rows for label, rows in zip(classes, totals, strict=False)}}


def utc_now() -> str:
    """Return the date and time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fold(fold: FoldProgress, plan: Plan, experiment: Experiment) -> dict[str, Any]:
    about: dict[str, Any] = {"fold": fold.number}
    if experiment.split.kind == "kfold" and experiment.split.repeats > 1:
        about["repeat"] = fold.number // experiment.split.folds
    if plan.setup.hospitals:
        about["test_site"] = plan.setup.hospitals[fold.number]
    if experiment.mode == "local":
        about["site"] = plan.sites[0]
    return about | {
        "best_round": fold.kept_round,
        "rounds_run": fold.rounds_done,
        "sites": {name: {"n": parts} for name, parts in plan.counts[fold.number].items()},
        "history": fold.columns(),
        "metrics": {part: _scopes(states) for part, states in fold.measured.items() if states},
    }


def _network(experiment: Experiment) -> dict[str, str]:
    """Say where the network is a problem's own: `model` in the experiment is then not what was trained.

    A plug-in that makes use of `model` builds it with `build_model`.
    """
    problem = problem_class(experiment.problem.kind)
    build = problem.build_networks
    if build.__module__.startswith("v6_algorithm.") or "build_model" in build.__code__.co_names:
        return {}
    return {"network": f"{experiment.problem.kind}'s own"}


def _mean_history(folds: Sequence[FoldProgress]) -> dict[str, list[Any]]:
    """Average the histories, round by round, over the folds (or local models) that trained in it."""
    rounds = sorted({number for fold in folds for number in fold.history["round"]})
    means = {number: mean_of([fold.at(number) for fold in folds]) for number in rounds}
    for number, row in means.items():
        # Of a cost the mean over sites would hide the dearest.
        if costs := [cost for fold in folds if (cost := fold.at(number).get("epsilon")) is not None]:
            row["epsilon"] = max(costs)
    names = dict.fromkeys(name for row in means.values() for name in row)
    return {"round": list(means)} | {name: [row.get(name) for row in means.values()] for name in names}


def _parameters(
    runs: Sequence[RunContext], experiment: Experiment, private: dict[str, Any] | None = None
) -> str | None:
    """Pack the kept model with what is needed to use it, and what is told of its differential privacy.

    Several models go into one file: their tensors are named ``fold-0/model.…``, in mode local with the site's name
    in front, and so are the entries of `preparation` in the file's header.
    """
    tensors: dict[str, Any] = {}
    preparations: dict[str, Any] = {}
    for run in runs:
        plan = run.plan
        for fold in run.folds:
            if fold.kept is None:
                continue
            parts = [plan.sites[0]] if experiment.mode == "local" else []
            parts += [f"fold-{fold.number}"] if len(plan.counts) > 1 else []
            kept = wire.unpack(fold.kept, plan.spec)
            tensors |= {"/".join([*parts, name]): tensor for name, tensor in kept.items()}
            preparations["/".join(parts)] = plan.setup.readable(fold.number)
    if not tensors:
        return None
    about = {
        "name": experiment.name,
        "seed": experiment.seed,
        "split": experiment.split.model_dump(mode="json"),
        "problem": experiment.problem.kind,
        "model": experiment.model.model_dump(mode="json"),
        "data": experiment.data.model_dump(mode="json"),
        "preparation": preparations.get("", preparations),
        # What else says how a row is measured with it; see `central`.
        "experiment": experiment.model_dump(mode="json", include={"mode", "problem", "training", "evaluation"}),
    }
    if experiment.private is not None:
        about["private"] = experiment.private.model_dump(mode="json")
    if private is not None:
        about["differential_privacy"] = {key: value for key, value in private.items() if key != "sites"}
    if experiment.problem.generative:
        # How often images of each class are made where nobody says; see `generating`.
        about["shares"] = _shares(runs[0].plan)
    if experiment.problem.kind == "survival":
        about["horizons"] = _horizons(experiment, runs[0].plan)
    return wire.pack(tensors, {"v6_algorithm": json.dumps(about)})


def _shares(plan: Plan) -> list[float]:
    """Return each class's share of the training rows of all sites, to three digits, which tell of no few rows."""
    rows = plan.class_rows[0] if plan.class_rows else []
    return [round(n / max(sum(rows), 1), 3) for n in rows]


def _horizons(experiment: Experiment, plan: Plan) -> list[float]:
    """Return the ends of the intervals whose hazards a discrete-time model gives; none of Cox's."""
    options = experiment.problem.options()
    if options.method != "discrete_time":
        return []
    return horizons(options, plan.setup.sums["event_times"], plan.setup.middle)


def software() -> dict[str, str]:
    """Return the versions that a run depends on."""
    versions = {}
    for name in ("v6-algorithm", "torch", "numpy", "vantage6-algorithm-tools"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions | {"Python": platform.python_version()}
