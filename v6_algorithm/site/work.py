"""One request with what is read on the way to its answer; the node's rules are checked wherever something is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Experiment, Image
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.guard import Guard

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.data.imaging.stack import Stack, TableImages
    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.loop import Inputs, Rows

# Prepared inputs are kept in memory from round to round up to this many bytes; beyond, they are made again.
_MEMORY_BYTES = 2**30
# Sections of the experiment that the encoded table depends on.
_OF_TABLE = {"seed", "data", "problem", "split", "training", "evaluation"}


class Work:
    """One request with what is read from it on the way."""

    def __init__(self, request: Mapping[str, Any], context: SiteContext) -> None:
        from v6_algorithm.learning.problems import problem_class

        self.request, self.context = request, context
        self.experiment = Experiment.parse(request.get("experiment"), where="request", checked=True)
        self.site, self.round = str(request["site"]), int(request["round"])
        self.targets = problem_class(self.experiment.problem.kind).targets(self.experiment)
        self.policy = context.policy
        self.guard = Guard(context, request, self.experiment)
        self.policy.check_sites(int(request.get("sites", 0)))
        data = self.experiment.data
        roles = [*data.target_columns.values(), data.group, data.synthetic, *data.split_columns]
        roles += [*data.categorical, *(data.features or []), *data.harmonisation.covariates]
        roles += self.experiment.evaluation.columns
        roles += [data.sequence.column] if data.sequence is not None else []
        roles += [data.image.column] if data.image is not None else []
        self.roles = {name for name in roles if name is not None}
        self.policy.check_columns(self.roles)
        # What a template calls a column is any part of a name that the researcher likes: it has to be allowed itself.
        self.policy.check_columns(source.names[0] for source in context.sources.values() if source.names)
        self.seconds: dict[str, float] = {}
        self._prints: dict[int, str | None] = {}
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

    @property
    def folder(self) -> Path | None:
        """The folder in which the files are that the site's table names, of its first hospital; None: it has none."""
        return next(iter(self.context.sources.values())).folder

    def setup(self) -> Setup:
        """Read what the sites agreed on, which the node's policy must allow."""
        setup = Setup.from_json(self.request["setup"])
        self.policy.check_columns([*self._inputs(setup), *setup.covariates])
        return setup

    def _inputs(self, setup: Setup) -> list[str]:
        """Name the columns of the inputs; channels are none: the column of a series or image is among the roles."""
        data = self.experiment.data
        features = setup.pixels if data.image is not None else [] if data.sequence is not None else setup.features
        return [*features, *setup.categories]

    def table(self, setup: Setup) -> TableData:
        """Load the site's table from memory, from the state folder or from its source."""
        from v6_algorithm.data.cache import cache_key, keep, load_cached
        from v6_algorithm.data.table import load_table

        # Which rows are in which part is drawn with a secret of the node's, where its rules say so.
        drawn = self.guard.drawn
        prints = {name: self._fingerprint(source) for name, source in self.context.sources.items()}
        key = cache_key(
            prints,
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
            ],
        )
        folder = self.context.state if None not in prints.values() else None
        table: TableData | None = self.context.memory.get(key)
        if table is None and folder is not None:
            table = load_cached(folder, key)
        if table is None:
            wanted = {*self.roles, *self._inputs(setup)} - {*setup.pixels}
            frames = {name: self.read(source, wanted.__contains__) for name, source in self.context.sources.items()}
            copies: dict[str, np.ndarray] = {}
            if self.experiment.data.image is not None:
                # Of files, `read` has left these rows out.
                stacks = {name: self.stack(source, setup.pixels) for name, source in self.context.sources.items()}
                frames = {name: frame.loc[stacks[name].readable[frame.index]] for name, frame in frames.items()}
                copies = {name: stack.copies for name, stack in stacks.items()}
            table = load_table(frames, drawn, setup, self.targets, copies)
            if folder is not None:
                keep(folder, key, table)
        self.context.memory[key] = table
        if self.experiment.data.image is not None and table.images is None:
            table.images = self._images(setup, table)
        # Here, and not only at preparation: a table may have lost rows since, and a request may skip preparation.
        for number in range(len(table.members)):
            self.check_rows(*(int((table.member[rows] == number).sum()) for rows in (slice(None), table.synthetic)))
        # Of real rows beside synthetic ones too: whoever made these can take them out of a sum.
        for counts in (table.counts(), *([table.counts(real=True)] if table.synthetic.any() else [])):
            for fold in counts:
                for parts in fold.values():
                    for part, rows in parts.items():
                        self.policy.check_part(part, rows)
        self.guard.account(table, setup)
        return table

    def check_rows(self, rows: int, synthetic: int) -> None:
        """Refuse a table with too few rows, or with too few that are a patient's; with none of these it may be made."""
        self.policy.check_rows(rows)
        if rows > synthetic:
            self.policy.check_rows(rows - synthetic)
        self.policy.check_part("synthetic", synthetic)

    def read(self, source: TableSource, wanted: Callable[[str], bool]) -> pd.DataFrame:
        """Read the wanted columns; numbers that are only inputs in the precision that is trained in."""
        from v6_algorithm.data.files import names_files
        from v6_algorithm.data.missing_values import without_codes
        from v6_algorithm.data.sequences import find_files, read_files

        narrow, data = self.experiment.training.dtype == "float32", self.experiment.data
        frame = without_codes(source.read(wanted, exact=self.roles if narrow else None), data.missing_values)
        if data.image is not None:
            # Its index is where a row's image stands, whatever rows are left out later.
            frame = frame.reset_index(drop=True)
            if data.image.column in frame:
                frame = frame.loc[self.stack(source).readable]
        name = data.sequence.column if data.sequence is not None else ""
        if data.sequence is not None and name in frame and names_files(frame[name]):
            return frame.assign(**{name: read_files(frame[name], find_files(frame[name], source.folder))})
        return frame

    def stack(self, source: TableSource, pixels: Sequence[str] = ()) -> Stack:
        """Return the images of one table, from memory, from the state folder or from its files or columns of pixels."""
        from v6_algorithm.data.cache import cache_key
        from v6_algorithm.data.imaging import stack as images
        from v6_algorithm.data.missing_values import without_codes

        image = self.experiment.data.image or Image(column="")
        fingerprint = self._fingerprint(source)
        key = cache_key("images", fingerprint or id(source), image.model_dump(mode="json"), list(pixels))
        stack: Stack | None = self.context.memory.get(("images", key))
        kept = self.context.state / f"images-{key}.npy" if self.context.state is not None and fingerprint else None
        if stack is None and kept is not None:
            stack = images.load_stack(kept, lambda: self._image_files(source), image)
        if stack is None and image.column is None:
            frame = without_codes(source.read({*pixels}.__contains__, exact=()), self.experiment.data.missing_values)
            numbers = frame[list(pixels)].to_numpy(dtype=np.float32, na_value=np.nan)
            stack = images.stack_pixels(numbers, image, kept)
        elif stack is None:
            stack = images.read_stack(self._image_files(source), image, kept)
        self.context.memory["images", key] = stack
        return stack

    def _image_files(self, source: TableSource) -> list[Path | None]:
        """Find the files that a table names, one a row."""
        from v6_algorithm.data.imaging.stack import find_images
        from v6_algorithm.data.missing_values import without_codes

        name = self.experiment.data.image.column if self.experiment.data.image is not None else None
        frame = without_codes(source.read(lambda column: column == name, exact=()), self.experiment.data.missing_values)
        return find_images(frame[name], source.folder)

    def _images(self, setup: Setup, table: TableData) -> TableImages:
        """Return the images of a table's rows."""
        from v6_algorithm.data.imaging.stack import TableImages

        stacks = [self.stack(source, setup.pixels) for source in self.context.sources.values()]
        for stack in stacks:
            if stack.shape != setup.image_shape:
                raise DataError("the images (data.image) have another size or other channels than at preparation")
        return TableImages(stacks, table.member, table.position)

    def _fingerprint(self, source: TableSource) -> str | None:
        """Identify what a table and the files that it names hold; see `TableSource.fingerprint`."""
        if id(source) not in self._prints:
            self._prints[id(source)] = self._print(source)
        return self._prints[id(source)]

    def _print(self, source: TableSource) -> str | None:
        from v6_algorithm.data.files import names_files, print_files
        from v6_algorithm.data.imaging.stack import find_images
        from v6_algorithm.data.missing_values import without_codes
        from v6_algorithm.data.sequences import find_files

        data = self.experiment.data
        if source.fingerprint is None:
            return None
        # Only these are sure to hold no arrays, which it would take long to read again in every round.
        name, find, quick = None if data.sequence is None else data.sequence.column, find_files, ["csv", "excel"]
        if data.image is not None:
            name, find, quick = data.image.column, find_images, [*quick, "parquet", "names"]
        if name is None or source.kind not in quick:
            return source.fingerprint
        frame = without_codes(source.read(lambda column: column == name), data.missing_values)
        if name not in frame or not names_files(frame[name]):
            return source.fingerprint
        return f"{source.fingerprint}:{print_files(find(frame[name], source.folder))}"

    def rows(self, table: TableData, setup: Setup, fold: int, device: Device) -> Rows:
        """Return the prepared rows of one fold, on the device."""
        import torch

        from v6_algorithm.learning.training.loop import Rows

        agreed = self.request["setup"]
        key = ("rows", id(table), agreed["preparation"], agreed["combat"], fold, device.kind)
        kept: Rows | None = self.context.memory.get(key)
        if kept is None and self._newest is not None and self._newest[0] == key:
            kept = self._newest[1]
        if kept is not None:
            return kept
        rows = Rows(
            self._inputs_of(table, setup, fold, device),
            torch.from_numpy(table.target).to(device.kind),
            torch.from_numpy(table.member).to(device.kind),
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
