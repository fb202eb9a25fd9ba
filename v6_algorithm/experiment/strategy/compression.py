"""The section that says how a site's update is made smaller before it is sent; `compression` has the maths."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from v6_algorithm.experiment import plugins
from v6_algorithm.experiment.base import Section, plug_in_options, refuse
from v6_algorithm.experiment.optimisers import did_you_mean


class Stage(Section):
    """One stage of a compression."""

    # Whether a stage leaves numbers out, after which only one that writes them shorter may follow.
    reduces: ClassVar[bool] = True

    kind: str
    feedback: bool = Field(True, description="add what was left out to the next round's update (error feedback)")


class PowerSGD(Stage):
    """Each matrix as a product of two thin ones, by one step of power iteration from the last round's."""

    kind: Literal["powersgd"] = "powersgd"
    rank: int = Field(4, ge=1)
    warm: bool = Field(True, description="begin with the last round's right factor; false: with one from the seed")


class RankDAD(Stage):
    """Each matrix as its largest singular triples."""

    kind: Literal["rankdad"] = "rankdad"
    feedback: bool = False
    rank: int = Field(10, ge=1)
    tolerance: float = Field(0.001, ge=0, lt=1, description="leave out singular values below this share of the largest")
    iterations: int = Field(5, ge=1, description="of the power iteration")


class TopK(Stage):
    """Of each tensor the numbers of largest size."""

    kind: Literal["topk"] = "topk"
    fraction: float = Field(0.01, gt=0, le=1, description="share of a tensor's numbers that is sent")


class Int8(Stage):
    """Each number in a byte, rounded up or down by chance so that the mean is right."""

    reduces: ClassVar[bool] = False

    kind: Literal["int8"] = "int8"
    feedback: bool = False


class Float16(Stage):
    """Each number in two bytes: 11 significant bits, sizes from 6e-8 to 65,504."""

    reduces: ClassVar[bool] = False

    kind: Literal["float16"] = "float16"
    feedback: bool = False


class BFloat16(Stage):
    """Each number in two bytes: 8 significant bits, sizes as of float32."""

    reduces: ClassVar[bool] = False

    kind: Literal["bfloat16"] = "bfloat16"
    feedback: bool = False


class PlugInStage(Stage):
    """An installed stage, by the name of its entry point; its other keys are its own (docs/extend.md)."""

    model_config = ConfigDict(extra="allow", validate_default=True)

    @model_validator(mode="after")
    def _known(self) -> PlugInStage:
        known = [*STAGES, *plugins.names(plugins.COMPRESSORS)]
        if self.kind not in known:
            raise refuse(
                f"unknown compression '{self.kind}'{did_you_mean(self.kind, known)}; allowed: {', '.join(known)}"
            )
        self.__pydantic_extra__ = self.options().model_dump(mode="json")
        return self

    def options(self) -> Any:
        """Return the stage's own keys as its `Options`, validated and with defaults."""
        return plug_in_options(plugins.compressor(self.kind).Options, self.model_extra)


# Those that write numbers shorter, of which one may come last.
SHORTER = ("int8", "float16", "bfloat16")
# Their names, which pydantic puts into the places of errors.
STAGES = ("powersgd", "rankdad", "topk", *SHORTER)


def _origin(value: Any) -> str:
    """Say whether a stage is ours; a name that nobody knows is, where nothing is installed."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    ours = not isinstance(kind, str) or kind in STAGES or not plugins.names(plugins.COMPRESSORS)
    return "built_in" if ours else "plug_in"


AnyStage = Annotated[
    Annotated[
        Annotated[PowerSGD | RankDAD | TopK | Int8 | Float16 | BFloat16, Field(discriminator="kind")], Tag("built_in")
    ]
    | Annotated[PlugInStage, Tag("plug_in")],
    Discriminator(_origin),
]


class Compression(Section):
    """What is done to every site's update, and from which round on."""

    stages: list[AnyStage] = Field(
        default_factory=list, description="powersgd, rankdad or topk, then int8, float16 or bfloat16; or one"
    )
    start: int = Field(2, ge=2, description="round from which on updates are compressed; the first is sent whole")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """Let one stage, or a list of them, stand for the section; and each by its name."""
        if value is None:
            return {}
        if not isinstance(value, dict) or "kind" in value:
            value = {"stages": value}
        given = value.get("stages", [])
        stages = given if isinstance(given, list) else [given]
        return value | {"stages": [{"kind": stage} if isinstance(stage, str) else stage for stage in stages]}

    @model_validator(mode="after")
    def _in_order(self) -> Compression:
        if any(stage.reduces for stage in self.stages[1:]) or sum(not stage.reduces for stage in self.stages) > 1:
            first, last = ", ".join(STAGES[: -len(SHORTER)]), ", ".join(SHORTER)
            raise refuse(f"stages: {first} or none of them, and behind it one of {last} if wanted")
        return self
