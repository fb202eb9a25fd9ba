"""The closing table in the terminal, and the numbers as they are written everywhere in this room."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from v6_algorithm.researcher.report import closing_table
from v6_algorithm.researcher.report.formatting import number, seconds, size
from v6_algorithm.researcher.report.reading import label


def show(result: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(closing_table(result))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("metric", "shown"),
    [
        ("auroc", "AUROC"),
        ("auroc_resolution", "AUROC resolution"),
        ("sex.auroc_se", "sex: AUROC standard error"),
        ("sensitivity_at_90", "Sens. at 90 % spec."),
        ("sensitivity_at_90_resolution", "Sens. at 90 % spec. resolution"),
        ("threshold_at_97_5", "Threshold at 97.5 % spec."),
        ("concordance_resolution", "Concordance resolution"),
    ],
)
def test_what_stands_beside_a_metric_has_its_name(metric: str, shown: str) -> None:
    assert label(metric).replace("\xa0", " ") == shown


def test_table_lists_every_scope_and_run(plain: dict[str, Any]) -> None:
    text = show(plain)
    assert "heart: test" in text
    for name in ("pooled", "mean over sites", "cleveland", "va", "Federated", "Local (each site alone)"):
        assert name in text
    assert f"{plain['metrics']['test']['pooled']['auroc']:.3f}" in text


def test_folds_are_told_by_mean_and_deviation(kfold: dict[str, Any]) -> None:
    kfold["metrics"]["test"] |= {"mean_over_folds": {"auroc": 0.8765}, "sd_over_folds": {"auroc": 0.0432}}
    lines = {line.split("│")[1].strip(): line for line in show(kfold).splitlines() if "│" in line}
    assert "0.876" in lines["mean over folds"] or "0.877" in lines["mean over folds"]
    assert "0.043" in lines["± sd over folds"]


def test_table_falls_back_on_validation(stopped: dict[str, Any]) -> None:
    assert "heart, interrupted: validation" in show(stopped)


def test_a_site_name_is_never_markup(plain: dict[str, Any]) -> None:
    plain["metrics"]["test"]["sites"]["[red]x[/red][/]"] = {"auroc": 0.5}
    assert "[red]x[/red][/]" in show(plain)


def test_an_empty_result_makes_an_empty_table() -> None:
    assert closing_table({}).row_count == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (True, "–"),
        (0, "0.000"),
        (-0.0, "0.000"),
        (0.8765, "0.876"),
        (1, "1.000"),
        (0.00012, "1.20e-04"),
        (532.1239, "532.124"),
        (12345.6, "12,346"),
        (1e30, "1e+30"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    assert number(value) == text


def test_durations_and_sizes() -> None:
    assert [seconds(value) for value in (None, 0.5, 59, 61, 7325)] == ["–", "0.50 s", "59 s", "1 min 1 s", "2 h 2 min"]
    assert [size(value) for value in (None, 12, 24310, 999_600, 5e12)] == ["–", "12 B", "24.3 kB", "1.0 MB", "5.0 TB"]


def test_what_only_the_researchers_own_table_tells_has_a_column(plain: dict[str, Any]) -> None:
    plain["metrics"] = {
        "validation": {"pooled": {"n": 0}, "sites": {"va": {"n": 0}}},
        "central": {"pooled": {"n": 120, "fid": 96.327}, "sites": {"central": {"n": 120, "fid": 96.327}}},
    }
    plain.pop("baselines", None)
    lines = [line for line in show(plain).splitlines() if "│" in line]
    assert "96.327" in lines[-1]
    assert any("–" in line for line in lines), "not defined at the site"
