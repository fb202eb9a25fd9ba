"""From every site's columns to one list that all have: what is used, what is left out and said, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from v6_algorithm.data.preparation import agree
from v6_algorithm.data.preparation.columns import sort_labels
from v6_algorithm.data.preparation.spelling import folded
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Data


def settings(**options):
    return Data.model_validate({"target": "num"} | options)


def schema(labels=(0, 1), categories=None, **columns):
    kinds = {"num": "numeric"} | columns
    return {"columns": kinds, "labels": list(labels), "categories": categories or {}}


def agreed(*schemas, classification=True, **options):
    sites = dict(zip("abcdef", schemas, strict=False))
    return agree(settings(**options), sites, classification=classification)


def refusal(*schemas, **options):
    with pytest.raises(ExperimentError) as refused:
        agreed(*schemas, **options)
    return str(refused.value)


NUMBERS = schema(age="numeric", chol="numeric")


# -- features ------------------------------------------------------------------------------------------------------


def test_every_numeric_column_that_all_sites_have_is_a_feature():
    agreement = agreed(NUMBERS, NUMBERS)
    assert agreement.features == ["age", "chol"]
    assert agreement.notes == []


def test_features_keep_the_order_of_the_first_site():
    other = schema(chol="numeric", age="numeric")
    assert agreed(NUMBERS, other).features == ["age", "chol"]
    assert agreed(other, NUMBERS).features == ["chol", "age"]


def test_named_features_are_taken_in_their_order_and_no_others():
    assert agreed(NUMBERS, features=["chol"]).features == ["chol"]
    assert agreed(NUMBERS, features=["chol", "age"]).features == ["chol", "age"]


@pytest.mark.parametrize("role", ["group", "split_column"])
def test_columns_with_another_role_are_no_features(role):
    assert agreed(schema(age="numeric", visit="numeric"), **{role: "visit"}).features == ["age"]


def test_excluded_and_categorical_columns_are_no_numeric_features():
    one = schema(age="numeric", chol="numeric", cp="numeric", categories={"cp": [1]})
    agreement = agreed(one, exclude=["chol"], categorical=["cp"])
    assert (agreement.features, agreement.categories) == (["age"], {"cp": [1]})


def test_a_column_that_one_site_lacks_is_left_out_and_said():
    agreement = agreed(NUMBERS, schema(age="numeric"))
    assert agreement.features == ["age"]
    assert agreement.notes == ["left out because not every site has them: chol (not at b)"]


@pytest.mark.parametrize(
    "name",
    [
        "id", "ID", "patient_id", "index", "Unnamed: 0", "Subject", "record nr", "name", "Unnamed: 0.1", "X",
        "MRN", "pid", "encounter_nr", "BSN", "hosp_mrn", "patid", "UUID", "StudyInstanceUID", "specimen",
        "Accession Number", "barcode", "UPN", "empi", "ppn", "row", "nr", "id_patient", "ID-case", "lfd_Nr",
        "Fallnummer",
        "zaaknummer",
        "volgnr", "NHS number", "medical record no", "Patientennummer", "rownames", "row.names", "pseudonym",
        "hospital_key", "eid", "RID", "PTID", "SEQN", "IID", "subjid", "USUBJID", "redcap_repeat_instance", "zisnr",
        "num_dossier", "num\u00e9ro de s\u00e9jour", "IPP", "AHV", "SVNR", "BSN nummer", "Hospital No.", "MRN#",
        "dossiernummer", "patient_identifier", "Teilnehmer", "deelnemernummer", "opnamenr", "episode_nr", "rijnummer",
        "Zeile", "n\u00b0",
        "level_0", "Patient Nr.", "Pat.-Nr.", "Fall-Nr.",
    ],
)  # fmt: skip
def test_identifiers_are_left_out_and_said(name):
    agreement = agreed(schema(age="numeric", **{name: "numeric"}))
    assert agreement.features == ["age"]
    assert agreement.notes == [f"left out as identifiers by their names: {name}; data.features uses them all the same"]


def test_a_column_called_as_row_names_are_that_holds_fractions_is_a_feature():
    one = schema(x="numeric", index="numeric")
    assert agreed({**one, "hints": {"x": "measured"}}, one).features == ["x"]


@pytest.mark.parametrize(
    "name",
    [
        "idle", "valid", "covid", "acid", "patients", "named", "indexed", "V1", "no", "number", "fluid", "x1", "rapid",
        "squid", "nrs", "rows", "case_mix", "visits", "uric acid", "steroid", "key", "study", "hospital", "fall",
        "grid", "lipid", "episode", "episodes", "client", "case", "snr", "nihss", "sid_mean", "num_nodes", "numerator",
        "obs",
    ],
)  # fmt: skip
def test_a_name_that_only_looks_like_an_identifier_is_a_feature(name):
    assert agreed(schema(**{name: "numeric"})).features == [name]


def test_an_identifier_that_is_asked_for_is_a_feature():
    assert agreed(schema(subject="numeric"), features=["subject"]).features == ["subject"]


def test_text_columns_are_left_out():
    assert agreed(schema(age="numeric", ward="text", admitted="other")).features == ["age"]


def test_a_column_that_is_empty_at_one_site_is_used():
    assert agreed(NUMBERS, schema(age="empty", chol="numeric")).features == ["age", "chol"]


def test_a_column_that_is_empty_everywhere_is_left_out():
    assert agreed(schema(age="numeric", chol="empty"), schema(age="numeric", chol="empty")).features == ["age"]


@pytest.mark.parametrize("kind", ["text", "other"])
def test_numbers_here_and_text_there_is_refused_with_both_sites(kind):
    message = refusal(NUMBERS, schema(age="numeric", chol=kind))
    assert message == (
        f"site 'b': column 'chol' holds {kind}, at site 'a' it holds numbers; "
        "clean it there, list it under data.categorical, or leave it out with data.exclude"
    )


def test_a_named_feature_that_is_text_somewhere_is_refused():
    assert refusal(NUMBERS, schema(age="text"), features=["age"]).startswith(
        "site 'b': column 'age' holds text where numbers are expected"
    )


def test_a_named_feature_that_is_not_there_is_refused_with_what_is():
    assert refusal(NUMBERS, schema(chol="numeric"), features=["age"]) == (
        "site 'b': column 'age' (data.features) is not there; it has: num, chol"
    )


def test_a_categorical_column_that_is_not_there_is_refused_by_its_own_key():
    one = schema(age="numeric", cp="text", categories={"cp": ["x"]})
    other = schema(age="numeric", categories={"cp": []})
    assert refusal(one, other, categorical=["cp"]) == (
        "site 'b': column 'cp' (data.categorical) is not there; it has: num, age"
    )


def test_all_sites_that_do_not_fit_are_named_at_once():
    message = refusal(NUMBERS, schema(), schema(age="text"), features=["age", "chol"])
    assert [line[:8] for line in message.splitlines()] == ["site 'b'", "site 'b'", "site 'c'", "site 'c'"]


def test_a_long_list_of_columns_is_cut_short():
    genes = {f"gene{number}": "numeric" for number in range(18_388)}
    assert refusal(schema(**genes), features=["age"]).endswith("gene28, … 18359 more")


def test_no_column_in_common_is_refused():
    assert "no numeric column is left at all sites" in refusal(schema(age="numeric"), schema(chol="numeric"))


# -- categories and classes ----------------------------------------------------------------------------------------


def test_categories_are_the_union_of_the_sites():
    one = schema(cp="numeric", categories={"cp": [4, 1]})
    other = schema(cp="text", categories={"cp": ["typical", 1]})
    assert agreed(one, other, categorical=["cp"]).categories == {"cp": [1, 4, "typical"]}


def test_classes_are_the_union_of_the_sites():
    assert agreed(schema([0, 2], age="numeric"), schema([1, 2], age="numeric")).classes == [0, 1, 2]


def test_a_regression_has_no_classes():
    assert agreed(schema([], age="numeric"), classification=False).classes is None


def test_a_class_that_one_site_holds_alone_is_said_without_its_name():
    agreement = agreed(schema(["ill", "well"], age="numeric"), schema(["well", "dead"], age="numeric"))
    assert agreement.notes == [
        "data.target: column 'num': sites 'a' and 'b' each have a label that the other lacks: is it one label, written "
        "differently? They are learned as two",
        "class 1 of 3 is seen at one site only: b",
        "class 2 of 3 is seen at one site only: a",
    ]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (["M", "V"], ["F", "M"], True),
        (["M", "V", "X"], ["F", "M", "X"], True),
        (["F", "M"], ["F", "M", "X"], False),
        (["a", "b", "c", "d"], ["b", "c", "d", "e"], False),  # of many a site may well lack some
        ([1, 2, 3], [2, 3, 4], False),
    ],
)
def test_a_category_that_may_be_anothers_other_spelling_is_told(one, other, told):
    """M and V at one hospital and M and F at the other were three sexes, without a word."""
    sites = [schema(age="numeric", sex="text", categories={"sex": labels}) for labels in (one, other)]
    notes = agreed(*sites, categorical=["sex"], different_labels="stop").notes
    assert any("is it one label, written differently" in note for note in notes) == told
    assert not any("'V'" in note or "'F'" in note for note in notes)


def test_a_site_of_one_class_is_said():
    notes = agreed(schema([0, 1], age="numeric"), schema([1], age="numeric")).notes
    assert "site 'b' has rows of one class only; its own auroc is undefined" in notes


def test_one_class_over_all_sites_is_refused():
    assert refusal(schema([1], age="numeric"), schema([1], age="numeric")) == (
        "data.target: column 'num' has 1 class over all sites; at least 2 are needed"
    )


def test_a_condition_that_no_row_or_every_row_meets_is_refused():
    # Nothing is learned from one class, and the run would end with an accuracy of 1.
    message = refusal(schema([0], age="numeric"), schema([0], age="numeric"), positive="> 1000")
    assert "has 1 class over all sites with data.positive '> 1000'" in message


def test_a_condition_gives_two_classes_even_if_each_site_has_one():
    assert agreed(schema([0], age="numeric"), schema([1], age="numeric"), positive="> 0").classes == [0, 1]


labels = st.sets(st.integers(-9, 9) | st.floats(0.1, 0.9) | st.text(max_size=3), min_size=2, max_size=6)


@given(st.lists(labels, min_size=1, max_size=4))
def test_the_classes_do_not_hang_on_the_order_of_sites(parts):
    # Labels that differ in spelling only are refused, whatever is allowed.
    spellings = {folded(str(label)) for part in parts for label in part}
    assume(len(spellings) == len({str(label) for part in parts for label in part}))
    one = agreed(*(schema(part, age="numeric") for part in parts), different_labels="allow").classes
    backwards = (schema(sorted(part, key=str, reverse=True), age="numeric") for part in reversed(parts))
    other = agreed(*backwards, different_labels="allow").classes
    assert one == other == sort_labels(set().union(*parts))


def test_numbers_come_before_text_and_in_their_own_order():
    assert sort_labels({"b", 10, 9.5, "a", 2}) == [2, 9.5, 10, "a", "b"]
