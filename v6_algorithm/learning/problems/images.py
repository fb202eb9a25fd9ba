"""Classification of images and volumes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, LinearModel, OwnModel
from v6_algorithm.experiment.imaging.augmentation import Crop
from v6_algorithm.learning.models.images import build_image_model, widest
from v6_algorithm.learning.problems.base import Networks
from v6_algorithm.learning.problems.tabular import Classification


class ImageClassification(Classification):
    """Cross-entropy, or focal loss, on the classes of (channels, height, width) images or of volumes.

    Each channel is scaled as a column of a table is, over all pixels of all training rows.
    """

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        super().__init__(experiment, setup)
        if setup.image_shape is None:
            raise ExperimentError(f"problem {experiment.problem.kind} needs data.image")
        self._shape = [setup.image_shape[0], *_lengths(experiment, setup.image_shape[1:])]
        self.expansion = widest(experiment.model)

    def build_networks(self) -> Networks:
        """Return ``{"model": network}`` in the training dtype."""
        return {"model": self.build(self._shape).to(getattr(torch, self.experiment.training.dtype))}

    def build(self, shape: list[int]) -> nn.Module:
        """Return the experiment's network for images of a shape (channels, lengths …)."""
        if isinstance(self.experiment.model, OwnModel):
            return super().build(shape)
        return build_image_model(self.experiment.model, shape, self.outputs)

    def head(self, networks: Mapping[str, nn.Module]) -> nn.Module | None:
        """Return the last fully connected layer; the only one, on all pixels, has no features."""
        layers = [layer for layer in networks["model"].modules() if isinstance(layer, nn.Linear)]
        return None if isinstance(self.experiment.model, LinearModel) or not layers else layers[-1]


def _lengths(experiment: Experiment, lengths: list[int]) -> list[int]:
    """Return the lengths of the images that the network gets: those of a crop, where there is one."""
    for kind in experiment.training.augmentation:
        if isinstance(kind, Crop):
            return [kind.size] * len(lengths) if isinstance(kind.size, int) else list(kind.size)
    return lengths
