"""The command line: parses, calls, prints.

`run` does an experiment on this machine; `validate` checks one without training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from v6_algorithm.errors import V6AlgorithmError

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment

app = typer.Typer(
    name="v6-algorithm",
    help="Federated deep learning for biomedical data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

File = Annotated[Path, typer.Argument(help="The experiment file (YAML).", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY.PATH=VALUE", help="Change a key of the file, such as training.optimizer.lr=0.01."
    ),
]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        out.print(f"v6-algorithm {installed('v6-algorithm')}")
        raise typer.Exit


@app.command()
def run(
    file: File,
    set_: Set = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where results go.", show_default="runs/NAME-TIME")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or mock for vantage6's mock client.")] = "local",
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train centralised, and each site alone.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Run an experiment on this machine, each site with its own data, and write what came out."""
    out.quiet = quiet
    with _explained():
        from v6_algorithm.federation.simulate import local_federation, mock_federation, tables_of

        if engine not in ("local", "mock"):
            raise typer.BadParameter(f"unknown engine '{engine}'; allowed: local, mock", param_hint="--engine")
        experiment = _load(file, set_)
        tables = tables_of(experiment, file.parent)
        make = local_federation if engine == "local" else mock_federation
        result = _train(experiment, make(experiment, tables))
        if baselines:
            result["baselines"] = {}
            for mode in ("centralised", "local"):
                if mode != experiment.mode:
                    other = experiment.model_copy(update={"mode": mode})
                    result["baselines"][mode] = {"metrics": _train(other, local_federation(other, tables))["metrics"]}
        _finish(result, out_dir or Path("runs") / f"{_slug(experiment.name)}-{time.strftime('%Y%m%d-%H%M%S')}")


@app.command()
def validate(file: File, set_: Set = None) -> None:
    """Check an experiment, and the tables of its sites where it names any, without training."""
    with _explained():
        from v6_algorithm.federation.simulate import local_federation, tables_of
        from v6_algorithm.master import check

        experiment = _load(file, set_)
        if experiment.sites is None:
            out.print(f"{escape(str(file))}: valid; it names no sites, so their data were not checked")
            return
        agreement = check(local_federation(experiment, tables_of(experiment, file.parent)), experiment)
        for note in agreement.notes:
            out.print(f"note: {escape(note)}")
        classes = f", {len(agreement.classes)} classes" if agreement.classes else ""
        inputs = len(agreement.features) + sum(len(values) for values in agreement.categories.values())
        out.print(f"{escape(str(file))}: valid; {inputs} inputs{classes}")


def _load(file: Path, overrides: list[str] | None) -> Experiment:
    from v6_algorithm.experiment import Experiment

    with err.status("loading …"):
        return Experiment.load(file, overrides)


def _train(experiment: Experiment, federation: Any) -> dict[str, Any]:
    from v6_algorithm.master import run as run_experiment

    with _progress(experiment.mode) as on_event:
        return run_experiment(federation, experiment, on_event)


@contextmanager
def _progress(mode: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show a bar a group of sites, with the newest metrics; off a terminal, a line every tenth of the rounds."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[shown]}", style="dim"),
    )
    with Progress(*columns, console=out, disable=not out.is_terminal) as bar:
        task: Any = None

        def on_event(event: dict[str, Any]) -> None:
            nonlocal task
            if event["event"] == "prepared":
                sites = event["sites"]
                who = sites[0] if len(sites) == 1 and mode == "local" else f"{len(sites)} sites"
                task = bar.add_task(
                    "", title=mode if mode == "centralised" else f"{mode}, {who}", total=event["rounds"], shown=""
                )
            elif event["event"] == "round":
                shown = _metrics_line(event["metrics"])
                bar.update(task, completed=event["round"], shown=shown)
                for site, reason in event["missing"].items():
                    bar.console.print(f"round {event['round']}: missing {escape(site)}: {escape(reason)}")
                if not out.is_terminal and event["round"] % max(1, event["rounds"] // 10) == 0:
                    title = bar.tasks[task].fields["title"]
                    out.print(f"{title}: round {event['round']}/{event['rounds']}  {shown}", soft_wrap=True)
            elif event["event"] == "tested":
                # Early stopping ends before the last round: the bar is full when the work is done.
                bar.update(task, total=bar.tasks[task].completed or None)

        yield on_event


def _metrics_line(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())


def _finish(result: dict[str, Any], folder: Path) -> None:
    from v6_algorithm.report import closing_table, write_artifacts

    try:
        paths = write_artifacts(result, folder)
    except OSError as error:
        from v6_algorithm.errors import ExperimentError

        raise ExperimentError(f"--out {folder}: cannot be written: {error.strerror}") from None
    out.print(closing_table(result))
    for note in result["notes"]:
        out.print(f"note: {escape(note)}")
    out.print(
        f"{result['rounds_run']} rounds in {result['timing']['total_s']:.1f} s; "
        f"wrote {', '.join(path.name for path in paths)} to {escape(str(folder))}"
    )
    if result["status"] == "stopped":
        err.print(f"stopped early, what was done is kept: {escape(result['stopped_because'])}", style="red")
        raise typer.Exit(3)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the package's own errors into a message and an exit code; anything else is a bug and shows its traceback."""
    try:
        yield
    except V6AlgorithmError as error:
        for line in str(error).splitlines():
            err.print(f"[bold red]error:[/] {escape(line)}", soft_wrap=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        err.print("interrupted before anything was trained")
        raise typer.Exit(130) from None


def main() -> None:
    """Run the command line; the console script `v6-algorithm`."""
    app()
