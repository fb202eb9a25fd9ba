"""`init` writes a commented experiment for the researcher's own tables, or for those of a network's hospitals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.researcher.cli import connection
from v6_algorithm.researcher.cli.output import Force, refuse_read_only
from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell, writing

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.drafting import Draft


def init(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="One table a hospital: csv, parquet or xlsx; none with --server.", show_default=False),
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="What is learned; guessed when absent.")] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="For survival: the times; --target is the event.")
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the experiment, and of its file.")] = "experiment",
    server: Annotated[
        str, typer.Option("--server", metavar="URL", help="Instead of files: ask the nodes there what they hold.")
    ] = "",
    local: Annotated[bool, typer.Option("--local", help="Instead: ask the network of `network start`.")] = False,
    username: connection.Username = "",
    image: Annotated[
        str, typer.Option(metavar="NAME", envvar="V6_IMAGE", help="With --server: the image that would run.")
    ] = "",
    collaboration: connection.CollaborationName = None,
    organization: connection.Organizations = None,
    hub: connection.Hub = None,
    database: connection.Databases = None,
    query: connection.Query = None,
    sheet: connection.Sheet = None,
    private_key: connection.PrivateKey = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Write an experiment file for tables of yours, with what was seen in them; or for those of a network."""
    with explained(json_):
        from v6_algorithm.researcher.cli.check import Asked, ask_network
        from v6_algorithm.researcher.drafting import experiment_yaml

        path = Path(f"{name}.yaml")
        if path.exists() and not force:
            raise ExperimentError(f"{path}: is there already; --force writes over it, --name takes another name")
        refuse_read_only(path, "--name")
        there = bool(server or local)
        if there == bool(files):
            raise ExperimentError(
                "--server: asks the nodes for what they hold, so give no files with it"
                if there
                else "give a table of each hospital, or --server with --username and --image, or --local"
            )
        if there:
            server, username, image = connection.where(server, username, image, local=local)
            databases = connection.task_databases(database, query, sheet)
            at = Asked(server, username, image, collaboration, organization, hub, databases, private_key)
            drafted = _ask(target, duration, name, lambda asked: ask_network("describe", "columns", asked, at))
        else:
            drafted = _look(files or [], target, duration)
        with writing(path, "--name"):
            path.write_text(experiment_yaml(drafted, name), encoding="utf-8")
        tell({"file": str(path), **asdict(drafted)})
        count = len(drafted.sites)
        say(f"wrote {path}: {drafted.problem} of {drafted.target} at {count} site{'s' * (count > 1)}, from")
        say(f"  {len(drafted.features)} numeric and {len(drafted.categorical)} categorical columns")
        for column in drafted.exclude:
            say(f"  not used: {column} ({drafted.reasons.get(column, '')})")
        say(f"next: v6-algorithm {'submit' if there else 'run'} {path}{' --local' if local else ''}")


def _look(files: list[Path], target: str | None, duration: str | None) -> Draft:
    """Decide from the researcher's own files."""
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.experiment.reading import meant
    from v6_algorithm.researcher.drafting import draft, site_names

    tables = {}
    for site, file in site_names(files).items():
        if not file.exists():
            raise ExperimentError(f"there is no file {file}{meant(file)}")
        if file.is_dir():
            raise ExperimentError(f"{file}: is a folder; give the table in it")
        if file.suffix.lower() in (".yaml", ".yml"):
            raise ExperimentError(f"{file}: is an experiment, as `init` writes; give tables: csv, parquet or xlsx")
        try:
            tables[site] = TableSource(str(file)).read()
        except DataError as error:
            raise ExperimentError(_of_file(file, str(error))) from None
    return draft(tables, {site: str(file) for site, file in site_names(files).items()}, target, duration)


def _of_file(file: Path, message: str) -> str:
    """Put a file's name before a message that does not have it."""
    return message.replace(file.name, str(file), 1) if file.name in message else f"{file}: {message}"


def _ask(
    target: str | None, duration: str | None, name: str, describe: Callable[[Experiment], dict[str, Any]]
) -> Draft:
    """Decide from what the nodes of a network tell of their tables."""
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.drafting import draft_from_summary

    if target is None:
        raise ExperimentError("--target: is required with --server; no node lists its columns before it knows what for")
    learned = {"duration": duration, "event": target} if duration else target
    experiment = Experiment.parse(
        {"name": name, "data": {"target": learned}, "problem": "survival" if duration else "classification"}
    )
    summary = describe(experiment)
    for note in summary["notes"]:
        say(f"note: {note}")
    for site, reason in summary["missing_sites"].items():
        say(f"note: site '{site}' is not in this: {reason}")
    return draft_from_summary(summary, target, duration)
