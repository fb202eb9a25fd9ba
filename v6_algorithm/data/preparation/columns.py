"""From the columns of every site to one list of features, categories and classes that all of them share."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Data, Sequence

Label = int | float | str
# Names that say "this is who, not what": numeric, but nothing to learn from. `data.features` overrules this.
_IDENTIFIER = re.compile(
    r"(index|unnamed: 0|(.*_)?id|subject|patient|name|(subject|patient|record|sample)[ _]?(id|nr|no))", re.I
)
_SHOWN = 30
_COVARIATES = "harmonisation.covariates"


@dataclass(frozen=True)
class Agreement:
    """The columns that the run uses at every site.

    Attributes
    ----------
    features
        Numeric columns, in the order of the model's inputs.
    categories
        Categorical column to the sorted union of its values; one-hot inputs after the numeric ones.
    classes
        The sorted union of the target's labels; None when the target is a number.
    notes
        Sentences for the researcher about what was left out or is uneven.
    hospitals
        Whose tables these are, where the split needs to know.
    task_classes
        For several targets: column to the sorted union of its labels, of those that are classes.
    sequence_length
        For time series: the number of times that rows are cut to, or padded to.
    sequence_shortest
        The number of times that every row has at least.
    covariates
        Numeric columns that only harmonisation uses.
    image_shape
        For images: channels and lengths; the features are the channels.
    pixels
        For images whose pixels are columns: those.
    synthetic
        Site to its rows that are made, and only train.
    policies
        Site to the rules that its node says are in force.
    """

    features: list[str]
    categories: dict[str, list[Label]]
    classes: list[Label] | None
    notes: list[str] = field(default_factory=list)
    hospitals: list[str] = field(default_factory=list)
    task_classes: dict[str, list[Label]] = field(default_factory=dict)
    sequence_length: int | None = None
    sequence_shortest: int | None = None
    covariates: list[str] = field(default_factory=list)
    image_shape: list[int] | None = None
    pixels: list[str] = field(default_factory=list)
    synthetic: dict[str, int] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)


def agree(data: Data, schemas: Mapping[str, Mapping[str, Any]], *, classification: bool) -> Agreement:
    """Combine what the sites told about their tables.

    Parameters
    ----------
    data
        The experiment's `data` section.
    schemas
        Site to ``{"columns": {name: kind}, "labels": [...], "categories": {column: [...]}}``; kinds are ``numeric``,
        ``text``, ``empty`` (fits either) and ``other``.
    classification
        Whether the target is a label.

    Raises
    ------
    ExperimentError
        Naming site and column, when a needed column is missing or of the wrong kind somewhere.
    """
    notes: list[str] = []
    problems: list[str] = []
    length = shortest = shape = None
    if data.image is not None and data.image.column is not None:
        numeric, shape = _images(data.image.column, schemas, notes)
    elif data.sequence is None:
        numeric = _numeric_features(data, schemas, notes, problems)
    else:
        numeric, length, shortest = _sequences(data.sequence, schemas, notes)
    features, categorical = set(numeric), set(data.categorical)
    covariates = [name for name in data.harmonisation.covariates if name not in features | categorical]
    for site, schema in schemas.items() if data.sequence is None and shape is None else ():
        columns = schema["columns"]
        for name in [*numeric, *data.categorical, *covariates]:
            if name not in columns:
                key = "features" if name in features else "categorical" if name in categorical else _COVARIATES
                problems.append(f"site '{site}': column '{name}' (data.{key}) is not there; it has: {listed(columns)}")
            elif name not in categorical and columns[name] not in ("numeric", "empty"):
                problems.append(
                    f"site '{site}': column '{name}' holds {columns[name]} where numbers are expected; "
                    "clean it there, list it under data.categorical, or leave it out with data.exclude"
                )
    names = {name for schema in schemas.values() for name in schema["columns"]}
    if data.synthetic is not None and data.synthetic not in names:
        problems.append(f"data.synthetic: no site has a column '{data.synthetic}'")
    problems += [f"data.missing_values: {absent}" for absent in unknown_coded(data, names)]
    if problems:
        raise ExperimentError("\n".join(problems))
    categories = {
        name: sort_labels({label for schema in schemas.values() for label in schema["categories"][name]})
        for name in data.categorical
    }
    classes = None
    if classification:
        by_site = {site: schema["labels"] for site, schema in schemas.items()}
        condition = "" if data.positive is None else f" with data.positive '{data.positive}'"
        classes = _classes(f"data.target: column '{data.target}'", by_site, condition, notes)
    tasks = dict.fromkeys(name for schema in schemas.values() for name in schema.get("task_labels", {}))
    task_classes = {
        name: _classes(
            f"data.targets.{name}",
            {site: schema["task_labels"].get(name, []) for site, schema in schemas.items()},
            "",
            notes,
        )
        for name in tasks
    }
    if not numeric and not any(categories.values()):
        raise ExperimentError(
            "data.features: no numeric column is left at all sites; name the features, or categorical"
        )
    pixels: list[str] = []
    if data.image is not None and data.image.shape is not None:
        pixels, shape = numeric, data.image.shape
        if len(pixels) != prod(shape):
            raise ExperimentError(
                f"data.image.shape {shape} is {prod(shape)} pixels, and there are {len(pixels)} features; name them in "
                "data.features, or what is none in data.exclude"
            )
        numeric = _channels("pixels", shape[0])
    return Agreement(
        numeric,
        categories,
        classes,
        notes,
        task_classes=task_classes,
        sequence_length=length,
        sequence_shortest=shortest,
        covariates=covariates,
        image_shape=shape,
        pixels=pixels,
    )


def unknown_coded(data: Data, names: Collection[str]) -> list[str]:
    """Tell which columns of `data.missing_values` no site has: their codes would be learned from as numbers."""
    coded = data.missing_values if isinstance(data.missing_values, dict) else {}
    return [f"no site has a column '{name}'" for name in coded if name not in names]


def looks_like_identifier(name: str) -> bool:
    """Say whether a column's name tells that it says who, not what."""
    return _IDENTIFIER.fullmatch(name.strip()) is not None


def listed(names: Collection[str]) -> str:
    """Name columns for a message, at most 30 of them."""
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(list(names)[:_SHOWN]) + more


def _numeric_features(
    data: Data, schemas: Mapping[str, Mapping[str, Any]], notes: list[str], problems: list[str]
) -> list[str]:
    if data.features is not None:
        return [name for name in data.features if name not in data.categorical]
    used = {*data.target_columns.values(), data.group, data.synthetic, *data.split_columns}
    used |= {*data.exclude, *data.categorical}
    everywhere, somewhere, identifiers = [], [], []
    names = dict.fromkeys(name for schema in schemas.values() for name in schema["columns"])
    for name in names:
        kinds = {site: schema["columns"].get(name) for site, schema in schemas.items()}
        numeric = [site for site, kind in kinds.items() if kind == "numeric"]
        if name in used or not numeric:
            continue
        if looks_like_identifier(name):
            identifiers.append(name)
        elif text := [site for site, kind in kinds.items() if kind in ("text", "other")]:
            problems.append(
                f"site '{text[0]}': column '{name}' holds {kinds[text[0]]}, at site '{numeric[0]}' it holds numbers; "
                "clean it there, list it under data.categorical, or leave it out with data.exclude"
            )
        elif None in kinds.values():
            somewhere.append(name)
        else:
            everywhere.append(name)
    if identifiers:
        notes.append(f"left out as identifiers by their names: {listed(identifiers)}")
    if somewhere:
        notes.append(f"left out because not every site has them: {listed(somewhere)}")
    return everywhere


def _sequences(
    sequence: Sequence, schemas: Mapping[str, Mapping[str, Any]], notes: list[str]
) -> tuple[list[str], int, int]:
    """Return a name for each channel, the length that rows are brought to, and the shortest of all sites."""
    column = sequence.column
    channels = {site: schema["sequence"]["channels"] for site, schema in schemas.items()}
    if len(set(channels.values())) > 1:
        told = ", ".join(f"{site} {number}" for site, number in channels.items())
        raise ExperimentError(f"data.sequence: column '{column}' has different numbers of channels: {told}")
    shortest = min(schema["sequence"]["shortest"] for schema in schemas.values())
    longest = max(schema["sequence"]["longest"] for schema in schemas.values())
    padded = sequence.length == "longest"
    if longest > shortest and not padded:
        notes.append(f"time series are cut to their first {shortest} times, the shortest; the longest has {longest}")
    names = _channels(column, next(iter(channels.values())))
    return names, longest if padded else shortest, shortest


def _images(column: str, schemas: Mapping[str, Mapping[str, Any]], notes: list[str]) -> tuple[list[str], list[int]]:
    """Return a name for each channel, and the shape that all sites' images have."""
    shapes = {site: list(schema["image"]["shape"]) for site, schema in schemas.items()}
    shape = next(iter(shapes.values()))
    if any(other != shape for other in shapes.values()):
        told = ", ".join(f"{site} {'x'.join(map(str, own))}" for site, own in shapes.items())
        raise ExperimentError(
            f"data.image: the sites' images differ in channels or size: {told}; give data.image.size, and channels: "
            "1 or 3"
        )
    for site, schema in schemas.items():
        count, rows = schema["image"]["unreadable"], schema["image"]["rows"]
        if count:
            more = ", …" if count > len(rows) else ""
            notes.append(
                f"site '{site}': {count} images are missing or cannot be read, and are left out: row "
                f"{', '.join(map(str, rows))}{more}"
            )
        if schema["image"]["unfitting"] != 0:
            notes.append(
                f"site '{site}': {some(schema['image']['unfitting'])} images have a name that data.image.files does "
                "not fit, and are left out"
            )
        if schema["image"]["streamed"]:
            notes.append(f"site '{site}': its images fit on no disk there, and are decoded anew for every batch")
    return _channels(column, shape[0]), shape


def some(count: int | None) -> str:
    """Write a count that a site may have too few of to tell."""
    return "some" if count is None else str(count)


def _channels(column: str, number: int) -> list[str]:
    return [f"{column}[{channel}]" for channel in range(number)]


def _classes(what: str, by_site: Mapping[str, list[Label]], condition: str, notes: list[str]) -> list[Label]:
    classes = sort_labels({label for labels in by_site.values() for label in labels})
    if len(classes) < 2:
        raise ExperimentError(f"{what} has {len(classes)} class over all sites{condition}; at least 2 are needed")
    task = f"{what}: " if what.startswith("data.targets") else ""
    for number, label in enumerate(classes):
        holders = [site for site, labels in by_site.items() if label in labels]
        if len(holders) == 1 and len(by_site) > 1:
            notes.append(f"{task}class {number + 1} of {len(classes)} is seen at one site only: {holders[0]}")
    for site, labels in by_site.items():
        if len(set(labels)) == 1 and len(by_site) > 1:
            notes.append(f"{task}site '{site}' has rows of one class only; its own auroc is undefined")
    return classes


def sort_labels(labels: set[Label]) -> list[Label]:
    """Sort labels that may be numbers and text: numbers first, so that every site gets the same order."""
    return sorted(labels, key=lambda label: (isinstance(label, str), label))
