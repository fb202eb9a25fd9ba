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
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from v6_algorithm.exchange.text import cell
from v6_algorithm.researcher.report import coefficients, dinunet, groups, meta_analysis, samples
from v6_algorithm.researcher.report.page import render_shareable
from v6_algorithm.researcher.report.reading import (
    EVALUATED,
    TESTED,
    class_of_one,
    finite,
    folds,
    history_columns,
    is_of_one_class,
    mapping,
    metric_rows,
    run_name,
)
from v6_algorithm.researcher.report.shareable import shareable
from v6_algorithm.researcher.report.tuning import tuning_rows

# Beside what each run has: a table for each kind of result, in `_files`.
_OF_SOME_RUNS = (
    "history.csv",
    "model.safetensors",
    "coefficients.csv",
    "spline_effects.csv",
    "proportional_hazards.csv",
    "baseline_hazard.csv",
    "meta_analysis.csv",
    "subgroups.csv",
    "tuning.csv",
)
# Characters of a model's text that are written at once; a multiple of four.
_PIECE = 2**24
# A file's content, whole or in pieces.
Content = str | bytes | Iterable[str] | Iterable[bytes]
METRIC_HEADER = ("run", "part", "scope", "name", "metric", "value", "class")


def write_artifacts(result: dict[str, Any], directory: Path) -> list[Path]:
    """Write the files of one run.

    Parameters
    ----------
    result : dict
        The result of `master`, as in result.json; may be partial.
    directory : Path
        Where to write; made when it does not exist. Files that an earlier run left there are replaced, and where
        its result is there those that this one has not (its model, when this one stopped without any) are removed, so
        that all are of one run.

    Returns
    -------
    list of Path
        The files written, result.json first.

    Raises
    ------
    PartlyWrittenError
        When the disk refuses a file, once the others are tried; of result.json, then without the model.
    ValueError
        `result["parameters"]` is not base64. All other files have been written by then.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    earlier = _of_a_run(directory) if (directory / "result.json").exists() else []
    clean = shareable(result)
    written, failed, names = [], [], set()
    reason: OSError | None = None
    for name, told, content in _files(clean):
        path = directory / name
        names.add(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content())
        except OSError as error:
            # A smaller file may fit where this one does not.
            failed.append(path)
            reason = error
        else:
            written += [path] if told else []
    for path in earlier:
        if path.relative_to(directory).as_posix() not in names:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    if reason is None:
        return written
    result_file = directory / "result.json"
    if result_file in failed and clean.get("parameters") is not None:
        notes = [*clean.get("notes", []), "this file is without the model, for which there was no room"]
        with suppress(OSError):
            written.insert(0, write_file(result_file, _json({**clean, "parameters": None, "notes": notes})))
    raise PartlyWrittenError(reason, written, failed) from None


class PartlyWrittenError(OSError):
    """Some files of a result could not be written.

    Attributes
    ----------
    written, failed
        The files that are there whole, and those that are not; result.json is in both where it is without the model.
    """

    def __init__(self, reason: OSError, written: list[Path], failed: list[Path]) -> None:
        super().__init__(reason.errno, reason.strerror or str(reason))
        self.written, self.failed = written, failed


def _files(clean: dict[str, Any]) -> Iterator[tuple[str, bool, Callable[[], Content]]]:
    """Yield names, whether they are told (of many of a kind the last is), and what makes their content."""
    yield "result.json", True, lambda: _json(clean)
    if clean.get("status") not in (EVALUATED, TESTED):
        yield "history.csv", True, lambda: _history_csv(clean)
    yield "metrics.csv", True, lambda: _metrics_csv(clean)
    yield "metrics.json", True, lambda: json.dumps(headlines(clean), indent=1, allow_nan=False) + "\n"
    yield "report.html", True, lambda: render_shareable(clean)
    tables = {
        "coefficients.csv": (coefficients.HEADER, coefficients.rows(clean) if coefficients.lines(clean) else None),
        "spline_effects.csv": (coefficients.EFFECT_HEADER, coefficients.effect_rows(clean)),
        "proportional_hazards.csv": (coefficients.PROPORTIONAL_HEADER, coefficients.proportional_rows(clean)),
        "baseline_hazard.csv": (coefficients.HAZARD_HEADER, coefficients.hazard_rows(clean)),
        "meta_analysis.csv": (meta_analysis.HEADER, meta_analysis.rows(clean)),
        "subgroups.csv": (groups.HEADER, groups.group_rows(clean) if mapping(clean, "subgroups") else None),
        "tuning.csv": tuning_rows(clean) if mapping(clean, "tuning") else ((), None),
    }
    for name, (header, rows) in tables.items():
        if rows:
            yield name, True, partial(_csv, header, rows)
    if dinunet.wanted(clean):
        yield from _of_many((name, content) for name, content in dinunet.dinunet_files(clean).items())
    yield from _of_many((f"samples/round-{number}.png", content) for number, content in samples.pictures(clean))
    parameters = clean.get("parameters")
    if isinstance(parameters, str):
        yield "model.safetensors", True, lambda: _decoded(parameters)


def write_trials(tuning: dict[str, Any], directory: Path) -> Path:
    """Write tuning.csv of a search that was interrupted, as of a result's ``tuning``; raises OSError."""
    return write_file(directory / "tuning.csv", _csv(*tuning_rows({"tuning": tuning})))


def _of_a_run(directory: Path) -> list[Path]:
    """Return the files in a folder whose names only a run gives, whichever run it was."""
    return [*(directory / name for name in _OF_SOME_RUNS), *directory.glob("samples/round-*.png")]


def _of_many(files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bool, Callable[[], bytes]]]:
    """Yield files as `_files` does: of dinunet's the zip is told, of pictures the last."""
    every = list(files)
    for place, (name, content) in enumerate(every, 1):
        yield name, place == len(every), partial(bytes, content)


def _json(content: dict[str, Any]) -> str | Iterator[str]:
    """Return result.json; with a large model in pieces."""
    parameters = content.get("parameters")
    if not isinstance(parameters, str) or len(parameters) <= _PIECE:
        return _indented(content, 0) + "\n"
    mark = secrets.token_hex(16)
    before, after = _indented({**content, "parameters": mark}, 0).split(mark)
    pieces = (parameters[place : place + _PIECE] for place in range(0, len(parameters), _PIECE))
    return chain([before], (json.dumps(piece, ensure_ascii=False)[1:-1] for piece in pieces), [after + "\n"])


def _decoded(text: str) -> bytes | Iterator[bytes]:
    """Return the bytes of a base64 text, many in pieces; raises ValueError where it is none."""
    if len(text) <= _PIECE:
        return base64.b64decode(text, validate=True)
    pieces = (text[place : place + _PIECE] for place in range(0, len(text), _PIECE))
    return (base64.b64decode(piece, validate=True) for piece in pieces)


def _indented(value: Any, depth: int) -> str:
    """Return what ``json.dumps(value, indent=1)`` does inside of so many others.

    With an indent Python's json takes the encoder that is written in Python; here that in C writes what is flat.
    """
    if not isinstance(value, dict | list | tuple) or not value:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    start, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    items = list(value.values() if isinstance(value, dict) else value)
    if not any(isinstance(item, dict | list | tuple) for item in items):
        flat = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(f",{start}", ": "))
        return f"{flat[0]}{start}{flat[1:-1]}{end}{flat[-1]}"
    written = [_indented(item, depth + 1) for item in items]
    if isinstance(value, dict):
        keys = (json.dumps(str(key), ensure_ascii=False) for key in value)
        written = [f"{key}: {item}" for key, item in zip(keys, written, strict=True)]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}{start}{f',{start}'.join(written)}{end}{last}"


def write_file(path: Path, content: Content) -> Path:
    """Put a file in place whole, or not at all."""
    # Hidden, beside its final place (a rename does not cross file systems), and one per process.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A model tells about its rows, and a report names hospitals: both are their owner's to pass on.
        temporary.touch(mode=0o600)
        if isinstance(content, (str, bytes)):
            temporary.write_bytes(_encoded(content))
        else:
            with temporary.open("wb") as file:
                for piece in content:
                    file.write(_encoded(piece))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _encoded(content: str | bytes) -> bytes:
    # A lone surrogate in a site's text has no UTF-8; escaped it is still valid JSON.
    return content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content


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
    # What precision and its kin are of stands beside each of them.
    named = class_of_one(result)
    rows = (
        (row.run, row.part, row.scope, row.name, metric, finite(value), named if is_of_one_class(metric) else "")
        for row in metric_rows(result)
        for metric, value in row.metrics.items()
    )
    return _csv(METRIC_HEADER, rows)


def headlines(result: dict[str, Any]) -> dict[str, Any]:
    """Nest the few numbers by which runs are compared, as DVC reads them: part, scope, metric; nothing undefined."""
    parts: dict[str, Any] = {}
    for row in metric_rows(result):
        numbers = {metric: value for metric, value in row.metrics.items() if finite(value) is not None}
        if row.run == run_name(result) and row.scope in ("pooled", "mean_over_sites") and numbers:
            parts.setdefault(row.part, {})[row.scope] = numbers
    rounds = {key: result[key] for key in ("rounds_run", "best_round") if result.get(key) is not None}
    # Beside the sites, which are always apart somehow, groups were asked for.
    asked = {part: columns for part, columns in mapping(result, "gap").items() if mapping(result, "subgroups", part)}
    scopes = [scope for part in parts.values() for scope in part.values()]
    one = class_of_one(result) if any(is_of_one_class(metric) for scope in scopes for metric in scope) else ""
    return {**parts, **rounds, **({"gap": asked} if asked else {}), **({"class": one} if one else {})}


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(name) for name in header])
    # Names of sites and metrics come again and again.
    texts: dict[str, object] = {}
    writer.writerows(
        [texts.get(value) or texts.setdefault(value, cell(value)) if isinstance(value, str) else value for value in row]
        for row in rows
    )
    return text.getvalue()
