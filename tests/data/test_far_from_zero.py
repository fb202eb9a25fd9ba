"""Numbers far from 0 keep what tells them apart until they are centred, in every source, whatever a few rows hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import command, make_table, write
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import scan

from v6_algorithm.data.encoding import load_table
from v6_algorithm.data.imaging.fitting import fitted
from v6_algorithm.data.imaging.picture import Picture, narrowed
from v6_algorithm.data.imaging.stack import TableImages, read_stack, stack_pixels
from v6_algorithm.data.imaging.statistics import image_moments
from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.data.reading.cells import blurred
from v6_algorithm.data.rows.numbers import numbers_of
from v6_algorithm.data.sequences import stack_sequences
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Experiment, Image, Sequence
from v6_algorithm.learning.problems import problem_class
from v6_algorithm.learning.training.device import Device
from v6_algorithm.learning.training.images import ImageInputs

ROWS = 400
NOISE = np.random.default_rng(0).normal(size=ROWS)


def spoilt(values, share, by):
    values = values.copy()
    values[:: round(1 / share)] = by
    return values


# As users have them: an offset by itself, and beside what stands for "not known", a slip, another unit, a gap.
COLUMNS = {
    "seconds since 1970": 1.7e9 + 40 * NOISE,
    "milliseconds since 1970": 1.7e12 + 4e4 * NOISE,
    "minus": -1e8 + NOISE,
    "pressure in Pa, small changes": 101_325 + 0.5 * NOISE,
    "0 for not known": spoilt(1e8 + NOISE, 0.05, 0.0),
    "half of them 0": spoilt(1e8 + NOISE, 0.5, 0.0),
    "-999 for not known": spoilt(1e7 + NOISE, 0.1, -999.0),
    "empty cells": spoilt(1e8 + NOISE, 0.3, np.nan),
    "infinite cells": spoilt(1e8 + NOISE, 0.1, np.inf),
    "one slip of the decimal point": spoilt(1e8 + NOISE, 1 / ROWS, 1e9),
    "huge beside them": spoilt(1e8 + NOISE, 0.1, 1e30),
    "two scanners": np.where(NOISE > 0, 1e8, 3e8) + np.roll(NOISE, 7),
    "large and small": spoilt(1e12 + 1e3 * NOISE, 0.25, 1.0),
}
# float32 is fine for these, and what was trained on them stays as it was, bit for bit.
PLAIN = {
    "ages": 60 + 9 * NOISE,
    "counts": np.floor(np.exp(9 + 2 * NOISE)),
    "mostly 0": spoilt(np.where(NOISE > 1, np.exp(NOISE), 0.0), 0.5, 0.0),
    "skewed": np.exp(5 * NOISE),
    "platelets": 250_000 + 60_000 * NOISE,
    "years": np.round(1990 + 9 * NOISE),
    "a constant": np.full(ROWS, 1e8),
    "whole numbers that float32 has": 16_000_000 + np.round(50 * NOISE),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("source", ["frame", "csv", "parquet"])
def test_neighbouring_numbers_stay_apart(tmp_path, name, source):
    values = COLUMNS[name]
    frame = pd.DataFrame({"x": values, "other": NOISE})
    file = str(tmp_path / f"table.{source}")
    if source == "csv":
        frame.to_csv(file, index=False)
    if source == "parquet":
        frame.to_parquet(file)
    table = TableSource(frame=frame) if source == "frame" else TableSource(file)
    read = numbers_of(table.read(lambda column: True, exact=()), ["x", "other"], "float32")[:, 0]
    near = np.isfinite(values) & (np.abs(values) > 1e5) & (np.abs(values) < 1e13)
    error = np.abs(read[near].astype(np.float64) - values[near]).max()
    assert error < 1e-3 * np.std(NOISE) * max(1.0, np.abs(values[near]).max() / 1e9)


@pytest.mark.parametrize("name", PLAIN)
def test_others_are_float32_as_ever(tmp_path, name):
    if name == "whole numbers that float32 has":
        assert not blurred(np.array([[0.0], *PLAIN[name][:, None]])).any()
        return
    pd.DataFrame({"x": PLAIN[name]}).to_parquet(tmp_path / "table.parquet")
    for table in (TableSource(frame=pd.DataFrame({"x": PLAIN[name]})), TableSource(str(tmp_path / "table.parquet"))):
        assert numbers_of(table.read(lambda column: True, exact=()), ["x"], "float32").dtype == np.float32


@pytest.mark.parametrize("length", ["shortest", "longest"])
@pytest.mark.parametrize("offset", [1.7e9, -3e8, 1e12])
def test_a_series_with_an_offset_is_centred_before_it_is_rounded(offset, length):
    generator = np.random.default_rng(1)
    waves = [generator.normal(size=(20 + row % 3, 2)) for row in range(40)]
    cells = [wave + np.array([offset, 0.0]) for wave in waves]
    content = {
        "data": {"target": "y", "sequence": {"column": "s", "length": length}},
        "problem": "sequence_classification",
    }
    wanted = Experiment.parse(content)
    times = 20 if length == "shortest" else 22
    frame = pd.DataFrame({"s": pd.Series(cells, dtype=object), "y": np.arange(40) % 2})
    shift = np.array([[offset, 0.0]])
    prepared = Preparation(shift, shift, np.ones((1, 2)))
    setup = Setup(["s[0]", "s[1]"], {}, [0, 1], preparation=prepared, sequence_length=times)
    targets = problem_class(wanted.problem.kind).targets(wanted)
    inputs = load_table({"site": frame}, wanted, setup, targets).inputs(setup, wanted.data, 0)
    assert inputs.dtype == np.float32
    for row, wave in enumerate(waves):
        np.testing.assert_allclose(inputs[row, : min(times, len(wave)), 0], wave[:times, 0], atol=1e-3)
    plain = stack_sequences(pd.Series(waves, dtype=object), Sequence(column="s", length=length), times, 2, "float32")[0]
    assert plain.dtype == np.float32


def test_a_target_that_float32_cannot_tell_apart_is_refused_by_name_with_the_remedy():
    frame = pd.DataFrame({"x": NOISE, "y": 1e8 + 5 * NOISE})

    def load(dtype):
        content = {"data": {"target": "y"}, "problem": "regression", "training": {"dtype": dtype}}
        wanted = Experiment.parse(content)
        targets = problem_class("regression").targets(wanted)
        return load_table({"site": frame}, wanted, Setup(["x"], {}, None), targets)

    with pytest.raises(
        DataError, match=r"column 'y' \(data.target\) .* float32 .*; training.dtype: float64"
    ) as refused:
        load("float32")
    assert "10000" not in str(refused.value)
    np.testing.assert_array_equal(load("float64").target, frame["y"])


# -- end to end ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("images", [False, True])
def test_a_run_and_predict_are_the_same_whatever_the_offset_and_the_unit(tmp_path, images):
    predicted = []
    for name, offset, unit in (("near", 0.0, 1.0), ("far", 1.7e12, 1e3)):
        folder = tmp_path / name
        folder.mkdir()
        tables = {}
        for seed, site in enumerate(("amsterdam", "berlin", "new")):
            table = make_table(40, seed).assign(file=[f"{site}-{row}.npy" for row in range(40)])
            if images:
                noise = np.random.default_rng(seed).normal(size=(40, 4, 4))
                for file, values in zip(table["file"], noise + table["y"].to_numpy()[:, None, None], strict=True):
                    np.save(folder / file, values * unit + offset)
                table = table[["file", "y"]]
            tables[site] = table.assign(a=table["a"] * unit + offset).drop(columns="file") if not images else table
        tables.pop("new").to_csv(folder / "rows.csv", index=False)
        changes = {"model": {"kind": "cnn", "widths": [4]}, "problem": "image_classification"} if images else {}
        data = {"target": "y"} | ({"image": {"column": "file"}} if images else {"features": ["a", "b"]})
        sites = {site: f"{site}.csv" for site in tables}
        experiment = write(folder, tables, **changes, sites=sites, data=data, rounds=2, seed=1)
        assert command("run", experiment, "--out", folder / "out").exit_code == 0
        written = command("predict", folder / "out", folder / "rows.csv", "--out", folder / "predicted.csv")
        assert written.exit_code == 0, written.output
        predicted.append(pd.read_csv(folder / "predicted.csv")["p(1)"])
    assert predicted[0].std() > 0.001
    np.testing.assert_allclose(predicted[1], predicted[0], atol=1e-5)


# -- images ----------------------------------------------------------------------------------------------------------

PICTURES = 12


def written(folder, kind, images):
    """Write (images, 6, 8) whole numbers as files of a kind, or return arrays."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number}.{kind.split()[0]}" for number in range(len(images))]
    for file, values in zip(files, images, strict=True):
        if file.suffix == ".npy":
            np.save(file, values.astype(kind.split()[1]))
        if file.suffix == ".tif":
            pytest.importorskip("PIL.Image").fromarray(values.astype(np.int32)).save(file)
        if file.suffix == ".nii":
            nibabel = pytest.importorskip("nibabel")
            content = nibabel.Nifti1Image(values[..., None].astype(kind.split()[1]), np.eye(4))
            if "int16" in kind:
                content = nibabel.Nifti1Image((values - images.min())[..., None].astype(np.int16), np.eye(4))
                content.header.set_slope_inter(1, float(images.min()))
            nibabel.save(content, file)
        if file.suffix == ".dcm":
            pytest.importorskip("pydicom")
            scan(file, (values - values.min()).astype(np.uint16), RescaleSlope=1, RescaleIntercept=int(values.min()))
    return [values.astype(np.float64) for values in images] if kind == "array" else files


def inputs_of(stack):
    """Return what a network gets of all images, centred by their own mean and deviation."""
    table = TableImages([stack], np.zeros(len(stack.array), int), np.arange(len(stack.array)))
    moments = image_moments(table, [table.position], with_range=False)
    deviation = np.sqrt(moments.squares / moments.count)
    setup = Setup(["image[0]"], {}, None, preparation=Preparation(moments.mean, moments.mean, deviation))
    return ImageInputs.of(table, setup, 0, "float32", Device("cpu"))[torch.arange(len(table.position))]


@pytest.mark.parametrize("wanted", [{}, {"size": [3, 5]}, {"size": [8, 6], "fit": "crop"}, {"size": [9, 9]}])
@pytest.mark.parametrize(
    "kind", ["npy float64", "npy int64", "npy int32", "tif", "nii int16", "nii float64", "dcm", "array"]
)
def test_images_with_an_offset_are_centred_before_they_are_rounded(tmp_path, kind, wanted):
    plain = np.random.default_rng(2).integers(-50, 51, (PICTURES, 6, 8))
    if wanted.get("fit") == "crop":
        plain[:, 0, 0] = -50  # what is filled up
    stacks = [
        read_stack(written(tmp_path / name, kind, images), Image(column="f", channels=1, **wanted), None)
        for name, images in (("near", plain), ("far", plain + 200_000_000))
    ]
    assert [stack.array.dtype for stack in stacks] == [np.float32, np.float64]
    near, far = (inputs_of(stack) for stack in stacks)
    assert far.dtype == torch.float32
    torch.testing.assert_close(far, near, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["npy float64", "nii float64", "array"])
def test_a_range_far_from_zero_is_as_one_near_it(tmp_path, kind):
    plain = np.random.default_rng(2).integers(-50, 51, (PICTURES, 6, 8))
    plain[:, 2:4] = -900_000  # air beside what matters
    for size in (None, [3, 4]):
        near, far = (
            read_stack(
                written(tmp_path / str(offset), kind, plain + offset),
                Image(column="f", range=(offset - 40, offset + 40), size=size),
                None,
            ).array
            for offset in (0, 1_000_000_000)
        )
        assert far.dtype == np.float32
        assert len(np.unique(far)) > 50
        np.testing.assert_allclose(far, near, atol=1e-5)


def test_given_mean_and_sd_say_how_fine_images_have_to_be(tmp_path):
    plain = np.random.default_rng(2).normal(size=(PICTURES, 6, 8))
    plain[:, 0] = -1e8
    files = written(tmp_path, "npy float64", plain + 1e8)
    exact = read_stack(files, Image(column="f", mean=[1e8], sd=[1.0]), None)
    np.testing.assert_array_equal(exact.array[:, 0], plain + 1e8)
    # Of what spans all of that by itself, float32 takes nothing that training would see.
    assert read_stack(files, Image(column="f"), None).array.dtype == np.float32


def test_each_channel_counts_and_so_does_each_image_of_a_single_value(tmp_path):
    colours = np.random.default_rng(2).normal(size=(3, 4, 5)) + np.array([0, 1e9, 0])[:, None, None]
    assert narrowed(colours, None).dtype == np.float64
    assert narrowed(colours[::2], None).dtype == np.float32
    flat = [np.full((4, 5), 1e9 + number) for number in range(PICTURES)]
    assert len(np.unique(inputs_of(read_stack(flat, Image(column="f"), None)))) == PICTURES
    assert narrowed(np.full((1, 4, 5), 0.1), None).dtype == np.float32


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_pixels_in_columns_with_an_offset_are_centred_before_they_are_rounded(tmp_path, name):
    from v6_algorithm.data.rows.pixels import Pixels

    plain = np.random.default_rng(2).normal(size=(40, 6))
    names = [f"p{place}" for place in range(6)]
    outputs = []
    for offset in (0, 1e9):
        frame = pd.DataFrame(plain + offset, columns=names)
        (frame.to_csv(tmp_path / name, index=False) if name.endswith("csv") else frame.to_parquet(tmp_path / name))
        data = Experiment.parse(
            {"data": {"target": "y", "image": {"shape": [1, 2, 3]}}, "problem": "image_classification"}
        ).data
        outputs.append(inputs_of(Pixels(data).make_stack(TableSource(str(tmp_path / name)), names, None)))
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-5)


def test_images_far_from_zero_are_kept_and_streamed_as_they_are(tmp_path):
    images = list(np.random.default_rng(2).normal(size=(PICTURES, 4, 5)) + 1e9)
    images[3] = images[1]
    kept = read_stack(images, Image(column="f"), tmp_path / "kept.npy")
    again = read_stack(images, Image(column="f"), None)
    np.testing.assert_array_equal(kept.array, again.array)
    assert kept.copies.tolist() == [[3, 1]]
    assert np.load(tmp_path / "kept.npy").dtype == np.float64


@settings(max_examples=30)
@given(
    st.sampled_from(["uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, (-100.0, 400.0), (0.0, 1.0)]),
)
def test_ordinary_images_have_the_bits_they_had(dtype, seed, limits):
    generator = np.random.default_rng(seed)
    values = generator.normal(40, 400, (1, 9, 7)).clip(-1024, 3071)
    values = (values.clip(0, 255) if dtype == "uint8" else np.abs(values) if dtype[0] == "u" else values).astype(dtype)
    image = Image(column="f", size=[4, 5], range=limits)
    single = values if dtype == "uint8" else values.astype(np.float32)
    expected, _ = fitted(Picture(single), image)
    array = read_stack([values[0]], image, None).array
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array[0], expected)
    pixels = values.reshape(1, -1).astype(np.float64)
    stored = stack_pixels(pixels, Image(shape=[1, 9, 7], range=limits), None).array
    assert stored.dtype in (np.uint8, np.float32)
