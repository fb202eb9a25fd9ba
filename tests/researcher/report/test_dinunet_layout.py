"""The results in coinstac-dinunet's layout: its names, and headers that match their rows, which its own do not."""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import safetensors.torch
import torch

from v6_algorithm.researcher.report import dinunet, write_artifacts

TASK = "Head-and-neck--ten-folds"
PLOTS = 3


@pytest.fixture(scope="module")
def written(kfold_of_module: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    kfold, folder = kfold_of_module, tmp_path_factory.mktemp("written")
    kfold["experiment"]["output"] = {"model": "best", "dinunet": True}
    tensors = {f"fold-{fold}/model.weight": torch.full((2, 3), float(fold)) for fold in range(10)}
    kfold["parameters"] = base64.b64encode(safetensors.torch.save(tensors)).decode()
    draw, drawn = dinunet._png, []

    def drawn_for_fold_0(*curve: Any) -> bytes:
        """Thirty pictures take longer than all else that is tested here: later folds get those of the first."""
        if len(drawn) < PLOTS:
            drawn.append(draw(*curve))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dinunet, "_png", drawn_for_fold_0)
        write_artifacts(kfold, folder)
    return folder / "dinunet"


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing thirty pictures takes longer than all else that is tested here."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))


def test_the_names_are_those_of_dinunet(written: Path) -> None:
    names = {str(path.relative_to(written / TASK)) for path in (written / TASK).rglob("*") if path.is_file()}
    plots = ("train_log_0", "validation_log_0", "validation_log_1")
    of_folds = ["test_metrics.csv", "logs.json", *(f"{plot}.{kind}" for plot in plots for kind in ("svg", "png"))]
    # The history of fold 3 has no metric but the loss.
    wanted = {f"fold_{fold}/{name}" for fold in range(10) for name in of_folds}
    wanted -= {"fold_3/validation_log_1.svg", "fold_3/validation_log_1.png"}
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


@pytest.mark.usefixtures("without_matplotlib")
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


def test_a_plot_is_a_picture_of_its_own_with_the_curves_of_its_fold(written: Path, kfold: dict[str, Any]) -> None:
    for number in (0, 7):
        fold = kfold["folds"][number]
        folder = written / TASK / f"fold_{number}"
        root = ElementTree.parse(folder / "validation_log_1.svg").getroot()  # noqa: S314 our own file
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        told = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")][1:]
        values = enumerate(fold["history"]["validation_auroc"], start=1)
        assert told == [f"AUROC, round {at}: {value:.4g}" for at, value in values]
        # Nothing is looked up elsewhere: colours and rules are in the file.
        text = (folder / "validation_log_1.svg").read_text()
        assert "--look-0: #0072b2" in text
        assert "svg .line" in text
        for stem in ("train_log_0", "validation_log_0", "validation_log_1"):
            assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_png_shows_its_curve(plain: dict[str, Any]) -> None:
    """A falling loss: the dark pixels of the curve come lower from left to right."""
    image = pytest.importorskip("matplotlib.image")
    plain["experiment"]["output"] = {"dinunet": True}
    plain["best_round"] = None
    plain["history"]["train_loss"] = [14.0 - at for at in range(14)]
    pixels = image.imread(io.BytesIO(dinunet.dinunet_files(plain)["dinunet/heart/fold_0/train_log_0.png"]))
    # matplotlib's first colour is blue.
    blue = (pixels[..., 2] - pixels[..., 0]) > 0.5
    columns = [column for column in range(blue.shape[1]) if blue[:, column].any()]
    first, last = (blue[:, columns[int(share * len(columns))]].nonzero()[0].mean() for share in (0.1, 0.6))
    assert last > first + 50


def test_without_matplotlib_the_plots_are_svg_and_that_is_said(
    kfold: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert dinunet.notes(kfold) == []
    kfold["experiment"]["output"] = {"dinunet": True}
    assert dinunet.notes(kfold) == [
        "output.dinunet: its plots are written as SVG only; for PNG too: pip install 'v6-algorithm[plots]'"
    ]
    write_artifacts(kfold, tmp_path)
    assert not list(tmp_path.rglob("*.png"))
    assert len(list(tmp_path.rglob("*.svg"))) == 29


def test_a_name_with_dollars_is_no_formula(plain: dict[str, Any]) -> None:
    plain["experiment"]["output"] = {"dinunet": True}
    plain["history"]["validation_a$\\x$.auroc"] = plain["history"].pop("validation_auroc")
    plain["metrics"]["test"]["pooled"] = {"a$\\x$.auroc": 0.9}
    assert "dinunet/heart/fold_0/validation_log_1.png" in dinunet.dinunet_files(plain)


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
@pytest.mark.usefixtures("without_matplotlib")
def test_any_key_of_the_result_may_be_absent(null: bool, plain: dict[str, Any], tmp_path: Path) -> None:
    plain["experiment"]["output"] = {"dinunet": True}
    for key in plain:
        partial = {name: value for name, value in plain.items() if name != key}
        write_artifacts(partial | ({key: None} if null else {}), tmp_path / key)
