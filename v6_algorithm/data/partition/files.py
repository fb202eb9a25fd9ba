"""What a partition leaves on disk: a table for each site, a node configuration each, and an experiment that names them.

Called by `v6-algorithm partition`. Tables keep the format and the cells they had; a source that is neither csv nor
parquet becomes csv.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from v6_algorithm.data.partition.tables import PART_COLUMN, Parts
from v6_algorithm.data.reading.lines import read_as_text
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import PARTS
from v6_algorithm.experiment.reading import value_to_yaml

# More columns than this make no readable rule for a node; its owner writes one.
_MOST_COLUMNS = 60


def write_tables(source: TableSource, parts: Parts, files: Mapping[str, str], folder: Path) -> None:
    """Write each site's rows of `source` to its file.

    Parameters
    ----------
    source
        The table that was cut.
    parts
        How.
    files
        Site to file name.
    folder
        Where to; it exists.
    """
    if source.kind == "parquet":
        _write_parquet(source.uri, parts, files, folder)
        return
    text = source.kind == "csv" and source.frame is None
    frame = read_as_text(source.uri, Path(source.uri).name, source.form) if text else source.read()
    for site, name in enumerate(parts.names):
        parts.frame_of(frame, site).to_csv(folder / files[name], index=False, sep=source.form.separator or ",")


def _write_parquet(uri: str, parts: Parts, files: Mapping[str, str], folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Without pandas: a table of 18,000 columns would be in memory twice.
    table = pq.read_table(uri)
    for rows, name in zip(parts.rows, parts.names, strict=True):
        site_table = table.take(pa.array(rows))
        if parts.part is not None:
            site_table = site_table.append_column(PART_COLUMN, pa.array([PARTS[number] for number in parts.part[rows]]))
        pq.write_table(site_table, folder / files[name])


def experiment_text(files: Mapping[str, str], again: str, data: Mapping[str, Any]) -> str:
    """Return an experiment file that names the sites; `data` are the keys of its data section that are known."""
    sites = "".join(f"  {value_to_yaml(name)}: {{uri: {value_to_yaml(file)}}}\n" for name, file in files.items())
    target = "" if "target" in data else "  target: replace           # the column to learn\n"
    known = "".join(f"  {key}: {value_to_yaml(value)}\n" for key, value in data.items())
    comment = "".join(f"# {line}\n" for line in ["Made by:", *(f"  {line}" for line in again.splitlines())])
    return f"{comment}sites:\n{sites}data:\n{target}{known}"


def node_text(template: str, site: str, uri: Path, kind: str, columns: Iterable[str]) -> str:
    """Return a node configuration for one site, from a template as `config/node_configuration.yaml`.

    The databases become the one file, and the rule on columns lets its columns through; the keys and addresses that
    only the node's owner knows stay as they are in the template.

    Raises
    ------
    ExperimentError
        When the template has no databases to replace, or is not YAML afterwards.
    """
    databases = (
        f"databases:\n  - label: default # what an experiment reads when the task names no other label\n"
        f"    type: {kind}\n    uri: {value_to_yaml(str(uri))}\n    mount_mode: ro\n"
    )
    text, replaced = re.subn(
        r"(?m)^databases:.*\n(?:[ -].*\n|\n(?=[ \n-]))*", lambda match: databases, template, count=1
    )
    if not replaced:
        raise ExperimentError("the node template has no `databases:` to fill in")
    names = list(columns)
    rule = "^(" + "|".join(map(re.escape, names)) + ")$" if len(names) <= _MOST_COLUMNS else ".*"
    text = re.sub(
        r"(?m)^(\s*V6_ALGORITHM_ALLOWED_COLUMNS_REGEX:).*$", lambda match: f"{match[1]} {value_to_yaml(rule)}", text
    )
    text = f"# Node of the simulated site {json.dumps(site)}; replace what says so.\n{text}"
    try:
        yaml.safe_load(text)
    except yaml.YAMLError:
        raise ExperimentError("the node template is not YAML") from None
    return text


def read_template(path: Path) -> str:
    """Read a node configuration; raises ExperimentError when that cannot be."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ExperimentError(f"--node-template {path}: cannot be read") from None


def file_names(sites: Iterable[str], ending: str) -> dict[str, str]:
    """Return a file name for each site, without what a file system may not like; no two are the same."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for site in sites:
        slug = re.sub(r"[^\w.-]+", "-", site).strip(".-") or "site"
        # Case does not tell files apart everywhere.
        while slug.lower() in taken:
            slug += "-2"
        taken.add(slug.lower())
        names[site] = slug + ending
    return names


def column_names(path: Path, separator: str = ",") -> list[str]:
    """Return the columns of a file that `write_tables` wrote."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return list(pq.read_schema(path).names)
    import pandas as pd

    return list(pd.read_csv(path, nrows=0, sep=separator).columns)
