"""What hides a site in what leaves it: one section a way, each in a file of its own. Guards belong to the node."""

from __future__ import annotations

from pydantic import Field

from v6_algorithm.experiment.base import Section
from v6_algorithm.experiment.privacy.differential_privacy import DifferentialPrivacy
from v6_algorithm.experiment.privacy.secure_aggregation import SecureAggregation


class Privacy(Section):
    """How sums and single rows are hidden. What a node allows at all is said at the node, not in this file."""

    secure_aggregation: SecureAggregation | None = Field(
        None, description="add the sites' numbers up under masks: nobody sees those of one site; null: in the clear"
    )
    differential_privacy: DifferentialPrivacy | None = Field(
        None, description="clip and noise the gradients, so that no single row or patient shows in a model; null: not"
    )
