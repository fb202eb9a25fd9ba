"""Sections about synthetic images: the options of problem `gan`, its networks, and what does not go with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from v6_algorithm.experiment.base import Section, refuse

if TYPE_CHECKING:
    from v6_algorithm.experiment.base import AllSections

GENERATION_METRICS = ("fid", "kid")
# Heights, and widths, of images that can be made: 4 pixels, doubled some times.
SIZES = (16, 32, 64, 128, 256, 512)
Change = Literal["flip", "rotate90", "translate", "scale", "color", "cutout"]


class AdaptiveAugmentation(Section):
    """How images are changed before the discriminator sees them, so that few of them are not learned by heart.

    Real and synthetic images are changed alike, each kind with probability p, and what the generator makes stays
    unchanged as long as p is below 0.8. p rises while the mean sign of the discriminator's output on real images is
    above `target`, and falls while it is below.
    """

    kinds: list[Change] = Field(["flip", "rotate90", "translate", "scale", "color"], min_length=1)
    target: float | None = Field(0.6, gt=-1, lt=1, description="null: p stays as it is")
    length: int = Field(50_000, ge=1, description="images in which p can go from 0 to 1; the paper's is 500,000")
    probability: float = Field(0.0, ge=0, le=0.8, description="p in the first round")

    @field_validator("kinds")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise refuse("a kind is named twice")
        return value


class GanOptions(Section):
    """How generator and discriminator are trained against each other, with the names of StyleGAN2-ADA."""

    conditional: bool = Field(True, description="false: the generator is not told the class in data.target")
    latent: int = Field(128, ge=1, le=4096, description="numbers that an image is made of")
    classify: float = Field(
        1.0,
        ge=0,
        description="weight of telling the classes apart, of real and of synthetic images; 0: not at all",
    )
    r1: float = Field(1.0, ge=0, description="gamma: weight of the penalty on the discriminator's slope at real images")
    r1_every: int = Field(4, ge=1, description="batches from one penalty to the next, which counts as many times")
    ema_images: float = Field(
        10_000, gt=0, description="half-life, in images, of the average over the generator's steps, which makes images"
    )
    ema_rampup: float | None = Field(
        0.05, gt=0, description="the half-life is at most this share of the images seen so far; null: no such limit"
    )
    discriminator_lr: float = Field(1.0, gt=0, description="factor of training.optimizer's lr")
    augment: AdaptiveAugmentation | None = Field(
        default_factory=AdaptiveAugmentation, description="of what the discriminator sees; null: nothing"
    )


class DCGAN(Section):
    """Strided convolutions both ways; for CPUs, with `width` 16 to 32, and small images."""

    kind: Literal["dcgan"]
    width: int = Field(64, ge=1, le=1024, description="channels at full size; twice as many at half of it, to 8 times")


class StyleGAN2(Section):
    """Mapping network, modulated convolutions and noise; a residual discriminator. For GPUs."""

    kind: Literal["stylegan2"]
    channel_base: int = Field(16_384, ge=16, description="channels times size, at every size")
    channel_max: int = Field(512, ge=1, le=2048)
    mapping_layers: int = Field(8, ge=1, le=16)
    style: int = Field(512, ge=1, le=4096, description="numbers of the style, w, that the mapping makes of a latent")
    mixing: float = Field(0.9, ge=0, le=1, description="share of images made of two styles, while it trains")


# Adam's learning rates: StyleGAN2's for its layers of equal scale, and what synthetic lesions were learned with.
_DEFAULT_LR = {"dcgan": 0.001, "stylegan2": 0.002}
# What a strategy may do to a model's training, beyond training it and combining what comes back.
_STRATEGIES = ("fedavg", "fedavgm", "fedopt", "fedadam", "fedyogi", "fedadagrad", "cyclic")
# Others take pixels beyond 0 to 1, or make one image of two.
_AUGMENTATIONS = ("flip", "rotation", "zoom")


def with_defaults_of_gan(experiment: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment, not validated yet, of problem gan with the defaults that suit it and not other problems."""
    model = experiment.get("model") or {"kind": "dcgan"}
    kind = model.get("kind") if isinstance(model, dict) else model
    optimizer = {"kind": "adam", "lr": _DEFAULT_LR.get(str(kind), 0.002), "betas": [0.0, 0.99]}
    defaults: dict[str, dict[str, Any]] = {
        "data": {"scaling": "none"},
        "training": {"optimizer": optimizer},
        "stopping": {"monitor": "fid", "patience": None},
    }
    filled = {
        name: {**kind_defaults, **(experiment.get(name) or {})}
        for name, kind_defaults in defaults.items()
        if isinstance(experiment.get(name) or {}, dict)
    }
    return experiment | filled | {"model": model}


def check_gan(experiment: AllSections) -> None:
    """Refuse what does not go with problem gan."""
    data, training, image = experiment.data, experiment.training, experiment.data.image
    if data.scaling.kind != "none" or (image is not None and image.mean is not None):
        raise refuse(
            "problem gan takes pixels from 0 to 1 as they are: data.scaling must be none, without data.image.mean and "
            "sd; data.image.range brings other values to 0 to 1"
        )
    if image is not None and (given := image.shape or ([image.channels or 3, *image.size] if image.size else None)):
        check_shape(given)
    if experiment.strategy.kind not in _STRATEGIES:
        raise refuse(
            f"strategy {experiment.strategy.kind} does not go with problem gan: two networks that train against each "
            f"other have no loss of their own that it could pull at or weigh; allowed: {', '.join(_STRATEGIES)}"
        )
    if experiment.personal is not None:
        raise refuse("personal does not go with problem gan: a site's own generator would learn its patients by heart")
    if experiment.evaluation.subgroups:
        raise refuse("evaluation.subgroups does not go with problem gan: fid needs more images than a group has")
    for change in training.augmentation:
        if change.kind not in _AUGMENTATIONS:
            raise refuse(
                f"training.augmentation {change.kind} does not go with problem gan, whose images would be made so; "
                f"allowed: {', '.join(_AUGMENTATIONS)}, and problem.augment, which leaves no trace"
            )
    if training.accumulate > 1:
        raise refuse("training.accumulate does not go with problem gan: two networks step in turn, at every batch")


def check_shape(shape: Sequence[int]) -> None:
    """Refuse images, (channels, height, width), of a size that cannot be made."""
    channels, *lengths = shape
    if channels not in (1, 3) or lengths[0] not in SIZES or len(set(lengths)) > 1 or len(lengths) != 2:
        raise refuse(
            f"data.image: problem gan makes square images of {', '.join(map(str, SIZES))} pixels and 1 or 3 channels; "
            f"these have {' x '.join(map(str, lengths))} and {channels}; see size and channels"
        )
