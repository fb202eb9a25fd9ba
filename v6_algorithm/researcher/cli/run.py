"""`run` does an experiment on this machine; `validate` checks one without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v6_algorithm.errors import ExperimentError, V6AlgorithmError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.central import measure_central, open_central
from v6_algorithm.researcher.cli.output import finish, results_folder, unused_folder
from v6_algorithm.researcher.cli.profiling import profiled
from v6_algorithm.researcher.cli.progress import progress
from v6_algorithm.researcher.cli.terminal import explained, say

if TYPE_CHECKING:
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.site.policy import Policy

File = Annotated[Path, typer.Argument(help="The experiment file (YAML).", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY.PATH=VALUE", help="Change a key of the file, such as training.optimizer.lr=0.01."
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Where results go.", show_default="runs/NAME-TIME")
]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", metavar="tensorboard|wandb", help="Also show the run there, round by round."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def run(
    file: File,
    set_: Set = None,
    out_dir: Out = None,
    engine: Annotated[str, typer.Option(help="local, or mock for vantage6's mock client.")] = "local",
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train centralised, and each site alone.")
    ] = False,
    track: Track = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="trusted|standard|strict", help="Let the sites hold a node's rules, to see what they refuse."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run an experiment on this machine, each site with its own data, and write what came out."""
    terminal.out.quiet = quiet
    with explained():
        from v6_algorithm.coordinator.initial_model import read_weights
        from v6_algorithm.engines.simulate import local_federation, mock_federation, own_policy, tables_of
        from v6_algorithm.experiment.approval import fingerprint
        from v6_algorithm.researcher.tracking import open_tracking

        if engine not in ("local", "mock"):
            raise ExperimentError(f"--engine {engine}: is not known; allowed: local, mock")
        experiment = load_experiment(file, set_)
        tables = tables_of(experiment, file.parent, experiment_file=file)
        weights = read_weights(experiment, file.parent)
        central = open_central(experiment, file.parent)
        if policy is not None and engine != "local":
            raise ExperimentError("--policy: goes with --engine local; the mock's sites remember nothing between calls")
        rules = own_policy(policy)
        if policy == "strict" and not rules.approved_experiments:
            # At the desk the question is what else they would refuse.
            rules = replace(rules, approved_experiments=None)
            say(f"note: a strict node answers this experiment once its owner has approved {fingerprint(experiment)}")
        federation = (
            local_federation(experiment, tables, rules) if engine == "local" else mock_federation(experiment, tables)
        )
        with (
            results_folder(out_dir or unused_folder(experiment.name)) as folder,
            open_tracking(track or [], folder, experiment.for_sites()) as tracking,
        ):
            with profiled(experiment.output.profile, folder):
                result = _train(experiment, federation, weights, tracking.on_event)
            tracking.finish(result)
            # After Ctrl-C, or without a model to compare with, nobody waits for baselines.
            goes_on = baselines and result["status"] == "completed"
            unfinished = _add_baselines(result, experiment, tables, weights, rules) if goes_on else []
            unfinished += measure_central(result, central, experiment.central)
            finish(result, unfinished, folder)


def validate(file: File, set_: Set = None) -> None:
    """Check an experiment, and the tables of its sites where it names any, without training."""
    with explained():
        from v6_algorithm.coordinator.initial_model import read_weights
        from v6_algorithm.coordinator.master import check
        from v6_algorithm.engines.simulate import local_federation, tables_of

        experiment = load_experiment(file, set_)
        read_weights(experiment, file.parent)
        open_central(experiment, file.parent)
        if experiment.sites is None:
            say(f"{file}: valid; it names no sites, so their data were not checked")
            return
        tables = tables_of(experiment, file.parent, experiment_file=file)
        agreement = check(local_federation(experiment, tables), experiment)
        for note in agreement.notes:
            say(f"note: {note}")
        classes = f", {len(agreement.classes)} classes" if agreement.classes else ""
        count = len(agreement.features) + sum(len(values) for values in agreement.categories.values())
        inputs = f"{count} input{'' if count == 1 else 's'}"
        if agreement.image_shape is not None:
            channels, *lengths = agreement.image_shape
            inputs = f"images of {' x '.join(str(length) for length in lengths)}, channels: {channels}"
        say(f"{file}: valid; {inputs}{classes}")


def load_experiment(file: Path, overrides: list[str] | None) -> Experiment:
    """Read an experiment file and its overrides."""
    from v6_algorithm.experiment import Experiment

    with terminal.err.status("loading …"):
        return Experiment.load(file, overrides)


def _train(
    experiment: Experiment,
    federation: Any,
    weights: str | None,
    *listeners: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    from v6_algorithm.coordinator.master import run as run_experiment

    with progress(experiment.mode) as show:

        def on_event(event: dict[str, Any]) -> None:
            for listener in (show, *listeners):
                listener(event)

        return run_experiment(federation, experiment, on_event, weights=weights)


def _add_baselines(
    result: dict[str, Any],
    experiment: Experiment,
    tables: Mapping[str, TableSource],
    weights: str | None,
    rules: Policy,
) -> list[str]:
    """Run the other modes on the sites that took part; one that fails is told, and costs nothing of what is done."""
    from v6_algorithm.engines.simulate import local_federation

    tables = {name: tables[name] for name in result["sites"]}
    baselines, unfinished = result.setdefault("baselines", {}), []
    for mode in ("centralised", "local"):
        if mode == experiment.mode:
            continue
        if mode == "local" and experiment.split.kind == "leave_one_site_out":
            result["notes"].append("baseline local: left out, for leave-one-site-out tests what other sites trained")
            continue
        other = experiment.model_copy(update={"mode": mode})
        try:
            baseline = _train(other, local_federation(other, tables, rules), weights)
        except V6AlgorithmError as error:
            unfinished.append(f"baseline {mode}: {error}")
        except KeyboardInterrupt:
            unfinished.append(f"baseline {mode}: interrupted from the keyboard")
            break
        else:
            baselines[mode] = {"metrics": baseline["metrics"]}
            if experiment.central is not None and baseline["parameters"] is not None:
                baselines[mode]["parameters"] = baseline["parameters"]
            if baseline["status"] == "stopped":
                unfinished.append(f"baseline {mode}: {baseline['stopped_because']}")
    result["notes"] += unfinished
    return unfinished
