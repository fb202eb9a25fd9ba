"""Groups, gaps, confusion matrices and the researcher's own table in the page, the files and the terminal."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from rich.console import Console
from test_report_page import Page

from v6_algorithm.researcher.report import central_table, closing_table, gap_lines, render, write_artifacts
from v6_algorithm.researcher.report.comparison import _by_site
from v6_algorithm.researcher.report.groups import group_rows
from v6_algorithm.researcher.report.recalibration import recalibration_lines

ODD = "<b>female & 'old'</b>"


def metrics(auroc: float | None, n: int = 40) -> dict[str, Any]:
    return {"n": n, "auroc": auroc, "accuracy": 0.5, "auroc_resolution": 0.01, "threshold_at_90": 0.7}


@pytest.fixture
def judged(plain: dict[str, Any]) -> dict[str, Any]:
    """A run with groups, matrices and a central table."""
    plain["metrics"]["central"] = {"pooled": metrics(0.81), "sites": {"central": metrics(0.81)}}
    plain["experiment"]["central"] = {"uri": "folder/held_back.csv"}
    sex = {ODD: metrics(0.7), "male": metrics(0.9), "not known": metrics(0.2, 6)}
    plain["subgroups"] = {part: {"sex": sex} for part in ("test", "validation", "central")}
    plain["gap"] = {"test": {"sex": {"auroc": 0.2}, "site": {"auroc": 0.0512}}, "central": {"sex": {"auroc": 0.2}}}
    plain["confusion"] = {
        "test": {"num": {"classes": [0, ODD], "pooled": [[30, 10], [5, 55]], "sites": {"va": [[1, 2], [3, 4]]}}}
    }
    plain["calibration"] = {
        "test": {"num": {"rows": [0, 60, 40], "predicted": [None, 0.4, 0.9], "observed": [None, 0.5, 0.8]}}
    }
    plain["roc"] = {
        "test": {"num": {"threshold": [None, 0.5, 0.0], "sensitivity": [0, 0.8, 1], "specificity": [1, 0.7, 0]}}
    }
    return plain


def show(table: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_page_has_a_section_for_each_and_is_well_formed(judged: dict[str, Any]) -> None:
    html = render(judged)
    page = Page(html)
    for text in ("Central evaluation", "Groups of rows: test rows", "Errors, ROC and calibration", "Gap between sites"):
        assert text in page.text
    assert "held_back.csv" in page.text
    assert "folder/held_back.csv" not in page.text.split("The whole experiment file")[0]
    assert ODD not in html
    assert "0.051" in page.text
    idents = [value for name, value in page.attributes if name == "id"]
    assert len(idents) == len(set(idents))


def test_a_run_without_them_has_no_such_section(plain: dict[str, Any]) -> None:
    text = Page(render(plain)).text
    for absent in ("Central evaluation", "Groups of rows", "Errors, ROC"):
        assert absent not in text


def test_malformed_parts_of_a_result_are_left_out_and_break_nothing(judged: dict[str, Any]) -> None:
    judged["confusion"]["test"]["num"] = {"classes": [0, 1], "pooled": "lost"}
    judged["calibration"] = {"test": {"num": {"rows": [1], "predicted": [], "observed": None}}}
    judged["roc"] = None
    judged["subgroups"] = {"test": {"sex": None, "age": {"old": None}}, "elsewhere": 3}
    judged["gap"] = []
    Page(render(judged))


def test_what_evaluate_leaves_is_a_page_without_rounds(judged: dict[str, Any]) -> None:
    found = {
        "status": "evaluated", "name": "heart", "model": "runs/heart", "experiment": judged["experiment"], "notes": [],
        "metrics": {"central": judged["metrics"]["central"]}, "subgroups": {"central": judged["subgroups"]["central"]},
    }  # fmt: skip
    text = Page(render(found)).text
    assert "The model of runs/heart, measured on held_back.csv." in text
    assert "Learning curves" not in text
    assert "Groups of rows: central table" in text


def test_the_closing_table_ends_with_the_researchers_own_table(judged: dict[str, Any]) -> None:
    lines = show(closing_table(judged)).splitlines()
    place = next(number for number, line in enumerate(lines) if "central: held_back.csv" in line)
    assert "0.810" in lines[place + 1]
    assert "40" in lines[place + 1]
    assert "0.810" in show(central_table(judged))


def test_baselines_on_it_are_told_apart_by_their_names(judged: dict[str, Any]) -> None:
    sites = {"va": metrics(0.6), "cleveland": metrics(0.7)}
    judged["baselines"]["local"]["metrics"]["central"] = {
        "pooled": metrics(0.65), "sites": sites, "mean_over_sites": {"auroc": 0.65},
    }  # fmt: skip
    text = show(central_table(judged))
    for name in ("federated", "local: mean over models", "local: va", "local: cleveland"):
        assert name in text


def test_a_password_in_its_address_is_not_shown(judged: dict[str, Any]) -> None:
    judged["experiment"]["central"] = {"uri": "postgresql://ada:hunter2@db/heart"}
    assert "hunter2" not in show(closing_table(judged)) + render(judged)


def test_gap_lines_name_the_worst_and_the_best_group_but_not_the_unknown(judged: dict[str, Any]) -> None:
    assert gap_lines(judged, "test") == [f"sex (test): AUROC from 0.700 ({ODD}) to 0.900 (male), gap 0.200"]
    judged["subgroups"]["test"]["sex"]["male"]["auroc_se"] = 0.08
    assert "0.900 (male, 95 % CI 0.74–1.00)" in gap_lines(judged, "test")[0]
    assert "95 % CI" in Page(render(judged)).text.replace("\xa0", " ")
    judged["subgroups"] = {"test": {"sex": {"male": metrics(0.9), "female": metrics(None)}}}
    assert gap_lines(judged, "test") == []


def test_subgroups_csv_has_a_line_for_each_number_and_metrics_json_the_gaps(judged: dict[str, Any], tmp_path) -> None:
    write_artifacts(judged, tmp_path)
    with (tmp_path / "subgroups.csv").open() as file:
        rows = list(csv.DictReader(file))
    male = {"part": "test", "column": "sex", "group": "male", "metric": "auroc", "value": "0.9"}
    male["class"] = "num > 0"
    gap = {**male, "group": "(gap)", "value": "0.2"}
    assert male in rows
    assert gap in rows
    judged["preparation"]["classes"], judged["experiment"]["data"]["positive"] = ["ill", "well"], None
    rows = group_rows(judged)
    assert ("test", "sex", "male", "auroc", 0.9, "well") in rows
    assert {row[-1] for row in rows if row[3] in ("n", "loss", "accuracy")} <= {""}
    headlines = json.loads((tmp_path / "metrics.json").read_text())
    assert headlines["gap"]["test"]["sex"] == {"auroc": 0.2}
    assert headlines["central"]["pooled"]["auroc"] == 0.81


def test_without_groups_there_is_no_file_of_them(plain: dict[str, Any], tmp_path) -> None:
    plain["gap"] = {"test": {"site": {"auroc": 0.1}}}
    write_artifacts(plain, tmp_path)
    assert not (tmp_path / "subgroups.csv").exists()
    assert "gap" not in json.loads((tmp_path / "metrics.json").read_text())


def test_an_interval_of_recalibration_is_of_95_percent() -> None:
    fit = {"intercept": 1.0, "intercept_se": 0.5, "slope": 2.0, "slope_se": 0.1, "in_the_large": 0.0}
    (line,) = recalibration_lines({"recalibration": {"test": {"y": {"pooled": fit}}}})
    assert line.startswith("recalibration, pooled: intercept 1.000 (0.020 to 1.980), slope 2.000 (1.804 to 2.196)")
    assert "in the large not defined" in line


def test_a_comparison_of_runs_has_a_line_for_each_site_that_has_the_metric(judged: dict[str, Any]) -> None:
    judged["metrics"]["test"]["sites"] = {"p": {"auroc": 0.7}, "q": {"auroc": None}}
    table = _by_site({"one": judged, "two": judged}, "test", "auroc")
    assert table is not None
    (lines,) = table.bodies
    assert [row.cells[0] for row in lines] == ["p"]
