"""A category that nobody trained on is of no category; a patient who stands at two sites is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.description.patients import hash_groups
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext
from v6_algorithm.site.policy import Policy

NAMES = ("amsterdam", "berlin")


def frames(rare, parts=("train", "train", "test"), rows=60):
    """Two hospitals; at one, the rows of part `test` of the ward `rare`."""
    made = {}
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"age": rng.normal(50, 9, rows), "ward": rng.choice(["a", "b"], rows)})
        frame = frame.assign(
            y=(frame["age"] > 50) * 1, part=np.resize(parts, rows), patient=np.arange(rows) + 1000 * seed
        )
        if rare is not None and name == "amsterdam":
            frame.loc[frame["part"] == "test", "ward"] = rare
        made[name] = frame
    return made


def trained(tables, policies=None, **data):
    content = Experiment.parse(
        {
            "data": {"target": "y", "features": ["age"], "categorical": ["ward"], "split_column": "part", **data},
            "split": "given",
            "model": {"kind": "mlp", "hidden": [8]},
            "rounds": 2,
        }
    )
    sources = {name: TableSource(frame=frame) for name, frame in tables.items()}
    if policies is None:
        return run(local_federation(content, sources), content)
    contexts = {name: SiteContext({name: source}, policies[name]) for name, source in sources.items()}
    return run(LocalFederation(contexts), content)


@pytest.mark.usefixtures("one_thread")
def test_a_category_of_test_rows_only_is_named_as_an_unknown_one():
    """Its weight is as random as when training began: rows with it had a prediction that hung on the seed."""
    result = trained(frames("rare"))
    assert result["preparation"]["unknown"] == ["ward=rare"]
    assert any(note.startswith("ward=rare: in no training row, and counts as unknown") for note in result["notes"])


def test_inputs_of_such_a_category_are_those_of_an_empty_cell():
    from v6_algorithm.data.encoding import load_table
    from v6_algorithm.data.preparation import Preparation, Setup
    from v6_algorithm.learning.problems import problem_class

    content = Experiment.parse({"data": {"target": "y", "features": ["age"], "categorical": ["ward"]}})
    one = np.ones((1, 1))
    setup = Setup(["age"], {"ward": ["a", "b", "rare"]}, [0, 1], preparation=Preparation(one, one, one), unknown=[[2]])
    inputs = [
        load_table(
            {"x": frames(rare)["amsterdam"]}, content, setup, problem_class(content.problem.kind).targets(content)
        ).inputs(setup, content.data, 0)
        for rare in ("rare", np.nan)
    ]
    np.testing.assert_array_equal(*inputs)
    assert Setup.from_json(setup.to_json()).unknown == [[2]]


def test_categories_that_are_trained_on_somewhere_stay_as_they_are():
    result = trained(frames(None))
    assert "unknown" not in result["preparation"]
    assert not any("counts as unknown" in note for note in result["notes"])


def shared(number):
    tables = frames(None)
    tables["berlin"].loc[: number - 1, "patient"] = np.arange(number)
    return tables


@pytest.mark.parametrize(("number", "text"), [(1, "(a few)"), (12, "(12)")])
def test_a_patient_at_two_sites_is_named_by_site(number, text):
    notes = trained(shared(number), group="patient", exclude=[])["notes"]
    (note,) = (note for note in notes if "has values in common" in note)
    assert f"amsterdam and berlin {text}" in note
    assert "tested at the other" in note


def test_patients_of_one_site_each_are_no_note():
    assert not any("data.group" in note for note in trained(frames(None), group="patient")["notes"])


def test_a_node_whose_rules_keep_hashes_at_home_is_named():
    policies = {"amsterdam": Policy(), "berlin": Policy(patient_hashes=False)}
    notes = trained(shared(12), policies, group="patient")["notes"]
    assert any("could not be compared for berlin" in note for note in notes)
    assert not any("has values in common" in note for note in notes)


def test_hashes_of_other_keys_have_nothing_in_common():
    column = pd.Series(["17", 17.0, " 18 ", None, "ab", "AB"])
    first, second = hash_groups(column, b"one"), hash_groups(column, b"other")
    assert len(first) == 3
    assert not set(first) & set(second)


@pytest.mark.parametrize("written", ["jose\u0301-12", " José-12 ", "José\u200b-12", "JOSÉ-12", "Jos\u00e9\u00a0-12"])
def test_a_patient_is_the_same_however_a_hospital_writes_the_name(written):
    assert hash_groups(pd.Series([written]), b"key") == hash_groups(pd.Series(["José-12"]), b"key")


def test_other_names_and_leading_zeros_are_other_patients():
    column = pd.Series(["7", "007", "P-12", "P12", "P-1 2x"])
    assert len(hash_groups(column, b"key")) == 5
