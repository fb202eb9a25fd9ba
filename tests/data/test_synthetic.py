"""Rows that are made only train, in every kind of split, and no patient is tested who was trained on in disguise."""

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.encoding import load_table
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.synthetic import synthetic_rows, with_synthetic
from v6_algorithm.data.targets import TargetColumn
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import DataError, ExperimentError, PolicyError
from v6_algorithm.experiment import Data, Experiment
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.work import Work

ROWS, MADE = 60, 20


def frame(rows=ROWS, made=MADE, seed=0):
    """Patients of two rows each, then made rows of nobody; the parts and folds of a given split beside them."""
    generator = np.random.default_rng(seed)
    values = pd.DataFrame(generator.normal(size=(rows + made, 2)), columns=["a", "b"])
    return values.assign(
        y=np.arange(rows + made) % 2,
        made=np.arange(rows + made) >= rows,
        patient=[f"p{row // 2}" if row < rows else f"m{row}" for row in range(rows + made)],
        part=[("train", "train", "validation", "test")[row // 2 % 4] for row in range(rows + made)],
        number=[row // 2 % 3 for row in range(rows + made)],
    ).astype({"made": int})


SPLITS = {
    "ratio": {"kind": "ratio"},
    "kfold": {"kind": "kfold", "folds": 3, "repeats": 2},
    "leave_one_site_out": {"kind": "leave_one_site_out"},
    "given": {"kind": "given"},
    "given folds": {"kind": "given", "folds": 3},
}


def experiment(split="ratio", **data):
    columns = {"given": {"split_column": "part"}, "given folds": {"split_column": "number"}}.get(split, {})
    data = {"target": "y", "features": ["a", "b"], "synthetic": "made", **columns, **data}
    return Experiment.parse({"data": data, "split": SPLITS[split], "rounds": 1, "model": "linear"})


def table(content, split="ratio", member="here", **data):
    setup = Setup(["a", "b"], {}, [0, 1], hospitals=["here", "there"] if split == "leave_one_site_out" else [])
    return load_table({member: content}, experiment(split, **data), setup, [TargetColumn("y", "target", "class")])


@pytest.mark.parametrize("group", [None, "patient"])
@pytest.mark.parametrize("split", SPLITS)
def test_made_rows_only_train_and_the_others_are_cut_as_without_them(split, group):
    both, alone = table(frame(), split, group=group), table(frame().iloc[:ROWS], split, group=group)
    assert len(both.folds) == len(alone.folds)
    for fold, without in zip(both.folds, alone.folds, strict=True):
        assert np.array_equal(fold.validation, without.validation)
        assert np.array_equal(fold.test, without.test)
        assert np.array_equal(fold.train[fold.train < ROWS], without.train)
        at_home = split == "leave_one_site_out" and fold is both.folds[0]
        assert (fold.train >= ROWS).sum() == (0 if at_home else MADE)


@pytest.mark.parametrize("split", SPLITS)
def test_a_site_of_made_rows_only_trains_in_every_fold_and_tests_nothing(split):
    hub, hospital = table(frame(0, 30), split, "hub"), table(frame(), split)
    assert len(hub.folds) == len(hospital.folds)
    for fold in hub.folds:
        assert len(fold.train) == 30
        assert not len(fold.validation)
        assert not len(fold.test)


def test_what_was_made_of_a_patient_does_not_train_where_the_patient_is_tested():
    content = frame()
    content.loc[ROWS:, "patient"] = [f"p{number}" for number in range(MADE)]
    for fold in table(content, "kfold", group="patient").folds:
        held_out = set(content["patient"].iloc[[*fold.validation, *fold.test]])
        made = content["patient"].iloc[fold.train[fold.train >= ROWS]]
        assert not held_out & set(made)
        assert len(made) == sum(f"p{number}" not in held_out for number in range(MADE))


def test_rows_are_joined_in_the_order_of_the_table():
    from v6_algorithm.data.splits import Fold

    synthetic = np.array([True, False, True, False, False])
    real = Fold(np.array([0]), np.array([1]), np.array([2]))
    (fold,) = with_synthetic([real], synthetic, None, tests_only=[])
    assert [part.tolist() for part in (fold.train, fold.validation, fold.test)] == [[0, 1, 2], [3], [4]]


def test_without_the_column_or_in_an_empty_cell_a_row_is_real():
    data = Data(target="y", synthetic="made")
    assert not synthetic_rows(pd.DataFrame({"y": [0, 1]}), data).any()
    assert not synthetic_rows(pd.DataFrame({"made": [1, 1]}), Data(target="y")).any()
    assert synthetic_rows(pd.DataFrame({"made": [1.0, None, 0.0]}), data).tolist() == [True, False, False]
    assert synthetic_rows(pd.DataFrame({"made": [True, False]}), data).tolist() == [True, False]


@pytest.mark.parametrize("cells", [[0, 2], ["yes", "no"], [0.5, 1]])
def test_other_values_than_0_and_1_are_refused_without_being_shown(cells):
    with pytest.raises(DataError, match=r"column 'made' \(data.synthetic\) holds other values than 0 and 1") as refused:
        synthetic_rows(pd.DataFrame({"made": cells}), Data(target="y", synthetic="made"))
    assert "yes" not in str(refused.value)


@pytest.mark.parametrize("changes", [{"features": ["a", "made"]}, {"group": "made"}, {"target": "made"}])
def test_the_column_cannot_be_something_else_as_well(changes):
    with pytest.raises(ExperimentError, match="column 'made'"):
        experiment(**changes)


def sources(hub=None):
    tables = {"amsterdam": frame(seed=1), "berlin": frame(made=0, seed=2).drop(columns="made")}
    return {name: TableSource(frame=one) for name, one in (tables | ({} if hub is None else {"hub": hub})).items()}


def test_a_site_that_brings_made_rows_only_trains_with_the_others_and_the_result_counts_them():
    asked = experiment()
    result = run(local_federation(asked, sources(frame(0, 30))), asked)
    assert result["status"] == "completed"
    assert result["sites"]["hub"]["n"] == {"train": 30, "validation": 0, "test": 0, "rows": 30, "synthetic": 30}
    assert result["sites"]["amsterdam"]["n"]["synthetic"] == MADE
    assert result["sites"]["berlin"]["n"]["synthetic"] == 0
    assert set(result["metrics"]["test"]["sites"]) == {"amsterdam", "berlin"}
    assert result["metrics"]["test"]["pooled"]["n"] == 24
    assert result["participation"][-1]["answered"] == ["amsterdam", "berlin"], "the hub has nothing to measure"


@pytest.mark.parametrize("split", ["kfold", "leave_one_site_out"])
@pytest.mark.parametrize("mode", ["federated", "centralised"])
def test_such_a_site_takes_part_in_every_fold_but_is_none_to_leave_out(split, mode):
    asked = experiment(split).model_copy(update={"mode": mode})
    result = run(local_federation(asked, sources(frame(0, 30))), asked)
    assert result["status"] == "completed"
    if split == "leave_one_site_out":
        assert [fold["test_site"] for fold in result["folds"]] == ["amsterdam", "berlin"]
    assert all(fold["sites"]["hub"]["n"]["train"] == 30 for fold in result["folds"])


def test_the_column_is_no_feature_though_nobody_names_the_features():
    asked = experiment(features=None, exclude=["number"])
    assert run(local_federation(asked, sources()), asked)["preparation"]["features"] == ["a", "b"]


def test_a_column_that_no_site_has_is_a_mistake():
    asked = experiment(synthetic="maed")
    with pytest.raises(ExperimentError, match=r"data\.synthetic: no site has a column 'maed'"):
        run(local_federation(asked, sources()), asked)


@pytest.mark.parametrize(
    ("rows", "made", "allowed"),
    [(10, 5, True), (9, 50, False), (0, 10, True), (0, 9, False), (50, 3, True), (50, 2, False)],
)
def test_a_nodes_minimum_is_of_patients_rows_and_a_column_cannot_lower_it(rows, made, allowed):
    asked = experiment()
    request = {"site": "here", "round": 1, "experiment": asked.for_sites(), "sites": 2}
    context = SiteContext({"here": TableSource(frame=frame(rows, made))}, Policy(minimum_part_rows=3))
    work = Work(request, context)
    if allowed:
        work.check_rows(rows + made, made)
    else:
        with pytest.raises(PolicyError, match="fewer"):
            work.check_rows(rows + made, made)


def test_few_real_rows_in_a_part_are_refused_though_made_ones_stand_beside_them():
    asked = experiment("given")
    content = frame(12, 30)
    content.loc[:11, "part"] = ["train"] * 2 + ["validation"] * 5 + ["test"] * 5
    tables = {"amsterdam": TableSource(frame=content), "berlin": TableSource(frame=frame(seed=3))}
    asked = asked.model_copy(update={"participation": asked.participation.model_copy(update={"minimum": 1})})
    result = run(local_federation(asked, tables), asked)
    assert "fewer train rows here" in result["participation"][1]["missing"]["amsterdam"]
    assert "amsterdam" not in result["sites"]


@pytest.mark.parametrize("split", ["given", "given folds", "kfold"])
def test_a_table_of_made_rows_only_needs_no_columns_for_parts_patients_and_groups(split):
    content = experiment(split, group="patient").model_dump(mode="json", exclude_unset=True)
    content["evaluation"] = {"subgroups": [{"column": "sex"}]}
    hospitals = [frame(seed=seed).assign(sex=["f", "m"] * 40) for seed in (0, 1)]
    tables = {"one": hospitals[0], "two": hospitals[1], "hub": frame(0, 30)[["a", "b", "y", "made"]]}
    asked = Experiment.parse(content)
    sources = {name: TableSource(frame=rows) for name, rows in tables.items()}
    result = run(local_federation(asked, sources), asked)
    assert result["sites"]["hub"]["n"]["test"] == 0
    assert set(result["subgroups"]["test"]["sex"]) == {"f", "m"}


def test_a_table_with_one_row_of_a_patient_needs_them():
    asked = experiment("given")
    sources = {"one": TableSource(frame=frame()), "hub": TableSource(frame=frame(1, 30).drop(columns="part"))}
    with pytest.raises(ExperimentError, match=r"site 'hub': column 'part' \(data.split_column\) is not there"):
        run(local_federation(asked, sources), asked)
