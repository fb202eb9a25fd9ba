"""A model card as Markdown, filled from a result as far as it goes; what only people know is left to fill in.

`v6-algorithm report RUN --card FILE` writes it. The headings are those of Mitchell et al., Model Cards for Model
Reporting, FAT* 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v6_algorithm.researcher.report import reading
from v6_algorithm.researcher.report.facts import network_of
from v6_algorithm.researcher.report.formatting import number
from v6_algorithm.researcher.report.reading import finite, mapping, sequence
from v6_algorithm.researcher.report.shareable import shareable

_FILL = "_To be filled in: {}_"


def model_card(result: dict[str, Any]) -> str:
    """Return the card of a run."""
    result = shareable(result)
    experiment, software = mapping(result, "experiment"), mapping(result, "software")
    kind = {key: mapping(experiment, key).get("kind", "") for key in ("problem", "strategy")}
    preparation = mapping(result, "preparation")
    inputs = [*map(str, sequence(preparation, "features")), *map(str, mapping(preparation, "categories"))]
    finished = mapping(result, "timing").get("finished", "(no date)")
    versions = ", ".join(f"{name} {version}" for name, version in software.items())
    lines = [
        f"# {reading.title(result)}: model card",
        "",
        "## Model",
        "",
        f"- {kind['problem'].replace('_', ' ')} of {_target(experiment)} by {network_of(result)}, {kind['strategy']}",
        f"- inputs: {', '.join(inputs) or 'see model.safetensors'}",
        f"- finished {finished}, seed {experiment.get('seed')}, {versions}",
        f"- contact, licence, version: {_FILL.format('who answers questions')}",
        "",
        "## Intended use",
        "",
        _FILL.format("which decision, about which patients, at which moment of care, by whom"),
        "",
        "Not for: " + _FILL.format("patients, settings and decisions it must not be used for"),
        "",
        "## Data",
        "",
        *_sites(result),
        "",
        _FILL.format("period, inclusion, how outcome and predictors were measured, ethics approval"),
        "",
        "## Performance",
        "",
        *_performance(result),
        "",
        "## Limits",
        "",
        *[f"- {note}" for note in sequence(result, "notes")],
        f"- {_FILL.format('what else a user must know')}",
        "",
    ]
    return "\n".join(lines)


def _target(experiment: Mapping[str, Any]) -> str:
    target = mapping(experiment, "data").get("target") or ", ".join(map(str, mapping(experiment, "data", "targets")))
    return ", ".join(str(name) for name in target.values() if name) if isinstance(target, dict) else str(target)


def _sites(result: dict[str, Any]) -> list[str]:
    lines = ["| site | rows | training | validation | test |", "|---|---|---|---|---|"]
    for name, site in mapping(result, "sites").items():
        n = mapping(site, "n")
        cells = [str(n.get(part, "")) for part in ("rows", "train", "validation", "test")]
        lines.append(f"| {_cell(name)} | {' | '.join(cells)} |")
    return lines


def _performance(result: dict[str, Any]) -> list[str]:
    rows = [row for row in reading.metric_rows(result) if row.run == reading.run_name(result) and row.scope != "fold"]
    part = reading.main_part(rows)
    rows = [row for row in rows if row.part == part]
    metrics = reading.columns(rows)
    if not metrics:
        return ["Nothing was measured."]
    lines = [f"On the {part} rows, with 95 % intervals where there are any:", ""]
    lines += [f"| site | n | {' | '.join(map(reading.label, metrics))} |", f"|---|---|{'---|' * len(metrics)}"]
    for row in rows:
        name = reading.SUMMARIES.get(row.scope, row.name)
        cells = []
        for metric in metrics:
            around = reading.interval_text(dict(row.metrics), metric)
            cells.append(number(row.metrics.get(metric)) + (f" ({around})" if around else ""))
        n = finite(row.metrics.get("n"))
        lines.append(f"| {_cell(name)} | {'' if n is None else f'{n:,.0f}'} | {' | '.join(cells)} |")
    return lines


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
