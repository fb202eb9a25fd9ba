"""Sections about learning: problem, model, local training, aggregation, stopping and who takes part."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal, Union

from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from v6_algorithm.experiment.base import Section, refuse, short_form
from v6_algorithm.lookup import check_optimiser, check_scheduler, did_you_mean

CLASSIFICATION_METRICS = (
    "loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc", "auprc", "brier",
    "ece",
)  # fmt: skip
REGRESSION_METRICS = ("loss", "mse", "mae", "r2", "huber")
# What the built-in problems measure; a plug-in's problem may monitor any name.
PROBLEM_METRICS = {"classification": CLASSIFICATION_METRICS, "regression": REGRESSION_METRICS}


class Problem(Section):
    """What is learned: the name of a built-in problem or of a plug-in."""

    model_config = ConfigDict(extra="allow", validate_default=True)
    kind: str

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in PROBLEM_METRICS:
            return value
        # Plug-ins are looked up only for names that are not ours: it means reading every installed package.
        from importlib.metadata import entry_points

        known = [*PROBLEM_METRICS, *(entry.name for entry in entry_points(group="v6_algorithm.problems"))]
        if value not in known:
            raise refuse(f"unknown problem{did_you_mean(value, known)}; allowed: {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _options(self) -> Problem:
        if self.kind in PROBLEM_METRICS and self.model_extra:
            raise refuse(f"unknown key '{min(self.model_extra)}'; problem {self.kind} takes only kind")
        return self


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


Model = Annotated[Union[LinearModel, MLP], Field(discriminator="kind")]  # noqa: UP007 (3.10 cannot subscript X | Y here)


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
    """Any torch learning-rate scheduler; it steps once a round."""

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

    kind: Literal["cross_entropy", "mse", "mae", "huber"]
    class_weights: ClassWeights | None = None
    delta: float = Field(1.0, gt=0, description="for huber: where it turns linear, in units of the target")


def _default_optimizer() -> Optimizer:
    # A factory, for building one takes torch, which importing this module must not.
    return Optimizer.model_validate({"kind": "adam", "lr": 0.001})


class Training(Section):
    """The work of one site in one round: `local_epochs`, or `local_steps` if that is given."""

    local_epochs: int | None = Field(None, ge=1)
    local_steps: int | None = Field(None, ge=1)
    batch_size: int | None = Field(32, ge=1, description="null: all training rows in one batch")
    optimizer: Annotated[Optimizer, short_form("kind")] = Field(default_factory=_default_optimizer)
    scheduler: Annotated[Scheduler, short_form("kind")] | None = None
    loss: Annotated[Loss, short_form("kind")] | None = Field(None, description="null: the problem's own")
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _one_of(self) -> Training:
        if self.local_epochs and self.local_steps:
            raise refuse("give local_epochs or local_steps, not both")
        if not self.local_epochs and not self.local_steps:
            self.local_epochs = 1
        return self


class Strategy(Section):
    """How the sites' models become one: FedAvg, weighted by training rows or uniformly."""

    kind: Literal["fedavg"] = "fedavg"
    weighting: Literal["samples", "uniform"] = "samples"


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
    poll_s: float = Field(0.5, gt=0, description="seconds between two looks for answers, on vantage6")


class Privacy(Section):
    """Reserved: secure aggregation and differential privacy. Guards belong to the node, not to this file."""


class Output(Section):
    """Which model is returned and tested, of the best validation round or of the last; and whether to profile."""

    model: Literal["best", "last"] = "best"
    profile: bool = Field(False, description="leave pyinstrument's report of a run on this machine")
