"""Sections about data: where the tables are, which columns are used and how, and which rows train or test."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from v6_algorithm.experiment.base import Section, refuse, short_form
from v6_algorithm.experiment.condition import Condition
from v6_algorithm.experiment.imaging.images import Image
from v6_algorithm.experiment.imaging.names import Template
from v6_algorithm.experiment.missing_values import MissingValues
from v6_algorithm.experiment.partition import PartitionedSource
from v6_algorithm.experiment.rows import Rows
from v6_algorithm.experiment.table_form import (
    Decimal,
    Encoding,
    Separator,
    TableForm,
    Thousands,
    Words,
    check_marks,
)
from v6_algorithm.experiment.targets import ShortTask, SurvivalTarget, Target
from v6_algorithm.experiment.where import Where

PARTS = ("train", "validation", "test")


class Source(Section):
    """One table: a file (path relative to the experiment file) or a database with a query."""

    uri: str
    images: str | None = Field(None, description="folder of the files that the table's cells name; null: the table's")
    type: Literal["csv", "parquet", "excel", "npz", "sql"] | None = Field(
        None, description="taken from the ending if absent"
    )
    query: str | None = Field(None, description="for databases, SQL")
    sheet_name: str | None = Field(None, description="for excel files")
    separator: Separator = Field(None, description="as in data, for this table")
    decimal: Decimal = Field(None, description="as in data, for this table")
    thousands: Thousands = Field(None, description="as in data, for this table")
    encoding: Encoding = Field(None, description="as in data, for this table")


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

    kind: Literal["error", "drop", "mean", "median", "constant", "impute"] = Field(
        "mean", description="impute: multiple imputation by chained equations, of models glm and cox"
    )
    value: float = Field(0.0, description="for kind constant")
    imputations: int = Field(10, ge=2, le=100, description="for kind impute: tables that are made")
    iterations: int = Field(5, ge=1, le=50, description="for kind impute: sweeps over the columns, a call each")
    indicators: list[str] = Field(
        default_factory=list,
        description="columns of numbers of which an input says whether the cell was empty; for mean, median, constant",
    )

    @model_validator(mode="after")
    def _filled(self) -> Missing:
        if self.indicators and self.kind not in ("mean", "median", "constant"):
            raise refuse(f"missing.indicators goes with kind mean, median or constant, not {self.kind}")
        if len(set(self.indicators)) < len(self.indicators):
            raise refuse("a column is named twice in missing.indicators")
        return self


# What is added to a column's name for the input that says whether its cell was empty.
_INDICATOR = " missing"


def _form_of_columns(value: Any) -> str:
    return "several" if isinstance(value, (list, tuple)) else "word"


Columns = Annotated[
    Annotated[str, Tag("word")] | Annotated[list[str], Field(min_length=1), Tag("several")],
    Discriminator(_form_of_columns),
]


class Sequence(Section):
    """A column (or array of an npz file) whose cells are time series: a list over time, of numbers or of lists."""

    column: str
    axes: Literal["time_channels", "channels_time"] = "time_channels"
    length: Literal["shortest", "longest"] = Field(
        "shortest",
        description="series are cut to the federation's shortest, or none is and the network stops at its end",
    )


class Data(Section):
    """Which column is learned from which."""

    targets: dict[str, ShortTask] | None = Field(None, description="for multitask: columns and what is learned of each")
    target: Target | None = Field(
        None,
        description="column; for survival {duration: T, event: E}, and entry: S of rows that join late",
    )
    positive: Condition | None = Field(None, description="makes the target, or the event, 0/1: '> 0', '== yes', '!= 3'")
    features: list[str] | None = Field(None, description="null: every numeric column that is not used otherwise")
    sequence: Annotated[Sequence, short_form("column")] | None = Field(None, description="time series, not features")
    image: Annotated[Image, short_form("column")] | None = Field(None, description="images or volumes, not features")
    measures: str | None = Field(
        None,
        description="a column that names a FreeSurfer table or folder of each subject, whose measures become columns",
    )
    rows: Annotated[Rows, short_form("kind")] | None = Field(None, description="an installed kind of row, not features")
    exclude: list[str] = Field(default_factory=list)
    categorical: list[str] = Field(default_factory=list)
    group: str | None = Field(None, description="rows of one value, such as a patient, stay in one part")
    synthetic: str | None = Field(
        None, description="a column that is 1 where a row is made, not a patient's: such rows only train"
    )
    split_column: Columns | None = Field(
        None, description="a column that says train, validation, test or unused; a list of them: one for each fold"
    )
    where: Where = Field(None, description="rows that are used: {age: '>= 18'}; any and all take lists of such")
    load_limit: int | None = Field(None, ge=1, description="most rows of a site that are used, drawn by class")
    scaling: Annotated[Scaling, short_form("kind")] = Scaling()
    target_scaling: Literal["none", "standard"] = Field(
        "none", description="for regression: learn the distance from the training rows' mean, in standard deviations"
    )
    missing_values: MissingValues = Field(
        None, description="what stands for an empty cell: [-9, 999] in every column, or {chol: [0]} in some"
    )
    different_labels: Literal["stop", "allow"] = Field(
        "stop", description="when the sites have different sets of labels or categories, such as 0/1 and 1/2"
    )
    not_missing: Words = Field(default_factory=list, description="words that are no empty cells: [None, NA]")
    missing: Annotated[Missing, short_form("kind")] = Missing()
    separator: Separator = Field(
        None, description="between the cells of text files; a space is any number of them; null: a comma"
    )
    decimal: Decimal = Field(None, description="mark of decimals in text; null: a point")
    thousands: Thousands = Field(None, description="mark of thousands in text; null: none")
    encoding: Encoding = Field(None, description="of text files, such as latin-1 or utf-16; null: UTF-8")
    harmonisation: Annotated[Harmonisation, short_form("kind")] = Harmonisation()

    @model_validator(mode="before")
    @classmethod
    def _with_indicators(cls, content: Any) -> Any:
        """Count indicators of empty cells among the categories, which is what they are once the table is read."""
        missing = content.get("missing") if isinstance(content, dict) else None
        given = missing.get("indicators") if isinstance(missing, dict) else getattr(missing, "indicators", None)
        categorical = content.get("categorical") or [] if isinstance(content, dict) else []
        if not isinstance(given, list) or not isinstance(categorical, list):
            return content
        names = [f"{name}{_INDICATOR}" for name in given]
        return content | {"categorical": [*categorical, *(name for name in names if name not in categorical)]}

    @property
    def indicators(self) -> dict[str, str]:
        """Inputs that say whether a cell was empty, and the columns whose cells these are."""
        return {f"{column}{_INDICATOR}": column for column in self.missing.indicators}

    @field_validator("target", mode="before")
    @classmethod
    def _given(cls, value: Any, info: ValidationInfo) -> Any:
        # A key `targets` that was refused is not among the data: one mistake is told once.
        if value is None and info.data.get("targets", False) is None:
            raise refuse("is required")
        if value is not None and info.data.get("targets"):
            raise refuse("give target or targets, not both")
        return value

    @property
    def target_columns(self) -> dict[str, str]:
        """Columns that are learned, by the key of this section that names them."""
        if self.targets is not None:
            return {f"targets.{column}": column for column in self.targets}
        if isinstance(self.target, SurvivalTarget):
            columns = {"target.duration": self.target.duration, "target.event": self.target.event}
            return columns | ({"target.entry": self.target.entry} if self.target.entry is not None else {})
        return {"target": self.target or ""}

    @property
    def form(self) -> TableForm:
        """How the sites' tables are written."""
        named = self.image.column if self.image is not None else None
        codes = [*self.categorical, self.group, *self.target_columns.values(), self.measures, named]
        whole = [section.column for section in (self.sequence, self.image) if section is not None and section.column]
        return replace(TableForm.of(self), whole=tuple(whole), measures=self.measures, codes=tuple(filter(None, codes)))

    @property
    def fixed_scale(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation of each channel, where they are given in place of federated statistics."""
        if self.image is None or self.image.mean is None or self.image.sd is None:
            return None
        return self.image.mean, self.image.sd

    @property
    def scaled_targets(self) -> list[str]:
        """Columns that are learned in standard deviations; not counts, which have a logarithm in place of a scale."""
        if self.target_scaling == "none":
            return []
        if self.targets is not None:
            return [column for column, task in self.targets.items() if task.loss not in ("cross_entropy", "poisson")]
        return list(self.target_columns.values())

    @model_validator(mode="after")
    def _disjoint(self) -> Data:
        if self.targets is not None and len(self.targets) < 2:
            raise refuse("targets needs two columns or more, such as {sex: classification, age: regression}")
        reserved = [*self.target_columns.items(), ("group", self.group), ("synthetic", self.synthetic)]
        reserved += [("split_column", column) for column in self.split_columns]
        if self.synthetic is not None and [column for _, column in reserved].count(self.synthetic) > 1:
            raise refuse(
                f"column '{self.synthetic}' says which rows are synthetic and cannot be something else as well"
            )
        if isinstance(self.target, SurvivalTarget) and self.target.competing:
            if self.positive is None:
                raise refuse("target.competing goes with data.positive, which says the event itself, such as '== 1'")
            if self.positive in self.target.competing:
                raise refuse(f"'{self.positive}' is both the event (data.positive) and in target.competing")
        if self.group is not None and self.group in self.target_columns.values():
            raise refuse(f"column '{self.group}' is the target and cannot be the group, whose rows stay in one part")
        if self.missing.indicators and (self.image or self.sequence or self.rows):
            raise refuse("missing.indicators is of columns of numbers; leave it out")
        if self.image is not None:
            self._check_image(self.image, [column for _, column in reserved])
        if self.rows is not None and (self.features or self.categorical or self.sequence or self.image):
            raise refuse("rows is all that is learned from; leave out features, categorical, sequence and image")
        if self.sequence is not None:
            if self.features or self.categorical:
                raise refuse("sequence is all that is learned from; leave out features and categorical")
            if self.harmonisation.kind != "none":
                raise refuse("harmonisation is of columns of numbers, of which time series have none; leave it out")
            if isinstance(self.missing_values, list) or self.sequence.column in (self.missing_values or {}):
                raise refuse("missing_values is of columns of single values; in time series write NaN")
            if self.sequence.column in [column for _, column in reserved]:
                raise refuse(f"column '{self.sequence.column}' is the sequence and cannot be something else as well")
        check_marks(self.decimal, self.thousands, self.separator)
        for name in self.missing.indicators:
            if name in self.categorical or (self.features is not None and name not in self.features):
                raise refuse(f"column '{name}' (missing.indicators) is no numeric feature; name it in features")
        for role, column in reserved:
            if column in (self.features or []) or column in self.categorical:
                raise refuse(f"column '{column}' is the {role} and cannot be a feature as well")
            if column in self.harmonisation.covariates:
                raise refuse(f"column '{column}' is the {role} and cannot be a covariate of harmonisation as well")
        for name, columns in (
            ("features", self.features or []),
            ("categorical", self.categorical),
            ("split_column", self.split_columns),
        ):
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

    def _check_image(self, image: Image, reserved: list[str | None]) -> None:
        """Refuse what does not go with images."""
        if self.sequence is not None:
            raise refuse("image and sequence do not go together: give one")
        if self.categorical or (self.features and image.column is not None):
            raise refuse("image is all that is learned from; leave out features and categorical")
        if image.column is not None and image.column in reserved:
            raise refuse(f"column '{image.column}' is the image and cannot be something else as well")
        if image.files is not None:
            fields = Template.parse(image.files).fields
            if unknown := [column for column in reserved if column is not None and column not in fields]:
                raise refuse(f"column '{unknown[0]}' is no field of image.files, which has: {', '.join(fields)}")
        if self.harmonisation.kind != "none":
            raise refuse("harmonisation is of columns of numbers, of which images have none; leave it out")
        if self.scaling.kind == "robust" or self.scaling.scope == "site":
            raise refuse("scaling of images is none, standard or minmax, of scope federation")
        if self.missing.kind != "mean" or self.missing_values is not None:
            raise refuse("missing and missing_values are of cells; of images see data.image.tolerance")

    @property
    def split_columns(self) -> list[str]:
        """The columns that say each row's part, one for each fold; none where the split is made from the seed."""
        columns = self.split_column or []
        return [columns] if isinstance(columns, str) else columns


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
    """Cross-validation: part i is tested, part i + 1 validates, the others train; each repeat deals the rows anew."""

    kind: Literal["kfold"]
    folds: int = Field(5, ge=3, le=100)
    repeats: int = Field(1, ge=1, le=100)
    stratify: bool = True


class LeaveOneSiteOut(Section):
    """A fold for each site: all its rows are tested, and the others train, but for the share that validates."""

    kind: Literal["leave_one_site_out"]
    validation: float = Field(0.2, ge=0, lt=1, description="share of the rows of each site that trains")
    stratify: bool = True


class Given(Section):
    """The parts are in `data.split_column`: as words, or with `folds` as the number of the fold that tests a row."""

    kind: Literal["given"]
    folds: int | None = Field(None, ge=3, le=100, description="the column holds 0 to folds - 1, used as by kfold")


class Tested(Section):
    """All rows are tested and none trains: a finished model is measured, as `run --test` and `submit --test` ask."""

    kind: Literal["tested"]
    models: list[Annotated[str, Field(pattern="^[0-9a-f]{32}$")]] = Field(
        default_factory=list, description="digests of the models that sites measure, which no other takes the place of"
    )


Split = Annotated[Union[Ratio, KFold, LeaveOneSiteOut, Given, Tested], Field(discriminator="kind")]  # noqa: UP007
