"""The report page: well-formed, self-contained, escaped everywhere, and showing what it should."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from v6_algorithm.researcher.report import render

VOID = {"meta", "br", "hr", "img", "input", "link"}
SCRIPT = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Checks that tags nest, and keeps what a test asks for."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("run", ["plain", "kfold", "stopped"])
def test_page_is_well_formed_and_self_contained(run: str, request: pytest.FixtureRequest) -> None:
    html = render(request.getfixturevalue(run))
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not {"src", "href", "action", "srcset", "data"} & {name for name, _ in page.attributes}
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_identifiers_in_the_page_are_unique(stopped: dict[str, Any]) -> None:
    identifiers = [value for name, value in Page(render(stopped)).attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    labelled = " ".join(value for name, value in Page(render(stopped)).attributes if name == "aria-labelledby").split()
    assert sorted(labelled) == sorted(identifiers)


def hostile(value: Any, text: str) -> Any:
    """Put `text` in place of every string, and before every key of a table keyed by sites."""
    if isinstance(value, dict):
        return {key: hostile(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", [SCRIPT, '"><img src=x onerror=alert(1)>', "</style></title></pre>" + SCRIPT])
@pytest.mark.parametrize("run", ["plain", "kfold", "stopped"])
def test_no_text_of_a_result_becomes_markup(run: str, text: str, request: pytest.FixtureRequest) -> None:
    result = hostile(request.getfixturevalue(run), text)
    site = {"n": {"train": 1, "validation": 1, "test": 1}}
    result["sites"] = {text: site}
    result["software"] = {text: text}
    result["baselines"] = {text: {"metrics": result["metrics"]}}
    result["metrics"] = {part: {"sites": {text: {text: 0.5, "auroc": 0.5}}} for part in ("test", "validation")}
    result["history"] = {f"validation_{text}": [0.5, 0.6], f"{text}_loss": [1.0, 2.0], "train_loss": [1, 2]}
    result["participation"] = [{"round": text, "answered": [text], "missing": {text + "!": text}}]
    result["timing"]["rounds"] = [{"site_s": {text: 1.0}, "bytes_sent": {text: 1}}]
    html = render(result)
    assert not {"script", "img"} & set(Page(html).tags)
    assert "<script" not in html
    assert text in unescape(html)


def test_a_site_that_names_a_path_is_shown_as_it_is(plain: dict[str, Any]) -> None:
    plain["metrics"]["test"]["sites"]["../../evil"] = {"auroc": 0.5}
    assert "../../evil" in Page(render(plain)).text


def test_missing_sites_are_named_with_their_reasons(stopped: dict[str, Any]) -> None:
    text = Page(render(stopped)).text
    assert "switzerland did not take part in 3 rounds: no reply before the deadline of 3600 s" in text
    assert "va did not take part in 1 round: wrong reply" in text
    assert "fewer than 3 sites answered in round 7" in text


def test_full_participation_is_one_sentence(plain: dict[str, Any]) -> None:
    html = render(plain)
    assert "Every site answered each time it was asked, in all 14 calls." in html
    assert "chart-participation" not in html


def test_a_learning_rate_is_drawn_where_it_changes(plain: dict[str, Any]) -> None:
    rounds = len(plain["history"]["round"])
    assert "chart-rate" not in render(plain)
    plain["history"]["train_lr"] = [0.1] * rounds
    assert "chart-rate" not in render(plain)
    plain["history"]["train_lr"] = [0.1] * 3 + [0.02] * (rounds - 3)
    assert 'id="chart-rate-title"' in render(plain)


def test_columns_without_a_value_are_hidden_and_nulls_are_dashes(plain: dict[str, Any]) -> None:
    text = Page(render(plain)).text
    assert "MSE" not in text
    assert "va59–" in text


def test_the_number_of_rows_evaluated_is_a_count_and_no_metric(plain: dict[str, Any]) -> None:
    plain["metrics"]["test"]["sites"]["va"]["n"] = 1234
    text = Page(render(plain)).text
    assert "va1,234–" in text
    assert "resolution" not in text


def test_a_headline_has_a_value(plain: dict[str, Any]) -> None:
    plain["metrics"]["test"]["pooled"]["auroc"] = None
    assert "; test AUROC 0." in Page(render(plain)).text
    plain["metrics"]["test"]["mean_over_sites"]["auroc"] = None
    assert "; test AUPRC 0." in Page(render(plain)).text


def test_results_of_a_baseline_alone_are_shown(plain: dict[str, Any]) -> None:
    plain["metrics"] = {}
    text = Page(render(plain)).text
    assert "Test results" in text
    assert "Centralised" in text


def test_stopped_run_is_judged_by_validation(stopped: dict[str, Any]) -> None:
    text = Page(render(stopped)).text
    assert "Validation results" in text
    assert "Test results" not in text


def test_folds_are_summarised_by_mean_and_standard_deviation(kfold: dict[str, Any]) -> None:
    for fold, value in zip(kfold["folds"], range(10), strict=True):
        fold["metrics"]["test"]["pooled"]["auroc"] = 0.8 + value / 100
    text = Page(render(kfold)).text
    mean, spread = re.search(r"Mean(\d\.\d{3}).*?± sd(\d\.\d{3})", text, re.DOTALL).groups()  # type: ignore[union-attr]
    assert mean == "0.845"
    assert spread == "0.030"


def test_baselines_are_compared_site_by_site(plain: dict[str, Any]) -> None:
    html = render(plain)
    assert 'id="chart-runs-title"' in html
    assert "Local (each site alone)" in html
    del plain["baselines"]
    assert 'id="chart-runs-title"' not in render(plain)


def test_experiment_is_shown_as_yaml_in_the_given_order(plain: dict[str, Any]) -> None:
    text = Page(render(plain)).text
    assert "name: heart\nseed: 0\nmode: federated\n" in text


@pytest.mark.parametrize("value", [0, 1, "x", None, [], {}, [None], {"a": None}, [{}], {"a": [{}]}])
def test_any_shape_of_any_key_renders(value: Any, plain: dict[str, Any]) -> None:
    for key in plain:
        Page(render(plain | {key: value}))
    Page(render({}))
