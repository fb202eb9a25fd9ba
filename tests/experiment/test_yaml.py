"""YAML as 1.2 has it, in which a text stays a text, and writing that reads as the same."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.reading import read_value, to_yaml, value_to_yaml

# Texts that YAML 1.1 or 1.2 takes for something else, or for its syntax.
TRAPS = [
    *("no", "Yes", "ON", "off", "y", "010", "08", "0o17", "0x1F", "0b1", "1_000", "1:30", "190:20:30", "2024-01-01"),
    *(
        "1e5",
        "1.",
        ".5",
        ".inf",
        ".nan",
        "~",
        "null",
        "",
        "true",
        "=",
        "<<",
        "a, b",
        "x: y",
        "# c",
        "a #b",
        "- z",
        "? q",
    ),
    *("@x", "%d", "&a", "*a", "!t", "[x", "{y", "|", ">", " lead", "trail ", "a\nb", "'", '"', "é"),
]
# No line breaks of Unicode: PyYAML folds them in keys.
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(TRAPS) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TRAPS) | TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in ("no", "yes", "on", "off", "y", "n", "1:30", "2024-01-01", "010", "-08", "1_000")),
        ("true", True), ("False", False), ("0", 0), ("+5", 5), ("0o17", 15), ("0x1F", 31), ("1e-3", 0.001), (".5", 0.5),
        ("1.", 1.0), ("-.inf", float("-inf")), ("~", None), ("", None), ("NULL", None), ("007.5", "007.5"),
    ],
)  # fmt: skip
def test_plain_values(text, value):
    read = read_value("k", text)
    assert (read, type(read)) == (value, type(value))


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_what_is_written_reads_as_the_same_here_and_in_yaml_1_1(value):
    texts = [to_yaml({"k": value}), f"k: {value_to_yaml(value)}", f"k: [1, {value_to_yaml(value)}]"]
    for text, at in zip(texts, (lambda k: k, lambda k: k, lambda k: k[1]), strict=True):
        assert at(read_value("file", text)["k"]) == value
    if "<<" not in str(value) and "=" not in str(value):
        assert yaml.safe_load(texts[0])["k"] == value


def test_sites_and_categories_may_be_called_no(tmp_path):
    text = (
        "sites: {no: {uri: a.csv}, 01: {uri: b.csv}}\ndata: {target: y, categorical: [no]}\nresident: no\nrounds: 3\n"
    )
    (tmp_path / "e.yaml").write_text(text)
    experiment = Experiment.load(tmp_path / "e.yaml")
    assert list(experiment.sites) == ["no", "01"]
    assert experiment.data.categorical == ["no"]
    assert experiment.resident is False


@pytest.mark.parametrize("value", ["1:30", "yes", "010x", "2024-01-01"])
def test_a_number_that_is_none_is_refused_with_what_was_given(value):
    with pytest.raises(Exception, match=rf"rounds: .*{value}"):
        Experiment.parse(read_value("file", f"data: {{target: y}}\nrounds: {value}"))
