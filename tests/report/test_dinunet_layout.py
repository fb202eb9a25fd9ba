"""The results in coinstac-dinunet's layout: its names, and headers that match their rows, which its own do not."""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from v6_algorithm.report import write_artifacts

TASK = "Head-and-neck--ten-folds"


@pytest.fixture
def written(kfold: dict[str, Any], tmp_path: Path) -> Path:
    kfold["experiment"]["output"] = {"model": "best", "dinunet": True}
    tensors = {f"fold-{fold}/model.weight": torch.full((2, 3), float(fold)) for fold in range(10)}
    kfold["parameters"] = base64.b64encode(safetensors.torch.save(tensors)).decode()
    write_artifacts(kfold, tmp_path)
    return tmp_path / "dinunet"


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))


def test_the_names_are_those_of_dinunet(written: Path) -> None:
    names = {str(path.relative_to(written / TASK)) for path in (written / TASK).rglob("*") if path.is_file()}
    of_folds = ("test_metrics.csv", "logs.json")
    wanted = {f"fold_{fold}/{name}" for fold in range(10) for name in of_folds}
    assert names == wanted | {"global_test_metrics.csv"} | {f"fold_{n}/best.{TASK}-{n}.safetensors" for n in range(10)}


def test_dinunet_bug_headers_match_their_rows(written: Path, kfold: dict[str, Any]) -> None:
    """seeds.md 2.10: a header of two or three names, over rows of five values."""
    places = [(written / TASK / "global_test_metrics.csv", kfold)]
    places += [(written / TASK / f"fold_{n}" / "test_metrics.csv", fold) for n, fold in enumerate(kfold["folds"])]
    for path, source in places:
        header, values = rows_of(path)
        assert header[:5] == ["loss", "accuracy", "f1", "precision", "recall"]
        assert len(header) == len(values)
        pooled = source["metrics"]["test"]["pooled"]
        assert {name: float(value) for name, value in zip(header, values, strict=True)} == {
            name: pooled[name] for name in header
        }


def test_a_metric_that_one_fold_does_not_have_shifts_no_column(kfold: dict[str, Any], tmp_path: Path) -> None:
    kfold["experiment"]["output"] = {"dinunet": True}
    kfold["folds"][4]["metrics"]["test"]["pooled"]["accuracy"] = None
    write_artifacts(kfold, tmp_path)
    header, values = rows_of(tmp_path / "dinunet" / TASK / "fold_4" / "test_metrics.csv")
    assert values[header.index("accuracy")] == ""
    assert float(values[header.index("f1")]) == kfold["folds"][4]["metrics"]["test"]["pooled"]["f1"]


def test_logs_tell_of_their_fold(written: Path, kfold: dict[str, Any]) -> None:
    for number, fold in enumerate(kfold["folds"]):
        logs = json.loads((written / TASK / f"fold_{number}" / "logs.json").read_text())
        assert (logs["split_ix"], logs["num_folds"], logs["best_val_epoch"]) == (number, 10, fold["best_round"])
        assert [value for (value,) in logs["train_log"]] == fold["history"]["train_loss"]
        assert all(len(row) == len(logs["log_header"]) for row in logs["validation_log"] + logs["test_metrics"])
        losses = [row[logs["log_header"].index("loss")] for row in logs["validation_log"]]
        assert losses == fold["history"]["validation_loss"]
        assert logs["best_val_score"] == losses[fold["best_round"] - 1]
        assert logs["args"]["seed"] == 0


def test_each_fold_has_its_model_as_safetensors(written: Path) -> None:
    for fold in range(10):
        model = safetensors.torch.load_file(written / TASK / f"fold_{fold}" / f"best.{TASK}-{fold}.safetensors")
        assert list(model) == ["model.weight"]
        assert model["model.weight"].unique().tolist() == [fold]


def test_the_zip_holds_all_files_and_is_named_after_task_strategy_and_time(written: Path) -> None:
    (packed,) = written.glob("*.zip")
    assert packed.name.startswith(f"{TASK}_fedavg_20")
    with zipfile.ZipFile(packed) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert held == {str(p.relative_to(written)): p.read_bytes() for p in (written / TASK).rglob("*") if p.is_file()}


def test_a_single_split_is_fold_0_as_in_dinunet(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["experiment"]["output"] = {"dinunet": True}
    write_artifacts(plain, tmp_path)
    _, values = rows_of(tmp_path / "dinunet" / "heart" / "fold_0" / "test_metrics.csv")
    assert [values] == rows_of(tmp_path / "dinunet" / "heart" / "global_test_metrics.csv")[1:]


def test_nothing_of_dinunet_is_written_unless_asked(kfold: dict[str, Any], tmp_path: Path) -> None:
    write_artifacts(kfold, tmp_path)
    assert not (tmp_path / "dinunet").exists()


def test_a_run_that_stopped_before_its_test_leaves_what_there_is(stopped: dict[str, Any], tmp_path: Path) -> None:
    stopped["experiment"]["output"] = {"dinunet": True}
    write_artifacts(stopped, tmp_path)
    place = tmp_path / "dinunet" / "heart--interrupted"
    assert (place / "global_test_metrics.csv").read_text() == ""
    assert json.loads((place / "fold_0" / "logs.json").read_text())["test_metrics"] == []


@pytest.mark.parametrize("null", [False, True])
def test_any_key_of_the_result_may_be_absent(null: bool, plain: dict[str, Any], tmp_path: Path) -> None:
    plain["experiment"]["output"] = {"dinunet": True}
    for key in plain:
        partial = {name: value for name, value in plain.items() if name != key}
        write_artifacts(partial | ({key: None} if null else {}), tmp_path / key)
