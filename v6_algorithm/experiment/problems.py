"""The section that says what is learned: a built-in problem, or a plug-in by the name of its entry point.

Which metrics, losses and networks go with which built-in problem stands here in one table, so that a combination that
cannot be is refused before any site is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from v6_algorithm.experiment import plugins
from v6_algorithm.experiment.base import Section, plug_in_options, refuse
from v6_algorithm.experiment.imaging.generators import GENERATION_METRICS, GanOptions, check_gan
from v6_algorithm.experiment.optimisers import did_you_mean

if TYPE_CHECKING:
    from v6_algorithm.experiment.base import AllSections
    from v6_algorithm.experiment.data import Data
    from v6_algorithm.experiment.learning import Loss

CLASSIFICATION_METRICS = (
    "loss", "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "npv", "f1", "auroc", "auprc",
    "brier", "ece",
)  # fmt: skip
REGRESSION_METRICS = ("loss", "mse", "mae", "r2", "huber")
SURVIVAL_METRICS = ("loss", "c_index", "c_index_within", "brier")


class NoOptions(Section):
    """Nothing but the problem's name."""


class SurvivalOptions(Section):
    """Cox's partial likelihood, or one hazard for each interval of time (discrete time)."""

    method: Literal["cox", "discrete_time"] = "cox"
    intervals: int | list[Annotated[float, Field(gt=0)]] = Field(
        10, description="discrete_time: their number, cut at quantiles of the federation's event times, or their ends"
    )
    baseline: Literal["site", "pooled"] = Field(
        "site", description="cox: survival by each site's baseline hazard where its events suffice, or by that of all"
    )

    at_zero: Literal["keep", "leave_out"] = Field(
        "keep",
        description="rows with a time of 0: their events come first (discrete_time: in the first interval), or they "
        "are left out, which a node refuses where they are fewer than its least",
    )

    @field_validator("intervals")
    @classmethod
    def _increasing(cls, value: int | list[float]) -> int | list[float]:
        if isinstance(value, int):
            if not 2 <= value <= 50:
                raise refuse("must be from 2 to 50 intervals")
        elif not value or any(later <= earlier for earlier, later in pairwise(value)):
            raise refuse("must be a number of intervals, or the increasing ends of all but the last, such as [30, 90]")
        return value


def with_whole_risk_sets(experiment: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment, not validated yet, in which a Cox model that says nothing of batches has all rows in one.

    A batch's risk sets are of its rows only: small ones change the likelihood, not only how it is climbed.
    """
    problem, training = experiment.get("problem"), experiment.get("training", {})
    if problem == "survival":
        problem = {"kind": "survival"}
    cox = isinstance(problem, dict) and problem.get("kind") == "survival" and problem.get("method", "cox") == "cox"
    if not cox or not isinstance(training, dict) or {"batch_size", "accumulate"} & set(training):
        return experiment
    return experiment | {"training": {**training, "batch_size": None}}


@dataclass(frozen=True)
class Kind:
    """What goes with a built-in problem.

    Metrics, losses and networks by name, the form of its target, its options, whether its inputs are images or
    volumes, and whether it makes rows rather than predicts.
    """

    metrics: tuple[str, ...]
    losses: tuple[str, ...]
    models: tuple[str, ...] = ("linear", "mlp")
    target: str = "a column"
    options: type[Section] = NoOptions
    images: bool = False
    generative: bool = False


PROBLEMS = {
    "classification": Kind(CLASSIFICATION_METRICS, ("cross_entropy", "focal"), ("linear", "logistic", "mlp", "glm")),
    "regression": Kind(REGRESSION_METRICS, ("mse", "mae", "huber", "poisson"), ("linear", "mlp", "glm")),
    "count": Kind(REGRESSION_METRICS, ("poisson",), ("linear", "mlp", "glm")),
    "sequence_classification": Kind(CLASSIFICATION_METRICS, ("cross_entropy",), ("gru", "lstm")),
    "image_classification": Kind(
        CLASSIFICATION_METRICS,
        ("cross_entropy", "focal"),
        ("cnn", "mnist_cnn", "mlp", "logistic", "resnet", "densenet", "efficientnet", "senet"),
        images=True,
    ),
    "volume_classification": Kind(
        CLASSIFICATION_METRICS,
        ("cross_entropy", "focal"),
        ("cnn", "vbmnet", "resnet", "densenet", "efficientnet", "senet"),
        images=True,
    ),
    "gan": Kind(GENERATION_METRICS, (), ("dcgan", "stylegan2"), options=GanOptions, images=True, generative=True),
    "survival": Kind(
        SURVIVAL_METRICS,
        (),
        ("linear", "mlp", "cox"),
        target="{duration: column, event: column}",
        options=SurvivalOptions,
    ),
}
MULTITASK = Kind((), ())
PROBLEMS["multitask"] = MULTITASK
# What the built-in problems measure.
PROBLEM_METRICS = {name: kind.metrics for name, kind in PROBLEMS.items()}


class Problem(Section):
    """What is learned: the name of a built-in problem or of a plug-in, and its options."""

    model_config = ConfigDict(extra="allow", validate_default=True)
    kind: str

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        # Plug-ins are looked up only for names that are not ours: it means reading every installed package.
        if value not in PROBLEMS and value not in (known := [*PROBLEMS, *plugins.names()]):
            raise refuse(f"unknown problem{did_you_mean(value, known)}; allowed: {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _options(self) -> Problem:
        # Kept with their defaults: a resolved experiment says all that it depends on.
        self.__pydantic_extra__ = self.options().model_dump(mode="json")
        return self

    @property
    def generative(self) -> bool:
        """Whether it makes rows rather than predicts."""
        return PROBLEMS[self.kind].generative if self.kind in PROBLEMS else plugins.problem(self.kind).generative

    @property
    def told_classes(self) -> bool:
        """Whether what is made is made of a class: always, but where the problem's options say otherwise."""
        return bool(getattr(self.options(), "conditional", True))

    def options(self) -> Any:
        """Return the options as the problem's own section, validated and with defaults."""
        form = PROBLEMS[self.kind].options if self.kind in PROBLEMS else plugins.problem(self.kind).Options
        given = dict(self.model_extra or {})
        if form is NoOptions and given:
            raise refuse(f"unknown key '{min(given)}'; problem {self.kind} takes only kind")
        return plug_in_options(form, given)


def _task_metrics(data: Data, sensitivities: list[str]) -> tuple[str, ...]:
    """Return what multitask measures: the loss, and of each task what its kind of problem does."""
    names = ["loss"]
    for task, section in (data.targets or {}).items():
        task_metrics = _with_sensitivities(PROBLEMS[section.kind].metrics, sensitivities)
        names += [f"{task}.{metric}" for metric in task_metrics if metric != "loss"]
    return tuple(names)


def _with_sensitivities(metrics: tuple[str, ...], sensitivities: list[str]) -> tuple[str, ...]:
    """Add the sensitivities that an experiment asks for to the metrics of a classification."""
    return (*metrics, *sensitivities) if metrics[: len(CLASSIFICATION_METRICS)] == CLASSIFICATION_METRICS else metrics


def _measured(experiment: AllSections) -> tuple[str, ...]:
    """Return the metrics of a problem, or none where they are not known before it runs."""
    from v6_algorithm.experiment.metric_names import sensitivity_names

    kind = experiment.problem.kind
    known = PROBLEMS.get(kind)
    sensitivities = sensitivity_names(experiment.evaluation.specificity)
    if known is MULTITASK:
        return _task_metrics(experiment.data, sensitivities)
    return _with_sensitivities(known.metrics if known else tuple(plugins.metric_names(kind)), sensitivities)


def check_metric(key: str, monitor: str, experiment: AllSections) -> None:
    """Refuse, under an experiment's key, a metric that is not measured in every round."""
    kind, metrics = experiment.problem.kind, _measured(experiment)
    if metrics and monitor not in metrics:
        raise refuse(
            f"{key} is '{monitor}', which problem {kind} does not measure"
            f"{did_you_mean(monitor, metrics)}; allowed: {', '.join(metrics)}"
        )
    if kind == "survival" and monitor == "brier" and experiment.problem.options().method == "cox":
        raise refuse(f"{key} brier is of method discrete_time; a Cox model has survival curves when training is over")


def check_together(experiment: AllSections) -> None:
    """Refuse what does not go together: problem and target, monitored metric, loss, model."""
    kind, loss, data = experiment.problem.kind, experiment.training.loss, experiment.data
    known = PROBLEMS.get(kind)
    check_metric("stopping.monitor", experiment.stopping.monitor, experiment)
    if experiment.tune is not None:
        experiment.tune.check_metric(experiment.stopping.monitor, _measured(experiment))
    if data.target_scaling != "none":
        _check_target_scaling(kind, data, loss)
    if known is None:
        return
    if experiment.training.augmentation and not known.images:
        raise refuse(f"training.augmentation is for images and volumes; the inputs of problem {kind} are neither")
    extra_models = () if known.generative else ("module",)
    if experiment.model.kind not in (*known.models, *extra_models):
        raise refuse(
            f"model.kind {experiment.model.kind} is not for {kind}, which takes {' or '.join(sorted(known.models))}"
        )
    if (kind == "sequence_classification") != (data.sequence is not None):
        raise refuse("problem sequence_classification and data.sequence go together: give both or neither")
    if known.images != (data.image is not None):
        raise refuse(
            "data.image goes with problem image_classification, volume_classification or gan: give both or neither"
        )
    if data.image is not None and (data.image.dimensions == 3) != (kind == "volume_classification"):
        raise refuse("data.image.dimensions is 2 for image_classification and gan, 3 for volume_classification")
    if kind == "regression" and data.positive is not None:
        raise refuse("data.positive makes a 0/1 target, which is for classification, not regression")
    if (known is MULTITASK) != (data.targets is not None):
        raise refuse("problem multitask and data.targets go together: give both or neither")
    form = "a column" if isinstance(data.target, str) else PROBLEMS["survival"].target
    if data.target is not None and form != known.target:
        raise refuse(f"data.target is {form}; problem {kind} takes {known.target}")
    if kind == "multitask" and data.positive is not None:
        raise refuse("data.positive is of data.target; of several targets each has its own")
    if loss and loss.kind not in known.losses:
        takes = " or ".join(known.losses) or "none: the problem, or each task, has its own"
        raise refuse(f"training.loss.kind is {loss.kind}; problem {kind} takes {takes}")
    if loss and loss.class_weights is not None and loss.kind not in ("cross_entropy", "focal"):
        raise refuse("training.loss.class_weights is for classification")
    if kind == "gan":
        check_gan(experiment)


def _check_target_scaling(kind: str, data: Data, loss: Loss | None) -> None:
    given = f"data.target_scaling {data.target_scaling}"
    if kind not in ("regression", "multitask"):
        raise refuse(f"{given} is for regression and multitask; {kind} learns its target as it is")
    if kind == "regression" and loss is not None and loss.kind == "poisson":
        raise refuse(f"{given} makes numbers that are no counts, which training.loss poisson needs; leave it out")
    if kind == "multitask" and data.targets is not None and not data.scaled_targets:
        raise refuse(
            f"{given} is for targets of kind regression that are not counts (loss poisson); data.targets has none"
        )
