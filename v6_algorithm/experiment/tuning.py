"""What `tune` tries: values of keys of the experiment, how many of them, and which validation number decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from v6_algorithm.experiment.base import Section, refuse
from v6_algorithm.experiment.optimisers import did_you_mean

# Keys whose values may be compared on the same validation rows. The others say what is learned from which rows, or
# how long it may take: settings that differ in them cannot be told apart by a score, or a score would be chosen.
TUNABLE = (
    "model", "training", "strategy", "privacy", "start.pretrain_epochs", "data.scaling", "data.target_scaling",
    "data.missing", "data.features", "data.exclude", "data.categorical", "data.harmonisation",
)  # fmt: skip
# Keys that change what the loss is of: losses of two such settings are no better or worse than each other.
CHANGES_LOSS = ("training.loss", "data.target_scaling")


class Range(Section):
    """Numbers to draw from."""

    low: float
    high: float
    log: bool = Field(False, description="draw the logarithm uniformly: for learning rates")
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise refuse(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise refuse(f"log needs low above 0 (given: {self.low:g})")
        if self.integer and (self.low % 1 or self.high % 1):
            raise refuse("integer needs whole numbers as low and high")
        return self


class Halving(Section):
    """Successive halving: many settings for few rounds, the better ones again for more, the best for all rounds."""

    first_rounds: int = Field(2, ge=1, description="rounds of the first heat")
    keep: float = Field(0.34, gt=0, lt=1, description="share that goes on; the rounds grow by its inverse")


def _form(value: Any) -> str:
    return "range" if isinstance(value, (dict, Range)) else "values"


Values = Annotated[
    Annotated[list[Any], Field(min_length=1), Tag("values")] | Annotated[Range, Tag("range")], Discriminator(_form)
]


class Tune(Section):
    """The settings that `v6-algorithm tune` compares on validation rows; `run` does not look at it."""

    space: dict[str, Values] = Field(min_length=1, description="key.path to its values, or to a range")
    draws: int | None = Field(None, ge=1, description="settings drawn at random; null: all combinations")
    metric: str | None = Field(None, description="of all validation rows; null: stopping.monitor")
    halving: Halving | None = Field(None, description="null: every setting gets all rounds; {}: halving as by default")

    @field_validator("space")
    @classmethod
    def _tunable(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in TUNABLE):
                raise refuse(f"{key} cannot be tuned; allowed: {', '.join(TUNABLE)}, and keys below them")
        return value

    @model_validator(mode="after")
    def _drawn(self) -> Tune:
        ranges = [key for key, values in self.space.items() if isinstance(values, Range)]
        if ranges and self.draws is None:
            raise refuse(f"space.{ranges[0]} is a range, of which there is no grid; give draws")
        return self

    def check_metric(self, monitor: str, measured: Sequence[str]) -> None:
        """Refuse a metric that the problem does not measure, or that says nothing across the settings."""
        metric = self.metric or monitor
        if measured and metric not in measured:
            raise refuse(
                f"tune.metric is '{metric}', which is not measured{did_you_mean(metric, measured)}; "
                f"allowed: {', '.join(measured)}"
            )
        for key in self.space:
            if metric == "loss" and any(key == changes or key.startswith(f"{changes}.") for changes in CHANGES_LOSS):
                raise refuse(f"tune.space.{key} changes what the loss is; give tune.metric another name than loss")
