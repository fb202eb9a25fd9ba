"""A model as ONNX and torch.export: each kind gives what `predict` gives on real rows, to 1e-5, and for any number."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import command, make_table

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError

PAGE = Path(__file__).parents[3] / "docs" / "python.md"
GENERATOR = np.random.default_rng(0)


def with_gaps(rows: int, seed: int) -> pd.DataFrame:
    """Numbers of very different size, a category and empty cells."""
    frame = make_table(rows, seed)
    frame["a"] = 5000 + 300 * frame["a"]
    frame.loc[frame.index % 7 == 0, "b"] = np.nan
    return frame.assign(sex=np.where(np.arange(rows) % 3 == 0, "f", "m"))


def series(rows: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    y = GENERATOR.integers(0, 2, rows)
    return GENERATOR.normal(size=(rows, *shape)) + y.reshape(-1, *[1] * len(shape)), y


def numbers(frame: pd.DataFrame) -> np.ndarray:
    return frame[[name for name in frame.columns if frame[name].dtype.kind == "f"]].to_numpy(float)


def run_exports(folder: Path, stem: str, inputs: np.ndarray) -> list[np.ndarray]:
    """Give the inputs to what stands in the folder."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(folder / f"{stem}.onnx"))
    program = torch.export.load(folder / f"{stem}.pt2").module()
    given = inputs.astype(json.loads((folder / "model.json").read_text())["dtype"])
    return [session.run(None, {"inputs": given})[0], program(torch.tensor(given)).detach().numpy()]


TABLE = {"a": with_gaps(80, 1), "b": with_gaps(60, 2)}
SMALL = {"rounds": 2, "batch_size": 16, "seed": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "sites"),
    [
        pytest.param({"target": "y", "categorical": ["sex"], "hidden": [8]}, TABLE, id="classes"),
        pytest.param(
            {"target": "d", "problem": "regression", "features": ["a", "b", "c"], "model": "linear"}, TABLE, id="number"
        ),
    ],
)
def test_an_exported_table_model_is_predict(tmp_path, keys, sites):
    pytest.importorskip("onnxruntime")
    result = v6.run({**SMALL, **keys}, sites)
    result.export(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    frame = with_gaps(33, 5)
    dummies = pd.get_dummies(frame["sex"], prefix="sex", prefix_sep="=").astype(float)
    expected = result.predict(frame)
    for given in run_exports(tmp_path, "model", frame.join(dummies)[about["inputs"]].to_numpy()):
        assert np.abs(given - numbers(expected)).max() < 1e-5 * max(1, np.abs(numbers(expected)).max())
    assert about["outputs"] == [name for name in expected.columns if expected[name].dtype.kind == "f"]


@pytest.mark.slow
def test_a_model_of_columns_far_from_zero_is_exported_with_the_digits_that_it_needs(tmp_path):
    pytest.importorskip("onnxruntime")
    sites = {name: frame.assign(a=1.7e12 + frame["a"]) for name, frame in TABLE.items()}
    result = v6.run({**SMALL, "target": "y", "features": ["a", "b"]}, sites)
    result.export(tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["dtype"] == "float64"
    new = with_gaps(33, 5)
    new["a"] += 1.7e12
    for given in run_exports(tmp_path, "model", new[["a", "b"]].to_numpy()):
        assert np.abs(given - numbers(result.predict(new))).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "model"), [((6, 2), {"kind": "gru", "hidden": 4}), ((1, 8, 8), {"kind": "cnn", "widths": [4]})]
)
def test_exported_series_and_images_are_predict(tmp_path, shape, model):
    pytest.importorskip("onnxruntime")
    sites = {name: series(40, shape) for name in "ab"}
    result = v6.run({**SMALL, "target": "y", "model": model}, sites)
    result.export(tmp_path)
    new = series(9, shape)[0]
    for given in run_exports(tmp_path, "model", new):
        assert np.abs(given - numbers(result.predict(new))).max() < 1e-5


@pytest.mark.slow
def test_exported_survival_and_folds_are_predict(tmp_path):
    pytest.importorskip("onnxruntime")
    x = GENERATOR.normal(size=(120, 3))
    frame = pd.DataFrame(x, columns=["u", "v", "w"]).assign(
        time=GENERATOR.exponential(np.exp(-x[:, 0])) + 0.01, event=GENERATOR.integers(0, 2, 120)
    )
    keys = {"data": {"target": {"duration": "time", "event": "event"}}, "problem": "survival", "model": "linear"}
    result = v6.run({**SMALL, "rounds": 2, **keys, "batch_size": None}, {"a": frame[:60], "b": frame[60:]})
    result.export(tmp_path / "cox")
    for given in run_exports(tmp_path / "cox", "model", frame[["u", "v", "w"]].to_numpy()):
        assert np.abs(given - numbers(result.predict(frame))).max() < 1e-5
    folds = v6.run({**SMALL, "target": "y", "folds": 3, "exclude": ["sex"]}, TABLE)
    folds.export(tmp_path / "folds")
    inputs = with_gaps(20, 9)[["a", "b", "c", "d"]].to_numpy()
    each = [run_exports(tmp_path / "folds", f"fold-{number}", inputs)[0] for number in range(3)]
    assert np.abs(np.mean(each, axis=0) - numbers(folds.predict(with_gaps(20, 9)))).max() < 1e-5


@pytest.fixture(scope="module")
def small() -> v6.Result:
    return v6.run({**SMALL, "target": "y", "exclude": ["sex"]}, TABLE)


@pytest.mark.slow
def test_a_strangers_three_lines_on_the_page_load_it(small, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    small.export("heart-model", ["onnx"])
    (code,) = re.findall(r"^```python stranger\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    names = {"json": json, "onnxruntime": onnxruntime, "table": with_gaps(12, 3)}
    exec(compile(code, "stranger", "exec"), names)  # noqa: S102
    assert names["predictions"].shape == (12, 2)
    assert len([line for line in code.splitlines() if line]) == 3


@pytest.mark.slow
def test_the_command_says_what_it_wrote_and_how_near_it_is(small, tmp_path):
    small.save(tmp_path / "run")
    done = command("export", tmp_path / "run", tmp_path / "out", "--format", "torch")
    assert done.exit_code == 0, done.output
    assert "wrote model.pt2, model.json" in done.output
    wrong = command("export", tmp_path / "run", tmp_path / "other", "--format", "keras")
    assert wrong.exit_code == 2
    assert "format 'keras' is not known; allowed: onnx, torch" in wrong.output


def test_an_export_that_differs_is_not_kept(small, tmp_path, monkeypatch):
    from v6_algorithm.researcher import export

    monkeypatch.setattr(
        export, "_to_torch", lambda model, inputs, path: path.touch() or (lambda x: model(x).detach().numpy() + 1e-3)
    )
    with pytest.raises(ExperimentError, match=r"model.pt2 differs from the model by 1.0e-03; it is not kept"):
        small.export(tmp_path, ["torch"])
    assert not (tmp_path / "model.pt2").exists()


def test_preparation_by_the_tables_own_rows_is_refused(tmp_path):
    keys = {**SMALL, "data": {"target": "y", "exclude": ["sex"], "scaling": {"kind": "standard", "scope": "site"}}}
    with pytest.raises(ExperimentError, match="scope site scales a table by its own rows"):
        v6.run(keys, TABLE).export(tmp_path)
