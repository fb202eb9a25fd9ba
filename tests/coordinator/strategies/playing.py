"""Strategies without sites: replies made up in the test, played into a strategy as `master` would."""

from __future__ import annotations

from typing import Any

import torch

from v6_algorithm.coordinator.strategies import create_strategy
from v6_algorithm.coordinator.strategies.reply import Reply
from v6_algorithm.exchange.wire import TensorSpec
from v6_algorithm.experiment import Experiment

SPEC = {
    "model.weight": TensorSpec((2, 3), "float64"),
    "model.bias": TensorSpec((2,), "float64"),
    "model.running_var": TensorSpec((3,), "float64", "buffer"),
    "model.num_batches_tracked": TensorSpec((), "int64", "counter"),
}
SCALAR = {"w": TensorSpec((1,), "float64")}
ROWS = {"amsterdam": 30, "berlin": 20, "cairo": 50}


def make(strategy: Any, spec=SPEC, rows=ROWS, **changes):
    training = {"local_steps": 4, "optimizer": {"kind": "sgd", "lr": 0.1}}
    if strategy_kind(strategy) in ("fedsgd", "dsgd"):
        training["local_steps"] = 1
    content = {"data": {"target": "y"}, "strategy": strategy, "training": training | changes.pop("training", {})}
    return create_strategy(Experiment.parse(content | changes), spec, rows)


def strategy_kind(strategy: Any) -> str:
    return strategy if isinstance(strategy, str) else strategy["kind"]


def state(seed: int, spec=SPEC) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.tensor(seed)
        if item.kind == "counter"
        else torch.rand(item.shape, generator=generator, dtype=torch.float64)
        for name, item in spec.items()
    }


def reply(site: str, model, rows: int, steps: int = 4, loss: float = 0.5, start=None) -> Reply:
    return Reply(site, model, rows, steps, loss, start=start, start_loss=loss + 0.1)


def play(strategy, number: int, replies, sent):
    """Give the next model of one round; the replies of one turn are those of its sites."""
    by_site = {one.site: one for one in replies}
    trainers = [one.site for one in replies if one.rows]
    for turn in strategy.turns(number, trainers):
        strategy.configure(number, turn, sent)
        for site in turn:
            strategy.add(by_site[site])
        sent = strategy.aggregate()
    return sent


def scalar(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor([value], dtype=torch.float64)}
