"""Strategies that weigh sites by their losses, in three rounds against the papers' formulas in plain numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from playing import SCALAR, make, play, scalar

from v6_algorithm.coordinator.result.notes import _weights_of_sites
from v6_algorithm.coordinator.strategies.reply import Reply

ROWS = {"a": 10, "b": 30, "c": 25}
# By round: each site's model, and its loss before training.
MODELS = [(2.0, 5.0, -1.0), (0.5, 3.0, 2.5), (1.0, -2.0, 4.0)]
LOSSES = [(0.6, 0.9, 0.25), (0.5, 1.7, 0.3), (0.0, 0.4, 2.0)]


def told(site, model, loss, rows=10):
    return Reply(site, scalar(model), rows, 4, 0.5, start_loss=loss)


def played(strategy, models=MODELS, losses=LOSSES, sent=1.0):
    found = []
    for number, (numbers, before) in enumerate(zip(models, losses, strict=True), start=1):
        replies = [told(*one) for one in zip(ROWS, numbers, before, strict=True)]
        sent = float(play(strategy, number, replies, scalar(sent))["w"])
        found.append(sent)
    return found


@pytest.mark.parametrize(("lipschitz", "large"), [(4.0, 4.0), (None, 1 / 0.1)], ids=["given", "one over the rate"])
def test_three_rounds_of_qfedavg_are_the_papers(lipschitz, large):
    q, x, wanted = 2.5, 1.0, []
    for models, losses in zip(MODELS, LOSSES, strict=True):
        # A loss of 0 counts as 1e-10.
        loss, delta = np.maximum(losses, 1e-10), large * (x - np.array(models))
        x -= (loss**q @ delta) / (q * loss ** (q - 1) @ delta**2 + large * (loss**q).sum())
        wanted.append(x)
    section = {"kind": "qfedavg", "q": q} | ({"lipschitz": lipschitz} if lipschitz else {})
    assert played(make(section, SCALAR, ROWS)) == pytest.approx(wanted, rel=1e-12)


def nearest_on_simplex(point):
    """Find the shift under which what is left above 0 adds up to 1, by halving."""
    low, high = point.min() - 1, point.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - low, 0)


def test_three_rounds_of_agnostic_learning_are_the_papers():
    weights, unit, wanted = np.full(3, 1 / 3), np.mean(LOSSES[0]), []
    for models, losses in zip(MODELS, LOSSES, strict=True):
        wanted.append(weights @ models)
        weights = nearest_on_simplex(weights + 0.05 * np.array(losses) / unit)
    strategy = make({"kind": "agnostic", "lr": 0.05}, SCALAR, ROWS)
    assert played(strategy) == pytest.approx(wanted, rel=1e-12)
    assert strategy.kept["weights"]["weights"].tolist() == pytest.approx(weights.tolist())


def test_the_unit_of_agnostic_learning_is_the_loss_of_a_single_site():
    strategy = make({"kind": "agnostic", "lr": 0.1}, SCALAR, {"a": 10, "b": 30})
    play(strategy, 1, [told("a", 2.0, 0.7)], scalar(1))
    assert float(strategy.kept["weights"]["unit"]) == 0.7
    # From a half each, one site's grew by 0.1 of it: half of that after projection.
    assert strategy.kept["weights"]["weights"].tolist() == pytest.approx([0.55, 0.45])


def test_losses_of_zero_leave_the_weights_as_they_are():
    strategy = make({"kind": "agnostic", "lr": 0.1}, SCALAR, {"a": 10, "b": 30})
    play(strategy, 1, [told("a", 2.0, 0.0), told("b", 2.0, 0.0)], scalar(1))
    assert float(strategy.kept["weights"]["unit"]) == 1e-10
    assert strategy.kept["weights"]["weights"].tolist() == [0.5, 0.5]
    play(strategy, 2, [told("a", 2.0, 0.0), told("b", 2.0, 1e-10)], scalar(1))
    assert strategy.kept["weights"]["weights"].tolist() == pytest.approx([0.45, 0.55])


def test_who_joins_agnostic_learning_gets_an_equal_share_of_which_others_give_in_proportion():
    strategy = make({"kind": "agnostic", "lr": 0.1}, SCALAR, {"a": 10, "b": 30})
    strategy.kept["weights"] = {"weights": torch.tensor([0.2, 0.8], dtype=torch.float64)}
    strategy.admit({"a": 10, "c": 5, "b": 30, "d": 5})
    assert strategy._weights.tolist() == pytest.approx([0.1, 0.25, 0.4, 0.25])
    unasked = make({"kind": "agnostic", "lr": 0.1}, SCALAR, {"a": 10, "b": 30})
    unasked.admit({"a": 10, "b": 30, "c": 1})
    assert unasked._weights.tolist() == pytest.approx([1 / 3] * 3)


def test_the_result_says_what_each_site_weighed_in_the_end():
    strategy = make({"kind": "agnostic", "lr": 0.1}, SCALAR, {"a": 10, "b": 30})
    strategy.kept["weights"] = {"weights": torch.tensor([0.03, 0.97], dtype=torch.float64)}
    (note,) = _weights_of_sites([SimpleNamespace(strategies={0: strategy})])
    assert note.endswith("may come to carry all weight, so that the model is of its rows; at the end: b 0.97, a 0.03")
    assert _weights_of_sites([SimpleNamespace(strategies={0: make({"kind": "fedavg"}, SCALAR, {"a": 10})})]) == []
