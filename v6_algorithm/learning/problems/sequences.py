"""Classification of time series, such as the time courses of a brain scan's components."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, OwnModel, Recurrent
from v6_algorithm.learning.models.sequences import RecurrentNetwork
from v6_algorithm.learning.problems.base import Networks
from v6_algorithm.learning.problems.tabular import Classification


class SequenceClassification(Classification):
    """Cross-entropy on the classes of (time, channels) series, through a GRU or LSTM.

    Each channel is filled and scaled as a column of a table is, over all times of all training rows. With `length`
    longest the network reads each row to its own end and averages over that.
    """

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        super().__init__(experiment, setup)
        if not isinstance(experiment.model, (Recurrent, OwnModel)):
            raise ExperimentError(f"model.kind {experiment.model.kind} is not for sequences, which take gru or lstm")
        self._model = experiment.model
        shortest, window = setup.sequence_shortest, getattr(experiment.model, "window", 1)
        if shortest is not None and shortest < window:
            raise ExperimentError(f"model.window is {window}, the shortest time series has {shortest} times")

    def build_networks(self) -> Networks:
        """Return ``{"model": network}`` in the training dtype."""
        sequence = self.experiment.data.sequence
        padded = sequence is not None and sequence.length == "longest"
        if isinstance(self._model, OwnModel):
            network: nn.Module = self.build([self.setup.sequence_length or 1, len(self.setup.features)])
            return {"model": network.to(getattr(torch, self.experiment.training.dtype))}
        network = RecurrentNetwork(self._model, len(self.setup.features), self.outputs, padded=padded)
        return {"model": network.to(getattr(torch, self.experiment.training.dtype))}

    def head(self, networks: Mapping[str, nn.Module]) -> nn.Module | None:
        """Return the layers behind the mean over time."""
        network = networks.get("model")
        return network.head if isinstance(network, RecurrentNetwork) else super().head(networks)
