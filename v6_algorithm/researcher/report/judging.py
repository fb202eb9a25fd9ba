"""Confusion matrices, ROC curves and calibration in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from v6_algorithm.researcher.report import reading
from v6_algorithm.researcher.report.charts.squares import square_chart
from v6_algorithm.researcher.report.charts.svg import Line
from v6_algorithm.researcher.report.markup import row_of, safe, table_of
from v6_algorithm.researcher.report.reading import finite, mapping, sequence

# A matrix of more classes than these is not read but scrolled; it is in result.json.
_MOST_CLASSES = 20


def judging_section(result: Mapping[str, Any]) -> str:
    """Return the section for the part that the run is judged by, with the central table beside it; may be empty."""
    parts = [part for part in ("test", "validation", "central") if mapping(result, "confusion", part)]
    if "test" in parts and "validation" in parts:
        parts.remove("validation")
    if not parts:
        return ""
    first, *others = parts
    body = _part(result, first)
    for part in others:
        body += f"<details><summary>{_title(part)}</summary>{_part(result, part)}</details>"
    hint = (
        '<p class="hint">ROC: points at least 5 rows apart; the dotted line is guessing. Calibration: below the dotted '
        "line the model promises more than is seen; areas go with rows. In a matrix a row is a true class.</p>"
    )
    return f"<section><h2>Errors, ROC and calibration: {safe(_title(first).lower())}</h2>{body}{hint}</section>"


def _title(part: str) -> str:
    return "Central table" if part == "central" else f"{part.capitalize()} rows"


def _part(result: Mapping[str, Any], part: str) -> str:
    targets = mapping(result, "confusion", part)
    several = len(targets) > 1
    parts = []
    for number, (target, confusion) in enumerate(targets.items()):
        heading = f"<h3>{safe(str(target))}</h3>" if several else ""
        charts = [
            f"<figure>{chart}</figure>"
            for chart in (
                _roc(mapping(result, "roc", part, target), f"{part}-{number}"),
                _calibration(mapping(result, "calibration", part, target), f"{part}-{number}"),
            )
            if chart
        ]
        parts.append(f'{heading}<div class="charts squares">{"".join(charts)}</div>{_matrices(confusion)}')
    return "".join(parts)


def _roc(curve: Mapping[str, Any], ident: str) -> str:
    specificity = [finite(value) for value in sequence(curve, "specificity")]
    sensitivity = [finite(value) for value in sequence(curve, "sensitivity")]
    xs = [1 - value if value is not None else 0.0 for value in specificity]
    axes = ("1 − specificity", "Sensitivity")
    described = f"ROC curve of {len(xs)} points."
    return square_chart(
        [Line("", xs, sensitivity)], axes=axes, ident=f"chart-roc-{ident}", title="ROC curve", description=described
    )


def _calibration(bins: Mapping[str, Any], ident: str) -> str:
    rows = [finite(value) or 0.0 for value in sequence(bins, "rows")]
    predicted = [finite(value) for value in sequence(bins, "predicted")]
    observed = [finite(value) for value in sequence(bins, "observed")]
    if not len(rows) == len(predicted) == len(observed):
        return ""
    points = [
        (over, share, weight)
        for over, share, weight in zip(predicted, observed, rows, strict=True)
        if over is not None and share is not None
    ]
    described = "; ".join(
        f"{weight:.0f} rows: predicted {over:.2f}, observed {share:.2f}" for over, share, weight in points
    )
    return square_chart(
        [Line("", [over for over, _, _ in points], [share for _, share, _ in points])],
        axes=("Mean predicted probability", "Observed share"),
        ident=f"chart-calibration-{ident}",
        title="Calibration",
        description=described,
        weights=[weight for _, _, weight in points],
    )


def _matrices(confusion: Mapping[str, Any]) -> str:
    classes = [str(name) for name in sequence(confusion, "classes")]
    pooled = sequence(confusion, "pooled")
    if not classes or len(classes) > _MOST_CLASSES or len(pooled) != len(classes):
        return ""
    text = _matrix("All sites", classes, pooled)
    sites = {name: matrix for name, matrix in mapping(confusion, "sites").items() if isinstance(matrix, list)}
    if len(sites) < 2:
        return _matrix("True class", classes, pooled)
    by_site = "".join(_matrix(str(name), classes, matrix) for name, matrix in sites.items())
    return f"{text}<details><summary>By site</summary>{by_site}</details>"


def _matrix(name: str, classes: Sequence[str], counts: Sequence[Any]) -> str:
    """Return a table with a row for each true class, its share of right ones at the end."""
    body = []
    for place, (label, row) in enumerate(zip(classes, counts, strict=False)):
        known = [finite(count) or 0.0 for count in row] if isinstance(row, list) else []
        total = sum(known)
        right = known[place] / total if total and place < len(known) else None
        body.append(row_of([label, *(f"{count:,.0f}" for count in known), reading.number(right)]))
    counts = table_of([name, *(f"as {label}" for label in classes), "found"], ["".join(body)])
    return f'<div class="counts">{counts}</div>'
