"""Writes docs/reference.md: every key of an experiment and every command, from the models and the parser themselves.

``python -m tools.reference`` writes it, ``python -m tools.reference --check`` says whether it is what would be written;
`tests/test_reference.py` holds that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
_HEAD = """# Reference

Written by `python -m tools.reference` from the code: every key of an experiment file, then every command. What they
mean together is on the other pages.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_experiment(), *_commands()]).rstrip() + "\n"


# -- the experiment ------------------------------------------------------------------------------------------------


def _experiment() -> Iterator[str]:
    from v6_algorithm.experiment import Experiment

    yield "## An experiment's keys\n"
    seen: set[type[BaseModel]] = set()
    waiting: list[tuple[str, type[BaseModel]]] = [("", Experiment)]
    while waiting:
        path, model = waiting.pop(0)
        if model in seen:
            continue
        seen.add(model)
        kind, base = _kind_of(model), _base_of(model)
        if base is not None and base not in seen:
            seen.add(base)
            yield f"### `{path}`, every kind\n"
            yield "| key | takes | default | |\n|---|---|---|---|"
            yield from _rows(path, base, waiting)
            yield ""
        yield f"### {f'`{path}` of kind {kind}' if kind and path else f'`{path}`' if path else 'The file'}\n"
        if path and model.__doc__:
            yield f"{_sentence(model.__doc__)}\n"
        rows = list(_rows(path, model, waiting, base))
        if rows:
            yield "| key | takes | default | |\n|---|---|---|---|"
            yield from rows
            yield ""


def _base_of(model: type[BaseModel]) -> type[BaseModel] | None:
    """Return the class that gives several kinds their common keys, if there is one."""
    from v6_algorithm.experiment.base import Section

    base = model.__mro__[1]
    return base if base not in (Section, BaseModel) and set(getattr(base, "model_fields", {})) - {"kind"} else None


def _rows(
    path: str,
    model: type[BaseModel],
    waiting: list[tuple[str, type[BaseModel]]],
    base: type[BaseModel] | None = None,
) -> Iterator[str]:
    for name, field in model.model_fields.items():
        common = base.model_fields.get(name) if base is not None else None
        if common is not None and name != "kind" and _default(common) == _default(field):
            continue
        below = f"{path}.{name}" if path else name
        waiting += [(below, section) for section in _sections(field.annotation)]
        takes = _takes(field.annotation)
        yield f"| `{name}` | {takes} | {_default(field)} | {_cell(field.description or '')} |"


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from _sections(part)


def _takes(annotation: Any) -> str:
    """Say in words what a key takes; sections are described below."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _takes(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, UnionType):
        words = dict.fromkeys(_takes(part) for part in parts if part is not type(None))
        kinds = [word.removeprefix("section ") for word in words if word.startswith("section `")]
        others = [word for word in words if not word.startswith("section `")]
        return " or ".join([*([f"section: {', '.join(kinds)}"] if kinds else []), *others])
    if origin in (list, tuple):
        return f"list of {_takes(parts[0])}" if parts else "list"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"section `{kind}`" if (kind := _kind_of(annotation)) else "section"
    plain = {int: "whole number", float: "number", str: "text", bool: "true, false", Any: "anything"}
    return plain.get(annotation, "value")


def _kind_of(model: type[BaseModel]) -> str:
    field = model.model_fields.get("kind")
    return ", ".join(map(str, get_args(field.annotation))) if field and get_origin(field.annotation) is Literal else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, (type(None), bool)):
        return words[value]
    return str(value) if not isinstance(value, str) else value or '""'


def _sentence(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# -- the commands --------------------------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    import click
    import typer

    from v6_algorithm.researcher.cli import app

    yield "## Commands\n"
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)  # noqa: S101
    yield from _group(root, "v6-algorithm")


def _group(group: Any, path: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _group(command, f"{path} {name}")
            continue
        yield f"### `{path} {name}`\n"
        yield f"{_cell(command.help or '')}\n"
        yield "| | takes | default | |\n|---|---|---|---|"
        for parameter in command.params:
            if parameter.name != "help":
                yield _parameter(parameter)
        yield ""


def _parameter(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = parameter.human_readable_name.upper() if is_argument else ", ".join(parameter.opts)
    takes = "" if getattr(parameter, "is_flag", False) else str(parameter.metavar or parameter.type.name).lower()
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    plain = isinstance(default, (str, int, float)) and not isinstance(default, bool) and default != ""
    shown = "required" if parameter.required else f"{default}" if plain else ""
    return f"| `{name}` | {_cell(takes)} | {_cell(shown)} | {_cell(parameter.help or '')} |"


def main() -> None:
    """Write the page, or check it."""
    text = page()
    if "--check" in sys.argv:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        sys.exit(0 if same else f"{PAGE.name} is not what the code says: run python -m tools.reference")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
