"""Table 1, survival and incidence curves by group: text for the terminal, the page, CSV, LaTeX and SVG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from v6_algorithm.researcher.report.coefficients import p_text
from v6_algorithm.researcher.report.formatting import number

if TYPE_CHECKING:
    from rich.table import Table as Terminal

CURVES_HEADER = (
    "group", "time", "at_risk", "events", "censored", "survival", "standard_error", "low", "high",
)  # fmt: skip
INCIDENCE_HEADER = ("group", "cause", "time", "incidence", "standard_error", "low", "high")
# What stands where nothing can be computed, or nothing is told.
NONE = "–"
_RISK_COLUMNS = 6
_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "≥": r"$\geq$",
    "<": r"\textless{}",
}  # fmt: skip


def cells(table: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of text: variable, each group, the largest standardised difference, the test's p."""
    groups = list(table["groups"])
    of = "" if table["by"] == "site" else f"{table['by']} "
    heads = ["", *(f"{of}{name} (n = {table['groups'][name]:,})" for name in groups), "SMD", "p"]
    rows = []
    for name, column in table["columns"].items():
        test, exact = column["test"], column.get("exact_test")
        # Chi-square is no approximation to lean on where few rows are expected in a cell.
        last = [_two(column["difference"]), _p(exact) + " (exact)" if exact and test["small"] else _p(test)]
        groups_told = column["groups"]
        if column["kind"] == "numeric":
            rows.append([f"{name}, mean (SD)", *(_mean(groups_told[group]) for group in groups), *last])
            if any(groups_told[group]["median"] is not None for group in groups):
                medians = [_median(groups_told[group]) for group in groups]
                rows.append(["  median (IQR)", *medians, "", _rank_p(column["rank_test"])])
            missing = [groups_told[group]["missing"] for group in groups]
        else:
            rows.append([f"{name}, n (%)", *[""] * len(groups), *last])
            for place, label in enumerate(column["labels"]):
                shares = [
                    # A site that tells none of a value may have rows of it.
                    ("≥ " if groups_told[group]["hidden"] else "")
                    + _share(groups_told[group], groups_told[group]["counts"][place])
                    for group in groups
                ]
                rows.append([f"  {label}", *shares, "", ""])
            if any(groups_told[group]["hidden"] for group in groups):
                rows.append(
                    ["  (few)", *(_share(groups_told[group], groups_told[group]["hidden"]) for group in groups), "", ""]
                )
            missing = [groups_told[group]["missing"] for group in groups]
        if any(missing):
            rows.append(["  missing", *(NONE if count is None else f"{count:,}" for count in missing), "", ""])
    return heads, rows


def _mean(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None:
        return NONE
    return f"{number(cell['mean'])} ({NONE if cell['sd'] is None else number(cell['sd'])})"


def _median(cell: Mapping[str, Any]) -> str:
    if cell["median"] is None:
        return NONE
    return f"{number(cell['median'])} ({number(cell['lower'])} to {number(cell['upper'])})"


def _share(cell: Mapping[str, Any], count: int) -> str:
    known = sum(cell["counts"]) + cell["hidden"]
    return f"{count:,} ({count / known:.1%})" if known else NONE


def _two(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _p(test: Mapping[str, Any] | None) -> str:
    return NONE if test is None else p_text(test["p"])


def _rank_p(test: Mapping[str, Any] | None) -> str:
    about = "~" if test is not None and test["coarse"] else ""
    return about + _p(test)


def terminal_table(table: Mapping[str, Any]) -> Terminal:
    """Return Table 1 for the terminal."""
    return _terminal(f"Table 1, by {table['by']}", cells(table), CAPTION)


CAPTION = (
    "SMD: largest standardised difference of two groups; p of means: Welch's t, F of more than two groups; of medians: "
    "Mann-Whitney, Kruskal-Wallis of more than two, from ranks in bins (~ where these are coarse); of counts: "
    "chi-square, (exact) Fisher"
)


def csv_text(table: Mapping[str, Any]) -> str:
    """Return Table 1 as CSV."""
    heads, rows = cells(table)
    return lines_of_csv(["variable", *heads[1:]], rows)


def lines_of_csv(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Return CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def latex_text(table: Mapping[str, Any]) -> str:
    """Return Table 1 as a LaTeX tabular, for the package booktabs."""
    heads, rows = cells(table)
    lines = [
        r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
        r"\toprule",
        " & ".join(_latex(head) for head in heads) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        first = (r"\quad " if row[0].startswith("  ") else "") + _latex(row[0].strip())
        lines.append(" & ".join([first, *(_latex(text) for text in row[1:])]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def curve_rows(curves: Mapping[str, Any]) -> list[list[Any]]:
    """Return a row for each group and time, under `CURVES_HEADER`."""
    keys = ("time", "at_risk", "died", "censored", "survival", "standard_error", "low", "high")
    return [
        [name, *values]
        for name, curve in curves["groups"].items()
        for values in zip(*(curve[key] for key in keys), strict=True)
    ]


def incidence_rows(curves: Mapping[str, Any]) -> list[list[Any]]:
    """Return a row for each group, cause and time, under `INCIDENCE_HEADER`."""
    return [
        [name, cause, *values]
        for name, curve in curves["groups"].items()
        for cause, known in curve.get("incidence", {}).items()
        for values in zip(curve["time"], *(known[key] for key in INCIDENCE_HEADER[3:]), strict=True)
    ]


def curves_chart(curves: Mapping[str, Any], ident: str = "survival") -> Markup:
    """Return the curves as steps, up to as many groups as there are looks."""
    known = {name: (curve["time"], [1.0, *curve["survival"]]) for name, curve in curves["groups"].items()}
    return _steps(
        known,
        ident,
        "Survival",
        f"Survival by {curves['by']}",
        "Kaplan-Meier curves: the share without the event by time, a line a group.",
    )


def incidence_chart(curves: Mapping[str, Any], cause: str, ident: str) -> Markup:
    """Return the cumulative incidence of one cause by group."""
    known = {
        name: (curve["time"], [0.0, *curve["incidence"][cause]["incidence"]])
        for name, curve in curves["groups"].items()
    }
    return _steps(
        known,
        ident,
        "Incidence",
        f"Cumulative incidence of {cause} by {curves['by']}",
        f"Aalen-Johansen curves: the share with an event of cause {cause} by time, a line a group.",
    )


def incidence_charts(curves: Mapping[str, Any]) -> dict[str, Markup]:
    """Return a chart for each cause, by its name; none where no causes compete."""
    return {
        cause: incidence_chart(curves, cause, f"incidence-{number}")
        for number, cause in enumerate(curves.get("causes") or [])
    }


def _steps(
    known: Mapping[str, tuple[Sequence[float], Sequence[float]]], ident: str, label: str, title: str, description: str
) -> Markup:
    """Draw step curves: of each its times, and its values from time 0 on."""
    from v6_algorithm.researcher.report.charts.marks import LOOKS, Axis, Line, chart, numbers

    lines, last = [], 0.0
    for look, (name, (times, values)) in enumerate(list(known.items())[:LOOKS]):
        xs, ys = [0.0], [values[0]]
        for time, value in zip(times, values[1:], strict=True):
            xs += [time, time]
            ys += [ys[-1], value]
        last = max(last, xs[-1])
        lines.append(Line(name, xs, ys, look=look, markers=False))
    upward = Axis(0, 1, [(tick / 5, f"{tick / 5:.1f}") for tick in range(6)], label)
    return chart(lines, numbers([0.0, last], "Time"), upward, ident=ident, title=title, description=description)


def risk_cells(curves: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the numbers at risk, at evenly spaced times."""
    from v6_algorithm.researcher.report.charts.marks import ticks

    last = max(curve["time"][-1] for curve in curves["groups"].values())
    times = [time for time in ticks(0.0, last, _RISK_COLUMNS) if time <= last]
    rows = []
    for name, curve in curves["groups"].items():
        leaving = [died + other for died, other in zip(curve["died"], curve["censored"], strict=True)]
        entries = list(zip(curve["entry_time"], curve["entering"], strict=True))
        counts = []
        for time in times:
            later = sum(count for at, count in zip(curve["time"], leaving, strict=True) if at >= time)
            # Who joins right at a time is watched from there on.
            counts.append(f"{later - sum(count for at, count in entries if at > time):,}")
        rows.append([name, *counts])
    return ["At risk", *(f"{time:g}" for time in times)], rows


def curve_cells(curves: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: of each group rows, events, the median and the restricted mean with their intervals."""
    rows = []
    for name, curve in curves["groups"].items():
        median = "not reached" if curve["median"] is None else number(curve["median"])
        ends = [NONE if curve[key] is None else number(curve[key]) for key in ("median_low", "median_high")]
        mean, half = curve["restricted_mean"], 1.96 * (curve["restricted_mean_se"] or 0.0)
        rows.append(
            [
                name,
                f"{curve['rows']:,}",
                f"{curve['events']:,}",
                f"{median} ({ends[0]} to {ends[1]})",
                f"{number(mean)} ({number(mean - half)} to {number(mean + half)})",
            ]
        )
    horizon = next(iter(curves["groups"].values()))["horizon"]
    return ["", "n", "Events", "Median (95 % CI)", f"Mean up to {horizon:g} (95 % CI)"], rows


def tests_text(curves: Mapping[str, Any]) -> str:
    """Say in a sentence what the log-rank tests came to."""
    texts = [
        f"{name}: chi-square {test['chi2']:.4g} with {test['freedom']} df, p {p_text(test['p'])}"
        for key, name in (("log_rank", "log-rank"), ("log_rank_by_site", "log-rank, stratified by site"))
        if (test := curves.get(key))
    ]
    texts += [
        f"restricted mean, {compared['group']} less {compared['reference']}: {number(compared['difference'])} "
        f"({number(compared['low'])} to {number(compared['high'])}), p {p_text(compared['p'])}"
        for compared in curves["mean_differences"]
    ]
    return "; ".join(texts)


def incidence_cells(curves: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: of each group and cause its events, and the incidence at the horizon of all groups."""
    rows = []
    horizon = next(iter(curves["groups"].values()))["horizon"]
    for name, curve in curves["groups"].items():
        place = sum(time <= horizon for time in curve["time"]) - 1
        for cause, known in curve["incidence"].items():
            at = [known[key][place] if place >= 0 else 0.0 for key in ("incidence", "low", "high")]
            rows.append([name, cause, f"{known['events']:,}", "{:.1%} ({:.1%} to {:.1%})".format(*at)])
    return ["", "Cause", "Events", f"Incidence at {horizon:g} (95 % CI)"], rows


def incidence_table(curves: Mapping[str, Any]) -> Terminal:
    """Return the cumulative incidence for the terminal."""
    return _terminal(f"cumulative incidence by {curves['by']}", incidence_cells(curves))


def curves_table(curves: Mapping[str, Any]) -> Terminal:
    """Return the medians and restricted means for the terminal, with the tests below."""
    return _terminal(f"survival by {curves['by']}", curve_cells(curves), tests_text(curves))


def _terminal(title: str, texts: tuple[list[str], list[list[str]]], caption: str | None = None) -> Terminal:
    from rich.table import Table
    from rich.text import Text

    heads, rows = texts
    shown = Table(title=Text(title), caption=None if caption is None else Text(caption))
    for place, head in enumerate(heads):
        shown.add_column(Text(head), justify="left" if place == 0 else "right")
    for row in rows:
        shown.add_row(*(Text(text) for text in row))
    return shown


def page(summary: Mapping[str, Any]) -> str:
    """Return a page with Table 1, the curves, the numbers at risk and the notes."""
    from v6_algorithm.researcher.report.templating import Row, Table, fill, heads

    def table(texts: tuple[list[str], list[list[str]]], *, wide: bool = False) -> Table:
        return Table(heads(*texts[0]), [[Row(row) for row in texts[1]]], wide=wide)

    table_one, curves = summary["table_one"], summary.get("curves")
    return fill(
        "table_one.html",
        title=summary["name"],
        kind="Table 1",
        by=table_one["by"],
        table_one=table(cells(table_one), wide=True),
        caption=CAPTION,
        chart=curves_chart(curves) if curves else None,
        risk=table(risk_cells(curves), wide=True) if curves else None,
        medians=table(curve_cells(curves), wide=True) if curves else None,
        tests=tests_text(curves) if curves else "",
        incidence_charts=list(incidence_charts(curves).values()) if curves else [],
        incidence=table(incidence_cells(curves), wide=True) if curves and curves["causes"] else None,
        notes=list(summary["notes"]),
    )
