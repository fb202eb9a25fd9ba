"""Classification of time series, such as the time courses of a brain scan's components."""

from __future__ import annotations

import torch

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, Recurrent
from v6_algorithm.models.sequences import RecurrentNetwork
from v6_algorithm.preparation import Setup
from v6_algorithm.problems.base import Networks
from v6_algorithm.problems.tabular import Classification


class SequenceClassification(Classification):
    """Cross-entropy on the classes of (time, channels) series, through a GRU or LSTM.

    Each channel is filled and scaled as a column of a table is, over all times of all training rows.
    """

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        super().__init__(experiment, setup)
        if not isinstance(experiment.model, Recurrent):
            raise ExperimentError(f"model.kind {experiment.model.kind} is not for sequences, which take gru or lstm")
        self._model = experiment.model
        if setup.sequence_length is not None and setup.sequence_length < experiment.model.window:
            raise ExperimentError(
                f"model.window is {experiment.model.window}, the shortest time series has {setup.sequence_length} times"
            )

    def build_networks(self) -> Networks:
        """Return ``{"model": network}`` in the training dtype."""
        network = RecurrentNetwork(self._model, len(self.setup.features), self.outputs)
        return {"model": network.to(getattr(torch, self.experiment.training.dtype))}
