"""Sections about data: where the tables are, which columns are used and how, and which rows train or test."""

from __future__ import annotations

from math import isfinite, nan
from typing import Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from v6_algorithm.experiment.base import Section, refuse, short_form

PARTS = ("train", "validation", "test")


class Source(Section):
    """One table: a file (path relative to the experiment file) or a database with a query."""

    uri: str
    type: Literal["csv", "parquet", "excel", "sql"] | None = Field(None, description="taken from the ending if absent")
    query: str | None = Field(None, description="for databases, SQL")
    sheet_name: str | None = Field(None, description="for excel files")


class Partition(Section):
    """How `run` cuts one table into sites: at random, at random with given sizes, or with skewed labels."""

    kind: Literal["iid", "sizes", "dirichlet"] = "iid"
    sites: int | None = Field(None, ge=1)
    sizes: list[Annotated[float, Field(gt=0)]] | None = Field(None, description="kind sizes: shares, one a site")
    alpha: float = Field(0.5, gt=0, description="kind dirichlet: small is skewed")

    @model_validator(mode="after")
    def _count(self) -> Partition:
        if self.kind == "sizes":
            if not self.sizes or self.sites not in (None, len(self.sizes)):
                raise refuse("kind sizes needs `sizes`, one share for each site, such as [5, 3, 2]")
        elif self.sites is None:
            raise refuse(f"kind {self.kind} needs `sites`, their number")
        elif self.sizes is not None:
            raise refuse("`sizes` goes with kind sizes only")
        return self


class PartitionedSource(Section):
    """One table cut into simulated hospitals."""

    source: str = Field(description="a file, or builtin:breast_cancer, builtin:digits, builtin:diabetes, builtin:wine")
    partition: Partition


def _named_sites(value: Any) -> Any:
    if isinstance(value, dict):
        if not value:
            raise refuse("no site is named")
        return {str(name): {"uri": site} if isinstance(site, str) else site for name, site in value.items()}
    return value


def _form_of_sites(value: Any) -> str:
    partitioned = isinstance(value, PartitionedSource) or (
        isinstance(value, dict) and "source" in value and "partition" in value
    )
    return "partitioned" if partitioned else "named"


Sites = Annotated[
    Annotated[PartitionedSource, Tag("partitioned")]
    | Annotated[dict[str, Source], BeforeValidator(_named_sites), Tag("named")],
    Discriminator(_form_of_sites),
]


class Scaling(Section):
    """Feature scaling from the training rows: of all sites together, or of each site by itself."""

    kind: Literal["none", "standard", "minmax", "robust"] = "standard"
    scope: Literal["federation", "site"] = "federation"


class Harmonisation(Section):
    """Whether the sites' own locations and scales are taken out of numeric features, by federated ComBat.

    `covariates` are what is to be kept, such as age and sex: numeric columns, features or not, or columns of
    `categorical`. A site without training rows (a new one, or the one left out) has its location and scale estimated
    from all its rows, without their targets.
    """

    kind: Literal["none", "combat"] = "none"
    covariates: list[str] = Field(default_factory=list)

    @field_validator("kind", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value == "zscore":
            raise refuse(
                "kind zscore, by site, is `scaling: {kind: standard, scope: site}`; allowed here: none, combat"
            )
        return value

    @model_validator(mode="after")
    def _needed(self) -> Harmonisation:
        if self.covariates and self.kind == "none":
            raise refuse("covariates go with kind combat")
        if len(set(self.covariates)) < len(self.covariates):
            raise refuse("a column is named twice in covariates")
        return self


class Missing(Section):
    """What happens to empty cells in numeric columns; statistics come from the training rows of all sites."""

    kind: Literal["error", "drop", "mean", "median", "constant"] = "mean"
    value: float = Field(0.0, description="for kind constant")


class Data(Section):
    """Which column is learned from which."""

    target: str
    positive: str | None = Field(None, description="makes the target 0/1: '> 0', '== yes', '!= 3'")
    features: list[str] | None = Field(None, description="null: every numeric column that is not used otherwise")
    exclude: list[str] = Field(default_factory=list)
    categorical: list[str] = Field(default_factory=list)
    group: str | None = Field(None, description="rows of one value, such as a patient, stay in one part")
    split_column: str | None = Field(None, description="a column that says train, validation or test")
    scaling: Annotated[Scaling, short_form("kind")] = Scaling()
    missing: Annotated[Missing, short_form("kind")] = Missing()
    harmonisation: Annotated[Harmonisation, short_form("kind")] = Harmonisation()

    @field_validator("positive")
    @classmethod
    def _condition(cls, value: str | None) -> str | None:
        if value is not None:
            parse_condition(value)
        return value

    @model_validator(mode="after")
    def _disjoint(self) -> Data:
        reserved = {"target": self.target, "group": self.group, "split_column": self.split_column}
        for role, column in reserved.items():
            if column in (self.features or []) or column in self.categorical:
                raise refuse(f"column '{column}' is the {role} and cannot be a feature as well")
            if column in self.harmonisation.covariates:
                raise refuse(f"column '{column}' is the {role} and cannot be a covariate of harmonisation as well")
        for name, columns in (("features", self.features or []), ("categorical", self.categorical)):
            if both := set(columns) & set(self.exclude):
                raise refuse(f"column '{min(both)}' is named in {name} and in exclude")
            if len(set(columns)) < len(columns):
                raise refuse(f"a column is named twice in {name}")
        if self.harmonisation.kind == "combat" and self.scaling.scope == "site":
            raise refuse(
                "scaling.scope site takes the sites' differences out as well; with combat, use scope federation"
            )
        if self.features is not None and not self.features and not self.categorical:
            raise refuse("features is empty; give null for every numeric column")
        return self


_OPERATORS = ("<=", ">=", "==", "!=", "<", ">")


def parse_condition(text: str) -> tuple[str, float | str]:
    """Split a condition such as ``"> 0"`` into operator and value; order comparisons need a number."""
    for operator in _OPERATORS:
        if text.strip().startswith(operator):
            value = text.strip()[len(operator) :].strip().strip("'\"")
            try:
                number = float(value)
            except ValueError:
                number = nan
            if isfinite(number):
                return operator, number
            if operator in ("==", "!=") and value:
                return operator, value
            break
    raise refuse("must be an operator (<=, >=, ==, !=, <, >) and a value, such as '> 0' or '== yes'")


class Ratio(Section):
    """Three parts by share."""

    kind: Literal["ratio"] = "ratio"
    train: float = Field(0.6, gt=0, le=1)
    validation: float = Field(0.2, ge=0, lt=1)
    test: float = Field(0.2, ge=0, lt=1)
    stratify: bool = True

    @model_validator(mode="after")
    def _sum(self) -> Ratio:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise refuse(f"train, validation and test must add up to 1, not to {total:g}")
        return self


class KFold(Section):
    """Cross-validation: part i is tested, part i + 1 validates, the others train."""

    kind: Literal["kfold"]
    folds: int = Field(5, ge=3, le=100)
    stratify: bool = True


class Given(Section):
    """The parts are in `data.split_column`."""

    kind: Literal["given"]


Split = Annotated[Union[Ratio, KFold, Given], Field(discriminator="kind")]  # noqa: UP007
