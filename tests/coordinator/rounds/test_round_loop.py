"""The round loop: what is validated, kept, stopped and told."""

from dataclasses import replace

import pytest
import torch
from spying import Spy, lose

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.learning.metrics import compute, merge_states


def evaluate(spy, experiment, tables, parameters, part="validation"):
    """Measure a model at all sites with a request of our own."""
    (first, *_) = spy.of("RPC_train")
    bodies = {}
    for site, request in first.items():
        folds = [{"fold": 0, "parameters": parameters, "evaluate": [part]}]
        bodies[site] = {**request, "folds": folds}
    replies = local_federation(experiment, tables).call("RPC_evaluate", bodies, deadline_s=60)
    return compute(merge_states(state for _, reply in replies for state in reply["folds"][0]["metrics"][part].values()))


def test_history_tells_of_the_model_that_the_round_has_just_made(spied, tables, make_experiment):
    """peers.md trap 12: NVFlare picks the best model with the metrics of the round before."""
    experiment = make_experiment(rounds=3)
    spy, result = spied(experiment)
    sent = [next(iter(requests.values()))["folds"][0]["parameters"] for requests in spy.of("RPC_train")]
    # What goes out in rounds 2 and 3 was made in rounds 1 and 2; what round 3 made is measured afterwards.
    made = [*sent[1:], next(iter(spy.of("RPC_evaluate")[0].values()))["folds"][0]["parameters"]]
    wanted = [evaluate(spy, experiment, tables, model)["loss"] for model in made]
    assert result["history"]["validation_loss"] == wanted


def test_the_kept_model_is_the_one_of_the_best_validated_round(spied, tables, make_experiment):
    experiment = make_experiment(rounds=12, training={"optimizer": {"kind": "adam", "lr": 0.3}, "batch_size": 4})
    spy, result = spied(experiment)
    losses = result["history"]["validation_loss"]
    assert result["best_round"] == losses.index(min(losses)) + 1
    assert result["best_round"] < result["rounds_run"], "the test needs a run that gets worse"
    assert evaluate(spy, experiment, tables, result["parameters"])["loss"] == min(losses)
    assert result["metrics"]["validation"]["pooled"]["loss"] == min(losses)


def test_last_model_is_kept_when_asked(spied, tables, make_experiment):
    experiment = make_experiment(
        rounds=12, training={"optimizer": {"kind": "adam", "lr": 0.3}, "batch_size": 4}, output={"model": "last"}
    )
    spy, result = spied(experiment)
    assert result["best_round"] == result["rounds_run"]
    assert evaluate(spy, experiment, tables, result["parameters"])["loss"] == result["history"]["validation_loss"][-1]


def test_an_average_over_rounds_is_no_rounds_model(spied, make_experiment):
    """The result called the last round the best one."""
    _, result = spied(make_experiment(rounds=2, output={"model": "ema"}))
    assert result["best_round"] is None


def test_early_stopping_waits_for_patience_and_counts_from_the_best_round(spied, make_experiment):
    experiment = make_experiment(
        rounds=50,
        training={"optimizer": {"kind": "adam", "lr": 0.3}, "batch_size": 4},
        stopping={"monitor": "loss", "patience": 3, "min_delta": 0},
    )
    _, result = spied(experiment)
    assert result["rounds_run"] == result["best_round"] + 3
    assert len(result["history"]["validation_loss"]) == result["rounds_run"]


def test_a_metric_that_should_grow_is_monitored_upwards(spied, make_experiment):
    experiment = make_experiment(rounds=8, stopping={"monitor": "auroc", "patience": None})
    _, result = spied(experiment)
    found = result["history"]["validation_auroc"]
    assert result["best_round"] == found.index(max(found)) + 1


def test_all_folds_train_in_one_request_per_site_and_round(spied, make_experiment):
    experiment = make_experiment(split={"kind": "kfold", "folds": 5}, rounds=3, stopping={"patience": None})
    spy, result = spied(experiment)
    calls = spy.of("RPC_train")
    assert len(calls) == 3
    assert all(len(request["folds"]) == 5 for requests in calls for request in requests.values())
    assert len(result["folds"]) == 5
    assert {name.split("/")[0] for name in wire.unpack(result["parameters"])} == {f"fold-{n}" for n in range(5)}


@pytest.mark.slow
def test_a_fold_that_stops_does_not_stop_the_others(spied, make_experiment):
    experiment = make_experiment(
        split={"kind": "kfold", "folds": 4},
        rounds=30,
        training={"optimizer": {"kind": "adam", "lr": 0.2}, "batch_size": 4},
        stopping={"patience": 2, "min_delta": 0},
    )
    spy, result = spied(experiment)
    rounds = [fold["rounds_run"] for fold in result["folds"]]
    assert len(set(rounds)) > 1, "the test needs folds that stop at different rounds"
    asked = [len(next(iter(requests.values()))["folds"]) for requests in spy.of("RPC_train")]
    assert asked[0] == 4
    assert asked == sorted(asked, reverse=True)


def test_pooled_test_over_folds_counts_every_row_once(spied, tables, make_experiment):
    _, result = spied(make_experiment(split={"kind": "kfold", "folds": 5}, rounds=1))
    assert result["metrics"]["test"]["pooled"]["n"] == sum(len(table.frame) for table in tables.values())
    assert result["sites"]["berlin"]["n"] == {"train": 120, "validation": 40, "test": 40, "rows": 40}


def test_answering_twice_gives_the_same_reply(spied, tables, make_experiment):
    experiment = make_experiment(model={"kind": "mlp", "hidden": [8], "dropout": 0.5})
    spy, _ = spied(experiment)
    requests = spy.of("RPC_train")[-1]
    answers = []
    for _ in range(2):
        replies = local_federation(experiment, tables).call("RPC_train", requests, deadline_s=60)
        answers.append({site: reply["folds"] for site, reply in replies})
    assert answers[0] == answers[1]


def test_a_round_goes_on_without_a_lost_site_and_names_it(spied, make_experiment):
    _, result = spied(make_experiment(), lose("berlin", {2}))
    book = {entry["round"]: entry for entry in result["participation"] if entry["call"] == "train"}
    assert book[2]["answered"] == ["amsterdam", "cairo"]
    assert book[2]["missing"] == {"berlin": "crashed: lost on the way"}
    assert book[3]["missing"] == {}
    assert result["status"] == "completed"


def test_what_was_done_is_kept_when_the_quorum_is_lost(spied, make_experiment):
    experiment = make_experiment(rounds=10, participation={"minimum": 3})
    _, result = spied(experiment, lose("cairo", set(range(4, 11))))
    assert result["status"] == "stopped"
    assert "round 4: 2 of 3 sites answered, 3 are needed" in result["stopped_because"]
    assert "cairo: crashed: lost on the way" in result["stopped_because"]
    assert result["rounds_run"] == 3
    assert result["metrics"]["test"]["pooled"]["n"] > 0
    assert result["parameters"]


def test_a_late_site_rests_ever_longer_and_is_asked_again(spied, make_experiment):
    """A hospital that went offline would else cost the others a deadline in every round."""
    experiment = make_experiment(rounds=12, stopping={"patience": None})
    spy, result = spied(experiment, lose("berlin", set(range(2, 9)), kind="late"))
    asked = [number for number, requests in enumerate(spy.of("RPC_train"), start=1) if "berlin" in requests]
    assert asked == [1, 2, 4, 8]
    missing = {e["round"]: e["missing"] for e in result["participation"] if e["call"] == "train"}
    assert missing[3] == {"berlin": "resting: it still owes the answer for which it was late"}
    assert missing[8] == {"berlin": "late: lost on the way"}


def test_a_site_that_is_back_in_time_takes_part_again(spied, make_experiment):
    experiment = make_experiment(rounds=6, stopping={"patience": None})
    spy, _ = spied(experiment, lose("berlin", {2}, kind="late"))
    asked = [number for number, requests in enumerate(spy.of("RPC_train"), start=1) if "berlin" in requests]
    assert asked == [1, 2, 4, 5, 6]


def test_a_site_that_has_given_its_late_answer_rests_no_more(spied, make_experiment):
    experiment = make_experiment(rounds=6, stopping={"patience": None})
    spy, result = spied(experiment, lose("berlin", {2, 3}, kind="late"), back=["berlin"])
    assert all("berlin" in requests for requests in spy.of("RPC_train"))
    assert not any("resting" in str(entry["missing"]) for entry in result["participation"])


def test_a_late_answer_is_dropped_or_used_as_the_experiment_says(spied, make_experiment):
    late = lose("berlin", {2}, kind="late")

    def go(policy, back):
        experiment = make_experiment(rounds=3, stopping={"patience": None}, participation={"late": policy})
        _, result = spied(experiment, late, back=back)
        return result, [entry.get("belated") for entry in result["participation"] if entry["call"] == "train"]

    dropped, booked = go("drop", ["berlin"])
    assert booked == [None, None, {"berlin": "round 2 (not used, participation.late: drop)"}]
    used, booked = go("stale", ["berlin"])
    assert booked == [None, {"berlin": "round 2"}, None]
    assert used["parameters"] != dropped["parameters"]
    # Who never answers changes nothing.
    never, booked = go("stale", [])
    assert booked == [None, None, None]
    assert never["parameters"] != used["parameters"]


def test_a_late_answer_that_is_wrong_is_dropped_and_named(spied, make_experiment):
    def tamper(method, site, number, reply):
        if method == "RPC_train" and site == "berlin" and number == 2:
            reply["folds"][0]["loss"]["sum"] = "much"
            return "late"
        return reply

    experiment = make_experiment(rounds=3, participation={"late": "stale"})
    _, result = spied(experiment, tamper, back=["berlin"])
    booked = [entry.get("belated") for entry in result["participation"] if entry["call"] == "train"]
    assert booked[1] == {"berlin": "round 2 (dropped, wrong: its training loss is not a finite number)"}


def test_a_site_that_fails_again_and_again_is_left_out_and_asked_anew(spied, make_experiment):
    """Three crashes in a row: out for a round, then for two; repaired, it takes part to the end."""
    experiment = make_experiment(rounds=12, stopping={"patience": None})
    spy, result = spied(experiment, lose("berlin", set(range(2, 7))))
    asked = [number for number, requests in enumerate(spy.of("RPC_train"), start=1) if "berlin" in requests]
    assert asked == [1, 2, 3, 4, 6, 9, 10, 11, 12]
    missing = {e["round"]: e["missing"].get("berlin") for e in result["participation"] if e["call"] == "train"}
    assert missing[5] == (
        "quarantined: it failed 3 times in a row, last in round 4 (crashed: lost on the way); "
        "it is asked again in round 6"
    )
    assert [missing[number] for number in (9, 12)] == [None, None]


def test_nobody_is_left_out_where_the_quorum_needs_them_or_quarantine_is_off(spied, make_experiment):
    fails = lose("berlin", {2, 3, 4})
    experiment = make_experiment(rounds=6, stopping={"patience": None}, participation={"quarantine": None})
    spy, _ = spied(experiment, fails)
    assert all("berlin" in requests for requests in spy.of("RPC_train"))
    wrong = lose("cairo", {2, 3, 4, 5})
    experiment = make_experiment(rounds=6, stopping={"patience": None}, participation={"minimum": 3})
    _, result = spied(experiment, wrong)
    assert result["rounds_run"] == 1


def test_a_second_answer_is_dropped_and_named(spied, make_experiment):
    """Whoever answers twice, or unasked, counts once, and stands in the table."""
    experiment = make_experiment(rounds=2)
    _, result = spied(experiment, lambda method, site, number, reply: reply)
    call = Spy.call

    def twice(self, method, requests, *, deadline_s):
        replies = call(self, method, requests, deadline_s=deadline_s)
        inner = replies.arrivals
        replies.arrivals = (each for arrival in inner for each in (arrival, arrival, replace(arrival, site="oslo")))
        return replies

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Spy, "call", twice)
        _, doubled = spied(experiment, lambda method, site, number, reply: reply)
    assert doubled["parameters"] == result["parameters"]
    trained = [entry for entry in doubled["participation"] if entry["call"] == "train"]
    assert trained[0]["dropped"]["berlin"] == ["a second answer"]
    assert trained[0]["dropped"]["oslo"] == ["an answer that nobody asked for"] * 3


def test_the_last_evaluation_waits_for_no_site_that_is_away(spied, make_experiment):
    experiment = make_experiment(rounds=4, stopping={"patience": None})
    spy, result = spied(experiment, lose("berlin", {4}, kind="late"))
    assert [sorted(requests) for requests in spy.of("RPC_evaluate")] == [["amsterdam", "cairo"]]
    assert result["participation"][-1]["missing"] == {
        "berlin": "resting: it still owes the answer for which it was late"
    }
    assert result["status"] == "completed"
    assert sorted(result["metrics"]["test"]["sites"]) == ["amsterdam", "cairo"]


def test_a_quorum_that_was_waited_for_in_vain_is_not_waited_for_again(spied, make_experiment):
    experiment = make_experiment(rounds=4, participation={"minimum": 3})
    spy, result = spied(experiment, lose("berlin", {3}, kind="late"))
    assert not spy.of("RPC_evaluate")
    assert "round 3: 2 of 3 sites answered, 3 are needed" in result["stopped_because"]
    assert result["rounds_run"] == 2
    assert result["parameters"]


def test_nobody_rests_where_the_quorum_needs_them(spied, make_experiment):
    experiment = make_experiment(rounds=4, participation={"minimum": 3})
    spy, result = spied(experiment, lose("berlin", {3}, kind="late"))
    assert result["status"] == "stopped"
    assert "round 3: 2 of 3 sites answered" in result["stopped_because"]
    assert all(len(requests) == 3 for requests in spy.of("RPC_train"))


def test_losing_the_quorum_before_anything_was_trained_is_an_error(spied, make_experiment):
    with pytest.raises(FederationError, match="round 1: 1 of 3 sites answered, 2 are needed"):
        spied(
            make_experiment(),
            lambda method, site, number, reply: reply if method == "RPC_prepare" or site == "cairo" else "crashed",
        )


def change(**what):
    """Tamper with berlin's reply of round 2."""

    def tamper(method, site, number, reply):
        if method == "RPC_train" and site == "berlin" and number == 2:
            reply["folds"][0] |= what
        return reply

    return tamper


def packed(experiment_result, **changes):
    tensors = wire.unpack(experiment_result["parameters"])
    return wire.pack({**tensors, **changes})


@pytest.mark.slow
def test_a_wrong_reply_is_dropped_named_and_never_enters_an_average(spied, make_experiment):
    experiment = make_experiment()
    _, clean = spied(experiment)
    _, without = spied(experiment, lose("berlin", {2}))
    nan = torch.full((8, 4), float("nan"))
    cases = {
        "holds non-finite numbers": packed(clean, **{"model.0.weight": nan}),
        "has shape [1, 4], expected [8, 4]": packed(clean, **{"model.0.weight": nan[:1]}),
        "has dtype float64, expected float32": packed(clean, **{"model.0.weight": torch.zeros(8, 4).double()}),
        "'model.extra' is not part of the model": packed(clean, **{"model.extra": torch.zeros(1)}),
        "not valid base64": "never base64!",
    }
    for reason, parameters in cases.items():
        _, result = spied(experiment, change(parameters=parameters))
        (missing,) = [e["missing"] for e in result["participation"] if e["call"] == "train" and e["round"] == 2]
        assert missing["berlin"].startswith("wrong: ")
        assert reason in missing["berlin"]
        assert result["parameters"] == without["parameters"]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"fold": 7}, "other folds"),
        ({"metrics": {}}, "other parts"),
        ({"rows": -3}, "other training rows"),
        ({"rows": "many"}, "other training rows"),
        ({"rows": 10**18}, "other training rows than the 24 that it told of in preparation"),
        ({"rows": 10**400}, "too large"),
        ({"rows": True}, "other training rows"),
        ({"loss": {"sum": 10**60, "rows": 3}}, "too large"),
        ({"loss": {"sum": 1e308, "rows": 3}}, "too large"),
        ({"loss": {"sum": "much", "rows": 3}}, "training loss"),
        ({"loss": None}, "malformed"),
        ({"metrics": {"validation": {"rome": {}}}}, "not known"),
        ({"metrics": {"validation": {"berlin": {"kind": "classification"}}}}, "wrong: "),
    ],
)
def test_a_malformed_reply_is_dropped_and_named(spied, make_experiment, what, reason):
    _, result = spied(make_experiment(rounds=3), change(**what))
    (missing,) = [e["missing"] for e in result["participation"] if e["call"] == "train" and e["round"] == 2]
    assert reason in missing["berlin"]
    assert result["status"] == "completed"


def test_a_stale_reply_is_dropped_and_named(spied, make_experiment):
    def tamper(method, site, number, reply):
        if method == "RPC_train" and site == "berlin" and number == 2:
            reply["round"] = 1
        return reply

    _, result = spied(make_experiment(), tamper)
    (missing,) = [e["missing"] for e in result["participation"] if e["call"] == "train" and e["round"] == 2]
    assert missing["berlin"] == "wrong: the reply is of round '1', asked was 2"


def test_a_fraction_of_the_sites_trains_but_all_validate(spied, make_experiment):
    experiment = make_experiment(rounds=6, participation={"fraction": 0.5, "minimum": 2})
    spy, result = spied(experiment)
    for number, requests in enumerate(spy.of("RPC_train"), start=1):
        assert sum(request["folds"][0]["train"] for request in requests.values()) == 2
        assert len(requests) == (2 if number == 1 else 3)
    trained = {frozenset(s for s, r in requests.items() if r["folds"][0]["train"]) for requests in spy.of("RPC_train")}
    assert len(trained) > 1
    assert None not in result["history"]["validation_loss"]


def test_sites_that_do_not_start_from_the_same_weights_are_refused(spied, make_experiment):
    def tamper(method, site, number, reply):
        if "start" in reply and site == "berlin":
            reply["start"] = "0" * 32
        return reply

    with pytest.raises(ExperimentError, match="do not run the same software"):
        spied(make_experiment(), tamper)


def test_without_validation_rows_the_last_model_is_kept(spied, make_experiment):
    experiment = make_experiment(split={"kind": "ratio", "train": 0.8, "validation": 0, "test": 0.2})
    spy, result = spied(experiment)
    assert result["best_round"] == result["rounds_run"] == 4
    assert "validation" not in result["metrics"]
    assert len(spy.of("RPC_evaluate")) == 1


def test_too_few_sites_for_the_minimum_is_an_error_before_any_site_is_asked(tables, make_experiment):
    experiment = make_experiment(participation={"minimum": 4})
    spy = Spy(local_federation(experiment, tables))
    with pytest.raises(ExperimentError, match="4 sites are needed, the federation has 3"):
        run(spy, experiment)
    assert spy.requests == []


def test_centralised_and_local_use_the_splits_of_the_federated_run(run_locally, tables, make_experiment):
    results = {mode: run_locally(make_experiment(mode=mode), tables) for mode in ("federated", "centralised", "local")}
    sizes = [result["sites"] for result in results.values()]
    assert sizes[0] == sizes[1] == sizes[2]
    tested = [{name: site["n"] for name, site in r["metrics"]["test"]["sites"].items()} for r in results.values()]
    assert tested[0] == tested[1] == tested[2]


def test_local_models_learn_from_their_own_site_only(run_locally, tables, make_experiment):
    experiment = make_experiment(mode="local")
    alone = run_locally(experiment, {"berlin": tables["berlin"]})
    among = run_locally(experiment, tables)
    assert among["metrics"]["test"]["sites"]["berlin"] == alone["metrics"]["test"]["sites"]["berlin"]
    # One file holds all models, each under its site's name.
    models = wire.unpack(among["parameters"])
    assert {name.split("/")[0] for name in models} == set(tables)
    assert all(torch.equal(models[name], tensor) for name, tensor in wire.unpack(alone["parameters"]).items())


def test_bytes_and_seconds_of_every_call_are_booked(run_locally, tables, make_experiment):
    result = run_locally(make_experiment(rounds=2), tables)
    calls = [(entry["call"], entry["round"]) for entry in result["timing"]["rounds"]]
    assert calls == [("prepare", 0), ("prepare", 0), ("train", 1), ("train", 2), ("evaluate", 2)]
    for entry in result["timing"]["rounds"]:
        assert set(entry["bytes_sent"]) == set(entry["bytes_received"]) == set(tables)
        assert entry["seconds"] >= entry["waiting_s"] >= 0


def test_class_seen_at_one_site_only_is_a_note_not_an_error(run_locally, tables, make_experiment):
    frame = tables["cairo"].frame.copy()
    frame.loc[:9, "y"] = 2
    result = run_locally(make_experiment(), {**tables, "cairo": TableSource(frame=frame)})
    assert result["status"] == "completed"
    assert result["preparation"]["classes"] == [0, 1, 2]
    assert "class 3 of 3 is seen at one site only: cairo" in result["notes"]
