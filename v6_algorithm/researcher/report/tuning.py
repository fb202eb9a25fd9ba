"""What `tune` tried, as a table for the terminal and as rows of tuning.csv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.report.formatting import number

if TYPE_CHECKING:
    from rich.table import Table

# Settings in the table; tuning.csv has all.
_SHOWN = 15


def ranked(tuning: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the trials, those first that went furthest, and of them the best."""
    sign = -1 if tuning["higher_is_better"] else 1

    def rank(trial: Mapping[str, Any]) -> tuple[int, bool, float]:
        score = trial["scores"][-1]
        return -len(trial["scores"]), score is None, 0.0 if score is None else sign * score

    return sorted(tuning["trials"], key=rank)


def tuning_table(tuning: Mapping[str, Any]) -> Table:
    """Return the best settings with their scores, one row each."""
    from rich.table import Table
    from rich.text import Text

    trials = ranked(tuning)
    table = Table(title=Text(f"validation {tuning['metric']}"))
    table.add_column("setting")
    for heat in range(max((len(trial["scores"]) for trial in trials), default=0)):
        rounds = next(trial["rounds"][heat] for trial in trials if len(trial["rounds"]) > heat)
        table.add_column(f"{rounds} rounds", justify="right")
    for trial in trials[:_SHOWN]:
        scores = ["failed" if score is None else number(score) for score in trial["scores"]]
        style = "bold" if trial["number"] == tuning["chosen"] else ""
        table.add_row(Text(trial["text"], style=style), *scores)
    if len(trials) > _SHOWN:
        table.caption = f"and {len(trials) - _SHOWN} more, in tuning.csv"
    return table


def tuning_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of tuning.csv: a row for each setting and heat."""
    import json

    tuning = result["tuning"]
    keys = list(tuning["trials"][0]["setting"]) if tuning["trials"] else []
    rows = [
        [
            trial["number"],
            *(
                value if isinstance(value, (str, int, float)) else json.dumps(value)
                for value in trial["setting"].values()
            ),
            rounds,
            score,
            trial["number"] == tuning["chosen"],
        ]
        for trial in tuning["trials"]
        for rounds, score in zip(trial["rounds"], trial["scores"], strict=True)
    ]
    return ["number", *keys, "rounds", f"validation_{tuning['metric']}", "chosen"], rows
