"""The coefficients of a GLM or Cox model, as a table in the terminal, in the page and as coefficients.csv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.report.reading import finite, mapping, positive_class, sequence

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.table import Table as Terminal

    from v6_algorithm.researcher.report.templating import Table

# Key of a ratio in a line of the result, and what it is called.
RATIOS = {
    "odds_ratio": "Odds ratio",
    "rate_ratio": "Rate ratio",
    "mean_ratio": "Mean ratio",
    "hazard_ratio": "Hazard ratio",
}
HAZARD_HEADER = ("time", "at_risk", "events", "cumulative_hazard", "survival")
# Of the information on a coefficient, the share that empty cells took away.
_LOST = "Missing"
EFFECT_HEADER = ("column", "reference", "x", "estimate", "low", "high")
PROPORTIONAL_HEADER = ("term", "chi2", "p")
HEADER = (
    "term", "estimate", "standard_error", "z", "p", "low", "high", "ratio", "ratio_low", "ratio_high", "left_out",
    "freedom", "missing_information",
)  # fmt: skip


def lines(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of `coefficients` that are mappings; a result from elsewhere may hold anything."""
    return [line for line in sequence(result, "coefficients") if isinstance(line, dict)]


def rows(result: dict[str, Any]) -> list[list[Any]]:
    """Return a row for each term, under `HEADER`."""
    ratio = ratio_of(result) or "ratio"
    keys = [*HEADER[:7], ratio, f"{ratio}_low", f"{ratio}_high", *HEADER[10:]]
    return [
        [line.get(key) if key == "term" or key == "left_out" else finite(line.get(key)) for key in keys]
        for line in lines(result)
    ]


def ratio_of(result: dict[str, Any]) -> str | None:
    """Return the key of the ratio that the lines have, or None."""
    return next((key for key in RATIOS for line in lines(result) if key in line), None)


def cells(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return heads and text cells: term, estimate with its interval, error, z, p, and the ratio with its interval."""
    ratio = ratio_of(result)
    heads = ["Term", "Estimate", "95 % CI", "SE", "z", "p", *([RATIOS[ratio], "95 % CI"] if ratio else [])]
    imputed = imputations(result)
    heads += [_LOST] if imputed else []
    texts = []
    for term, estimate, error, z, p, low, high, *of_ratio, left_out, _, lost in rows(result):
        if left_out:
            texts.append([str(term), str(left_out), *[""] * (len(heads) - 2)])
            continue
        text = [str(term), _number(estimate), _interval(low, high), _number(error), _number(z, 3), p_text(p)]
        if ratio:
            text += [_number(of_ratio[0], 3), _interval(of_ratio[1], of_ratio[2], 3) if of_ratio[0] is not None else ""]
        texts.append([*text, "" if lost is None else f"{lost:.0%}"] if imputed else text)
    return heads, texts


def imputations(result: dict[str, Any]) -> bool:
    """Whether the coefficients are pooled over imputed tables."""
    return finite(mapping(result, "fit").get("imputations")) is not None


def p_text(p: float | None) -> str:
    """Write a p value as journals do."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def _interval(low: float | None, high: float | None, digits: int = 4) -> str:
    return "" if low is None or high is None else f"{low:.{digits}g} to {high:.{digits}g}"


def fit_text(result: dict[str, Any]) -> str:
    """Say in one line how well the model fits."""
    fit = mapping(result, "fit")
    if not fit:
        return ""
    names = {
        "log_likelihood": "log-likelihood",
        "deviance": "deviance",
        "null_deviance": "null deviance",
        "aic": "AIC",
        "bic": "BIC",
        "pseudo_r2": {"gaussian": "R²", "gamma": "share of the deviance"}.get(
            str(fit.get("family")), "pseudo-R² (McFadden)"
        ),
        "nagelkerke": "pseudo-R² (Nagelkerke)",
        "deviance_explained": "share of the deviance",
        "dispersion": "dispersion",
        "alpha": "alpha",
        "pearson_over_df": "Pearson's statistic over its degrees of freedom",
    }
    parts = [f"{name} {value:.6g}" for key, name in names.items() if (value := finite(fit.get(key))) is not None]
    converged = "converged" if fit.get("converged") else "not converged"
    if fit.get("family") == "cox":
        by = ", a baseline hazard for each site" if fit.get("strata") == "site" else ""
        head = f"Cox, ties after {str(fit.get('ties')).title()}{by}, {fit.get('rows')} rows, {fit.get('events')} events"
        if (chi2 := finite(fit.get("likelihood_ratio"))) is not None:
            p = p_text(finite(fit.get("likelihood_ratio_p")))
            parts.append(f"likelihood ratio {chi2:.4g} with {fit.get('rank')} degrees of freedom, p {p}")
    else:
        of_class = (
            f" ({named})" if fit.get("family") == "binomial" and (named := positive_class(result, ["auroc"])) else ""
        )
        head = f"{fit.get('family')}{of_class}, link {fit.get('link')}, {fit.get('rows')} rows"
    if penalty := mapping(fit, "penalty"):
        head += f", penalty {penalty.get('kind')} of strength {_number(finite(penalty.get('strength')))}"
    head = f"{head}, {converged} after {fit.get('rounds')}"
    return f"{head} rounds: {', '.join(parts)}"


def effect_rows(result: dict[str, Any]) -> list[list[Any]]:
    """Return rows under `EFFECT_HEADER` of the curves of a regression's columns."""
    effects = mapping(result, "spline_effects")
    return [
        [column, finite(effect.get("reference")), *point]
        for column, effect in effects.items()
        if isinstance(effect, dict)
        for point in zip(*(sequence(effect, key) for key in EFFECT_HEADER[2:]), strict=False)
    ]


def effect_charts(result: dict[str, Any]) -> list[Markup]:
    """Draw the curves of a regression's columns, with their intervals."""
    from v6_algorithm.researcher.report.charts.marks import Line, chart, numbers

    charts = []
    columns: dict[str, list[list[Any]]] = {}
    for row in effect_rows(result):
        columns.setdefault(str(row[0]), []).append(row)
    for number, (column, points) in enumerate(columns.items()):
        xs, *values = ([finite(point[place]) for point in points] for place in (2, 3, 4, 5))
        if any(x is None for x in xs):
            continue
        places = [float(x) for x in xs if x is not None]
        lines = [
            Line(text, places, ys, look, markers=False, unit=column)
            for text, ys, look in zip(("estimate", "95 % low", "95 % high"), values, (0, 1, 1), strict=True)
        ]
        title = f"{column}: linear predictor against {_number(points[0][1])}"
        y = numbers([value for ys in values for value in ys], "Difference")
        description = f"Curve of {column} with its 95 % interval"
        charts.append(
            chart(lines, numbers(places, column), y, ident=f"curve-{number}", title=title, description=description)
        )
    return charts


def hazard_rows(result: dict[str, Any]) -> list[list[Any]]:
    """Return rows of time, at_risk, events, cumulative_hazard and survival of a Cox model's baseline hazard."""
    baseline = mapping(result, "baseline_hazard")
    return [list(row) for row in zip(*(sequence(baseline, key) for key in HAZARD_HEADER), strict=False)]


def proportional_rows(result: dict[str, Any]) -> list[list[Any]]:
    """Return rows of term, chi-square and p of a Cox model's test of proportional hazards."""
    tests = [test for test in sequence(result, "proportional_hazards") if isinstance(test, dict)]
    return [[str(test.get("term")), finite(test.get("chi2")), finite(test.get("p"))] for test in tests]


def page_table(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return the page's section, or None where there are no coefficients."""
    from v6_algorithm.researcher.report.templating import Row, Table
    from v6_algorithm.researcher.report.templating import heads as heads_of

    if not lines(result):
        return None
    heads, texts = cells(result)
    table: Table = Table(heads_of(*heads), [[Row(text) for text in texts]], wide=True)
    tests = [Row([term, _number(chi2), p_text(p)]) for term, chi2, p in proportional_rows(result)]
    proportional: Table | None = Table(heads_of("Term", "Chi-square", "p"), [tests]) if tests else None
    joint = [
        Row(
            [
                str(test.get("column")),
                _number(finite(test.get("chi2"))),
                str(test.get("freedom")),
                p_text(finite(test.get("p"))),
            ]
        )
        for test in sequence(result, "wald")
        if isinstance(test, dict)
    ]
    wald: Table | None = Table(heads_of("Terms", "Chi-square", "df", "p"), [joint]) if joint else None
    return {
        "table": table,
        "imputed": imputations(result),
        "fit": fit_text(result),
        "proportional": proportional,
        "wald": wald,
        "curves": effect_charts(result),
    }


def terminal_table(result: dict[str, Any]) -> Terminal | None:
    """Return the table that a run prints: without z, so that it fits 80 columns."""
    from rich.table import Table
    from rich.text import Text

    if not lines(result):
        return None
    heads, texts = cells(result)
    shown = [place for place, head in enumerate(heads) if head not in ("z", "SE")]
    if ratio_of(result):
        # The interval of the ratio says as much as that of its logarithm.
        shown = [place for place in shown if place != 2]
    table = Table(title=Text("coefficients"), caption=Text(fit_text(result)))
    for place in shown:
        table.add_column(Text(heads[place]), justify="left" if place == 0 else "right")
    for text in texts:
        table.add_row(*(Text(text[place]) for place in shown))
    return table
