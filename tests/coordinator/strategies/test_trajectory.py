"""Averages over rounds: which models are in them, and that training does not notice."""

import pytest
import torch
from playing import SCALAR, SPEC, make, scalar, state

from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire


def average(values, spec=SCALAR, rounds=4, **output):
    made = make("fedavg", spec, output=output, rounds=rounds).average
    return [made.add(value, number) for number, value in enumerate(values, start=1)]


def numbers(found):
    return [None if one is None else float(one["w"]) for one in found]


def test_swa_is_the_mean_of_the_second_half():
    found = numbers(average([scalar(value) for value in (9, 7, 1, 2)], model="swa"))
    assert found == [None, None, 1, 1.5]


def test_swa_begins_where_it_is_told():
    found = numbers(average([scalar(value) for value in (9, 7, 2, 3)], model="swa", average_from=2))
    assert found == [None, 7, 4.5, pytest.approx(4, abs=1e-15)]


def test_ema_fades_old_models():
    found = numbers(average([scalar(value) for value in (8, 4, 0)], model="ema", decay=0.75))
    assert found == [8, 7, 5.25]


def test_counters_are_not_averaged_and_dtypes_stay():
    found = average([state(1), state(5)], SPEC, rounds=2, model="ema")[-1]
    assert found["model.num_batches_tracked"].item() == 5
    wire.unpack(wire.pack(found), SPEC)


@pytest.mark.parametrize("model", ["swa", "ema"])
def test_an_average_goes_on_from_its_saved_state(model):
    one, other = (make("fedavg", output={"model": model, "decay": 0.8}, rounds=2) for _ in range(2))
    one.average.add(state(1), 2)
    other.load_state_dict(wire.unpack(wire.pack(one.state_dict())))
    wanted, found = one.average.add(state(2), 3), other.average.add(state(2), 3)
    assert all(torch.equal(wanted[name], found[name]) for name in SPEC)


def test_the_kept_model_is_the_average_of_the_rounds_models(spied, make_experiment):
    keep = {"output": {"model": "swa", "average_from": 2}, "rounds": 4, "stopping": {"patience": None}}
    spy, result = spied(make_experiment(**keep))
    # What rounds 1 to 3 made goes out with the round after; the fourth is measured at the end, before the average.
    sent = [next(iter(requests.values()))["folds"][0]["parameters"] for requests in spy.of("RPC_train")[2:]]
    last, kept = (fold["parameters"] for fold in next(iter(spy.of("RPC_evaluate")[0].values()))["folds"])
    models = [wire.unpack(one) for one in (*sent, last)]
    for name, tensor in wire.unpack(result["parameters"]).items():
        mean = sum(model[name].double() for model in models) / 3
        torch.testing.assert_close(tensor, mean.float(), rtol=0, atol=1e-7)
        assert torch.equal(tensor, wire.unpack(kept)[name])
    assert result["metrics"]["test"]["pooled"]["n"] > 0


def test_training_does_not_notice_the_average(spied, make_experiment):
    histories = [
        spied(make_experiment(output={"model": model}, stopping={"patience": None}))[1]["history"]
        for model in ("last", "swa", "ema")
    ]
    assert histories[0] == histories[1] == histories[2]


def test_a_first_round_that_never_comes_is_refused(make_experiment):
    with pytest.raises(ExperimentError, match="must not be after the last round"):
        make_experiment(output={"model": "swa", "average_from": 9}, rounds=4)
