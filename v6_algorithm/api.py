"""The Python API: ``import v6_algorithm.api as v6``.

    experiment = v6.Experiment(target="num", positive="> 0", rounds=20)
    result = v6.run(experiment, sites={"a": frame_a, "b": "b.csv", "c": (X, y)})
    result.metrics, result.predict(new_frame), result.save("runs/heart")

The same experiment goes to a network of hospitals with `submit`. What is wrong raises `v6_algorithm.errors`'
exceptions, whose message names the key, the value given and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from v6_algorithm import experiment as _sections
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment.arguments import PATHS, with_arguments
from v6_algorithm.experiment.optimisers import did_you_mean
from v6_algorithm.experiment.reading import read_file
from v6_algorithm.researcher.python.description import Description
from v6_algorithm.researcher.python.paired import paired
from v6_algorithm.researcher.python.result import Result, compare, load

__all__ = [
    "Description",
    "Experiment",
    "Result",
    "compare",
    "describe",
    "evaluate",
    "load",
    "package",
    "paired",
    "predict",
    "run",
    "submit",
]


class Experiment(_sections.Experiment):
    """An experiment: the keys of an experiment file, or the plain names of the most used ones.

    ``Experiment(target="num", hidden=[64], rounds=10)`` is ``Experiment(data={"target": "num"}, model={"hidden": [64]},
    rounds=10)``; `v6_algorithm.experiment.arguments.PATHS` lists the plain names, docs/experiments.md the keys.
    ``Experiment.load("heart.yaml")`` reads a file.

    Raises
    ------
    ExperimentError
        One line for each thing that is wrong.
    """

    def __init__(self, **keys: Any) -> None:
        try:
            super().__init__(**_keys(keys))
        except ValidationError as error:
            raise ExperimentError("\n".join(_sections.explain(item) for item in error.errors())) from None


def run(
    experiment: _sections.Experiment | Mapping[str, Any] | str | Path,
    sites: Mapping[str, Any] | None = None,
    *,
    model: Any = None,
    loss: Callable[..., Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    engine: str = "local",
    exact: bool = False,
    workers: int | None = None,
    weights: str | None = None,
    test: Result | str | Path | None = None,
    against: Result | str | Path | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Result:
    """Train on this machine, each site with its own rows.

    Parameters
    ----------
    experiment
        An `Experiment`, a mapping of the same keys, or the path of a file. With arrays of series or images a mapping,
        for what their shape says (problem, `data.sequence`, `data.image`) is filled in here.
    sites
        Name to rows: a DataFrame, a path, ``(X, y)`` arrays of two to five dimensions, or a mapping such as
        ``{"uri": …, "query": …}``. Those of the experiment when absent.
    model
        A network of your own: a torch module, or a function or class that makes one from those of ``inputs`` and
        ``outputs`` that it has parameters for.
    loss
        ``loss(output, target) -> (rows,)``, such as torch's with ``reduction="none"``.
    metrics
        Name to ``metric(prediction, target) -> (rows,)``, whose mean over rows is the metric; or to a pair of that and
        whether higher is better.
    engine
        ``local``, ``mock`` for vantage6's mock client, or ``ray`` for a Ray cluster.
    exact
        With engine ``local`` or ``ray``, train the sites one after another: the bits of a network, but slower where
        there are many small sites.
    workers
        With engine ``local``, the number of processes that simulate the sites; 1 if absent, which is this one. With
        ``ray``, of actors; as many as the cluster has CPUs if absent.
    weights
        The content of the file that `start.weights` names, base64 safetensors.
    test
        Train nothing: a result, or the folder of a run, whose model is tested on all rows of all sites.
    against
        With `test`: another one, whose model is tested on the same rows; `comparison` in the result has DeLong's test.
    on_event
        Called with a small dictionary after preparation, each reply, each round and the test.

    Returns
    -------
    Result

    Raises
    ------
    ExperimentError
        When something does not fit; nothing was trained.
    FederationError
        When too few sites answered before the first round was done.
    """
    from v6_algorithm.coordinator.master import run as run_master
    from v6_algorithm.engines.simulation.simulate import local_federation, mock_federation, ray_federation, tables_of
    from v6_algorithm.researcher.python.own import own_parts
    from v6_algorithm.researcher.python.sites import keys_of_arrays, tables_of_sites

    if engine not in ("local", "mock", "ray"):
        raise ExperimentError(f"engine: '{engine}' is not known; allowed: local, mock, ray")
    content, folder = _content(experiment)
    for key, value in ({} if sites is None else keys_of_arrays(sites)).items():
        content[key] = value | content.get(key, {}) if key == "data" else content.get(key, value)
    checked = _sections.Experiment.parse(own_parts(content, model, loss, metrics))
    if test is not None or against is not None:
        checked, weights = _as_test(checked, test, against)
    if workers not in (None, 1) or engine == "ray":
        if engine == "mock":
            raise ExperimentError("workers: goes with engine local and ray; the mock client is one process")
        if any(part is not None for part in (model, loss, metrics)):
            raise ExperimentError(
                "workers: model, loss and metrics of a script are known to its process alone; install them as a "
                "plug-in, or take engine local without workers"
            )
    tables = tables_of(checked, folder) if sites is None else tables_of_sites(sites, checked)
    if engine == "mock":
        return Result(run_master(mock_federation(checked, tables), checked, on_event, weights=weights))
    simulated: Callable[..., Any] = ray_federation if engine == "ray" else local_federation
    federation = simulated(checked, tables, way="exact" if exact else "fast", workers=workers)
    with closing(federation):
        return Result(run_master(federation, checked, on_event, weights=weights))


def describe(
    experiment: _sections.Experiment | Mapping[str, Any] | str | Path,
    sites: Mapping[str, Any] | None = None,
    *,
    by: str | None = None,
) -> Description:
    """Describe the sites' tables; nothing is trained.

    Parameters
    ----------
    experiment, sites
        As for `run`; of the experiment its `data` and `problem` count.
    by
        A column, or ``site``: groups to compare in `table_one` and, with a survival target, `curves`.

    Returns
    -------
    Description

    Raises
    ------
    FederationError
        When no site answers.
    """
    from v6_algorithm.coordinator.description.describe import describe as describe_sites
    from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
    from v6_algorithm.researcher.python.description import Description
    from v6_algorithm.researcher.python.sites import tables_of_sites

    content, folder = _content(experiment)
    if by is not None:
        content["evaluation"] = {**(content.get("evaluation") or {}), "by": by}
    checked = _sections.Experiment.parse(content).model_copy(update={"mode": "federated"})
    tables = tables_of(checked, folder) if sites is None else tables_of_sites(sites, checked)
    return Description(describe_sites(local_federation(checked, tables), checked))


def predict(result: Result | str | Path, rows: Any, site: str | None = None) -> Any:
    """Predict for new rows with a result, or with the run in a folder; see `Result.predict`."""
    return _result(result).predict(rows, site)


def evaluate(result: Result | str | Path, rows: Any) -> Result:
    """Measure a result's model on rows whose outcome is known; see `Result.evaluate`."""
    return _result(result).evaluate(rows)


def submit(
    experiment: _sections.Experiment | Mapping[str, Any] | str | Path,
    *,
    server: str,
    username: str,
    image: str,
    password: str | None = None,
    collaboration: str | None = None,
    organizations: Sequence[str] | None = None,
    hub: str | None = None,
    database: str | Sequence[str] = "default",
    private_key: str | Path | None = None,
    weights: str | None = None,
    test: Result | str | Path | None = None,
    against: Result | str | Path | None = None,
    poll_s: float = 5.0,
) -> Result:
    """Train on a vantage6 network, and wait for the result.

    Parameters
    ----------
    experiment
        As for `run`; its `sites` are not looked at.
    server, username, password
        The server's address with its API's path, and who asks. The password is read from the variable V6_PASSWORD when
        absent; do not write it into a notebook.
    image
        Of the algorithm: REGISTRY/v6-algorithm@sha256:….
    collaboration, organizations, hub
        Names; all organisations of the only collaboration when absent. `master` runs at the hub, else at your own.
    database
        The label that the nodes read, or two: a table and the folder of its images.
    private_key
        File, where the collaboration is encrypted.
    weights, test, against
        As for `run`.
    poll_s
        Seconds between two looks at the task.

    Returns
    -------
    Result

    Raises
    ------
    ServerError, ExperimentError, FederationError
        When the server says no, something does not fit, or the federation could not go on.
    """
    import os
    import time

    from v6_algorithm.errors import ServerError
    from v6_algorithm.researcher.server import Server

    checked = _sections.Experiment.parse(_content(experiment)[0])
    checked.check_rows_stay()
    if checked.model.kind == "module" or checked.problem.kind == "own":
        _refuse_own(checked)
    if test is not None or against is not None:
        checked, weights = _as_test(checked, test, against)
    secret = password or os.environ.get("V6_PASSWORD")
    if not secret:
        raise ServerError("password: is required; set V6_PASSWORD, which does not stay in a notebook")
    session = Server(server)
    session.log_in(username, secret, os.environ.get("V6_MFA_CODE"))
    group = session.collaboration(collaboration)
    chosen = [group.find(name) for name in organizations] if organizations else list(group.organizations)
    at = group.find(hub or session.organization)
    if private_key is not None:
        session.encrypt_with(Path(private_key))
    arguments: dict[str, Any] = {"experiment": checked.for_task()}
    if weights is not None:
        arguments["weights"] = weights
    if organizations:
        arguments["organizations"] = [site.id for site in chosen]
    labels = [database] if isinstance(database, str) else list(database)
    task = session.submit(
        group,
        at,
        image=image,
        databases=[{"label": label} for label in labels],
        arguments=arguments,
        name=checked.name,
        method="master",
    )
    while not task.look().ended:
        time.sleep(poll_s)
    return Result(task.result())


def package(
    what: Any,
    path: str | Path,
    *,
    name: str | None = None,
    problem: str = "classification",
    loss: Callable[..., Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Write the plug-in package of a network or problem of your own, and the Dockerfile of its image.

    Nothing of a notebook travels to hospitals; they run images that they allow. The package holds the source of what is
    given and of what that uses in the notebook or file; what is installed is imported.

    Parameters
    ----------
    what
        A torch module's class or a function that makes one, as `run` takes for `model`; or a `Problem`'s class.
    path
        The folder to write: new, empty, or that of an earlier call.
    name
        What experiments call it; made of the class's name when absent.
    problem
        With `loss` or `metrics`: what it is otherwise.
    loss, metrics
        As for `run`; functions with a name.

    Returns
    -------
    Path
        The folder. `pip install` it to use the name at your desk; its README and Dockerfile say how it goes on.

    Raises
    ------
    ExperimentError
        Naming what has no source, or what it uses that cannot be written.
    """
    from v6_algorithm.researcher.python.package import write_package

    return write_package(what, path, name=name, problem=problem, loss=loss, metrics=metrics).path


def _content(experiment: Any) -> tuple[dict[str, Any], Path]:
    """Return the keys of an experiment that were given, and the folder that its sites' paths are relative to."""
    if isinstance(experiment, _sections.Experiment):
        return experiment.model_dump(mode="json", exclude_unset=True), Path.cwd()
    if isinstance(experiment, Mapping):
        return _keys(experiment), Path.cwd()
    if not isinstance(experiment, (str, Path)):
        raise ExperimentError(
            f"experiment: a {type(experiment).__name__} is not taken; allowed: an Experiment, a mapping, a path"
        )
    path = Path(experiment)
    return read_file(path, None), path.parent


def _keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys of an experiment file for a mixture of those and plain names."""
    # `model` and `problem` are both: a word is a plain name, a mapping a key.
    plain = {name: value for name, value in given.items() if name in PATHS and not isinstance(value, Mapping)}
    for name in given:
        if name not in PATHS and name not in _sections.Experiment.model_fields:
            hint = did_you_mean(name, [*PATHS, *_sections.Experiment.model_fields])
            raise ExperimentError(
                f"unknown key '{name}'{hint}; allowed: {', '.join(_sections.Experiment.model_fields)}; plain names: "
                f"{', '.join(name for name in PATHS if name not in _sections.Experiment.model_fields)}"
            )
    rest = {name: value for name, value in given.items() if name not in plain}
    return dict(with_arguments(rest, plain)) if plain else rest


def _as_test(
    experiment: _sections.Experiment, test: Result | str | Path | None, against: Result | str | Path | None
) -> tuple[_sections.Experiment, str]:
    """Return the experiment that tests a result's model, or compares two, and the models."""
    from v6_algorithm.coordinator.evaluation.model_test import as_test

    if test is None:
        raise ExperimentError("against: goes with test, whose model it is compared with")
    named = {"test": test} | ({} if against is None else {"against": against})
    return as_test(experiment, [_model_of(result, where) for where, result in named.items()], list(named))


def _model_of(result: Result | str | Path, where: str) -> str:
    from v6_algorithm.coordinator.rounds.initial_model import read_model

    if not isinstance(result, Result):
        return read_model(Path(result), str(result), where)
    model = result.content.get("parameters")
    if not isinstance(model, str):
        raise ExperimentError(f"{where}: the result holds no model")
    return model


def _result(result: Result | str | Path) -> Result:
    return result if isinstance(result, Result) else load(result)


def _refuse_own(experiment: _sections.Experiment) -> None:
    from v6_algorithm.experiment import plugins

    registered = experiment.problem.kind == "own" or getattr(experiment.model, "name", "") == "own"
    if registered and not plugins.installed(plugins.MODELS, "own"):
        raise ExperimentError(
            "a network, loss or metric of this notebook cannot travel to hospitals: no code does. v6.package writes "
            "its package and the Dockerfile of an image made FROM ours (docs/extend.md); name it in the experiment"
        )
