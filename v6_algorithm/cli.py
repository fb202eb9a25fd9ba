"""The command line: parses, calls, prints.

`run` does an experiment on this machine; `validate` checks one without training.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from v6_algorithm.errors import ExperimentError, V6AlgorithmError

if TYPE_CHECKING:
    from v6_algorithm.data.sources import TableSource
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
        from v6_algorithm.start import read_weights

        if engine not in ("local", "mock"):
            raise ExperimentError(f"--engine {engine}: is not known; allowed: local, mock")
        experiment = _load(file, set_)
        tables = tables_of(experiment, file.parent, experiment_file=file)
        weights = read_weights(experiment, file.parent)
        make = local_federation if engine == "local" else mock_federation
        federation = make(experiment, tables)
        with _folder(out_dir or _unused(experiment.name)) as folder:
            result = _train(experiment, federation, weights)
            # After Ctrl-C, or without a model to compare with, nobody waits for baselines.
            goes_on = baselines and result["status"] == "completed"
            unfinished = _add_baselines(result, experiment, tables, weights) if goes_on else []
            _finish(result, unfinished, folder)


@app.command()
def validate(file: File, set_: Set = None) -> None:
    """Check an experiment, and the tables of its sites where it names any, without training."""
    with _explained():
        from v6_algorithm.federation.simulate import local_federation, tables_of
        from v6_algorithm.master import check
        from v6_algorithm.start import read_weights

        experiment = _load(file, set_)
        read_weights(experiment, file.parent)
        if experiment.sites is None:
            out.print(f"{escape(str(file))}: valid; it names no sites, so their data were not checked", soft_wrap=True)
            return
        tables = tables_of(experiment, file.parent, experiment_file=file)
        agreement = check(local_federation(experiment, tables), experiment)
        for note in agreement.notes:
            out.print(f"note: {escape(note)}", soft_wrap=True)
        classes = f", {len(agreement.classes)} classes" if agreement.classes else ""
        inputs = len(agreement.features) + sum(len(values) for values in agreement.categories.values())
        out.print(f"{escape(str(file))}: valid; {inputs} inputs{classes}", soft_wrap=True)


@app.command("split-columns")
def split_columns(
    table: Annotated[Path, typer.Argument(help="A site's table, csv.", show_default=False)],
    files: Annotated[list[Path], typer.Argument(help="Split files of coinstac-dinunet.", show_default=False)],
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the table with the columns goes.")],
    key: Annotated[
        str | None, typer.Option(help="Column with the files' entries.", show_default="they are row numbers")
    ] = None,
) -> None:
    """Turn dinunet's SPLIT_*.json into columns of the table, for `data.split_column`."""
    with _explained():
        from v6_algorithm.data.sources import TableSource
        from v6_algorithm.data.split_files import add_split_columns
        from v6_algorithm.errors import DataError

        try:
            frame = TableSource(str(table), "csv").read()
        except DataError as error:
            raise ExperimentError(f"{table}: {error}") from None
        frame = add_split_columns(frame, files, key)
        try:
            frame.to_csv(out_file, index=False)
        except OSError as error:
            raise ExperimentError(f"--out {out_file}: cannot be written: {error.strerror}") from None
        names = ", ".join(file.stem for file in files)
        out.print(f"data:\n  split_column: [{escape(names)}]\nsplit: given", soft_wrap=True, highlight=False)


def _load(file: Path, overrides: list[str] | None) -> Experiment:
    from v6_algorithm.experiment import Experiment

    with err.status("loading …"):
        return Experiment.load(file, overrides)


def _train(experiment: Experiment, federation: Any, weights: str | None) -> dict[str, Any]:
    from v6_algorithm.master import run as run_experiment

    with _progress(experiment.mode) as on_event:
        return run_experiment(federation, experiment, on_event, weights=weights)


def _add_baselines(
    result: dict[str, Any], experiment: Experiment, tables: Mapping[str, TableSource], weights: str | None
) -> list[str]:
    """Run the other modes on the sites that took part; one that fails is told, and costs nothing of what is done."""
    from v6_algorithm.federation.simulate import local_federation

    tables = {name: tables[name] for name in result["sites"]}
    result["baselines"], unfinished = {}, []
    for mode in ("centralised", "local"):
        if mode == experiment.mode:
            continue
        if mode == "local" and experiment.split.kind == "leave_one_site_out":
            result["notes"].append("baseline local: left out, for leave-one-site-out tests what other sites trained")
            continue
        other = experiment.model_copy(update={"mode": mode})
        try:
            baseline = _train(other, local_federation(other, tables), weights)
        except V6AlgorithmError as error:
            unfinished.append(f"baseline {mode}: {error}")
        except KeyboardInterrupt:
            unfinished.append(f"baseline {mode}: interrupted from the keyboard")
            break
        else:
            result["baselines"][mode] = {"metrics": baseline["metrics"]}
            if baseline["status"] == "stopped":
                unfinished.append(f"baseline {mode}: {baseline['stopped_because']}")
    result["notes"] += unfinished
    return unfinished


@contextmanager
def _progress(mode: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show a bar a group of sites, with the newest metrics; off a terminal, a line every tenth of the rounds."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.fields[title]}", markup=False),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        # The metrics take what room is left; on a narrow terminal they are cut, not the bar.
        TextColumn("{task.fields[shown]}", style="dim", table_column=Column(ratio=1, no_wrap=True)),
    )
    bar = Progress(*columns, console=out, disable=not out.is_terminal, expand=True)
    with bar if out.is_terminal else nullcontext():
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
                    line = f"round {event['round']}: missing {escape(site)}: {escape(reason)}"
                    out.print(line, soft_wrap=True)
                if not out.is_terminal and event["round"] % max(1, event["rounds"] // 10) == 0:
                    title = escape(bar.tasks[task].fields["title"])
                    of = event["validated_round"]
                    model = f"  (validation of the model of round {of})" if 0 < of < event["round"] else ""
                    out.print(f"{title}: round {event['round']}/{event['rounds']}  {shown}{model}", soft_wrap=True)
            elif event["event"] == "tested":
                # Early stopping ends before the last round: the bar is full when the work is done.
                bar.update(task, total=bar.tasks[task].completed or None)

        yield on_event


def _metrics_line(metrics: dict[str, float]) -> str:
    from v6_algorithm.report.reading import number

    shown = {name: f"{name.split('_', 1)[1].replace('_', ' ')} {number(value)}" for name, value in metrics.items()}
    validation = [text for name, text in shown.items() if name.startswith("validation_")]
    train = [f"train {text}" for name, text in shown.items() if name.startswith("train_")]
    return "  ".join([*(["validation " + "  ".join(validation)] if validation else []), *train])


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Make the folder for the results, and see before anything is trained that files can be written there."""
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ExperimentError(f"--out {path}: cannot be written: {error.strerror}") from None
    try:
        yield path
    finally:
        if made:
            with suppress(OSError):
                path.rmdir()  # it has files unless the run failed


def _unused(name: str) -> Path:
    """Return a new folder name: runs that start within one second must not overwrite each other."""
    path = first = Path("runs") / f"{_slug(name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def _finish(result: dict[str, Any], unfinished: list[str], folder: Path) -> None:
    from v6_algorithm.report import closing_table, write_artifacts

    out.print(closing_table(result))
    try:
        paths = write_artifacts(result, folder)
    except OSError as error:
        raise ExperimentError(f"--out {folder}: cannot be written: {error.strerror}") from None
    for note in result["notes"]:
        out.print(f"note: {escape(note)}", soft_wrap=True)
    rounds, seconds = result["rounds_run"], result["timing"]["total_s"]
    out.print(
        f"{rounds} round{'' if rounds == 1 else 's'} in {seconds:.1f} s; "
        f"wrote {', '.join(path.name for path in paths)} to {escape(str(folder))}",
        soft_wrap=True,
    )
    if result["status"] == "stopped":
        _complain(f"stopped early, what was done is kept: {result['stopped_because']}")
    for reason in unfinished:
        _complain(f"the rest is kept, but {reason}")
    if result["status"] == "stopped" or unfinished:
        raise typer.Exit(3)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the package's own errors into a message and an exit code; anything else is a bug and shows its traceback."""
    try:
        yield
    except V6AlgorithmError as error:
        _complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        err.print("interrupted before anything was trained")
        raise typer.Exit(130) from None


def _complain(message: str) -> None:
    """Print an error a line; an indented line goes on with the one before."""
    for line in message.splitlines():
        err.print(f"{'' if line.startswith(' ') else '[bold red]error:[/] '}{escape(line)}", soft_wrap=True)


def main() -> None:
    """Run the command line; the console script `v6-algorithm`."""
    app()
