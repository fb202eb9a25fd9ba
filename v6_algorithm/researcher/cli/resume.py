"""`resume` goes on with a run that was cut short: one on this machine by its folder, one on a network by its task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import connection, submit, terminal
from v6_algorithm.researcher.cli.output import Force, refuse_done, results_folder, unused_folder
from v6_algorithm.researcher.cli.run import Out, Quiet, Set, Track, load_experiment, resume_run
from v6_algorithm.researcher.cli.terminal import Json, complain, explained, say, tell


def resume(
    what: Annotated[
        str, typer.Argument(metavar="RUN|TASK", help="The folder of a run, or the id of a task.", show_default=False)
    ],
    server: Annotated[
        str | None,
        typer.Option(
            "--server", metavar="URL", envvar="V6_SERVER", help="For a task: the server's address, as for `submit`."
        ),
    ] = None,
    username: Annotated[
        str | None,
        typer.Option(
            "--username",
            metavar="NAME",
            envvar="V6_USERNAME",
            help="For a task: who asks; password: V6_PASSWORD, or a prompt.",
        ),
    ] = None,
    private_key: connection.PrivateKey = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="For a task in an encrypted collaboration: its experiment."),
    ] = None,
    set_: Set = None,
    out_dir: Out = None,
    detach: Annotated[bool, typer.Option("--detach", help="For a task: send it, and do not wait for it.")] = False,
    track: Track = None,
    force: Force = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was killed, interrupted or stopped: to the same numbers as if it had not been."""
    terminal.out.quiet = quiet
    with explained(json_):
        if Path(what).is_dir() or not what.isdigit():
            for name, value in (
                ("--file", file),
                ("--set", set_),
                ("--out", out_dir),
                ("--track", track),
                ("--force", force),
            ):
                if value:
                    raise ExperimentError(f"{name}: goes with a task; the run in {what} goes on as it was begun")
            resume_run(Path(what))
            return
        refuse_done(out_dir, force)
        if not server or not username:
            raise ExperimentError(f"task {what}: give --server and --username, as for `submit`")
        if set_ and file is None:
            raise ExperimentError("--set: goes with --file; a task is gone on with as it was sent")
        _resume_task(int(what), server, username, private_key, file, set_, out_dir, detach, track)


def _resume_task(
    number: int,
    address: str,
    username: str,
    private_key: Path | None,
    file: Path | None,
    set_: list[str] | None,
    out_dir: Path | None,
    detach: bool,
    track: list[str] | None,
) -> None:
    """Send a task that replays what the sites answered to an earlier one, and follow it."""
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.earlier import EarlierTask
    from v6_algorithm.researcher.tracking import open_tracking

    experiment = load_experiment(file, set_) if file else None
    session = connection.log_in(address, username)
    earlier = EarlierTask.read(session, number)
    arguments = earlier.going_on(experiment)
    experiment = experiment or Experiment.parse(arguments["experiment"], where=f"task {number}", checked=True)
    collaboration = session.collaboration(str(earlier.collaboration))
    connection.encrypt(session, collaboration, private_key)
    hub = collaboration.find(str(earlier.hub))
    if experiment.private is not None or experiment.strategy.compress.stages:
        say(
            "note: a new task finds nothing of what sites remember: private layers begin anew, compression without its "
            "memory"
        )
    with (
        results_folder(out_dir or unused_folder(experiment.name)) as folder,
        open_tracking(track or [], folder, experiment.for_sites(), complain) as tracking,
    ):
        task = session.submit(
            collaboration,
            hub,
            image=earlier.image,
            databases=earlier.databases,
            arguments=arguments,
            name=earlier.name,
        )
        say(f"task {task.id} goes on from task {number}, at {hub}")
        if detach:
            tell({"task": task.id, "goes_on_from": number})
            return
        submit.follow_to_the_end(task, tracking, address, username, experiment.rounds, folder)
