"""What is learned, when it is more than one column: a duration with its event, or several tasks at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from v6_algorithm.experiment.base import Section, refuse, short_form
from v6_algorithm.experiment.condition import Condition


class SurvivalTarget(Section):
    """For survival: a column of times, and one that says whether the event was seen (1) or not yet (0)."""

    duration: str
    event: str

    @model_validator(mode="after")
    def _different(self) -> SurvivalTarget:
        if self.duration == self.event:
            raise refuse(f"duration and event are both column '{self.event}'")
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
