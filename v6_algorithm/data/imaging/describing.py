"""What a site tells of its image files before anything is trained: sizes, values and why some cannot be read.

`describe` asks for it; the files are read as they are, and not brought to the size of an experiment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.imaging.files import read_as_asked
from v6_algorithm.data.imaging.picture import UnreadableImageError
from v6_algorithm.data.reading.assumed import Assumed, add
from v6_algorithm.data.summary.cells import tell_labels
from v6_algorithm.experiment.imaging.images import Image

Array = np.ndarray


def describe_images(
    files: Sequence[Path | Array | str | None], image: Image, smallest: int, assumed: Assumed | None = None
) -> dict[str, Any]:
    """Read all images and count them.

    Parameters
    ----------
    files
        One a row, or an array, why there is none, or None where a cell is empty.
    image
        How they are read.
    smallest
        Fewest images that a size or a mean may be told of.
    assumed
        What the files do not say is written here, and what was taken for it.

    Returns
    -------
    dict
        `sizes`, pairs of a size such as ``3x480x640`` (channels first) and how many have it, `hidden`, how many have
        rare ones, `causes` of those that cannot be read, and the means over the others of their lowest and highest
        value, `low` and `high`, which are no single image's; None of too few.
    """
    sizes: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    ends: list[tuple[float, float]] = []
    own: Assumed = {}
    for file in files:
        try:
            picture = read_as_asked(file, image)
        except UnreadableImageError as error:
            causes[error.cause] += 1
            continue
        for kind, detail in picture.assumed.items():
            add(own, kind, detail)
        sizes["x".join(map(str, picture.values.shape))] += 1
        ends.append((float(picture.values.min()) * picture.unit, float(picture.values.max()) * picture.unit))
    if assumed is not None:
        assumed |= own
    shown, hidden = tell_labels({size: sizes[size] for size in sorted(sizes)}, smallest)
    low, high = np.mean(ends, axis=0).tolist() if len(ends) >= max(smallest, 1) else (None, None)
    return {
        "sizes": [[size, rows] for size, rows in shown.items()],
        "hidden": hidden,
        "causes": dict(causes),
        "low": low,
        "high": high,
    }
