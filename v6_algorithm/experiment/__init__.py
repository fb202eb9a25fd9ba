"""The experiment: everything a researcher may ask for, with its defaults.

`run`, `submit` and `master` read one, and every request to a site carries the resolved form of it. A key that is
not listed here, or a value that cannot be, is refused before any site is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment.base import Section, refuse, short_form
from v6_algorithm.experiment.condition import parse_condition
from v6_algorithm.experiment.data import (
    PARTS,
    Data,
    Given,
    KFold,
    LeaveOneSiteOut,
    Ratio,
    Sequence,
    Sites,
    Source,
    Split,
    Tested,
)
from v6_algorithm.experiment.evaluation import Evaluation, Subgroup
from v6_algorithm.experiment.imaging.augmentation import AUGMENTATIONS
from v6_algorithm.experiment.imaging.generators import DCGAN, GanOptions, StyleGAN2
from v6_algorithm.experiment.imaging.images import Image
from v6_algorithm.experiment.imaging.networks import CNN, MnistCNN, MonaiNetwork, VBMNet, with_defaults_of_problem
from v6_algorithm.experiment.inference import Cox, Glm, check_inference, with_defaults_of_inference
from v6_algorithm.experiment.learning import (
    MLP,
    LinearModel,
    Loss,
    Model,
    Output,
    OwnModel,
    Participation,
    Personal,
    Recurrent,
    Start,
    Stopping,
    Training,
)
from v6_algorithm.experiment.optimisers import did_you_mean
from v6_algorithm.experiment.partition import Partition, PartitionedSource
from v6_algorithm.experiment.plateau import complete_plateau
from v6_algorithm.experiment.privacy import Privacy
from v6_algorithm.experiment.privacy.differential_privacy import check_differential_privacy
from v6_algorithm.experiment.privacy.secure_aggregation import check_secure_aggregation
from v6_algorithm.experiment.problems import (
    CLASSIFICATION_METRICS,
    PROBLEM_METRICS,
    REGRESSION_METRICS,
    SURVIVAL_METRICS,
    NoOptions,
    Problem,
    SurvivalOptions,
    check_together,
    with_whole_risk_sets,
)
from v6_algorithm.experiment.reading import check_size, read_file
from v6_algorithm.experiment.strategy.compression import STAGES
from v6_algorithm.experiment.strategy.kinds import (
    STRATEGIES,
    FedAvg,
    Strategy,
    check_pipeline,
    check_strategy,
    with_one_step,
)
from v6_algorithm.experiment.strategy.private import PrivateSection, check_private
from v6_algorithm.experiment.targets import SurvivalTarget, Task
from v6_algorithm.experiment.tuning import Tune

__all__ = [
    "CLASSIFICATION_METRICS",
    "CNN",
    "DCGAN",
    "MLP",
    "PARTS",
    "PROBLEM_METRICS",
    "REGRESSION_METRICS",
    "SURVIVAL_METRICS",
    "Cox",
    "Data",
    "Evaluation",
    "Experiment",
    "GanOptions",
    "Given",
    "Glm",
    "Image",
    "KFold",
    "LeaveOneSiteOut",
    "LinearModel",
    "Loss",
    "MnistCNN",
    "MonaiNetwork",
    "NoOptions",
    "OwnModel",
    "Partition",
    "PartitionedSource",
    "Ratio",
    "Recurrent",
    "Section",
    "Sequence",
    "Source",
    "Strategy",
    "StyleGAN2",
    "Subgroup",
    "SurvivalOptions",
    "SurvivalTarget",
    "Task",
    "Tested",
    "Training",
    "VBMNet",
    "parse_condition",
    "parse_partition",
]


class Experiment(Section):
    """One experiment, validated and with every default filled in."""

    name: str = Field("experiment", min_length=1, max_length=100)
    seed: int = Field(0, ge=0, lt=2**63)
    mode: Literal["federated", "centralised", "local"] = "federated"
    sites: Sites | None = None
    data: Data
    problem: Annotated[Problem, short_form("kind")] = Problem(kind="classification")
    model: Annotated[Model, short_form("kind", "mlp")] = MLP()
    split: Annotated[Split, short_form("kind", "ratio")] = Ratio()
    rounds: int = Field(20, ge=1)
    start: Annotated[Start, short_form("weights")] = Start()
    training: Training = Field(default_factory=Training)
    strategy: Annotated[Strategy, short_form("kind", "fedavg")] = FedAvg()
    stopping: Stopping = Stopping()
    participation: Participation = Participation()
    resident: bool = Field(True, description="sites keep torch, rows and model in memory between rounds, on vantage6")
    pipeline: int = Field(
        0,
        ge=0,
        le=1,
        description="rounds whose requests go out before the answers of the round before are in, on the newest model "
        "that is finished; 1 hides the way over the network, and training goes by models that are one round older",
    )
    privacy: Privacy = Privacy()
    evaluation: Evaluation = Field(default_factory=Evaluation)
    central: Annotated[Source, short_form("uri")] | None = None
    personal: Annotated[Personal, short_form("kind")] | None = None
    output: Output = Output()
    tune: Tune | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_others(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return with_whole_risk_sets(with_defaults_of_problem(with_one_step(with_defaults_of_inference(value))))

    @model_validator(mode="after")
    def _together(self) -> Experiment:
        check_together(self)
        complete_plateau(self)
        check_strategy(self)
        check_pipeline(self)
        check_private(self)
        check_inference(self)
        check_secure_aggregation(self)
        check_differential_privacy(self)
        if (self.split.kind == "given") != (self.data.split_column is not None):
            raise refuse("split.kind given and data.split_column go together: give both or neither")
        if self.split.kind == "given" and self.split.folds and len(self.data.split_columns) > 1:
            raise refuse("split.folds goes with one data.split_column, which holds the numbers of the folds")
        if self.split.kind == "leave_one_site_out" and self.mode == "local":
            raise refuse("split leave_one_site_out tests what other sites trained: mode federated or centralised")
        if self.central and self.strategy.private and self.mode == "federated":
            raise refuse(
                "central and strategy.private do not go together: the layers that stay at the sites are missing from "
                "the model that is returned"
            )
        if self.personal and self.mode != "federated":
            raise refuse(f"personal is for mode federated; in mode {self.mode} there is no shared model")
        if self.output.average_from and (self.output.model != "swa" or self.output.average_from > self.rounds):
            raise refuse("output.average_from is for output.model swa, and must not be after the last round")
        return self

    @property
    def private(self) -> PrivateSection | None:
        """Which layers stay at the sites; none where there is nobody to share the others with."""
        return self.strategy.private if self.mode == "federated" else None

    @property
    def pipelined(self) -> bool:
        """Whether a round's requests go out before the answers of the one before are in; of sites that are apart."""
        return self.pipeline > 0 and self.mode == "federated"

    @property
    def in_the_clear(self) -> Experiment:
        """The experiment without masks and noise, for tables that are on the researcher's machine."""
        clear = {"secure_aggregation": None, "differential_privacy": None}
        return self.model_copy(update={"privacy": self.privacy.model_copy(update=clear)})

    def resolved(self) -> dict[str, Any]:
        """Return the experiment as plain JSON with every default filled in."""
        return self.model_dump(mode="json")

    @property
    def may_join(self) -> bool:
        """Whether a site that was away at the preparation may join later.

        None may where folds, harmonisation or event times are of certain hospitals, or masked sums of certain sites.
        """
        closed = (
            self.split.kind == "leave_one_site_out"
            or self.data.harmonisation.kind != "none"
            or self.privacy.secure_aggregation is not None
            or (isinstance(self.model, Cox) and self.model.strata == "none")
        )
        return self.participation.join and self.mode == "federated" and not closed

    def for_sites(self) -> dict[str, Any]:
        """Return what a site needs to know: all but where the other sites' data and the researcher's files are."""
        return self.model_dump(mode="json", exclude={"sites", "central", "tune", "resident", "pipeline"}) | {
            "start": self.start.for_sites()
        }

    def for_task(self) -> dict[str, Any]:
        """Return what a task carries: what was given, so that an image of another version can fill in its defaults."""
        return self.model_dump(mode="json", exclude={"sites", "central"}, exclude_unset=True)

    def check_rows_stay(self) -> None:
        """Refuse, for a network, a mode that needs all rows in one place."""
        if self.mode == "centralised":
            raise ExperimentError(
                "mode: centralised pools the rows, which never leave a node; allowed: federated, local"
            )

    @classmethod
    def parse(cls, content: Any, where: str = "experiment", *, checked: bool = False) -> Experiment:
        """Validate a mapping.

        Parameters
        ----------
        content
            The mapping.
        where
            What to call it in messages.
        checked
            Leave out trying the optimiser's options on torch, which takes seconds to load: `master` has done it.

        Raises
        ------
        ExperimentError
            One line for each thing that is wrong: its key, what is wrong, the value given and what is allowed.
        """
        if not isinstance(content, dict):
            raise ExperimentError(f"{where}: must be a mapping of keys to values, such as `data: {{target: outcome}}`")
        check_size(content, where)
        try:
            try:
                return cls.model_validate(content, context={"checked": checked})
            except ValidationError as error:
                lines = [explain(item) for item in error.errors()]
                raise ExperimentError("\n".join(f"{where}: {line}" for line in lines)) from None
        except UnicodeEncodeError:  # of a value, or of an unknown key, which pydantic quotes
            raise ExperimentError(f"{where}: holds a character that no text has (half of a surrogate pair)") from None

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | None = None) -> Experiment:
        """Read an experiment file and apply ``key.path=value`` overrides (values are YAML)."""
        return cls.parse(read_file(Path(path), overrides), where=Path(path).name)


class _OnePartition(Section):
    partition: Partition


def parse_partition(content: dict[str, Any]) -> Any:
    """Validate a `sites.partition` section by itself; raises ExperimentError as `Experiment.parse` does."""
    try:
        return _OnePartition.model_validate({"partition": content}).partition
    except ValidationError as error:
        raise ExperimentError("\n".join(explain(item) for item in error.errors())) from None


# What pydantic says of a text where a number is expected.
_NO_NUMBER = {
    "int_parsing": "must be a whole number", "int_from_float": "must be a whole number",
    "int_type": "must be a whole number", "float_parsing": "must be a number", "float_type": "must be a number",
    "bool_parsing": "must be true or false", "bool_type": "must be true or false", "string_type": "must be text",
}  # fmt: skip


def explain(error: Any) -> str:
    """Say what one of pydantic's errors means: key, what is wrong, the value given and what is allowed."""
    # Union branches show up in pydantic's locations as class or tag names; a researcher never wrote those.
    # The kind of a partition follows it at once; `partition.sizes.sizes` is the key `partition.sizes`.
    path = ".".join(
        str(part)
        for before, part in zip([None, *error["loc"]], error["loc"], strict=False)
        if before != "partition"
        and str(part) not in _UNION_TAGS
        # Of a list of kinds, the place in the list comes before the kind.
        and not (isinstance(before, int) and part in AUGMENTATIONS)
    )
    message = error["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        # pydantic names its class.
        message = "must be a mapping of keys to values"
    if error["type"] == "missing":
        # The one key without a default.
        return f"{'data.target' if path == 'data' else path}: is required"
    if error["type"] in ("too_short", "too_long"):
        fewest, most = error["ctx"].get("min_length"), error["ctx"].get("max_length")
        return f"{path}: must have {f'{fewest} or more' if most is None else f'at most {most}'} entries"
    if error["type"] == "union_tag_invalid":
        tags = error["ctx"]["expected_tags"].replace("'", "")
        # Kinds are short words: a forest is no resnet.
        hint = did_you_mean(str(error["ctx"]["tag"]), tags.split(", "), 0.7)
        return f"{path}.kind: unknown value '{error['ctx']['tag']}'{hint}; allowed: {tags}"
    if error["type"] == "union_tag_not_found":
        return f"{path}: `kind` is required"
    if error["type"] in _NO_NUMBER:
        message = _NO_NUMBER[error["type"]]
    given = repr(error["input"])
    given = f" (given: {given})" if len(given) <= 80 and error["type"] != "refused" else ""
    if error["type"] == "refused" and isinstance(error["input"], (str, int, float)):
        given = f" (given: {error['input']!r})"
    return f"{path}: {message}{given}" if path else f"{message}{given}"


_UNION_TAGS = {
    "linear", "logistic", "mlp", "gru", "lstm", "cnn", "mnist_cnn", "vbmnet", "resnet", "densenet", "efficientnet",
    "dcgan", "stylegan2", "senet", "always", "by_round", "ratio", "kfold", "leave_one_site_out", "given", "partitioned",
    "tested", "named", "word", "weights", "several", "column", "survival", "values", "range", *STRATEGIES, *STAGES,
    "module", "glm", "cox", "built_in", "plug_in",
}  # fmt: skip
