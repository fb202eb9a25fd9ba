"""The bar that is shown while an experiment trains on this machine; off a terminal, a line every now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.terminal import say

if TYPE_CHECKING:
    from rich.progress import Progress


def wide_bar() -> Progress:
    """Make a bar as wide as the terminal, whose tasks have fields `title` and `shown`; nothing shows off a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.fields[title]}", markup=False),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        # What is shown takes what room is left; on a narrow terminal it is cut, not the bar.
        TextColumn("{task.fields[shown]}", style="dim", table_column=Column(ratio=1, no_wrap=True)),
    )
    return Progress(*columns, console=terminal.out, disable=not terminal.out.is_terminal, expand=True)


@contextmanager
def progress(mode: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show a bar a group of sites, with the newest metrics; off a terminal, a line every tenth of the rounds."""
    bar = wide_bar()
    with bar if terminal.out.is_terminal else nullcontext():
        task: Any = None

        def on_event(event: dict[str, Any]) -> None:
            nonlocal task
            if event["event"] == "prepared":
                sites = event["sites"]
                who = sites[0] if len(sites) == 1 and mode == "local" else f"{len(sites)} sites"
                title = mode if mode == "centralised" else f"{mode}, {who}"
                done = event.get("done", 0)
                task = bar.add_task("", title=title, total=event["rounds"], completed=done, shown="")
                if done:
                    say(f"{title}: goes on after round {done}/{event['rounds']}")
            elif event["event"] == "note":
                say(f"note: {event['text']}")
            elif event["event"] == "round":
                shown = _metrics_line(event["metrics"])
                if "epsilon" in event:
                    shown += f"  epsilon {event['epsilon']:.3g}"
                bar.update(task, completed=event["round"], shown=shown)
                for site, reason in event["missing"].items():
                    say(f"round {event['round']}: missing {site}: {reason}")
                if not terminal.out.is_terminal and event["round"] % max(1, event["rounds"] // 10) == 0:
                    title = bar.tasks[task].fields["title"]
                    of = event["validated_round"]
                    model = f"  (validation of the model of round {of})" if 0 < of < event["round"] else ""
                    say(f"{title}: round {event['round']}/{event['rounds']}  {shown}{model}")
            elif event["event"] == "tested":
                # Early stopping ends before the last round: the bar is full when the work is done.
                bar.update(task, total=bar.tasks[task].completed or None)

        yield on_event


def _metrics_line(metrics: dict[str, float]) -> str:
    from v6_algorithm.researcher.report.formatting import number

    shown = {name: f"{name.split('_', 1)[1].replace('_', ' ')} {number(value)}" for name, value in metrics.items()}
    validation = [text for name, text in shown.items() if name.startswith("validation_")]
    train = [f"train {text}" for name, text in shown.items() if name.startswith("train_")]
    return "  ".join([*(["validation " + "  ".join(validation)] if validation else []), *train])
