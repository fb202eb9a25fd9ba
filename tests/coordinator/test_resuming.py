"""A run that died in any phase goes on from its checkpoint to the same bits as one that never stopped."""

from __future__ import annotations

import copy
import gc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import make_table
from hypothesis import given
from hypothesis import strategies as st
from spying import Spy, lose

from v6_algorithm.coordinator import checkpoint as checkpoint_module
from v6_algorithm.coordinator.checkpoint import Checkpoints, from_bytes, to_bytes
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import CheckpointError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.site import SiteContext

CHANGING = ("timing", "software")


class Killed(BaseException):
    """What SIGKILL is to the process: nothing is caught, nothing is written any more."""


class Dying:
    """A federation whose process is killed at some call: before any site is asked, or after so many replies."""

    def __init__(self, federation, call, replies=0):
        self.federation, self.left, self.replies = federation, call, replies

    def sites(self):
        return self.federation.sites()

    def overdue(self, site):
        return self.federation.overdue(site)

    def belated(self):
        return self.federation.belated()

    def call(self, method, requests, *, deadline_s):
        self.left -= 1
        answered = self.federation.call(method, requests, deadline_s=deadline_s)
        if self.left == 0:
            inner = answered.arrivals

            def arrivals():
                for number, arrival in enumerate(inner):
                    if number == self.replies:
                        raise Killed
                    yield arrival
                raise Killed

            answered.arrivals = arrivals()
        return answered


def same(one, other):
    """Compare results but for what was measured in seconds."""
    one, other = ({key: value for key, value in result.items() if key not in CHANGING} for result in (one, other))
    for key in one:
        assert one[key] == other[key], key
    assert one.keys() == other.keys()


def folder_federation(experiment, tables, folder):
    """Simulate sites whose own tensors outlive the process, as `run` and a node's volume have it."""
    contexts = {name: SiteContext({name: table}) for name, table in tables.items()}
    return LocalFederation({name: replace(one, rounds_folder=folder / name) for name, one in contexts.items()})


def killed_everywhere(experiment, tables, tmp_path, points):
    """Run to the end, then kill and go on at each of the points (call, replies); all must come to the same."""
    whole = run(folder_federation(experiment, tables, tmp_path / "whole"), experiment)
    for number, (call, replies) in enumerate(points):
        folder = tmp_path / str(number)
        checkpoints = Checkpoints(folder / "checkpoint.safetensors")
        with pytest.raises(Killed):
            run(
                Dying(folder_federation(experiment, tables, folder), call, replies),
                experiment,
                checkpoints=checkpoints,
            )
        again = run(
            folder_federation(experiment, tables, folder),
            experiment,
            checkpoints=Checkpoints(folder / "checkpoint.safetensors"),
        )
        same(again, whole)
    return whole


@pytest.mark.slow
def test_a_run_killed_in_any_phase_comes_to_the_same_bits(tables, make_experiment, tmp_path):
    experiment = make_experiment(rounds=3)
    calls = len(run(local_federation(experiment, tables), experiment)["participation"])
    assert calls == 6  # columns, statistics, three rounds, evaluation
    points = [(call, replies) for call in range(1, calls + 1) for replies in (0, 2) if (call + replies) % 4 < 2]
    killed_everywhere(experiment, tables, tmp_path, points)


ADAM = {"optimizer": {"kind": "adam", "lr": 0.02}, "batch_size": 8}
SGD = {"optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9}, "batch_size": 8}
STATEFUL = {
    "fedavgm": {"strategy": {"kind": "fedavgm"}},
    "fedopt": {"strategy": {"kind": "fedopt", "server": {"kind": "adamw", "lr": 0.05}}},
    "fedadam": {"strategy": {"kind": "fedadam"}},
    "fedyogi": {"strategy": {"kind": "fedyogi"}},
    "fedadagrad": {"strategy": {"kind": "fedadagrad"}},
    "fedprox": {"strategy": {"kind": "fedprox", "adaptive": True}},
    "moon": {"strategy": {"kind": "moon"}},
    "scaffold": {"strategy": {"kind": "scaffold"}, "training": SGD},
    "feddyn": {"strategy": {"kind": "feddyn"}, "training": SGD},
    "fednova": {"strategy": {"kind": "fednova"}, "training": SGD},
    "qfedavg": {"strategy": {"kind": "qfedavg"}},
    "agnostic": {"strategy": {"kind": "agnostic"}},
    "cyclic": {"strategy": {"kind": "cyclic", "order": "random"}},
    "centre of a robust rule": {"strategy": {"combine": {"kind": "centred_clipping", "radius": 1.0}}},
    "private layers": {"strategy": {"kind": "fedavg", "private": "head"}},
    "compression": {"strategy": {"kind": "fedavg", "compress": [{"kind": "topk", "fraction": 0.3}, "int8"]}},
    "rounded model": {"strategy": {"kind": "fedavg", "compress_down": "bfloat16"}},
    "average over rounds": {"output": {"model": "swa", "average_from": 2}},
    "moving average": {"output": {"model": "ema"}},
    "plateau": {"training": ADAM | {"scheduler": {"kind": "ReduceLROnPlateau", "patience": 0, "factor": 0.5}}},
    "sampled sites": {"participation": {"fraction": 0.5}},
    "folds": {"split": {"kind": "kfold", "folds": 3}},
    "each site alone": {"mode": "local"},
    "pretraining": {"start": {"pretrain_epochs": 1}},
    "personal models": {"personal": "ditto"},
    "groups of rows": {"evaluation": {"subgroups": ["sex"]}},
}


EVERYDAY = {"fedadam", "scaffold", "private layers", "compression", "rounded model", "folds", "groups of rows"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=() if what in EVERYDAY else pytest.mark.slow) for what in STATEFUL]
)
def test_whatever_lasts_from_round_to_round_is_in_the_checkpoint(make_experiment, tables, tmp_path, what):
    if what == "groups of rows":
        for table in tables.values():
            table.frame["sex"] = ["f", "m"] * (len(table.frame) // 2)
    experiment = make_experiment(**({"rounds": 4, "stopping": {"patience": None}} | STATEFUL[what]))
    # In mode local the third round of the second site; else the third round, when two sites have answered.
    killed_everywhere(experiment, tables, tmp_path, [(14, 0), (9, 0)] if what == "each site alone" else [(5, 2)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"strategy": {"kind": "fedadam", "compress_down": "bfloat16"}},
        pytest.param(
            {"split": {"kind": "kfold", "folds": 3}, "participation": {"fraction": 0.7}}, marks=pytest.mark.slow
        ),
        pytest.param({"strategy": {"compress": "int8"}, "output": {"model": "ema"}}, marks=pytest.mark.slow),
        pytest.param({"stopping": {"patience": 1, "min_delta": 0.01}, "rounds": 12}, marks=pytest.mark.slow),
    ],
)
def test_rounds_that_overlap_go_on_with_the_one_that_was_asked_for(make_experiment, tables, tmp_path, more):
    experiment = make_experiment(**({"rounds": 5, "pipeline": 1, "stopping": {"patience": None}} | more))
    # Call 5 is round 3; at 6 round 3 is over, and rounds 4 and 5 are asked for.
    killed_everywhere(experiment, tables, tmp_path, [(4, 1), (5, 0), (5, 2), (6, 1), (7, 2)])


def test_late_sites_rest_as_long_after_a_restart(tables, make_experiment, tmp_path):
    experiment = make_experiment(rounds=8, stopping={"patience": None})

    def spy():
        return Spy(local_federation(experiment, tables), lose("berlin", {2, 3, 4, 5}, "late"))

    whole = run(spy(), experiment)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        run(Dying(spy(), 7, 1), experiment, checkpoints=Checkpoints(path))
    federation = spy()
    federation._late["berlin"] = None  # it still owes the answer to the engine, which remembers by itself
    again = run(federation, experiment, checkpoints=Checkpoints(path))
    same(again, whole)


def test_the_books_add_up_over_a_restart(tables, make_experiment, tmp_path):
    experiment, path = make_experiment(rounds=3), tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        run(Dying(local_federation(experiment, tables), 5, 3), experiment, checkpoints=Checkpoints(path))
    told = []
    again = run(local_federation(experiment, tables), experiment, told.append, checkpoints=Checkpoints(path))
    assert [(entry["call"], entry["round"]) for entry in again["timing"]["rounds"]] == [
        ("prepare", 0), ("prepare", 0), ("train", 1), ("train", 2), ("train", 3), ("evaluate", 3)
    ]  # fmt: skip
    assert told[0].items() >= {"event": "prepared", "sites": sorted(tables), "rounds": 3, "done": 2}.items()


def test_a_checkpoint_of_another_experiment_is_refused(tables, make_experiment, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    run(local_federation(make_experiment(), tables), make_experiment(rounds=1), checkpoints=Checkpoints(path))
    other = make_experiment(rounds=2)
    with pytest.raises(CheckpointError, match="is of another experiment"):
        run(local_federation(other, tables), other, checkpoints=Checkpoints(path))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_no_checkpoint_is_refused_and_named(tables, make_experiment, tmp_path, content):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: is no checkpoint"):
        run(local_federation(make_experiment(), tables), make_experiment(), checkpoints=Checkpoints(path))


def test_a_disk_that_refuses_costs_no_run_and_is_told_once(tables, make_experiment, tmp_path):
    (tmp_path / "file").write_text("in the way of the folder")
    told = []
    result = run(
        local_federation(make_experiment(), tables),
        make_experiment(rounds=2),
        told.append,
        checkpoints=Checkpoints(tmp_path / "file" / "checkpoint.safetensors"),
    )
    assert result["status"] == "completed"
    assert [event for event in told if event["event"] == "note"] == [
        {"event": "note", "text": "the checkpoint could not be written: File exists"}
    ]
    assert "the checkpoint could not be written: File exists" in result["notes"]


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(TREES, st.lists(st.floats(width=32), max_size=4))
def test_a_tree_comes_back_from_its_file_as_it_was(tree, numbers):
    model = wire.pack({"w": torch.tensor(numbers, dtype=torch.float32)})
    held = wire.Held({"w": torch.tensor(numbers, dtype=torch.float32)})
    content = {"tree": copy.deepcopy(tree), "models": [model, model], "held": held, "count": torch.tensor(3)}
    again = from_bytes(to_bytes(content))
    assert again["held"] == model
    assert again["tree"] == tree
    assert again["models"] == [model, model]
    assert isinstance(again["models"][0], wire.Packed)
    assert again["count"].dtype == torch.int64
    assert again["count"] == 3


def test_a_model_that_was_saved_does_not_wait_for_a_search_for_circles():
    gc.collect()
    gc.disable()
    try:
        content = {"model": wire.pack({"w": torch.ones(3)}), "tensor": torch.ones(3)}
        from_bytes(to_bytes(content))
        seen = len([each for each in gc.get_objects() if type(each) is torch.Tensor])
        from_bytes(to_bytes(content))
        assert len([each for each in gc.get_objects() if type(each) is torch.Tensor]) == seen
    finally:
        gc.enable()


def test_a_file_cut_anywhere_is_not_taken_for_a_checkpoint():
    data = to_bytes({"model": wire.pack({"w": torch.ones(3)}), "tree": [1, 2]})
    for length in range(0, len(data), 7):
        with pytest.raises(WireError):
            from_bytes(data[:length])


def test_keys_that_json_would_change_are_refused():
    with pytest.raises(TypeError, match="keys of a state must be text, not 1"):
        to_bytes({"a": {1: "one"}})


def pixels(rows, seed):
    """Return a table of images of 16 x 16 pixels; those of class 1 are bright."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    values = generator.integers(0, 127, (rows, 256)) + labels[:, None] * 128
    return pd.DataFrame(values).rename(columns=lambda number: f"pixel{number}").assign(y=labels)


@pytest.mark.slow
def test_a_generator_and_its_sample_grids_go_on(make_experiment, tmp_path, one_thread):
    experiment = make_experiment(
        data={"target": "y", "image": {"shape": [1, 16, 16], "range": [0, 255]}},
        problem={"kind": "gan", "latent": 4, "augment": {"length": 100}},
        model={"kind": "dcgan", "width": 2},
        split={"kind": "ratio", "train": 1, "validation": 0, "test": 0},
        training={"batch_size": 8},
        rounds=3,
        strategy={"kind": "fedadam"},
    )
    sites = {"one": TableSource(frame=pixels(24, 1)), "two": TableSource(frame=pixels(16, 2))}
    whole = killed_everywhere(experiment, sites, tmp_path, [(4, 1), (5, 0)])
    # Without validation rows nobody is asked about the model of the last round.
    assert [entry["round"] for entry in whole["samples"]["rounds"]] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cox", "discrete_time"])
def test_survival_goes_on(make_experiment, tmp_path, method):
    """A Cox model's final evaluation takes two calls: the baseline hazard, then what depends on it."""
    sites = {}
    for number, name in enumerate(("one", "two", "three")):
        frame = make_table(50, number).drop(columns="y")
        frame["time"] = np.random.default_rng(number).exponential(np.exp(-frame["a"] / 2)) + 0.1
        sites[name] = TableSource(frame=frame.assign(event=np.arange(50) % 3 != 0))
    experiment = make_experiment(
        data={"target": {"duration": "time", "event": "event"}},
        problem={"kind": "survival", "method": method},
        rounds=2,
        stopping={"monitor": "c_index"},
    )
    killed_everywhere(experiment, sites, tmp_path, [(4, 2), (5, 1)] + [(6, 1)] * (method == "cox"))


@pytest.mark.parametrize(
    ("cost_s", "round_s", "most_share"), [(0.005, 0.01, 0.025), (0.05, 0.01, 0.06), (0.2, 0.01, 0.1), (0.2, 7.0, 0.03)]
)
def test_a_killed_run_loses_a_second_or_one_round_and_writing_takes_little(
    make_experiment, tmp_path, monkeypatch, cost_s, round_s, most_share
):
    clock = [0.0]
    monkeypatch.setattr(checkpoint_module.time, "perf_counter", lambda: clock[0])

    def write(path, data):
        clock[0] += cost_s

    monkeypatch.setattr(checkpoint_module, "write_whole", write)
    checkpoints, written, lost, writing = Checkpoints(tmp_path / "c", share=0.02), 0.0, 0.0, 0.0
    for _ in range(1000):
        clock[0] += round_s
        # Killed now, before this round is written.
        lost = max(lost, clock[0] - written)
        if checkpoints.due():
            written = clock[0]
            checkpoints.save(make_experiment(), {})
            writing += cost_s
    assert lost <= max(1.0, round_s, 10 * cost_s) + cost_s + round_s
    assert writing / clock[0] < most_share
