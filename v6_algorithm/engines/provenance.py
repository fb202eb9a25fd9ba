"""Who asks a site: that a request comes from this image's central function, itself asked by a person.

A container can ask the server, with its own token, for its task and the parent's. A user cannot name a parent (vantage6
4.15: 400, unknown field); another node's key can, but not as the organisation of the parent's only run. `entry` checks
where the node's rule `request_chain` is on. This stops requests written by hand; node operators, the server itself, and
algorithms beside this one that read its token file remain: see docs/node-policy.md.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from v6_algorithm.errors import PolicyError
from v6_algorithm.site.rules import BY_FIELD

# Path at the server and parameters -> its answer.
Ask = Callable[[str, Mapping[str, Any]], Any]
RULE = BY_FIELD["request_chain"].variable
_TIMEOUT_S = 30
_ATTEMPTS = 3


def own_identity(token: str) -> dict[str, Any]:
    """Read who a container's token says it is; raises PolicyError when it is none.

    The signature is the server's to check: it refuses a token that was changed.
    """
    try:
        payload = token.split(".")[1]
        identity = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
        identity = json.loads(identity) if isinstance(identity, str) else identity
        return {"task": int(identity["task_id"]), "image": str(identity["image"])}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _refused("the token of this container does not say which task it is of") from None


def asking(environment: Mapping[str, str], token: str) -> Ask:
    """Return what asks the server through the node's proxy, without vantage6's client, which takes a second to load."""
    base = f"{environment.get('HOST', '')}:{environment.get('PORT', '')}{environment.get('API_PATH', '')}"

    def ask(path: str, parameters: Mapping[str, Any]) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        url = f"{base}/{path}{query}"
        if not url.startswith(("http://", "https://")):
            raise ValueError("no address")
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
        for attempt in range(_ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                    return json.load(answer)
            except OSError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(1 + attempt)
        return None

    return ask


def check_chain(ask: Ask, task_id: int, image: str) -> None:
    """Refuse a request that `master`, `describe` or `tune` of this image did not send.

    Parameters
    ----------
    ask
        Asks the server with the container's own token.
    task_id, image
        The container's, from its token.

    Raises
    ------
    PolicyError
        When the task has no parent, the parent is another image's or job's, or itself a child, or has not one run, or
        was posted by another organisation than the one at which the parent runs; and when the server does not answer.
    """
    task = _get(ask, f"task/{task_id}", {})
    parent_id = _id(task.get("parent"))
    if parent_id is None:
        raise _refused("the request was posted by a user or another program; task `master`, `tune` or `describe`")
    parent = _get(ask, f"task/{parent_id}", {})
    if _id(parent.get("parent")) is not None:
        raise _refused("the task that sent the request was itself sent by a task")
    if parent.get("image") != task.get("image") or task.get("image") != image:
        raise _refused("the task that sent the request runs another image")
    if task.get("job_id") is None or parent.get("job_id") != task.get("job_id"):
        raise _refused("the task that sent the request is of another job")
    answer = _get(ask, "run", {"task_id": parent_id})
    runs = answer.get("data")
    if not isinstance(runs, list) or len(runs) != 1 or not isinstance(runs[0], dict):
        raise _refused("the task that sent the request does not run at one organisation alone")
    organization = _id(runs[0].get("organization"))
    if organization is None or _id(task.get("init_org")) != organization:
        raise _refused("the request was posted by another organisation than the one at which its task runs")


def _get(ask: Ask, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer = ask(path, parameters)
    except Exception as error:  # whatever the network does: a node that cannot ask must not answer
        raise _refused(f"the server did not say who sent the request ({type(error).__name__})") from None
    if not isinstance(answer, dict) or not (answer.keys() & {"id", "data"}):
        raise _refused("the server did not say who sent the request")
    return answer


def _id(reference: Any) -> int | None:
    """Read vantage6's reference to another record: an id, or a record that has one."""
    number = reference.get("id") if isinstance(reference, Mapping) else reference
    return number if type(number) is int else None


def _refused(reason: str) -> PolicyError:
    return PolicyError(f"{reason} ({RULE})")
