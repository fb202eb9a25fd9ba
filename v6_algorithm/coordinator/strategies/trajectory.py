"""The average of a run's models over its rounds, which may be better than any of them: SWA and EMA.

Training goes on from the last model as if there were no average; `output.model` says which of them is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import State, cast
from v6_algorithm.exchange.wire import StateSpec
from v6_algorithm.experiment import Experiment


class RoundAverage:
    """The mean of the models of the rounds from `output.average_from` on (SWA), or their moving average (EMA).

    EMA: e ← βe + (1 − β)x with β = `output.decay`, begun at the first model; so old models fade within about
    1 / (1 − β) rounds. Float buffers are averaged as parameters are, of counters the last is kept. BatchNorm's
    statistics belong to one model each, so their average fits the averaged model only roughly: take layer norm.

    Parameters
    ----------
    experiment
        The experiment.
    spec
        Kind, shape and dtype of every tensor.

    References
    ----------
    Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.
    """

    def __init__(self, experiment: Experiment, spec: StateSpec) -> None:
        output = experiment.output
        self._decay = output.decay if output.model == "ema" else None
        # SWA's paper begins where the model is good already; the second half is its usual choice.
        self._first = 1 if self._decay is not None else (output.average_from or experiment.rounds // 2 + 1)
        self._spec = spec
        self._mean: State = {}
        self._count = 0

    def add(self, state: Mapping[str, Tensor], number: int) -> State | None:
        """Take in the model of a round; return the average, or None before the first round that counts."""
        if number < self._first:
            return None
        self._count += 1
        # Of one model the average is that model, and of the n-th the mean moves by 1/n towards it.
        share = 1 / self._count if self._decay is None or self._count == 1 else 1 - self._decay
        for name, tensor in state.items():
            last = self._spec[name].kind in ("counter", "frozen")
            if last or name not in self._mean:
                self._mean[name] = tensor.clone() if last else tensor.double()
            else:
                self._mean[name] = torch.lerp(self._mean[name], tensor.double(), share)
        return cast(self._mean, self._spec)

    def state_dict(self) -> State:
        """Return the average and the number of models in it."""
        return {**self._mean, "count": torch.tensor(self._count)} if self._count else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        self._count = int(state["count"]) if state else 0
        self._mean = {name: tensor.clone() for name, tensor in state.items() if name != "count"}
