"""The section `strategy.private`: which of the model's tensors each site keeps for itself.

What is named is neither sent nor averaged: normalisation (FedBN), the last layer (FedPer), or anything by the class of
its module or by its name. `training.private` finds the tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from v6_algorithm.experiment.base import Section, refuse

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment

# Words for layers by what they do; a word with a dot is a tensor's name, any other a class of modules.
ROLES = ("norm", "head")

Patterns = list[Annotated[str, Field(min_length=1, max_length=200)]]


class PrivateSection(Section):
    """Layers that stay at the site: by role, by class such as ``Conv2d``, or by name such as ``model.0.*``."""

    include: Patterns = Field(min_length=1)
    exclude: Patterns = Field(default_factory=list, description="of these, tensors that are shared all the same")


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return {"include": [value]}
    return {"include": value} if isinstance(value, list) else value


Private = Annotated[PrivateSection, BeforeValidator(_short)]


def check_private(experiment: Experiment) -> None:
    """Refuse what does not go with layers that each site has of its own."""
    if experiment.private is None:
        return
    if experiment.split.kind == "leave_one_site_out":
        raise refuse(
            "strategy.private does not go with split leave_one_site_out: a site that trains nothing has no layers of "
            "its own to be tested with"
        )
    if experiment.start.pretrain_epochs:
        raise refuse(
            "strategy.private does not go with start.pretrain_epochs: the others would start from half of a model"
        )
