"""What is told of columns that are empty in part, of sites that lack one, and of tables that are not searched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.preparation.notes.empty_cells import has_empty_cells, tell_sparse
from v6_algorithm.coordinator.preparation.notes.leaks import tell_unsearched
from v6_algorithm.data.preparation.columns import agree
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.experiment import Data
from v6_algorithm.site.policy import Policy


def moments(*counts):
    of_each = np.array([counts], dtype=float)
    return Moments(np.array([90.0]), of_each, of_each * 0, of_each * 0, of_each * 0, of_each * 0)


ROWS = {"a": [{"train": 90, "validation": 0, "test": 0}], "b": [{"train": 90, "validation": 0, "test": 0}]}


def test_a_column_of_which_less_than_a_third_is_known_is_named_at_its_site():
    of_sites = {"a": moments(90, 90, 90), "b": moments(29, 31, 29)}
    notes = tell_sparse(["age", "bmi", "crp"], of_sites, ROWS, {"a": [], "b": ["crp"]})
    assert notes == ["site 'b': less than a third of its training rows have a value in age; the others are filled in"]


def test_cells_are_filled_only_where_some_are_empty():
    assert not has_empty_cells({"a": moments(90, 90), "b": moments(90, 90)}, ROWS)
    assert has_empty_cells({"a": moments(90, 90), "b": moments(90, 89)}, ROWS)


def schema(**more):
    columns = {"age": "numeric", "y": "numeric"} | more.pop("columns", {})
    return {"columns": columns, "labels": [0, 1], "categories": {}, "hints": {}} | more


def test_a_table_too_wide_to_be_searched_is_named():
    wide = schema(columns={f"g{number}": "numeric" for number in range(2_000)})
    notes = tell_unsearched({"a": schema(), "b": wide})
    assert notes
    assert notes[0].startswith("b: the table has more than 2,000 columns, which are not searched")


def test_a_column_that_a_site_lacks_is_told_with_the_site():
    schemas = {"a": schema(columns={"bmi": "numeric", "crp": "numeric"}), "b": schema(columns={"crp": "numeric"})}
    notes = agree(Data(target="y"), {**schemas, "c": schema()}, classification=True).notes
    assert "left out because not every site has them: bmi (not at b, c); crp (not at c)" in notes


def test_categories_that_say_nothing_is_known_and_sites_without_any_are_told():
    data = Data(target="y", categorical=["smoking"])
    known = schema(columns={"smoking": "text"}, categories={"smoking": ["ja", "keine Angabe", "nein"]})
    empty = schema(columns={"smoking": "empty"}, categories={"smoking": []})
    notes = agree(data, {"a": known, "b": empty}, classification=True).notes
    assert "site 'b': no row has a value in smoking; all rows count there as of no category" in notes
    assert any("'keine Angabe' as a category" in note and "data.missing_values: {smoking:" in note for note in notes)


def test_numbers_that_one_site_writes_otherwise_are_refused_with_its_own_key():
    comma = schema(columns={"bmi": "text"}, hints={"bmi": "decimal comma"})
    with pytest.raises(ExperimentError, match=r'data.decimal: "," \(sites.b.decimal in a local run'):
        agree(Data(target="y"), {"a": schema(columns={"bmi": "numeric"}), "b": comma}, classification=True)


def test_a_run_that_ends_for_want_of_sites_names_those_that_were_lost_before(make_experiment):
    rng = np.random.default_rng(0)
    frames = {name: pd.DataFrame({"a": rng.normal(size=60), "y": np.arange(60) % 2}) for name in "bc"}
    frames["few"] = frames["b"].head(12)
    experiment = make_experiment(data={"target": "y"})
    tables = {name: TableSource(frame=frame) for name, frame in frames.items()}
    rules = replace(Policy(), minimum_rows=20, minimum_sites=3)
    with pytest.raises(FederationError, match=r"at least 3 sites.*\n  few was lost before: refused: .*fewer rows"):
        run(local_federation(experiment, tables, rules), experiment)
