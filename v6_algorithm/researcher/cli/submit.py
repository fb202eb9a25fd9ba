"""`submit` sends an experiment to a vantage6 network and follows it; `watch` comes back to it; `cancel` ends it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v6_algorithm.errors import ExperimentError, FederationError, ServerError, UnreachableError
from v6_algorithm.researcher.cli import connection, terminal
from v6_algorithm.researcher.cli.central import measure_central, open_central, open_table
from v6_algorithm.researcher.cli.output import Force, finish, refuse_done, results_folder, unused_folder
from v6_algorithm.researcher.cli.run import (
    Against,
    File,
    Out,
    Quiet,
    Set,
    TestRun,
    Track,
    as_test,
    load_experiment,
    named_runs,
)
from v6_algorithm.researcher.cli.terminal import Json, complain, explained, say, tell

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment, Source
    from v6_algorithm.researcher.external import CentralTable
    from v6_algorithm.researcher.server import Collaboration, Organization, Server
    from v6_algorithm.researcher.task import Task
    from v6_algorithm.researcher.tracking import Tracking


def submit(
    file: File,
    server: connection.Address = "",
    username: connection.Username = "",
    image: Annotated[
        str, typer.Option(metavar="NAME", envvar="V6_IMAGE", help="REGISTRY/v6-algorithm:TAG, or …@sha256:DIGEST.")
    ] = "",
    local: connection.Local = False,
    collaboration: connection.CollaborationName = None,
    organization: connection.Organizations = None,
    hub: connection.Hub = None,
    database: connection.Databases = None,
    query: connection.Query = None,
    sheet: connection.Sheet = None,
    private_key: connection.PrivateKey = None,
    set_: Set = None,
    out_dir: Out = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Log in and look, but send nothing.")] = False,
    tune: Annotated[bool, typer.Option("--tune", help="First search for settings, as the file's `tune` says.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Send it, and do not wait for it.")] = False,
    track: Track = None,
    test: TestRun = None,
    against: Against = None,
    force: Force = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send an experiment to a vantage6 network, show how it goes, and write what came out."""
    terminal.out.quiet = quiet
    with explained(json_):
        from v6_algorithm.coordinator.rounds.initial_model import read_weights
        from v6_algorithm.researcher.tracking import open_tracking

        refuse_done(out_dir, force)
        server, username, image = connection.where(server, username, image, local=local)
        if detach and track:
            raise ExperimentError("--track: shows what came out, which --detach does not wait for; give it to `watch`")
        _check_trackers(track)
        experiment = load_experiment(file, set_)
        experiment.check_rows_stay()
        if tune:
            from v6_algorithm.coordinator.tuning import Tuning

            Tuning(experiment)  # so that what cannot be tuned is told before anything is sent
        weights: str | None
        if test is not None or against is not None:
            if tune or track:
                raise ExperimentError("--test: trains nothing, so --tune and --track do not go with it")
            experiment, weights = as_test(experiment, named_runs(test, against))
        else:
            weights = read_weights(experiment, file.parent)
        central = open_central(experiment, file.parent)
        databases = connection.task_databases(database, query, sheet)
        session = connection.log_in(server, username)
        chosen = session.collaboration(collaboration)
        sites = [chosen.find(name) for name in organization] if organization else list(chosen.organizations)
        at = connection.choose_hub(session, chosen, hub)
        _check(experiment, sites, at, may_wait=detach or dry_run)
        connection.encrypt(session, chosen, private_key)
        _describe(session, chosen, sites, at, image, databases)
        if dry_run:
            say("dry run: nothing was sent")
            tell(
                {"task": None, "collaboration": chosen.name, "sites": [site.name for site in sites], "master": at.name}
            )
            return
        arguments: dict[str, Any] = {"experiment": experiment.for_task()}
        if weights is not None:
            arguments["weights"] = weights
        if organization:
            arguments["organizations"] = [site.id for site in sites]
        with (
            results_folder(out_dir or unused_folder(experiment.name)) as folder,
            open_tracking(track or [], folder, experiment.for_sites(), complain) as tracking,
        ):
            task = session.submit(
                chosen,
                at,
                image=image,
                databases=databases,
                arguments=arguments,
                name=experiment.name,
                method="tune" if tune else "master",
            )
            if detach:
                again = _again("watch", task.id, server, username, out_dir)
                say(f"task {task.id} is on its way; to see how it goes: {again}")
                tell({"task": task.id, "watch": again})
                return
            _follow(task, tracking, server, username, experiment.rounds)
            result = task.result()
            result.setdefault("software", {})["image"] = image
            _end(result, tracking, folder, central, experiment.central)


def watch(
    task: Annotated[int, typer.Argument(help="The task's id, which `submit` prints.", show_default=False)],
    server: connection.Address = "",
    username: connection.Username = "",
    local: connection.Local = False,
    private_key: connection.PrivateKey = None,
    out_dir: Out = None,
    central: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A table of yours, to measure the model on: a file or folder.")
    ] = None,
    track: Track = None,
    force: Force = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Follow a task that was sent before, or fetch the result of one that has ended."""
    terminal.out.quiet = quiet
    with explained(json_):
        from v6_algorithm.experiment import Source
        from v6_algorithm.researcher.tracking import open_tracking

        refuse_done(out_dir, force)
        _check_trackers(track)
        source = Source(uri=str(central)) if central else None
        table = open_table(source, Path.cwd(), "--central") if source else None
        session, server, username = connection.log_in_where(server, username, local=local)
        if private_key is not None:
            connection.tell_note(session.encrypt_with(private_key))
        submitted = session.task(task)
        with (
            results_folder(out_dir or unused_folder(f"task-{task}")) as folder,
            # Its settings come with its result.
            open_tracking(track or [], folder, {"name": submitted.name}, complain) as tracking,
        ):
            _follow(submitted, tracking, server, username)
            result = _result(submitted, server, username)
            if submitted.image:
                result.setdefault("software", {})["image"] = submitted.image
            _end(result, tracking, folder, table, source)


def cancel(
    task: Annotated[int, typer.Argument(help="The task's id, which `submit` prints.", show_default=False)],
    server: connection.Address = "",
    username: connection.Username = "",
    local: connection.Local = False,
    json_: Json = False,
) -> None:
    """Stop a task at all nodes; what it computed is lost."""
    with explained(json_):
        connection.log_in_where(server, username, local=local)[0].cancel(task)
        say(f"task {task}: the nodes were told to stop it")
        tell({"task": task, "cancelled": True})


# -- before it is sent ---------------------------------------------------------------------------------------------


def _check(experiment: Experiment, sites: list[Organization], hub: Organization, *, may_wait: bool) -> None:
    """Refuse what cannot go well, before a task waits for it."""
    minimum = experiment.participation.minimum if experiment.mode == "federated" else 1
    if len(sites) < minimum:
        names = ", ".join(site.name for site in sites)
        raise ExperimentError(f"participation.minimum: {minimum} sites are needed, these take part: {names}")
    if hub.online is False and not may_wait:
        raise FederationError(
            f"the node of {hub.name}, which is to run `master`, is offline; choose another with --hub, or leave the "
            "task waiting for it with --detach"
        )
    away = [site.name for site in sites if site.online is False]
    if away:
        waits = "; the others prepare the run without them" if experiment.may_join else ""
        say(f"note: offline, and waited for up to participation.deadline_s a round{waits}: {', '.join(away)}")


def _describe(
    session: Server,
    collaboration: Collaboration,
    sites: list[Organization],
    hub: Organization,
    image: str,
    databases: list[dict[str, str]],
) -> None:
    say(f"server         {session.address}, organisation {session.organization}")
    encrypted = "encrypted" if collaboration.encrypted else "not encrypted"
    say(f"collaboration  {collaboration.name}, {encrypted}")
    say(f"sites          {', '.join(map(str, sites))}")
    say(f"master         at {hub}")
    say(f"image          {image}")
    for database in databases:
        say(f"database       {', '.join(f'{key} {value}' for key, value in database.items())}")


# -- while it runs -------------------------------------------------------------------------------------------------


def _follow(task: Task, tracking: Tracking, address: str, username: str, rounds: int | None = None) -> None:
    """Show the task until it ends, in the trackers too; it goes on after Ctrl-C, or when a log-in ends."""
    from v6_algorithm.researcher.cli.following import follow

    try:
        follow(task, rounds, tracking.on_event)
    except KeyboardInterrupt:
        terminal.err.print(f"task {task.id} goes on without you", highlight=False)
        for command in ("watch", "cancel"):
            terminal.err.print(f"  {_again(command, task.id, address, username)}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    except ServerError as error:
        # As when the server was restarted without its key: who was logged in is so no more.
        again = _again("watch", task.id, address, username)
        raise ServerError(f"task {task.id} goes on, but {error}: {again}") from None


def _result(task: Task, address: str, username: str) -> dict[str, Any]:
    """Fetch what `master` returned; of a server that is away just then, tell how to come back."""
    try:
        return task.result()
    except UnreachableError as error:
        again = _again("watch", task.id, address, username)
        raise UnreachableError(f"task {task.id} has ended, but {error}; its result waits there: {again}") from None


def follow_to_the_end(task: Task, tracking: Tracking, address: str, username: str, rounds: int, folder: Path) -> None:
    """Show a task until it ends, and write what came out."""
    _follow(task, tracking, address, username, rounds)
    _end(_result(task, address, username), tracking, folder)


def _check_trackers(kinds: list[str] | None) -> None:
    """Refuse a tracker that is not known or not installed, before anything is sent."""
    from v6_algorithm.researcher.tracking import find

    for kind in kinds or []:
        find(kind)


def _end(
    result: dict[str, Any],
    tracking: Tracking,
    folder: Path,
    central: CentralTable | None = None,
    source: Source | None = None,
) -> None:
    """Measure on the researcher's table, write the result, and what of it the trackers lack, also of a stopped run."""
    unfinished = measure_central(result, central, source)
    try:
        finish(result, unfinished, folder)
    finally:
        tracking.finish(result)


def _again(command: str, task: int, address: str, username: str, out_dir: Path | None = None) -> str:
    where = ["--out", str(out_dir)] if out_dir is not None else []
    again = shlex.join(["v6-algorithm", command, str(task), *connection.again_at(address, username), *where])
    keycloak = os.environ.get("V6_AUTH")
    return f"V6_AUTH={shlex.quote(keycloak)} {again}" if keycloak else again
