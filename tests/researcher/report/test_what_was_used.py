"""The report says which columns the model sees, whose metrics these are, which round was best and whether any was."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from v6_algorithm.researcher.report import render
from v6_algorithm.researcher.report.judging import _joined
from v6_algorithm.researcher.report.model_card import model_card
from v6_algorithm.researcher.report.reading import best_round, positive_class
from v6_algorithm.researcher.report.table import closing_table


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_no_round_is_called_best_where_none_could_be_judged(plain: dict[str, Any]) -> None:
    """A GAN whose sites had too few images for a FID: the last round is kept, not the best."""
    plain["experiment"]["stopping"] = {"monitor": "fid"}
    plain["history"]["validation_fid"] = [None] * len(plain["history"]["round"])
    assert best_round(plain) is None
    page = text_of(render(plain))
    assert "best round" not in page
    assert "best: round" not in page
    assert "for validation FID is not known of any" in page


def test_a_round_that_was_judged_is_the_best(plain: dict[str, Any]) -> None:
    assert best_round(plain) == plain["best_round"]
    assert f"best round {plain['best_round']}" in text_of(render(plain))
    plain["experiment"]["output"] = {"model": "last"}
    assert best_round(plain) is None
    assert "last round kept" in text_of(render(plain))


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_no_round_is_the_best_where_an_average_over_rounds_is_kept(plain: dict[str, Any], average: str) -> None:
    """It said "best round 6 by validation loss" of a model that no round made."""
    plain["experiment"]["output"] = {"model": average}
    assert "last round kept" in text_of(render(plain)), "as where rounds end before the average begins"
    plain["best_round"] = None
    page = text_of(render(plain))
    assert "best round" not in page
    assert "best: round" not in page
    assert f"average over rounds ({average}) kept" in page


def test_a_model_card_names_the_network_that_was_trained_and_all_its_inputs(plain: dict[str, Any]) -> None:
    plain["preparation"] = {"features": ["age", "bp"], "categories": {"ward": ["a", "b", "c"]}}
    plain["network"] = "thumbnails's own"
    card = model_card(plain)
    assert " by thumbnails's own, " in card
    assert "- inputs: age, bp, ward" in card


def test_a_network_of_ones_own_is_named(plain: dict[str, Any]) -> None:
    """Facts and card had "module" for each of them."""
    plain["experiment"]["model"] = {"kind": "module", "name": "gatednet", "options": {}}
    assert "gatednet (a network of one's own)" in html.unescape(text_of(render(plain)))
    assert " by gatednet (a network of one's own), " in model_card(plain)


@pytest.mark.parametrize("rows", [[1, 1, 1, 1, 1, 1], [1, 30, 1, 1], [4], [9, 1], [1, 2, 50]])
def test_no_point_of_the_calibration_chart_is_of_one_row(rows: list[int]) -> None:
    points = [(0.1 * place, float(place % 2), float(count)) for place, count in enumerate(rows)]
    joined = _joined(points)
    assert sum(count for *_, count in joined) == sum(rows)
    assert all(count >= 5 for *_, count in joined) or len(joined) == 1
    for place in (0, 1):
        assert sum(point[place] * point[2] for point in joined) == pytest.approx(
            sum(point[place] * point[2] for point in points)
        )


def test_features_are_named_with_what_is_not_used(plain: dict[str, Any]) -> None:
    plain["preparation"] = {
        "features": ["age", "bp"],
        "categories": {"ward": ["a", "b", "c"]},
        "classes": ["no", "yes"],
    }
    plain["notes"] = [
        "left out as identifiers by their names: mrn",
        "left out, for they hold text: word; use them",
        "x",
    ]
    page = text_of(render(plain))
    assert "3: age, bp, ward (3 categories)" in page
    assert "as identifiers by their names: mrn; for they hold text: word" in page


def test_a_network_of_the_problems_own_is_not_called_by_the_experiments_model(plain: dict[str, Any]) -> None:
    plain["network"] = "quantile_regression's own"
    assert "Model quantile_regression&#39;s own" in text_of(render(plain))


def test_the_value_that_is_an_event_is_in_the_tables_title_and_the_report(plain: dict[str, Any]) -> None:
    plain["preparation"], target = {}, {"duration": "days", "event": "status"}
    plain["experiment"]["data"] = {"target": target}
    assert "event: status == 1" in str(closing_table(plain).title)
    plain["experiment"]["data"] = {"target": target, "positive": "== dead"}
    assert "event: status == dead" in str(closing_table(plain).title)
    assert "Event status == dead" in text_of(render(plain))


def test_the_class_of_precision_and_recall_is_in_the_tables_title(plain: dict[str, Any]) -> None:
    plain["preparation"], plain["experiment"]["data"] = {"classes": ["ill", "well"]}, {"target": "num"}
    assert "positive: well" in str(closing_table(plain).title)
    plain["experiment"]["data"] = {"target": "num", "positive": "> 0"}
    assert "positive: num > 0" in str(closing_table(plain).title)
    plain["preparation"] = {"classes": ["a", "b", "c"]}
    assert "positive" not in str(closing_table(plain).title)
    assert positive_class({"preparation": {"classes": [0, 1]}}, ["loss", "accuracy"]) == ""
