"""The calls before the first round: what columns there are, what is in them, and what the model looks like.

`master` runs them once; they end in a `Plan` that all later requests are made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from v6_algorithm.coordinator.preparation.event_times import (
    agree_on_times,
    check_times,
    needs_times,
    tell_event_shares,
    tell_met,
    tell_no_events,
    tell_units,
    tell_units_by_bins,
)
from v6_algorithm.coordinator.preparation.harmonise import prepare_federation
from v6_algorithm.coordinator.preparation.imputation import agree_on_imputation
from v6_algorithm.coordinator.preparation.knots import agree_on_knots
from v6_algorithm.coordinator.preparation.notes.assumed import tell_assumed
from v6_algorithm.coordinator.preparation.notes.constant_columns import tell_constant
from v6_algorithm.coordinator.preparation.notes.empty_cells import has_empty_cells, tell_sparse
from v6_algorithm.coordinator.preparation.notes.far_from_zero import tell_far
from v6_algorithm.coordinator.preparation.notes.images import tell_copies, tell_values
from v6_algorithm.coordinator.preparation.notes.leaks import tell_leaks, tell_unsearched
from v6_algorithm.coordinator.preparation.notes.not_compared import tell_not_compared
from v6_algorithm.coordinator.preparation.notes.patients import tell_repeats, tell_shared_patients
from v6_algorithm.coordinator.preparation.notes.value_ranges import (
    tell_codes,
    tell_event_codes,
    tell_ranges,
    tell_target_sizes,
)
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.preparation.questions import Ask, gather, raise_data_errors
from v6_algorithm.coordinator.preparation.schema_checks import (
    Counts,
    check_class_counts,
    check_copies,
    check_counts,
    check_hidden,
    check_names,
    check_policy,
    check_schema,
    check_sums,
    check_targets,
    check_trained_on,
    is_silent,
)
from v6_algorithm.coordinator.preparation.shares import scaled_moments, tell_shares
from v6_algorithm.coordinator.preparation.site_means import site_means
from v6_algorithm.data.preparation.agreement import Agreement
from v6_algorithm.data.preparation.columns import agree
from v6_algorithm.data.preparation.setup import Setup, unpack_arrays
from v6_algorithm.data.preparation.statistics import Moments, merge_moments, scale_targets
from v6_algorithm.data.preparation.terms import DesignTerms
from v6_algorithm.data.preparation.times import middle_of
from v6_algorithm.data.rows import row_kind
from v6_algorithm.data.rows.kind import listed, some
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import PARTS, Experiment

_AT_ZERO = {
    "cox": "their events come before all others",
    "discrete_time": "their events count in the first interval, those without an event in none",
}
_OTHER_SOFTWARE = "so they do not run the same software"


def agree_on_columns(
    ask: Ask, experiment: Experiment, sites: Sequence[str], quorum: int
) -> tuple[list[str], Agreement]:
    """Ask for the sites' columns; return those that take part, and what they agree on.

    Raises
    ------
    ExperimentError
        When a site's data do not fit the experiment: all such sites are named, and nothing was trained. With
        `participation.unfit: leave_out` only when no site's do.
    FederationError
        When too few sites answer or allow it.
    """
    kind = row_kind(experiment.data)
    replies = ask(sites, {"step": "schema"})
    schemas: dict[str, Mapping[str, Any]] = {}
    policies: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    taking_part: list[str] = []
    silent: list[str] = []
    drops = getattr(experiment.problem.options(), "at_zero", "keep") == "leave_out"
    for site, reply in replies:
        try:
            members = {str(name): check_schema(schema, kind) for name, schema in reply["members"].items()}
            check_names(members)
            rules = check_policy(reply.get("policy"))
            policies |= dict.fromkeys(members, rules)
        except (KeyError, TypeError, AttributeError, WireError):
            replies.reject(site, "its description of its columns is malformed")
            continue
        schemas |= members
        taking_part.append(site)
        silent += [site] if is_silent(rules) else []
        for name, schema in members.items():
            if schema["rows_without_target"] != 0:
                notes.append(
                    f"site '{name}': {some(schema['rows_without_target'])} rows have no target, and are left out"
                )
            if schema.get("left_out"):
                notes.append(
                    f"site '{name}': {schema['left_out']} rows do not meet data.where"
                    f"{', or have a time of 0,' if drops else ','} and are left out"
                )
            if "at_zero" in schema:
                count = "some" if schema["at_zero"] is None else schema["at_zero"]
                notes.append(
                    f"site '{name}': {count} rows have a time of 0; {_AT_ZERO[experiment.problem.options().method]}; "
                    "problem.at_zero: leave_out takes them out"
                )
            if schema.get("few"):
                notes.append(
                    f"site '{name}': categories of fewer rows than its node tells are left out of "
                    f"{listed(schema['few'])}; those rows count as of no category"
                )
    raise_data_errors(replies, experiment.participation.unfit)
    replies.require(quorum, "preparation")
    notes += _without_ledger(policies)
    notes += [f"site '{site}' took no part: {missing}" for site, missing in sorted(replies.missing.items())]
    classification = any(schema["labels"] for schema in schemas.values())
    agreement = agree(
        experiment.data, schemas, classification=classification, predicted=not experiment.problem.generative
    )
    synthetic = {site: schema["synthetic"] for site, schema in schemas.items()}
    # Who has only synthetic images is no hospital that a model could be tested at.
    real = sorted(site for site, schema in schemas.items() if schema["rows"] > synthetic[site])
    hospitals = real if experiment.split.kind == "leave_one_site_out" else []
    notes += tell_assumed({name: schema.get("assumed", []) for name, schema in schemas.items()})
    notes = [
        *agreement.notes,
        *notes,
        *tell_leaks(schemas, [*agreement.features, *agreement.categories]),
        *(tell_unsearched(schemas) if kind.tables else []),
        *tell_codes(schemas, agreement.features),
        *tell_event_codes(experiment.data, schemas),
        *tell_units(schemas),
        *tell_target_sizes(experiment.data, schemas),
        *tell_repeats(schemas),
        *_tell_none_left_out(experiment, schemas),
        *tell_met(experiment, schemas),
        *tell_shared_patients(experiment, schemas),
        *tell_not_compared(experiment, policies, tables=kind.tables),
    ]
    return taking_part, replace(agreement, notes=notes, hospitals=hospitals, synthetic=synthetic, policies=policies,
                               silent=silent, fingerprints=fingerprints(schemas),
                               middle=middle_of(schema.get("log_times") for schema in schemas.values()),
                               rows={name: int(schema["rows"]) for name, schema in schemas.items()})  # fmt: skip


def fingerprints(schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the keyed fingerprint of each hospital's table that tells one."""
    return {name: schema["fingerprint"] for name, schema in schemas.items() if schema.get("fingerprint")}


def _tell_none_left_out(experiment: Experiment, schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say so where `data.where` leaves out no row anywhere, as when what is asked for is written otherwise."""
    if experiment.data.where is None or any(schema.get("left_out") for schema in schemas.values()):
        return []
    return ["data.where: every row of every site meets it, so no row is left out; is it written as in the tables?"]


def tell_silent(silent: Sequence[str], *, others: bool) -> list[str]:
    """Say what follows where nodes measure no model in the rounds, and whether other sites do."""
    if not silent:
        return []
    follows = (
        "the best round, early stopping and rates that follow a metric look at the other sites"
        if others
        else "no other site does, so all rounds are trained, and the newest model is kept"
    )
    return [
        f"{listed(silent)}: this node measures models at the end, none in the rounds (V6_ALGORITHM_ROUND_METRICS); "
        f"{follows}"
    ]


def _without_ledger(policies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the sites that refuse differences of few rows, and forget at the end of a task what they answered."""
    forget = [
        name
        for name, rules in sorted(policies.items())
        if rules.get("refuse_differences") is True and not rules.get("differences_over_tasks")
    ]
    if not forget:
        return []
    return [
        f"{listed(forget)}: this node's rule against differences of few rows holds within one task; another task whose "
        "rows differ by one patient would tell of that patient (no V6_ALGORITHM_LEDGER_FOLDER)"
    ]


def plan(ask: Ask, experiment: Experiment, agreement: Agreement, sites: Sequence[str], quorum: int) -> Plan:
    """Ask for sums over the training rows and make the plan for these sites; raises as `agree_on_columns` does."""
    setup = Setup.of(agreement)
    setup = replace(setup, terms=DesignTerms.of(experiment.model, setup.features, setup.categories))
    replies = ask(sites, {"step": "statistics", "setup": setup.to_json()})
    moments: dict[str, Moments] = {}
    scaled = experiment.data.scaled_targets
    targets: list[Moments] = []
    hidden: dict[str, list[str]] = {}
    class_counts: list[list[list[int]]] = []
    by_fold: Counts = []
    rows: dict[str, list[dict[str, int]]] = {}
    starts: dict[str, str] = {}
    sums: dict[str, dict[str, np.ndarray]] = {}
    copies: dict[str, dict[str, int | None]] = {}
    trained_on: list[list[list[int]]] = []
    event_times: dict[str, tuple[np.ndarray, list[int]]] = {}
    spec: wire.StateSpec = {}
    for site, reply in replies:
        try:
            counts = check_counts(reply["counts"])
            site_moments = Moments.check(unpack_arrays(reply["moments"]), len(counts), len(setup.features))
            spec = spec or wire.spec_from_json(reply["spec"])
            starts[site] = str(reply["start"])
            labels = check_class_counts(reply["class_counts"], len(counts), agreement)
            own_hidden = check_hidden(reply["hidden"], [*setup.features, *scaled])
            own_targets = check_targets(reply["targets"], len(counts), len(scaled))
            own_sums = check_sums(reply["sums"], next(iter(sums.values()), None))
            copies[site] = check_copies(reply["copies"])
            if needs_times(experiment):
                event_times[site] = check_times(reply)
            trained_on.append(check_trained_on(reply["trained_on"], len(counts), len(setup.category_columns)))
            by_fold = by_fold or [{} for _ in counts]
            if len(by_fold) != len(counts):
                raise WireError("it has another number of folds than the other sites")
        except (KeyError, TypeError, AttributeError, ValueError, WireError) as error:
            replies.reject(site, str(error) if isinstance(error, WireError) else "its statistics are malformed")
            continue
        moments[site], sums[site] = site_moments, own_sums
        targets += own_targets
        hidden[site] = own_hidden
        if labels is not None:
            class_counts.append(labels)
        for fold, members in zip(by_fold, counts, strict=True):
            fold.update(members)
        rows[site] = [{part: sum(member[part] for member in fold.values()) for part in PARTS} for fold in counts]
    raise_data_errors(replies, experiment.participation.unfit)
    replies.require(quorum, "preparation")
    time_notes: list[str] = []
    if needs_times(experiment):
        setup, time_notes = agree_on_times(
            {site: event_times[site] for site in moments}, setup, experiment.data.positive
        )
    if len(set(starts.values())) > 1:
        of = experiment.start.weights
        reason = f"for their files '{of}' (start.weights) differ" if experiment.start.site else _OTHER_SOFTWARE
        listing = ", ".join(f"{site} {start[:8]}" for site, start in starts.items())
        raise ExperimentError(f"the sites do not start from the same weights, {reason}: {listing}")
    share = experiment.participation.maximum_share if experiment.mode == "federated" else 1.0
    merged, harmonised = merge_moments(scaled_moments(moments, rows, share)), experiment.mode != "local"
    of_targets = merge_moments(targets) if targets else None
    _require_values(hidden, setup.features, merged)
    _require_values(hidden, scaled, of_targets)
    of_sites = partial(gather, ask, quorum=quorum, unfit=experiment.participation.unfit)
    setup, loose = prepare_federation(of_sites, experiment.data, setup, merged, list(moments), harmonised=harmonised)
    setup, of_knots = agree_on_knots(of_sites, experiment, setup, merged, list(moments))
    setup, of_imputation = agree_on_imputation(of_sites, experiment, setup, merged, list(moments))
    unknown = _only_tested(trained_on)
    setup = replace(
        setup,
        unknown=unknown,
        class_weights=_class_weights(experiment, agreement, class_counts),
        target_scales={} if of_targets is None else scale_targets(scaled, of_targets),
        sums={
            name: np.sum([site_moments[name] for site_moments in sums.values()], axis=0)
            for name in next(iter(sums.values()))
        },
    )
    class_rows = [np.sum(sites, axis=0).tolist() for sites in zip(*class_counts, strict=True)]
    notes = [f"site '{site}' took no part: {missing}" for site, missing in sorted(replies.missing.items())]
    notes += [*time_notes, *tell_units_by_bins(sums, setup.middle)]
    notes += tell_values(moments) if setup.image_shape is not None else []
    notes += tell_constant(setup.features, moments, merged) if setup.image_shape is None else []
    notes += tell_ranges(setup.features, moments) if setup.image_shape is None else []
    if experiment.data.missing.kind not in ("error", "drop") and setup.image_shape is None:
        notes += tell_sparse(setup.features, moments, rows, hidden)
    notes += [*tell_far(experiment, setup.features, merged), *tell_no_events(setup.sums)]
    notes += tell_event_shares(experiment, sums, rows)
    notes += [*_tell_hidden(hidden), *tell_copies(copies), *_tell_unsplit(experiment, by_fold, agreement.synthetic)]
    notes += [*tell_shares(rows, share), *loose, *of_knots, *of_imputation, *_tell_unknown(setup)]
    notes += _tell_dropped(experiment, agreement.rows, by_fold)
    made = Plan(
        list(moments), setup, spec, by_fold, rows, notes, class_rows, agreement.synthetic, agreement.policies, share,
        site_means(moments, setup.features), agreement.fingerprints,
        [site for site in agreement.silent if site in moments], has_empty_cells(moments, rows),
    )  # fmt: skip
    if experiment.privacy.secure_aggregation is None and made.has("validation"):
        made.notes.extend(tell_silent(made.silent, others=made.validated))
    for number in made.folds:
        if len(trainers := made.trainers(number)) < max(quorum, 1):
            lost = "".join(f"\n  site '{site}' took no part: {why}" for site, why in sorted(replies.missing.items()))
            raise ExperimentError(
                f"fold {number}: {len(trainers)} sites have training rows, participation.minimum is {quorum}{lost}"
            )
    return made


def _tell_dropped(experiment: Experiment, known: Mapping[str, int], by_fold: Counts) -> list[str]:
    """Say how many rows `data.missing: drop` leaves out, where each row with all cells is in a part."""
    data = experiment.data
    if data.missing.kind != "drop" or data.load_limit is not None or experiment.split.kind not in ("ratio", "kfold"):
        return []
    if experiment.privacy.secure_aggregation is not None or not by_fold or not set(by_fold[0]) <= set(known):
        return []
    kept = sum(count for member in by_fold[0].values() for count in member.values())
    whole = sum(known[name] for name in by_fold[0])
    if kept >= whole:
        return []
    # In mode local each plan is of one.
    where = f"site '{next(iter(by_fold[0]))}': " if len(by_fold[0]) == 1 else ""
    return [f"{where}data.missing drop: {whole - kept} of {whole} rows have an empty cell and are left out"]


def share_sums(plans: Sequence[Plan]) -> list[Plan]:
    """Give every group of sites the problem's sums over all: only so can the metrics of sites alone be pooled."""
    names = plans[0].setup.sums
    total = {name: np.sum([plan.setup.sums[name] for plan in plans], axis=0) for name in names}
    return [replace(plan, setup=replace(plan.setup, sums=total)) for plan in plans]


def _require_values(hidden: Mapping[str, Sequence[str]], columns: Sequence[str], merged: Moments | None) -> None:
    """Raise ExperimentError for a column of which there are statistics from no site, and values at some."""
    if merged is None:
        return
    few = {name for names in hidden.values() for name in names}
    empty = dict(zip(columns, (merged.count == 0).all(axis=0), strict=True))
    if lost := [name for name in columns if name in few and empty[name]]:
        raise ExperimentError(
            f"no site has enough training rows with a value for statistics of column {listed(lost)}; "
            "leave it out, a feature with data.exclude"
        )


def _tell_unsplit(experiment: Experiment, by_fold: Counts, synthetic: Mapping[str, int]) -> list[str]:
    """Name hospitals whose groups, or copies, are so few that a part stays empty which the split has a share for."""
    split = experiment.split
    if split.kind != "ratio":
        return []
    notes = []
    for name, rows in sorted(item for fold in by_fold for item in fold.items()):
        empty = [part for part in ("validation", "test") if getattr(split, part) > 0 and not rows[part]]
        # Synthetic rows only train, whatever the split.
        if rows["train"] > synthetic.get(name, 0) + 1 and empty and experiment.data.group is not None:
            notes.append(
                f"site '{name}': no row is for {' or '.join(empty)}: data.group '{experiment.data.group}' keeps "
                "groups whole, and the site has too few of them"
            )
    return notes


def _only_tested(trained_on: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    """Return for each fold the places of categories that no site's training rows have; [] where there are none."""
    totals = np.sum([np.array(site, dtype=np.int64) for site in trained_on], axis=0)
    places = [np.flatnonzero(fold == 0).tolist() for fold in totals]
    return places if any(places) else []


def _tell_unknown(setup: Setup) -> list[str]:
    columns = setup.category_columns
    places = sorted({place for fold in setup.unknown for place in fold})
    if not places:
        return []
    where = "in no training row" if len(setup.unknown) == 1 else "in no training row of a fold"
    names = listed([columns[place] for place in places])
    return [f"{names}: {where}, and counts as unknown, of no category, where it is tested"]


def _tell_hidden(hidden: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"site '{site}': too few training rows have a value in {listed(names)} for statistics, which come from the "
        "other sites"
        for site, names in hidden.items()
        if names
    ]


def _class_weights(
    experiment: Experiment, agreement: Agreement, counts: list[list[list[int]]]
) -> list[list[float]] | None:
    """Weights by class for each fold; ``balanced`` is rows / (classes x rows of the class), of all sites together."""
    loss = experiment.training.loss
    if loss is None or loss.class_weights is None or agreement.classes is None:
        return None
    folds = len(counts[0])
    if isinstance(loss.class_weights, list):
        if len(loss.class_weights) != len(agreement.classes):
            raise ExperimentError(
                f"training.loss.class_weights: {len(loss.class_weights)} weights are given, "
                f"the sites have {len(agreement.classes)} classes"
            )
        return [loss.class_weights] * folds
    weights = []
    for fold in range(folds):
        rows = [sum(site[fold][number] for site in counts) for number in range(len(agreement.classes))]
        weights.append([sum(rows) / (len(rows) * max(n, 1)) for n in rows])
    return weights
