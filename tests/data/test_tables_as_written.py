"""Tables as programs and people of hospitals write them: each was wrong in silence, or refused without its name."""

from __future__ import annotations

import sqlite3

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.preparation.event_times import tell_met
from v6_algorithm.coordinator.preparation.notes.constant_columns import tell_constant
from v6_algorithm.coordinator.preparation.notes.value_ranges import tell_ranges
from v6_algorithm.coordinator.result.diagnostics import by_target
from v6_algorithm.data.description.hints import hint, without_hint
from v6_algorithm.data.description.unknown import unknown_labels
from v6_algorithm.data.identifiers import looks_like_identifier, says_whose
from v6_algorithm.data.preparation import Moments, agree, merge_moments
from v6_algorithm.data.preparation.spelling import may_be_one, spelled_differently
from v6_algorithm.data.rows.numbers import numbers_of
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.splits import make_folds
from v6_algorithm.data.targets import TargetColumn, labels_of
from v6_algorithm.data.where import rows_where
from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.experiment import Data, Experiment, Given
from v6_algorithm.learning.metrics.states import CheckedState

RNG = np.random.default_rng(3)
BMI = RNG.normal(27, 4, 160).round(1)
COUNTS = RNG.integers(0, 40, 160)


@pytest.mark.parametrize(
    "name",
    [
        "pesel", "Lp.", "cpr_nummer", "personnummer", "fødselsnummer", "hasta_no", "患者番号", "住院号", "病历号码",
        "prontuario", "Prontuário", "nosologico", "StudySubjectID", "patientId", "fin_nbr", "person_nbr", "chart_no",
        "Rodné číslo", "TC Kimlik No", "admission_id",
    ],
)  # fmt: skip
def test_numbers_of_patients_in_other_languages_are_identifiers(name):
    assert looks_like_identifier(name)


@pytest.mark.parametrize("name", ["患者番号", "pesel", "hasta_no", "StudySubjectID", "prontuario"])
def test_of_these_the_ones_of_persons_may_keep_rows_together(name):
    assert says_whose(name)


@pytest.mark.parametrize(
    "name",
    ["idh1", "nr_of_lesions", "COVID", "SQUID", "AvId", "chart", "admission_num", "person", "protocol", "fin", "lp",
     "LPa", "gelenk_nummern", "admissions", "ID2", "hastalik", "CPR"],
)  # fmt: skip
def test_names_that_only_look_so_are_none(name):
    assert looks_like_identifier(name) == (name == "AvId")


NUMBERS = {
    "99.9 in a third of the rows": (np.where(np.arange(160) % 3 == 0, 99.9, BMI), "codes"),
    "99.9 once": (np.r_[BMI, 99.9], None),
    "years of two digits": (np.repeat([92, 95, 99], 40), None),
    "a score up to 99": (np.r_[RNG.integers(20, 95, 150), [99] * 10], None),
    "answers -1 and -3": (np.where(np.arange(160) % 9 == 0, -3, np.where(COUNTS == 7, -1, COUNTS)), "codes"),
    "days from -3 on": (np.r_[COUNTS, [-1, -2, -3] * 4], None),
    "a lone -1 beside 0": (np.r_[COUNTS, [-1] * 5], None),
    "changes": (RNG.integers(-12, 13, 160), None),
    "thousands that end in 0": (np.r_[RNG.integers(20, 99, 100) * 10, RNG.integers(100, 130, 60) / 100], "dots"),
    "decimals beside a few large": (np.r_[RNG.normal(2, 0.4, 100).round(2), [210, 340, 400]], None),
}  # fmt: skip


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_stand_for_nothing_or_lost_their_mark_are_told(kind):
    numbers, reason = NUMBERS[kind]
    assert hint(pd.Series(numbers), "numeric") == reason
    assert reason is None or not without_hint(np.asarray(numbers, dtype=float)[:, None])[0]


def test_a_decimal_point_that_few_rows_lost_is_told():
    """Medians of 14 rows are off by more than the tables of units allow."""
    numbers = np.r_[np.linspace(3.5, 7.5, 146), np.linspace(29, 68, 14)]
    assert hint(pd.Series(numbers), "numeric") == "two units"
    assert hint(pd.Series(np.r_[numbers[:146], np.linspace(170, 355, 14)]), "numeric") is None


@pytest.mark.parametrize(
    ("labels", "unknown"),
    [
        (["F", "M", "U"], ["U"]),
        (["F", "M", "x"], ["x"]),
        (["L", "M", "U"], []),
        (["V", "M", "?"], ["?"]),
        (["U", "V", "W", "X"], []),
        (["U", "no"], []),
    ],
)
def test_a_letter_beside_two_may_say_that_nothing_is_known(labels, unknown):
    assert unknown_labels(labels) == unknown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["Vivant", "Décédé"], ["Vivant", "DÃ©cÃ©dÃ©"]),
        (["Vivant", "Décédé"], ["Vivant", "Decede"]),
        (["żyje", "zmarły"], ["żyje", "zmarly"]),
        (["kadın", "x"], ["kadin", "x"]),
    ],
)
def test_labels_that_differ_only_in_accents_stop_the_run(one, other):
    (said,) = spelled_differently("column 'y'", {"a": one, "b": other}, allowed=False)
    assert "differ only in accents" in said
    assert spelled_differently("column 'y'", {"a": one, "b": other}, allowed=True) == []


def test_words_of_other_alphabets_keep_their_marks():
    assert spelled_differently("column 'y'", {"a": ["か", "が"], "b": ["か", "が"]}, allowed=False) == []


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (["1-3", "4-6", "7+"], ["01-Mar", "04-Jun", "7+"], "of which Excel makes such dates"),
        ([0, "A", "B"], ["A", "B", "O"], "is it one label"),
        (["1-3", "4-6", "7+"], ["1-3", "7+"], None),
        (["Mar-1", "x"], ["Mar-1", "y"], "is it one label"),
        ([1, 2, "A"], [2, 3, "A"], None),
    ],
)
def test_categories_that_a_program_changed_at_one_site_are_told(one, other, told):
    notes = may_be_one("column 'g'", {"a": one, "b": other})
    assert told in notes[0] if told else not notes


@pytest.mark.parametrize(
    ("cells", "condition", "said"),
    [
        (["yes", "no"], "== 1", "holds words, and .* asks for the number 1"),
        (["yes", "no"], "!= 2", "holds words, and .* asks for the number 2"),
        ([0, 1, 1], "== yes", "holds numbers, and .* asks for 'yes'"),
        ([0, 1, 2], "== true", "holds numbers, and .* asks for 'true'"),
        (["3a", "2"], "== 1", None),
        ([1, 2], "== 3a", None),
        ([True, False], "== true", None),
    ],
)
def test_a_condition_that_no_cell_can_meet_is_refused(cells, condition, said):
    """A site that codes with words where positive asks for 1 had no case at all."""
    column, target = pd.Series(cells), TargetColumn("y", kind="class", positive=condition)
    for ask in (lambda: labels_of(column, target), lambda: rows_where(pd.DataFrame({"y": column}), {"y": [condition]})):
        if said is None:
            ask()
        else:
            with pytest.raises(DataError, match=f"column 'y'.* {said}"):
                ask()


@pytest.mark.parametrize(("line", "refused"), [("780.0,31.5,7", True), ("65,2.625,", True), ("780,31,3", False)])
def test_a_last_line_of_sums_or_means_is_no_row(tmp_path, line, refused):
    lines = [f"{60 + row % 11},{row % 12 / 4 + 1.25},{row % 2}" for row in range(12)]
    ages, crp, ill = (np.array(column, float) for column in zip(*(one.split(",") for one in lines), strict=True))
    if refused:
        line = f"{ages.sum()},{crp.sum()},{ill.sum()}" if line[-1] != "," else f"{ages.mean()},{crp.mean()},"
    (tmp_path / "t.csv").write_text("\n".join(["age,crp,ill", *lines, line]) + "\n")
    if refused:
        with pytest.raises(DataError, match="the last line holds the sums or means"):
            TableSource(str(tmp_path / "t.csv")).read()
    else:
        assert len(TableSource(str(tmp_path / "t.csv")).read()) == 13


def test_a_database_without_a_query_says_what_it_has(tmp_path):
    connection = sqlite3.connect(tmp_path / "d.sqlite")
    connection.execute("create table visits (a)")
    connection.close()
    with pytest.raises(DataError, match=r"needs a query.*; it has: visits$"):
        TableSource(str(tmp_path / "d.sqlite")).read()


def test_three_classes_for_a_binomial_are_shown_with_their_column():
    frame = pd.DataFrame({"a": np.arange(60) % 7 / 2, "fate": ["alive", "dead", "lost"] * 20})
    with pytest.raises(ExperimentError, match=r"column 'fate' \(data.target\) has 3 classes, .*: alive, dead, lost;"):
        v6.run({"data": {"target": "fate"}, "model": {"kind": "glm"}}, {"p": frame, "q": frame})


@pytest.mark.parametrize(("event", "told"), [("censored", True), ("is_alive", True), ("cens", False), ("died", False)])
def test_an_event_by_the_name_of_its_opposite_is_told(event, told):
    data = {"target": {"duration": "days", "event": event}}
    experiment = Experiment.parse({"data": data, "problem": "survival", "model": {"kind": "cox"}})
    assert bool(tell_met(experiment, {})) == told


@pytest.mark.parametrize(
    "word",
    ["desconocido", "brak danych", "okänd", "bilinmiyor", "不明", "неизвестно", "non noto", "ignorado", "inconnu(e)",
     "uoplyst", "Don't know/refused", "9 - unknown", "-9: Not stated"],
)  # fmt: skip
def test_not_known_is_told_in_the_languages_of_hospitals(word):
    assert unknown_labels(["a", "b", word]) == [word]


@pytest.mark.parametrize("word", ["never", "none", "refused surgery", "not available from us", "nd", "brak bólu", "ok"])
def test_words_that_begin_alike_are_categories(word):
    assert unknown_labels(["a", "b", word]) == []


WIDE = RNG.normal(4.1, 0.3, 160).round(2)
MORE = {
    "9.99 for a potassium": ("k", np.where(np.arange(160) % 9 == 0, 9.99, WIDE), "codes"),
    "9.99 once": ("k", np.r_[WIDE, 9.99], None),
    "-1.0 for a lactate": ("lactate", np.where(np.arange(160) % 9 == 0, -1.0, WIDE), "codes"),
    "-1 twice among amounts": ("change", np.r_[WIDE, -1.0, -1.0], None),
    "555 for a scale": ("phq", np.where(np.arange(160) % 9 == 0, 555, COUNTS % 28), "codes"),
    "patients of 125 years": ("age at visit", np.where(np.arange(160) % 9 == 0, 125, 40 + COUNTS), "ages"),
    "ages below 0": ("Alter", np.where(np.arange(160) % 14 == 0, -43, 40 + COUNTS), "ages"),
    "standardised ages": ("age", WIDE - 4, None),
    "a pressure of 125": ("sbp", np.where(np.arange(160) % 9 == 0, 125, 85 + COUNTS), None),
    "two visits each": ("ma_bn", np.arange(160) // 2 + 7_000, "row numbers"),
    "years in order": ("y", np.repeat(np.arange(1990, 2006), 10), None),
    "a platelet count": ("plt", RNG.integers(90_000, 400_000, 160) // 1000 * 1000, None),
}


@pytest.mark.parametrize("kind", MORE)
def test_codes_ages_and_numbers_of_visits_are_told(kind):
    name, numbers, reason = MORE[kind]
    assert hint(pd.Series(numbers, name=name), "numeric") == reason
    assert reason is None or not without_hint(np.asarray(numbers, dtype=float)[:, None])[0]


@pytest.mark.parametrize(
    "name",
    ["FALNR", "Aufnahmenummer", "PatientSerNum", "Pt No", "UHID", "code_patient", "identifiant", "HN", "Sl. No", "S/N",
     "编号", "登録番号", "id_usuario", "idnr", "OPnr", "PatNr", "Potilasnumero", "Patientenkennung"],
)  # fmt: skip
def test_numbers_of_hospitals_programs_are_identifiers(name):
    assert looks_like_identifier(name)


@pytest.mark.parametrize("name", ["hno", "snr", "SNR", "HNR", "serum_no", "n_patients", "pt_inr", "trial_arm"])
def test_abbreviations_that_end_alike_are_none(name):
    assert not looks_like_identifier(name)


def test_numbers_that_float32_cannot_hold_are_empty_whatever_else_the_column_holds():
    """1.7E308 beside 5.1 made the site's mean infinite, and its answer wrong."""
    rows = numbers_of(pd.DataFrame({"flow": [1.7e308, 1e8, 1e8 + 1, -1.7e308]}), ["flow"], "float32")
    assert np.isnan(rows[:, 0]).tolist() == [True, False, False, True]
    assert rows[2, 0] - rows[1, 0] == 1


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ('[\n {"age": 1, "ill": 0}]', "it begins as JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    ],
)
def test_text_that_is_no_table_is_called_by_its_name(tmp_path, start, said):
    (tmp_path / "t.csv").write_text(start)
    with pytest.raises(DataError, match=said):
        TableSource(str(tmp_path / "t.csv")).read()


def test_a_blank_part_is_called_so():
    with pytest.raises(DataError, match="split_column is empty in some rows: write unused"):
        make_folds(Given(kind="given"), 3, np.random.default_rng(0), given=[["train", "", "test"]])


def moments(column):
    return Moments.of([np.asarray(column, dtype=float)[:, None]], with_range=False)


def test_numbers_here_and_their_logarithms_there_are_told():
    exponents = RNG.normal(4, 0.8, 100)
    (said,) = tell_ranges(["vl"], {"a": moments(10**exponents), "b": moments(exponents)})
    assert "'vl'" in said
    rare = np.zeros(400)
    rare[0] = 1
    assert tell_ranges(["ill"], {"a": moments(np.arange(100) % 2), "b": moments(rare)}) == []


@pytest.mark.parametrize(("value", "rows", "told"), [(37.0, 60, True), (37.0, 12, False), (1.0, 60, False)])
def test_one_number_in_every_row_of_a_site_is_told(value, rows, told):
    """A temperature of 37.0 by default lies amid the others' values."""
    sites = {"a": moments(RNG.normal(value, 0.5, 100)), "b": moments([value] * rows)}
    assert bool(tell_constant(["t"], sites, merge_moments(sites.values()))) == told


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ([1, 2, 3, 4], [0, 1, 2, 3], True),
        ([1, 2, 3], [2, 3, 4], False),
        ([0, 1, 2], [1, 2, 3, 4], False),
        ([0, 1, 3], [1, 2, 4], False),
    ],
)
def test_stages_from_0_and_from_1_are_told(one, other, told):
    assert bool(may_be_one("column 'stage'", {"a": one, "b": other})) == told


def of_tasks(*labels):
    return {
        site: {
            "columns": {"x": "numeric", "sex": "text", "age": "numeric"},
            "labels": [],
            "categories": {},
            "task_labels": {"sex": words},
        }
        for site, words in zip("ab", labels, strict=True)
    }


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["f", "m"], "data.targets.sex: the same label is spelled differently"),
        ([1, 2], "data.targets.sex: the sites have different labels"),
        (["M", "V"], "data.targets.sex: sites 'a' and 'b' each have a label that the other lacks"),
        (["F", "M", "unknown"], "data.targets.sex: class 'unknown' is learned as one of 3"),
        (["F", "M"], None),
    ],
)
def test_labels_of_one_of_several_targets_are_compared_as_those_of_one(other, said):
    """M and F here, m and f there were four sexes where a network learns several targets."""
    data = Data.model_validate({"targets": {"sex": "classification", "age": "regression"}, "features": ["x"]})
    try:
        notes = agree(data, of_tasks(["F", "M"], other), classification=False).notes
    except ExperimentError as error:
        notes = [str(error)]
    assert any(note.startswith(said) for note in notes) if said else notes == []


def test_a_mapping_of_columns_is_no_site_and_its_cells_are_not_shown():
    with pytest.raises(
        ExperimentError, match=r"site 'a': a mapping with 'age' is not taken.*make a DataFrame"
    ) as error:
        v6.run({"data": {"target": "ill"}}, {"a": {"age": [71.5, 62.5], "ill": [0, 1]}})
    assert "71.5" not in str(error.value)


def test_a_classification_of_several_targets_is_not_checked_again_after_its_folds_were_merged():
    """Under policy standard its merged state has the sites' parts, and a run ended after training."""
    state = {"kind": "multitask", "tasks": {"sex": {"kind": "classification", "parts": []}}}
    assert isinstance(by_target({"a": CheckedState(state)}, "")["sex"]["a"], CheckedState)
