"""From the columns of every site to one list of features, categories and classes that all of them share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from v6_algorithm.data.description.hints import HINTS
from v6_algorithm.data.description.unknown import unknown_labels
from v6_algorithm.data.names import alike_to, not_there
from v6_algorithm.data.preparation.agreement import Agreement, Label
from v6_algorithm.data.preparation.spelling import may_be_one, spelled_differently
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Data

# More different numbers that are not all whole are no classes.
_MOST_FRACTIONS = 10
_COVARIATES = "harmonisation.covariates"
# Hints on columns of numbers that are used all the same.
_SEEMING = ("codes", "minus one", "zeros", "dots", "two units", "outlier", "ages", "day numbers")


def agree(
    data: Data, schemas: Mapping[str, Mapping[str, Any]], *, classification: bool, predicted: bool = True
) -> Agreement:
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
    predicted
        Whether the label is predicted, so that metrics of one class of two are measured; a generator is told it.

    Raises
    ------
    ExperimentError
        Naming site and column, when a needed column is missing or of the wrong kind somewhere.
    """
    # Not at the start: whoever imports `data.rows` first comes by this file.
    from v6_algorithm.data.rows import row_kind

    notes: list[str] = []
    problems: list[str] = []
    kind = row_kind(data)
    agreed = kind.agree(schemas, notes, problems)
    features, categorical = set(agreed.required), set(data.categorical)
    covariates = [name for name in data.harmonisation.covariates if name not in features | categorical]
    for site, schema in schemas.items() if kind.tables else ():
        columns = schema["columns"]
        for name in [*agreed.required, *data.categorical, *covariates]:
            if name not in columns:
                key = "features" if name in features else "categorical" if name in categorical else _COVARIATES
                problems.append(f"site '{site}': " + not_there(f"column '{name}' (data.{key})", name, columns))
            elif name not in categorical and columns[name] not in ("numeric", "empty"):
                problems.append(
                    f"site '{site}': column '{name}' holds {columns[name]} where numbers are expected; "
                    "clean it there, list it under data.categorical, or leave it out with data.exclude"
                )
    names = {name for schema in schemas.values() for name in schema["columns"]}
    if data.synthetic is not None and data.synthetic not in names:
        problems.append(f"data.synthetic: no site has a column '{data.synthetic}'")
    problems += [f"data.missing_values: {absent}" for absent in unknown_coded(data, names)]
    problems += [
        problem
        for name in data.categorical
        for problem in spelled_differently(
            f"data.categorical: column '{name}'",
            {site: schema["categories"].get(name, []) for site, schema in schemas.items()},
            allowed=data.different_labels == "allow",
        )
    ]
    if problems:
        raise ExperimentError("\n".join(problems))
    numbers = [] if classification else [name for name in data.target_columns.values() if name not in agreed.required]
    notes += tell_patients(data, {site: schema.get("hints", {}) for site, schema in schemas.items()})
    notes += _uneven(schemas, [*agreed.required, *data.categorical, *numbers], numbers, data.categorical)
    notes += _absent_excluded(data, names)
    categories = {
        name: sort_labels({label for schema in schemas.values() for label in schema["categories"][name]})
        for name in data.categorical
    }
    for name in data.categorical if data.different_labels == "stop" else ():
        of_column = {site: schema["categories"].get(name, []) for site, schema in schemas.items()}
        notes += may_be_one(f"data.categorical: column '{name}'", of_column)
    notes += [
        f"data.categorical: column '{name}' has {', '.join(map(repr, unknown))} as a category; if it means "
        f"that nothing is known, data.missing_values: {{{name}: [{', '.join(map(str, unknown))}]}} makes it none"
        for name, labels in categories.items()
        if (unknown := unknown_labels(labels))
    ]
    for name, column in data.indicators.items():
        if len(categories[name]) < 2:
            categories[name] = []
            told = "empty in no row, or in so few of a site that it tells of none"
            notes.append(f"data.missing.indicators: column '{column}' is {told}; it has no indicator")
    classes = None
    if classification:
        by_site = {site: schema["labels"] for site, schema in schemas.items()}
        if data.positive is None and data.different_labels != "allow":
            _check_classes(data, by_site)
        what, column = f"data.target: column '{data.target}'", str(data.target)
        classes = _agree_on_labels(data, what, column, by_site, data.positive, notes)
        if predicted and len(classes) == 2 and classes != [0, 1]:
            notes.append(
                f"precision, recall, f1, sensitivity, auroc and auprc are of class '{classes[1]}', the last in order; "
                f"data.positive: '== {classes[0]}' makes it the other"
            )
    tasks = dict.fromkeys(name for schema in schemas.values() for name in schema.get("task_labels", {}))
    task_classes = {
        name: _agree_on_labels(
            data,
            f"data.targets.{name}",
            name,
            {site: schema["task_labels"].get(name, []) for site, schema in schemas.items()},
            data.targets[name].positive if data.targets is not None and name in data.targets else None,
            notes,
        )
        for name in tasks
    }
    if not agreed.features and not any(categories.values()):
        raise ExperimentError(
            "\n  ".join(
                [
                    "data.features: no numeric column is left at all sites; name the features, or categorical",
                    *(note for note in notes if note.startswith("left out")),
                ]
            )
        )
    return Agreement(
        agreed.features,
        categories,
        classes,
        notes,
        task_classes=task_classes,
        sequence_length=agreed.sequence_length,
        sequence_shortest=agreed.sequence_shortest,
        covariates=covariates,
        image_shape=agreed.image_shape,
        pixels=agreed.pixels,
        facts=agreed.facts,
    )


def _agree_on_labels(
    data: Data, what: str, column: str, by_site: Mapping[str, list[Label]], positive: str | None, notes: list[str]
) -> list[Label]:
    """Return the classes of a target, named `what` in messages, of all sites together; notes say what may be wrong.

    Raises
    ------
    ExperimentError
        When the sites spell its labels differently, or there are fewer than two.
    """
    task = f"{what}: " if what.startswith("data.targets") else ""
    if positive is None:
        allowed = data.different_labels == "allow"
        if different := spelled_differently(what, by_site, allowed=allowed):
            raise ExperimentError("\n".join(different))
        notes += [] if allowed else may_be_one(what, by_site)
    else:
        notes += _met_by_none_or_all(positive, by_site)
    condition = "" if positive is None else f" with data.positive '{positive}'"
    classes = _classes(what, by_site, condition, notes)
    if positive is None and (unknown := unknown_labels(classes)):
        shown = ", ".join(f"'{label}'" for label in unknown)
        notes.append(
            f"{task}class {shown} is learned as one of {len(classes)}; if it means that nothing is known, "
            f"data.missing_values: {{{column}: [{', '.join(map(str, unknown))}]}} leaves those rows out"
        )
    return classes


def _check_classes(data: Data, by_site: Mapping[str, Sequence[Label]]) -> None:
    """Raise ExperimentError for labels that are measurements: each may be of one row, and is not shown."""
    labels = {label for of_site in by_site.values() for label in of_site}
    if len(labels) > _MOST_FRACTIONS and any(isinstance(label, float) for label in labels):
        raise ExperimentError(
            f"data.target: column '{data.target}' holds {len(labels)} different numbers, with fractions, where classes "
            "are expected: problem: regression learns numbers, and data.positive, such as '> 0', makes two classes"
        )


def _absent_excluded(data: Data, names: Collection[str]) -> list[str]:
    """Tell which columns of `data.exclude` no site has, so that nothing is left out by them."""
    notes = []
    for name in data.exclude:
        if name not in names:
            meant = " or ".join(f"'{column}'" for column in alike_to(name, names))
            notes.append(f"data.exclude: no site tells of a column '{name}'" + (f"; is it {meant}?" if meant else ""))
    return notes


def unknown_coded(data: Data, names: Collection[str]) -> list[str]:
    """Tell which columns of `data.missing_values` no site has: their codes would be learned from as numbers."""
    coded = data.missing_values if isinstance(data.missing_values, dict) else {}
    return [f"no site has a column '{name}'" for name in coded if name not in names]


def _classes(what: str, by_site: Mapping[str, list[Label]], condition: str, notes: list[str]) -> list[Label]:
    classes = sort_labels({label for labels in by_site.values() for label in labels})
    if len(classes) < 2:
        # Beside a word there may be one that counts as an empty cell.
        words = not condition and any(isinstance(label, str) for label in classes)
        kept = "; a label such as None or NA counts as an empty cell, data.not_missing keeps it" if words else ""
        written = "; is it written as in the tables?" if condition else ""
        raise ExperimentError(
            f"{what} has {len(classes)} class over all sites{condition}; at least 2 are needed{kept}{written}"
        )
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


def _uneven(
    schemas: Mapping[str, Mapping[str, Any]],
    used: Collection[str],
    targets: Collection[str],
    categorical: Collection[str],
) -> list[str]:
    """Tell which used columns are empty at a site, or hold numbers there that count as empty."""
    from v6_algorithm.data.rows.kind import listed

    notes = []
    for site, schema in schemas.items():
        empty = [name for name in used if schema["columns"].get(name) == "empty" and name not in categorical]
        of_none = [name for name in used if schema["columns"].get(name) == "empty" and name in categorical]
        if of_none:
            notes.append(
                f"site '{site}': no row has a value in {listed(of_none)}; all rows count there as of no category"
            )
        if empty:
            notes.append(
                f"site '{site}': no row has a value in {listed(empty)}; every value there is filled in from other sites"
            )
        # Rows whose target is infinite have none, and are counted so.
        infinite = [name for name in used if schema.get("hints", {}).get(name) == "infinite" and name not in targets]
        if infinite:
            notes.append(f"site '{site}': {listed(infinite)}: {HINTS['infinite'][0]}, and are filled in")
    return notes + tell_numbers({site: schema.get("hints", {}) for site, schema in schemas.items()}, used)


def tell_patients(data: Data, hints: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Tell which columns say whose rows these are, where several are of one patient and nothing keeps them together."""
    if data.group is not None or data.split_columns:
        return []
    names = dict.fromkeys(name for of_site in hints.values() for name, reason in of_site.items() if reason == "repeats")
    return tell_numbers(hints, [name for name in names if name not in data.exclude], ("repeats",))


def tell_numbers(
    hints: Mapping[str, Mapping[str, str]], used: Collection[str], reasons: Sequence[str] = _SEEMING
) -> list[str]:
    """Tell which of these columns may not be what they seem, by the sites' hints (`hints.HINTS`)."""
    from v6_algorithm.data.rows.kind import listed

    notes = []
    # Of 18,000 columns none may have a hint.
    hinted = {name for of_site in hints.values() for name in of_site}
    used = [name for name in used if name in hinted]
    for reason in reasons:
        at = {name: [site for site, of_site in hints.items() if of_site.get(name) == reason] for name in used}
        for name, sites in at.items():
            if sites:
                holds, remedy = HINTS[reason]
                notes.append(f"column '{name}' at {listed(sites)}: {holds}; {remedy.replace('COLUMN', name)}")
    return notes


def _met_by_none_or_all(condition: str, by_site: Mapping[str, list[Label]]) -> list[str]:
    notes = []
    for site, labels in by_site.items():
        if len(set(labels)) == 1:
            met = "every row meets" if next(iter(labels)) == 1 else "no row meets"
            notes.append(f"site '{site}': {met} data.positive '{condition}'; is it written so there?")
    return notes
