"""Synthetic images: a conditional generator, its discriminator, and the average that images are made with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import DataError, ExperimentError, SiteError
from v6_algorithm.experiment import Experiment, GanOptions
from v6_algorithm.experiment.imaging.generators import GENERATION_METRICS, check_shape
from v6_algorithm.learning.models.generators import build_pair, widest
from v6_algorithm.learning.problems.base import Networks, Problem

if TYPE_CHECKING:
    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.training.learner import Learner, TrainingContext

# Pixels that are looked at in one go.
_BLOCK = 2**22


class Gan(Problem):
    """A generator and a discriminator, trained against each other on the images of all sites.

    Images are 0 to 1 outside, and -1 to 1 for the networks. ``ema``, the average over the generator's steps, is what
    images are made with; it is not trained, so sites' are averaged and no server's optimiser touches it.
    """

    Options = GanOptions
    classification = True
    generative = True
    metrics = GENERATION_METRICS

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        super().__init__(experiment, setup)
        if setup.image_shape is None:
            raise ExperimentError("problem gan needs data.image")
        try:
            check_shape(setup.image_shape)
        except PydanticCustomError as error:
            raise ExperimentError(error.message()) from None
        self._shape = setup.image_shape
        self.options: GanOptions = experiment.problem.options()
        self.expansion = widest(experiment.model, self._shape[1])

    @property
    def classes(self) -> int:
        """Number of classes that the networks are told; 0 where they are told none."""
        return len(self.setup.classes or []) if self.options.conditional else 0

    def build_networks(self) -> Networks:
        """Return ``generator``, ``discriminator`` and ``ema`` in the training dtype."""
        model = self.experiment.model
        generator, discriminator = build_pair(
            model,  # type: ignore[arg-type]
            self._shape,
            self.classes,
            self.options.latent,
            classifies=self.options.classify > 0,
        )
        ema = copy.deepcopy(generator).requires_grad_(False)
        networks = {"generator": generator, "discriminator": discriminator, "ema": ema}
        return {name: network.to(getattr(torch, self.experiment.training.dtype)) for name, network in networks.items()}

    def learner(self, networks: Networks, context: TrainingContext) -> Learner:
        """Return what trains the networks against each other."""
        from v6_algorithm.learning.training.generative.adversarial import Adversaries

        return Adversaries(networks, self.options, self.experiment.training, self.classes, context)

    @torch.no_grad()
    def generate(self, networks: Mapping[str, nn.Module], labels: Tensor, generator: torch.Generator) -> Tensor:
        """Make (rows, channels, height, width) float32 images from 0 to 1, of class numbers, (rows,) int64.

        Latents and noise come from `generator`, a CPU one: the same on every device but for rounding.
        """
        from v6_algorithm.learning.training.generative.adversarial import one_hot

        ema = networks["ema"].eval()
        weight = next(ema.parameters())
        latents = torch.randn(len(labels), self.options.latent, generator=generator)
        classes = one_hot(labels.to(weight.device), self.classes, weight.dtype)
        images: Tensor = ema(latents.to(weight), classes, generator)
        return ((images.float() + 1) / 2).clamp(0, 1)

    def class_counts(self, data: TableData) -> list[list[int]]:
        """Count training rows by class for each fold: by their shares images are made, where nobody says which."""
        classes = len(self.setup.classes or [])
        return [np.bincount(data.target[fold.train], minlength=classes).tolist() for fold in data.folds]

    def row_loss(self, output: Tensor, target: Tensor, fold: int) -> Tensor:
        """Raise SiteError: no row has a loss by itself."""
        raise SiteError("problem gan predicts nothing, so no row has a loss", "request")

    def prediction(self, output: Tensor) -> Tensor:
        """Raise SiteError: nothing is predicted."""
        raise SiteError("problem gan predicts nothing", "request")

    def check_rows(self, data: TableData) -> None:
        """Raise DataError where pixels are not from 0 to 1."""
        if data.images is None:
            return
        for _, images in data.images.blocks(_BLOCK):
            if images.size and not (images.min() >= 0 and images.max() <= 1):
                raise DataError(
                    "data.image: problem gan needs pixels from 0 to 1, and there are others here; PNG and JPEG files "
                    "have them, and for other files and columns data.image.range says what becomes 0 to 1"
                )
