"""What rows of images share, wherever their pixels come from: one stack for each table, kept for later rounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.files import cache_key
from v6_algorithm.data.imaging.stack import READING, Stack, TableImages
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.rows.kind import Array, RowKind, Shelf
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.experiment import Data, Image

if TYPE_CHECKING:
    import pandas as pd


class Images(RowKind):
    """Rows that are one image each, whose channels are the features."""

    def __init__(self, data: Data, options: Any = None) -> None:
        super().__init__(data, options)
        self.image = data.image or Image(column="")

    def inputs(self, setup: Setup) -> list[str]:
        """Name the columns of pixels; of files the column of their names is among `columns`."""
        return setup.pixels

    def cells(self, setup: Setup) -> list[str]:
        """Pixels are read into the stack, and not into the frame."""
        return []

    def check_channels(self, channels: int) -> None:
        """Raise ExperimentError when `mean` and `sd` are of another number of channels."""
        if self.image.mean is not None and len(self.image.mean) != channels:
            raise ExperimentError(
                f"data.image: mean and sd are of {len(self.image.mean)} channels, the images have {channels}"
            )

    def read(self, frame: pd.DataFrame, source: TableSource, shelf: Shelf) -> pd.DataFrame:
        """Number the rows: a row's number is where its image stands, whatever rows are left out later."""
        return frame.reset_index(drop=True)

    def usable(
        self, frames: dict[str, pd.DataFrame], sources: Mapping[str, TableSource], setup: Setup, shelf: Shelf
    ) -> tuple[dict[str, pd.DataFrame], dict[str, Array]]:
        """Keep the rows that have an image, and tell which images are copies."""
        stacks = {name: self.stack(source, setup.pixels, shelf) for name, source in sources.items()}
        frames = {name: frame.loc[stacks[name].readable[frame.index]] for name, frame in frames.items()}
        return frames, {name: stack.copies for name, stack in stacks.items()}

    def encode(self, frame: pd.DataFrame, setup: Setup, dtype: str) -> tuple[Array, Array]:
        """Return no values: images are read when a batch asks for them."""
        return np.empty((len(frame), 0), dtype=dtype), np.empty(0, dtype=np.int64)

    def positions(self, frame: pd.DataFrame) -> Array:
        """Return where each row's image stands in its stack."""
        positions: Array = frame.index.to_numpy(dtype=np.int64)
        return positions

    def images(
        self, sources: Mapping[str, TableSource], setup: Setup, shelf: Shelf, member: Array, position: Array
    ) -> TableImages | None:
        """Return the stacks of all members; raises DataError when their images are not as agreed."""
        stacks = [self.stack(source, setup.pixels, shelf) for source in sources.values()]
        for stack in stacks:
            if stack.shape != setup.image_shape:
                raise DataError("the images (data.image) have another size or other channels than at preparation")
        return TableImages(stacks, member, position)

    def stack(self, source: TableSource, pixels: list[str], shelf: Shelf) -> Stack:
        """Return the images of one table, from memory, from the state folder or from its files or columns."""
        fingerprint = shelf.fingerprint(source)
        key = cache_key("images", READING, fingerprint or id(source), self.image.model_dump(mode="json"), list(pixels))
        stack: Stack | None = shelf.memory.get(("images", key))
        if stack is None:
            kept = shelf.state / f"images-{key}.npy" if shelf.state is not None and fingerprint else None
            stack = self.make_stack(source, pixels, kept)
        shelf.memory["images", key] = stack
        return stack

    def make_stack(self, source: TableSource, pixels: list[str], kept: Path | None) -> Stack:
        """Read what is kept in a file, or else the images, and keep them there."""
        raise NotImplementedError
