"""One request with what is read on the way to its answer; the node's rules are checked wherever something is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.files import cache_key
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.reading.assumed import Told, disclosed
from v6_algorithm.data.rows import row_kind
from v6_algorithm.data.rows.kind import RowKind, Shelf
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.terms import weights_column
from v6_algorithm.experiment.where import columns_of
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.guard import Guard
from v6_algorithm.site.guard.requests import check_request
from v6_algorithm.site.state.memory import remembered

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from v6_algorithm.data.table import TableData
    from v6_algorithm.data.targets import TargetColumn
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.loop import Inputs, Rows

# Prepared inputs are kept in memory from round to round up to this many bytes; beyond, they are made again.
_MEMORY_BYTES = 2**30
# Sections of the experiment that the encoded table depends on.
_OF_TABLE = {"seed", "data", "problem", "split", "training", "evaluation"}


class Work:
    """One request with what is read from it on the way."""

    def __init__(self, request: Mapping[str, Any], context: SiteContext) -> None:
        check_request(request)
        self.request, self.context = request, context
        given = request.get("experiment")
        self.experiment: Experiment = remembered(
            context.shared, "experiment", given, lambda: Experiment.parse(given, where="request", checked=True)
        )
        self.site, self.round = str(request["site"]), int(request["round"])
        self.policy = context.policy
        self.guard = Guard(context, request, self.experiment)
        self.policy.check_sites(int(request.get("sites", 0)))
        data = self.experiment.data
        roles = [*data.target_columns.values(), data.group, data.synthetic, *data.split_columns, data.measures]
        roles += [*data.categorical, *(data.features or []), *data.harmonisation.covariates]
        roles += self.experiment.evaluation.columns
        roles.append(weights_column(self.experiment))
        self.kind = row_kind(data)
        roles += [*self.kind.columns().values(), *columns_of(data.where)]
        self.roles = {data.indicators.get(name, name) for name in roles if name is not None}
        self.policy.check_columns(self.roles)
        # What a template calls a column is any part of a name that the researcher likes: it has to be allowed itself.
        self.policy.check_columns(source.names[0] for source in context.sources.values() if source.names)
        self.sources = {name: self._as_written(name, source) for name, source in context.sources.items()}
        self.left_out = 0
        self.seconds: dict[str, float] = {}
        # Without a way back to this object: a circle keeps the request, and its model, until Python looks for circles.
        self._fingerprint = _once_a_source(self.kind)
        self.shelf = Shelf(self._fingerprint, context.memory, context.state)
        # Two models of one fold come one after the other, and their rows may be too many to keep in memory.
        self._newest: tuple[Any, Rows] | None = None

    def _as_written(self, name: str, source: TableSource) -> TableSource:
        """Return a source that is read as the experiment says tables are written; the same one at every request."""
        form = source.form.over(self.experiment.data.form)
        if form == source.form:
            return source
        key = ("written", name, form)
        if key not in self.context.memory:
            self.context.memory[key] = replace(source, form=form)
        written: TableSource = self.context.memory[key]
        return written

    @cached_property
    def targets(self) -> Sequence[TargetColumn]:
        """The columns that are learned; finding them loads torch, which answers without rows do not need."""
        from v6_algorithm.learning.problems import problem_class

        return problem_class(self.experiment.problem.kind).targets(self.experiment)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds of a block to the reply's timing."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start

    def pack(self, state: Mapping[str, Tensor]) -> wire.Packed | wire.Held:
        """Return tensors as the asker takes them: as text, or as they are where it is this process.

        Those on a GPU are fetched from there, where the asker has nothing, and where each site's would add up.
        """
        if not self.context.by_reference:
            return wire.pack(state)
        return wire.Held({name: tensor.detach().cpu() for name, tensor in state.items()})

    @property
    def folder(self) -> Path | None:
        """The folder in which the files are that the site's table names, of its first hospital; None: it has none."""
        return next(iter(self.sources.values())).folder

    def setup(self) -> Setup:
        """Read what the sites agreed on, which the node's policy must allow."""
        given = self.request["setup"]
        setup: Setup = remembered(self.context.shared, "setup", given, lambda: Setup.from_json(given))
        self.policy.check_columns([*self._inputs(setup), *setup.covariates])
        if setup.imputation is not None and self.policy.secret_folds:
            # Sums over cells whose draws the asker can make again would be equations for their rows.
            setup = replace(setup, imputation=replace(setup.imputation, seed=self.guard.seed))
        return setup

    def _inputs(self, setup: Setup) -> list[str]:
        """Name the columns of the inputs; the column of a series or image is among the roles."""
        made = self.experiment.data.indicators
        return [*self.kind.inputs(setup), *(made.get(name, name) for name in setup.categories)]

    def table(self, setup: Setup) -> TableData:
        """Load the site's table from memory, from the state folder or from its source."""
        from v6_algorithm.data.cache import keep, load_cached
        from v6_algorithm.data.encoding import load_table

        # Which rows are in which part is drawn with a secret of the node's, where its rules say so.
        drawn = self.guard.drawn
        sources = self.sources
        prints = {name: self._fingerprint(source) for name, source in sources.items()}
        key = remembered(
            self.context.memory,
            "table key",
            (prints, drawn, setup),
            lambda: cache_key(prints, self._of_table(drawn, setup)),
            same=lambda before: before[0] == prints and before[1] is drawn and before[2] is setup,
        )
        folder = self.context.state if None not in prints.values() else None
        table: TableData | None = self.context.memory.get(key)
        if table is None and folder is not None:
            table = load_cached(folder, key)
        if table is None:
            wanted = {*self.roles, *self.kind.cells(setup), *setup.categories, *setup.covariates}
            frames = {name: self.read(source, wanted.__contains__) for name, source in sources.items()}
            self.guard.check_inputs(setup, sum(map(len, frames.values())))
            frames, copies = self.kind.usable(frames, sources, setup, self.shelf)
            try:
                table = load_table(frames, drawn, setup, self.targets, copies)
            except KeyError:
                raise WireError(
                    "the setup, or the experiment, names columns that the table here does not have"
                ) from None
            if folder is not None:
                keep(folder, key, table)
        if self.experiment.data.missing.kind == "impute":
            columns = setup.imputed_width(table.target.ndim)
            matches = self.guard.matches
            table = table.without_few_empty(self.guard.fewest_imputed(columns), patterns=not matches)
            table.matches = matches
        if setup.class_weights is not None and len(setup.class_weights) < len(table.folds):
            raise WireError(f"setup.class_weights must be of {len(table.folds)} folds")
        self.context.memory[key] = table
        for source in sources.values():
            # Of a table that was found elsewhere nobody reads the source again.
            self.context.memory.pop(("frame", id(source)), None)
        if table.images is None:
            table.images = self.kind.images(sources, setup, self.shelf, table.member, table.position)
        # Here, and not only at preparation: a table may have lost rows since, and a request may skip preparation.
        for number in range(len(table.members)):
            self.check_rows(*(int((table.member[rows] == number).sum()) for rows in (slice(None), table.synthetic)))
        # Of real rows beside synthetic ones too: whoever made these can take them out of a sum.
        for counts in (table.counts(), *([table.counts(real=True)] if table.synthetic.any() else [])):
            for fold in counts:
                for parts in fold.values():
                    for part, rows in parts.items():
                        self.policy.check_part(part, rows)
        if len(table.weights):
            for split in table.folds:
                self.policy.check_weights(table.weights[split.train])
        self.guard.account(table, setup)
        return table

    def _of_table(self, drawn: Experiment, setup: Setup) -> str:
        """Return a hash of what an encoded table depends on beside its rows; sites of one process make it once."""

        def make() -> str:
            weights = weights_column(drawn)
            return cache_key(
                drawn.model_dump(mode="json", include=_OF_TABLE),
                [
                    setup.features,
                    setup.categories,
                    setup.classes,
                    setup.hospitals,
                    setup.task_classes,
                    setup.sequence_length,
                    setup.covariates,
                    setup.image_shape,
                    setup.pixels,
                    *([setup.facts] if setup.facts else []),
                    *([weights] if weights else []),
                ],
            )

        if drawn is not self.experiment:
            # By a secret of this node's.
            return make()
        of_table: str = remembered(
            self.context.shared,
            "of table",
            (drawn, setup),
            make,
            same=lambda before: before[0] is drawn and before[1] is setup,
        )
        return of_table

    def assumed(self, source: TableSource) -> list[Told]:
        """Return what reading this table took for granted, as far as the node's rules let it be told."""
        every = self.policy.allowed_columns is None
        assumed = dict(source.assumed)
        if self.kind.columns() or source.form.measures is not None:
            # They are what cells name.
            assumed.pop("other tables", None)
        return disclosed(assumed, self.policy.disclosed, self.policy.allows, every=every)

    def check_rows(self, rows: int, synthetic: int) -> None:
        """Refuse a table with too few rows, or with too few that are a patient's; with none of these it may be made."""
        self.policy.check_rows(rows)
        if rows > synthetic:
            self.policy.check_rows(rows - synthetic)
        self.policy.check_part("synthetic", synthetic)

    def read(self, source: TableSource, wanted: Callable[[str], bool], *, keep: bool = False) -> pd.DataFrame:
        """Read the wanted columns; numbers that are only inputs in the precision that is trained in.

        With `keep` the file is not read again by the next who reads it in this process, and wants no other columns.
        """
        from v6_algorithm.data.indicators import with_indicators
        from v6_algorithm.data.missing_values import without_codes

        exact = self.roles if self.experiment.training.dtype == "float32" else None
        memory, key = self.context.memory, ("frame", id(source))
        identity = source.fingerprint, exact
        kept = memory.pop(key, None)
        if kept is not None and kept[0] == identity:
            names = [name for name in kept[1].columns.tolist() if wanted(name)]
            frame = kept[1].loc[:, names] if len(names) < kept[1].shape[1] else kept[1]
        else:
            frame = source.read(wanted, exact=exact)
        lasts = keep and self.context.lasting and identity[0] is not None
        if lasts and _bytes_of(frame) <= _MEMORY_BYTES:
            memory[key] = identity, frame
        codes = self.experiment.data.missing_values
        frame = self.kind.read(without_codes(frame, codes, form=source.form), source, self.shelf)
        return self.where(with_indicators(frame, self.experiment.data))

    def where(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that `data.where` asks for; all but some few rows would tell of these few, and is refused.

        Those with a time of 0 are left out where `problem.at_zero` says so.
        """
        drops = getattr(self.experiment.problem.options(), "at_zero", "keep") == "leave_out"
        if self.experiment.data.where is None and not drops:
            return frame
        from v6_algorithm.data.targets import rows_at_zero
        from v6_algorithm.data.where import not_met, rows_where

        kept = rows_where(frame, self.experiment.data.where or {})
        if drops:
            kept &= ~rows_at_zero(frame, self.targets)
        self.left_out = int((~kept).sum())
        if not kept.any():
            never = not_met(frame, self.experiment.data.where or {})
            of = f"; no row meets that of {', '.join(never)} alone: is it written as in the table?" if never else ""
            raise DataError("no row meets data.where" + (", or has a time above 0" if drops else "") + of)
        if self.left_out:
            where = ["data.where"] if self.experiment.data.where is not None else []
            self.policy.check_left_out(self.left_out, " with ".join([*where, *["problem.at_zero"] * drops]))
        return frame.loc[kept]

    def rows(self, table: TableData, setup: Setup, fold: int, device: Device) -> Rows:
        """Return the prepared rows of one fold, on the device."""
        import torch

        from v6_algorithm.learning.training.loop import Rows

        agreed, prepared = self.request["setup"], setup.preparation
        # Of rows of numbers; what images and series are prepared with is theirs to check.
        numbers, columns = table.images is None and not len(table.lengths), len(setup.features)
        if prepared is not None and numbers and prepared.fill.shape[-1] not in (1, columns):
            raise WireError(f"setup.preparation must be of {columns} columns; it is of others")
        terms = None if setup.terms is None else repr(setup.terms.to_json())
        draws = (agreed.get("imputation") or {}).get("draws")
        key = ("rows", id(table), agreed["preparation"], agreed["combat"], terms, draws, fold, device.kind)
        kept: Rows | None = self.context.memory.get(key)
        if kept is None and self._newest is not None and self._newest[0] == key:
            kept = self._newest[1]
        if kept is not None:
            return kept
        rows = Rows(
            self._inputs_of(table, setup, fold, device),
            torch.from_numpy(table.target).to(device.kind),
            torch.from_numpy(table.member).to(device.kind),
            torch.tensor(table.weights, device=device.kind) if len(table.weights) else None,
        )
        if rows.inputs.nbytes * len(table.folds) <= _MEMORY_BYTES:
            self.context.memory[key] = rows
        self._newest = key, rows
        return rows

    def _inputs_of(self, table: TableData, setup: Setup, fold: int, device: Device) -> Inputs:
        import torch

        from v6_algorithm.learning.training.images import ImageInputs

        if table.images is not None:
            return ImageInputs.of(table.images, setup, fold, self.experiment.training.dtype, device)
        return torch.from_numpy(table.inputs(setup, self.experiment.data, fold)).to(device.kind)


def _bytes_of(frame: pd.DataFrame) -> int:
    """Count the bytes of a table's numbers, which make it large, without a look at each of 18,000 columns."""
    import numpy as np

    rows = len(frame)
    return sum(
        dtype.itemsize * rows if isinstance(dtype, np.dtype) else int(frame.iloc[:, place].array.nbytes)
        for place, dtype in enumerate(frame.dtypes.tolist())
    )


def _once_a_source(kind: RowKind) -> Callable[[TableSource], str | None]:
    """Make what identifies a table and the files that it names, once a request; see `RowKind.fingerprint`."""
    known: dict[int, str | None] = {}

    def fingerprint(source: TableSource) -> str | None:
        if id(source) not in known:
            known[id(source)] = kind.fingerprint(source)
        return known[id(source)]

    return fingerprint
