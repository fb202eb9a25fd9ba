"""From an experiment file and its ``--set`` overrides to a mapping, before anything in it is understood."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from v6_algorithm.errors import ExperimentError

# Of an experiment file: sections in sections, and anchors that a long list of sites may share.
_DEEPEST, _MOST_ALIASES = 30, 100
# Of what a file or a task says: a column for each of half a million probes, an SQL query of some pages.
_MOST_NAMED = 5
_MOST_PARTS, _LONGEST_TEXT, _LARGEST_FILE = 2_000_000, 100_000, 20_000_000


class _Dumper(yaml.SafeDumper):
    """Safe YAML with quotes around each text that YAML 1.1 or `_Loader` would read as something else."""

    yaml_implicit_resolvers: dict[str, Any] = {  # noqa: RUF012 (declared so by yaml)
        first: list(resolvers) for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads values as YAML 1.2 does, and refuses a key that is given twice.

    So ``no`` is a text, as a site's or a category's name, and no truth value, ``1:30`` and a date are texts, and
    ``1e-3`` is a number. Digits after a leading zero are a text here: ``01`` is a code, which a number would shorten.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (declared so by yaml)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key '{key.value}' is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read a whole number, decimal unless it begins with 0o or 0x."""
        text = node.value
        bases = {"0o": 8, "0x": 16}
        return int(text[2:], bases[text[:2]]) if text[:2] in bases else int(text)


# YAML 1.2.2, section 10.3.2, but for leading zeros, and the key `<<` of 1.1, which files with anchors use.
for _kind, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"([-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"([-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("merge", r"<<$", ["<"]),
):
    for _each in (_Loader, _Dumper):
        _each.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def to_yaml(content: Any) -> str:
    """Write plain values as YAML that `read_file` reads as the same; keys keep their order."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True))  # a SafeDumper


def value_to_yaml(value: Any) -> str:
    """Write one value as YAML in a line, as it may stand behind a key or in a list."""
    text = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, width=10**9, sort_keys=False, allow_unicode=True)
    return str(text).strip()[1:-1]


def read_file(path: Path, overrides: list[str] | None = None) -> Any:
    """Read YAML and apply ``key.path=value`` overrides, whose values are YAML too.

    Raises
    ------
    ExperimentError
        When the file cannot be read or is not YAML, or an override is not one.
    """
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        if path.is_dir():
            inside = sorted(other.name for other in path.glob("*.y*ml"))[:_MOST_NAMED]
            there = f", such as {', '.join(inside)} in it" if inside else ""
            raise ExperimentError(f"{path}: is a folder; give a YAML file{there}") from None
        hint = meant(path, "*.y*ml") if isinstance(error, FileNotFoundError) else ""
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}{hint}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        why = " ".join(str(error).replace(' in "<unicode string>"', "").split()).replace(" ,", ",")
        raise ExperimentError(f"{path}: is not valid YAML: {why}") from None
    apply_overrides(content, overrides or [])
    return content


def check_size(content: Any, where: str) -> None:
    """Refuse content that is deep, has too many parts, or too long a text; raises ExperimentError, naming the key."""
    waiting, parts = [(where, 1, content)], 0
    while waiting:
        path, depth, value = waiting.pop()
        parts += 1
        if depth > _DEEPEST:
            raise ExperimentError(f"{path[:200]}: is deeper than {_DEEPEST} levels")
        if parts + len(waiting) > _MOST_PARTS:
            raise ExperimentError(f"{where}: has more than {_MOST_PARTS} keys and values")
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise ExperimentError(f"{path[:200]}: is a text of {len(value)} characters; allowed: {_LONGEST_TEXT}")
        if isinstance(value, dict):
            for key, child in value.items():
                name = str(key)
                if len(name) > _LONGEST_TEXT:
                    raise ExperimentError(
                        f"{path[:200]}: has a key of {len(name)} characters; allowed: {_LONGEST_TEXT}"
                    )
                waiting.append((f"{path}.{name[:100]}", depth + 1, child))
        elif isinstance(value, (list, tuple)):
            waiting += [(path, depth + 1, child) for child in value]


def apply_overrides(content: Any, overrides: Iterable[str]) -> None:
    """Change a mapping in place by ``key.path=value``; raises ExperimentError for what is not one."""
    for override in overrides:
        _apply(content, override)


def read_value(what: str, text: str) -> Any:
    """Read a value in YAML; raises ExperimentError, which names `what`."""
    try:
        return _parse(text)
    except (yaml.YAMLError, ValueError):
        raise ExperimentError(f"{what}: the value is not valid YAML") from None


def _parse(text: str) -> Any:
    """Read YAML that is neither deep nor repeats itself: an alias of an alias of … is more than any memory holds."""
    if len(text) > _LARGEST_FILE:
        raise yaml.YAMLError(f"it has {len(text)} characters; allowed: {_LARGEST_FILE}")
    depth = aliases = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
            depth -= isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent))
            if depth > _DEEPEST or aliases > _MOST_ALIASES:
                raise yaml.YAMLError(f"it is deeper than {_DEEPEST} levels, or has more than {_MOST_ALIASES} aliases")
    except RecursionError:
        raise yaml.YAMLError("it is too deep") from None
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)


def _apply(content: Any, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ExperimentError(f"--set {override}: must be key.path=value, such as training.optimizer.lr=0.01")
    if not isinstance(content, dict):
        raise ExperimentError(f"--set {override}: the experiment file is not a mapping")
    # `data.positive=> 0` and `!= 3` are conditions; block texts and tags, YAML's meaning, do not fit on one line.
    value = text.strip() if text.strip()[:1] in (">", "|", "!") else read_value(f"--set {override}", text)
    put(content, key.strip(), value)


def put(content: dict[str, Any], path: str, value: Any) -> None:
    """Set a ``key.path`` in nested mappings, in place; mappings that are missing on the way are made."""
    *parents, last = path.split(".")
    # A section in its short form (`optimizer: adam`, `va: va.csv`) keeps what it says when a key is set beside it.
    short = "uri" if parents[:1] in (["sites"], ["central"]) else "kind"
    for parent in parents:
        below = content.get(parent)
        content[parent] = below if isinstance(below, dict) else {} if below is None else {short: below}
        content = content[parent]
    content[last] = value


def meant(path: Path, pattern: str = "*") -> str:
    """Return `` (did you mean 'FILE'?)`` for the file or folder beside a path that its name is like, or an empty text.

    For files of whoever is told: a hospital's are not named to others.
    """
    try:
        beside = [other.name for other in path.parent.glob(pattern)]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.75)
    return f" (did you mean '{path.with_name(close[0])}'?)" if close else ""
