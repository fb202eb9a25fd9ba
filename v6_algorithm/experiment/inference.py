"""The section `model: {kind: glm}`: a generalised linear model, fitted exactly, for coefficients that a paper reports.

What such a model needs elsewhere in an experiment is filled in here, where it was not given, and what does not go with
it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from v6_algorithm.experiment.base import Section, refuse

if TYPE_CHECKING:
    from v6_algorithm.experiment.base import AllSections

# Family to the problems it is for, and to its links, of which the first is the canonical one (of gamma the usual one).
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gaussian": ("regression", ("identity", "log")),
    "binomial": ("classification", ("logit", "probit", "cloglog")),
    "poisson": ("count", ("log", "identity")),
    "gamma": ("regression", ("log", "inverse", "identity")),
}
_OF_PROBLEM = {"classification": "binomial", "regression": "gaussian", "count": "poisson"}


class Glm(Section):
    """A generalised linear model, fitted by Fisher scoring over all sites' rows; strategy `newton`."""

    kind: Literal["glm"]
    family: Literal["gaussian", "binomial", "poisson", "gamma"] | None = Field(
        None, description="null: binomial for classification, gaussian for regression, poisson for count"
    )
    link: Literal["identity", "log", "logit", "probit", "cloglog", "inverse"] | None = Field(
        None, description="null: identity, logit, log, and log for gamma"
    )
    ridge: float = Field(0.0, ge=0, description="L2 penalty on the coefficients of scaled inputs, not the intercept")


def with_defaults_of_glm(content: Any) -> Any:
    """Fill in what a GLM needs where it was not given: all rows train, full batches in float64, Newton's steps."""
    model = content.get("model")
    if (model.get("kind") if isinstance(model, dict) else model) != "glm":
        return content
    given = content.get("problem", "classification")
    kind = given.get("kind") if isinstance(given, dict) else given
    model = dict(model) if isinstance(model, dict) else {"kind": "glm"}
    family = model["family"] = model.get("family") or _OF_PROBLEM.get(str(kind), "gaussian")
    model["link"] = model.get("link") or FAMILIES.get(family, ("", ("identity",)))[1][0]
    defaults: dict[str, dict[str, Any]] = {
        "training": {"batch_size": None, "local_epochs": 1, "dtype": "float64"},
        "stopping": {"patience": None},
        "output": {"model": "last"},
    }
    filled = content | {"model": model}
    for key, values in defaults.items():
        section = content.get(key) or {}
        filled[key] = values | section if isinstance(section, dict) else section
    filled.setdefault("strategy", {"kind": "newton"})
    filled.setdefault("split", {"kind": "ratio", "train": 1.0, "validation": 0.0, "test": 0.0})
    filled.setdefault("rounds", 25)
    return filled


def check_glm(experiment: AllSections) -> None:
    """Refuse what does not go with a GLM, or with its strategy."""
    model, strategy = experiment.model, experiment.strategy
    if not isinstance(model, Glm):
        if strategy.kind == "newton":
            raise refuse(
                f"strategy newton is for model glm; model.kind {model.kind} has no information matrix to solve"
            )
        return
    if strategy.kind != "newton":
        raise refuse(f"model glm is fitted by strategy newton, not by {strategy.kind}")
    problem, links = FAMILIES[model.family or "gaussian"]
    if experiment.problem.kind != problem:
        raise refuse(f"model glm of family {model.family} is for problem {problem}, not {experiment.problem.kind}")
    if model.link not in links:
        raise refuse(f"model.link {model.link} is not for family {model.family}; allowed: {', '.join(links)}")
    data, training = experiment.data, experiment.training
    if data.scaling.scope == "site" and data.scaling.kind != "none":
        raise refuse(
            "data.scaling.scope site does not go with model glm, whose coefficients are in units of the columns"
        )
    if data.target_scaling != "none":
        raise refuse("data.target_scaling does not go with model glm, whose coefficients are in units of the columns")
    if training.batch_size is not None or training.local_steps or training.local_epochs != 1:
        raise refuse("model glm takes all rows once a round: training.batch_size null, local_epochs 1")
    if training.dtype != "float64":
        raise refuse("model glm is fitted in float64: training.dtype float64")
    if training.loss is not None and (training.loss.kind == "focal" or training.loss.class_weights):
        raise refuse("training.loss focal and class_weights do not go with model glm, which maximises the likelihood")
    if experiment.participation.fraction < 1:
        raise refuse("participation.fraction does not go with model glm, whose sums are over all sites' rows")
    if experiment.start.weights:
        raise refuse("start.weights does not go with model glm, whose first round finds its own start")
