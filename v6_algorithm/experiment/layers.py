"""Layers of a network as an experiment names them: those that stay at a site, and those that training leaves alone.

`training.patterns` finds the tensors.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from v6_algorithm.experiment.base import Section

# Words for layers by what they do, norm and head; a word with a dot is a tensor's name, any other a class of modules.
Patterns = list[Annotated[str, Field(min_length=1, max_length=200)]]


class Layers(Section):
    """Layers by role, by class such as ``Conv2d``, or by name such as ``model.0.*``."""

    include: Patterns = Field(min_length=1)
    exclude: Patterns = Field(default_factory=list, description="of these, tensors that are not meant after all")


class Frozen(Layers):
    """Layers that stay as they were received; with `rounds` only so long, then they are trained like the others."""

    rounds: int | None = Field(None, ge=1, description="frozen in so many rounds from the first; null: always")


def listed(value: Any) -> Any:
    """Let one pattern, or a list of them, stand for the section."""
    if isinstance(value, str):
        return {"include": [value]}
    if isinstance(value, dict) and isinstance(value.get("include"), str):
        return value | {"include": [value["include"]]}
    return {"include": value} if isinstance(value, list) else value


Freeze = Annotated[Frozen, BeforeValidator(listed)]
