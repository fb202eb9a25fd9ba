"""The sections `model: {kind: glm}` and `{kind: cox}`: models fitted exactly, for coefficients that a paper reports.

What such a model needs elsewhere in an experiment is filled in here, where it was not given, and what does not go with
it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from v6_algorithm.experiment.base import refuse, short_form
from v6_algorithm.experiment.data import Ratio
from v6_algorithm.experiment.terms import Penalty, Terms, Weights, check_terms

if TYPE_CHECKING:
    from v6_algorithm.experiment.base import AllSections

# Family to the problems it is for, and to its links, of which the first is the canonical one (of gamma the usual one).
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gaussian": ("regression", ("identity", "log")),
    "binomial": ("classification", ("logit", "probit", "cloglog")),
    "poisson": ("count", ("log", "identity")),
    "negative_binomial": ("count", ("log",)),
    "gamma": ("regression", ("log", "inverse", "identity")),
}
_OF_PROBLEM = {"classification": "binomial", "regression": "gaussian", "count": "poisson"}


class Glm(Terms):
    """A generalised linear model, fitted by Fisher scoring over all sites' rows; strategy `newton`."""

    kind: Literal["glm"]
    family: Literal["gaussian", "binomial", "poisson", "negative_binomial", "gamma"] | None = Field(
        None, description="null: binomial for classification, gaussian for regression, poisson for count"
    )
    link: Literal["identity", "log", "logit", "probit", "cloglog", "inverse"] | None = Field(
        None, description="null: identity, logit, log, and log for gamma"
    )
    ridge: float = Field(0.0, ge=0, description="L2 penalty on the coefficients of scaled inputs, not the intercept")
    offset: str | None = Field(
        None,
        min_length=1,
        description="a numeric column whose coefficient is 1, such as the log of time watched",
    )
    firth: bool = Field(
        False, description="of binomial, logit: Firth's penalty, for few events or classes that a column tells apart"
    )
    penalty: Annotated[Penalty, short_form("kind")] | None = Field(
        None, description="ridge, lasso or elastic_net, whose coefficients have no intervals"
    )
    weights: Weights | None = Field(None, description="a column of the rows' weights; frequency or analytic")
    errors: Literal["model", "site"] = Field(
        "model", description="standard errors by the model's variance, or robust, with the sites as clusters"
    )


class Cox(Terms):
    """Cox's proportional hazards, the partial likelihood of all sites' rows together; strategy `newton`."""

    kind: Literal["cox"]
    ties: Literal["efron", "breslow"] = Field("efron", description="how events at one time are counted")
    strata: Literal["none", "site"] = Field(
        "none", description="site: each site has a baseline hazard of its own, and tells no event times"
    )
    ridge: float = Field(0.0, ge=0, description="L2 penalty on the log hazard ratios of scaled inputs")
    firth: bool = Field(False, description="Firth's penalty, for few events or columns that tell the events apart")
    errors: Literal["model", "site"] = Field(
        "model", description="standard errors by the model's variance, or, of strata site, robust over sites"
    )


def with_defaults_of_inference(content: Any) -> Any:
    """Fill in what such a model needs where it was not given: all rows train, full batches in float64, Newton."""
    model = content.get("model")
    name = model.get("kind") if isinstance(model, dict) else model
    if name not in ("glm", "cox"):
        return content
    given = content.get("problem", "survival" if name == "cox" else "classification")
    kind = given.get("kind") if isinstance(given, dict) else given
    model = dict(model) if isinstance(model, dict) else {"kind": name}
    if name == "glm":
        family = model["family"] = model.get("family") or _OF_PROBLEM.get(str(kind), "gaussian")
        model["link"] = model.get("link") or FAMILIES.get(family, ("", ("identity",)))[1][0]
    defaults: dict[str, dict[str, Any]] = {
        "training": {"batch_size": None, "local_epochs": 1, "dtype": "float64"},
        "stopping": {"patience": None},
        "output": {"model": "last"},
    }
    filled = content | {"model": model, "problem": given}
    for key, values in defaults.items():
        section = content.get(key) or {}
        filled[key] = values | section if isinstance(section, dict) else section
    data = content.get("data")
    offset = model.get("offset")
    if offset and isinstance(data, dict) and isinstance(data.get("features"), list) and offset not in data["features"]:
        filled["data"] = data | {"features": [*data["features"], offset]}
    if name == "glm" and isinstance(data, dict) and (column := _weights_column(model)) is not None:
        given_exclude = (filled.get("data") or data).get("exclude") or []
        if isinstance(given_exclude, list) and column not in given_exclude:
            filled["data"] = (filled.get("data") or data) | {"exclude": [*given_exclude, column]}
    filled.setdefault("strategy", {"kind": "newton"})
    filled.setdefault("split", {"kind": "ratio", "train": 1.0, "validation": 0.0, "test": 0.0})
    # A step with Firth's penalty takes two, and separated classes many steps.
    filled.setdefault("rounds", 150 if model.get("firth") is True else 25)
    return filled


def _check_imputation(experiment: AllSections) -> None:
    """Refuse multiple imputation where its results could not be pooled."""
    model, data, split = experiment.model, experiment.data, experiment.split
    if not isinstance(model, (Glm, Cox)) or (isinstance(model, Glm) and model.penalty is not None):
        raise refuse(
            "data.missing impute is for model cox, and glm without penalty, whose coefficients Rubin's rules pool"
        )
    if "target.entry" in data.target_columns:
        raise refuse(
            "data.missing impute does not go with data.target.entry: a patient's rows would be imputed one by one"
        )
    if split.kind != "ratio" or split.train < 1:
        raise refuse("data.missing impute goes with split {kind: ratio, train: 1}: imputations take the folds' place")
    if experiment.mode == "local":
        raise refuse("data.missing impute does not go with mode local yet")
    if data.harmonisation.kind != "none":
        raise refuse("data.missing impute does not go with data.harmonisation, which needs filled cells")
    if data.scaling.kind != "standard":
        raise refuse(f"data.missing impute goes with data.scaling standard, not {data.scaling.kind}")
    if model.errors == "site":
        raise refuse("data.missing impute does not go with model.errors site")


def _check_penalty(model: Glm, data: Any) -> None:
    for key, given in (("ridge", model.ridge), ("firth", model.firth), ("offset", model.offset)):
        if given:
            raise refuse(f"model.penalty does not go with model.{key}")
    if model.errors == "site":
        raise refuse("model.errors site does not go with model.penalty, whose coefficients have no standard errors")
    if model.family == "negative_binomial" or model.link == "inverse":
        raise refuse(f"model.penalty is for other families and links than {model.family} with {model.link}")
    if model.penalty is not None and model.penalty.fits and data.group is not None:
        raise refuse(
            "model.penalty without strength leaves out rows by themselves, and data.group keeps rows of one value "
            "together; give model.penalty.strength"
        )


def _weights_column(model: dict[str, Any]) -> str | None:
    weights = model.get("weights")
    column = weights.get("column") if isinstance(weights, dict) else None
    return column if isinstance(column, str) else None


def _check_entry(experiment: AllSections) -> None:
    """Refuse rows that join late where a model, or a metric, would take them as there from the start."""
    if "target.entry" not in experiment.data.target_columns:
        return
    if not isinstance(experiment.model, Cox):
        # A description by groups takes the file of any model, and trains none.
        if experiment.evaluation.by is None:
            raise refuse(
                f"data.target.entry goes with model cox, and with describe --by; not with model {experiment.model.kind}"
            )
    elif not isinstance(experiment.split, Ratio) or experiment.split.train < 1:
        raise refuse(
            "data.target.entry goes with all rows training (leave split out): a C-index of rows that join "
            "late is not there yet"
        )


def check_inference(experiment: AllSections) -> None:
    """Refuse what does not go with a model that is fitted exactly, or with its strategy."""
    model, strategy = experiment.model, experiment.strategy
    _check_entry(experiment)
    if experiment.data.missing.kind == "impute":
        _check_imputation(experiment)
    if not isinstance(model, (Glm, Cox)):
        if strategy.kind == "newton":
            raise refuse(
                f"strategy newton is for model glm or cox; model.kind {model.kind} has no information matrix to solve"
            )
        return
    name = f"model {model.kind}"
    if strategy.kind != "newton":
        raise refuse(f"{name} is fitted by strategy newton, not by {strategy.kind}")
    if model.firth and model.ridge:
        raise refuse("model.firth and model.ridge are two penalties; give one of them")
    if isinstance(model, Glm):
        problem, links = FAMILIES[model.family or "gaussian"]
        if experiment.problem.kind != problem:
            raise refuse(f"model glm of family {model.family} is for problem {problem}, not {experiment.problem.kind}")
        if model.link not in links:
            raise refuse(f"model.link {model.link} is not for family {model.family}; allowed: {', '.join(links)}")
        if model.firth and (model.family, model.link) != ("binomial", "logit"):
            raise refuse(f"model.firth is for family binomial with link logit, not {model.family} with {model.link}")
        if model.penalty is not None:
            _check_penalty(model, experiment.data)
        if model.offset in experiment.data.categorical:
            raise refuse(f"model.offset '{model.offset}' is a number; take it out of data.categorical")
    elif model.firth and model.errors == "site":
        raise refuse("model.errors site of model cox does not go with model.firth yet")
    elif model.errors == "site" and model.strata == "none":
        raise refuse("model.errors site of model cox goes with strata site: one score of each site")
    elif experiment.problem.options().method != "cox":
        raise refuse("model cox is for problem.method cox; discrete_time has no partial likelihood")
    data, training, participation = experiment.data, experiment.training, experiment.participation
    check_terms(model, data)
    counted = [name for name, spline in model.splines.items() if isinstance(spline.knots, int)]
    if counted and experiment.privacy.secure_aggregation is not None:
        raise refuse(
            f"model.splines: knots of '{counted[0]}' at quantiles do not go with privacy.secure_aggregation, for cells "
            "of one site's rows are no sum; give their places as a list"
        )
    if isinstance(model, Glm) and model.weights is not None and model.weights.column in data.target_columns.values():
        raise refuse(f"model.weights.column '{model.weights.column}' is the target")
    if data.scaling.scope == "site" and data.scaling.kind != "none":
        raise refuse(f"data.scaling.scope site does not go with {name}, whose coefficients are in units of the columns")
    if data.target_scaling != "none":
        raise refuse(f"data.target_scaling does not go with {name}, whose coefficients are in units of the columns")
    if training.batch_size is not None or training.local_steps or training.local_epochs != 1:
        raise refuse(f"{name} takes all rows once a round: training.batch_size null, local_epochs 1")
    if training.dtype != "float64":
        raise refuse(f"{name} is fitted in float64: training.dtype float64")
    if training.loss is not None and (training.loss.kind == "focal" or training.loss.class_weights):
        raise refuse(f"training.loss focal and class_weights do not go with {name}, which maximises the likelihood")
    if participation.fraction < 1:
        raise refuse(f"participation.fraction does not go with {name}, whose sums are over all sites' rows")
    if isinstance(model, Cox) and participation.late == "stale":
        raise refuse("participation.late stale does not go with model cox, whose risk sets are of one round's sites")
    if experiment.start.weights:
        raise refuse(f"start.weights does not go with {name}, whose first round finds its own start")
