"""`network start`, `stop` and `status`: a vantage6 network on this machine, to try what hospitals would run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.researcher.cli.run import File, Set, load_experiment
from v6_algorithm.researcher.cli.terminal import POLICIES, Json, choice, explained, say, tell

app = typer.Typer(help="A vantage6 network on this machine, as processes.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        envvar="V6_LOCAL_NETWORK",
        help="Where all of it is kept; `submit --local` looks into the variable.",
        show_default="in the cache folder",
    ),
]


@app.command(epilog="Example: v6-algorithm network start heart.yaml && v6-algorithm submit heart.yaml --local")
def start(
    file: File,
    set_: Set = None,
    policy: Annotated[str, typer.Option(**choice(*POLICIES), help="The rules that every node holds.")] = "standard",
    folder: Folder = None,
    json_: Json = False,
) -> None:
    """Start a server and a node for each of an experiment's sites."""
    with explained(json_):
        from v6_algorithm.engines.simulation.simulate import tables_of
        from v6_algorithm.errors import ExperimentError
        from v6_algorithm.researcher import network
        from v6_algorithm.site.rules import PRESETS

        if policy not in PRESETS:
            raise ExperimentError(f"--policy {policy}: is not known; allowed: {', '.join(PRESETS)}")
        experiment = load_experiment(file, set_)
        tables = tables_of(experiment, file.parent, experiment_file=file)
        started = network.start(tables, (folder or network.default_folder()).resolve(), policy=policy, on_step=say)
        tell({"server": started.url, "sites": list(started.sites), "policy": policy, "folder": str(started.folder)})
        say(f"{len(started.sites)} sites and a hub at {started.url}, policy {policy}; files in {started.folder}")
        if folder is not None:
            say(f"for the commands below: export V6_LOCAL_NETWORK={folder}")
        say(f"next: v6-algorithm submit {file} --local")
        say("to end it: v6-algorithm network stop")


@app.command(epilog="Example: v6-algorithm network stop")
def stop(folder: Folder = None, json_: Json = False) -> None:
    """End server and nodes, and remove their files."""
    with explained(json_):
        from v6_algorithm.researcher import network

        there = network.find((folder or network.default_folder()).resolve())
        network.stop(there)
        tell({"ended": list(there.processes), "folder": str(there.folder)})
        say(f"ended: {', '.join(there.processes)}; {there.folder} is removed")


@app.command(epilog="Example: v6-algorithm network status --json")
def status(folder: Folder = None, json_: Json = False) -> None:
    """Say what runs."""
    with explained(json_):
        from v6_algorithm.researcher import network

        there = network.find((folder or network.default_folder()).resolve())
        alive = {name: name in there.alive for name in there.processes}
        tell({"processes": alive, "server": there.url, "username": network.USERNAME, "folder": str(there.folder)})
        for name in there.processes:
            say(f"{name:<16} {'runs' if name in there.alive else 'has ended'}")
        say(f"server at {there.url}; researcher '{network.USERNAME}', password in {there.folder}/password")
