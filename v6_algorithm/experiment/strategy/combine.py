"""The section that says by which rule the sites' models become one, and how many sites each rule needs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from v6_algorithm.experiment.base import Section, refuse

# Sites that a robust rule needs: a multiple of the malicious ones and a constant. Most need an honest majority; for
# krum see Blanchard et al. 2017, for bulyan El Mhamdi et al. 2018.
MINIMUM = {
    "median": (2, 1),
    "trimmed_mean": (2, 1),
    "geometric_median": (2, 1),
    "krum": (2, 3),
    "multi_krum": (2, 3),
    "bulyan": (4, 3),
    "norm_clipping": (2, 1),
    "centred_clipping": (2, 1),
}


class Combine(Section):
    """How several sites' models become one: their weighted mean, or a rule that bears a few malicious sites."""

    # Keys that only some rules have.
    belongs: ClassVar[dict[str, tuple[str, ...]]] = {
        "malicious": tuple(MINIMUM),
        "keep": ("multi_krum",),
        "radius": ("norm_clipping", "centred_clipping"),
        "iterations": ("centred_clipping",),
        "weighted": ("geometric_median", "norm_clipping", "centred_clipping"),
    }

    kind: Literal[
        "mean",
        "median",
        "trimmed_mean",
        "geometric_median",
        "krum",
        "multi_krum",
        "bulyan",
        "norm_clipping",
        "centred_clipping",
    ] = "mean"
    malicious: int = Field(1, ge=0, description="sites that the rule is to bear; each rule needs several times as many")
    keep: int | None = Field(None, ge=1, description="for multi_krum: updates that are averaged; null: n - f - 2")
    radius: float | None = Field(
        None, gt=0, description="for the clippings: largest L2 norm of an update; null: the median of the sites'"
    )
    iterations: int = Field(1, ge=1, description="for centred_clipping: how often a round the centre moves")
    weighted: bool = Field(
        False, description="weigh by the strategy's `weighting`, which trusts what a site says of its rows"
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Combine:
        for key, kinds in self.belongs.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.kind not in kinds:
                raise refuse(f"{key} does not go with combine {self.kind}; it is for {', '.join(kinds)}")
        return self

    @property
    def sites_needed(self) -> int:
        """How many sites must give a model."""
        factor, constant = MINIMUM.get(self.kind, (0, 1))
        return factor * self.malicious + constant

    def sites_in_result(self, sites: int) -> int:
        """Return how many sites' models the next model is made of, of so many that train: of krum's it is one."""
        if self.kind == "krum":
            return 1
        if self.kind == "multi_krum":
            return min(sites, self.keep or max(sites - self.malicious - 2, 1))
        return sites
