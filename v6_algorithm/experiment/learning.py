"""Sections about learning: model, local training, aggregation, stopping and who takes part."""

from __future__ import annotations

import re
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from v6_algorithm.experiment import plugins
from v6_algorithm.experiment.base import Section, refuse, short_form
from v6_algorithm.experiment.by_round import ByRound, in_round
from v6_algorithm.experiment.imaging.augmentation import Augmentation
from v6_algorithm.experiment.imaging.generators import DCGAN, StyleGAN2
from v6_algorithm.experiment.imaging.networks import CNN, MnistCNN, MonaiNetwork, VBMNet
from v6_algorithm.experiment.inference import Cox, Glm
from v6_algorithm.experiment.layers import Freeze
from v6_algorithm.experiment.optimisers import PLATEAU, check_optimiser, check_scheduler, did_you_mean


class LinearModel(Section):
    """One linear layer: `logistic` for classification, `linear` for either."""

    kind: Literal["linear", "logistic"]


class MLP(Section):
    """Fully connected layers of the given widths."""

    kind: Literal["mlp"] = "mlp"
    hidden: list[Annotated[int, Field(ge=1)]] = Field(default_factory=lambda: [64, 32])
    norm: Literal["none", "layer", "group", "batch"] = "layer"
    dropout: float = Field(0.0, ge=0, lt=1)
    activation: Literal["relu", "gelu", "tanh", "elu", "silu"] = "relu"


class Recurrent(Section):
    """A GRU or LSTM over windows of a time series, its mean over time, and a small MLP."""

    kind: Literal["gru", "lstm"]
    hidden: int = Field(64, ge=1, description="width, of each direction")
    layers: int = Field(1, ge=1, le=10)
    bidirectional: bool = True
    window: int = Field(1, ge=1, description="times that are one step of the network")
    stride: int | None = Field(None, ge=1, description="times from one window to the next; null: window")
    encoder: int | None = Field(None, ge=1, description="width of a layer that each window goes through first")
    head: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    norm: Literal["none", "layer", "group", "batch"] = Field("layer", description="behind the head's first layer")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the mean over time")


class OwnModel(Section):
    """A network of one's own: installed under the entry points `v6_algorithm.models`, or given in Python."""

    kind: Literal["module"]
    name: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of what makes the network")

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (known := plugins.names(plugins.MODELS)):
            allowed = ", ".join(known) or "none is installed, see docs/extend.md"
            raise refuse(f"unknown network{did_you_mean(value, known)}; allowed: {allowed}")
        return value


OfImages = CNN | MnistCNN | VBMNet | MonaiNetwork | DCGAN | StyleGAN2
Model = Annotated[LinearModel | MLP | Recurrent | OwnModel | Glm | Cox | OfImages, Field(discriminator="kind")]


class Options(Section):
    """A torch class by name with its keyword arguments."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    kind: str

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of the class."""
        return dict(self.model_extra or {})


class Optimizer(Options):
    """Any torch optimiser; `lr` and the rest are torch's own argument names."""

    kind: str = "adam"

    @model_validator(mode="after")
    def _try(self, info: ValidationInfo) -> Optimizer:
        return _tried(self, check_optimiser, info)


class Scheduler(Options):
    """Any torch learning-rate scheduler; it steps once a round.

    ReduceLROnPlateau looks at a validation metric of the federation; `plateau.complete_plateau` fills in which.
    """

    monitor: str | None = Field(None, description="of reducelronplateau; null: stopping.monitor")

    @property
    def on_plateau(self) -> bool:
        """Whether the learning rate follows from validation."""
        return self.kind.lower() == PLATEAU

    @model_validator(mode="after")
    def _monitors(self) -> Scheduler:
        if self.monitor is not None and not self.on_plateau:
            raise refuse(f"monitor is of kind {PLATEAU}; {self.kind} looks at no metric")
        return self

    @model_validator(mode="after")
    def _try(self, info: ValidationInfo) -> Scheduler:
        return _tried(self, check_scheduler, info)


def _tried(options: Any, check: Any, info: ValidationInfo) -> Any:
    if info.context and info.context.get("checked"):
        return options
    for name, value in options.options().items():
        if isinstance(value, float) and not isfinite(value):
            raise refuse(f"{name} must be a finite number, not {value}")
    try:
        check(options.kind, options.options())
    except ValueError as error:
        raise refuse(str(error)) from None
    return options


def _form_of_weights(value: Any) -> str:
    return "weights" if isinstance(value, (list, tuple)) else "word"


ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("word")] | Annotated[list[Annotated[float, Field(gt=0)]], Tag("weights")],
    Discriminator(_form_of_weights),
]


class Loss(Section):
    """The loss by name; `class_weights: balanced` counters rare classes with the federation's class counts."""

    kind: Literal["cross_entropy", "focal", "mse", "mae", "huber", "poisson"]
    class_weights: ClassWeights | None = None
    gamma: float = Field(2.0, ge=0, le=10, description="for focal: how much less a row counts that is told well")
    delta: float = Field(
        1.0, gt=0, description="for huber: where it turns linear, in units of the target, scaled or not"
    )


def _default_optimizer() -> Optimizer:
    # A factory, for building one takes torch, which importing this module must not.
    return Optimizer.model_validate({"kind": "adam", "lr": 0.001})


class Training(Section):
    """The work of one site in one round: `local_epochs`, or `local_steps` if that is given."""

    local_epochs: ByRound | None = Field(None, description="a number, or by round: {1: 1, 5: 2} is 2 from round 5 on")
    local_steps: ByRound | None = Field(None, description="likewise")
    batch_size: int | None = Field(32, ge=1, description="null: all training rows in one batch")
    evaluation_batch_size: int = Field(8192, ge=1, description="bounds the memory; changes no metric")
    accumulate: int = Field(
        1, ge=1, description="batches of one optimiser step, which follows the mean over their rows"
    )
    optimizer: Annotated[Optimizer, short_form("kind")] = Field(default_factory=_default_optimizer)
    scheduler: Annotated[Scheduler, short_form("kind")] | None = None
    loss: Annotated[Loss, short_form("kind")] | None = Field(None, description="null: the problem's own")
    freeze: Freeze | None = Field(None, description="layers that are not trained, as in strategy.private; null: none")
    augmentation: Augmentation = Field(default_factory=list, description="of images, while they are trained on")
    dtype: Literal["float32", "float64"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA at the sites that have it")
    precision: Literal["full", "mixed"] = Field("full", description="mixed: train in bfloat16 where a device has it")
    deterministic: bool = Field(False, description="torch's deterministic algorithms only; slower on a GPU")

    @model_validator(mode="after")
    def _one_of(self) -> Training:
        if self.local_epochs and self.local_steps:
            raise refuse("give local_epochs or local_steps, not both")
        if not self.local_epochs and not self.local_steps:
            self.local_epochs = 1
        if self.accumulate > 1 and self.batch_size is None:
            raise refuse("accumulate adds up batches; with batch_size null all rows are in one batch already")
        if self.precision == "mixed" and self.dtype == "float64":
            raise refuse("precision mixed is for dtype float32")
        return self

    def epochs_in(self, number: int) -> int | None:
        """Return the passes over the rows in a round; None where steps are counted."""
        return in_round(self.local_epochs, number)

    def steps_in(self, number: int) -> int | None:
        """Return the optimiser steps of a round; None where passes are counted."""
        return in_round(self.local_steps, number)


_IMAGE = "image:"
_SITE = "site:"


class Start(Section):
    """What the first round starts from, other than the seed: weights, and a first training at the largest site."""

    weights: str | None = Field(
        None,
        description="a safetensors file, or an earlier run's folder, relative to the experiment file; image:NAME is a "
        "file that is in the image at every site, site:NAME one in every site's folder",
    )
    partial: bool = Field(False, description="take over the tensors that fit, and leave the others to the seed")
    pretrain_epochs: int | None = Field(None, ge=1, description="first, of the site with the most training rows alone")

    @property
    def image(self) -> str | None:
        """The name of the file in the image, where the weights are there."""
        return self.weights.removeprefix(_IMAGE) if self.weights and self.weights.startswith(_IMAGE) else None

    @property
    def site(self) -> str | None:
        """The name of the file in every site's own folder, where the weights are there."""
        return self.weights.removeprefix(_SITE) if self.weights and self.weights.startswith(_SITE) else None

    @property
    def at_sites(self) -> bool:
        """Whether every site reads the weights by itself."""
        return self.image is not None or self.site is not None

    @model_validator(mode="after")
    def _together(self) -> Start:
        if self.partial and self.weights is None:
            raise refuse("partial is about weights; name their file")
        for prefix, name in ((_IMAGE, self.image), (_SITE, self.site)):
            if name is not None and not re.fullmatch(r"\w[\w.-]*\.safetensors", name):
                raise refuse(f"weights: {prefix} needs the name of a .safetensors file, without folders")
        return self

    def for_sites(self) -> dict[str, Any]:
        """Return what a site needs to know: nothing of the researcher's files."""
        return self.model_dump(mode="json") if self.at_sites else {}


class Stopping(Section):
    """Stop when the monitored validation metric has not improved by `min_delta` for `patience` rounds."""

    monitor: str = "loss"
    patience: int | None = Field(5, ge=1, description="null: never stop early")
    min_delta: float = Field(0.0001, ge=0)


class Participation(Section):
    """Who takes part, and how long the others wait."""

    fraction: float = Field(1.0, gt=0, le=1, description="share of the sites that train in a round")
    minimum: int = Field(2, ge=1, description="sites that must answer; fewer end the run")
    deadline_s: float = Field(3600, gt=0, description="seconds a round may take")
    late: Literal["drop", "stale"] = Field(
        "drop", description="what is made of an answer that comes in a later round: nothing, or less the older it is"
    )
    poll_s: float = Field(0.5, gt=0, description="seconds between two looks for answers, on vantage6")
    unfit: Literal["stop", "leave_out"] = Field(
        "stop", description="whether a site whose data do not fit ends the run before it trains, or is left out, named"
    )
    quarantine: int | None = Field(
        3, ge=1, description="failures in a row after which a site is left out for 1, 2, 4, … rounds; null: never"
    )
    join: bool = Field(True, description="whether a site that was away at the preparation joins when it is back")
    maximum_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="of all sites' training rows: a site that claims more counts as having this share",
    )


class Personal(Section):
    """Models of each site's own, trained on from the shared one when training is over; they never leave the site."""

    kind: Literal["fine_tune", "ditto"] = "fine_tune"
    epochs: int = Field(1, ge=1, description="passes over the site's training rows, with training.optimizer")
    mu: float | None = Field(None, gt=0, description="for ditto, 0.1: strength of the pull towards the shared model")

    @model_validator(mode="after")
    def _pull(self) -> Personal:
        if self.kind != "ditto" and self.mu is not None:
            raise refuse("mu is for kind ditto; fine_tune trains on freely")
        if self.kind == "ditto" and self.mu is None:
            self.mu = 0.1
        return self


class Output(Section):
    """Which model is returned and tested, and what is written.

    The model is that of the best validation round, of the last, or an average over the rounds (`swa`, `ema`), which is
    made beside the training and measured at its end.
    """

    model: Literal["best", "last", "swa", "ema"] = "best"
    average_from: int | None = Field(None, ge=1, description="for swa: first round that counts; null: the second half")
    decay: float = Field(0.9, ge=0, lt=1, description="for ema: how slowly old models fade, by round")
    dinunet: bool = Field(False, description="write the results in coinstac-dinunet's layout as well, and zip them")
    profile: bool = Field(False, description="leave pyinstrument's report of a run on this machine")

    @property
    def averages(self) -> bool:
        """Whether an average over the rounds is kept."""
        return self.model in ("swa", "ema")
