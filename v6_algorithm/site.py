"""What happens at one site for one request: guard, data, problem, train or evaluate, reply.

`handle` serves the vantage6 container, the mock client and the local engine alike. Everything it needs is in the
request and the context; nothing lives in module globals.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm import wire
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError, SiteError, WireError
from v6_algorithm.experiment import PARTS, Experiment
from v6_algorithm.preparation import Setup
from v6_algorithm.privacy.policy import Policy

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.data.table import TableData
    from v6_algorithm.training.device import Device
    from v6_algorithm.training.loop import Rows

# Prepared inputs are kept in memory from round to round up to this many bytes; beyond, they are made again.
_MEMORY_BYTES = 2**30


@dataclass
class SiteContext:
    """One site's surroundings.

    Attributes
    ----------
    sources
        Where the data are, by member hospital: one member named like the site, except in a centralised run.
    policy
        The node owner's rules.
    state
        Folder that survives between rounds, or None.
    memory
        What a process that serves several rounds may keep between them.
    """

    sources: Mapping[str, TableSource]
    policy: Policy = field(default_factory=Policy)
    state: Path | None = None
    memory: dict[Any, Any] = field(default_factory=dict)


def handle(
    method: str, request: Mapping[str, Any], context: SiteContext, *, raise_bugs: bool = False
) -> dict[str, Any]:
    """Answer one request.

    Parameters
    ----------
    method
        ``summary``, ``prepare``, ``train`` or ``evaluate``.
    request
        A message made by `wire.message`.
    context
        The site's data, policy and folder.
    raise_bugs
        Let unexpected exceptions through, with their traceback: for the researcher's own machine only.

    Returns
    -------
    dict
        A reply with status ``ok``, or ``error`` with a `kind` and a message free of data values.
    """
    if not isinstance(request, Mapping) or request.get("schema") != wire.SCHEMA:
        # Not a request of ours: there is no round to answer to.
        raise WireError(f"the request must be a message of schema {wire.SCHEMA}; task `master`, it writes them")
    head = {key: request.get(key) for key in ("site", "round", "attempt")}
    start = time.perf_counter()
    try:
        work = _Work(request, context)
        body = _METHODS[method](work)
        rest = time.perf_counter() - start - sum(work.seconds.values())
        body["timing"] = {**work.seconds, f"{method}_s" if method in ("summary", "prepare") else "other_s": rest}
        return wire.message(**head, status="ok", **body)  # type: ignore[arg-type]
    except SiteError as error:
        kind, text = error.kind, str(error)
    except (ExperimentError, WireError) as error:
        kind, text = "request", str(error)
    except Exception as error:
        if raise_bugs:
            raise
        kind, text = "bug", _where(error)
    return wire.message(**head, status="error", kind=kind, message=text)  # type: ignore[arg-type]


def _where(error: Exception) -> str:
    """Name an unexpected exception by type and place: its message may hold data values."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "v6_algorithm" in frame.filename]
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


class _Work:
    """One request with what is read from it on the way."""

    def __init__(self, request: Mapping[str, Any], context: SiteContext) -> None:
        from v6_algorithm.problems import problem_class

        self.request, self.context = request, context
        self.experiment = Experiment.parse(request.get("experiment"), where="request", checked=True)
        self.site, self.round = str(request["site"]), int(request["round"])
        self.targets = problem_class(self.experiment.problem.kind).targets(self.experiment)
        self.policy = context.policy
        self.policy.check_sites(int(request.get("sites", 0)))
        data = self.experiment.data
        roles = [*data.target_columns.values(), data.group, *data.split_columns]
        roles += [*data.categorical, *(data.features or []), *data.harmonisation.covariates]
        roles += [data.sequence.column] if data.sequence is not None else []
        self.roles = {name for name in roles if name is not None}
        self.policy.check_columns(self.roles)
        self.seconds: dict[str, float] = {}
        # Two models of one fold come one after the other, and their rows may be too many to keep in memory.
        self._newest: tuple[Any, Rows] | None = None

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds of a block to the reply's timing."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start

    def setup(self) -> Setup:
        """Read what the sites agreed on, which the node's policy must allow."""
        setup = Setup.from_json(self.request["setup"])
        # Channels of a time series are no columns; the column that holds them is among the roles.
        features = [] if self.experiment.data.sequence is not None else setup.features
        self.policy.check_columns([*features, *setup.categories, *setup.covariates])
        return setup

    def table(self, setup: Setup) -> TableData:
        """Load the site's table from memory, from the state folder or from its source."""
        from v6_algorithm.data.cache import cache_key, keep, load_cached
        from v6_algorithm.data.table import load_table

        prints = {name: source.fingerprint for name, source in self.context.sources.items()}
        key = cache_key(
            prints,
            self.experiment.model_dump(mode="json", include={"seed", "data", "problem", "split", "training"}),
            [
                setup.features,
                setup.categories,
                setup.classes,
                setup.hospitals,
                setup.task_classes,
                setup.sequence_length,
                setup.covariates,
            ],
        )
        folder = self.context.state if None not in prints.values() else None
        table: TableData | None = self.context.memory.get(key)
        if table is None and folder is not None:
            table = load_cached(folder, key)
        if table is None:
            features = [] if self.experiment.data.sequence is not None else setup.features
            wanted = {*self.roles, *features, *setup.categories}
            frames = {name: self.read(source, wanted.__contains__) for name, source in self.context.sources.items()}
            table = load_table(frames, self.experiment, setup, self.targets)
            if folder is not None:
                keep(folder, key, table)
        self.context.memory[key] = table
        # Here, and not only at preparation: a table may have lost rows since, and a request may skip preparation.
        for number in range(len(table.members)):
            self.policy.check_rows(int((table.member == number).sum()))
        for fold in table.counts():
            for parts in fold.values():
                for part, rows in parts.items():
                    self.policy.check_part(part, rows)
        return table

    def read(self, source: TableSource, wanted: Callable[[str], bool]) -> pd.DataFrame:
        """Read the wanted columns; numbers that are only inputs in the precision that is trained in."""
        narrow = self.experiment.training.dtype == "float32"
        return source.read(wanted, exact=self.roles if narrow else None)

    def rows(self, table: TableData, setup: Setup, fold: int, device: Device) -> Rows:
        """Return the prepared rows of one fold, on the device."""
        import torch

        from v6_algorithm.training.loop import Rows

        agreed = self.request["setup"]
        key = ("rows", id(table), agreed["preparation"], agreed["combat"], fold, device.kind)
        kept: Rows | None = self.context.memory.get(key)
        if kept is None and self._newest is not None and self._newest[0] == key:
            kept = self._newest[1]
        if kept is not None:
            return kept
        rows = Rows(
            torch.from_numpy(table.inputs(setup, self.experiment.data, fold)).to(device.kind),
            torch.from_numpy(table.target).to(device.kind),
            torch.from_numpy(table.member).to(device.kind),
        )
        if rows.inputs.numel() * rows.inputs.element_size() * len(table.folds) <= _MEMORY_BYTES:
            self.context.memory[key] = rows
        self._newest = key, rows
        return rows


# -- summary -------------------------------------------------------------------------------------------------------


def _summary(work: _Work) -> dict[str, Any]:
    """Describe the site's table; the node's columns, rows and cells rules hold for every step."""
    from v6_algorithm.data import summary
    from v6_algorithm.preparation.setup import unpack_arrays

    features = [str(name) for name in work.request.get("features", [])]
    work.policy.check_columns(features)
    # All of its digits, and not only what training takes of them.
    frame = work.context.sources[work.site].read(work.policy.allows)
    work.policy.check_rows(len(frame))
    smallest = work.policy.minimum_cell
    step = work.request.get("step")
    if step == "columns":
        return summary.columns(frame, work.experiment.data, smallest, work.targets)
    if step == "moments":
        return summary.moments(frame, features, smallest)
    if step == "shape":
        asked = unpack_arrays(work.request["asked"])
        return summary.shape(frame, features, smallest, asked, products=bool(work.request["products"]))
    raise WireError(f"step {step!r} is not known; allowed: columns, moments, shape")


# -- prepare -------------------------------------------------------------------------------------------------------


def _prepare(work: _Work) -> dict[str, Any]:
    steps = {
        "schema": _schema,
        "statistics": _statistics,
        "quantiles": _quantiles,
        "harmonisation": _harmonisation,
        "moments": _moments,
    }
    step = work.request.get("step")
    if step not in steps:
        raise WireError(f"step {step!r} is not known; allowed: {', '.join(steps)}")
    return steps[step](work)


def _schema(work: _Work) -> dict[str, Any]:
    from v6_algorithm.data.table import describe

    members = {}
    for name, source in work.context.sources.items():
        try:
            frame = work.read(source, work.policy.allows)
            schema = describe(frame, work.experiment.data, work.targets)
            work.policy.check_rows(schema["rows"])
        except SiteError as error:
            # In a centralised run the site is not the hospital whose table is wrong.
            raise error if name == work.site else SiteError(f"{name}: {error}", error.kind) from None
        members[name] = schema
    return {"members": members}


def _statistics(work: _Work) -> dict[str, Any]:
    from v6_algorithm.preparation import Moments, needs_range
    from v6_algorithm.preparation.setup import pack_arrays
    from v6_algorithm.problems import create_problem
    from v6_algorithm.training.device import Device
    from v6_algorithm.training.state import build_networks, spec_of, state_of

    setup = work.setup()
    Device.choose(work.experiment.training)  # so that a site without it says no before anything is trained
    table = work.table(setup)
    problem = create_problem(work.experiment, setup)
    networks = build_networks(problem)
    _check_values(work, setup, table)
    sums = problem.sums(table)
    moments = Moments.of(table.training_values(), with_range=needs_range(work.experiment.data))
    return {
        "counts": table.counts(),
        "class_counts": problem.class_counts(table),
        "sums": pack_arrays(sums) if sums else None,
        "moments": pack_arrays(moments.arrays()),
        "spec": {name: spec.to_json() for name, spec in spec_of(networks).items()},
        "start": wire.digest(wire.pack(state_of(networks))),
    }


def _quantiles(work: _Work) -> dict[str, Any]:
    from v6_algorithm.preparation import Histograms
    from v6_algorithm.preparation.setup import pack_arrays, unpack_arrays

    setup = work.setup()
    table = work.table(setup)
    _check_values(work, setup, table)
    values = table.training_values(setup, work.experiment.data)
    span = unpack_arrays(work.request["range"])
    return {"histograms": pack_arrays(Histograms.of(values, span["low"], span["high"]).arrays())}


def _harmonisation(work: _Work) -> dict[str, Any]:
    from v6_algorithm.preparation.setup import pack_arrays

    setup = work.setup()
    table = work.table(setup)
    _check_values(work, setup, table)
    return {"sums": pack_arrays(table.combat_sums(setup, work.experiment.data).arrays())}


def _moments(work: _Work) -> dict[str, Any]:
    """Measure the training rows as the setup harmonises them; `_statistics` measured them as they are."""
    from v6_algorithm.preparation import Moments, needs_range
    from v6_algorithm.preparation.setup import pack_arrays

    setup, data = work.setup(), work.experiment.data
    table = work.table(setup)
    _check_values(work, setup, table)
    values = table.training_values(setup, data)
    return {"moments": pack_arrays(Moments.of(values, with_range=needs_range(data)).arrays())}


def _check_values(work: _Work, setup: Setup, table: TableData) -> None:
    """Refuse statistics of a column that hardly any training row has a value in."""
    for values in table.training_values():
        for name, column in zip(setup.features, values.T, strict=True):
            work.policy.check_values(name, int((column == column).sum()))  # a NaN, a missing value, equals nothing


# -- train and evaluate --------------------------------------------------------------------------------------------


def _train(work: _Work) -> dict[str, Any]:
    """Validate the model as received, train it, and return it: for each fold that the request names."""
    return _work_on_folds(work, train=True)


def _evaluate(work: _Work) -> dict[str, Any]:
    """Measure the model as received on the parts asked for."""
    return _work_on_folds(work, train=False)


def _work_on_folds(work: _Work, *, train: bool) -> dict[str, Any]:
    import torch

    from v6_algorithm.problems import create_problem
    from v6_algorithm.training import loop
    from v6_algorithm.training.device import Device
    from v6_algorithm.training.state import build_networks, build_shapes, load_state, overlay, spec_of, state_of
    from v6_algorithm.training.threads import threads_for

    setup = work.setup()
    device = Device.choose(work.experiment.training)
    with work.timed("data_s"):
        table = work.table(setup)
    problem = create_problem(work.experiment, setup)
    networks = build_shapes(problem)
    spec = spec_of(networks)
    folds = []
    for item in work.request["folds"]:
        number = int(item["fold"])
        if not 0 <= number < len(table.folds):
            raise WireError(f"fold {number} is asked for, the split has {len(table.folds)}")
        if item["parameters"] is None:
            # The first round, in which every site starts from the seed, or from its image.
            networks = build_networks(problem)
        elif item.get("partial"):
            networks = build_networks(problem)
            overlay(networks, wire.unpack(item["parameters"]), partial=True)
        else:
            load_state(networks, wire.unpack(item["parameters"], spec))
        with work.timed("data_s"):
            rows = work.rows(table, setup, number, device)
        for network in networks.values():
            network.to(device.kind)
        parts = {part: torch.from_numpy(table.folds[number][part]) for part in PARTS}
        reply: dict[str, Any] = {"fold": number, "metrics": {}}
        batch_rows = min(work.experiment.training.batch_size or len(parts["train"]), len(parts["train"]))
        with threads_for(networks, batch_rows):
            with work.timed("evaluate_s"):
                for part in item.get("evaluate", []):
                    reply["metrics"][part] = loop.evaluate(
                        problem, networks, rows, parts[part], table.members, fold=number, device=device
                    )
            if train and item.get("train", True):
                if not len(parts["train"]):
                    raise WireError(f"fold {number} is to be trained, and has no training rows here")
                with work.timed("train_s"):
                    sums = loop.train(
                        problem,
                        networks,
                        rows,
                        parts["train"],
                        site=work.site,
                        round=work.round,
                        fold=number,
                        device=device,
                        epochs=item.get("epochs"),
                    )
                reply |= {
                    "parameters": wire.pack(state_of(networks)),
                    "rows": len(parts["train"]),
                    "loss": {"sum": sums.loss, "rows": sums.rows},
                    "steps": sums.steps,
                }
        folds.append(reply)
    return {"folds": folds, "device": device.to_json()}


_METHODS: dict[str, Callable[[_Work], dict[str, Any]]] = {
    "summary": _summary,
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
}
