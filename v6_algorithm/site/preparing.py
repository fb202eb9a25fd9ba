"""The answers before training: what the table holds, and the sums by which sites agree on how to prepare it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from v6_algorithm.data.description.table_columns import TableColumns
from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import PolicyError, SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Cox
from v6_algorithm.site import secure_aggregation
from v6_algorithm.site.guard.order import digest
from v6_algorithm.site.private_update import check_shared_noise
from v6_algorithm.site.secure_aggregation import hide_schema
from v6_algorithm.site.state.memory import remembered
from v6_algorithm.site.state.private_layers import shared_and_own
from v6_algorithm.site.table_facts import table_facts
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.problems.base import Networks, Problem

# Numbers of a model that sites of one process build once.
_MOST_SHARED = 1_000_000


def summary(work: Work) -> dict[str, Any]:
    """Describe the site's table; the node's columns, rows and cells rules hold for every step."""
    from v6_algorithm.data.missing_values import without_codes
    from v6_algorithm.data.preparation.setup import unpack_arrays
    from v6_algorithm.data.summary import table

    features = [str(name) for name in work.request.get("features") or []]
    work.policy.check_columns(features)
    # All of its digits, and not only what training takes of them.
    if work.site not in work.sources:
        raise WireError("a description is of one hospital's table, and the request names a site that is not here")
    frame = work.sources[work.site].read(work.policy.allows)
    work.policy.check_rows(len(frame))
    smallest = work.policy.minimum_cell
    codes, form = work.experiment.data.missing_values, work.sources[work.site].form
    frame = work.where(without_codes(frame, codes, smallest=smallest, form=form))
    work.policy.check_rows(len(frame))
    work.guard.check_features(features, len(frame))
    step = work.request.get("step")
    if step == "groups":
        return _groups(work, frame, features)
    work.guard.account_frame(frame, features)
    if step == "columns":
        more = work.kind.summarise(work.sources[work.site], smallest)
        assumed = work.assumed(work.sources[work.site])
        more |= {"assumed": assumed} if assumed else {}
        return table.columns(frame, work.experiment.data, smallest, work.targets) | more
    if step == "moments":
        return table.moments(frame, features, smallest)
    if step == "shape":
        asked = unpack_arrays(work.request.get("asked"))
        return table.shape(frame, features, smallest, asked, products=bool(work.request.get("products")))
    raise WireError(f"step {step!r} is not known; allowed: columns, moments, shape, groups")


def _groups(work: Work, frame: pd.DataFrame, features: list[str]) -> dict[str, Any]:
    """Describe the table by the groups of `evaluation.by`."""
    from v6_algorithm.data.summary.groups import by_group, group_names
    from v6_algorithm.experiment.evaluation import SITE

    by = work.experiment.evaluation.by
    if by is None:
        raise WireError("groups are asked for without evaluation.by")
    if by != SITE:
        work.policy.check_columns([by])
    names = group_names(frame, by)
    work.guard.account_frame(frame, features, names)
    columns = [name for name in features if name != by]
    data = work.experiment.data
    kept = data.model_copy(update={"categorical": [name for name in data.categorical if name != by]})
    smallest = work.policy.minimum_cell
    return by_group(frame, names, columns, kept, work.targets, smallest, work.guard.time_cell(0))


def prepare(work: Work) -> dict[str, Any]:
    """Take one step of the preparation, the one that the request names."""
    steps = {
        "preflight": _preflight,
        "schema": _schema,
        "statistics": _statistics,
        "quantiles": _quantiles,
        "harmonisation": _harmonisation,
        "imputation": _imputation,
        "moments": _moments,
        secure_aggregation.KEYS: secure_aggregation.answer_keys,
        secure_aggregation.UNMASK: secure_aggregation.open_sum,
    }
    step = work.request.get("step")
    if step not in steps:
        raise WireError(f"step {step!r} is not known; allowed: {', '.join(steps)}")
    return steps[step](work)


def _preflight(work: Work) -> dict[str, Any]:
    from v6_algorithm.site.preflight import preflight

    return preflight(work)


def _schema(work: Work) -> dict[str, Any]:
    from v6_algorithm.data.description.describe import describe
    from v6_algorithm.data.subgroups import encode_groups
    from v6_algorithm.data.synthetic import synthetic_rows
    from v6_algorithm.data.targets import rows_at_zero, rows_of_labels

    members = {}
    for name, source in work.sources.items():
        try:
            frame = work.read(source, work.policy.allows, keep=True)
            columns = TableColumns(frame)
            schema = describe(frame, work.experiment.data, work.targets, columns)
            measured = not synthetic_rows(frame, work.experiment.data).all()
            # So that what makes no groups is told now.
            encode_groups(frame, work.experiment.evaluation.subgroups, measured=measured)
            # What occurs has one row.
            counted = rows_of_labels(frame, work.targets) if work.policy.minimum_label_rows > 1 else {}
            work.guard.check_labels(frame, schema, counted)
            if work.left_out:
                schema["left_out"] = work.left_out
            schema["rows_without_target"] = work.policy.disclosed(schema["rows_without_target"])
            schema |= table_facts(work, columns, schema, sizes=not _counts_around_one(work))
            if at_zero := int(rows_at_zero(frame, work.targets).sum()):
                schema["at_zero"] = work.policy.disclosed(at_zero)
            if (logs := _log_times(work, frame)) is not None:
                schema["log_times"] = logs
            if (hashes := _group_hashes(work, frame)) is not None:
                schema["groups"] = hashes
            if (secret := work.policy.node_secret) and (fingerprint := source.keyed_fingerprint(secret.encode())):
                schema["fingerprint"] = fingerprint
            schema |= {"image": None} | work.kind.describe_files(source, work.shelf, work.policy.disclosed)
            if assumed := work.assumed(source):
                schema["assumed"] = assumed
            work.check_rows(schema["rows"], schema["synthetic"])
        except SiteError as error:
            # In a centralised run the site is not the hospital whose table is wrong.
            raise error if name == work.site else SiteError(f"{name}: {error}", error.kind) from None
        members[name] = schema if work.experiment.privacy.secure_aggregation is None else hide_schema(schema)
    return {"members": members}


def _event_times(work: Work, problem: Problem, table: TableData) -> dict[str, Any]:
    """Tell when the events of the training rows are, in cells of several where this node's rules say so.

    Of a Cox model with one baseline for all sites; of other models nothing.
    """
    from v6_algorithm.data.preparation.setup import pack_arrays
    from v6_algorithm.learning.problems.survival import Survival

    model = work.experiment.model
    if not isinstance(problem, Survival) or not isinstance(model, Cox) or model.strata != "none":
        return {}
    problem.time_cell = work.guard.time_cell(problem.sums_of_squares)
    return {
        "event_times": pack_arrays({"times": problem.event_times(table)}),
        "cell": list(problem.time_cell or (1, 1)),
    }


def _log_times(work: Work, frame: pd.DataFrame) -> tuple[int, float] | None:
    """Return how many events are seen, and the mean logarithm of their times, around which all sites' are counted.

    None where this node's times are counted around 1 only; 0 events where they are fewer than a cell has.
    """
    from v6_algorithm.data.preparation.times import log_times
    from v6_algorithm.data.targets import event_times

    if work.experiment.problem.kind != "survival" or _counts_around_one(work):
        return None
    logs = log_times(event_times(frame, work.targets))
    return (0, 0.0) if logs[0] < max(work.policy.minimum_cell, 1) else logs


def _counts_around_one(work: Work) -> bool:
    """Say whether the bins of this node's event times stand still: a middle that moves them could isolate a time."""
    policy, privacy = work.policy, work.experiment.privacy
    careful = policy.secret_folds or policy.refuse_differences or policy.coarse_histograms
    return careful or privacy.secure_aggregation is not None or privacy.differential_privacy is not None


def _group_hashes(work: Work, frame: pd.DataFrame) -> dict[str, Any] | None:
    """Return hashes of the groups, by which the coordinator sees that a patient stands at two sites."""
    from v6_algorithm.data.description.patients import hash_groups

    group, policy = work.experiment.data.group, work.policy
    hides = work.experiment.privacy.secure_aggregation is not None
    if group is None or group not in frame.columns or not policy.patient_hashes or hides:
        return None
    keyed = policy.aggregation_secret is not None
    key = policy.aggregation_secret or digest(work.experiment.for_sites())
    return {"keyed": keyed, "hashes": hash_groups(frame[group], key.encode())}


def _trained_on(table: TableData) -> list[list[int]]:
    """Say of each category whether any training row has it, 1 or 0, for each fold."""
    return [(table.one_hot[fold.train] > 0).any(axis=0).astype(int).tolist() for fold in table.folds]


def _copies(work: Work, table: TableData) -> dict[str, Any] | None:
    """Tell how many images are exact copies of others here, and how many of them a given split has in several parts."""
    from v6_algorithm.data.imaging.copies import count_apart

    if table.images is None:
        return None
    rows = sum(len(stack.copies) for stack in table.images.stacks)
    apart = count_apart(table.folds, table.images.identities, table.member) if rows else 0
    return {"rows": work.policy.disclosed(rows), "apart": work.policy.disclosed(apart)}


def _statistics(work: Work) -> dict[str, Any]:
    from v6_algorithm.data.preparation import needs_range
    from v6_algorithm.data.preparation.setup import pack_arrays
    from v6_algorithm.learning.problems import create_problem
    from v6_algorithm.learning.problems.trial import try_outputs
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.objectives import head_of
    from v6_algorithm.learning.training.state import state_of

    setup = work.setup()
    if setup.middle and _counts_around_one(work):
        raise PolicyError("this node counts event times in bins that stand still, and the request moves them")
    Device.choose(work.experiment.training)  # so that a site without it says no before anything is trained
    table = work.table(setup)
    problem = create_problem(work.experiment, setup)
    problem.folder = work.folder
    problem.check_rows(table)
    networks, start = _initial(work, setup, problem)
    noise = work.guard.open_privacy_account(table)
    try_outputs(problem, networks)
    check_shared_noise(work, noise, sum(value.numel() for value in state_of(networks).values()))
    private = work.experiment.privacy.differential_privacy
    if private is not None and private.unit != "site":
        _try_private_gradients(problem, networks, table)
    if work.experiment.strategy.needs_features:
        head_of(problem, networks)
    shared, _ = shared_and_own(work, networks)
    if work.experiment.data.harmonisation.kind != "none":
        _check_values(work, setup, table)
    sums = problem.sums(table)
    moments = table.training_moments(with_range=needs_range(work.experiment.data))
    if table.images is None:
        moments = work.guard.edges(moments, table.training_values())
    hidden = _hidden(work, moments.count)
    targets, few_targets = _target_moments(work, table)
    return {
        "counts": table.counts(),
        "class_counts": problem.class_counts(table),
        "sums": pack_arrays(_joined(work, sums)) if sums else None,
        "moments": pack_arrays(moments.without(hidden).arrays()),
        "targets": targets,
        "hidden": [*(name for name, few in zip(setup.features, hidden, strict=True) if few), *few_targets],
        "spec": {name: spec.to_json() for name, spec in shared.items()},
        "copies": _copies(work, table),
        "trained_on": _trained_on(table),
        "start": start,
        **_event_times(work, problem, table),
    }


def _initial(work: Work, setup: Setup, problem: Problem) -> tuple[Networks, str]:
    """Return the networks that training begins with, where the owner's rules allow so large a model, and their digest.

    Sites of one process build them once, unless each has weights of its own; nobody trains them.
    """
    from v6_algorithm.learning.training.state import build_networks, state_of

    def build() -> tuple[Networks, str]:
        work.guard.check_model(problem)
        networks = build_networks(problem)
        return networks, wire.digest_of(state_of(networks))

    experiment, shared = work.experiment, work.context.shared
    if experiment.start.at_sites or experiment.privacy.differential_privacy is not None:
        return build()
    made: tuple[Networks, str] = remembered(
        shared, "initial", (experiment, setup), build, same=lambda one: one[0] is experiment and one[1] is setup
    )
    work.guard.check_networks(made[0], problem.sums_of_squares)
    if sum(tensor.numel() for tensor in state_of(made[0]).values()) > _MOST_SHARED:
        # It would be in memory as long as the run.
        shared.pop(("remembered", "initial"))
    return made


def _try_private_gradients(problem: Problem, networks: Networks, table: TableData) -> None:
    import torch

    from v6_algorithm.learning.problems.trial import shape_of_row
    from v6_algorithm.learning.training.private_descent import try_private_gradients

    if getattr(problem.experiment.data, "rows", None) is not None or len(table.target) < 2:
        return
    dtype = getattr(torch, problem.experiment.training.dtype)
    # Of the targets only the form matters: nothing is told of what comes out.
    inputs, target = torch.zeros(2, *shape_of_row(problem), dtype=dtype), torch.from_numpy(table.target[:2].copy())
    try_private_gradients(problem, networks, inputs, target)


def _joined(work: Work, sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a problem's sums, of which the histogram of event times has cells of few rows."""
    return {
        name: work.guard.joined(column_sums) if name == "event_times" else column_sums
        for name, column_sums in sums.items()
    }


def _target_moments(work: Work, table: TableData) -> tuple[str | None, list[str]]:
    """Measure the targets that are scaled; name those that hardly any training row here has, which count as empty."""
    from v6_algorithm.data.preparation import Moments
    from v6_algorithm.data.preparation.setup import pack_arrays

    scaled = work.experiment.data.scaled_targets
    if not scaled:
        return None, []
    places = [number for number, target in enumerate(work.targets) if target.column in scaled]
    columns = table.target.reshape(len(table.target), -1)[:, places]
    moments = Moments.of((columns[fold.train] for fold in table.folds), with_range=False)
    hidden = _hidden(work, moments.count)
    few = [name for name, is_few in zip(scaled, hidden, strict=True) if is_few]
    return pack_arrays(moments.without(hidden).arrays()), few


def _quantiles(work: Work) -> dict[str, Any]:
    from v6_algorithm.data.preparation.setup import pack_arrays, unpack_arrays
    from v6_algorithm.data.preparation.statistics import cells_of
    from v6_algorithm.data.quantiles import check_windows

    setup = work.setup()
    table = work.table(setup)
    if setup.combat is not None:
        _check_values(work, setup, table)
    counts, windows = _counts(table), None
    if work.request.get("windows") is not None:
        arrays = unpack_arrays(work.request.get("windows"))
        if "windows" not in arrays:
            raise WireError("windows must be packed under that name")
        windows = check_windows(arrays["windows"], counts.size)
    values = table.training_values(setup, work.experiment.data)
    cells = cells_of(values, _hidden(work, counts), work.policy.minimum_cell, windows)
    return {"cells": pack_arrays(cells.arrays())}


def _harmonisation(work: Work) -> dict[str, Any]:
    from v6_algorithm.data.preparation.setup import pack_arrays

    setup = work.setup()
    table = work.table(setup)
    _check_values(work, setup, table)
    return {"sums": pack_arrays(table.combat_sums(setup, work.experiment.data).arrays())}


def _imputation(work: Work) -> dict[str, Any]:
    """Add up products of columns over the training rows, for the regressions of an imputation's next sweep."""
    from v6_algorithm.data.preparation.setup import pack_arrays
    from v6_algorithm.learning.problems import create_problem

    setup = work.setup()
    table = work.table(setup)
    made = setup.imputation
    if made is None or work.experiment.data.missing.kind != "impute" or len(table.folds) != made.imputations:
        raise WireError("an imputation is asked for that the experiment does not want")
    create_problem(work.experiment, setup).check_rows(table)
    work.guard.check_imputation()
    width = setup.imputed_width(table.target.ndim)
    counted = []
    for rows in table.known_cells(setup)[table.folds[0].train].sum(axis=0).tolist():
        # Of too few values none is told: this column's regression is then the other sites'.
        counted.append(rows > 0 and not work.policy.too_few(int(rows)) and work.guard.bears(width, int(rows)))
    work.guard.check_information(width, len(table.folds[0].train))
    return {"products": pack_arrays({"products": table.products(setup, counted)})}


def _moments(work: Work) -> dict[str, Any]:
    """Measure the training rows as the setup harmonises them; `_statistics` measured them as they are."""
    from v6_algorithm.data.preparation import Moments, needs_range
    from v6_algorithm.data.preparation.setup import pack_arrays

    setup, data = work.setup(), work.experiment.data
    table = work.table(setup)
    _check_values(work, setup, table)
    values = table.training_values(setup, data)
    moments = work.guard.edges(Moments.of(values, with_range=needs_range(data)), values)
    return {"moments": pack_arrays(moments.arrays())}


def _counts(table: TableData) -> np.ndarray:
    """Count the training rows that have a value: (folds, features)."""
    import numpy as np

    return np.stack([(~np.isnan(values)).sum(axis=0) for values in table.training_values()])


def _hidden(work: Work, counts: np.ndarray) -> np.ndarray:
    """Say of which columns too few training rows have a value, in any fold: (columns,) bool from (folds, columns).

    In any, for where the folds share rows, the sums of one less those of another are those of few.
    """
    import numpy as np

    few = [rows for rows in np.unique(counts).tolist() if work.policy.too_few(int(rows))]
    return np.asarray(np.isin(counts, few).any(axis=0))


def _check_values(work: Work, setup: Setup, table: TableData) -> None:
    """Refuse harmonisation of a column that hardly any training row has a value in.

    Its statistics are sums over filled cells: known what they are filled with, they would tell those values.
    """
    for counts in _counts(table):
        for name, rows in zip(setup.features, counts, strict=True):
            work.policy.check_values(name, int(rows))
