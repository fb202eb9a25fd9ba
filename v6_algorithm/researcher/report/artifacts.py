"""Writes what a run leaves in its folder: result.json, history.csv, metrics.csv, metrics.json, report.html, the model.

Called by `v6-algorithm run`, `submit`, `watch`, `tune` and `evaluate`, which leaves no history and no model. The result
comes first and each file is put in place by a rename, so that a full disk or an interruption never leaves half a file
under a final name.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from v6_algorithm.exchange.text import cell
from v6_algorithm.researcher.report import coefficients, dinunet, groups, meta_analysis, samples
from v6_algorithm.researcher.report.page import render
from v6_algorithm.researcher.report.reading import (
    EVALUATED,
    TESTED,
    finite,
    folds,
    history_columns,
    mapping,
    metric_rows,
    run_name,
    shareable,
)
from v6_algorithm.researcher.report.tuning import tuning_rows

METRIC_HEADER = ("run", "part", "scope", "name", "metric", "value")


def write_artifacts(result: dict[str, Any], directory: Path) -> list[Path]:
    """Write the files of one run.

    Parameters
    ----------
    result : dict
        The result of `master`, as in result.json; may be partial.
    directory : Path
        Where to write; made when it does not exist. Files of an earlier run under the same names are replaced.

    Returns
    -------
    list of Path
        The files written, result.json first.

    Raises
    ------
    ValueError
        `result["parameters"]` is not base64. All other files have been written by then.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    clean = shareable(result)
    written = [
        write_file(directory / "result.json", json.dumps(clean, indent=1, allow_nan=False, ensure_ascii=False) + "\n"),
        write_file(directory / "metrics.csv", _metrics_csv(clean)),
        write_file(directory / "metrics.json", json.dumps(_headlines(clean), indent=1, allow_nan=False) + "\n"),
        write_file(directory / "report.html", render(clean)),
    ]
    if clean.get("status") not in (EVALUATED, TESTED):
        written.insert(1, write_file(directory / "history.csv", _history_csv(clean)))
    if coefficients.lines(clean):
        written.append(write_file(directory / "coefficients.csv", _csv(coefficients.HEADER, coefficients.rows(clean))))
    if effects := coefficients.effect_rows(clean):
        written.append(write_file(directory / "spline_effects.csv", _csv(coefficients.EFFECT_HEADER, effects)))
    if tests := coefficients.proportional_rows(clean):
        text = _csv(coefficients.PROPORTIONAL_HEADER, tests)
        written.append(write_file(directory / "proportional_hazards.csv", text))
    if hazard := coefficients.hazard_rows(clean):
        written.append(write_file(directory / "baseline_hazard.csv", _csv(coefficients.HAZARD_HEADER, hazard)))
    if sample := meta_analysis.rows(clean):
        written.append(write_file(directory / "meta_analysis.csv", _csv(meta_analysis.HEADER, sample)))
    if mapping(clean, "subgroups"):
        written.append(write_file(directory / "subgroups.csv", _csv(groups.HEADER, groups.group_rows(clean))))
    if mapping(clean, "tuning"):
        written.append(write_file(directory / "tuning.csv", _csv(*tuning_rows(clean))))
    if dinunet.wanted(clean):
        written += _write_dinunet(clean, directory)
    written += _write_samples(clean, directory)
    parameters = clean.get("parameters")
    if isinstance(parameters, str):
        written.append(write_file(directory / "model.safetensors", base64.b64decode(parameters, validate=True)))
    return written


def _write_samples(result: dict[str, Any], directory: Path) -> list[Path]:
    """Write pictures of what a generative model makes; of them the last is told."""
    paths = []
    for number, content in samples.pictures(result):
        (directory / "samples").mkdir(exist_ok=True)
        paths.append(write_file(directory / "samples" / f"round-{number}.png", content))
    return paths[-1:]


def _write_dinunet(result: dict[str, Any], directory: Path) -> list[Path]:
    """Write dinunet's layout; of its many files the zip is told."""
    paths = []
    for name, content in dinunet.dinunet_files(result).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.append(write_file(path, content))
    return paths[-1:]


def write_file(path: Path, content: str | bytes) -> Path:
    """Put a file in place whole, or not at all."""
    if isinstance(content, str):
        # A lone surrogate in a site's text has no UTF-8; escaped it is still valid JSON.
        content = content.encode("utf-8", "backslashreplace")
    # Hidden, beside its final place (a rename does not cross file systems), and one per process.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A model tells about its rows, and a report names hospitals: both are their owner's to pass on.
        temporary.touch(mode=0o600)
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _history_csv(result: dict[str, Any]) -> str:
    blocks = [(name, history_columns(mapping(fold, "history"))) for name, fold in folds(result)]
    lead = ["fold"] if blocks else []
    blocks = blocks or [("", history_columns(mapping(result, "history")))]
    # One header for all folds: a fold without, say, AUROC leaves its cells empty and never shifts the others.
    header = list(dict.fromkeys(column for _, columns in blocks for column in columns))
    rows = []
    for fold, columns in blocks:
        for index in range(len(columns["round"])):
            values = [columns[name][index] if name in columns else None for name in header]
            rows.append(([fold] if lead else []) + values)
    return _csv([*lead, *header], rows)


def _metrics_csv(result: dict[str, Any]) -> str:
    rows = (
        (row.run, row.part, row.scope, row.name, metric, finite(value))
        for row in metric_rows(result)
        for metric, value in row.metrics.items()
    )
    return _csv(METRIC_HEADER, rows)


def _headlines(result: dict[str, Any]) -> dict[str, Any]:
    """Nest the few numbers by which runs are compared, as DVC reads them: part, scope, metric; nothing undefined."""
    parts: dict[str, Any] = {}
    for row in metric_rows(result):
        numbers = {metric: value for metric, value in row.metrics.items() if finite(value) is not None}
        if row.run == run_name(result) and row.scope in ("pooled", "mean_over_sites") and numbers:
            parts.setdefault(row.part, {})[row.scope] = numbers
    rounds = {key: result[key] for key in ("rounds_run", "best_round") if result.get(key) is not None}
    # Beside the sites, which are always apart somehow, groups were asked for.
    asked = {part: columns for part, columns in mapping(result, "gap").items() if mapping(result, "subgroups", part)}
    return {**parts, **rounds, **({"gap": asked} if asked else {})}


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(name) for name in header])
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue()
