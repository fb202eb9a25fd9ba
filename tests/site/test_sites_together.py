"""Which sites of a simulation are trained together, and which quicker steps the others take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from v6_algorithm.exchange import wire
from v6_algorithm.site import SiteContext, together
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.together import can_go, groups
from v6_algorithm.site.together import run as together_run
from v6_algorithm.site.together.quicker import CHANNELS_LAST, FUSED, quicker_steps
from v6_algorithm.site.together.run import Run, why_alone


@pytest.mark.parametrize("fuses", [True, False])
@pytest.mark.parametrize(
    ("kind", "norm", "shape", "last"),
    [("cnn", "none", (3, 8, 8), True), ("cnn", "group", (1, 8, 8), True), ("cnn", "batch", (3, 8, 8), False),
     ("cnn", "none", (1, 8, 8, 8), False), ("cnn", "none", None, False), ("mlp", "none", (3, 8, 8), False)],
)  # fmt: skip
def test_the_network_cnn_has_its_channels_last_unless_batches_are_normalised(fuses, kind, norm, shape, last):
    run = SimpleNamespace(
        fuses=fuses,
        experiment=SimpleNamespace(model=SimpleNamespace(kind=kind, norm=norm)),
        setup=SimpleNamespace(image_shape=shape),
    )
    assert quicker_steps({"together": (None, None, run)}) == [FUSED] * fuses + [CHANNELS_LAST] * last
    assert quicker_steps({}) == []


def test_why_sites_are_alone_is_a_rule_of_theirs_or_what_the_run_asks_for():
    plain, strict = SiteContext({}, Policy()), SiteContext({}, Policy(refuse_isolated_rows=True))
    assert why_alone({"a": plain, "b": strict}, {}) == "the node's rules try to read rows out of each update"
    assert why_alone({"a": plain}, {}) == "there is one site"
    assert why_alone({"a": plain, "b": plain}, {}) is None
    for reason, told in (("strategy.private: …", "strategy.private: …"), (None, "")):
        known = {"together": (None, None, SimpleNamespace(reason=reason))}
        assert why_alone({"a": plain, "b": plain}, known) == told


def test_an_item_goes_with_others_where_it_asks_for_what_all_can_do():
    model = wire.pack({"w": torch.ones(2)}, keep=True)
    item = {"fold": 0, "parameters": model, "train": True}
    assert can_go([item, item | {"parameters": None}])
    assert can_go([item | {"strategy": {"mu": 0.1}}])
    assert not can_go([item | {"strategy": {"term": True}}])
    assert not can_go([item | {"private": {}}])
    assert not can_go([item, item | {"parameters": "text"}])
    read = wire.Packed(str(model))
    assert can_go([item | {"parameters": read}])
    assert read.tensors["w"].tolist() == [1, 1], "of a checkpoint it is read once"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({}, None), ({"secure": {}}, "secure aggregation"), ({"private_dp": {}}, "differential privacy"),
     ({"layers": "norm"}, "strategy.private"), ({"stages": ["int8"]}, None),
     ({"kind": "cyclic"}, "one site after"),
     ({"mode": "local"}, "mode local"), ({"at_sites": True}, "each site has its own"), ({"device": "cuda"}, "a GPU")],
)  # fmt: skip
def test_what_a_run_asks_for_keeps_sites_apart(changes, reason):
    made = object.__new__(Run)
    made.experiment = SimpleNamespace(
        privacy=SimpleNamespace(
            secure_aggregation=changes.get("secure"), differential_privacy=changes.get("private_dp")
        ),
        strategy=SimpleNamespace(
            kind=changes.get("kind", "fedavg"), compress=SimpleNamespace(stages=changes.get("stages", []))
        ),
        mode=changes.get("mode", "federated"),
        start=SimpleNamespace(at_sites=changes.get("at_sites", False)),
    )
    made.private, made.device = changes.get("layers"), SimpleNamespace(kind=changes.get("device", "cpu"))
    found = made._reason()
    assert found is None if reason is None else reason in found


def test_owners_rules_that_are_equal_are_looked_at_once():
    made = object.__new__(Run)
    made.rules = []
    given = [Policy(), Policy(minimum_cell=7), Policy(), Policy(minimum_cell=7)]
    assert [made.rules_of(policy) for policy in given] == [0, 1, 0, 1]
    assert len(made.rules) == 2


def test_sites_go_together_by_experiment_and_setup_but_those_whose_rules_keep_books(monkeypatch):
    for module in (together, together_run):
        monkeypatch.setattr(module, "run_of", lambda request, context, shared: request["experiment"]["name"])
    one, two, setup = {"name": "one"}, {"name": "two"}, {}
    requests = {
        site: {"experiment": experiment, "setup": setup, "folds": folds}
        for site, experiment, folds in (
            ("a", one, [1]), ("b", two, [1]), ("c", one, [1]), ("d", one, [1]), ("e", one, []))
    }  # fmt: skip
    contexts = {site: SiteContext({}, Policy(request_order=site == "d")) for site in requests}
    found = groups(requests, contexts, {}, lambda folds: bool(folds))
    assert [(run, list(group)) for run, group in found] == [("one", ["a", "c"]), ("two", ["b"])]
    assert groups({}, contexts, {}, lambda folds: True) == []
    # Each its own hazard after training; what was agreed on before is the same, or is not.
    hazards = {"a": {"baselines": "of a"}, "c": {"baselines": "of c", "baseline": "all"}, "e": {"features": ["x"]}}
    requests = {site: requests[site] | {"setup": setup} for site, setup in hazards.items()}
    found = groups(requests, contexts, {}, lambda folds: True)
    assert [(run, list(group)) for run, group in found] == [("one", ["a", "c"]), ("one", ["e"])]

    def fail(*_):
        raise KeyError

    monkeypatch.setattr(together_run, "run_of", fail)
    assert groups(requests, contexts, {}, lambda folds: True) == []


@pytest.mark.parametrize(
    ("fraction", "limit", "kept"), [(1, 2**30, True), (0.5, 2**30, False), (1, 95, False), (1, 96, True)]
)
def test_rows_beside_each_other_are_kept_where_the_same_sites_are_asked_again(monkeypatch, fraction, limit, kept):
    monkeypatch.setattr(together_run, "_MOST_BYTES", limit)
    made = object.__new__(Run)
    made._joined, made.experiment = {}, SimpleNamespace(participation=SimpleNamespace(fraction=fraction))
    made._rows_of = lambda site, fold, part: (torch.full((3, 4), float(len(site))), torch.ones(3))
    inputs, target, lengths = made.joined_rows(["a", "bb"], "train", 0)
    assert (inputs[:, 0].tolist(), len(target), lengths) == ([1, 1, 1, 2, 2, 2], 6, [3, 3])
    assert bool(made._joined) is kept
    # Two parts of 96 bytes each are over the limit of one; each is kept where those before it leave room.
    made.joined_rows(["a", "bb"], "validation", 0)
    assert len(made._joined) == {(1, 2**30): 2, (0.5, 2**30): 1, (1, 95): 0, (1, 96): 1}[fraction, limit]
