"""A first experiment for tables that nobody has described yet: `v6-algorithm init`.

It looks at the researcher's own files, or at what a network's hospitals tell of theirs (`describe`), decides what can
be seen (kind of target, text columns, identifiers, columns that a site lacks), and writes a commented YAML file. What
was decided and why stands beside each key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.identifiers import looks_like_identifier
from v6_algorithm.data.names import named
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment.reading import value_to_yaml

if TYPE_CHECKING:
    import pandas as pd

# What an outcome is often called; the first that is there is proposed.
_TARGETS = ("target", "outcome", "label", "diagnosis", "class", "y", "event", "status", "death", "disease", "num")
_GROUPS = re.compile(r"(patient|subject|person|participant)(_?id|_?nr|_?no)?", re.IGNORECASE)
# Numbers with at most so many values are classes.
_MOST_CLASSES = 10
# Text with more values than this is no category.
_MOST_LEVELS = 20


@dataclass
class Draft:
    """What was seen of the tables, and decided.

    Attributes
    ----------
    sites
        Site name to path, as it was given; of a network's hospitals no path.
    target, duration
        The column that is learned; with `duration` it says whether the event was seen.
    problem
        ``classification``, ``regression`` or ``survival``.
    positive
        The condition that makes the target 0/1, or None.
    categorical, exclude, group
        As the keys of `data`.
    features
        Numeric columns that are used as they are.
    rows
        Of the smallest site.
    reasons
        Key of the experiment to why it is as it is.
    """

    sites: dict[str, str]
    target: str
    problem: str
    duration: str | None = None
    positive: str | None = None
    categorical: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    group: str | None = None
    features: list[str] = field(default_factory=list)
    rows: int = 0
    reasons: dict[str, str] = field(default_factory=dict)


def site_names(paths: list[Path]) -> dict[str, Path]:
    """Return a name for each file: its stem, or with its folder's name where two stems are the same."""
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{path.parent.name}_{stem}"
        for path, stem in zip(paths, stems, strict=True)
    ]
    if len(set(names)) < len(names):
        raise ExperimentError(f"two files have the same name: {', '.join(sorted(set(map(str, paths))))}; rename one")
    return dict(zip(names, paths, strict=True))


def draft(
    tables: Mapping[str, pd.DataFrame], paths: Mapping[str, str], target: str | None, duration: str | None
) -> Draft:
    """Decide on an experiment.

    Parameters
    ----------
    tables, paths
        Site name to table, and to its path.
    target, duration
        Columns, where the researcher says so.

    Raises
    ------
    ExperimentError
        When the target is not given and cannot be seen, or a column is not there.
    """
    common = [name for name in next(iter(tables.values())).columns if all(name in t.columns for t in tables.values())]
    anywhere = list(dict.fromkeys(name for table in tables.values() for name in table.columns))
    chosen = target or next((name for wanted in _TARGETS for name in common if name.lower() == wanted), None)
    if chosen is None:
        raise ExperimentError(f"--target: is required; the tables have: {', '.join(map(str, common[:40]))}")
    for option, name in (("--target", chosen), ("--duration", duration)):
        if name is not None and name not in common:
            lacking = [site for site, table in tables.items() if name not in table.columns]
            there = named([str(name) for name in tables[lacking[0]].columns])
            raise ExperimentError(f"{option} {name}: is not in the table of {', '.join(lacking)}; {there}")
    drafted = Draft(dict(paths), chosen, "survival" if duration else "", duration)
    drafted.rows = min(len(table) for table in tables.values())
    if target is None:
        drafted.reasons["target"] = "guessed from its name"
    if not drafted.problem:
        _kind_of_target(drafted, [table[chosen] for table in tables.values()])
    for name in anywhere:
        if name not in (chosen, duration):
            _role(drafted, str(name), [table[name] for table in tables.values() if name in table.columns], len(tables))
    if not drafted.features and not drafted.categorical:
        raise ExperimentError("no column is left to learn from: none is numeric, or text of few values, at all sites")
    return drafted


def draft_from_summary(summary: Mapping[str, Any], target: str, duration: str | None) -> Draft:
    """Decide on an experiment from what hospitals tell of their tables, of which this sees no row.

    Parameters
    ----------
    summary
        What `v6_algorithm.describe` returned; asked with `target` as the target.
    target, duration
        Columns. With a duration the target is the event.

    Raises
    ------
    ExperimentError
        When a column is not at every hospital that answered, or none is left to learn from.
    """
    columns: Mapping[str, Any] = summary["columns"]
    sites = list(summary["sites"])
    for option, name in (("--target", target), ("--duration", duration)):
        lacking = [site for site in sites if name is not None and _kind_at(columns, name, site) == "not there"]
        if lacking:
            raise ExperimentError(f"{option} {name}: is not in the table of {', '.join(lacking)}")
    drafted = Draft(dict.fromkeys(sites, ""), target, "survival" if duration else "", duration)
    drafted.rows = min(site["rows"] for site in summary["sites"].values())
    if not drafted.problem:
        _kind_of_described(drafted, columns[target], summary["labels"].get(target))
    for name, column in columns.items():
        if name in (target, duration):
            continue
        kinds = {_kind_at(columns, name, site) for site in sites} - {"empty"}
        lack = sum(_kind_at(columns, name, site) == "not there" for site in sites)
        if lack:
            drafted.exclude.append(name)
            drafted.reasons[name] = f"{lack} of {len(sites)} sites lack it"
        elif _GROUPS.fullmatch(name):
            drafted.group = name
            drafted.reasons["group"] = "by its name: all rows of one value stay in one part"
        elif "row numbers" in column.get("hints", ()):
            drafted.exclude.append(name)
            drafted.reasons[name] = "looks like an identifier: whole numbers of which none occurs twice"
        elif kinds == {"numeric"} and "pooled" in column:
            drafted.features.append(name)
        else:
            drafted.exclude.append(name)
            numeric = "looks like an identifier" if kinds == {"numeric"} else None
            drafted.reasons[name] = numeric or (
                "text; with few values, name it under categorical instead" if kinds == {"text"} else "no numbers"
            )
    if not drafted.features:
        raise ExperimentError("no column is left to learn from: none is numeric at all hospitals")
    return drafted


def _kind_at(columns: Mapping[str, Any], name: str, site: str) -> str:
    return str(columns[name]["kinds"].get(site, "not there")) if name in columns else "not there"


def _kind_of_described(draft: Draft, column: Mapping[str, Any], labels: Mapping[str, Any] | None) -> None:
    """Read the kind of problem from a target's labels, of which those of few rows are not told."""
    numeric = set(column["kinds"].values()) <= {"numeric", "empty", "not there"}
    levels = len(labels["labels"]) if labels else 0
    told = sum(count or 0 for count in labels["pooled"]["counts"]) if labels else 0
    hidden = labels["pooled"]["hidden"] if labels else 0
    if numeric and (levels > _MOST_CLASSES or hidden > told):
        draft.problem = "regression"
        draft.reasons["problem"] = "the target is a number with many values"
        return
    draft.problem = "classification"
    few = "; labels of few rows are not told" if hidden else ""
    draft.reasons["problem"] = f"the target has the values that are told: {levels}{few}"
    if numeric and levels > 2:
        draft.reasons["positive"] = "to learn 0 against the rest"


def _kind_of_target(draft: Draft, columns: list[Any]) -> None:
    import pandas as pd

    whole = pd.concat(columns).dropna()
    levels = whole.nunique()
    if levels < 2:
        raise ExperimentError(f"--target {draft.target}: has one value in all tables; nothing can be learned")
    numeric = pd.api.types.is_numeric_dtype(whole)
    if numeric and levels > _MOST_CLASSES:
        draft.problem = "regression"
        draft.reasons["problem"] = f"the target is a number with {levels} values"
        return
    if levels > _MOST_LEVELS:
        raise ExperimentError(f"--target {draft.target}: text with {levels} values is no class; name another column")
    draft.problem = "classification"
    draft.reasons["problem"] = f"the target has {levels} values" + ("" if levels == 2 else "; see `positive`")
    if numeric and levels > 2 and whole.min() == 0:
        draft.reasons["positive"] = "to learn 0 against the rest"


def _role(draft: Draft, name: str, columns: list[Any], sites: int) -> None:
    """Decide what a column is used for."""
    import pandas as pd

    if len(columns) < sites:
        draft.exclude.append(name)
        draft.reasons[name] = f"{sites - len(columns)} of {sites} sites lack it"
        return
    whole = pd.concat(columns)
    known = whole.dropna()
    numeric = all(pd.api.types.is_numeric_dtype(column) for column in columns)
    unique = len(known) > 0 and known.nunique() == len(known)
    whole_numbers = numeric and len(known) > 0 and bool((known % 1 == 0).all())
    if _GROUPS.fullmatch(name) and not unique:
        draft.group = name
        draft.reasons["group"] = "all rows of one value stay in one part"
    elif looks_like_identifier(name) or _GROUPS.fullmatch(name) or (unique and (whole_numbers or not numeric)):
        draft.exclude.append(name)
        draft.reasons[name] = "looks like an identifier" + (": no value occurs twice" if unique else "")
    elif numeric:
        draft.features.append(name)
    elif known.nunique() <= _MOST_LEVELS:
        draft.categorical.append(name)
    else:
        draft.exclude.append(name)
        draft.reasons[name] = f"text with {known.nunique()} values"


def experiment_yaml(draft: Draft, name: str) -> str:
    """Write the experiment file."""
    here = any(draft.sites.values())
    first, then, end = ("validate", "run", "") if here else ("check", "submit", " --server …")
    text = [
        "# Written by `v6-algorithm init`; every key is explained in docs/experiments.md.",
        f"#   {f'v6-algorithm {first} {name}.yaml{end}':<45} checks it against the tables",
        f"#   {f'v6-algorithm {then} {name}.yaml{end}':<45} trains, and leaves a report",
        f"name: {value_to_yaml(name)}",
        "seed: 0",
    ]
    if here:
        text.append("sites:                             # only `run` reads this; on vantage6 the collaboration decides")
        text += [f"  {value_to_yaml(site)}: {{uri: {value_to_yaml(path)}}}" for site, path in draft.sites.items()]
    else:
        text.append(f"# described: {', '.join(draft.sites)}; the collaboration decides who takes part")
    text.append("data:")
    if draft.duration:
        text.append(f"  target: {{duration: {value_to_yaml(draft.duration)}, event: {value_to_yaml(draft.target)}}}")
    else:
        text.append(_line(f"  target: {value_to_yaml(draft.target)}", draft.reasons.get("target")))
    if "positive" in draft.reasons:
        text.append(f'  # positive: "> 0"                 # {draft.reasons["positive"]}')
    if draft.categorical:
        text.append(_line(f"  categorical: {_list(draft.categorical)}", "text: a 0/1 input for each value"))
    if draft.group:
        text.append(_line(f"  group: {value_to_yaml(draft.group)}", draft.reasons["group"]))
    if draft.exclude:
        text.append("  exclude:")
        text += [_line(f"    - {value_to_yaml(column)}", draft.reasons.get(column)) for column in draft.exclude]
    text.append(f"  # used as numbers: {', '.join(draft.features) or 'none'}")
    text.append("  missing: mean                    # or median, constant, drop, error")
    text.append(_line(f"problem: {{kind: {draft.problem}}}", draft.reasons.get("problem")))
    simple = "logistic" if draft.problem == "classification" else "linear"
    hidden = "[16]" if draft.rows < 500 else "[64, 32]"
    text.append(f"model: {{kind: mlp, hidden: {hidden}}}       # or {{kind: {simple}}}")
    text.append("split: {kind: ratio, train: 0.6, validation: 0.2, test: 0.2}     # or {kind: kfold, folds: 5}")
    text.append("rounds: 40")
    batch = 32 if draft.problem != "survival" else None
    training = "optimizer: {kind: adam, lr: 0.01}"
    text.append(f"training: {{local_epochs: 1, batch_size: {batch or 'null'}, {training}}}")
    text.append("stopping: {monitor: loss, patience: 8}     # rounds without a better validation loss")
    text.append(f"participation: {{minimum: {min(2, len(draft.sites))}}}")
    return "\n".join(text) + "\n"


def _line(content: str, reason: str | None) -> str:
    return f"{content:<34} # {reason}" if reason else content


def _list(names: list[str]) -> str:
    return f"[{', '.join(map(value_to_yaml, names))}]"
