"""The section that says how the sites' replies become the next model: one class a kind, and what goes with what.

`strategies` has the maths of each kind, under the same name. The keys that all kinds share are stages of one pipeline:
each reply is weighted and clipped, the replies are combined, and the server takes a step. Where the maths of a kind
leaves no room for a stage, `refuses` says why, and an experiment that asks for it is refused with that reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, get_args, get_type_hints

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from v6_algorithm.experiment import plugins
from v6_algorithm.experiment.base import Section, plug_in_options, refuse, short_form
from v6_algorithm.experiment.imaging.networks import CNN, MnistCNN, MonaiNetwork, VBMNet
from v6_algorithm.experiment.learning import Optimizer
from v6_algorithm.experiment.optimisers import LARGEST, did_you_mean
from v6_algorithm.experiment.strategy.combine import Combine
from v6_algorithm.experiment.strategy.compression import Compression
from v6_algorithm.experiment.strategy.private import Private

if TYPE_CHECKING:
    from v6_algorithm.experiment.base import AllSections

_OWN_STEP = "{kind} is a step of the server by itself"
_OWN_WEIGHTS = "{kind} weighs the sites itself"
_OWN_NORMS = "{kind} scales the updates itself"
_OWN_TERMS = "what {kind} keeps of a site is made of its whole update"
_A_SUM = "{kind} solves for the sums over all rows as they are"
_A_MEAN = "{kind} is derived for the mean over sites"


class BaseStrategy(Section):
    """The keys that every kind has; a kind names in `refuses` those that do not go with it, and why."""

    refuses: ClassVar[dict[str, str]] = {}
    # Whether the maths needs to know how far plain SGD with the experiment's `lr` and momentum would have gone.
    needs_sgd: ClassVar[bool] = False
    # Whether the networks must have features: numbers that the last layers make an output of.
    needs_features: ClassVar[bool] = False

    kind: str
    weighting: Literal["samples", "uniform", "steps"] = Field(
        "samples", description="weight of a site: its training rows, 1, or the optimiser steps it made"
    )
    clip: float | None = Field(
        None, gt=0, description="largest L2 norm of a site's update, over all parameters; a larger one is scaled down"
    )
    combine: Annotated[Combine, short_form("kind")] = Combine()
    server: Annotated[Optimizer, short_form("kind")] | None = Field(
        None, description="any torch optimiser, stepped once a round with the negated mean update; null: take the mean"
    )

    batch_norm: Literal["moments", "average"] = Field(
        "moments",
        description="running variances of BatchNorm: moments adds the spread between the sites' means, so that it is "
        "the variance of all rows; average is their plain mean, as FedAvg's paper code and other frameworks have it",
    )
    private: Private | None = Field(None, description="layers that stay at each site, such as norm or head; null: none")
    compress: Compression = Field(Compression(), description="stages that make updates smaller; none: whole models")
    compress_down: Literal["float16", "bfloat16"] | None = Field(
        None, description="two bytes for each parameter of the model that sites are sent in rounds; null: whole"
    )

    @model_validator(mode="after")
    def _fit_float32(self) -> BaseStrategy:
        for key, value in self:
            if isinstance(value, float) and abs(value) > LARGEST:
                raise refuse(f"{key} is larger than {LARGEST:g}, which no float32 holds")
        return self

    @model_validator(mode="after")
    def _stages(self) -> BaseStrategy:
        for key, reason in self.refuses.items():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise refuse(f"{key} does not go with strategy {self.kind}: {reason.format(kind=self.kind)}")
        if self.combine.kind != "mean" and self.weighting != "samples" and not self.combine.weighted:
            raise refuse(f"weighting does not go with combine {self.combine.kind}, in which every site counts the same")
        return self


class FedAvg(BaseStrategy):
    """The weighted mean of the sites' models."""

    kind: Literal["fedavg"] = "fedavg"


class FedAvgM(BaseStrategy):
    """The server's step has momentum."""

    refuses: ClassVar = {"server": _OWN_STEP}

    kind: Literal["fedavgm"]
    lr: float = Field(1.0, gt=0, description="of the server")
    momentum: float = Field(0.9, ge=0, lt=1)


class FedOpt(BaseStrategy):
    """Any torch optimiser at the server, named in `server`."""

    kind: Literal["fedopt"]

    @model_validator(mode="after")
    def _has_server(self) -> FedOpt:
        if self.server is None:
            raise refuse("strategy fedopt needs `server`, a torch optimiser, such as {kind: adam, lr: 0.01}")
        return self


class Adaptive(BaseStrategy):
    """Adam, Yogi or Adagrad at the server as in Reddi et al., without torch's correction of the first steps."""

    refuses: ClassVar = {"server": _OWN_STEP}

    kind: Literal["fedadam", "fedyogi", "fedadagrad"]
    lr: float = Field(0.01, gt=0, description="of the server")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1, description="fedadagrad has none")
    tau: float = Field(0.001, gt=0, description="how adaptive: small tau, equal steps of all numbers")


class FedSGD(BaseStrategy):
    """Each site sends one gradient a round, and `training.optimizer` steps at the server (dSGD)."""

    refuses: ClassVar = {
        "server": "training.optimizer is the optimiser of the server",
        "private": "a site takes no step, so layers of its own would not be trained",
    }

    kind: Literal["fedsgd", "dsgd"]


class Cyclic(BaseStrategy):
    """The model visits one site after another in each round; nothing is averaged."""

    refuses: ClassVar = dict.fromkeys(("weighting", "clip", "combine", "server", "compress"), "nothing is averaged")

    kind: Literal["cyclic"]
    order: Literal["fixed", "random"] = Field("fixed", description="by name, or drawn anew each round")


class FedProx(BaseStrategy):
    """A pull of strength `mu` towards the received model while a site trains."""

    kind: Literal["fedprox"]
    mu: float = Field(0.01, ge=0)
    adaptive: bool = Field(False, description="mu grows by 0.1 when the loss does, and shrinks when it falls 5 times")


class Moon(BaseStrategy):
    """Each site's features are drawn towards the received model's, and away from those of its own last model."""

    needs_features: ClassVar[bool] = True
    refuses: ClassVar = {"compress": _OWN_TERMS, "private": "moon compares whole models"}

    kind: Literal["moon"]
    mu: float = Field(1.0, ge=0, description="weight of the contrastive loss beside the task's")
    tau: float = Field(0.5, gt=0, description="temperature: small tau, a sharp choice between the two models")


class Scaffold(BaseStrategy):
    """Control variates correct each local step for where the site differs from the others."""

    needs_sgd: ClassVar[bool] = True
    refuses: ClassVar = {"combine": _A_MEAN, "clip": _OWN_TERMS, "compress": _OWN_TERMS}

    kind: Literal["scaffold"]
    weighting: Literal["samples", "uniform"] = "samples"


class FedNova(BaseStrategy):
    """Updates are divided by how far the site's steps could go, so that many steps are no larger voice."""

    needs_sgd: ClassVar[bool] = True
    refuses: ClassVar = {"combine": _A_MEAN, "clip": _OWN_NORMS}

    kind: Literal["fednova"]


class FedDyn(BaseStrategy):
    """Each site's loss gets a linear and a quadratic term, under which all sites' minima move together."""

    refuses: ClassVar = {
        "server": _OWN_STEP,
        "combine": _A_MEAN,
        "clip": "a site's linear term is what is left of the update",
        "compress": _OWN_TERMS,
    }

    kind: Literal["feddyn"]
    weighting: Literal["samples", "uniform"] = "samples"
    alpha: float = Field(0.01, gt=0)


class QFedAvg(BaseStrategy):
    """Sites with a larger loss get a larger voice, the more so the larger `q` is."""

    refuses: ClassVar = {
        "weighting": _OWN_WEIGHTS,
        "server": _OWN_STEP,
        "combine": _A_MEAN,
        "clip": "{kind} uses their norms",
    }

    kind: Literal["qfedavg"]
    q: float = Field(1.0, ge=0)
    lipschitz: float | None = Field(None, gt=0, description="the paper's L; null: 1 / training.optimizer.lr")


class AgnosticFL(BaseStrategy):
    """The sites' weights move towards those with the largest loss: the mean that is worst for the model."""

    refuses: ClassVar = {"weighting": _OWN_WEIGHTS, "combine": _A_MEAN}

    kind: Literal["agnostic"]
    lr: float = Field(0.1, gt=0, description="of the weights")


class Newton(BaseStrategy):
    """Newton's method for models glm and cox: the step that a fit of all sites' rows in one place would take."""

    refuses: ClassVar = {
        "weighting": _A_SUM,
        "clip": _A_SUM,
        "combine": _A_SUM,
        "server": _OWN_STEP,
        "private": "{kind} needs all coefficients",
        "compress": _A_SUM,
        "compress_down": "its step is taken from the very model that the sums are of",
    }

    kind: Literal["newton"]


Averaging = Newton | FedAvg | FedAvgM | FedOpt | Adaptive | FedSGD | Cyclic
Heterogeneous = FedProx | Moon | Scaffold | FedNova | FedDyn | QFedAvg | AgnosticFL
# Their names, which pydantic puts into the places of errors.
STRATEGIES = tuple(
    kind
    for section in (*get_args(Averaging), *get_args(Heterogeneous))
    for kind in get_args(get_type_hints(section)["kind"])
)
ONE_GRADIENT = ("fedsgd", "dsgd")


class PlugInStrategy(BaseStrategy):
    """An installed strategy, by the name of its entry point; its other keys are its own (docs/extend.md)."""

    model_config = ConfigDict(extra="allow", validate_default=True)

    @model_validator(mode="after")
    def _known(self) -> PlugInStrategy:
        known = [*STRATEGIES, *plugins.names(plugins.STRATEGIES)]
        if self.kind not in known:
            raise refuse(f"unknown strategy '{self.kind}'{did_you_mean(self.kind, known)}; allowed: {', '.join(known)}")
        self.__pydantic_extra__ = self.options().model_dump(mode="json")
        for key, reason in plugins.strategy(self.kind).refuses.items():
            if getattr(self, key) != BaseStrategy.model_fields[key].default:
                raise refuse(f"{key} does not go with strategy {self.kind}: {reason}")
        return self

    def options(self) -> Any:
        """Return the strategy's own keys as its `Options`, validated and with defaults."""
        return plug_in_options(plugins.strategy(self.kind).Options, self.model_extra)


def _origin(value: Any) -> str:
    """Say whether a strategy is ours; a name that nobody knows is, where nothing is installed."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    ours = not isinstance(kind, str) or kind in STRATEGIES or not plugins.names(plugins.STRATEGIES)
    return "built_in" if ours else "plug_in"


BuiltIn = Annotated[Union[Averaging, Heterogeneous], Field(discriminator="kind")]  # noqa: UP007
Strategy = Annotated[
    Annotated[BuiltIn, Tag("built_in")] | Annotated[PlugInStrategy, Tag("plug_in")], Discriminator(_origin)
]


def with_one_step(content: Any) -> Any:
    """Fill in one local step where fedsgd asks for nothing else, for a round of it is one step."""
    strategy, training = content.get("strategy"), content.get("training") or {}
    kind = strategy.get("kind") if isinstance(strategy, dict) else strategy
    if kind not in ONE_GRADIENT or not isinstance(training, dict):
        return content
    asks = training.get("local_epochs") or training.get("local_steps")
    return content if asks else content | {"training": training | {"local_steps": 1}}


# Kinds for which an update counts from whatever model it is added to.
_TAKES_STALE = ("fedavg", "fedavgm", "fedopt", "fedadam", "fedyogi", "fedadagrad", "fedprox")


def check_strategy(experiment: AllSections) -> None:
    """Refuse a training that does not go with the strategy."""
    strategy, training = experiment.strategy, experiment.training
    options = training.optimizer.options()
    if strategy.needs_sgd:
        plain = training.optimizer.kind.lower() == "sgd" and not options.get("nesterov") and not options.get("maximize")
        if not plain or options.get("dampening"):
            raise refuse(
                f"strategy {strategy.kind} needs training.optimizer sgd, with momentum if wanted but neither nesterov, "
                "dampening nor maximize: it tells a site's mean gradient from how far the site's steps went"
            )
    with_features = isinstance(experiment.model, (CNN, MnistCNN, VBMNet, MonaiNetwork))
    if strategy.needs_features and not with_features and not getattr(experiment.model, "hidden", None):
        given = f"model.kind {experiment.model.kind}" + (" with hidden []" if experiment.model.kind == "mlp" else "")
        raise refuse(
            f"strategy {strategy.kind} compares what a hidden layer makes of a row, and {given} has none; "
            "allowed: an mlp with `hidden` layers, gru, lstm, a network for images"
        )
    if experiment.participation.late == "stale" and strategy.compress.stages:
        raise refuse(
            "participation.late stale does not go with compress: an update is decompressed on its own round's model"
        )
    if experiment.participation.late == "stale" and strategy.kind not in _TAKES_STALE:
        raise refuse(
            f"participation.late stale does not go with strategy {strategy.kind}, which reckons with the model that "
            f"sites were sent in this round; it goes with {', '.join(_TAKES_STALE)}"
        )
    if strategy.kind in ONE_GRADIENT and training.local_steps != 1:
        raise refuse(f"strategy {strategy.kind} sends one gradient a round: training.local_steps must be 1")
    if isinstance(strategy, QFedAvg) and training.loss is not None and training.loss.kind == "poisson":
        raise refuse("strategy qfedavg takes powers of the losses, and training.loss poisson can be negative")
    if isinstance(strategy, QFedAvg) and strategy.lipschitz is None and not isinstance(options.get("lr"), (int, float)):
        raise refuse("strategy qfedavg needs `lipschitz`, or training.optimizer.lr to take it from")


def check_pipeline(experiment: AllSections) -> None:
    """Refuse rounds that overlap where something of a round has to be known before the next one is asked for."""
    if not experiment.pipeline:
        return
    strategy, privacy = experiment.strategy, experiment.privacy
    if strategy.kind not in _TAKES_STALE:
        raise refuse(
            f"pipeline does not go with strategy {strategy.kind}, which reckons with the model that sites were sent in "
            f"this round; it goes with {', '.join(_TAKES_STALE)}"
        )
    if strategy.private is not None:
        raise refuse(
            "pipeline does not go with strategy.private: a site's layers of the round before are not there yet"
        )
    if any(stage.feedback or getattr(stage, "warm", False) for stage in strategy.compress.stages):
        raise refuse(
            "pipeline does not go with a compression that remembers what the round before left out (feedback, warm); "
            "it goes with float16, bfloat16, int8, and with others where `feedback` and `warm` are false"
        )
    if privacy.secure_aggregation is not None:
        raise refuse("pipeline does not go with privacy.secure_aggregation, whose sums are opened one after the other")
    if privacy.differential_privacy is not None:
        raise refuse(
            "pipeline does not go with privacy.differential_privacy: sites book the cost of one round at a time"
        )
