"""A finished model tested across hospitals without training: what `run --test` and `submit --test` do.

The experiment of a test has `split: {kind: tested, models: [digest, …]}`: every row of every site is tested, and a
site's guard measures no other model than those. `master.run` comes here for it. Two kinds of call are made: the sites'
columns, then `RPC_evaluate` for each model; no sums over rows are asked for beyond what measures it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from v6_algorithm.coordinator.call_log import Caller, Event
from v6_algorithm.coordinator.evaluation.comparison import check_paired, comparison, placements
from v6_algorithm.coordinator.evaluation.recalibration import recalibrations
from v6_algorithm.coordinator.evaluation.returned_model import OF_TRAINING, WITHOUT, ReturnedModel, misfits
from v6_algorithm.coordinator.evaluation.subgroups import GroupSums, gaps, merged_groups
from v6_algorithm.coordinator.preparation.negotiate import fingerprints
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.preparation.questions import raise_data_errors
from v6_algorithm.coordinator.preparation.schema_checks import check_names, check_policy, check_schema
from v6_algorithm.coordinator.result.assemble import SCHEMA, software, utc_now
from v6_algorithm.coordinator.result.averages import mean_and_spread, mean_of, scores
from v6_algorithm.coordinator.result.diagnostics import diagnostics
from v6_algorithm.coordinator.rounds.initial_model import SAME_DATA
from v6_algorithm.coordinator.rounds.reply_checks import ReplyCheck
from v6_algorithm.data.rows import row_kind
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Federation
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.reading import value_to_yaml
from v6_algorithm.learning.metrics import checked_state, compute, merge_states
from v6_algorithm.learning.metrics.explanations import explain_part

_NOT_TRAINED = ("strategy", "stopping", "start", "personal", "tune", "central", "mode", "rounds", "seed")
_READING = ("group", "synthetic", "split_column", "load_limit")

States = dict[str, dict[str, Any]]


def experiment_of_test(experiment: Experiment, weights: str, where: str = "--test") -> Experiment:
    """Make the experiment that tests a model.

    Parameters
    ----------
    experiment
        Says where rows are and how they are read: `sites`, `data`, `participation`; of an `evaluation` the groups.
    weights
        The model's file, base64 safetensors; what it learns and how its inputs are prepared is in its header.
    where
        What to call it in messages.

    Returns
    -------
    Experiment
        With the model's problem, network and loss, no training, and the digests of its models in `split`.

    Raises
    ------
    ExperimentError
        When the model is none that can be tested elsewhere, or `data` mean something else than they did to it.
    """
    model = ReturnedModel.of(weights, where)
    model.check_measurable()
    if model.by_site:
        raise ExperimentError(
            f"{where}: a run of mode local has a model of each site and none to be tested at all sites"
        )
    if model.experiment.problem.generative:
        raise ExperimentError(
            f"{where}: a model of problem {model.experiment.problem.kind} makes rows; it is not tested"
        )
    if experiment.privacy.secure_aggregation is not None:
        raise ExperimentError(
            "privacy.secure_aggregation does not go with --test; metrics of a test are told by each site"
        )
    before, now = model.experiment.data.model_dump(mode="json"), experiment.data.model_dump(mode="json")
    for key in SAME_DATA:
        if before[key] != now[key]:
            raise ExperimentError(
                f"{where}: the model was trained with data.{key} {_written(before[key])}, this has {_written(now[key])}"
            )
    content = experiment.model_dump(mode="json", exclude_unset=True)
    content = {key: value for key, value in content.items() if key not in _NOT_TRAINED}
    content["data"] = {key: value for key, value in content["data"].items() if key not in WITHOUT or key == "where"}
    learned = model.experiment.model_dump(mode="json")
    content |= {"problem": learned["problem"], "model": learned["model"], "rounds": 1, "seed": learned["seed"]}
    content["training"] = {key: learned["training"][key] for key in OF_TRAINING}
    content.setdefault("evaluation", learned["evaluation"])
    content["split"] = {"kind": "tested", "models": [wire.digest(text) for text in model.tensors.values()]}
    return Experiment.parse(content, where, checked=True)


def two_models(first: str, second: str) -> str:
    """Return the files of two models as one text, which a task carries as it does one's: a line each."""
    return f"{first}\n{second}"


def models_of(weights: str) -> list[str]:
    """Return the files of the models of a task: one, or the two of `two_models`."""
    return weights.split("\n")


def experiment_of_comparison(experiment: Experiment, weights: str, where: Sequence[str]) -> Experiment:
    """Make the experiment that tests two models on the same rows; see `experiment_of_test`.

    Parameters
    ----------
    experiment
        As for `experiment_of_test`.
    weights
        What `two_models` made.
    where
        What to call the two in messages.
    """
    files = models_of(weights)
    each = [experiment_of_test(experiment, text, name) for text, name in zip(files, where, strict=True)]
    for tested, name in zip(each, where, strict=True):
        if tested.problem.kind != "classification":
            raise ExperimentError(
                f"{name}: a model of problem {tested.problem.kind}; two models are compared by DeLong's test, of "
                "problem classification with two classes"
            )
    models = [name for tested in each for name in tested.split.models]  # type: ignore[union-attr]
    if len(models) > 2:
        raise ExperimentError(
            f"{where[0]}, {where[1]}: one of them has several models, one a fold; a comparison is of one model each"
        )
    if len(set(models)) < 2:
        raise ExperimentError(f"{where[0]}, {where[1]}: the two models are the same")
    content = each[0].model_dump(mode="json", exclude_unset=True) | {"split": {"kind": "tested", "models": models}}
    return Experiment.parse(content, where[0], checked=True)


def as_test(experiment: Experiment, files: Sequence[str], where: Sequence[str]) -> tuple[Experiment, str]:
    """Return the experiment that tests a model, or compares two, and what its task carries of them.

    Parameters
    ----------
    experiment
        As for `experiment_of_test`.
    files
        The model files, in base64: one, or two.
    where
        What to call each in messages.
    """
    if len(files) == 1:
        return experiment_of_test(experiment, files[0], where[0]), files[0]
    weights = two_models(*files)
    return experiment_of_comparison(experiment, weights, where), weights


def experiment_of_second(experiment: Experiment, file: str) -> Experiment:
    """Return what sites are told of the second of two models, where `experiment` is of the first one."""
    content = experiment_of_test(experiment, file, "the second model").model_dump(mode="json", exclude_unset=True)
    same = experiment.model_dump(mode="json")
    content |= {key: same[key] for key in ("evaluation", "seed", "split")}
    return Experiment.parse(content, "the second model", checked=True)


def run_test(
    federation: Federation, experiment: Experiment, on_event: Callable[[Event], None], weights: str | None
) -> dict[str, Any]:
    """Test a model at all sites.

    Parameters
    ----------
    federation, on_event
        As for `master.run`.
    experiment
        What `experiment_of_test` made.
    weights
        The model.

    Returns
    -------
    dict
        A result with `metrics` of the part test alone: pooled, by site, mean over sites; of several models (folds)
        their mean, and `folds`. `recalibration` has intercept and slope by target, pooled and by site.

    Raises
    ------
    ExperimentError, FederationError
        When a site's table does not fit the model, or too few sites answered.
    """
    if weights is None:
        raise ExperimentError("split tested measures a finished model: v6-algorithm run FILE --test RUN, or submit")
    first, *others = models_of(weights)
    model = ReturnedModel.of(first, "the model")
    second = ReturnedModel.of(others[0], "the second model") if others else None
    digests = [wire.digest(text) for given in (model, second) if given is not None for text in given.tensors.values()]
    if digests != experiment.split.models:  # type: ignore[union-attr]
        raise ExperimentError("split.models: names other models than the one that is to be tested")
    began = time.perf_counter()
    caller = Caller(federation, experiment, on_event)
    notes: list[str] = []
    models = [model] if second is None else [model, second]
    schemas, policies = _columns(caller, experiment, models, [site.name for site in federation.sites()], notes)
    members = {name: site for site, of_site in schemas.items() for name in of_site}
    counts = {
        name: {"train": 0, "validation": 0, "test": schema["rows"]}
        for of_site in schemas.values()
        for name, schema in of_site.items()
    }
    on_event({"event": "prepared", "sites": sorted(schemas), "rounds": 1})
    states: dict[str, States] = {}
    groups: list[GroupSums] = []
    check: ReplyCheck | None = None
    for name, setup in model.setups.items():
        rows = {site: [{"train": 0, "validation": 0, "test": sum(counts[m]["test"] for m in of_site)}]
                for site, of_site in schemas.items()}  # fmt: skip
        setup = replace(setup, hospitals=[])
        check = ReplyCheck(Plan(sorted(schemas), setup, {}, [counts], rows), {})
        groups.append(GroupSums(experiment.evaluation))
        compared = None if second is None else _Second.of(experiment, second, others[0], sorted(counts))
        states[name] = _measure(caller, experiment, check, model.tensors[name], setup.to_json(), groups[-1], compared)
    on_event({"event": "tested"})
    caller.close_books()
    result = _result(experiment, model, states, groups, policies)
    if compared is not None:
        scopes = {"pooled": compute(merge_states(compared.states.values())),
                  "sites": {name: compute(state) for name, state in sorted(compared.states.items())}}  # fmt: skip
        paired, notes_of_pair = comparison(states[""], compared.states, compared.sums, experiment.seed)
        result["comparison"] = {"test": paired | {"metrics": scopes}}
        result["notes"] += notes_of_pair
    prints = fingerprints({name: schema for of_site in schemas.values() for name, schema in of_site.items()})
    result["sites"] = {
        name: {"n": n | {"rows": n["test"]}}
        | ({"policy": policies[name]} if policies.get(name) else {})
        | ({"fingerprint": prints[name]} if name in prints else {})
        for name, n in sorted(counts.items())
        if any(name in measured for measured in states.values())
    }
    lost = sorted({members[name] for name in counts} - {members[name] for name in result["sites"]})
    result["notes"] = [*notes, *(f"site '{name}' was not tested" for name in lost), *result["notes"]]
    result |= {
        "participation": caller.participation,
        "timing": {
            "total_s": round(time.perf_counter() - began, 3),
            "finished": utc_now(),
            "sites": {},
            "rounds": caller.timing,
        },
        "devices": check.devices if check else {},
        "software": software(),
    }
    return result


def _columns(
    caller: Caller, experiment: Experiment, models: Sequence[ReturnedModel], sites: Sequence[str], notes: list[str]
) -> tuple[dict[str, dict[str, Mapping[str, Any]]], dict[str, dict[str, Any]]]:
    """Ask for the sites' columns; return by site its hospitals' descriptions, and each hospital's rules."""
    kind, setups = row_kind(experiment.data), [next(iter(model.setups.values())) for model in models]
    replies = caller.prepare(sites, {"step": "schema"})
    schemas: dict[str, dict[str, Mapping[str, Any]]] = {}
    policies: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for site, reply in replies:
        try:
            of_site = {str(name): check_schema(schema, kind) for name, schema in reply["members"].items()}
            check_names(of_site)
            rules = check_policy(reply.get("policy"))
        except (KeyError, TypeError, AttributeError, WireError):
            replies.reject(site, "its description of its columns is malformed")
            continue
        told = [misfits(schema, experiment, setup, name) for setup in setups for name, schema in of_site.items()]
        if problems := [text for problems, _ in told for text in problems]:
            wrong += dict.fromkeys(problems)
            continue
        notes += dict.fromkeys(text for _, remarks in told for text in remarks)
        for name, schema in of_site.items():
            if schema.get("left_out"):
                notes.append(f"site '{name}': {schema['left_out']} rows do not meet data.where, and are left out")
        schemas[site] = of_site
        policies |= dict.fromkeys(of_site, rules)
    raise_data_errors(replies, experiment.participation.unfit)
    if wrong and (experiment.participation.unfit == "stop" or not schemas):
        raise ExperimentError("\n".join(wrong))
    notes += [f"left out: {text}" for text in wrong]
    notes += [f"site '{site}' took no part: {missing}" for site, missing in sorted(replies.missing.items())]
    replies.require(experiment.participation.minimum, "preparation")
    return schemas, policies


def _measure(
    caller: Caller,
    experiment: Experiment,
    check: ReplyCheck,
    parameters: str,
    setup: dict[str, Any],
    groups: GroupSums,
    compared: _Second | None = None,
) -> States:
    """Let the sites measure one model, and another on the same rows; return each hospital's sums."""
    item: dict[str, Any] = {"fold": 0, "parameters": parameters, "evaluate": ["test"], "train": False}
    if compared is not None:
        item["against"] = compared.question
    if experiment.evaluation.subgroups:
        item["subgroups"] = ["test"]
        groups.asked = True
    replies = caller.call("RPC_evaluate", 1, {site: {"setup": setup, "folds": [item]} for site in check.plan.sites})
    states: States = {}
    for site, reply in replies:
        answered = check.items(replies, site, reply, [item])
        for answer in answered:
            try:
                of_second = {} if compared is None else compared.take(answer["compared"])
            except (WireError, ValueError, KeyError, TypeError, AttributeError):
                replies.reject(site, "what it tells of the second model is malformed")
                continue
            states |= answer["metrics"]["test"]
            if compared is not None:
                compared.states |= of_second
        if answered and "subgroups" in item:
            check.groups(replies, site, reply, [item], groups)
    replies.require(experiment.participation.minimum, "evaluation")
    states = dict(sorted(states.items()))
    if compared is not None:
        _pair(caller, experiment, check, item, setup, states, compared)
    return states


@dataclass
class _Second:
    """The model that another is compared with, and what the sites told of it."""

    question: dict[str, Any]
    hospitals: list[str]
    states: States = field(default_factory=dict)
    sums: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, model: ReturnedModel, file: str, hospitals: list[str]) -> _Second:
        """Return it before anything is asked."""
        (setup,), (tensors,) = model.setups.values(), model.tensors.values()
        told = experiment_of_second(experiment, file).for_sites()
        prepared = replace(setup, hospitals=[]).to_json()
        return cls({"experiment": told, "setup": prepared, "parameters": tensors, "placements": None}, hospitals)

    def take(self, told: Mapping[str, Any]) -> States:
        """Check a site's states of it."""
        if not set(told) <= set(self.hospitals):
            raise WireError("it measured a hospital that is not known")
        return {name: checked_state(state) for name, state in told.items()}


def _pair(
    caller: Caller,
    experiment: Experiment,
    check: ReplyCheck,
    item: dict[str, Any],
    setup: dict[str, Any],
    states: States,
    compared: _Second,
) -> None:
    """Ask for sums of both models' placements, which are over the same rows."""
    both = merge_states(states.values()), merge_states(compared.states.values())
    if both[0]["n_classes"] != 2 or both[1]["n_classes"] != 2:
        raise ExperimentError("two models are compared by DeLong's test, of two classes; these have more")
    against = compared.question | {"placements": placements(*both)}
    asked = {key: value for key, value in item.items() if key != "subgroups"} | {"evaluate": [], "against": against}
    requests = {site: {"setup": setup, "folds": [asked]} for site in check.plan.sites}
    replies = caller.call("RPC_evaluate", 1, requests)
    for site, reply in replies:
        for answer in check.items(replies, site, reply, [asked]):
            try:
                compared.sums |= check_paired(answer["paired"], compared.hospitals)
            except (WireError, KeyError, TypeError, AttributeError) as error:
                replies.reject(site, str(error) if isinstance(error, WireError) else "malformed reply")
    replies.require(experiment.participation.minimum, "comparison")


def _result(
    experiment: Experiment,
    model: ReturnedModel,
    states: Mapping[str, States],
    groups: Sequence[GroupSums],
    policies: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    scopes = {name: _scopes(of_model) for name, of_model in states.items()}
    (first_name, first), *others = states.items()
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "name": experiment.name,
        "status": "tested",
        "stopped_because": None,
        "experiment": experiment.resolved(),
        "rounds_run": 0,
        "best_round": None,
        "history": {"round": []},
        "site_history": {},
        "metrics": {"test": scopes[first_name] if not others else _mean_of_models(scopes)},
        "folds": [],
        "notes": explain_part("test", None, first),
        "preparation": next(iter(model.setups.values())).readable(),
        "parameters": None,
    }
    if others:
        result["folds"] = [
            {"fold": number, "history": {"round": []}, "metrics": {"test": scopes[name]}, "sites": {}}
            for number, name in enumerate(scopes)
        ]
        result["notes"].append(
            f"the run has {len(scopes)} models, one a fold: each was tested on all rows; means are told"
        )
    else:
        setup = next(iter(model.setups.values()))
        shown = diagnostics(first, experiment, setup)
        result |= {name: {"test": content} for name, content in shown.items()}
        if fits := recalibrations(first, str(experiment.data.target)):
            result["recalibration"] = {"test": fits}
            joined = sorted(name for name, rules in policies.items() if rules.get("coarse_histograms"))
            if joined:
                result["notes"].append(
                    f"recalibration: the nodes of {', '.join(joined)} join score bins of few rows (coarse_histograms), "
                    "so that it is near, not equal to, the fit on single rows"
                )
        subgroups = merged_groups(groups, experiment.evaluation)
        result |= {"subgroups": subgroups, "gap": gaps(subgroups, result["metrics"])}
    return result


def _scopes(states: States) -> dict[str, Any]:
    sites = {name: compute(state) for name, state in states.items()}
    with_rows = [scores(metrics) for metrics in sites.values() if metrics.get("n")]
    return {"pooled": compute(merge_states(states.values())), "sites": sites, "mean_over_sites": mean_of(with_rows)}


def _mean_of_models(scopes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the mean over models of each scope: they were tested on the same rows, so that rows do not add up."""
    listed = list(scopes.values())
    names = dict.fromkeys(name for scope in listed for name in scope["sites"])
    whole = [scores(scope["pooled"]) for scope in listed]
    return {
        "pooled": {"n": listed[0]["pooled"]["n"]} | mean_of(whole),
        "sites": {
            name: {"n": listed[0]["sites"].get(name, {}).get("n")}
            | mean_of([scores(scope["sites"][name]) for scope in listed if name in scope["sites"]])
            for name in names
        },
        "mean_over_sites": mean_of([scores(scope["mean_over_sites"]) for scope in listed]),
    } | mean_and_spread(whole)


def _written(value: Any) -> str:
    """Write a value of an experiment for a message: a section in one line of YAML, without keys that say nothing."""
    if not isinstance(value, dict):
        return repr(value)
    return value_to_yaml({key: item for key, item in value.items() if item not in (None, [], {})})
