"""`check` asks the sites, here or on a network, what would go wrong with an experiment, before it is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange.text import printable
from v6_algorithm.researcher.cli import connection, terminal
from v6_algorithm.researcher.cli.output import Force, refuse_file
from v6_algorithm.researcher.cli.run import File, Set, load_experiment
from v6_algorithm.researcher.cli.terminal import POLICIES, Json, check_policy, choice, explained, say, tell, writing

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment


def check(
    file: File,
    set_: Set = None,
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="URL", envvar="V6_SERVER", help="Ask the nodes there; else the file's sites."),
    ] = None,
    username: Annotated[
        str | None, typer.Option("--username", metavar="NAME", envvar="V6_USERNAME", help="With --server.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="NAME", envvar="V6_IMAGE", help="With --server: the image that would run.")
    ] = None,
    local: connection.Local = False,
    collaboration: connection.CollaborationName = None,
    organization: connection.Organizations = None,
    hub: connection.Hub = None,
    database: connection.Databases = None,
    query: connection.Query = None,
    sheet: connection.Sheet = None,
    private_key: connection.PrivateKey = None,
    policy: Annotated[
        str | None,
        typer.Option(**choice(*POLICIES), help="Without --server: let the sites hold a node's rules."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the findings to this file, as JSON.")
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Ask every site what would go wrong, without training: versions, device, disk, columns, rows, classes, rules.

    The questions go through each node's guard and policy, as those of a run do. Exit code 0: nothing stands in the way;
    2: the experiment or a site's data do not fit; 3: a site would be left out, or too few would take part.
    """
    with explained(json_):
        from v6_algorithm.coordinator.rounds.initial_model import read_weights

        check_policy(policy)
        refuse_file(out, force)
        experiment = load_experiment(file, set_)
        read_weights(experiment, file.parent)
        if local:
            server, username, image = connection.where("", "", "", local=True)
        if server is None:
            # An image may stand in the environment for other commands.
            options = {"--collaboration": collaboration, "--organization": organization, "--hub": hub}
            options |= {"--database": database, "--query": query, "--sheet": sheet}
            if wrong := [name for name, value in options.items() if value]:
                raise ExperimentError(f"{', '.join(wrong)}: goes with --server; without it the file's sites are asked")
            report = _ask_here(experiment, file, policy)
        else:
            if not username or not image:
                raise ExperimentError("--server: give --username and --image too, as for `submit`")
            if policy is not None:
                raise ExperimentError("--policy: on a network each node holds its own rules; it goes without --server")
            experiment.check_rows_stay()
            databases = connection.task_databases(database, query, sheet)
            at = Asked(server, username, image, collaboration, organization, hub, databases, private_key)
            report = ask_network("check", "status", experiment, at)
            if report["status"] != "checked":
                raise FederationError(f"the task did not return what `check` returns; is {image} of another version?")
        show(report)
        tell(report)
        if out is not None:
            with writing(out):
                out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if report["exit_code"]:
            raise typer.Exit(int(report["exit_code"]))


def _ask_here(experiment: Experiment, file: Path, policy: str | None) -> dict[str, Any]:
    """Ask the sites that the file names, on this machine."""
    from v6_algorithm.coordinator.description.preflight import preflight
    from v6_algorithm.engines.simulation.simulate import local_federation, own_policy, tables_of

    tables = tables_of(experiment, file.parent, experiment_file=file)
    return preflight(local_federation(experiment, tables, own_policy(policy)), experiment)


@dataclass(frozen=True)
class Asked:
    """Where on a network a central function runs that asks the sites and trains nothing; as `submit` is told."""

    address: str
    username: str
    image: str
    collaboration: str | None
    organizations: list[str] | None
    hub: str | None
    databases: list[dict[str, str]]
    private_key: Path | None


def ask_network(method: str, key: str, experiment: Experiment, at: Asked) -> dict[str, Any]:
    """Send a task of a central function to the hub's node, wait for it, and return its result, which has `key`."""
    from v6_algorithm.researcher.cli.following import follow

    session = connection.log_in(at.address, at.username)
    chosen = session.collaboration(at.collaboration)
    hub = connection.choose_hub(session, chosen, at.hub)
    sites = [chosen.find(name) for name in at.organizations] if at.organizations else list(chosen.organizations)
    if hub.online is False:
        raise FederationError(
            f"the node of {hub.name}, which is to ask the others, is offline; choose another with --hub"
        )
    for site in sites:
        if site.online is False:
            say(f"note: the node of {site.name} is offline; the answer waits for it, at most participation.deadline_s")
    connection.encrypt(session, chosen, at.private_key)
    arguments: dict[str, Any] = {"experiment": experiment.for_task()}
    if at.organizations:
        arguments["organizations"] = [site.id for site in sites]
    task = session.submit(
        chosen, hub, image=at.image, databases=at.databases, arguments=arguments, name=f"{method} {experiment.name}",
        method=method,
    )  # fmt: skip
    follow(task)
    return task.result(method, key)


def show(report: dict[str, Any]) -> None:
    """Print the sites, and below them what would go wrong."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    def cell(value: Any) -> str:
        return "?" if value is None else escape(printable(value, 200))

    # Nine columns beside each other in a terminal of 80 characters.
    sites = Table(title="sites", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for name in ("site", "version", "device", "memory", "disk", "policy", "rows", "columns", "classes"):
        sites.add_column(name)
    for site, site_report in report["sites"].items():
        machine = site_report.get("machine", {})
        values = [
            site,
            site_report.get("software", {}).get("v6-algorithm"),
            machine.get("device"),
            _size(machine.get("memory_bytes")),
            _size(machine.get("disk_bytes")),
            site_report.get("policy", {}).get("preset"),
            site_report.get("rows"),
            site_report.get("columns"),
            _classes(site_report.get("classes")),
        ]
        sites.add_row(*map(cell, values))
    if report["sites"]:
        terminal.out.print(sites)
    for note in report["notes"]:
        say(f"note: {note}")
    if not report["findings"]:
        say("nothing would go wrong that can be seen before training")
        return
    wrong = Table(title="what would go wrong", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("site", "effect", "what"):
        wrong.add_column(name, overflow="fold")
    for finding in report["findings"]:
        wrong.add_row(cell(finding["site"] or "all"), cell(finding["effect"]), escape(printable(finding["what"], 2000)))
    terminal.out.print(wrong)


def _classes(classes: list[str] | None) -> str | None:
    if classes is None:
        return None
    if not classes:
        return "-"
    return ", ".join(classes[:6]) + (f", … ({len(classes)})" if len(classes) > 6 else "")


def _size(bytes_: int | None) -> str | None:
    return None if bytes_ is None else f"{bytes_ / 1e9:.1f} GB"
