"""Sections about cutting one table into simulated hospitals: `sites.partition`, one section a kind.

`v6_algorithm.data.partition` does the cutting; `v6-algorithm partition` takes the same sections.
"""

from __future__ import annotations

from math import exp
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from v6_algorithm.experiment.base import Section, refuse, short_form
from v6_algorithm.experiment.condition import parse_condition

Positive = Annotated[float, Field(gt=0)]
_BY = "the column whose labels are dealt; null: the target"


class _Sites(Section):
    sites: int = Field(ge=1, description="number of sites")


class _Labels(_Sites):
    by: str | None = Field(None, description=_BY)


class Iid(_Sites):
    """Every row goes to a site drawn at random; sites of one size."""

    kind: Literal["iid"] = "iid"


class Balanced(_Labels):
    """As many rows of each class as of any other, at sites of one size; what is over is left out."""

    kind: Literal["balanced"]
    rows: int | None = Field(None, ge=1, description="of all sites together; null: what the rarest class allows")
    replacement: bool = Field(False, description="draw rows of rare classes more than once")


class Unbalanced(_Labels):
    """The table's own class shares at every site, to the row; sites of one size."""

    kind: Literal["unbalanced"]
    rows: int | None = Field(None, ge=1, description="of all sites together; null: every row of the table")


class Sizes(Section):
    """Rows at random to sites of given sizes: shares, or numbers of rows where they add up to the table's."""

    kind: Literal["sizes"]
    sizes: list[Positive] = Field(min_length=1)
    sites: int | None = Field(None, description="their number, if it is to be checked")

    @model_validator(mode="after")
    def _count(self) -> Sizes:
        if self.sites not in (None, len(self.sizes)):
            raise refuse(f"sizes gives {len(self.sizes)} shares for {self.sites} sites")
        return self


class SizeSkew(_Sites):
    """Rows at random to sites whose sizes grow: site i gets a share of i, i squared or e to the i."""

    kind: Literal["size_skew"]
    growth: Literal["linear", "square", "exponential"] = "linear"

    @property
    def sizes(self) -> list[float]:
        """Return the share of each site."""
        if self.growth == "exponential":
            # Counted down from the largest: e to the 800 is no float.
            return [max(exp(number - self.sites), 1e-300) for number in range(1, self.sites + 1)]
        return [float(number ** (2 if self.growth == "square" else 1)) for number in range(1, self.sites + 1)]


class Dirichlet(_Labels):
    """Label skew: each class is dealt to the sites in shares drawn from Dirichlet(alpha)."""

    kind: Literal["dirichlet"]
    alpha: float = Field(0.5, gt=0, description="small is skewed")
    minimum_rows: int = Field(1, ge=1, description="a site with fewer is filled up from the largest")


class InnerDirichlet(Section):
    """Label skew at fixed sizes: each site's mix of classes is drawn from Dirichlet(alpha)."""

    kind: Literal["inner_dirichlet"]
    sites: int | None = Field(None, ge=1, description="their number, of one size each, where sizes is not given")
    sizes: list[Positive] | None = Field(None, min_length=1, description="shares, or numbers of rows")
    alpha: float = Field(0.5, gt=0, description="small is skewed")
    by: str | None = Field(None, description=_BY)

    @model_validator(mode="after")
    def _count(self) -> InnerDirichlet:
        if self.sizes is None and self.sites is None:
            raise refuse("kind inner_dirichlet needs `sites`, their number, or `sizes`")
        if self.sizes is not None and self.sites not in (None, len(self.sizes)):
            raise refuse(f"sizes gives {len(self.sizes)} shares for {self.sites} sites")
        return self


class Pathological(_Labels):
    """Every site holds rows of exactly so many classes, and every class is at some site."""

    kind: Literal["pathological"]
    classes_per_site: int = Field(2, ge=1)


class Shards(_Labels):
    """Rows sorted by class, cut into shards of one size, and so many shards drawn for each site."""

    kind: Literal["shards"]
    shards_per_site: int = Field(2, ge=1)


class PerClass(Section):
    """The same percentages of every class: site i gets the i-th percentage of each."""

    kind: Literal["per_class"]
    percentages: list[Positive] = Field(min_length=1)
    by: str | None = Field(None, description=_BY)

    @field_validator("percentages")
    @classmethod
    def _sum(cls, value: list[float]) -> list[float]:
        if abs(sum(value) - 100) > 1e-6:
            raise refuse(f"the percentages must add up to 100, not to {sum(value):g}")
        return value

    @property
    def sites(self) -> int:
        """Return their number."""
        return len(self.percentages)


def _texts(value: Any) -> Any:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


class Counts(Section):
    """Given numbers of rows, by label and site; rows that are not asked for are left out."""

    kind: Literal["counts"]
    counts: Annotated[dict[str, list[Annotated[int, Field(ge=0)]]], BeforeValidator(_texts)] = Field(
        description="label to one number for each site"
    )
    by: str | None = Field(None, description=_BY)

    @model_validator(mode="after")
    def _rectangle(self) -> Counts:
        lengths = {len(row) for row in self.counts.values()}
        if len(lengths) != 1 or not min(lengths):
            raise refuse("counts gives one number for each site, and the same number of sites for every label")
        if empty := [site for site, column in enumerate(zip(*self.counts.values(), strict=True), 1) if not sum(column)]:
            raise refuse(f"counts gives site {empty[0]} no row")
        return self

    @property
    def sites(self) -> int:
        """Return their number."""
        return len(next(iter(self.counts.values())))


class Natural(Section):
    """Every value of a column is a site."""

    kind: Literal["natural"]
    by: str = Field(description="the column that names the site")


class Grouped(_Sites):
    """All rows of one id go to one site: patients to hospitals."""

    kind: Literal["grouped"]
    by: str = Field(description="the column of the ids")


class Continuous(_Sites):
    """Rows in the order of a number, such as age, with noise; sites of one size."""

    kind: Literal["continuous"]
    by: str = Field(description="the column of the number")
    strictness: float = Field(1.0, ge=0, le=1, description="1: sorted; 0: at random")


class SliceList(Section):
    """A list to cut slices from: the rows for which every condition holds, or the groups that have them."""

    where: dict[str, str] = Field(default_factory=dict, description="column to condition, such as {target: '== 1'}")
    match: Literal["any", "all"] = Field("any", description="which groups: with any such row, or with no other")

    @field_validator("where")
    @classmethod
    def _conditions(cls, value: dict[str, str]) -> dict[str, str]:
        for condition in value.values():
            parse_condition(condition)
        return value


class Slice(Section):
    """Places `start` to `stop` (not included; null: the end) of a list that was shuffled once for all sites."""

    list: str
    start: int = Field(0, ge=0)
    stop: int | None = Field(None, ge=1)
    part: Literal["train", "validation", "test"] | None = Field(None, description="fills the column `part`")

    @model_validator(mode="after")
    def _order(self) -> Slice:
        if self.stop is not None and self.stop <= self.start:
            raise refuse(f"slice {self.start} to {self.stop} is empty")
        return self


class Slices(Section):
    """A plan: slices of shuffled lists of rows (or of groups, with `data.group`) for each named site."""

    kind: Literal["slices"]
    lists: dict[str, SliceList]
    sites: dict[str, Annotated[list[Slice], Field(min_length=1)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Slices:
        slices = [item for site in self.sites.values() for item in site]
        for item in slices:
            if item.list not in self.lists:
                raise refuse(f"there is no list '{item.list}'; the lists are: {', '.join(self.lists)}")
        if len({item.part is None for item in slices}) > 1:
            raise refuse("either every slice says its part, or none does")
        return self

    @property
    def has_parts(self) -> bool:
        """Say whether the plan also says which rows train and which test."""
        return next(iter(self.sites.values()))[0].part is not None


# Partitions that look at no label; at labels; and that a column or a plan gives.
OfSizes = Iid | Sizes | SizeSkew | Grouped | Continuous
OfLabels = Balanced | Unbalanced | Dirichlet | InnerDirichlet | Pathological | Shards | PerClass | Counts
Kind = OfSizes | OfLabels | Natural | Slices
Partition = Annotated[Annotated[Kind, Field(discriminator="kind")], short_form("kind", "iid")]


class PartitionedSource(Section):
    """One table cut into simulated hospitals."""

    source: str = Field(description="a file, or builtin:NAME; see data/builtin.py")
    images: str | None = Field(None, description="folder of the files that cells name; null: the table's")
    partition: Partition
