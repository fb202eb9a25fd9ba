"""Rows of image files: a column whose cells name them, or names of files in a folder without a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.imaging.describing import describe_images
from v6_algorithm.data.imaging.detached import with_companions
from v6_algorithm.data.imaging.naming import count_unfitting
from v6_algorithm.data.imaging.picture import CAUSES, described_causes
from v6_algorithm.data.imaging.stack import SHOWN_ROWS, File, Stack, find_images, load_stack, read_stack
from v6_algorithm.data.missing_values import without_codes
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.rows.kind import Agreed, Schemas, Shelf, channel_names, named_files_fingerprint, some
from v6_algorithm.data.rows.stacked import Images
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER

if TYPE_CHECKING:
    import pandas as pd

# So many times as large along one axis voxels of one site's volumes, or of two sites', are told.
_UNLIKE_VOXELS = 1.5
# Sources in which a column of names is read again in little time.
_QUICK = ("csv", "excel", "parquet", "names")


class ImageFiles(Images):
    """Rows that name one image file each."""

    @property
    def column(self) -> str:
        """The column of the names."""
        return self.image.column or ""

    def columns(self) -> dict[str, str]:
        """Return the column of the names."""
        return {"image": self.column}

    def summarise(self, source: TableSource, smallest: int) -> dict[str, Any]:
        """Tell sizes and values of the files as they are, and why some cannot be read."""
        return {"image": describe_images(self._files(source), self.image, smallest, source.assumed)}

    def describe_files(
        self, source: TableSource, shelf: Shelf, disclosed: Callable[[int], int | None]
    ) -> dict[str, Any]:
        """Tell the size of the images, how many cannot be read and why, and the places of the first, from 1.

        And whether they fit on no disk here, and how many names a template did not fit.
        """
        stack = self.stack(source, [], shelf)
        source.assumed.update(stack.assumed)
        if source.kind in _QUICK:
            # A stack that was kept is found without a look at the names.
            self._files(source)
        unfitting = 0 if source.names is None else count_unfitting(Path(source.uri), source.names[0])
        are_many = disclosed(int(stack.readable.sum())) is not None
        return {
            "image": {
                "shape": stack.shape,
                "unreadable": len(stack.unreadable),
                "causes": dict(stack.causes),
                "rows": [row + 1 for row in stack.unreadable[:SHOWN_ROWS].tolist()],
                "streamed": stack.streamed,
                "voxels": stack.voxels if are_many else [],
                "unfitting": disclosed(unfitting),
            }
        }

    def check(self, schema: Mapping[str, Any]) -> None:
        """Raise WireError unless sizes and counts are whole numbers."""
        described = schema["image"]
        numbers = [*described["shape"], described["unreadable"] + 1, *described["rows"]]
        if len(described["shape"]) not in (3, 4) or not all(isinstance(n, int) and 0 < n < 10**9 for n in numbers):
            raise WireError("sizes of images must be whole numbers above 0")
        unfitting = described["unfitting"]
        is_count = unfitting is None or (isinstance(unfitting, int) and 0 <= unfitting < 10**9)
        if not isinstance(described["streamed"], bool) or not is_count:
            raise WireError("what is told of images must be a count and a truth")
        _check_voxels(described["voxels"], len(described["shape"]) - 1)
        causes = described["causes"]
        if not isinstance(causes, dict) or not all(
            cause in CAUSES and type(count) is int and 0 < count < 10**9 for cause, count in causes.items()
        ):
            raise WireError("why images cannot be read must be counts of known causes")

    def agree(self, schemas: Schemas, notes: list[str], problems: list[str]) -> Agreed:
        """Name the channels; all sites' images must have one shape."""
        shapes = {site: list(schema["image"]["shape"]) for site, schema in schemas.items()}
        shape = next(iter(shapes.values()))
        if any(other != shape for other in shapes.values()):
            shown = ", ".join(f"{site} {'x'.join(map(str, lengths))}" for site, lengths in shapes.items())
            raise ExperimentError(
                f"data.image: the sites' images differ in channels or size: {shown}; give data.image.size, and "
                "channels: 1 or 3"
            )
        self.check_channels(shape[0])
        for site, schema in schemas.items():
            notes += _notes(site, schema["image"])
        notes += _unlike_voxels({site: schema["image"]["voxels"] for site, schema in schemas.items()})
        return Agreed(channel_names(self.column, shape[0]), image_shape=shape)

    def fingerprint(self, source: TableSource) -> str | None:
        """Identify the table and the image files that it names."""
        return named_files_fingerprint(source, self.column, self.data.missing_values, _find_all, _QUICK)

    def read(self, frame: pd.DataFrame, source: TableSource, shelf: Shelf) -> pd.DataFrame:
        """Leave out rows whose image cannot be read."""
        frame = super().read(frame, source, shelf)
        return frame.loc[self.stack(source, [], shelf).readable] if self.column in frame else frame

    def make_stack(self, source: TableSource, pixels: list[str], kept: Path | None) -> Stack:
        """Map the images kept in a file, or read the files that the table names."""
        stack = None if kept is None else load_stack(kept, lambda: self._files(source), self.image)
        return stack or read_stack(self._files(source), self.image, kept)

    def misfits(self, schema: Mapping[str, Any], setup: Setup) -> list[str]:
        """Compare the images' shape with the model's."""
        if schema["image"]["shape"] == setup.image_shape:
            return []
        shapes = ["x".join(map(str, shape)) for shape in (schema["image"]["shape"], setup.image_shape or [])]
        return [f"its images are {shapes[0]} (channels, lengths), the model's are {shapes[1]}; see data.image"]

    def remarks(self, schema: Mapping[str, Any]) -> list[str]:
        """Tell how many images cannot be read."""
        count = schema["image"]["unreadable"]
        why = described_causes(schema["image"]["causes"])
        return [f"{count} images cannot be read, and are left out ({why})"] if count else []

    def _files(self, source: TableSource) -> list[File]:
        """Find the files that a table names, or its arrays, one a row."""
        name = self.column
        frame = without_codes(source.read(lambda column: column == name, exact=()), self.data.missing_values)
        return find_images(frame[name], source.folder, source.assumed)


def _find_all(column: pd.Series, folder: Path | None) -> list[File]:
    """Find the files of a column, and those that hold the values of headers among them."""
    return with_companions(find_images(column, folder))


def _check_voxels(voxels: Any, axes: int) -> None:
    """Raise WireError unless these are two lengths of voxels for each axis, or nothing."""
    ends = voxels if isinstance(voxels, list) else [None]
    if len(ends) not in (0, 2) or not all(
        isinstance(end, list)
        and len(end) == axes
        and all(type(length) in (int, float) and 0 < length < LARGEST_NUMBER for length in end)
        for end in ends
    ):
        raise WireError("sizes of voxels must be two lengths above 0 for each axis")


def _unlike_voxels(voxels: Mapping[str, list[list[float]]]) -> list[str]:
    """Tell where the voxels that are learned from are not of one size: the same organ is larger in some images."""
    said = {site: ends for site, ends in voxels.items() if ends}
    if not said:
        return []
    lowest = [min(lengths) for lengths in zip(*(ends[0] for ends in said.values()), strict=True)]
    highest = [max(lengths) for lengths in zip(*(ends[1] for ends in said.values()), strict=True)]
    if all(high < _UNLIKE_VOXELS * low for low, high in zip(lowest, highest, strict=True)):
        return []
    shown = "; ".join(f"{site} {' x '.join(map(_between, *ends))}" for site, ends in said.items())
    return [
        f"data.image: the voxels that are learned from are not of one size (mm, of most images: {shown}), so that the "
        "same organ is larger in some images than in others; data.image.spacing, with fit: crop, brings them to one"
    ]


def _between(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _notes(site: str, image: Mapping[str, Any]) -> list[str]:
    notes, count, rows = [], image["unreadable"], image["rows"]
    if count:
        more = ", …" if count > len(rows) else ""
        notes.append(
            f"site '{site}': {count} images are missing or cannot be read, and are left out "
            f"({described_causes(image['causes'])}): row {', '.join(map(str, rows))}{more}"
        )
    if image["unfitting"] != 0:
        notes.append(
            f"site '{site}': {some(image['unfitting'])} images have a name that data.image.files does not fit, and "
            "are left out"
        )
    if image["streamed"]:
        notes.append(f"site '{site}': its images fit on no disk there, and are decoded anew for every batch")
    return notes
