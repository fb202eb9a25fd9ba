"""The section `training.augmentation`: how images and volumes are changed while they are trained on.

`training.augmentation` (the module) has the maths of each kind, under the same name. Strengths are relative to each
image's own spread, so that they mean the same whatever the images are scaled to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from v6_algorithm.experiment.base import Section, refuse, short_form

Axis = Literal["depth", "height", "width"]


class Flip(Section):
    """Each of the axes is mirrored with a probability of its own."""

    kind: Literal["flip"]
    axes: list[Axis] = Field(["height", "width"], min_length=1, description="depth: of volumes only")
    probability: float = Field(0.5, ge=0, le=1, description="of each axis")


class Rotation(Section):
    """Turned by up to so many degrees; a volume around an axis at random."""

    kind: Literal["rotation"]
    degrees: float = Field(30, ge=0, le=180)


class Zoom(Section):
    """A piece of at least this share of each side, at random, enlarged to the image's size."""

    kind: Literal["zoom"]
    share: float = Field(0.8, gt=0, le=1)


class Crop(Section):
    """A piece of this size: at random in training, the middle wherever the model is measured."""

    kind: Literal["crop"]
    size: Annotated[int, Field(ge=1)] | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=3)]


class Color(Section):
    """Brightness is added, contrast and saturation are factors from 1 - x to 1 + x."""

    kind: Literal["color"]
    brightness: float = Field(0.2, ge=0, description="in standard deviations of the image")
    contrast: float = Field(0.2, ge=0, le=1)
    saturation: float = Field(0.2, ge=0, le=1, description="of images of three channels; others have none")


class Noise(Section):
    """Gaussian noise on every number."""

    kind: Literal["noise"]
    sd: float = Field(0.1, ge=0, description="in standard deviations of the image")


class Elastic(Section):
    """Pixels move by a smooth field; needs the extra `imaging`."""

    kind: Literal["elastic"]
    displacement: float = Field(4.0, ge=0, description="about the most that a pixel moves along an axis, in pixels")
    smoothness: float = Field(8.0, ge=0.5, description="of the field: the width of its Gaussian filter, in pixels")


class BiasField(Section):
    """Brightness that changes smoothly over the image, as an MR coil's does; needs the extra `imaging`."""

    kind: Literal["bias_field"]
    coefficient: float = Field(0.3, ge=0, le=2, description="the most of each coefficient of the field's logarithm")
    degree: int = Field(3, ge=1, le=5, description="of the polynomial that the field's logarithm is")


class MixUp(Section):
    """Each image is mixed with another one of its batch, and its loss from the losses of both targets."""

    kind: Literal["mixup"]
    alpha: float = Field(0.2, gt=0, description="of the Beta distribution that the shares are drawn from")


Kind = Annotated[
    Flip | Rotation | Zoom | Crop | Color | Noise | Elastic | BiasField | MixUp,
    Field(discriminator="kind"),
]
AUGMENTATIONS = ("flip", "rotation", "zoom", "crop", "color", "noise", "elastic", "bias_field", "mixup")


def _in_order(kinds: Sequence[Any]) -> Sequence[Any]:
    names = [kind.kind for kind in kinds]
    for once in ("crop", "mixup"):
        if names.count(once) > 1:
            raise refuse(f"{once} may be there once")
    if "mixup" in names[:-1]:
        raise refuse("mixup comes last: what follows it would change two images as if they were one")
    return kinds


Augmentation = Annotated[list[Annotated[Kind, short_form("kind")]], AfterValidator(_in_order)]
