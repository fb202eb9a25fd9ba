"""Confusion matrices, ROC curves and calibration in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from v6_algorithm.researcher.report import formatting, reading
from v6_algorithm.researcher.report.charts.marks import LOOKS, Guide, Line, Points, chart, numbers, shares
from v6_algorithm.researcher.report.reading import finite, mapping, sequence
from v6_algorithm.researcher.report.recalibration import comparison_rows
from v6_algorithm.researcher.report.templating import Row, Table, heads

# A matrix of more classes than these is not read but scrolled; it is in result.json.
_MOST_CLASSES = 20
_LARGEST_DISC = 11.0
# Of a point in the calibration chart.
_LEAST_ROWS = 5


def sections(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the section shows for the part that the run is judged by, then for the central table beside it."""
    parts = [
        part
        for part in ("test", "validation", "central")
        if any(mapping(result, key, part) for key in ("confusion", "auroc_over_time"))
    ]
    if "test" in parts and "validation" in parts:
        parts.remove("validation")
    return [
        {
            "title": reading.part_title(part),
            "targets": _targets(result, part),
            "has_classes": bool(mapping(result, "confusion", part)),
        }
        for part in parts
    ]


def _targets(result: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    targets: list[dict[str, Any]] = []
    for number, (target, confusion) in enumerate(mapping(result, "confusion", part).items()):
        charts = [
            _roc(mapping(result, "roc", part, target), f"{part}-{number}"),
            _calibration(mapping(result, "calibration", part, target), f"{part}-{number}"),
            _decision(mapping(result, "decision", part, target), f"{part}-{number}"),
        ]
        matrix, by_site = _matrices(mapping(confusion))
        risk = _risk(mapping(result, "risk", part, target))
        shown = {"charts": list(filter(None, charts)), "matrix": matrix, "by_site": by_site, "risk": risk}
        targets.append({"name": str(target), "not_drawn": [], **shown})
    for target, curves in mapping(result, "auroc_over_time", part).items():
        ident = f"{part}-{len(targets)}"
        calibrated = mapping(result, "calibration_over_time", part, target)
        drawn = [_over_time(mapping(curves), ident), _calibration_at(calibrated, ident)]
        risk = _risk_over_time(sequence(calibrated, "pooled"))
        shown = {"charts": list(filter(None, drawn)), "matrix": None, "by_site": None, "risk": risk}
        not_drawn = list(mapping(curves, "sites"))[LOOKS - 1 :]
        targets.append({"name": str(target), "not_drawn": not_drawn, **shown})
    if (both := _two_models(mapping(result, "comparison", part))) is not None:
        shown = {"charts": [], "matrix": None, "by_site": None, "risk": both}
        targets.append({"name": "two models on the same rows", "not_drawn": [], **shown})
    return targets


def _two_models(compared: Mapping[str, Any]) -> Table | None:
    """Return the paired comparison of two models by metric: DeLong's test, paired means, the bootstrap."""
    body = [
        Row([f"{name} ({test})", first, second, gap, p])
        for name, test, first, second, gap, p in comparison_rows(compared)
    ]
    head = heads("Metric", "First model", "Second model", "Difference (95 % CI)", "p")
    return Table(head, [body], wide=True) if body else None


def _calibration_at(curves: Mapping[str, Any], ident: str) -> Markup | None:
    """Return predicted against observed risk by group at the middle of the times."""
    points = sequence(curves, "pooled")
    if not points:
        return None
    point = mapping(points[len(points) // 2])
    time = formatting.number(finite(point.get("time")))
    return _calibration(
        mapping(point, "groups"), f"at-{ident}", f"Calibration at time {time}", f"Mean predicted risk at time {time}"
    )


def _risk_over_time(points: Sequence[Any]) -> Table | None:
    """Return the observed and the expected risk of all sites' rows by time."""
    body, with_fits = [], any("slope" in mapping(point) for point in points)
    for point in map(mapping, points):
        low, high = (finite(point.get(key)) for key in ("o_e_low", "o_e_high"))
        interval = "" if low is None or high is None else f" ({formatting.number(low)} to {formatting.number(high)})"
        shown = [formatting.number(finite(point.get(key))) for key in ("time", "observed", "expected", "o_e")]
        fits = [_with_error(point, key) for key in ("slope", "in_the_large")] if with_fits else []
        body.append(Row([*shown[:3], shown[3] + interval, *fits]))
    fits = ["Slope", "In the large"] if with_fits else []
    head = heads("Time", "Observed risk", "Expected risk", "O/E (95 % CI)", *fits)
    return Table(head, [body], wide=True) if body else None


def _over_time(curves: Mapping[str, Any], ident: str) -> Markup | None:
    """Return the AUROC over time, pooled and of each site as far as there are looks."""
    scopes = {"all, pooled": sequence(curves, "pooled")}
    scopes |= {str(name): sequence(curves, "sites", name) for name in mapping(curves, "sites")}
    lines, last = [], 0.0
    for look, (name, points) in enumerate(list(scopes.items())[:LOOKS]):
        known = [(finite(mapping(point).get("time")), finite(mapping(point).get("auroc"))) for point in points]
        pairs = [(time, area) for time, area in known if time is not None and area is not None]
        if pairs:
            last = max(last, pairs[-1][0])
            lines.append(Line(name, [time for time, _ in pairs], [area for _, area in pairs], look, markers=False))
    if not lines:
        return None
    left_out = list(scopes)[LOOKS:]
    return chart(
        [Guide((0.0, 0.5), (last, 0.5)), *lines],
        # As large as the chart of calibration beside it.
        replace(numbers([0.0, last], "Time"), length=300),
        shares("AUROC"),
        ident=f"chart-auroc-over-time-{ident}",
        title="AUROC over time",
        description="How well the risks tell who has had the event by a time from who is still without."
        + (f" Not drawn: {', '.join(left_out)}." if left_out else ""),
    )


def _roc(curve: Mapping[str, Any], ident: str) -> Markup | None:
    specificity = [finite(value) for value in sequence(curve, "specificity")]
    sensitivity = [finite(value) for value in sequence(curve, "sensitivity")]
    xs = [1 - value if value is not None else 0.0 for value in specificity]
    if not any(value is not None for value in sensitivity[: len(xs)]):
        return None
    return chart(
        [Guide((0, 0), (1, 1)), Line("", xs, sensitivity, markers=False)],
        shares("1 − specificity"),
        shares("Sensitivity"),
        ident=f"chart-roc-{ident}",
        title="ROC curve",
        description=f"ROC curve of {len(xs)} points.",
    )


def _calibration(
    bins: Mapping[str, Any], ident: str, title: str = "Calibration", across: str = "Mean predicted probability"
) -> Markup | None:
    rows = [finite(value) or 0.0 for value in sequence(bins, "rows")]
    predicted = [finite(value) for value in sequence(bins, "predicted")]
    observed = [finite(value) for value in sequence(bins, "observed")]
    if not len(rows) == len(predicted) == len(observed):
        return None
    points = [
        (over, share, weight)
        for over, share, weight in zip(predicted, observed, rows, strict=True)
        if over is not None and share is not None
    ]
    points = _joined(points)
    if not points:
        return None
    xs, ys, weights = zip(*points, strict=True)
    largest = max(weights) or 1
    return chart(
        [
            Guide((0, 0), (1, 1)),
            Line("", xs, ys, markers=False),
            Points(
                xs,
                ys,
                [f"{weight:,.0f} rows: predicted {x:.3f}, observed {y:.3f}" for x, y, weight in points],
                [max(2.0, _LARGEST_DISC * (weight / largest) ** 0.5) for weight in weights],
            ),
        ],
        shares(across),
        shares("Observed share"),
        ident=f"chart-calibration-{ident}",
        title=title,
        description="; ".join(f"{weight:.0f} rows: predicted {x:.2f}, observed {y:.2f}" for x, y, weight in points),
    )


def _decision(curve: Mapping[str, Any], ident: str) -> Markup | None:
    threshold = [finite(value) for value in sequence(curve, "threshold")]
    model, everybody = ([finite(value) for value in sequence(curve, key)] for key in ("model", "all"))
    known = [value for value in model if value is not None]
    if not known or not len(threshold) == len(model) == len(everybody):
        return None
    top = max([*known, *(value for value in everybody if value is not None)])
    # Far below 0 nothing is decided.
    floor = -max(top, 0.01) / 4
    xs = [value or 0.0 for value in threshold]
    named: dict[str, list[float | None]] = {"model": model, "treat all": everybody, "treat none": [0.0] * len(xs)}
    lines = [
        Line(name, xs, [value if value is not None and value >= floor else None for value in ys], look, markers=False)
        for look, (name, ys) in enumerate(named.items())
    ]
    return chart(
        lines,
        shares("Threshold probability"),
        replace(numbers([floor, top], "Net benefit"), length=300),
        ident=f"chart-decision-{ident}",
        title="Decision curve",
        description="Net benefit by threshold of the model, of treating all and of treating none.",
    )


def _risk(summaries: Mapping[str, Any]) -> Table | None:
    """Return observed over expected, and calibration intercept and slope, pooled and by site."""
    scopes = {"all, pooled": mapping(summaries, "pooled")}
    scopes |= {str(name): mapping(summaries, "sites", name) for name in mapping(summaries, "sites")}
    body = []
    for name, values in scopes.items():
        if finite(values.get("observed")) is None:
            continue
        low, high = (finite(values.get(key)) for key in ("o_e_low", "o_e_high"))
        ratio = formatting.number(finite(values.get("o_e")))
        interval = "" if low is None or high is None else f" ({formatting.number(low)} to {formatting.number(high)})"
        fits = [_with_error(values, key) for key in ("intercept", "slope", "in_the_large")]
        observed = finite(values.get("observed"))
        counts = ["–" if observed is None else f"{observed:.0f}", formatting.number(finite(values.get("expected")))]
        body.append(Row([name, *counts, ratio + interval, *fits], strong=name == "all, pooled"))
    head = heads("Site", "Observed", "Expected", "O/E (95 % CI)", "Intercept", "Slope", "In the large")
    return Table(head, [body], wide=True) if body else None


def _with_error(values: Mapping[str, Any], key: str) -> str:
    estimate, error = finite(values.get(key)), finite(values.get(f"{key}_se"))
    return "–" if estimate is None or error is None else f"{formatting.number(estimate)} ± {formatting.number(error)}"


def _joined(points: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Return (predicted, observed, rows) with neighbours joined until each stands for a few rows.

    The share of one row is 0 or 1, and says nothing of a model's calibration.
    """
    groups: list[list[tuple[float, float, float]]] = []
    for point in points:
        if groups and sum(rows for *_, rows in groups[-1]) < _LEAST_ROWS:
            groups[-1].append(point)
        else:
            groups.append([point])
    if len(groups) > 1 and sum(rows for *_, rows in groups[-1]) < _LEAST_ROWS:
        last = groups.pop()
        groups[-1] += last
    joined = []
    for group in groups:
        rows = sum(weight for *_, weight in group)
        predicted, observed = (sum(point[place] * point[2] for point in group) / rows for place in (0, 1))
        joined.append((predicted, observed, rows))
    return joined


def _matrices(confusion: Mapping[str, Any]) -> tuple[Table | None, list[Table]]:
    """Return the pooled matrix, and one for each site where there are several."""
    classes = [str(name) for name in sequence(confusion, "classes")]
    pooled = sequence(confusion, "pooled")
    if not classes or len(classes) > _MOST_CLASSES or len(pooled) != len(classes):
        return None, []
    sites = {name: matrix for name, matrix in mapping(confusion, "sites").items() if isinstance(matrix, list)}
    if len(sites) < 2:
        return _matrix("True class", classes, pooled), []
    return _matrix("All sites", classes, pooled), [
        _matrix(str(name), classes, matrix) for name, matrix in sites.items()
    ]


def _matrix(name: str, classes: Sequence[str], counts: Sequence[Any]) -> Table:
    """Return a table with a row for each true class, its share of right ones at the end."""
    body = []
    for place, (label, row) in enumerate(zip(classes, counts, strict=False)):
        known = [finite(count) or 0.0 for count in row] if isinstance(row, list) else []
        total = sum(known)
        right = known[place] / total if total and place < len(known) else None
        body.append(Row([label, *(f"{count:,.0f}" for count in known), formatting.number(right)]))
    return Table(heads(name, *(f"as {label}" for label in classes), "found"), [body])
