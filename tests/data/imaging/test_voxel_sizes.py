"""Voxels of another size at one site, or within one, are told: the same organ would be learned in two sizes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.imaging.fitting import fitted, voxel_size
from v6_algorithm.data.imaging.picture import Picture
from v6_algorithm.data.rows.image_files import _check_voxels, _unlike_voxels
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.imaging.images import Image
from v6_algorithm.site.policy import Policy

nibabel = pytest.importorskip("nibabel")
ROWS = 12


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (1, 2, 4)),
        ({"size": [6, 6, 6], "fit": "crop"}, (1, 2, 4)),
        ({"size": [6, 6, 6], "fit": "stretch"}, (2, 2, 2)),
        # The largest factor, 6 / 3, along all axes.
        ({"size": [6, 6, 6], "fit": "cover"}, (0.5, 1, 2)),
        ({"spacing": [2, 2, 2]}, (2, 2, 2)),
        ({"spacing": [2, 2, 2], "size": [6, 6, 3], "fit": "stretch"}, (2, 2, 4)),
    ],
)
def test_the_size_of_a_voxel_is_that_of_the_tensor(asked, size):
    picture = Picture(np.zeros((1, 12, 6, 3), dtype=np.float32), spacing=(1.0, 2.0, 4.0))
    image = Image(column="x", dimensions=3, **asked)
    assert voxel_size(picture, image) == pytest.approx(size)
    assert voxel_size(Picture(picture.values), image.model_copy(update={"spacing": None})) is None
    # The length in millimetres of what was not cut is that of the file.
    if asked.get("fit", "stretch") == "stretch":
        lengths = fitted(picture, image)[0].shape[1:]
        assert np.multiply(lengths, size) == pytest.approx([12, 12, 12])


def hospital(folder, millimetres):
    """Write volumes whose voxels have these sizes in turn, and the table that names them."""
    folder.mkdir()
    generator = np.random.default_rng(len(str(folder)))
    for row in range(ROWS):
        values = generator.normal(size=(6, 6, 6)).astype(np.float32)
        affine = np.diag([*[millimetres[row % len(millimetres)]] * 3, 1])
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{row}.nii")
    names = [f"{row}.nii" for row in range(ROWS)]
    pd.DataFrame({"scan": names, "y": np.arange(ROWS) % 2}).to_csv(folder / "table.csv", index=False)
    return TableSource(str(folder / "table.csv"))


def notes_of(tmp_path, spacings, policy=None, **image):
    experiment = Experiment.parse(
        {
            "data": {"target": "y", "image": {"column": "scan", **image}},
            "problem": "volume_classification",
            "model": {"kind": "cnn", "widths": [2]},
            "split": {"kind": "ratio", "train": 0.5, "validation": 0.25, "test": 0.25},
            "rounds": 1,
        }
    )
    sites = {site: hospital(tmp_path / site, sizes) for site, sizes in spacings.items()}
    result = run(local_federation(experiment, sites, policy=policy), experiment)
    assert json.dumps(result)
    return [note for note in result["notes"] if "voxels" in note]


@pytest.mark.parametrize(
    ("spacings", "image", "shown"),
    [
        ({"a": [1], "b": [3]}, {"size": [4, 4, 4], "fit": "crop"}, "a 1 x 1 x 1; b 3 x 3 x 3"),
        ({"a": [1], "b": [3]}, {}, "a 1 x 1 x 1; b 3 x 3 x 3"),
        ({"a": [1, 2], "b": [1]}, {}, "a 1 to 2 x 1 to 2 x 1 to 2; b 1 x 1 x 1"),
        ({"a": [1.0], "b": [1.4]}, {}, None),
        ({"a": [1], "b": [3]}, {"spacing": [2, 2, 2], "size": [4, 4, 4], "fit": "crop"}, None),
    ],
)
def test_voxels_of_two_sizes_are_told_with_the_remedy(tmp_path, spacings, image, shown):
    told = notes_of(tmp_path, spacings, **image)
    assert len(told) == (shown is not None)
    assert all(f"of most images: {shown})" in note and "data.image.spacing" in note for note in told)


def test_one_odd_image_and_sites_of_too_few_images_are_not_told(tmp_path):
    assert notes_of(tmp_path, {"a": [1] * 11 + [5], "b": [1]}) == []
    (tmp_path / "few").mkdir()
    assert notes_of(tmp_path / "few", {"a": [1], "b": [3]}, policy=Policy(minimum_cell=ROWS + 1)) == []


@pytest.mark.parametrize("sites", [{}, {"a": []}, {"a": [], "b": [[1, 1, 1], [1, 1, 1]]}])
def test_where_nothing_is_known_nothing_is_told(sites):
    assert _unlike_voxels(sites) == []


@pytest.mark.parametrize(
    "given", [None, {}, [[1, 1, 1]], [[1, 1], [1, 1]], [[1, 1, 0], [1, 1, 1]], [[1, 1, 1], [1, 1, "1"]], [1, 2]]
)
def test_what_a_site_says_of_voxels_is_checked(given):
    with pytest.raises(WireError, match="voxels"):
        _check_voxels(given, 3)
    _check_voxels([[1, 1, 0.5], [2, 2, 2.5]], 3)
    _check_voxels([], 2)
