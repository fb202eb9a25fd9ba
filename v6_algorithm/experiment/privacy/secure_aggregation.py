"""The section of secure aggregation, and what goes with it: what must see one site's numbers is refused by name."""

from __future__ import annotations

import math

from pydantic import Field, field_validator

from v6_algorithm.experiment.base import AllSections, Section, refuse

# Strategies whose next model is made of the weighted sum of the sites' updates, and of nothing else of a site.
SUMMABLE = (
    "fedavg", "fedavgm", "fedopt", "fedadam", "fedyogi", "fedadagrad", "fedsgd", "dsgd", "fedprox", "scaffold",
    "feddyn", "moon",
)  # fmt: skip
# Of these a site keeps its own term from round to round, which in the clear the coordinator keeps.
KEEPS_TERMS = ("scaffold", "feddyn", "moon")
_WHY_NOT = {
    "cyclic": "hands the model of one site to the next",
    "fednova": "divides each site's update by its number of steps",
    "qfedavg": "weighs each site by its loss",
    "agnostic": "weighs each site by its loss",
}
_OTHER = "sends more than an update to be averaged"


class SecureAggregation(Section):
    """Sums under pairwise masks (Bonawitz et al., CCS 2017): updates, losses, metrics, counts and statistics."""

    threshold: int | float = Field(
        description="how many sites open a sum: a number of sites (2), or a share of them (0.67); more than half"
    )
    clip: float = Field(
        8.0, gt=0, le=1e6, description="largest change of one parameter in a round, either way; a larger one is cut"
    )
    bits: int | None = Field(
        None, ge=8, le=52, description="of one site's number between -clip and clip; null: what 32 bits have room for"
    )

    @field_validator("threshold")
    @classmethod
    def _sites_or_share(cls, value: int | float) -> int | float:
        if isinstance(value, int) and value >= 2:
            return value
        if isinstance(value, float) and 0.5 < value <= 1:
            return value
        raise refuse("must be a whole number of sites from 2, or a share of them above 0.5 and up to 1.0")

    def sites_needed(self, sites: int) -> int:
        """Return how many of so many sites open a sum."""
        if isinstance(self.threshold, int):
            return self.threshold
        # A product such as 0.7 x 10 must not be one more for its rounding.
        return max(2, math.ceil(self.threshold * sites - 1e-9))


def check_secure_aggregation(experiment: AllSections) -> None:
    """Refuse, by name, what needs the numbers of a single site; a sum does not have them."""
    if experiment.privacy.secure_aggregation is None:
        return
    strategy, data, model = experiment.strategy, experiment.data, experiment.model
    newton = strategy.kind == "newton"
    for wrong, what in (
        (experiment.mode != "federated", f"mode {experiment.mode}: there is no sum over sites to hide one in"),
        (
            strategy.kind not in SUMMABLE and not newton,
            f"strategy {strategy.kind}, which {_WHY_NOT.get(strategy.kind, _OTHER)}; it goes with "
            f"{', '.join(SUMMABLE)}",
        ),
        (
            strategy.combine.kind != "mean",
            f"strategy.combine {strategy.combine.kind}, which must see the update of every site; only mean is a sum",
        ),
        (
            newton and getattr(model, "errors", "model") == "site",
            "model.errors site, made of each site's score; allowed: model",
        ),
        (
            newton and model.kind == "cox" and getattr(model, "strata", "site") == "none",
            "model cox with strata none, whose sums are at the times of single sites' events, told before there are "
            "any; allowed: strata: site",
        ),
        (bool(strategy.compress.stages), "strategy.compress: masked numbers do not get smaller"),
        (
            strategy.weighting == "steps",
            "strategy.weighting steps: how many steps all sites make is not known before; allowed: samples, uniform",
        ),
        (strategy.private is not None, "strategy.private: whether a site still has its layers is not told by a sum"),
        (experiment.personal is not None, "personal: models of single sites are not added up"),
        (experiment.split.kind == "leave_one_site_out", "split leave_one_site_out, which measures one site at a time"),
        (bool(experiment.start.pretrain_epochs), "start.pretrain_epochs, in which one site's model is sent as it is"),
        (
            experiment.participation.late == "stale",
            "participation.late stale: a late update would be a sum over one site",
        ),
        (
            experiment.participation.fraction < 1,
            "participation.fraction below 1: who was drawn would be told by the difference of two sums",
        ),
        (
            experiment.participation.maximum_share < 1,
            "participation.maximum_share: no site's rows are seen, to be capped",
        ),
        (bool(experiment.evaluation.subgroups), "evaluation.subgroups: each site says for itself which groups are few"),
        (data.harmonisation.kind != "none", f"data.harmonisation {data.harmonisation.kind}, made of each site's means"),
        (data.synthetic is not None, "data.synthetic: synthetic rows are counted by site"),
        (
            data.missing.kind == "median",
            "data.missing median: cells of one site's rows are no sum; allowed: error, drop, mean, constant",
        ),
        (
            data.scaling.scope == "federation" and data.scaling.kind in ("minmax", "robust"),
            f"data.scaling {data.scaling.kind} over the federation: a range, or cells of rows, are no sum; "
            "allowed: standard, none, or scope: site",
        ),
    ):
        if wrong:
            raise refuse(f"privacy.secure_aggregation does not go with {what}")
