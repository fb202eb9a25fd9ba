"""The experiment: everything a researcher may ask for, with its defaults.

`run`, `submit` and `master` read one, and every request to a site carries the resolved form of it. A key that is
not listed here, or a value that cannot be, is refused before any site is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from v6_algorithm.errors import ExperimentError
from v6_algorithm.lookup import check_optimiser, check_scheduler, did_you_mean

CLASSIFICATION_METRICS = (
    "loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc", "auprc", "brier",
)  # fmt: skip
REGRESSION_METRICS = ("loss", "mse", "mae", "r2", "huber")
# What the built-in problems measure; a plug-in's problem may monitor any name.
PROBLEM_METRICS = {"classification": CLASSIFICATION_METRICS, "regression": REGRESSION_METRICS}
PARTS = ("train", "validation", "test")


class Section(BaseModel):
    """A part of the experiment; unknown keys are refused with the allowed ones named."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and cls.model_config.get("extra") == "forbid":
            for key in value:
                if key not in cls.model_fields:
                    allowed = ", ".join(cls.model_fields)
                    hint = did_you_mean(str(key), cls.model_fields)
                    raise _refuse(f"unknown key '{key}'{hint}; allowed: {allowed}")
        return value


def _refuse(message: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message})


def _short_form(key: str) -> BeforeValidator:
    """Let a section be written as one word: ``scaling: minmax`` for ``scaling: {kind: minmax}``."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


# -- where the data are --------------------------------------------------------------------------------------------


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
                raise _refuse("kind sizes needs `sizes`, one share for each site, such as [5, 3, 2]")
        elif self.sites is None:
            raise _refuse(f"kind {self.kind} needs `sites`, their number")
        elif self.sizes is not None:
            raise _refuse("`sizes` goes with kind sizes only")
        return self


class PartitionedSource(Section):
    """One table cut into simulated hospitals."""

    source: str = Field(description="a file, or builtin:breast_cancer, builtin:digits, builtin:diabetes, builtin:wine")
    partition: Partition


def _named_sites(value: Any) -> Any:
    if isinstance(value, dict):
        if not value:
            raise _refuse("no site is named")
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


# -- what is learned from them -------------------------------------------------------------------------------------


class Scaling(Section):
    """Feature scaling from the training rows: of all sites together, or of each site by itself."""

    kind: Literal["none", "standard", "minmax", "robust"] = "standard"
    scope: Literal["federation", "site"] = "federation"


class Missing(Section):
    """What happens to empty cells in numeric columns; statistics come from the training rows of all sites."""

    kind: Literal["error", "drop", "mean", "median", "constant"] = "mean"
    value: float = Field(0.0, description="for kind constant")


class Data(Section):
    """Which column is learned from which."""

    target: str
    positive: str | None = Field(None, description="makes the target 0/1: '> 0', '== yes', '!= 3'")
    features: list[str] | None = Field(None, description="null: every numeric column that is not used otherwise")
    exclude: list[str] = []
    categorical: list[str] = []
    group: str | None = Field(None, description="rows of one value, such as a patient, stay in one part")
    split_column: str | None = Field(None, description="a column that says train, validation or test")
    scaling: Annotated[Scaling, _short_form("kind")] = Scaling()
    missing: Annotated[Missing, _short_form("kind")] = Missing()

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
                raise _refuse(f"column '{column}' is the {role} and cannot be a feature as well")
        if self.features is not None and (both := set(self.features) & set(self.exclude)):
            raise _refuse(f"column '{min(both)}' is named in features and in exclude")
        for name, columns in (("features", self.features or []), ("categorical", self.categorical)):
            if len(set(columns)) < len(columns):
                raise _refuse(f"a column is named twice in {name}")
        if self.features is not None and not self.features and not self.categorical:
            raise _refuse("features is empty; give null for every numeric column")
        return self


_OPERATORS = ("<=", ">=", "==", "!=", "<", ">")


def parse_condition(text: str) -> tuple[str, float | str]:
    """Split a condition such as ``"> 0"`` into operator and value; order comparisons need a number."""
    for operator in _OPERATORS:
        if text.strip().startswith(operator):
            value = text.strip()[len(operator) :].strip().strip("'\"")
            try:
                return operator, float(value)
            except ValueError:
                if operator in ("==", "!=") and value:
                    return operator, value
                break
    raise _refuse("must be an operator (<=, >=, ==, !=, <, >) and a value, such as '> 0' or '== yes'")


class Problem(Section):
    """What is learned: the name of a built-in problem or of a plug-in."""

    model_config = ConfigDict(extra="allow", validate_default=True)
    kind: str

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        from importlib.metadata import entry_points

        known = [*PROBLEM_METRICS, *(entry.name for entry in entry_points(group="v6_algorithm.problems"))]
        if value not in known:
            raise _refuse(f"unknown problem{did_you_mean(value, known)}; allowed: {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _options(self) -> Problem:
        if self.kind in PROBLEM_METRICS and self.model_extra:
            raise _refuse(f"unknown key '{min(self.model_extra)}'; problem {self.kind} takes only kind")
        return self


class LinearModel(Section):
    """One linear layer: `logistic` for classification, `linear` for either."""

    kind: Literal["linear", "logistic"]


class MLP(Section):
    """Fully connected layers of the given widths."""

    kind: Literal["mlp"] = "mlp"
    hidden: list[Annotated[int, Field(ge=1)]] = [64, 32]
    norm: Literal["none", "layer", "group", "batch"] = "layer"
    dropout: float = Field(0.0, ge=0, lt=1)
    activation: Literal["relu", "gelu", "tanh", "elu", "silu"] = "relu"


Model = Annotated[Union[LinearModel, MLP], Field(discriminator="kind")]  # noqa: UP007 (3.10 cannot subscript X | Y here)


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
            raise _refuse(f"train, validation and test must add up to 1, not to {total:g}")
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


class Options(Section):
    """A torch class by name with its keyword arguments."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    kind: str
    what: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of the class."""
        return dict(self.model_extra or {})


class Optimizer(Options):
    """Any torch optimiser; `lr` and the rest are torch's own argument names."""

    @model_validator(mode="after")
    def _try(self) -> Optimizer:
        return _tried(self, check_optimiser)


class Scheduler(Options):
    """Any torch learning-rate scheduler; it steps once a round."""

    @model_validator(mode="after")
    def _try(self) -> Scheduler:
        return _tried(self, check_scheduler)


def _tried(options: Any, check: Any) -> Any:
    try:
        check(options.kind, options.options())
    except ValueError as error:
        raise _refuse(str(error)) from None
    return options


class Loss(Section):
    """The loss by name; `class_weights: balanced` counters rare classes with the federation's class counts."""

    kind: Literal["cross_entropy", "mse", "mae", "huber"]
    class_weights: Literal["balanced"] | list[Annotated[float, Field(gt=0)]] | None = None
    delta: float = Field(1.0, gt=0, description="for huber: where it turns linear, in units of the target")


class Training(Section):
    """The work of one site in one round: `local_epochs`, or `local_steps` if that is given."""

    local_epochs: int | None = Field(None, ge=1)
    local_steps: int | None = Field(None, ge=1)
    batch_size: int | None = Field(32, ge=1, description="null: all training rows in one batch")
    optimizer: Annotated[Optimizer, _short_form("kind")] = Optimizer.model_validate({"kind": "adam", "lr": 0.001})
    scheduler: Annotated[Scheduler, _short_form("kind")] | None = None
    loss: Annotated[Loss, _short_form("kind")] | None = Field(None, description="null: the problem's own")
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _one_of(self) -> Training:
        if self.local_epochs and self.local_steps:
            raise _refuse("give local_epochs or local_steps, not both")
        if not self.local_epochs and not self.local_steps:
            self.local_epochs = 1
        return self


class Strategy(Section):
    """How the sites' models become one: FedAvg, weighted by training rows or uniformly."""

    kind: Literal["fedavg"] = "fedavg"
    weighting: Literal["samples", "uniform"] = "samples"


class Stopping(Section):
    """Stop when the monitored validation metric has not improved by `min_delta` for `patience` rounds."""

    monitor: str = "loss"
    patience: int | None = Field(5, ge=1, description="null: never stop early")
    min_delta: float = Field(0.0001, ge=0)


class Participation(Section):
    """Who takes part, and how long the others wait."""

    fraction: float = Field(1.0, gt=0, le=1, description="share of the sites that train in a round")
    minimum: int = Field(2, ge=1, description="sites that must answer; fewer end the run")
    deadline_s: float = Field(3600, gt=0, description="seconds a round may take")
    poll_s: float = Field(0.5, gt=0, description="seconds between two looks for answers, on vantage6")


class Privacy(Section):
    """Reserved: secure aggregation and differential privacy. Guards belong to the node, not to this file."""


class Output(Section):
    """Which model is returned and tested: of the best validation round, or of the last."""

    model: Literal["best", "last"] = "best"


class Experiment(Section):
    """One experiment, validated and with every default filled in."""

    name: str = Field("experiment", min_length=1, max_length=100)
    seed: int = Field(0, ge=0, lt=2**63)
    mode: Literal["federated", "centralised", "local"] = "federated"
    sites: Sites | None = None
    data: Data
    problem: Annotated[Problem, _short_form("kind")] = Problem(kind="classification")
    model: Annotated[Model, _short_form("kind")] = MLP()
    split: Annotated[Split, _short_form("kind")] = Ratio()
    rounds: int = Field(20, ge=1)
    training: Training = Training()
    strategy: Annotated[Strategy, _short_form("kind")] = Strategy()
    stopping: Stopping = Stopping()
    participation: Participation = Participation()
    privacy: Privacy = Privacy()
    output: Output = Output()

    @model_validator(mode="after")
    def _together(self) -> Experiment:
        kind, loss = self.problem.kind, self.training.loss
        metrics = PROBLEM_METRICS.get(kind)
        if metrics and self.stopping.monitor not in metrics:
            raise _refuse(
                f"stopping.monitor is '{self.stopping.monitor}', which problem {kind} does not measure"
                f"{did_you_mean(self.stopping.monitor, metrics)}; allowed: {', '.join(metrics)}"
            )
        if kind == "regression" and self.model.kind == "logistic":
            raise _refuse("model.kind logistic is for classification; regression takes linear or mlp")
        if kind == "regression" and self.data.positive is not None:
            raise _refuse("data.positive makes a 0/1 target, which is for classification, not regression")
        if kind in PROBLEM_METRICS and loss and (loss.kind == "cross_entropy") != (kind == "classification"):
            raise _refuse(
                f"training.loss.kind is {loss.kind}; classification takes cross_entropy, regression mse, mae or huber"
            )
        if loss and loss.class_weights is not None and kind != "classification":
            raise _refuse("training.loss.class_weights is for classification")
        if (self.split.kind == "given") != (self.data.split_column is not None):
            raise _refuse("split.kind given and data.split_column go together: give both or neither")
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the experiment as plain JSON with every default filled in."""
        return self.model_dump(mode="json")

    def for_sites(self) -> dict[str, Any]:
        """Return what a site needs to know: all but where the other sites' data are."""
        return self.model_dump(mode="json", exclude={"sites"})

    @classmethod
    def parse(cls, content: Any, where: str = "experiment") -> Experiment:
        """Validate a mapping.

        Raises
        ------
        ExperimentError
            One line for each thing that is wrong: its key, what is wrong, the value given and what is allowed.
        """
        if not isinstance(content, dict):
            raise ExperimentError(f"{where}: must be a mapping of keys to values, such as `data: {{target: outcome}}`")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            lines = [_explain(item) for item in error.errors()]
            raise ExperimentError("\n".join(f"{where}: {line}" for line in lines)) from None

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> Experiment:
        """Read an experiment file and apply ``key.path=value`` overrides (values are YAML)."""
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ExperimentError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
        for override in overrides or []:
            _apply(content, override)
        return cls.parse(content, where=path.name)


def _apply(content: Any, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ExperimentError(f"--set {override}: must be key.path=value, such as training.optimizer.lr=0.01")
    *parents, last = key.strip().split(".")
    for parent in parents:
        if isinstance(content, dict):
            below = content.get(parent)
            # A section in its short form (`optimizer: adam`) keeps its kind when a key is set beside it.
            content[parent] = below if isinstance(below, dict) else {} if below is None else {"kind": below}
            content = content[parent]
    if not isinstance(content, dict):
        raise ExperimentError(f"--set {override}: the experiment file is not a mapping")
    try:
        content[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ExperimentError(f"--set {override}: the value is not valid YAML") from None


def _explain(error: Any) -> str:
    # Union branches show up in pydantic's locations as class or tag names; a researcher never wrote those.
    path = ".".join(str(part) for part in error["loc"] if str(part) not in _UNION_TAGS)
    message = error["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{path}: is required"
    if error["type"] == "union_tag_invalid":
        tags = error["ctx"]["expected_tags"].replace("'", "")
        return f"{path}.kind: unknown value '{error['ctx']['tag']}'; allowed: {tags}"
    if error["type"] == "union_tag_not_found":
        return f"{path}: `kind` is required"
    given = repr(error["input"])
    given = f" (given: {given})" if len(given) <= 80 and error["type"] != "refused" else ""
    if error["type"] == "refused" and isinstance(error["input"], (str, int, float)):
        given = f" (given: {error['input']!r})"
    return f"{path}: {message}{given}" if path else f"{message}{given}"


_UNION_TAGS = {"linear", "logistic", "mlp", "ratio", "kfold", "given", "partitioned", "named"}
