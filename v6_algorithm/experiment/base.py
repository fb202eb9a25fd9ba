"""What all sections of an experiment share: unknown keys are refused by name, and refusals read as sentences."""

from __future__ import annotations

from typing import Any, Protocol, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from v6_algorithm.experiment.optimisers import did_you_mean


class Section(BaseModel):
    """A part of the experiment; unknown keys are refused with the allowed ones named."""

    # Of the many kinds a run asks for few: each is built when it is looked at.
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and cls.model_config.get("extra") == "forbid":
            for key in value:
                if key not in cls.model_fields:
                    allowed = ", ".join(cls.model_fields) or "none yet"
                    hint = did_you_mean(str(key), cls.model_fields)
                    raise refuse(f"unknown key '{key}'{hint}; allowed: {allowed}")
        for key, given in value.items() if isinstance(value, dict) else ():
            # To Python true is 1, so `rounds: true` would be one round.
            listed = given if isinstance(given, list) else [given]
            field = cls.model_fields.get(key)
            if field and any(isinstance(item, bool) for item in listed) and not _takes_bool(field.annotation):
                raise refuse(f"{key}: true and false are not allowed here")
        return value


class AllSections(Protocol):
    """An experiment as the checks that compare its sections see it; `Experiment` is the one.

    The sections lie below the class that holds them, so what these read of each other is not typed here.
    """

    mode: Any
    data: Any
    problem: Any
    model: Any
    split: Any
    start: Any
    training: Any
    strategy: Any
    stopping: Any
    participation: Any
    pipeline: Any
    privacy: Any
    evaluation: Any
    personal: Any
    output: Any
    tune: Any

    @property
    def private(self) -> Any:
        """The layers that stay at the sites, if any do."""


def plug_in_options(form: type[Section], given: dict[str, Any] | None) -> Any:
    """Validate the keys that are a plug-in's own, and fill in its defaults; refuses in its words."""
    try:
        return form.model_validate(dict(given or {}))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        message = first["msg"].replace("Input should be", "must be")
        raise refuse(f"{path}: {message}" if path else message) from None


def _takes_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_takes_bool(part) for part in get_args(annotation))


def refuse(message: str) -> PydanticCustomError:
    """Make the error that a validator raises to say no in its own words."""
    return PydanticCustomError("refused", "{message}", {"message": message})


def short_form(key: str, default: str | None = None) -> BeforeValidator:
    """Let a section be written as one word: ``scaling: minmax`` for ``scaling: {kind: minmax}``.

    Where pydantic needs `key` to pick one of several classes, `default` is its value when it is not given.
    """

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {key: value}
        return {key: default} | value if default and isinstance(value, dict) else value

    return BeforeValidator(expand)
