"""The section `strategy.private`: which of the model's tensors each site keeps for itself.

What is named is neither sent nor averaged: normalisation (FedBN), the last layer (FedPer), or anything by the class of
its module or by its name. `training.patterns` finds the tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from v6_algorithm.experiment.base import refuse
from v6_algorithm.experiment.layers import Layers, listed

if TYPE_CHECKING:
    from v6_algorithm.experiment.base import AllSections


class PrivateSection(Layers):
    """Layers that stay at the site.

    With `epochs` a round has two parts (FedRep): passes that train these layers alone, on what was received of the
    others; then the round's local work, which trains the others alone.

    References
    ----------
    Collins et al., Exploiting Shared Representations for Personalized Federated Learning, ICML 2021 (FedRep).
    """

    epochs: int | None = Field(None, ge=1, description="passes that first train these layers alone; null: all at once")


Private = Annotated[PrivateSection, BeforeValidator(listed)]


def check_private(experiment: AllSections) -> None:
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
