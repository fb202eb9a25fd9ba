"""What is learned, when it is more than one column: a duration with its event, or several tasks at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from v6_algorithm.experiment.base import Section, refuse, short_form
from v6_algorithm.experiment.condition import Condition

# Causes that compete with the event, each with a curve.
MOST_CAUSES = 5


class SurvivalTarget(Section):
    """For survival: a column of times, and one that says whether the event was seen (1) or not yet (0).

    With `entry` a row is watched from one time to the other: of patients who join late, and of those with a row for
    each time in which their columns hold (counting-process rows). `competing` are other causes that end the time.
    """

    duration: str
    event: str
    entry: str | None = Field(
        None, min_length=1, description="a column of times from which rows are watched; for model cox and describe"
    )
    competing: list[Condition] = Field(
        default_factory=list,
        max_length=MOST_CAUSES,
        description="of describe: values of the event column that are other causes: '== 2', or a list",
    )

    @field_validator("competing", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _different(self) -> SurvivalTarget:
        if self.duration == self.event:
            raise refuse(f"duration and event are both column '{self.event}'")
        if self.entry in (self.duration, self.event):
            raise refuse(f"entry and {'duration' if self.entry == self.duration else 'event'} are both '{self.entry}'")
        if len(set(self.competing)) < len(self.competing):
            raise refuse("a cause is named twice in competing")
        return self


def _form_of_target(value: Any) -> str:
    return "survival" if isinstance(value, (dict, SurvivalTarget)) else "column"


Target = Annotated[
    Annotated[str, Tag("column")] | Annotated[SurvivalTarget, Tag("survival")], Discriminator(_form_of_target)
]


class Task(Section):
    """One of several targets of one network, for multitask."""

    kind: Literal["classification", "regression"]
    positive: Condition | None = Field(None, description="makes the target 0/1: '> 0', '== yes', '!= 3'")
    loss: Literal["cross_entropy", "mse", "mae", "huber", "poisson"] | None = Field(
        None, description="null: cross_entropy or mse"
    )
    weight: float = Field(1.0, gt=0, description="the losses are added up with these weights")

    @model_validator(mode="after")
    def _fits(self) -> Task:
        classification = self.kind == "classification"
        if self.loss is None:
            self.loss = "cross_entropy" if classification else "mse"
        if (self.loss == "cross_entropy") != classification:
            raise refuse(f"loss {self.loss} is not for {self.kind}")
        if self.positive is not None and not classification:
            raise refuse("positive makes a 0/1 target, which is for classification")
        return self


ShortTask = Annotated[Task, short_form("kind")]
