"""Tables with the traps that real hospitals' tables have: a run ends right, or in one clear line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hospitals import command, read_result
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.preparation.spelling import spelled_differently

ROWS = 120


def hospital(seed, rows=ROWS, **columns):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": generator.normal(60, 9, rows).round(1), "crp": generator.normal(5, 2, rows).round(2)})
    frame["y"] = (frame["age"] + generator.normal(0, 4, rows) > 60).astype(int)
    return frame.assign(**columns)


@pytest.fixture
def run(tmp_path):
    """Run an experiment on the tables of sites, as the command line does; return it with its result, if any."""

    def run(verb="run", data=None, more="", **sites):
        for name, table in sites.items():
            content = table if isinstance(table, str) else table.to_csv(index=False)
            (tmp_path / f"{name}.csv").write_text(content)
        where = "\n".join(f"  {name}: {{uri: {name}.csv}}" for name in sites)
        file = tmp_path / "experiment.yaml"
        file.write_text(
            f"sites:\n{where}\ndata: {data or '{target: y}'}\nproblem: classification\n"
            f"rounds: 1\nmodel: logistic\n{more}"
        )
        done = command(verb, file, *(["--out", tmp_path / "out", "--force"] if verb == "run" else []))
        there = (tmp_path / "out" / "result.json").exists()
        return done, read_result(tmp_path / "out") if there else None

    return run


@pytest.mark.parametrize("verb", ["run", "validate"])
def test_columns_that_are_not_used_are_named_with_the_reason(run, verb):
    traps = {
        "share": [f"{row % 50} %" for row in range(ROWS)],
        "tnt": ["<0.1" if row % 3 else "0.5" for row in range(ROWS)],
        "ward": ["north", "south"] * (ROWS // 2),
        "mrn": np.arange(ROWS) * 7 % ROWS,
        "visit": np.random.default_rng(3).permutation(ROWS) + 70_000,
        "Unnamed: 0.1": range(ROWS),
        "nothing": np.nan,
    }
    decimals = ["crp2", *(f'"{row},5"' for row in range(ROWS))]
    tables = {name: hospital(seed, **traps).to_csv(index=False) for seed, name in enumerate(("a", "b"))}
    tables = {
        name: "\n".join(",".join(cells) for cells in zip(text.splitlines(), decimals, strict=True))
        for name, text in tables.items()
    }
    done, result = run(verb, **tables)
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    for sentence in (
        "numbers with a percent sign: share",
        "numbers beside limits such as < 1: tnt",
        "data.categorical: [ward]",
        "such as row or patient numbers: visit",
        "numbers with a decimal comma: crp2; data.decimal",
        "identifiers by their names: mrn, Unnamed: 0.1",
        "empty at every site that has them: nothing",
    ):
        assert sentence in shown, sentence
    if result is not None:
        assert result["preparation"]["features"] == ["age", "crp"]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (["yes", "no"], ["Yes", "no"], "'yes' at 'a', 'Yes' at 'b'"),
        (["yes", "no"], ["yes ", "no"], None),  # spaces around are no difference
        (["caf\u00e9", "no"], ["cafe\u0301", "no"], "spelled differently"),
        ([0, 1], [1, 2], "a: 0, 1; b: 1, 2"),
        (["sick", "well"], [0, 1], "different labels"),
        (["F", "M"], ["female", "male"], "different labels"),
    ],
)
def test_labels_that_sites_write_differently_stop_the_run_with_the_sets_shown(run, first, second, said):
    tables = {"a": hospital(1), "b": hospital(2)}
    for (name, table), labels in zip(tables.items(), (first, second), strict=True):
        tables[name] = table.assign(y=[labels[value] for value in table["y"]])
    done, result = run(**tables)
    if said is None:
        assert done.exit_code == 0, done.output
    else:
        assert done.exit_code == 2
        assert result is None
        assert said in " ".join(done.output.split())


def test_categories_that_sites_write_differently_stop_the_run(run):
    done, _ = run(
        data="{target: y, categorical: [sex]}",
        a=hospital(1, sex=["F", "M"] * (ROWS // 2)),
        b=hospital(2, sex=["f", "M"] * (ROWS // 2)),
    )
    assert done.exit_code == 2
    assert "data.categorical: column 'sex': the same label is spelled differently" in " ".join(done.output.split())


@given(st.lists(st.sampled_from(["yes", "no", "maybe"]), min_size=2, max_size=3, unique=True), st.data())
def test_a_change_of_case_or_spaces_is_always_found_and_the_same_labels_never(labels, data):
    changed = [data.draw(st.sampled_from([label, label.upper(), f" {label}", label.title()])) for label in labels]
    found = spelled_differently("column", {"a": labels, "b": changed}, allowed=True)
    assert bool(found) == (set(changed) != set(labels))
    assert spelled_differently("column", {"a": labels, "b": labels}, allowed=False) == []


def test_a_condition_that_no_row_of_a_site_meets_is_a_note_that_names_it(run):
    tables = {"a": hospital(1), "b": hospital(2)}
    tables["a"]["y"] = tables["a"]["y"].map({0: "no", 1: "yes"})
    tables["b"]["y"] = tables["b"]["y"].map({0: "no", 1: "ja"})
    _, result = run(data="{target: y, positive: '== yes'}", **tables)
    assert "site 'b': no row meets data.positive '== yes'; is it written so there?" in result["notes"]


def test_the_class_that_precision_and_recall_are_of_is_named(run):
    tables = {name: hospital(seed) for seed, name in enumerate(("a", "b"))}
    done, result = run(
        **{name: table.assign(y=table["y"].map({0: "well", 1: "ill"})) for name, table in tables.items()}
    )
    assert any("are of class 'well', the last in order" in note for note in result["notes"])
    assert "are of class 'well'" in " ".join(done.output.split())


def test_a_feature_that_is_empty_or_infinite_at_one_site_is_told(run):
    infinite = [np.inf, *range(ROWS - 1)]
    _, result = run(
        a=hospital(1, bmi=[22.5, 30] * (ROWS // 2), ldl=[1.5] * ROWS), b=hospital(2, bmi=np.nan, ldl=infinite)
    )
    assert any("site 'b': no row has a value in bmi" in note for note in result["notes"])
    assert any("site 'b': ldl: infinite numbers" in note for note in result["notes"])


def test_a_site_that_refuses_a_later_call_is_named_at_the_top(run):
    """Its table is large enough, a part of it is not."""
    more = "split: {kind: ratio, train: 0.9, validation: 0.05, test: 0.05}\nparticipation: {minimum: 2}\n"
    tables = {"a": hospital(1), "b": hospital(2), "c": hospital(3, rows=14)}
    done, _ = run("validate", more=more, **tables)
    assert "site 'c' took no part: refused:" in " ".join(done.output.split())
    done, result = run(more=more, **tables)
    assert result is not None, done.output
    assert list(result["sites"]) == ["a", "b"]
    assert any(note.startswith("site 'c' took no part: refused:") for note in result["notes"]), result["notes"]
    assert "2 of 3 sites" in " ".join(done.output.split())


def test_true_is_a_value_of_a_boolean_target(run):
    tables = {name: hospital(seed) for seed, name in enumerate(("a", "b"))}
    _, result = run(data="{target: y, positive: '== true'}", **{n: t.assign(y=t["y"] == 1) for n, t in tables.items()})
    assert result["preparation"]["classes"] == [0, 1]
    assert not any("no row meets" in note for note in result["notes"])


def test_a_code_with_a_zero_in_front_is_no_number():
    from v6_algorithm.data.targets import canonical

    assert canonical(pd.Series(["01", "1", "1.0", "0", "0.5"], dtype=object)) == ["01", 1, 1, 0, 0.5]


def test_a_code_for_not_known_is_told_with_its_column_and_gone_when_it_is_named(run):
    berlin = hospital(2)
    berlin.loc[3, "age"] = 999
    for data, told in (("{target: y}", True), ("{target: y, missing_values: {age: [999]}}", False)):
        _, result = run(data=data, amsterdam=hospital(1), berlin=berlin)
        notes = [note for note in result["notes"] if "far from all others" in note]
        assert len(notes) == told
        assert not told or notes[0].startswith("column 'age' at berlin: a number far from all others")
