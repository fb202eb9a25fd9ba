"""Section that asks for a kind of row that others ship, by its name, with its options."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, ValidationError, field_validator, model_validator

from v6_algorithm.experiment import plugins
from v6_algorithm.experiment.base import Section, refuse
from v6_algorithm.experiment.optimisers import did_you_mean


class Rows(Section):
    """What a row is: the name of an installed kind, and its options."""

    model_config = ConfigDict(extra="allow", validate_default=True)
    kind: str

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (known := plugins.names(plugins.ROWS)):
            allowed = f"installed: {', '.join(known) or 'none'}"
            raise refuse(f"unknown kind of row '{value}'{did_you_mean(value, known)}; {allowed}")
        return value

    @model_validator(mode="after")
    def _options(self) -> Rows:
        # Kept with their defaults: a resolved experiment says all that it depends on.
        self.__pydantic_extra__ = self.options().model_dump(mode="json")
        return self

    def options(self) -> Any:
        """Return the options as the kind's own section, validated and with defaults."""
        try:
            return plugins.row_kind(self.kind).Options.model_validate(dict(self.model_extra or {}))
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(str(part) for part in first["loc"])
            raise refuse(f"{path}: {first['msg']}" if path else first["msg"]) from None
