"""Tables as hospitals write them: spellings, signs and dates that were misread, or left out unexplained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.preparation.event_times import (
    tell_event_shares,
    tell_met,
    tell_no_events,
    tell_units,
)
from v6_algorithm.coordinator.preparation.notes.value_ranges import tell_event_codes
from v6_algorithm.data.description.hints import hint
from v6_algorithm.data.preparation.spelling import folded, spelled_differently
from v6_algorithm.data.rows.numbers import LeftOut
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.targets import TargetColumn, encode_targets
from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.experiment import Experiment

SPELLINGS = {
    "a Cyrillic letter": ("A", "\u0410"),
    "a word with Cyrillic letters": ("case", "\u0441\u0430s\u0435"),
    "an underscore": ("no event", "no_event"),
    "a full stop": ("no", "no."),
    "quotation marks": ("no", "'no'"),
    "curly quotation marks": ("no", "\u201cno\u201d"),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_labels_that_differ_by_what_is_not_seen_stop_the_run(kind):
    first, second = SPELLINGS[kind]
    (problem,) = spelled_differently("y", {"p": [first, "other"], "q": [second, "other"]}, allowed=True)
    assert "spelled differently" in problem


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("+", "-"),
        ("\u03b1", "a"),
        ("\u0434\u0430", "\u043d\u0435\u0442"),
        ("1'", "1''"),
        ("<5", ">5"),
        ("T1", "T2"),
        ("", "_"),
    ],
)
def test_labels_that_are_two_stay_two(first, second):
    assert folded(first) != folded(second)
    assert spelled_differently("y", {"p": [first, second], "q": [first, second]}, allowed=False) == []


CELLS = {
    "dates": ["2024-01-31", "31.01.2024", "1/31/24", "2024-W05", "31-Jan-2024", "2024-01-31T10:15:00Z", "P3D", "12:30"],
    "minus": ["\u22123.5", "\u22121", "\u221212.25"],
    "thousands apostrophe": ["1'234", "12'345.5", "1'000'000"],
}


@pytest.mark.parametrize("kind", CELLS)
def test_text_that_a_computer_does_not_read_as_numbers_is_named(kind):
    for cell in CELLS[kind]:
        assert hint(pd.Series([cell] * 12), "text") == kind, cell
    assert hint(pd.Series(["yes", "no"] * 6), "text") is None
    assert hint(pd.Series(["120/80", "130/85"] * 6), "text") is None


def test_a_minus_of_another_sign_beside_numbers_is_named():
    assert hint(pd.Series(["1.5", "2.25", "\u22123.5"] * 4), "text") == "minus"


def test_names_of_columns_that_are_one_are_named_beside_each_other():
    (note,) = LeftOut(somewhere={key: ["a"] for key in ["größe", "größe", "Age", " age", "bmi"]}).notes()
    assert "'gr\\xf6\\xdfe' and 'gro\\u0308\\xdfe'" in note
    assert "'Age' and ' age' are one name" in note
    (plain,) = LeftOut(somewhere={key: ["a"] for key in ["age", "bmi"]}).notes()
    assert "one name" not in plain


def test_names_of_columns_that_differ_in_a_unit_are_named_beside_each_other():
    names = ["Age", "age (years)", "Glucose [mg/dL]", "glucose", "bmi", "rest (a) b"]
    (note,) = LeftOut(somewhere={key: ["a"] for key in names}).notes()
    assert "'Age' and 'age (years)'; 'Glucose [mg/dL]' and 'glucose' differ in the unit that their names have" in note


def test_a_label_that_is_a_word_for_an_empty_cell_is_explained():
    sites = {name: pd.DataFrame({"a": np.arange(30.0) ** 0.5, "y": ["None", "severe"] * 15}) for name in ("p", "q")}
    with pytest.raises(ExperimentError, match="data\\.not_missing"):
        v6.run({"data": {"target": "y"}}, sites)


def test_sites_whose_times_are_in_other_units_are_told_and_others_are_not():
    of = lambda days: {"log_times": (50, float(np.log2(days)))}  # noqa: E731
    (note,) = tell_units({"p": of(400), "q": of(400 / 30.4)})
    assert "differ 30-fold" in note
    assert "q 13.2, p 400" in note
    assert tell_units({"p": of(400), "q": of(90), "r": {}}) == []
    assert tell_units({"p": of(400)}) == []
    # 0 events: the site has too few to tell of them.
    assert tell_units({"p": of(400), "q": of(90), "r": {"log_times": [0, 0.0]}}) == []


def test_a_site_where_no_row_or_every_row_meets_the_condition_of_an_event_is_named():
    target = {"duration": "days", "event": "status"}
    parse = lambda **data: Experiment.parse({"data": {"target": target, **data}, "problem": "survival"})  # noqa: E731
    sites = {"p": {"rows": 40, "log_times": [12, 8.0]}, "q": {"rows": 40, "log_times": [0, 0.0]}}
    sites |= {"r": {"rows": 40, "log_times": [40, 8.0]}, "s": {"rows": 40}}
    none, every = tell_met(parse(positive="== dead"), sites)
    assert none == "site 'q': no row, or only few, meet data.positive '== dead'; is it written so there?"
    assert every.startswith("site 'r': every row meets")
    assert tell_met(parse(), sites) == []


def test_sites_of_which_one_may_code_events_the_other_way_round_are_told():
    experiment = Experiment.parse({"data": {"target": {"duration": "t", "event": "died"}}, "problem": "survival"})
    rows = {site: [{"train": 80, "validation": 10, "test": 10}] for site in "pqr"}
    sums = {
        site: {"event_times": np.array([0.0, share * 80])} for site, share in {"p": 0.12, "q": 0.2, "r": 0.85}.items()
    }
    (note,) = tell_event_shares(experiment, sums, rows)
    assert "which is died == 1, differ as where one of them codes it the other way round (p 12%, q 20%, r 85%)" in note
    del sums["r"]
    assert tell_event_shares(experiment, sums, rows) == []
    # Of folds all rows train in some; of few rows nothing is said.
    folds = {site: [{"train": 40, "validation": 20, "test": 20}] * 3 for site in "pqr"}
    sums["r"] = {"event_times": np.array([45.0, 0])}
    assert tell_event_shares(experiment, sums, folds) == []
    assert tell_event_shares(experiment, sums, {site: [{"train": 19}] for site in "pqr"}) == []


def test_sites_whose_codes_of_events_differ_are_told():
    target = {"duration": "t", "event": "status"}
    data = Experiment.parse({"data": {"target": target, "positive": "== 1"}, "problem": "survival"}).data
    (note,) = tell_event_codes(data, {"p": {"codes": {"status": [0, 1]}}, "q": {"codes": {"status": [1, 2]}}, "r": {}})
    assert note.startswith("column 'status' (data.target.event) holds 0 and 1 at p; 1 and 2 at q: does data.positive")
    assert tell_event_codes(data, {site: {"codes": {"status": [1, 2], "x": [0, 1]}} for site in "pq"}) == []


def test_events_coded_1_and_2_are_refused_with_what_they_mean_most_often():
    frame = pd.DataFrame({"status": [1, 2, 2, 1]})
    with pytest.raises(DataError, match=r"of 1 and 2, 2 is the event most often: data.positive: '== 2'"):
        encode_targets(frame, [TargetColumn("status", "target.event", "event")], {}, "float32")


def test_survival_without_an_event_is_told():
    assert tell_no_events({"event_times": np.zeros(5)})
    assert tell_no_events({"event_times": np.eye(5)[2] + np.eye(5)[3]}) == []
    assert tell_no_events({}) == []


@pytest.mark.parametrize(("other", "told"), [(7, True), (12, True), (3, False)])
def test_times_in_weeks_or_months_beside_days_are_told(other, told):
    of = lambda days: {"log_times": (50, float(np.log2(days)))}  # noqa: E731
    assert bool(tell_units({"p": of(400), "q": of(400 / other)})) is told


@pytest.mark.parametrize("kind", [complex, object])
def test_complex_numbers_are_left_out_and_said_and_refused_as_a_target(kind):
    generator = np.random.default_rng(0)
    values = generator.normal(size=40) + 1j * generator.normal(size=40)
    frame = pd.DataFrame({"a": generator.normal(size=40), "fft": pd.Series(values).astype(kind), "y": [0, 1] * 20})
    sites = {"p": frame, "q": frame}
    notes = v6.run({"data": {"target": "y"}, "rounds": 1}, sites).notes
    assert any("left out, for they hold complex numbers: fft" in note for note in notes)
    for problem in ("classification", "regression"):
        with pytest.raises(ExperimentError, match=r"column 'fft' \(data.target\) holds complex numbers"):
            v6.run({"data": {"target": "fft"}, "problem": problem}, sites)


def test_bytes_of_an_array_that_are_not_utf_8_are_refused_and_others_are_text(tmp_path):
    words = np.array(["M\u00fcller", "Berg"] * 5)
    for encoding in ("utf-8", "latin-1"):
        np.savez(tmp_path / f"{encoding}.npz", x=np.arange(10.0), ward=np.char.encode(words, encoding))
    assert TableSource(str(tmp_path / "utf-8.npz")).read()["ward"].tolist() == words.tolist()
    with pytest.raises(DataError, match="array 'ward' holds bytes that are not text in UTF-8"):
        TableSource(str(tmp_path / "latin-1.npz")).read()


@pytest.mark.parametrize(("without", "said"), [(7, "7 rows have no target"), (2, "some rows have no target")])
def test_rows_without_a_target_are_counted_from_a_cell_on(without, said):
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=40), "y": [0.0, 1.0] * 20})
    sites = {"p": frame, "q": frame.assign(y=frame["y"].where(frame.index >= without))}
    notes = v6.run({"data": {"target": "y"}, "rounds": 1}, sites).notes
    assert f"site 'q': {said}, and are left out" in notes


def test_survival_at_one_time_is_told_for_what_it_leaves_out():
    """There was no Brier score and no survival curve, and no word of it."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"a": generator.normal(size=60), "time": 12.0, "died": generator.integers(0, 2, 60)})
    content = {"data": {"target": {"duration": "time", "event": "died"}}, "problem": "survival", "rounds": 1}
    result = v6.run(content | {"model": "linear"}, {"p": frame, "q": frame})
    assert "brier" not in result.content["metrics"]["test"]["pooled"]
    assert any("all events of the training rows are at one time" in note for note in result.notes)
