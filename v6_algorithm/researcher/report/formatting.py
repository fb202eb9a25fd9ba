"""How the reports and the terminal write numbers: metrics, durations and sizes; what is absent is a dash."""

from __future__ import annotations

from v6_algorithm.researcher.report.reading import finite


def number(value: object) -> str:
    """Write a metric: three decimals, fewer for thousands, powers of ten where three decimals would read 0.000."""
    known = finite(value)
    if known is None:
        return "–"
    if known == 0:
        return "0.000"
    if abs(known) < 0.0005:
        return f"{known:.2e}"
    if abs(known) < 1000:
        return f"{known:.3f}"
    return f"{known:,.0f}" if abs(known) < 1e7 else f"{known:.3g}"


def seconds(value: object) -> str:
    """Write a duration."""
    known = finite(value)
    if known is None:
        return "–"
    if known < 60:
        return f"{known:.2f} s" if known < 10 else f"{known:.0f} s"
    minutes, rest = divmod(round(known), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(value: object) -> str:
    """Write a number of bytes in decimal units."""
    known = finite(value)
    if known is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if known < 999.5:
            return f"{known:.0f} {unit}" if unit == "B" or known >= 99.5 else f"{known:.1f} {unit}"
        known /= 1000
    return f"{known:.1f} TB"
