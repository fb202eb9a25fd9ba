"""Rows of pixels in columns: the table's numeric columns, in their order, are the pixels of one image a row."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from v6_algorithm.data.imaging.stack import Stack, load_stack, stack_pixels
from v6_algorithm.data.missing_values import without_codes
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.rows.kind import Agreed, Schemas, channel_names
from v6_algorithm.data.rows.numbers import Numbers
from v6_algorithm.data.rows.stacked import Images
from v6_algorithm.data.sources import TableSource


class Pixels(Images):
    """Rows whose columns are the pixels of an image."""

    tables: ClassVar[bool] = True

    def agree(self, schemas: Schemas, notes: list[str], problems: list[str]) -> Agreed:
        """Take the columns that rows of numbers would be made of; there must be as many as pixels."""
        pixels = Numbers(self.data).agree(schemas, notes, problems).features
        shape = self.image.shape or []
        if pixels and not problems and len(pixels) != prod(shape):
            problems.append(
                f"data.image.shape {shape} is {prod(shape)} pixels, and there are {len(pixels)} features; name them in "
                "data.features, or what is none in data.exclude"
            )
        self.check_channels(shape[0])
        features = channel_names("pixels", shape[0]) if pixels else []
        return Agreed(features, required=pixels, image_shape=shape, pixels=pixels)

    def make_stack(self, source: TableSource, pixels: list[str], kept: Path | None) -> Stack:
        """Map the images kept in a file, or read the columns of pixels."""
        stack = None if kept is None else load_stack(kept, list, self.image)
        if stack is not None:
            return stack
        frame = without_codes(source.read({*pixels}.__contains__, exact=()), self.data.missing_values, form=source.form)
        numbers = frame[list(pixels)].to_numpy(dtype=np.float64, na_value=np.nan)
        return stack_pixels(numbers, self.image, kept)

    def misfits(self, schema: Mapping[str, Any], setup: Setup) -> list[str]:
        """Name the columns of pixels that the table has not, or not as numbers."""
        return Numbers(self.data).misfits(schema, setup)
