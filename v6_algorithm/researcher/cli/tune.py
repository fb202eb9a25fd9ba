"""`tune` searches for settings on this machine; on a network `submit --tune` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.central import measure_central, open_central
from v6_algorithm.researcher.cli.memory import import_libraries
from v6_algorithm.researcher.cli.output import Force, finish, refuse_done, results_folder, unused_folder
from v6_algorithm.researcher.cli.progress import progress
from v6_algorithm.researcher.cli.run import File, Out, Quiet, Set, load_experiment
from v6_algorithm.researcher.cli.terminal import Json, complain, explained, say, writing

if TYPE_CHECKING:
    from v6_algorithm.exchange.protocol import Federation
    from v6_algorithm.experiment import Experiment

Try = Annotated[
    list[str] | None,
    typer.Option(
        "--try", metavar="KEY.PATH=A,B,…", help="Values of a key that are compared, beside those of the file's `tune`."
    ),
]


def tune(
    file: File,
    try_: Try = None,
    draws: Annotated[
        int | None, typer.Option(metavar="N", help="Draw so many settings at random, instead of all combinations.")
    ] = None,
    halve: Annotated[
        bool, typer.Option("--halve", help="Few rounds for all settings first, all rounds for the best.")
    ] = False,
    set_: Set = None,
    out_dir: Out = None,
    force: Force = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare settings on validation rows, then run the experiment with the best of them."""
    terminal.out.quiet = quiet
    with explained(json_):
        from v6_algorithm.coordinator.rounds.initial_model import read_weights
        from v6_algorithm.coordinator.stopping import ends_when_asked
        from v6_algorithm.coordinator.tuning import Tuning
        from v6_algorithm.coordinator.tuning import tune as tune_on
        from v6_algorithm.researcher.report.artifacts import write_trials
        from v6_algorithm.researcher.report.tuning import tuning_table

        refuse_done(out_dir, force)
        experiment = _with_space(load_experiment(file, set_), try_ or [], draws, halve)
        import_libraries()
        tuning = Tuning(experiment)
        weights = read_weights(experiment, file.parent)
        central = open_central(experiment, file.parent)
        federation = _federations(experiment, file)
        with results_folder(out_dir or unused_folder(experiment.name)) as folder, ends_when_asked():
            try:
                with progress(experiment.mode) as show:
                    result = tune_on(federation, experiment, _shown_by(show), weights=weights, tuning=tuning)
            except KeyboardInterrupt:
                tried = tuning.to_json(None)
                kept = "none was tried to its end"
                if tried["trials"]:
                    with writing(folder):
                        kept = f"{write_trials(tried, folder)} has those tried"
                    terminal.out.print(tuning_table(tried))
                complain(f"interrupted before a setting was chosen; {kept}")
                raise typer.Exit(3) from None
            terminal.out.print(tuning_table(result["tuning"]))
            finish(result, measure_central(result, central, experiment.central), folder)


def _shown_by(show: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Tell each trial in a line, and leave the run at the end to the bar."""
    return lambda event: say(event["text"]) if event["event"] in ("trial", "chosen") else show(event)


def _with_space(experiment: Experiment, tries: list[str], draws: int | None, halve: bool) -> Experiment:
    """Add to the experiment's `tune` what the command line says."""
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.experiment.reading import read_value

    if not tries and draws is None and not halve:
        return experiment
    content = experiment.model_dump(mode="json", exclude_unset=True)
    section: dict[str, Any] = content.get("tune") or {}
    space = section.setdefault("space", {})
    for item in tries:
        key, separator, text = item.partition("=")
        if not separator or not key.strip() or not text.strip():
            raise ExperimentError(f"--try {item}: must be KEY.PATH=A,B, such as training.optimizer.lr=0.001,0.01")
        listed = text if text.strip()[0] in "[{" else f"[{text}]"
        space[key.strip()] = read_value(f"--try {item}", listed)
    if draws is not None:
        section["draws"] = draws
    if halve:
        section.setdefault("halving", {})
    return Experiment.parse(content | {"tune": section})


def _federations(experiment: Experiment, file: Path) -> Callable[[Experiment], Federation]:
    """Return what gives the sites for a setting: the same, with their rows prepared, while those are the same rows."""
    from v6_algorithm.engines.simulation.simulate import local_federation, tables_of

    tables = tables_of(experiment, file.parent, experiment_file=file)
    newest: list[Any] = [None, None]

    def give(trial: Experiment) -> Federation:
        if newest[0] != trial.data:
            newest[:] = trial.data, local_federation(trial, tables, way="fast")
        federation: Federation = newest[1]
        return federation

    return give
