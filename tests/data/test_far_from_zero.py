"""Numbers far from 0 keep what tells them apart until they are centred, in every source, whatever a few rows hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.cells import blurred
from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.data.rows.numbers import numbers_of
from v6_algorithm.data.sequences import stack_sequences
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.table import load_table
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Experiment, Sequence
from v6_algorithm.learning.problems import problem_class

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
