"""The guard's arithmetic: joined bins, row sets, bounds, its ledger, and the keys that may leave."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.errors import PolicyError
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.guard.bounds import check_experiment, check_networks, check_training, within
from v6_algorithm.site.guard.coarse import at_least, coarse_edges, coarse_state, join_bins
from v6_algorithm.site.guard.leaving import FOLD, LEAVES, check_keys
from v6_algorithm.site.guard.ledger import Ledger
from v6_algorithm.site.guard.queries import guarded_source, query_hash
from v6_algorithm.site.guard.rowsets import check_differences
from v6_algorithm.site.policy import Policy

COUNTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40)


@given(COUNTS, st.integers(1, 9))
def test_joined_bins_hold_a_cells_rows_and_lose_none(counts, smallest):
    table = np.array(counts, dtype=np.int64).T
    joined = join_bins(table, smallest)
    assert joined.sum(axis=1).tolist() == table.sum(axis=1).tolist()
    rows = joined.sum(axis=0)
    assert (rows[rows > 0] >= min(smallest, table.sum())).all()


@given(COUNTS, st.integers(1, 9))
def test_joining_bins_keeps_the_order_of_rows_in_different_ones(counts, smallest):
    """Of the rows below a joined bin none was above one of its own."""
    table = np.array(counts, dtype=np.int64).T
    before, after = table.sum(axis=0).cumsum(), join_bins(table, smallest).sum(axis=0).cumsum()
    for place in np.flatnonzero(np.diff(after, prepend=0)):
        assert after[place] in before


@given(st.integers(1, 60), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_a_coarse_state_passes_the_checks_of_an_exact_one(rows, smallest, seed):
    from v6_algorithm.learning.metrics import ClassificationMetrics, merge_states

    generator = np.random.default_rng(seed)
    metrics = ClassificationMetrics(2)
    probability = generator.random(rows)
    target = generator.integers(0, 2, rows)
    metrics.update(np.stack([1 - probability, probability], axis=1), target, generator.random(rows))
    state = metrics.state()
    coarse = coarse_state(state, smallest)
    merge_states([coarse])
    assert {key: coarse[key] for key in ("n", "loss", "confusion")} == {
        key: state[key] for key in ("n", "loss", "confusion")
    }


def test_a_smallest_and_a_largest_value_are_means_of_a_cells_rows():
    values = np.array([[1.0, np.nan], [2, 5], [3, np.nan], [10, np.nan], [20, np.nan]])
    low, high = coarse_edges([values], np.array([[1.0, 5]]), np.array([[20.0, 5]]), 2)
    assert low.tolist() == [[1.5, 5]]
    assert high.tolist() == [[15, 5]]


def test_counts_of_a_few_are_told_as_a_cells():
    assert at_least([[0, 1, 4, 5, 9]], 5) == [[0, 5, 5, 5, 9]]


def test_sets_that_differ_by_few_rows_are_refused_and_the_same_is_answered_again():
    kept, rows = {}, np.arange(100)
    check_differences(kept, "one", {"column 'age'": rows}, 5, "RULE")
    check_differences(kept, "two", {"column 'age'": rows, "column 'dose'": rows[:-1]}, 5, "RULE")
    check_differences(kept, "three", {"column 'age'": rows[:-5]}, 5, "RULE")
    with pytest.raises(PolicyError, match=r"column 'age' differs from an earlier answer of this node by few .*RULE"):
        check_differences(kept, "four", {"column 'age'": rows[:-1]}, 5, "RULE")


@given(st.sets(st.integers(0, 200), max_size=60), st.sets(st.integers(0, 200), max_size=60))
def test_how_many_rows_two_sets_differ_in_is_counted_right(one, other):
    kept, few = {}, len(one ^ other)
    check_differences(kept, "one", {"x": np.array(sorted(one), dtype=np.int64)}, 5, "RULE")
    if 0 < few < 5:
        with pytest.raises(PolicyError):
            check_differences(kept, "two", {"x": np.array(sorted(other), dtype=np.int64)}, 5, "RULE")
    else:
        check_differences(kept, "two", {"x": np.array(sorted(other), dtype=np.int64)}, 5, "RULE")


def test_a_ledger_holds_no_rows_and_is_the_owners_alone(tmp_path):
    ledger = Ledger(tmp_path / "place", {})
    with ledger.open() as content:
        check_differences(content, "one", {"x": np.arange(1000)}, 5, "RULE")
    assert len(ledger.secret()) == 64
    assert ledger.secret() == Ledger(tmp_path / "place", {}).secret()
    (file,) = (tmp_path / "place").glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(json.loads(file.read_text())) == {"bits", "named", "secret"}


@pytest.mark.parametrize("folder", [True, False])
def test_what_a_refused_request_wrote_is_not_kept(tmp_path, folder):
    ledger = Ledger(tmp_path if folder else None, {})

    def refuse():
        with ledger.open() as content:
            content["sums"] = 1
            raise PolicyError("no")

    with pytest.raises(PolicyError):
        refuse()
    with ledger.open() as content:
        assert content == {}


@pytest.mark.parametrize("damage", ["", "{", "[1]", "\x00"])
def test_a_damaged_ledger_answers_nothing(tmp_path, damage):
    (tmp_path / "guard.json").write_text(damage)
    with pytest.raises(PolicyError, match="ledger of answers cannot be kept"), Ledger(tmp_path, {}).open():
        pass


@pytest.mark.slow
def test_containers_that_write_at_once_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from v6_algorithm.site.guard.ledger import Ledger\n"
        "for _ in range(20):\n"
        "    with Ledger(Path(sys.argv[1]), {}).open() as content: content['n'] = content.get('n', 0) + 1\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    with Ledger(tmp_path, {}).open() as content:
        assert content["n"] == 40


# -- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rounds": 10**9}, "rounds: 1e+09 is over this node's bound"),
        ({"split": {"kind": "kfold", "folds": 100, "repeats": 100}}, "split.folds x split.repeats"),
        ({"model": {"kind": "mlp", "hidden": [10**9]}}, "model.hidden: 1e+09"),
        ({"model": {"kind": "mlp", "hidden": [4] * 5000}}, "model.hidden: 5000"),
        ({"model": {"kind": "mlp", "hidden": [10**400]}}, "model.hidden"),
    ],
)
def test_an_experiment_that_no_machine_could_do_is_refused_by_name(changes, named):
    experiment = Experiment.parse({"data": {"target": "y"}} | changes)
    with pytest.raises(PolicyError) as refused:
        check_experiment(Policy(), experiment)
    assert named in str(refused.value)
    assert "V6_ALGORITHM_MAXIMUM_" in str(refused.value)


def test_a_model_of_too_many_numbers_is_refused_before_it_takes_memory():
    import torch

    with torch.device("meta"):
        network = torch.nn.Linear(2**20, 2**20)
    with pytest.raises(PolicyError, match="V6_ALGORITHM_MAXIMUM_PARAMETERS"):
        check_networks(Policy(), {"model": network})


@pytest.mark.parametrize(
    ("training", "rows", "refused"),
    [
        ({"local_epochs": 10**9}, 100, "rows x epochs"),
        ({"local_steps": 10**15}, 100, "batch size x steps"),
        ({"batch_size": 4}, 100, "training.batch_size: 4"),
        ({"batch_size": 8, "local_steps": 1}, 100, "an update of 8 rows"),
        ({"batch_size": 8, "local_steps": 2}, 100, None),
        ({"batch_size": 4}, 4, None),
        ({"batch_size": None}, 6, None),
        ({}, 100, None),
    ],
)
def test_a_training_is_neither_endless_nor_of_few_rows(training, rows, refused):
    experiment = Experiment.parse({"data": {"target": "y"}, "training": training})
    if refused is None:
        check_training(Policy.of("standard"), experiment, 1, rows, {})
        return
    with pytest.raises(PolicyError, match=refused):
        check_training(Policy.of("standard"), experiment, 1, rows, {})


def test_a_request_that_takes_too_long_is_stopped_by_name():
    def forever():
        with within(0.05):
            while True:
                pass

    with pytest.raises(PolicyError, match=r"longer than this node's 0\.05 s"):
        forever()


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_without_a_rule_stays():
    check_keys("train", {"folds": [{"fold": 0}], "device": {}})
    for body in ({"rows_of_patients": []}, {"folds": [{"fold": 0, "predictions": []}]}):
        with pytest.raises(PolicyError, match="knows no rule for"):
            check_keys("train", body)
    assert all(rule for keys in (*LEAVES.values(), FOLD) for rule in keys.values())


# -- SQL -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path):
    import sqlite3
    from contextlib import closing

    from v6_algorithm.data.sources import TableSource

    with closing(sqlite3.connect(tmp_path / "registry.sqlite")) as connection:
        connection.execute("create table patients (age real, name text)")
        connection.executemany("insert into patients values (?, ?)", [(50.0 + n, f"SECRET-{n}") for n in range(5)])
        connection.commit()
    return lambda query: TableSource(str(tmp_path / "registry.sqlite"), "sql", query)


def test_a_query_runs_only_where_the_owner_lists_it_or_its_hash(registry):
    query = "select age from patients"
    with pytest.raises(PolicyError, match=query_hash(query)):
        guarded_source(Policy.of("standard"), registry(query))
    for entry in (query, query_hash(query), query_hash(query).upper()):
        source = guarded_source(Policy.of("standard", allowed_queries=(entry,)), registry(f" {query}\n"))
        assert source.read()["age"].tolist() == [50, 51, 52, 53, 54]


@pytest.mark.parametrize(
    "query",
    [
        "select name as age from patients",
        "select age, (select max(name) from patients) as other from patients",
        "select age from patients where name like 'SECRET-1%'",
        "select age from patients union all select name from patients",
        "select count(name) as age from patients",
        "select * from patients",
        "with x as (select name as age from patients) select age from x",
    ],
)
def test_rules_on_columns_are_about_the_tables_whatever_a_query_calls_them(registry, query):
    from v6_algorithm.errors import DataError

    source = guarded_source(Policy(allowed_columns="age|other"), registry(query))
    with pytest.raises(DataError, match="reads column 'name', which this node does not allow") as refused:
        source.read()
    assert "SECRET" not in str(refused.value)


def test_an_allowed_column_is_read_under_another_name(registry):
    source = guarded_source(Policy(allowed_columns="age|years"), registry("select age as years from patients"))
    assert source.read()["years"].tolist() == [50, 51, 52, 53, 54]


def test_where_nobody_can_say_which_columns_a_query_reads_the_list_decides():
    from v6_algorithm.data.sources import TableSource

    source = TableSource("postgresql://h/db", "sql", "select 1 as age")
    with pytest.raises(PolicyError, match="has to list the query"):
        guarded_source(Policy(allowed_columns="age"), source)
    assert guarded_source(Policy(allowed_columns="age", allowed_queries=("select 1 as age",)), source) is source


# -- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"round": "1"}, "round"),
        ({"round": 10**400}, "round"),
        ({"sites": []}, "sites"),
        ({"site": None}, "site"),
        ({"step": {}}, "step"),
        ({"features": "age"}, "features"),
        ({"folds": True}, "folds"),
        ({"folds": [1]}, "folds"),
        ({"folds": [{"fold": -1}]}, "folds.fold"),
        ({"folds": [{"fold": 0, "evaluate": "test"}]}, "folds.evaluate"),
        ({"folds": [{"fold": 0, "evaluate": ["rows"]}]}, "folds.evaluate"),
        ({"folds": [{"fold": 0, "private": {"round": "x"}}]}, "folds.private"),
        ({"folds": [{"fold": 0, "parameters": 7}]}, "folds.parameters"),
        ({"setup": []}, "setup"),
        ({"setup": {"features": [[]]}}, "setup.features"),
        ({"setup": {"categories": {"ward": [{}]}}}, "setup.categories"),
        ({"setup": {"classes": [0, 1], "class_weights": [[1e300, 1]]}}, "setup.class_weights"),
        ({"setup": {"classes": 2}}, "setup.classes"),
    ],
)
def test_a_request_of_another_form_is_refused_by_the_name_of_its_part(change, named):
    from v6_algorithm.errors import WireError
    from v6_algorithm.site.guard.requests import check_request

    check_request({"site": "a", "round": 0, "attempt": 1, "sites": 3})
    with pytest.raises(WireError, match=f"the request's {named} must be "):
        check_request({"site": "a", "round": 0, "attempt": 1, "sites": 3, **change})


def test_a_node_that_requires_differential_privacy_trains_nothing_without():
    from hospitals import tables

    from v6_algorithm.coordinator.master import run
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.engines.simulation.simulate import local_federation
    from v6_algorithm.errors import FederationError
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.site.policy import Policy

    experiment = Experiment.parse({"data": {"target": "y"}, "model": "logistic", "rounds": 1})
    sources = {name: TableSource(frame=frame) for name, frame in tables().items()}
    federation = local_federation(experiment, sources, Policy.of("trusted", maximum_epsilon=1.0))
    with pytest.raises(FederationError, match="requires differential privacy"):
        run(federation, experiment)


@given(st.integers(1, 80), st.integers(1, 10), st.integers(0, 2**32 - 1), st.booleans())
def test_a_coarse_survival_state_passes_the_checks_and_holds_no_cell_of_few(rows, smallest, seed, curves):
    from v6_algorithm.learning.metrics import SurvivalMetrics, compute, merge_states

    generator = np.random.default_rng(seed)
    edges = [1.0, 3.0, 8.0, 9.0]
    metrics = SurvivalMetrics(edges, edges if curves else [])
    survival = np.sort(generator.random((rows, 4)), axis=1)[:, ::-1]
    scores = generator.normal(0, 3, (rows, 1))
    prediction = np.column_stack([scores, survival]) if curves else scores
    target = np.column_stack([generator.exponential(5, rows), generator.integers(0, 2, rows)])
    metrics.update(prediction, target, generator.random(rows))
    state = metrics.state()
    coarse = coarse_state(state, smallest)
    merged = merge_states([coarse, coarse])
    assert merged["n"] == 2 * rows
    compute(merged)
    counts = [events + censored for _, _, events, censored in coarse["cells"]]
    assert sum(counts) == rows
    assert min(counts) >= min(smallest, rows)
    # Pairs within the site are as many, and as many are in the right order.
    assert coarse["exact"][:2] == state["exact"][:2]
