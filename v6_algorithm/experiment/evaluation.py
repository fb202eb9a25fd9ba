"""How a model is judged at the end, beside the metrics of all rows: groups of rows, and sensitivities."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from v6_algorithm.experiment.base import Section, refuse, short_form

# The hospitals are groups without being asked for.
SITE = "site"
# Rows without a value in a column are a group of it.
NOT_KNOWN = "not known"
MOST_GROUPS = 20
MOST_SUBGROUPS = 10
# Letters of a group's name: a site cuts it there, for a cell of prose is none, and `master` takes none that is longer.
LONGEST_GROUP_NAME = 60


class Subgroup(Section):
    """A column whose values divide the rows into groups; numbers are divided by `bands`."""

    column: str = Field(min_length=1)
    bands: list[float] | None = Field(
        None, min_length=1, max_length=MOST_GROUPS - 1, description="where a new group begins, such as [40, 60]"
    )

    @field_validator("column")
    @classmethod
    def _other(cls, value: str) -> str:
        if value == SITE:
            raise refuse("the sites are compared without being named here; rename a column of that name")
        return value

    @field_validator("bands")
    @classmethod
    def _increasing(cls, value: list[float] | None) -> list[float] | None:
        if value and any(later <= earlier for earlier, later in pairwise(value)):
            raise refuse("bands must increase, such as [40, 60]")
        return value

    @property
    def band_names(self) -> list[str]:
        """The names of the groups that `bands` makes, the lowest first; none where the column's values are groups."""
        if not self.bands:
            return []
        between = [f"{low:g} to under {high:g}" for low, high in pairwise(self.bands)]
        return [f"under {self.bands[0]:g}", *between, f"{self.bands[-1]:g} and over"]


class Evaluation(Section):
    """What the kept model's measurement tells beside the metrics of all rows."""

    subgroups: list[Annotated[Subgroup, short_form("column")]] = Field(
        default_factory=list,
        max_length=MOST_SUBGROUPS,
        description="such as [sex, {column: age, bands: [60]}]",
    )
    specificity: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=lambda: [0.9, 0.95],
        max_length=10,
        description="of two classes: at which the sensitivity is told, as sensitivity_at_90",
    )

    by: str | None = Field(
        None, min_length=1, description="of describe: groups of Table 1 and survival curves, a column or site"
    )

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        for key in ("subgroups", "specificity"):
            if isinstance(value, dict) and isinstance(value.get(key), (str, int, float)):
                raise refuse(f"{key} must be a list, such as [{value[key]}]")
        return value

    @model_validator(mode="after")
    def _once(self) -> Evaluation:
        columns = self.columns
        for column in columns:
            # Two cuts of one column are told apart by the rows between them, which may be one.
            if columns.count(column) > 1:
                raise refuse(f"column '{column}' is named twice in subgroups")
        if len(set(self.specificity)) < len(self.specificity):
            raise refuse("a specificity is given twice")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that groups are made of."""
        return [subgroup.column for subgroup in self.subgroups]
