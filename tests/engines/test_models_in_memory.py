"""How many copies of a model a simulated run holds at once, and where it makes text of one."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch

from v6_algorithm.coordinator import checkpoint
from v6_algorithm.coordinator.checkpoint import Checkpoints
from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.learning.training import objectives
from v6_algorithm.site import preparing
from v6_algorithm.site.guard.requests import _check_item
from v6_algorithm.site.policy import Policy

WIDTH = 96
PLAIN = {
    "model": {"kind": "mlp", "hidden": [WIDTH, WIDTH], "norm": "none"},
    "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 16},
    "stopping": {"monitor": "loss", "patience": None},
    "output": {"model": "last"},
}
SAME = ("history", "site_history", "metrics", "parameters", "best_round", "notes")


def copies() -> float:
    """Return how often the numbers of the middle layer are in memory, in float32 each; twice in float64."""
    found = {
        tensor.untyped_storage().data_ptr(): tensor.element_size() / 4
        for tensor in gc.get_objects()
        if issubclass(type(tensor), torch.Tensor) and tensor.numel() == WIDTH * WIDTH and tensor.device.type == "cpu"
    }
    return sum(found.values())


@pytest.fixture
def without_a_search_for_circles(monkeypatch):
    # Of a small model the sites of a process keep the one that all begin with.
    monkeypatch.setattr(preparing, "_MOST_SHARED", 0)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_step_is_made_beside_the_model_its_copy_the_gradients_and_the_sum(
    tables, make_experiment, monkeypatch, without_a_search_for_circles
):
    seen, step = [], objectives.take_step

    def counted(optimiser):
        gradients = [each.grad for group in optimiser.param_groups for each in group["params"]]
        seen.append(copies())
        del gradients
        step(optimiser)

    monkeypatch.setattr(objectives, "take_step", counted)
    experiment = make_experiment(**PLAIN)
    before = copies()
    run(local_federation(experiment, tables, way="exact"), experiment)
    # What was sent, the site's own, its gradients, and a sum in float64.
    assert max(seen) - before == 5


def test_while_a_checkpoint_is_written_the_newest_model_is_the_only_one(
    tables, make_experiment, tmp_path, monkeypatch, without_a_search_for_circles
):
    seen, write = [], checkpoint.write_whole

    def counted(path, data):
        seen.append(copies())
        write(path, data)

    monkeypatch.setattr(checkpoint, "write_whole", counted)
    experiment = make_experiment(**PLAIN)
    before = copies()
    run(local_federation(experiment, tables, way="exact"), experiment, checkpoints=Checkpoints(tmp_path / "c"))
    # Of the preparation, and of four rounds.
    assert [count - before for count in seen[:5]] == [0, 1, 1, 1, 1]


def test_a_checkpoint_is_written_from_the_models_own_memory():
    held = wire.Held({"w": torch.zeros(1000)})
    kept = torch.zeros(500)
    for piece in checkpoint.pieces_of({"model": held, "again": [held], "tensor": kept}):
        if isinstance(piece, memoryview):
            piece[:4] = torch.ones(1).numpy().tobytes()
    assert held.tensors["w"][0] == kept[0] == 1


def test_after_round_one_no_text_is_made_of_a_model_but_the_first_sites_at_the_end(
    tables, make_experiment, monkeypatch
):
    """Text is a third larger than the model, and took as long to make as a small round."""
    made: list[str] = []
    now = ["prepared"]
    pack, letters = wire.pack, wire.Held.letters

    def packed(tensors, *given, **more):
        if any(tensor.numel() == WIDTH * WIDTH for tensor in tensors.values()):
            made.append(now[0])
        return pack(tensors, *given, **more)

    monkeypatch.setattr(wire, "pack", packed)
    monkeypatch.setattr(wire.Held, "letters", lambda self: (made.append(now[0]), letters(self))[1])
    experiment = make_experiment(**PLAIN)

    def listen(event):
        if event["event"] in ("round", "tested"):
            now[0] = f"{event['event']} {event.get('round', '')}"

    run(local_federation(experiment, tables, way="exact"), experiment, listen)
    # Rounds 2 to 4 come after the event of the round before.
    assert not {"round 1", "round 2", "round 3"} & set(made)
    assert made.count("round 4") == 1


@pytest.mark.parametrize("changes", [{}, {"output": {"model": "best"}}, {"output": {"model": "ema", "decay": 0.5}}])
def test_models_that_are_held_give_the_bits_of_those_that_are_packed(tables, make_experiment, monkeypatch, changes):
    experiment = make_experiment(**PLAIN | changes)
    held = run(local_federation(experiment, tables, way="exact"), experiment)
    federation = local_federation(experiment, tables, way="exact")
    monkeypatch.setattr(type(federation), "takes_held", False)
    packed = run(federation, experiment)
    assert [held[key] for key in SAME] == [packed[key] for key in SAME]


def test_a_node_that_keeps_a_book_of_requests_knows_a_held_model_by_its_text(tables, make_experiment):
    """The hash in its book is the same whether a model came as text, as the first one does, or as it is."""
    experiment = make_experiment(**PLAIN)
    rules = replace(Policy(), request_order=True)
    books = []
    for way in ("wire", "exact"):
        federation = local_federation(experiment, tables, rules, way=way)
        result = run(federation, experiment)
        assert result["status"] == "completed"
        books.append(result["metrics"])
    assert books[0] == books[1]


def test_a_resumed_run_holds_a_model_that_two_things_name_once(tables, make_experiment, tmp_path):
    experiment = make_experiment(**PLAIN)

    class Stopped(BaseException):
        pass

    def stop(event):
        if event["event"] == "round" and event["round"] == 2:
            raise Stopped

    saved = Checkpoints(tmp_path / "c")
    with pytest.raises(Stopped):
        run(local_federation(experiment, tables, way="exact"), experiment, stop, checkpoints=saved)
    state = saved.load()["state"]["groups"][0]["folds"][0]
    assert state["model"] is state["unscored"][0][1]
    assert isinstance(state["model"], wire.Packed)
    again = run(local_federation(experiment, tables, way="exact"), experiment, checkpoints=saved)
    whole = run(local_federation(experiment, tables, way="exact"), experiment)
    assert [again[key] for key in SAME] == [whole[key] for key in SAME]


def test_a_request_may_carry_a_model_as_it_is_and_nothing_else_that_is_no_text():
    _check_item({"fold": 0, "parameters": wire.Held({})})
    with pytest.raises(WireError, match="a packed text"):
        _check_item({"fold": 0, "parameters": {"w": [1.0]}})
