"""Attacks on a node through its own functions: each reads rows of a trusted node, and none of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from v6_algorithm.researcher.doctor import attacks
from v6_algorithm.researcher.doctor.attacks import (
    ATTACKS,
    IN_ROUNDS,
    IN_UPDATES,
    Hospital,
    Refused,
    attempt,
    made_up_rows,
)
from v6_algorithm.researcher.doctor.rules import rules
from v6_algorithm.site.policy import Policy

ROWS = 96
# What each reads of 96 rows where nothing but least sizes of single answers stands in its way.
AT_LEAST = {
    "sums over folds that the asker knows": ROWS,
    "one step on a batch of one row": 40,
    "one step from a crafted first layer": 20,
    "evaluation of a crafted model": 50,
    "labels of a text column": ROWS,
    "categories of a text column": ROWS,
    "codes for a missing value": 1,
    "a condition that moves": 1,
    # No rule of a preset holds it off: cells are never smaller than the node's least, wherever they are cut.
    "windows of quantiles that move": 0,
    "an SQL query that renames a column": ROWS,
    "a crafted first layer in a later round": 20,
    "one step of a wide layer": 1,
    "coefficients that move from round to round": 15,
    "coefficients under which one row counts": 30,
    "cells of a crafted survival model": 50,
    "regressions of an imputation": 24,
    "thresholds of an imputation": 10,
    "two tasks that differ by one patient": 1,
    "scales that move from round to round": 5,
    # Standard leaves it open, for early stopping and the best round; docs/node-policy.md says so, and what closes it.
    IN_ROUNDS: 5,
    # No preset holds it off.
    IN_UPDATES: 4,
}
# A trusted node takes imputed cells from other rows, which no regression makes steep; so others, without their rule.
BY_REGRESSION = "thresholds of an imputation"
# Of one node over two tasks, and held off where it remembers over tasks: see below.
OVER_TASKS = "two tasks that differ by one patient"


# A hundred rounds and more.
LONG = (
    "coefficients that move from round to round",
    "coefficients under which one row counts",
    "scales that move from round to round",
    IN_ROUNDS,
    IN_UPDATES,
)


def named(names):
    """Return attacks as parameters, the long ones for the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in names]


@pytest.fixture(autouse=True)
def quick(one_thread):
    """Small networks."""


@pytest.mark.parametrize("name", named(ATTACKS))
def test_a_trusted_node_can_be_read(name):
    """The attacks are real: what holds them off below is not that they do not work."""
    open_ones = Policy.of("standard", refuse_isolated_rows=False) if name == BY_REGRESSION else Policy.of("trusted")
    assert attempt(name, open_ones, made_up_rows(ROWS))[0] >= AT_LEAST[name]


# What strict needs to answer at all; `attempt` puts a folder of the attack's own in its place.
LASTING = {"standard": {}, "strict": {"ledger_folder": "a folder"}}


@pytest.mark.parametrize("preset", ["standard", "strict"])
@pytest.mark.parametrize("name", named(ATTACKS))
def test_no_row_comes_out_of_a_node_that_does_not_trust(name, preset):
    closed = {IN_ROUNDS: {"round_metrics": False}, IN_UPDATES: {"maximum_epsilon": 8.0}}.get(name, {})
    rows, refusal = attempt(name, Policy.of(preset, **LASTING[preset], **closed), made_up_rows(ROWS))
    assert rows == 0
    assert "REQUIRE_LEDGER" not in refusal


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "preset"), [(IN_ROUNDS, "standard"), (IN_UPDATES, "standard"), (IN_UPDATES, "strict")]
)
def test_what_presets_leave_open_to_who_makes_the_models_is_as_open_as_the_docs_say(name, preset):
    assert attempt(name, Policy.of(preset, **LASTING[preset]), made_up_rows(ROWS))[0] >= AT_LEAST[name]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("sums over folds that the asker knows", {"secret_folds": True}),
        ("sums over folds that the asker knows", {"maximum_share_of_sums": 1 / 3}),
        ("one step on a batch of one row", {"minimum_batch": 8}),
        ("one step on a batch of one row", {"minimum_update_rows": 10}),
        ("one step from a crafted first layer", {"request_order": True, "researcher_weights": False}),
        ("evaluation of a crafted model", {"coarse_histograms": True}),
        ("labels of a text column", {"minimum_label_rows": 5}),
        ("labels of a text column", {"allowed_columns": "age|dose|pressure|marker|ill"}),
        ("categories of a text column", {"minimum_label_rows": 5}),
        ("codes for a missing value", {"request_order": True}),
        ("codes for a missing value", {"refuse_differences": True}),
        ("a condition that moves", {"request_order": True}),
        ("a condition that moves", {"refuse_differences": True}),
        ("a crafted first layer in a later round", {"refuse_isolated_rows": True}),
        ("one step of a wide layer", {"refuse_isolated_rows": True}),
        pytest.param(LONG[0], {"refuse_isolated_rows": True}, marks=pytest.mark.slow),
        pytest.param(LONG[1], {"refuse_isolated_rows": True}, marks=pytest.mark.slow),
        ("scales that move from round to round", {"request_order": True}),
        ("scales that move from round to round", {"round_metrics": False}),
        (IN_ROUNDS, {"round_metrics": False}),
        pytest.param(IN_UPDATES, {"maximum_epsilon": 8.0}, marks=pytest.mark.slow),
        ("cells of a crafted survival model", {"coarse_histograms": True}),
        ("regressions of an imputation", {"maximum_share_of_sums": 1 / 3}),
        ("windows of quantiles that move", {"minimum_cell": 5}),
        ("an SQL query that renames a column", {"allowed_queries": ()}),
        ("an SQL query that renames a column", {"allowed_columns": "age|dose|pressure|marker|ill|y"}),
    ],
)
def test_one_rule_alone_holds_an_attack_off(name, rule):
    assert attempt(name, Policy.of("trusted", **rule), made_up_rows(ROWS))[0] == 0


def hospital(folder: Path, **rule) -> Hospital:
    policy = Policy.of("standard", **rule)
    return Hospital(made_up_rows(ROWS), attacks.FEATURES, "ill", "name", policy, folder)


@pytest.mark.parametrize("attack", ["codes for a missing value", "a condition that moves"])
def test_two_tasks_that_differ_by_one_patient_are_seen_where_the_ledger_lasts(attack, tmp_path):
    """Each task of its own folder, as vantage6 gives it; the order of requests sees only one task at a time."""
    asked = []

    class EachInAJobOfItsOwn(Hospital):
        def ask(self, method, experiment, round=0, **body):
            if body.get("step") == "schema":
                asked.append(experiment)
            other = Hospital(
                *[getattr(self, name) for name in ("frame", "features", "target", "text", "policy")], Path()
            )
            other.folder = tmp_path / f"job-{len(asked)}"
            return Hospital.ask(other, method, experiment, round, **body)

    def read(policy):
        asked.clear()
        return ATTACKS[attack](
            EachInAJobOfItsOwn(made_up_rows(ROWS), attacks.FEATURES, "ill", "name", policy, tmp_path)
        )

    # Folds of several tasks are drawn with several secrets: whole counts differ in any case.
    free = Policy.of("standard", minimum_part_rows=1)
    assert read(free) == 1
    lasting = replace(free, ledger_folder=str(tmp_path / "ledger"))
    with pytest.raises(Refused, match="differs from an earlier answer of this node by few rows"):
        read(lasting)


@pytest.mark.parametrize("preset", ["standard", "strict"])
def test_two_tasks_that_differ_by_one_patient_are_refused_where_the_ledger_lasts(preset, tmp_path):
    without = attempt(OVER_TASKS, Policy.of(preset), made_up_rows(ROWS))
    assert without[0] == 0
    if preset == "standard":
        assert "differs from an earlier answer of this node by few rows" in without[1]
        # Where nothing of the node's outlives a task.
        assert attempt(OVER_TASKS, Policy.of(preset), made_up_rows(ROWS), volume=False) == (1, "")
    else:
        assert "(V6_ALGORITHM_REQUIRE_LEDGER), and V6_ALGORITHM_LEDGER_FOLDER is not set" in without[1]
    rows, refusal = attempt(OVER_TASKS, Policy.of(preset, ledger_folder=str(tmp_path)), made_up_rows(ROWS))
    assert rows == 0
    assert "differs from an earlier answer of this node by few rows" in refusal


def test_a_training_run_of_a_standard_node_is_not_disturbed(tmp_path):
    """The order that `master` keeps: prepare, rounds with validation, the newest model measured at the end."""
    node = hospital(tmp_path)
    experiment, setup = node.experiment(), node.setup(1)
    node.prepare(experiment, setup)
    packed = None
    for number in range(1, 4):
        item = {"fold": 0, "parameters": packed, "evaluate": ["validation"] if packed else [], "train": True}
        reply = node.ask("train", experiment, number, setup=setup.to_json(), folds=[item])
        packed = reply["folds"][0]["parameters"]
    item = {"fold": 0, "parameters": packed, "evaluate": ["validation", "test"], "train": False}
    reply = node.ask("evaluate", experiment, 3, setup=setup.to_json(), folds=[item])
    assert reply["folds"][0]["metrics"]["test"]["hospital"]["n"] > 0


def test_a_request_that_comes_twice_is_answered_alike(tmp_path):
    """A node asks anew after a restart."""
    node = hospital(tmp_path)
    experiment, setup = node.experiment(), node.setup(1)
    node.prepare(experiment, setup)
    item = {"fold": 0, "parameters": None, "evaluate": [], "train": True}
    replies = [node.ask("train", experiment, 1, setup=setup.to_json(), folds=[item]) for _ in range(2)]
    assert replies[0]["folds"] == replies[1]["folds"]


def test_a_round_trains_one_model_however_often_master_starts_anew(tmp_path):
    from v6_algorithm.exchange import wire

    node = hospital(tmp_path)
    experiment, setup = node.experiment(), node.setup(1)
    node.prepare(experiment, setup)

    def train(packed, **more):
        item = {"fold": 0, "parameters": packed, "evaluate": [], "train": True}
        return node.ask("train", experiment, 2, setup=setup.to_json(), folds=[item], **more)

    first = train(node_weights(node, experiment, setup))
    # As when a site was lost while `master` was away: the request is another one, the model the same.
    again = train(node_weights(node, experiment, setup), note="another request")
    assert first["folds"] == again["folds"]
    other = {name: tensor + 1 for name, tensor in attacks.initial(experiment, setup).items()}
    with pytest.raises(Refused, match="was trained in round 2; a training run does so once, with one model"):
        train(wire.pack(other))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"round": 2, "again": 1}, "round 1 is out of order"),
        ({"round": 30}, "round 30 is out of order"),
        ({"folds": 2}, "a fold is named twice"),
        ({"evaluate": ["test"]}, "measures validation rows only"),
        ({"baseline": 3}, "measures validation rows only"),
        ({"batch_size": 4}, "training.batch_size: 4 is below this node's least of 8"),
    ],
)
def test_what_no_training_run_asks_for_is_refused(tmp_path, change, reason):
    node = hospital(tmp_path)
    training = {"batch_size": change.get("batch_size", 32)}
    experiment, setup = node.experiment(training=training), node.setup(1)
    node.prepare(experiment, setup)
    item = {"fold": 0, "parameters": None, "evaluate": change.get("evaluate", []), "train": True}
    item |= {"baseline": change["baseline"]} if "baseline" in change else {}

    def ask(number):
        own = item if number == 1 else item | {"parameters": node_weights(node, experiment, setup)}
        node.ask("train", experiment, number, setup=setup.to_json(), folds=[own] * change.get("folds", 1))

    *before, last = [number for number in (change.get("round", 1), change.get("again", 0)) if number]
    for number in before:
        ask(number)
    with pytest.raises(Refused, match=f"refused: .*{reason}"):
        ask(last)


def node_weights(node, experiment, setup):
    from v6_algorithm.exchange import wire

    return wire.pack(attacks.initial(experiment, setup))


def test_nine_models_that_a_site_never_saw_are_not_measured(tmp_path):
    """Nine evaluations read private layers to six digits; a training run needs two models that nobody saw."""
    from v6_algorithm.exchange import wire

    node = hospital(tmp_path)
    experiment, setup = node.experiment(), node.setup(1)
    node.prepare(experiment, setup)

    def measure(number):
        state = {name: tensor + number for name, tensor in attacks.initial(experiment, setup).items()}
        item = {"fold": 0, "parameters": wire.pack(state), "evaluate": ["test"], "train": False}
        node.ask("evaluate", experiment, 1, setup=setup.to_json(), folds=[item])

    for number in range(3):
        measure(number)
    for number in range(3, 9):
        with pytest.raises(Refused, match="only models seen in training, the newest and an average are measured"):
            measure(number)


def test_training_before_preparation_is_refused(tmp_path):
    node = hospital(tmp_path)
    item = {"fold": 0, "parameters": None, "evaluate": [], "train": True}
    for method in ("train", "evaluate"):
        with pytest.raises(Refused, match="come after the preparation"):
            node.ask(method, node.experiment(), 1, setup=node.setup(1).to_json(), folds=[item])


def test_nobody_but_the_node_knows_its_folds(tmp_path):
    """Two nodes, and two jobs of one, split the same rows differently; one job splits them alike."""
    from v6_algorithm.data.preparation.setup import unpack_arrays

    def mean(folder):
        node = hospital(folder)
        experiment = node.experiment()
        reply = node.prepare(experiment, replace(node.setup(1), preparation=None))
        return unpack_arrays(reply["moments"])["mean"].tolist()

    first = mean(tmp_path / "a")
    assert first == mean(tmp_path / "a")
    assert first != mean(tmp_path / "b")


def test_a_node_without_a_place_that_lasts_says_so_and_answers_nothing():
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.exchange import wire
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.site import SiteContext, handle

    experiment = Experiment.parse({"data": {"target": "ill"}})
    request = wire.message(site="h", round=0, attempt=1, experiment=experiment.for_sites(), sites=3, step="schema")
    reply = handle("prepare", request, SiteContext({"h": TableSource(frame=made_up_rows())}, Policy.of("standard")))
    assert reply["kind"] == "refused"
    assert "TEMPORARY_FOLDER" in reply["message"]


def test_only_approved_experiments_are_answered(tmp_path):
    from v6_algorithm.experiment.approval import fingerprint

    node = hospital(tmp_path)
    one, other = node.experiment(), node.experiment(rounds=21)
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.exchange import wire
    from v6_algorithm.site import SiteContext, handle

    policy = Policy.of(
        "strict", minimum_sites=1, approved_experiments=(fingerprint(one),), ledger_folder=str(tmp_path / "ledger")
    )
    for experiment, status in ((one, "ok"), (other, "error")):
        message = {"experiment": experiment.for_sites(), "sites": 3, "step": "schema"}
        request = wire.message(site="h", round=0, attempt=1, **message)
        context = SiteContext({"h": TableSource(frame=node.frame)}, policy, state=tmp_path)
        reply = handle("prepare", request, context)
        assert reply["status"] == status
    assert fingerprint(other)[:12] in reply["message"]


def test_an_approval_is_of_what_a_site_is_told_and_of_nothing_else():
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.experiment.approval import fingerprint

    def parse(**changes):
        return Experiment.parse({"data": {"target": "y"}, **changes})

    same = fingerprint(parse())
    assert fingerprint(Experiment.parse(parse().for_sites())) == same
    assert fingerprint(parse(name="another", participation={"poll_s": 9})) == same
    for other in ({"seed": 1}, {"rounds": 21}, {"model": "logistic"}, {"data": {"target": "z"}}):
        assert fingerprint(parse(**other)) != same


@pytest.mark.parametrize("method", ["summary", "prepare", "train", "evaluate"])
def test_a_node_that_must_have_a_ledger_over_tasks_answers_nothing_without_and_says_how(method, tmp_path):
    node = hospital(tmp_path, require_ledger=True)
    with pytest.raises(Refused) as refused:
        node.ask(method, node.experiment(), step="schema")
    for text in ("V6_ALGORITHM_REQUIRE_LEDGER", "V6_ALGORITHM_LEDGER_FOLDER: /mnt/ledger", "type: folder"):
        assert text in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_an_attack_that_is_tried_is_not_among_the_nodes_answers(tmp_path):
    folder = tmp_path / "ledger"
    attempt(OVER_TASKS, Policy.of("standard", ledger_folder=str(folder)), made_up_rows(ROWS))
    assert not folder.exists()


def test_the_self_test_says_first_that_a_strict_node_without_a_ledger_folder_answers_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("v6_algorithm.researcher.doctor.rules.ATTACKS", [OVER_TASKS])
    strict = {"V6_ALGORITHM_POLICY": "strict"}
    found = {finding.name: finding for finding in rules(strict)}
    assert found["ledger"].status == "problem"
    assert "V6_ALGORITHM_LEDGER_FOLDER" in found["ledger"].advice
    # What is tried after it is tried on a node that answers.
    assert "differs from an earlier answer" in found["attack"].message
    found = {finding.name: finding for finding in rules(strict | {"V6_ALGORITHM_LEDGER_FOLDER": str(tmp_path)})}
    assert "ledger" not in found
    assert found["attack"].details["rows"] == 0


def test_the_self_test_tries_every_attack_and_says_what_came_out(monkeypatch):
    monkeypatch.setattr("v6_algorithm.researcher.doctor.rules.ATTACKS", ["labels of a text column"])
    for preset, came_out in (("trusted", ROWS), ("standard", 0)):
        found = list(rules({"V6_ALGORITHM_POLICY": preset}))
        assert [finding.details["rows"] for finding in found if finding.name == "attack"] == [came_out]
    (wrong,) = rules({"V6_ALGORITHM_MINIMUM_CELLSIZE": "5"})
    assert (wrong.status, "V6_ALGORITHM_MINIMUM_CELLSIZE" in wrong.message) == ("problem", True)


def test_attacks_on_a_table_use_its_numbers_and_none_of_its_texts(tmp_path):
    frame = made_up_rows(60).assign(secret=[f"SECRET-{number}" for number in range(60)])
    frame.to_csv(tmp_path / "ward.csv", index=False)
    rows = attacks.rows_of(tmp_path / "ward.csv")
    assert list(rows.columns) == [*attacks.FEATURES, "ill", "name"]
    assert not rows.astype(str).apply(lambda column: column.str.contains("SECRET")).to_numpy().any()
    assert np.allclose(rows["age"], frame["age"])
