"""The report's section on the data, the badge of missing sites, folded notes, and the model card."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hospitals import command, make_table, read_result, write

import v6_algorithm.api as v6

SETTINGS = {"target": "y", "categorical": ["sex"], "exclude": ["d"], "rounds": 2, "batch_size": 16}


def frames() -> dict:
    tables = {name: make_table(60, seed, shift=shift) for name, seed, shift in (("north", 1, 0.0), ("south", 4, 3.0))}
    tables["south"].loc[tables["south"].index % 3 == 0, "b"] = np.nan
    return {name: table.assign(sex=np.where(np.arange(60) % 2, "f", "m")) for name, table in tables.items()}


@pytest.fixture(scope="module")
def result() -> v6.Result:
    return v6.run(SETTINGS, frames())


def test_means_by_site_are_those_of_the_training_rows(result):
    means = result.content["data"]["means"]
    assert {name: site["rows"] for name, site in means.items()} == {"north": 36, "south": 36}
    assert means["north"]["columns"]["b"]["n"] == 36
    assert 20 <= means["south"]["columns"]["b"]["n"] < 30
    assert sum(result.content["data"]["classes"].values()) == 72
    assert means["south"]["columns"]["a"]["mean"] > means["north"]["columns"]["a"]["mean"] + 1


def test_pooled_mean_sd_and_shift_are_those_of_all_rows():
    """Two sites of 10 and 30 values, by hand: what the section shows equals numpy on the pooled values."""
    from v6_algorithm.researcher.report.data_section import _pooled

    generator = np.random.default_rng(0)
    values = {"a": generator.normal(1e6, 1, 10), "b": generator.normal(1e6 + 2, 1, 30)}
    sites = {
        name: {"rows": len(part) + 5, "columns": {"x": {"n": len(part), "mean": part.mean(), "sd": part.std()}}}
        for name, part in values.items()
    }
    together = np.concatenate(list(values.values()))
    column = _pooled(sites)["x"]
    assert column["mean"] == pytest.approx(together.mean())
    assert column["sd"] == pytest.approx(together.std())
    assert column["missing"] == pytest.approx(10 / 50)
    assert column["site"] == "a"
    assert column["shifts"]["a"] == pytest.approx((values["a"].mean() - together.mean()) / together.std())


def test_the_page_shows_what_was_used_and_what_not(result):
    page = result.report()
    for text in ("<h2>Data</h2>", "a, b, c, sex (2 categories)", "Training rows by class", "sd at ", "Means by site"):
        assert text in page, text
    assert re.search(r"Finished</dt>\s*<dd>\d{4}-\d\d-\d\d \d\d:\d\d UTC</dd>", page)
    assert "trusted: north, south" in page
    assert "<td>none</td>" in page.replace('<td class="n">', "<td>"), "a column without empty cells says so"


def test_the_page_refers_to_its_notes_only_where_it_has_some(result):
    from v6_algorithm.researcher.report.page import render

    hint, notes = "Columns that were not used are named under", "<h2>Please note</h2>"
    for said in ([], ["column 'z' is text"]):
        page = render(result.content | {"notes": said})
        assert (hint in page) == (notes in page) == bool(said)


def test_a_site_that_is_not_in_the_result_is_an_amber_badge(tmp_path):
    tables = {**frames(), "tiny": make_table(5, 9).assign(sex="f")}
    file = write(tmp_path, tables, sites={name: f"{name}.csv" for name in tables},
                 data={"target": "y", "categorical": ["sex"]}, participation={"unfit": "leave_out"})  # fmt: skip
    done = command("run", file, "--policy", "standard", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<span class="status partial">2 of 3 sites</span>' in page
    assert page.count("V6_ALGORITHM_MINIMUM_ROWS_PER_LABEL); data.positive can join them</li>") == 1
    assert "Precision of binned metrics (" in page


def test_the_model_card_has_the_numbers_and_is_not_written_over(tmp_path, result):
    run, card = result.save(tmp_path / "run"), tmp_path / "card.md"
    assert command("report", run, "--card", card).exit_code == 0
    text = card.read_text()
    for heading in ("## Intended use", "## Data", "## Performance", "## Limits"):
        assert heading in text
    assert "| south | 60 | 36 | 12 | 12 |" in text
    assert f"{read_result(run)['metrics']['test']['pooled']['accuracy']:.3f}" in text
    card.write_text("filled in")
    again = command("report", run, "--card", card)
    assert again.exit_code == 2
    assert card.read_text() == "filled in"


def test_channels_are_named_as_a_person_would_and_a_column_that_looks_like_one_stays():
    from v6_algorithm.researcher.report.data_section import section

    columns = {f"file[{channel}]": {"n": 9, "mean": 0.5, "sd": 0.1} for channel in range(3)}
    content = {
        "data": {"means": {"north": {"rows": 9, "columns": columns}}},
        "preparation": {"features": list(columns)},
    }
    shown = str(section(content)["table"])
    assert "file[1]" in shown
    content["preparation"]["image_shape"] = [3, 8, 8]
    shown = str(section(content)["table"])
    assert "file, channel 2 of 3" in shown
    assert "file[1]" not in shown
    one = {"file[0]": columns["file[0]"]}
    content = {"data": {"means": {"north": {"rows": 9, "columns": one}}}, "preparation": {"features": list(one)}}
    content["preparation"]["image_shape"] = [1, 8, 8]
    assert "channel" not in str(section(content)["table"])


def test_runs_are_drawn_over_the_rounds_by_what_all_of_them_recorded(result):
    from v6_algorithm.researcher.report.charts.curves import runs_chart

    other = v6.run({**SETTINGS, "split": {"kind": "kfold", "folds": 3}}, frames()).content
    chart = runs_chart({"first": result.content, "folds": other})
    assert "AUROC, validation" in chart
    assert ">first<" in chart
    assert ">folds<" in chart
    assert runs_chart({"first": result.content, "nothing": {}}) is None
    many = runs_chart({f"run {number}": result.content for number in range(6)})
    assert ">run 3<" in many
    assert ">run 4<" not in many
