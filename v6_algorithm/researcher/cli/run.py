"""`run` does an experiment on this machine, and goes on with one for `resume`; `validate` checks one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v6_algorithm.errors import ExperimentError, V6AlgorithmError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.central import measure_central, open_central
from v6_algorithm.researcher.cli.memory import import_libraries, leave_out_of_searches
from v6_algorithm.researcher.cli.output import Force, finish, refuse_done, results_folder, say_inputs, unused_folder
from v6_algorithm.researcher.cli.profiling import profiled
from v6_algorithm.researcher.cli.progress import progress
from v6_algorithm.researcher.cli.terminal import POLICIES, Json, choice, complain, explained, say, tell
from v6_algorithm.researcher.cli.unfinished import (
    UnfinishedRun,
    checkpoints_in,
    discard,
    holds_checkpoint,
    sites_folder,
)

if TYPE_CHECKING:
    from v6_algorithm.coordinator.checkpoint import Checkpoints
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
    typer.Option("--track", **choice("tensorboard", "wandb"), help="Also show the run there, round by round."),
]
TestRun = Annotated[
    Path | None,
    typer.Option(
        "--test", metavar="RUN", help="Train nothing: test the model of an earlier run on all rows of all sites."
    ),
]
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="RUN",
        help="With --test: test this run's model on the same rows too, and compare both (DeLong, bootstrap).",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def run(
    file: File,
    set_: Set = None,
    out_dir: Out = None,
    engine: Annotated[
        str,
        typer.Option(
            **choice("local", "wire", "mock", "ray"),
            help="wire: local, every message as text; mock: vantage6's mock client; ray: on a Ray cluster.",
        ),
    ] = "local",
    exact: Annotated[
        bool, typer.Option("--exact", help="Train the sites one after another: the bits of a network, but slower.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Simulate the sites in so many processes.", show_default="1"),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train centralised, and each site alone.")
    ] = False,
    track: Track = None,
    policy: Annotated[
        str | None,
        typer.Option(**choice(*POLICIES), help="Let the sites hold a node's rules, to see what they refuse."),
    ] = None,
    test: TestRun = None,
    against: Against = None,
    force: Force = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run an experiment on this machine, each site with its own data, and write what came out."""
    terminal.out.quiet = quiet
    with explained(json_):
        if engine not in ("local", "wire", "mock", "ray"):
            raise ExperimentError(f"--engine {engine}: is not known; allowed: local, wire, mock, ray")
        if engine == "ray" and (test is not None or against is not None):
            raise ExperimentError("--engine ray: does not go with --test, which measures once; allowed: local, mock")
        terminal.check_policy(policy)
        if policy is not None and engine == "mock":
            raise ExperimentError("--policy: goes with --engine local; the mock's sites remember nothing between calls")
        _check_workers(workers, engine, test)
        refuse_done(out_dir, force)
        # First, for reading an experiment imports torch.
        import_libraries()
        experiment = load_experiment(file, set_)
        from v6_algorithm.researcher.external.local_layers import forget_layers

        if test is not None or against is not None:
            test_runs = named_runs(test, against)
            _test_here(
                experiment, file, test_runs, out_dir, engine=engine, policy=policy, asked=[baselines, bool(track)]
            )
            return
        todo = UnfinishedRun(experiment, file.parent, engine, baselines, track or [], policy, exact, workers)
        tables = _tables(todo, file)
        with results_folder(out_dir or unused_folder(experiment.name)) as folder:
            forget_layers(folder)
            if force and holds_checkpoint(folder):
                discard(folder)
                say(f"note: --force: the run in {folder} that was not done is begun anew")
            todo.begin(folder)
            _go_on(todo, tables, folder)


def _check_workers(workers: int | None, engine: str, test: Path | None) -> None:
    if workers is None:
        return
    if workers < 1:
        raise ExperimentError(f"--workers {workers}: is not allowed; allowed: whole numbers from 1")
    if engine == "mock":
        raise ExperimentError("--workers: goes with --engine local, wire and ray; the mock client is one process")
    if test is not None:
        raise ExperimentError("--workers: does not go with --test, which measures once")


def _test_here(
    experiment: Experiment,
    file: Path,
    runs: list[Path],
    out_dir: Path | None,
    *,
    engine: str,
    policy: str | None,
    asked: list[bool],
) -> None:
    """Test an earlier run's model at the experiment's sites."""
    from v6_algorithm.engines.simulation.simulate import local_federation, mock_federation, tables_of

    if any(asked):
        raise ExperimentError("--test: trains nothing, so --baselines and --track do not go with it")
    tested, weights = as_test(experiment, runs)
    tables = tables_of(tested, file.parent, experiment_file=file)
    todo = UnfinishedRun(tested, file.parent, engine, False, [], policy)
    with results_folder(out_dir or unused_folder(f"{tested.name}-test")) as folder:
        rules = _rules(todo)
        federation: Any = (
            mock_federation(tested, tables) if engine == "mock" else local_federation(tested, tables, rules)
        )
        finish(_train(tested, federation, weights), [], folder)


def named_runs(test: Path | None, against: Path | None) -> list[Path]:
    """Return the runs whose models are tested; raises ExperimentError for one to compare with and none to compare."""
    if test is None:
        raise ExperimentError(f"--against {against}: goes with --test RUN, whose model it is compared with")
    return [test] if against is None else [test, against]


def as_test(experiment: Experiment, runs: list[Path]) -> tuple[Experiment, str]:
    """Read the models of one or two earlier runs; return the experiment that tests them, and the models."""
    from v6_algorithm.coordinator.evaluation import model_test
    from v6_algorithm.coordinator.rounds.initial_model import read_model

    names = ["--test", "--against"][: len(runs)]
    where = [f"{name} {run_}" for name, run_ in zip(names, runs, strict=True)]
    files = [read_model(run_, str(run_), name) for name, run_ in zip(names, runs, strict=True)]
    return model_test.as_test(experiment, files, where)


def resume_run(folder: Path) -> None:
    """Go on with the run in a folder; raises CheckpointError when there is none."""
    todo = UnfinishedRun.read(folder)
    import_libraries()
    _go_on(todo, _tables(todo), folder)


def _tables(todo: UnfinishedRun, file: Path | None = None) -> dict[str, TableSource]:
    from v6_algorithm.engines.simulation.simulate import tables_of

    return tables_of(todo.experiment, todo.files, experiment_file=file)


def _rules(todo: UnfinishedRun) -> Policy:
    """Return the rules that the sites are to keep."""
    from v6_algorithm.engines.simulation.simulate import own_policy
    from v6_algorithm.experiment.approval import fingerprint

    rules = own_policy(todo.policy)
    if todo.policy == "strict" and not rules.approved_experiments:
        # At the desk the question is what else they would refuse.
        rules = replace(rules, approved_experiments=None)
        approved = fingerprint(todo.experiment)
        say(f"note: a strict node answers this experiment once its owner has approved {approved}")
    if rules.require_ledger and rules.ledger_folder is None:
        say("note: such a node counts all tasks on its rows together; here the ledger of each run begins empty")
    return rules


def _keeping(rules: Policy, experiment: Experiment, folder: Path) -> Policy:
    """Let the sites of this machine leave private layers and personal models in the run's folder, for `predict`."""
    from v6_algorithm.researcher.external.local_layers import LAYERS

    stays = experiment.private is not None or experiment.personal is not None
    return replace(rules, model_folder=rules.model_folder or str(folder / LAYERS)) if stays else rules


def _go_on(todo: UnfinishedRun, tables: dict[str, TableSource], folder: Path) -> None:
    """Begin or go on with a run, and write what came out; its checkpoint stays as long as it is not done."""
    from v6_algorithm.coordinator.rounds.initial_model import read_weights
    from v6_algorithm.coordinator.stopping import ends_when_asked
    from v6_algorithm.engines.simulation.simulate import local_federation, mock_federation, ray_federation
    from v6_algorithm.researcher.tracking import open_tracking

    experiment = todo.experiment
    try:
        # What a run began with is in its checkpoint.
        needs_weights = todo.baselines or not holds_checkpoint(folder)
        weights = read_weights(experiment, todo.files) if needs_weights else None
        central = open_central(experiment, todo.files)
        rules = _rules(todo)
        if todo.engine == "mock":
            federation: Any = mock_federation(experiment, tables)
        else:
            simulated = ray_federation if todo.engine == "ray" else local_federation
            federation = simulated(
                experiment, tables, _keeping(rules, experiment, folder), sites_folder(folder), todo.way, todo.workers
            )
        with ends_when_asked(), open_tracking(todo.track, folder, experiment.for_sites(), complain) as tracking:
            with profiled(experiment.output.profile, folder):
                kept = checkpoints_in(folder, experiment)
                result = _train(experiment, federation, weights, tracking.on_event, checkpoints=kept)
            tracking.finish(result)
            # After Ctrl-C, or without a model to compare with, nobody waits for baselines.
            goes_on = todo.baselines and result["status"] == "completed"
            unfinished = _add_baselines(result, todo, tables, weights, rules) if goes_on else []
            unfinished += measure_central(result, central, experiment.central)
            completed = result["status"] == "completed"
            try:
                finish(result, unfinished, folder, partial(discard, folder) if completed else None)
            finally:
                if completed:
                    discard(folder)
    finally:
        if holds_checkpoint(folder):
            complain(f"to go on: v6-algorithm resume {folder}", kind="note")
        else:
            discard(folder)


def validate(file: File, set_: Set = None, json_: Json = False) -> None:
    """Check an experiment, and the tables of its sites where it names any, without training."""
    with explained(json_):
        from v6_algorithm.coordinator.master import check
        from v6_algorithm.coordinator.rounds.initial_model import read_weights
        from v6_algorithm.engines.simulation.simulate import local_federation, tables_of

        experiment = load_experiment(file, set_)
        read_weights(experiment, file.parent)
        open_central(experiment, file.parent)
        if experiment.sites is None:
            say(f"{file}: valid; it names no sites, so their data were not checked")
            tell({"valid": True, "sites": None})
            return
        tables = tables_of(experiment, file.parent, experiment_file=file)
        agreement = check(local_federation(experiment, tables), experiment)
        if agreement.image_shape is None:
            say_inputs([*agreement.features, *agreement.categories], agreement.notes)
        for note in agreement.notes:
            say(f"note: {note}")
        tell(
            {
                "valid": True,
                "sites": list(tables),
                "features": list(agreement.features),
                "categories": {name: list(values) for name, values in agreement.categories.items()},
                "image_shape": agreement.image_shape,
                "classes": agreement.classes,
                "notes": agreement.notes,
            }
        )
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
    checkpoints: Checkpoints | None = None,
) -> dict[str, Any]:
    from v6_algorithm.coordinator.master import run as run_experiment

    with progress(experiment.mode) as show:

        def on_event(event: dict[str, Any]) -> None:
            for listener in (show, *listeners):
                listener(event)
            leave_out_of_searches(event)

        try:
            return run_experiment(federation, experiment, on_event, weights=weights, checkpoints=checkpoints)
        finally:
            # Of vantage6's there is nothing to close.
            if (close := getattr(federation, "close", None)) is not None:
                close()


def _add_baselines(
    result: dict[str, Any],
    todo: UnfinishedRun,
    tables: Mapping[str, TableSource],
    weights: str | None,
    rules: Policy,
) -> list[str]:
    """Run the other modes on the sites that took part; one that fails is told, and costs nothing of what is done."""
    from v6_algorithm.engines.simulation.simulate import local_federation

    experiment = todo.experiment
    tables = {name: tables[name] for name in result.get("secure_aggregation", result)["sites"]}
    if experiment.privacy.differential_privacy is not None:
        result["notes"].append("baselines: trained without differential privacy, on this machine")
    baselines, unfinished = result.setdefault("baselines", {}), []
    for mode in ("centralised", "local"):
        if mode == experiment.mode:
            continue
        if mode == "local" and experiment.split.kind == "leave_one_site_out":
            result["notes"].append("baseline local: left out, for leave-one-site-out tests what other sites trained")
            continue
        other = experiment.in_the_clear.model_copy(update={"mode": mode})
        try:
            # Some sites may be gone, and centralised there is one.
            alone = mode == "centralised" or todo.engine == "ray"
            workers = min(todo.workers or 1, 1 if alone else len(tables))
            baseline = _train(other, local_federation(other, tables, rules, way=todo.way, workers=workers), weights)
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
