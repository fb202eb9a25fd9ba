"""What a request asks, and how a reply to it is read: losses, frozen tensors, compressed updates, their size."""

from __future__ import annotations

import pytest
import torch
from playing import SCALAR, SPEC, make, reply, scalar, state

from v6_algorithm.coordinator.strategies import create_strategy
from v6_algorithm.coordinator.strategies.newton import CoxNewton, Newton
from v6_algorithm.coordinator.strategies.penalised import PenalisedNewton
from v6_algorithm.coordinator.strategies.pipeline import FedAvg
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.compression import create_compressor
from v6_algorithm.exchange.wire import TensorSpec
from v6_algorithm.experiment import Experiment

TWO = {"a": 10, "b": 30}
COMPRESSED = {"kind": "fedavg", "compress": {"stages": ["int8"], "start": 3}}
FROZEN = {"w": TensorSpec((2,), "float64"), "base": TensorSpec((2,), "float64", "frozen")}


def item(parameters, rows=4, loss=2.0, loss_rows=8):
    told = {"rows": rows, "steps": 3, "loss": {"sum": loss, "rows": loss_rows}}
    return told | {"parameters": parameters, "strategy": {}}


@pytest.mark.parametrize(
    ("problem", "model", "made"),
    [
        ("regression", {"kind": "glm"}, Newton),
        ("regression", {"kind": "glm", "penalty": {"kind": "lasso", "strength": 1.0}}, PenalisedNewton),
        ("survival", {"kind": "cox"}, CoxNewton),
        ("regression", {"kind": "mlp"}, FedAvg),
    ],
)
def test_which_strategy_fits_a_model(problem, model, made):
    target = {"duration": "t", "event": "e"} if problem == "survival" else "y"
    content = {"data": {"target": target}, "problem": problem, "model": model}
    assert type(create_strategy(Experiment.parse(content), SCALAR, TWO)) is made


@pytest.mark.parametrize(
    ("strategy", "changes", "asks"),
    [
        ("fedavg", {}, False),
        ("fedavg", {"participation": {"late": "stale"}}, True),
        ({"kind": "fedavg", "clip": 1.0}, {}, True),
        ("fedavgm", {}, True),
        ("fednova", {}, True),
        ("cyclic", {}, False),
    ],
)
def test_a_site_is_asked_for_its_start_where_that_is_needed_and_unknown(strategy, changes, asks):
    made = make(strategy, SCALAR, TWO, **changes)
    assert made.wants_sent is asks
    assert ("start" in made.messages(1, ["a"], known=False)["a"]) is asks
    assert "start" not in made.messages(1, ["a"], known=True)["a"]


def test_updates_are_compressed_from_the_round_on_that_is_given():
    made = make(COMPRESSED, SCALAR, TWO)
    told = [made.messages(number, ["a"], known=True)["a"] for number in (1, 2, 3, 4)]
    assert told == [{}, {}, {"compress": made.run}, {"compress": made.run}]
    assert made.messages(3, ["a"], known=False)["a"] == {}


def test_the_loss_of_a_reply_is_a_mean_over_its_rows():
    assert make("fedavg", SCALAR, TWO).read("a", item(wire.pack(scalar(1))), {}).loss == 0.25


def test_a_compressed_reply_is_what_was_sent_moved_by_its_update_with_its_buffers_whole():
    made, sent, trained = make(COMPRESSED, SPEC), state(1, SPEC), state(2, SPEC)
    made.configure(3, ["amsterdam"], sent)
    update = {name: trained[name] - sent[name] for name in made.parameters}
    packed, _ = create_compressor(made.section.compress, SPEC).encode(update, {}, lambda *_: None)
    others = {name: trained[name] for name in SPEC if name not in update}
    read = made.read("amsterdam", item(wire.pack(packed | others)), {"strategy": {"compress": made.run}}).state
    assert list(read) == list(SPEC)
    for name in SPEC:
        error = float(update[name].abs().max()) / 127 if name in update else 0
        assert float((read[name] - trained[name]).abs().max()) <= error
    with pytest.raises(WireError):
        made.read("amsterdam", item(wire.pack(packed)), {"strategy": {"compress": made.run}})


def test_a_compressed_reply_may_be_as_large_as_the_model_and_4096_bytes_a_name():
    """Issue 13: a size cap divided instead of multiplied."""
    made = make(COMPRESSED, SCALAR, TWO)
    made.configure(3, ["a"], scalar(1))
    cap = 8 + 4096 * (1 + 8)

    def read(numbers):
        content = wire.pack({"w": torch.zeros(numbers, dtype=torch.uint8)})
        with pytest.raises(WireError) as caught:
            made.read("a", item(str(content)), {"strategy": {"compress": made.run}})
        return str(caught.value), len(content) * 3 // 4

    within, bytes_within = read(cap - 100)
    beyond, bytes_beyond = read(cap - 50)
    assert bytes_within <= cap + 3 < bytes_beyond
    assert "over the cap" not in within
    assert f"over the cap of {cap} bytes" in beyond


def packed(**numbers):
    return str(wire.pack({name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}))


def test_what_is_frozen_is_taken_from_the_request_and_read_once():
    """Issue 13: a cached table that is thrown away."""
    made = make("fedavg", FROZEN, TWO)
    asked = {"parameters": packed(w=[0, 0], base=[7, 8])}
    first, second = (made.read("a", item(packed(w=[1, 2])), asked).state for _ in range(2))
    assert list(first) == ["w", "base"]
    assert first["base"].tolist() == [7, 8]
    assert first["w"].tolist() == [1, 2]
    assert second["base"] is first["base"]
    other = made.read("a", item(packed(w=[1, 2])), {"parameters": packed(w=[0, 0], base=[5, 6])}).state
    assert other["base"].tolist() == [5, 6]


@pytest.mark.parametrize("asked", [{}, {"parameters": packed(w=[0, 0]), "partial": True}])
def test_a_site_that_was_not_sent_what_is_frozen_tells_it(asked):
    made = make("fedavg", FROZEN, TWO)
    assert made.read("a", item(packed(w=[1, 2], base=[7, 8])), asked).state["base"].tolist() == [7, 8]
    with pytest.raises(WireError):
        made.read("a", item(packed(w=[1, 2])), asked)


def test_a_tensor_stays_as_it_was_sent_up_to_the_round_before_it_thaws():
    spec = {"w": TensorSpec((1,), "float64", thaws=2)}
    for number, wanted in ((1, 5.0), (2, 5.0), (3, 9.0)):
        made = make("fedavg", spec, TWO)
        made.configure(number, ["a"], scalar(5))
        made.add(reply("a", scalar(9), 10))
        assert float(made.aggregate()["w"]) == wanted
    # Of a model that only the sites know there is nothing to go back to.
    made.configure(1, ["a"], None)
    made.add(reply("a", scalar(9), 10))
    assert float(made.aggregate()["w"]) == 9


def test_a_late_update_counts_nothing_where_no_model_is_known():
    made = make("fedavg", SCALAR, TWO, participation={"late": "stale"})
    made.configure(2, ["a"], None)
    made.add_belated(reply("b", scalar(1.4), 30), scalar(1.0), age=1)
    made.add(reply("a", scalar(2.5), 10, start=scalar(2.0)))
    assert float(made.aggregate()["w"]) == 2.5


def test_an_update_is_scaled_by_any_factor_and_by_one_stays_the_same_object():
    made, trained = make("fedavg", SCALAR, TWO), scalar(3)
    made.configure(1, ["a"], scalar(1))
    assert {factor: float(made.moved(trained, lambda _, by=factor: by)["w"]) for factor in (0, 0.5, 2, 3)} == {
        0: 1, 0.5: 2, 2: 5, 3: 7,
    }  # fmt: skip
    assert made.moved(trained, lambda _: 1.0) is trained


def test_no_saved_average_is_an_average_of_no_model():
    one, other = (make("fedavg", SCALAR, output={"model": "swa", "average_from": 1}, rounds=4) for _ in range(2))
    other.load_state_dict({})
    assert [float(made.average.add(scalar(5), 1)["w"]) for made in (one, other)] == [5, 5]
    assert [float(made.average.add(scalar(7), 2)["w"]) for made in (one, other)] == [6, 6]
