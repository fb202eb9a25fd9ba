"""The template of files' names: what it reads, what it refuses, and that no name makes it take long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.imaging.names import Template

WORDS = st.text(st.characters(exclude_characters="/_.{}*", exclude_categories=["C"]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("template", "path", "fields"),
    [
        ("{label}/*", "melanoma/x.png", {"label": "melanoma"}),
        ("train/{label}/*", "train/nevus/x.png", {"label": "nevus"}),
        ("*{y:1}.png", "seed0017-1.png", {"y": "1"}),
        ("{label}/{patient}_*.png", "ill/p1_left_2.png", {"label": "ill", "patient": "p1"}),
        ("{site}_*_{y}.png", "a_b_c_d.png", {"site": "a", "y": "d"}),
        ("scan-{patient}{y:1}.nii.gz", "scan-0070.nii.gz", {"patient": "007", "y": "0"}),
        ("{year:4}{month:2}*", "202611-x.png", {"year": "2026", "month": "11"}),
    ],
)
def test_fields_are_what_stands_in_their_place(template, path, fields):
    assert Template.parse(template).read(path) == fields


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{label}/*", "x.png"),
        ("{label}/*", "a/b/x.png"),
        ("*{y:1}.png", ".png"),
        ("{y}.png", "1.jpg"),
        # In which of the two is `b`?
        ("{patient}_{y}.png", "a_b_c.png"),
    ],
)
def test_what_does_not_fit_or_fits_in_two_ways_is_left_out(template, path):
    assert Template.parse(template).read(path) is None


@given(WORDS, WORDS, st.text(st.characters(exclude_characters="/", exclude_categories=["C"]), max_size=8), WORDS)
def test_a_name_made_of_fields_gives_them_back(label, patient, anything, y):
    found = Template.parse("{label}/{patient}_*_{y}.png").read(f"{label}/{patient}_{anything}_{y}.png")
    assert found == {"label": label, "patient": patient, "y": y}


def test_a_long_name_is_looked_through_and_not_tried_in_every_way():
    """A regular expression of this shape would try a number of ways that doubles with each letter."""

    class Counted(str):
        looks = 0

        def startswith(self, *given):
            Counted.looks += 1
            return str.startswith(self, *given)

    assert Template.parse("{a}a{b}a{c}a{d}a*a{e}a").read(Counted("a" * 5000)) is None
    assert Counted.looks < 10


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "1 to 200 characters"),
        ("../{y}/*", "must be names with / between"),
        ("/{y}/*", "must be names with / between"),
        ("*.png", "has no {field}"),
        ("{y}/{y}.png", "has a field twice"),
        ("*-{y}-*.png", "has two"),
        ("{a}{b}.png", "does not say where a field"),
        ("*{y}.png", "does not say where a field"),
        ("{y.png", "cannot be read at '{y.png'"),
        ("(a+)+{y}}", "cannot be read at '}'"),
        ("{file}/*", "a field is called 'file'"),
        ("{label}/*", "column 'y' is no field of image.files, which has: label"),
    ],
)
def test_a_template_that_cannot_be_read_says_why(template, reason):
    with pytest.raises(ExperimentError) as refused:
        Experiment.parse({"data": {"target": "y", "image": {"files": template}}, "problem": "image_classification"})
    assert "data" in str(refused.value)
    assert reason in str(refused.value)
