"""The files of a run: there, complete, readable by the tools researchers use, and never outside their folder."""

from __future__ import annotations

import base64
import csv
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.exchange.text import cell
from v6_algorithm.researcher.report import PartlyWrittenError, artifacts, write_artifacts

EVIL = [
    "<script>alert(1)</script>",
    "../../evil",
    "..",
    "",
    "a/b",
    "a\\b",
    'Zürich, "Süd"\nnord',
    "=1+1",
    "\x1b[31mred",
]


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restkey="more", restval="less")
        rows = list(reader)
    return list(reader.fieldnames or []), rows


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_a_run_leaves_the_six_files(plain: dict[str, Any], tmp_path: Path) -> None:
    written = write_artifacts(plain, tmp_path / "new" / "folder")
    names = ["result.json", "history.csv", "metrics.csv", "metrics.json", "report.html", "model.safetensors"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(names)


def test_result_json_is_the_result(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["name"] = "Zürich"
    write_artifacts(plain, tmp_path)
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert json.loads(text) == plain
    assert "Zürich" in text


def test_model_file_holds_the_decoded_parameters(plain: dict[str, Any], tmp_path: Path) -> None:
    write_artifacts(plain, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"


def test_history_has_one_row_per_round(plain: dict[str, Any], tmp_path: Path) -> None:
    write_artifacts(plain, tmp_path)
    header, rows = read_csv(tmp_path / "history.csv")
    assert header == ["round", "train_loss", "validation_loss", "validation_auroc"]
    assert [int(row["round"]) for row in rows] == plain["history"]["round"]
    assert [float(row["train_loss"]) for row in rows] == plain["history"]["train_loss"]


def test_kfold_history_has_one_block_per_fold(kfold: dict[str, Any], tmp_path: Path) -> None:
    write_artifacts(kfold, tmp_path)
    header, rows = read_csv(tmp_path / "history.csv")
    assert header[:2] == ["fold", "round"]
    for fold in kfold["folds"]:
        block = [row for row in rows if row["fold"] == str(fold["fold"])]
        assert [int(row["round"]) for row in block] == fold["history"]["round"]
    # The fold without AUROC leaves its cells empty; its losses stay in their columns.
    block = [row for row in rows if row["fold"] == "3"]
    assert {row["validation_auroc"] for row in block} == {""}
    assert [float(row["validation_loss"]) for row in block] == kfold["folds"][3]["history"]["validation_loss"]


@pytest.mark.parametrize("run", ["plain", "kfold", "stopped"])
@pytest.mark.parametrize("file", ["history.csv", "metrics.csv"])
def test_csv_header_matches_every_row(run: str, file: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    write_artifacts(request.getfixturevalue(run), tmp_path)
    header, rows = read_csv(tmp_path / file)
    assert rows
    assert len(set(header)) == len(header)
    assert all("more" not in row and "less" not in row.values() for row in rows)


def test_metrics_are_one_value_per_row(plain: dict[str, Any], tmp_path: Path) -> None:
    write_artifacts(plain, tmp_path)
    header, rows = read_csv(tmp_path / "metrics.csv")
    assert header == ["run", "part", "scope", "name", "metric", "value", "class"]
    assert {row["class"] for row in rows if row["metric"] in ("f1", "auroc_resolution")} == {"num > 0"}
    assert {row["class"] for row in rows if row["metric"] in ("loss", "accuracy")} == {""}
    assert json.loads((tmp_path / "metrics.json").read_text())["class"] == "num > 0"
    found = {tuple(row[key] for key in header[:5]): row["value"] for row in rows}
    assert len(found) == len(rows)
    test = plain["metrics"]["test"]
    assert float(found["federated", "test", "pooled", "", "auroc"]) == test["pooled"]["auroc"]
    assert float(found["federated", "test", "mean_over_sites", "", "f1"]) == test["mean_over_sites"]["f1"]
    assert float(found["federated", "test", "site", "hungarian", "auroc"]) == test["sites"]["hungarian"]["auroc"]
    assert found["federated", "test", "site", "va", "auroc"] == ""


def test_metrics_of_baselines_follow_the_main_run(plain: dict[str, Any], tmp_path: Path) -> None:
    write_artifacts(plain, tmp_path)
    _, rows = read_csv(tmp_path / "metrics.csv")
    assert list(dict.fromkeys(row["run"] for row in rows)) == ["federated", "centralised", "local"]


def test_metrics_of_folds_are_listed(kfold: dict[str, Any], tmp_path: Path) -> None:
    write_artifacts(kfold, tmp_path)
    _, rows = read_csv(tmp_path / "metrics.csv")
    folds = {row["name"] for row in rows if row["scope"] == "fold" and row["part"] == "test"}
    assert folds == {str(fold) for fold in range(10)}


def test_folds_that_leave_a_site_out_are_called_after_it(kfold: dict[str, Any], tmp_path: Path) -> None:
    for fold, site in zip(kfold["folds"], kfold["sites"], strict=False):
        fold["test_site"] = site
    write_artifacts(kfold | {"folds": kfold["folds"][:5]}, tmp_path)
    for file, column in (("metrics.csv", "name"), ("history.csv", "fold")):
        _, rows = read_csv(tmp_path / file)
        assert set(kfold["sites"]) <= {row[column] for row in rows if row.get("scope", "fold") == "fold"}


def test_folds_of_sites_that_train_alone_are_told_apart(kfold: dict[str, Any], tmp_path: Path) -> None:
    for fold in kfold["folds"]:
        fold |= {"fold": fold["fold"] % 5, "site": "north" if fold["fold"] < 5 else "south"}
    write_artifacts(kfold, tmp_path)
    _, rows = read_csv(tmp_path / "metrics.csv")
    assert {"north 0", "south 0"} <= {row["name"] for row in rows if row["scope"] == "fold"}


def test_hostile_site_names_survive_the_csv(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["metrics"]["test"]["sites"] = {name: {"auroc": 0.5} for name in EVIL}
    write_artifacts(plain, tmp_path)
    _, rows = read_csv(tmp_path / "metrics.csv")
    names = [row["name"] for row in rows if row["run"] == "federated" and row["part"] == "test"][-len(EVIL) :]
    # What a spreadsheet would run is quoted, what a terminal would act on is replaced; all else is as it was.
    assert names == [cell(name) for name in EVIL]
    assert not any(name.startswith(("=", "+", "-", "@")) or "\x1b" in name for name in names)
    assert "<script>" in "".join(names)


def test_a_runs_files_are_their_owners_alone(plain: dict[str, Any], tmp_path: Path) -> None:
    for path in write_artifacts(plain, tmp_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_values_that_are_not_finite_become_null_and_are_named(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["history"]["train_loss"][2] = float("nan")
    plain["metrics"]["test"]["pooled"]["auroc"] = float("inf")
    write_artifacts(plain, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert result["history"]["train_loss"][2] is None
    assert "history.train_loss" in result["notes"][-1]
    assert "metrics.test.pooled.auroc" in result["notes"][-1]
    for file in ("history.csv", "metrics.csv", "report.html"):
        words = (tmp_path / file).read_text(encoding="utf-8").replace("<", ",").replace(">", ",").split(",")
        assert not {word.strip().lower() for word in words} & {"nan", "inf", "-inf"}


def test_passwords_do_not_reach_the_files(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["experiment"]["sites"] = {
        "a": {"uri": "postgresql+psycopg2://reader:s3cret@db/heart"},
        "b": {"uri": "Server=db;PWD=s3cret;Database=heart"},
    }
    for path in write_artifacts(plain, tmp_path):
        assert b"s3cret" not in path.read_bytes()
    assert "postgresql+psycopg2://reader:***@db/heart" in (tmp_path / "result.json").read_text(encoding="utf-8")


def test_text_without_utf8_is_kept_escaped(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["notes"] = ["\ud800"]
    write_artifacts(plain, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["notes"] == ["\ud800"]


@pytest.mark.parametrize("null", [False, True])
def test_every_key_may_be_absent_or_null(null: bool, plain: dict[str, Any], tmp_path: Path) -> None:
    for key in plain:
        partial = {name: value for name, value in plain.items() if name != key}
        if null:
            partial[key] = None
        assert len(write_artifacts(partial, tmp_path / key)) >= 4
    assert write_artifacts({}, tmp_path / "nothing")[0].name == "result.json"


def test_no_model_file_without_parameters(stopped: dict[str, Any], tmp_path: Path) -> None:
    write_artifacts(stopped, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_broken_parameters_cost_the_model_only(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["parameters"] = "not base64!"
    with pytest.raises(ValueError):
        write_artifacts(plain, tmp_path)
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "model.safetensors").exists()


def test_a_failed_write_keeps_the_earlier_file(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artifacts(plain, tmp_path)
    before = (tmp_path / "result.json").read_bytes()

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_artifacts(plain | {"name": "other"}, tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("room", [0, 300, 3_000, 40_000, 300_000])
def test_what_fits_on_a_full_disk_is_written_whole_and_the_rest_is_named(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    whole = {path.name: path.read_bytes() for path in write_artifacts(plain, tmp_path / "whole")}
    left = [room]

    def limited(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: left[0]])
        if len(content) > left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= len(content)
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", limited)
    if room >= sum(map(len, whole.values())):
        write_artifacts(plain, tmp_path / "full")
        return
    with pytest.raises(PartlyWrittenError, match="No space") as refused:
        write_artifacts(plain, tmp_path / "full")
    written = {path.name: path.read_bytes() for path in refused.value.written}
    failed = {path.name for path in refused.value.failed}
    assert {path.name for path in (tmp_path / "full").iterdir()} == set(written)
    assert set(written) | failed == set(whole)
    if "result.json" in failed and "result.json" in written:
        assert json.loads(written.pop("result.json"))["parameters"] is None
    assert written == {name: whole[name] for name in written}
    assert ("model.safetensors" in written) == (room >= 300)


def test_metrics_json_has_the_few_numbers_that_runs_are_compared_by(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["metrics"]["test"]["pooled"]["auroc"] = None
    write_artifacts(plain, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    pooled = {name: value for name, value in plain["metrics"]["test"]["pooled"].items() if value is not None}
    assert metrics["test"]["pooled"] == pooled
    assert set(metrics["test"]) <= {"pooled", "mean_over_sites"}
    assert metrics["rounds_run"] == plain["rounds_run"]


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_json_is_indented_as_python_indents_it(value):
    assert artifacts._indented(value, 0) == json.dumps(value, indent=1, ensure_ascii=False)


def test_json_has_no_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts._indented({"a": [float("nan")], "b": {}}, 0)


def test_a_large_model_is_written_in_pieces_to_the_same_bytes(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain["parameters"] = base64.b64encode(bytes(range(200))).decode()
    whole = {path.name: path.read_bytes() for path in write_artifacts(plain, tmp_path / "whole")}
    monkeypatch.setattr(artifacts, "_PIECE", 16)
    wrote: list[bytes] = []
    plain_write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: (wrote.append(data), plain_write(path, data))[1])
    again = {path.name: path.read_bytes() for path in write_artifacts(plain, tmp_path / "pieces")}
    assert again == whole
    # Neither of the two files that hold the model was put together in memory.
    assert not any(data in (whole["result.json"], whole["model.safetensors"]) for data in wrote)
