"""Sections about networks for images and volumes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from v6_algorithm.experiment.base import Section, refuse
from v6_algorithm.experiment.imaging.generators import with_defaults_of_gan

Width = Annotated[int, Field(ge=1)]
Norm = Literal["none", "group", "batch"]


class CNN(Section):
    """Blocks of convolution, norm, ReLU and pooling by 2; the mean over the image goes into fully connected layers."""

    kind: Literal["cnn"]
    widths: list[Width] = Field(default_factory=lambda: [16, 32, 64], min_length=1, description="channels by block")
    norm: Norm = "group"
    dropout: float = Field(0.0, ge=0, lt=1, description="of what goes into the fully connected layers")
    head: list[Width] = Field(default_factory=list, description="widths of hidden fully connected layers")


class MnistCNN(Section):
    """Two convolutions (32, 64), pooling by 2, dropout 0.25, 128, dropout 0.5: torch's MNIST example."""

    kind: Literal["mnist_cnn"]


class VBMNet(Section):
    """Five blocks of convolution, norm, ReLU and pooling by 2, then 512, 256 and 128: dinunet's network for volumes."""

    kind: Literal["vbmnet"]
    scale: int = Field(1, ge=1, le=32, description="factor of the widths 4, 8, 16, 24, 32")
    norm: Norm = "group"


class MonaiNetwork(Section):
    """A ResNet, DenseNet, EfficientNet or SENet of MONAI, in two or three dimensions."""

    kind: Literal["resnet", "densenet", "efficientnet", "senet"]
    variant: str | None = Field(None, description="resnet18, densenet121, efficientnet-b0, seresnet50, …; null: these")
    norm: Norm = "group"
    head: list[Width] = Field(default_factory=list, description="widths of hidden layers before the output")
    dropout: float | None = Field(None, ge=0, lt=1, description="of what goes into them; null: the network's own")

    @model_validator(mode="after")
    def _known(self) -> MonaiNetwork:
        allowed = MONAI_VARIANTS[self.kind]
        if self.variant is None:
            self.variant = allowed[0]
        if self.variant not in allowed:
            raise refuse(f"variant '{self.variant}' is no {self.kind}; allowed: {', '.join(allowed)}")
        return self


MONAI_VARIANTS: dict[str, tuple[str, ...]] = {
    "resnet": ("resnet18", "resnet10", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"),
    "densenet": ("densenet121", "densenet169", "densenet201", "densenet264"),
    # Not efficientnet-l2, of 480 million parameters: a message holds no more than two gigabytes.
    "efficientnet": tuple(f"efficientnet-b{number}" for number in range(9)),
    "senet": ("seresnet50", "seresnet101", "seresnet152", "seresnext50", "seresnext101", "senet154"),
}
# What an image problem takes where the experiment names no model.
_DEFAULT_MODELS: dict[str, Any] = {
    "image_classification": {"kind": "cnn"},
    "volume_classification": {"kind": "cnn"},
    "sequence_classification": {"kind": "gru"},
}


def with_defaults_of_problem(experiment: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment, not validated yet, with the model and the dimensions of images that its problem implies."""
    problem, data = experiment.get("problem"), experiment.get("data")
    kind = problem.get("kind") if isinstance(problem, dict) else problem
    if kind == "gan":
        return with_defaults_of_gan(experiment)
    if experiment.get("model") is None and isinstance(kind, str) and kind in _DEFAULT_MODELS:
        experiment = experiment | {"model": _DEFAULT_MODELS[kind]}
    if kind == "volume_classification" and isinstance(data, dict):
        image = {"column": data["image"]} if isinstance(data.get("image"), str) else data.get("image")
        if isinstance(image, dict):
            return experiment | {"data": {**data, "image": {"dimensions": 3, **image}}}
    return experiment
