"""What the network's names do: find client, data and policy in a vantage6 container (or take the mock's), and go.

The tools' own decorators are not used: they import a second of libraries at every start, and their `@data` reads
neither folders nor more than the first of several tables in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.sources import ASSUMED, FOLDER, STATE, TableSource, source_from_node
from v6_algorithm.engines import known_models
from v6_algorithm.engines.provenance import RULE, asking, check_chain, own_identity
from v6_algorithm.engines.vantage6 import session
from v6_algorithm.engines.vantage6.runs import scores_line
from v6_algorithm.errors import ExperimentError, PolicyError, SiteError
from v6_algorithm.exchange import wire
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site.guard.queries import guarded_source
from v6_algorithm.site.policy import Policy

if TYPE_CHECKING:
    from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
    from v6_algorithm.experiment import Experiment


# A run's folder on a vantage6 node.
_RUN_FOLDER = re.compile(r"task-\d{9,}")
# Bytes in a server's database that a round may leave without a word.
_LEAST_SPACE, _MUCH_SPACE = 5e6, 50e6
# For the node's owner, in its log.
_AGNOSTIC = (
    "strategy agnostic weighs sites by how bad the model is there: one may come to carry all weight, and the model to "
    "be of its rows"
)


def run_master(
    client: Any,
    data: Any,
    experiment: Any,
    *,
    organizations: Sequence[int | str] | None = None,
    names: Mapping[str, str] | None = None,
    weights: str | None = None,
    mock_client: Any = None,
    resume: int | Sequence[int] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Run an experiment over the organisations of a collaboration; see `v6_algorithm.master`."""
    from v6_algorithm.coordinator.master import run
    from v6_algorithm.coordinator.stopping import ends_when_asked
    from v6_algorithm.engines.vantage6.journal import Journal, journal_folder

    federation, checked = _central(client, data, experiment, organizations, names, mock_client, arguments)
    # A mock's folder is used again by the next run, whose task has the same number.
    folder = journal_folder(federation.task) if federation.is_real else None
    journal = Journal(folder, federation, checked, lambda text: print(text, flush=True))
    if (done := journal.begin(_tasks(resume))) is not None:
        return done
    with ends_when_asked(), federation.residents(checked.resident, checked.participation.deadline_s):
        result = run(federation, checked, on_event=_say, weights=weights, checkpoints=journal.checkpoints)
    if result["status"] == "stopped" and federation.task is not None:
        result["notes"].append(f"to go on from where it stopped: v6-algorithm resume {federation.task} --server …")
    if checked.output.profile:
        result["notes"].append("output.profile: only a run on the researcher's machine is profiled")
    journal.finish(result)
    return result


def run_tune(
    client: Any,
    data: Any,
    experiment: Any,
    *,
    organizations: Sequence[int | str] | None = None,
    names: Mapping[str, str] | None = None,
    weights: str | None = None,
    mock_client: Any = None,
) -> dict[str, Any]:
    """Search for settings over the organisations of a collaboration; see `v6_algorithm.tune`."""
    from v6_algorithm.coordinator.tuning import tune

    federation, checked = _central(client, data, experiment, organizations, names, mock_client, {})
    with federation.residents(checked.resident, checked.participation.deadline_s):
        return tune(lambda trial: federation, checked, on_event=_say, weights=weights)


def run_describe(
    client: Any,
    data: Any,
    experiment: Any,
    *,
    organizations: Sequence[int | str] | None = None,
    names: Mapping[str, str] | None = None,
    mock_client: Any = None,
    **arguments: Any,
) -> dict[str, Any]:
    """Describe the tables of a collaboration; see `v6_algorithm.describe`."""
    from v6_algorithm.coordinator.description.describe import describe

    return describe(*_central(client, data, experiment, organizations, names, mock_client, arguments))


def run_check(
    client: Any,
    data: Any,
    experiment: Any,
    *,
    organizations: Sequence[int | str] | None = None,
    names: Mapping[str, str] | None = None,
    mock_client: Any = None,
) -> dict[str, Any]:
    """Ask a collaboration what would go wrong with an experiment; see `v6_algorithm.check`."""
    from v6_algorithm.coordinator.description.preflight import preflight

    return preflight(*_central(client, data, experiment, organizations, names, mock_client, {}))


def _central(
    client: Any,
    data: Any,
    experiment: Any,
    organizations: Sequence[int | str] | None,
    names: Mapping[str, str] | None,
    mock_client: Any,
    arguments: Mapping[str, Any],
) -> tuple[Vantage6Federation, Experiment]:
    """Read what a central function was given, however vantage6 passes it."""
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.experiment.arguments import with_arguments

    client, experiment = _by_position(client, data, experiment)
    checked = Experiment.parse(with_arguments(experiment, arguments))
    checked.check_rows_stay()
    federation = _federation(
        client or mock_client,
        # A form sends an empty list for a choice that was not made.
        organizations=organizations or None,
        names=_names(names or {}),
        poll_s=checked.participation.poll_s,
    )
    return federation, checked


def _federation(client: Any, **options: Any) -> Vantage6Federation:
    """Choose the engine of the version whose container this is; without a client, make that of the container."""
    if session.is_session():
        from v6_algorithm.engines.vantage6 import v5

        return v5.SessionFederation(client or v5.container_client(), **options)
    from v6_algorithm.engines.vantage6.v4 import Vantage6Federation, container_client

    return Vantage6Federation(client or container_client(), **options)


def _by_position(client: Any, data: Any, experiment: Any) -> tuple[Any, Any]:
    """Tell client and experiment apart: vantage6 4 passes only the task's arguments, 3 puts client and table first."""
    if isinstance(client, Mapping):
        client, data, experiment = None, client, experiment if data is None else data
    if data is not None and not _is_table(data):
        if experiment is not None:
            raise ExperimentError("experiment: is given twice")
        experiment = data
    if client is not None and not (hasattr(client, "task") and hasattr(client, "organization")):
        raise ExperimentError(f"client: a {type(client).__name__} is none; allowed: vantage6 4's AlgorithmClient")
    return client, experiment


def _is_table(data: Any) -> bool:
    """Say whether this is what vantage6 3 passes: a dataframe, or several, or an empty list of them."""
    tables = data if isinstance(data, (list, tuple)) else [data]
    return all(hasattr(table, "columns") for table in tables)


def run_site(
    method: str,
    data: Any,
    request: Any,
    mock_data: Sequence[Any] | None,
    provenance: Callable[[], None] | None = None,
    *,
    memory: dict[Any, Any] | None = None,
    token: str | None = None,
    quiet: bool = False,
    note: str = "",
) -> dict[str, Any]:
    """Answer one request with this node's data.

    `provenance` says who sent it, and raises PolicyError where it was not `master`'s chain; the server is asked if
    absent. Only the node's own rules decide whether that is looked at. `memory` is that of a process which answers
    several, `token` that of the container whose request it is. `quiet` writes no line to the log, to which `note` is
    added otherwise.
    """
    if isinstance(data, Mapping) and request is None:
        data, request = None, data
    if mock_data:
        data = mock_data[0]
    if not isinstance(request, Mapping):
        raise ExperimentError("request: is required; task `master`, which writes the requests to the sites")
    # At the researcher's desk, where the mock runs, her own tables are hers.
    here = mock_data is not None
    in_session = session.is_session()
    try:
        unavailable = session.UNAVAILABLE if in_session else ()
        policy = Policy.from_environment(default="trusted" if here else "standard", unavailable=unavailable)
        if policy.request_chain and not here:
            (provenance or check_sender)()
        if in_session:
            request, place = session.split_job(request)
        if data is not None:
            source = _source_of(data)
        else:
            source = session.source_of_session() if in_session else source_from_node(names=_names_of_files(request))
        source = guarded_source(policy, source)
        folder = os.environ.get("TEMPORARY_FOLDER") or getattr(data, "attrs", {}).get(STATE)
        state = Path(folder, "v6_algorithm") if folder else None
        lasting = None if here else session.our_folder() if in_session else _folder_of_node()
        if in_session and not here:
            # MockNetwork's folder is one for all sites, and another for each task.
            state = place
        request = known_models.resolve(request, state, lambda task: _fetch(task, token))
    except SiteError as error:
        head = {key: request.get(key) for key in ("site", "round", "attempt")}
        return wire.message(**head, status="error", kind=error.kind, message=str(error))
    context = SiteContext(
        sources={str(request.get("site")): source},
        policy=policy,
        state=state,
        node_folder=lasting,
        memory={} if memory is None else memory,
    )
    reply = handle(method, request, context)
    if mock_data is None and not quiet:
        outcome = "ok" if reply["status"] == "ok" else f"{reply['kind']}: {reply['message']}"
        print(f"{method} round {reply['round']}: {outcome}{f' ({note})' if note else ''}", flush=True)
        if method == "prepare" and request.get("step") == "schema" and _weighs_by_loss(request):
            print(_AGNOSTIC, flush=True)
    return reply


def _weighs_by_loss(request: Mapping[str, Any]) -> bool:
    """Say whether a request is of strategy agnostic."""
    experiment = request.get("experiment")
    strategy = experiment.get("strategy") if isinstance(experiment, Mapping) else None
    return strategy == "agnostic" or (isinstance(strategy, Mapping) and strategy.get("kind") == "agnostic")


def _folder_of_node() -> Path | None:
    """Return a folder on the node's data volume, which it mounts into all its containers and keeps from job to job."""
    # Each run's input, output and token are in a folder below it.
    run = Path(os.environ.get("TOKEN_FILE", "")).parent
    volume = run.parent
    return volume / "v6_algorithm" if _RUN_FOLDER.fullmatch(run.name) and os.access(volume, os.W_OK) else None


def _fetch(task: int, token: str | None) -> str | None:
    """Fetch a model that was published, with this container's token or another's."""
    from v6_algorithm.engines.vantage6.published import fetch

    try:
        token = token or Path(os.environ["TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    except (KeyError, OSError):
        return None
    return fetch(os.environ, token, task)


def check_sender() -> None:
    """Ask the server, with this container's own token, who sent the request."""
    try:
        token = Path(os.environ["TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    except (KeyError, OSError):
        raise PolicyError(
            f"this is no container of a vantage6 node, so nobody can say who sent the request ({RULE})"
        ) from None
    identity = own_identity(token)
    check_chain(asking(os.environ, token), identity["task"], identity["image"])


def _source_of(frame: Any) -> TableSource:
    """Take a dataframe that vantage6 or its mock passes; of images `simulate` has told which folder they are in."""
    attributes = getattr(frame, "attrs", {})
    folder = attributes.get(FOLDER)
    return TableSource(frame=frame, base=Path(folder) if folder else None, assumed=dict(attributes.get(ASSUMED) or {}))


def _names_of_files(request: Mapping[str, Any]) -> tuple[str, str] | None:
    """Find `data.image.files` and its column in a request that is not checked yet."""
    content: Any = request
    for key in ("experiment", "data", "image"):
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(content.get("files"), str):
        return None
    return content["files"], str(content.get("column"))


def _tasks(resume: int | Sequence[int] | None) -> list[int]:
    """Read the earlier tasks to go on from; a form sends an empty list for none."""
    tasks = [resume] if isinstance(resume, int) else list(resume or [])
    if not all(type(task) is int and task > 0 for task in tasks):
        raise ExperimentError(f"resume: must be ids of tasks, whole numbers from 1 (given: {resume!r})")
    return tasks


def _names(names: Mapping[str, str]) -> dict[int, str]:
    """Read the organisations' ids, which JSON made text."""
    try:
        return {int(key): str(name) for key, name in names.items()}
    except ValueError:
        raise ExperimentError(f"names: must be organisation id to name, not {', '.join(map(repr, names))}") from None


def _say(event: Mapping[str, Any]) -> None:
    """Write to the task's log, the only progress that vantage6 shows while a task runs: a line, for a round two."""
    if event["event"] == "prepared":
        print(f"prepared: {len(event['sites'])} sites take part: {', '.join(event['sites'])}", flush=True)
        # A test of a finished model sends it once.
        if (line := _space_line(event.get("model_bytes", 0), len(event["sites"]))) is not None:
            print(line, flush=True)
        if done := event.get("done"):
            print(f"goes on after round {done}/{event['rounds']}", flush=True)
    elif event["event"] == "reply":
        seconds = "" if event["seconds"] is None else f" ({event['seconds']:.1f} s)"
        print(f"round {event['round']}: {event['site']}: {_metrics(event['metrics'])}{seconds}", flush=True)
    elif event["event"] == "round":
        # Before the line for readers: that is to be the last of a log that breaks off.
        print(scores_line(event), flush=True)
        of = event["validated_round"]
        trained = {name: value for name, value in event["metrics"].items() if name == "train_loss"}
        validated = {name: value for name, value in event["metrics"].items() if name != "train_loss"}
        # The last round is told twice: when it is trained, and when its model is validated as well.
        pieces = [_metrics(trained)] if trained and of != event["round"] else []
        pieces += [f"model of round {of}: {_metrics(validated)}"] if validated else []
        pieces += [f"epsilon {event['epsilon']:.4g}"] if "epsilon" in event else []
        pieces += [f"missing {site} ({reason})" for site, reason in event["missing"].items()]
        print(f"round {event['round']}/{event['rounds']}: {'; '.join(pieces)}", flush=True)
    elif event["event"] == "tested":
        print("tested", flush=True)
    elif event["event"] in ("trial", "chosen", "note"):
        print(event["text"], flush=True)


def _space_line(model_bytes: int, sites: int) -> str | None:
    """Say what a round leaves in the server's database, which keeps all inputs and results; None of little.

    A model is base64 in JSON, which vantage6 writes in base64 again: 16/9 of its bytes, to each site and from it.
    """
    space = 2 * sites * model_bytes * 16 / 9
    if space < _LEAST_SPACE:
        return None
    return (
        f"each round leaves up to {space / 1e6:,.0f} MB in the server's database: "
        f"a model of {model_bytes / 1e6:,.1f} MB, to and from {sites} sites; "
        "runs_data_cleanup_days in the server's configuration clears it"
        + ("; with SQLite rounds become slower as it grows (docs/network.md)" if space >= _MUCH_SPACE else "")
    )


def _metrics(metrics: Mapping[str, float]) -> str:
    """Write metrics as `train loss 0.68; validation loss 0.7, auroc 0.59`."""
    parts: dict[str, list[str]] = {}
    for name, value in metrics.items():
        part, metric = name.split("_", 1)
        parts.setdefault(part, []).append(f"{metric.replace('_', ' ')} {value:.4g}")
    return "; ".join(f"{part} {', '.join(values)}" for part, values in parts.items())
