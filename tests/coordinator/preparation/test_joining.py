"""Who was away when a run was prepared joins; whose data do not fit ends it, or is left out."""

from __future__ import annotations

import pytest
from hospitals import command, make_table, read_result, tables, write
from spying import Spy

from v6_algorithm.coordinator.checkpoint import Checkpoints
from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.strategies import create_strategy
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.exchange import wire


def away(site, kind="late", until=0):
    """Lose a site's answers to the preparation, those between rounds too up to some round."""

    def tamper(method, name, number, reply):
        return kind if method == "RPC_prepare" and name == site and number <= until else reply

    return tamper


def asked(spy, method="RPC_train"):
    return [sorted(requests) for requests in spy.of(method)]


def test_a_site_that_is_back_trains_from_the_next_round_on(spied, make_experiment):
    told = []
    spy, result = spied(make_experiment(rounds=3), away("berlin"), back=["berlin"], on_event=told.append)
    assert asked(spy) == [["amsterdam", "cairo"], ["amsterdam", "berlin", "cairo"], ["amsterdam", "berlin", "cairo"]]
    assert result["sites"]["berlin"]["n"]["rows"] == 40
    assert result["metrics"]["test"]["sites"]["berlin"]["n"] == 8
    note = "round 2: site 'berlin' joined; it was away when the run was prepared"
    assert any(note in text for text in result["notes"])
    assert any(note in event.get("text", "") for event in told)
    assert [entry["round"] for entry in result["participation"] if entry["call"] == "prepare"] == [0, 0, 2, 2]


def test_a_site_that_measures_nothing_in_the_rounds_says_so_when_it_joins(spied, make_experiment):
    def keeps_silent(method, name, number, reply):
        if method == "RPC_prepare" and name == "berlin" and number > 0 and "members" in reply:
            reply["policy"] = {"round_metrics": False}
        return away("berlin")(method, name, number, reply)

    spy, result = spied(make_experiment(rounds=3), keeps_silent, back=["berlin"])
    assert asked(spy)[-1] == ["amsterdam", "berlin", "cairo"]
    measured = {site for requests in spy.of("RPC_train")[1:] for site, request in requests.items()
                if request["folds"][0]["evaluate"]}  # fmt: skip
    assert measured == {"amsterdam", "cairo"}
    told = "round 2: berlin: this node measures models at the end, none in the rounds (V6_ALGORITHM_ROUND_METRICS)"
    assert [note for note in result["notes"] if note.startswith(told)]


def test_what_was_agreed_on_stays_as_it_was(spied, tables, make_experiment):
    """The columns' scales are of those who prepared: with or without a late comer they are the same."""
    spy, result = spied(make_experiment(rounds=3), away("berlin"), back=["berlin"])
    others = {name: tables[name] for name in ("amsterdam", "cairo")}
    alone = run(local_federation(make_experiment(), others), make_experiment(rounds=3))
    assert result["preparation"] == alone["preparation"]
    setups = {request["setup"]["preparation"] for requests in spy.of("RPC_train") for request in requests.values()}
    assert len(setups) == 1


def test_nobody_waits_for_a_site_that_still_owes_an_answer(spied, make_experiment):
    spy, result = spied(make_experiment(), away("berlin"))
    assert asked(spy) == [["amsterdam", "cairo"]] * 4
    assert len(asked(spy, "RPC_prepare")) == 2
    assert "berlin" not in result["sites"]


def test_a_site_that_fails_again_is_asked_ever_more_rarely(spied, make_experiment):
    experiment = make_experiment(rounds=12, stopping={"patience": None})
    spy, _ = spied(experiment, away("berlin", "crashed", until=99))
    tries = [next(iter(requests.values()))["round"] for requests in spy.of("RPC_prepare")]
    assert tries == [0, 0, 2, 4, 8]


@pytest.mark.parametrize(
    "changes",
    [{"participation": {"join": False}}, {"split": "leave_one_site_out", "participation": {"minimum": 1}}],
    ids=["switched off", "folds that are hospitals"],
)
def test_where_nobody_may_join_nobody_is_asked(spied, make_experiment, changes):
    spy, result = spied(make_experiment(rounds=2, **changes), away("berlin"), back=["berlin"])
    assert len(asked(spy, "RPC_prepare")) == 2
    assert "berlin" not in result["sites"]


def test_a_site_whose_data_do_not_fit_does_not_join_and_is_named(spied, tables, make_experiment):
    sites = tables | {"berlin": TableSource(frame=make_table(40, 2).drop(columns="a"))}
    _, result = spied(make_experiment(rounds=3), away("berlin"), sites=sites, back=["berlin"])
    assert "berlin" not in result["sites"]
    told = "round 2: site 'berlin' was back and does not join: data: column a is not there, or of another kind"
    assert told in result["notes"]


@pytest.mark.parametrize("strategy", ["agnostic", "scaffold"])
def test_a_run_that_somebody_joined_goes_on_from_its_checkpoint(tables, make_experiment, tmp_path, strategy):
    training = {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}
    experiment = make_experiment(strategy=strategy, training=training)

    def federation():
        return Spy(local_federation(experiment, tables), away("berlin"), back=["berlin"])

    class Killed(BaseException):
        pass

    def kill(event):
        if event["event"] == "round" and event["round"] == 3:
            raise Killed

    path = tmp_path / "checkpoint.safetensors"
    whole = run(federation(), experiment)
    with pytest.raises(Killed):
        run(federation(), experiment, kill, checkpoints=Checkpoints(path))
    again = run(federation(), experiment, checkpoints=Checkpoints(path))
    assert again["sites"].keys() == tables.keys()
    assert [again[key] for key in ("history", "parameters", "metrics", "participation", "notes")] == [
        whole[key] for key in ("history", "parameters", "metrics", "participation", "notes")
    ]


def test_who_joins_gets_an_equal_share_of_the_weights(make_experiment):
    spec = {"model.w": wire.TensorSpec((1,), "float32")}
    strategy = create_strategy(make_experiment(strategy="agnostic"), spec, {"a": 5, "c": 7})
    strategy.admit({"a": 5, "b": 3, "c": 7})
    assert strategy.kept["weights"]["weights"].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])


# -- data that do not fit -----------------------------------------------------------------------------------------


def without_target(name="berlin"):
    return {name: tables()[name].drop(columns="y")}


def test_a_site_whose_data_do_not_fit_ends_the_run_unless_it_is_to_be_left_out(tmp_path):
    file = write(tmp_path, without_target())
    result = command("run", file, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "error: site 'berlin': column 'y' (data.target) is not there" in result.output
    result = command("run", file, "--set", "participation.unfit=leave_out", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "note: site 'berlin' took no part: data: column 'y' (data.target) is not there" in result.output
    assert set(read_result(tmp_path / "out")["sites"]) == {"amsterdam", "cairo"}


def test_where_nobodys_data_fit_it_is_the_experiment_that_is_wrong(tmp_path):
    file = write(tmp_path, data={"target": "nobody"}, participation={"unfit": "leave_out"})
    result = command("run", file, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "error: site 'cairo': column 'nobody' (data.target) is not there" in result.output


def test_left_out_sites_count_against_the_minimum(tmp_path):
    file = write(tmp_path, without_target(), participation={"unfit": "leave_out", "minimum": 3})
    result = command("run", file, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "2 of 3 sites answered, 3 are needed (participation.minimum)" in result.output
    assert "berlin: data: column 'y' (data.target) is not there" in result.output
