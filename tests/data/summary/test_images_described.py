"""What a site tells of its image files: counts and means, none of few images and none that names a file."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.coordinator.description.describe import _check_image
from v6_algorithm.data.imaging.describing import describe_images
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import Image


@pytest.fixture
def files(tmp_path):
    """Twelve images of one size, two of others, one cut short, one that is gone, and an empty cell."""
    for row in range(14):
        shape = (6, 5) if row < 12 else (6, row)
        np.save(tmp_path / f"{row}.npy", np.linspace(row, row + 10, np.prod(shape)).reshape(shape))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "0.npy").read_bytes()[:-9])
    return [*(tmp_path / f"{row}.npy" for row in range(14)), tmp_path / "cut.npy", tmp_path / "gone.npy", None]


def test_sizes_of_few_images_stay_and_causes_are_counted(files):
    told = describe_images(files, Image(column="x"), 5)
    assert told["causes"] == {"damaged": 1, "missing": 1, "empty": 1}
    # Two rare ones alone would be fewer than five: the next size goes with them.
    assert (told["sizes"], told["hidden"]) == ([], 14)
    assert describe_images(files, Image(column="x"), 2)["sizes"] == [["1x6x5", 12]]


def test_values_are_means_over_images_and_not_of_too_few(files):
    told = describe_images(files, Image(column="x"), 5)
    assert told["low"] == pytest.approx(np.mean(range(14)))
    assert told["high"] == pytest.approx(np.mean(range(14)) + 10)
    few = describe_images(files[:3], Image(column="x"), 5)
    assert (few["low"], few["high"]) == (None, None)


def test_a_summary_of_images_that_contradicts_itself_is_refused(files):
    told = describe_images(files, Image(column="x"), 2)
    assert _check_image({"rows": 17, "image": told})["sizes"] == {"1x6x5": 12}
    assert _check_image({"rows": 17}) is None
    for wrong in ({"hidden": 9}, {"causes": {"a patient": 3}}, {"low": float("nan")}, {"sizes": [["<b>", 12]]}):
        with pytest.raises(WireError):
            _check_image({"rows": 17, "image": told | wrong})
