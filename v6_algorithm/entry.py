"""What the network's names do: find client, data and policy in a vantage6 container (or take the mock's), and go.

The tools' own decorators are not used: they import a second of libraries at every start, and their `@data` reads
neither folders nor more than the first of several tables in order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm import wire
from v6_algorithm.data.sources import TableSource, source_from_node
from v6_algorithm.errors import ExperimentError, SiteError
from v6_algorithm.privacy.policy import Policy
from v6_algorithm.site import SiteContext, handle

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.federation.vantage6 import Vantage6Federation


def run_master(
    client: Any,
    experiment: Any,
    *,
    organizations: Sequence[int | str] | None = None,
    names: Mapping[str, str] | None = None,
    mock_client: Any = None,
) -> dict[str, Any]:
    """Run an experiment over the organisations of a collaboration; see `v6_algorithm.master`."""
    from v6_algorithm.master import run

    federation, checked = _central(client, experiment, organizations, names, mock_client)
    result = run(federation, checked, on_event=_say)
    if checked.output.profile:
        result["notes"].append("output.profile: only a run on the researcher's machine is profiled")
    return result


def run_describe(
    client: Any,
    experiment: Any,
    *,
    organizations: Sequence[int | str] | None = None,
    names: Mapping[str, str] | None = None,
    mock_client: Any = None,
) -> dict[str, Any]:
    """Describe the tables of a collaboration; see `v6_algorithm.describe`."""
    from v6_algorithm.summary.federated import describe

    return describe(*_central(client, experiment, organizations, names, mock_client))


def _central(
    client: Any,
    experiment: Any,
    organizations: Sequence[int | str] | None,
    names: Mapping[str, str] | None,
    mock_client: Any,
) -> tuple[Vantage6Federation, Experiment]:
    """Read what a central function was given, however vantage6 passes it."""
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.federation.vantage6 import Vantage6Federation, container_client

    if isinstance(client, Mapping) and experiment is None:
        # vantage6 4 passes the task's own arguments only; v3 put the client in front of them.
        client, experiment = None, client
    if experiment is None:
        raise ExperimentError("experiment: is required, as the task's keyword argument `experiment`")
    checked = Experiment.parse(experiment)
    if checked.mode == "centralised":
        raise ExperimentError("mode: centralised pools the rows, which never leave a node; allowed: federated, local")
    federation = Vantage6Federation(
        client or mock_client or container_client(),
        organizations=organizations,
        names=_names(names or {}),
        poll_s=checked.participation.poll_s,
    )
    return federation, checked


def run_site(method: str, data: Any, request: Any, mock_data: Sequence[Any] | None) -> dict[str, Any]:
    """Answer one request with this node's data."""
    if isinstance(data, Mapping) and request is None:
        data, request = None, data
    if mock_data:
        data = mock_data[0]
    if not isinstance(request, Mapping):
        raise ExperimentError("request: is required; task `master`, which writes the requests to the sites")
    try:
        source = source_from_node() if data is None else TableSource(frame=data)
        policy = Policy.from_environment()
    except SiteError as error:
        head = {key: request.get(key) for key in ("site", "round", "attempt")}
        return wire.message(**head, status="error", kind=error.kind, message=str(error))  # type: ignore[arg-type]
    folder = os.environ.get("TEMPORARY_FOLDER")
    context = SiteContext(
        sources={str(request.get("site")): source},
        policy=policy,
        state=Path(folder, "v6_algorithm") if folder else None,
    )
    reply = handle(method, request, context)
    if mock_data is None:
        outcome = "ok" if reply["status"] == "ok" else f"{reply['kind']}: {reply['message']}"
        print(f"{method} round {reply['round']}: {outcome}", flush=True)
    return reply


def _names(names: Mapping[str, str]) -> dict[int, str]:
    """Read the organisations' ids, which JSON made text."""
    try:
        return {int(key): str(name) for key, name in names.items()}
    except ValueError:
        raise ExperimentError(f"names: must be organisation id to name, not {', '.join(map(repr, names))}") from None


def _say(event: Mapping[str, Any]) -> None:
    """Write one line for the task's log: the only progress that vantage6 shows while a task runs."""
    if event["event"] == "prepared":
        print(f"prepared: {len(event['sites'])} sites take part: {', '.join(event['sites'])}", flush=True)
    elif event["event"] == "round":
        metrics = {name: f"{name.replace('_', ' ')} {value:.4g}" for name, value in event["metrics"].items()}
        of = event["validated_round"]
        line = f"round {event['round']}/{event['rounds']}: {metrics.pop('train_loss', '')}"
        validated = f"model of round {of}: {', '.join(metrics.values())}" if metrics else ""
        # The last round is told twice: when it is trained, and when its model is validated as well.
        line = validated if of == event["round"] else "; ".join(filter(None, [line, validated]))
        line += "".join(f"; missing {site} ({reason})" for site, reason in event["missing"].items())
        print(line, flush=True)
    elif event["event"] == "tested":
        print("tested", flush=True)
