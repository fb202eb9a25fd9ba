"""The engine on vantage6 4.x: the container's `AlgorithmClient`, or vantage6's own `MockAlgorithmClient`.

The client's own gathering is not used: one failed run of a shared subtask cancels the others, results come without
their organisation, and its polling backs off to minutes. Here every site gets a subtask of its own, is looked at
in a fixed rhythm, and has a named reason when it does not answer.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v6_algorithm.engines import known_models
from v6_algorithm.engines.provenance import own_identity
from v6_algorithm.engines.resident.asking import MOST_AT_ONCE, residents
from v6_algorithm.engines.vantage6 import results, runs, subtasks
from v6_algorithm.engines.vantage6.asked_once import keep_answers
from v6_algorithm.engines.vantage6.children import Children, describe, fingerprint
from v6_algorithm.engines.vantage6.published import LEAST_CHARACTERS, Publisher
from v6_algorithm.engines.vantage6.subtasks import Creation, OfflineNodes, Unread
from v6_algorithm.errors import ExperimentError, FederationError, PolicyError, UnreachableError
from v6_algorithm.exchange import frames, wire
from v6_algorithm.exchange.in_file import TextFile
from v6_algorithm.exchange.protocol import Arrival, Belated, Missing, Replies, Site, check_names

# Tries to create a subtask that the server refuses, and what it says where that is not its last word.
_TRIES = 3
_SILENT = "the server does not answer"
_PASSING = (_SILENT, "Request failed", "Connection error", "no answer from the server", "Internal Server Error")
# Characters of a reply that may be an error.
_LONGEST_ERROR = 2000
# Subtasks are created side by side as long as their inputs together are not larger: each is copied several times.
_CHARACTERS_AT_ONCE = 2**27
# This far from the expected end a call is looked at every `poll_s`, else in proportion, within these factors of it.
_USUAL_CALL_S, _LEAST_POLLS, _MOST_POLLS = 10.0, 20.0, 0.2
# Where the last call's end foretells this one's, the seconds until then count, or this share of the call.
_NEAR_ITS_END = 0.05
# Methods whose replies have models in them.
_WITH_MODELS = ("RPC_train",)
# Answers that are fetched side by side, while others are waited for and added up; large ones come into files.
_FETCHED_AT_ONCE = 2


@dataclass
class _Asked:
    """A call: the subtasks that are to be created, those that were, and what came of trying.

    `after` is the newest subtask before it, `sent` the characters that each site was sent.
    """

    method: str
    requests: Mapping[str, dict[str, Any]]
    sent: dict[str, int]
    waiting: dict[str, Creation] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    refused: dict[str, Missing] = field(default_factory=dict)
    create_s: dict[str, float] = field(default_factory=dict)
    publish_s: float = 0.0
    after: int = 0
    begun: bool = False
    # As `Replies.enough`, and how many answers there are.
    enough: Callable[[], int | None] = lambda: None
    answers: int = 0

    @property
    def answered_enough(self) -> bool:
        """Whether those that are left need not be waited for, where they are offline."""
        enough = self.enough()
        return enough is not None and self.answers >= enough and not self.waiting


class Vantage6Federation:
    """The organisations of a vantage6 collaboration.

    Parameters
    ----------
    client
        What vantage6 hands to `master`.
    organizations
        Ids or names of those that take part; None: all of the collaboration.
    names
        Organisation id to the site's name in the results; None: the organisations' own names.
    poll_s
        Seconds between two looks at the subtasks of a call that is ten seconds from the end that the last one
        foretells; nearer to it they are looked at more often, down to a fifth of it, further away less, up to twenty
        times of it.
    """

    # Whether results come as vantage6 4.15's proxy sends them.
    _fetches = True

    def __init__(
        self,
        client: Any,
        *,
        organizations: Sequence[int | str] | None = None,
        names: Mapping[int, str] | None = None,
        poll_s: float = 0.5,
    ) -> None:
        self._client = client
        self._poll_s = poll_s
        # vantage6 5's mock has the name, and nothing behind it.
        self._real = callable(getattr(client, "request", None))
        if self._real and self._fetches:
            keep_answers(client)
        self._sites = self._find(organizations, names or {})
        # Site to the last subtask for which it was late, and what that asked.
        self._owed: dict[str, tuple[int, str, dict[str, Any]]] = {}
        self._unread = Unread()
        self._children = Children(client)
        self._newest = 0
        # Calls whose subtasks were created, and whose answers nobody has looked for yet.
        self._sent_ahead: list[_Asked] = []
        # Method to the seconds that its last call took.
        self._took: dict[str, float] = {}
        # vantage6's client holds an answer several times: what only it can read is read one at a time.
        self._in_memory = threading.Lock()
        # What the sites have of models; None while nobody would take them away when the run is over.
        self._naming: known_models.Naming | None = None
        self._publisher = Publisher(client)
        # Whether a reply may come as a frame: one has been read here, and results are not encrypted, for the proxy of
        # 4.15 decrypts UTF-8 only.
        self._takes_frames = False

    @contextmanager
    def residents(self, wanted: bool, deadline_s: float) -> Iterator[None]:
        """Have a resident trainer at each site inside the block, where they are wanted; see `asking.residents`.

        Models go by name there: the word that ends a trainer also ends what the site keeps of them.
        """
        with residents(
            self._client,
            self._sites,
            wanted=wanted,
            deadline_s=deadline_s,
            say=lambda text: print(text, flush=True),
        ):
            self._naming = known_models.Naming() if wanted and self._real else None
            try:
                yield
            finally:
                self._naming = None
                self._publisher.close()

    def sites(self) -> Sequence[Site]:
        """Return the sites by name."""
        return self._sites

    def _find(self, wanted: Sequence[int | str] | None, names: Mapping[int, str]) -> list[Site]:
        listed = self._client.organization.list()
        if not isinstance(listed, list) or not all(isinstance(item, dict) and "id" in item for item in listed):
            raise FederationError("the server did not list the collaboration's organisations")
        sites = [Site(names.get(int(item["id"]), str(item["name"])), int(item["id"])) for item in listed]
        if wanted is not None:
            for key in wanted:
                if not any(key in (site.id, site.name) for site in sites):
                    known = ", ".join(f"{site.id} ({site.name})" for site in sites)
                    raise FederationError(f"organisation {key!r} is not in the collaboration; it has: {known}")
            sites = [site for site in sites if site.id in wanted or site.name in wanted]
        return check_names(sites)

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Create one subtask a site, then wait for them; see `Federation.call`."""
        sent: dict[str, int] = {}
        asked = _Asked(method, requests, sent)
        replies = Replies(requests, self._answer(asked, deadline_s), sent, send=lambda: self._send_ahead(asked))
        asked.enough = lambda: replies.enough
        return replies

    def overdue(self, site: str) -> bool:
        """Look whether the subtask for which a site was late is still open; see `Federation.overdue`."""
        return site in self._owed and self._end(self._owed[site][0]) is None

    def belated(self) -> Sequence[Belated]:
        """Collect the results of late subtasks that have ended; see `Federation.belated`."""
        late = []
        for site, (task_id, method, request) in list(self._owed.items()):
            end = self._end(task_id)
            if end is None:
                continue
            del self._owed[site]
            arrival = self._collect(site, task_id, end, self._unread)
            if arrival is None:
                self._owed[site] = task_id, method, request
            elif arrival.text is not None:
                late.append(Belated(site, method, request, arrival.text))
        return late

    # -- what outlives the container ------------------------------------------------------------------------------

    @property
    def task(self) -> int | None:
        """The task that this container runs; None where its token does not say."""
        try:
            return int(own_identity(self._client._access_token)["task"])
        except (PolicyError, AttributeError):
            return None

    @property
    def is_real(self) -> bool:
        """Whether a server is behind the client, and not vantage6's mock."""
        return self._real

    def state_dict(self) -> dict[str, Any]:
        """Return what a container that is run again has to know: the newest subtask whose answer was looked for, and
        those that are owed."""
        newest = min([self._newest, *(asked.after for asked in self._sent_ahead)])
        return {"newest": newest, "owed": [[site, *owed] for site, owed in self._owed.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> int:
        """Go on from what `state_dict` returned; returns the newest subtask."""
        self._newest = int(state["newest"])
        self._owed = {site: (int(task_id), method, request) for site, task_id, method, request in state["owed"]}
        return self._newest

    def take_over(self, since: int, task: int | None = None) -> int:
        """Take over subtasks of this task, or of another one, with ids above `since`; see `Children.find`."""
        parent = self.task if task is None else task
        return 0 if parent is None or not self._real else self._children.find(parent, since)

    # -- one call -------------------------------------------------------------------------------------------------

    def _send(self, asked: _Asked) -> None:
        """Write down what is to be created for a call."""
        asked.after = self._newest
        asked.publish_s = self._publish(asked.requests)
        for site, request in asked.requests.items():
            asked.waiting[site] = self._creation(asked.method, site, self._organization(site), request)
            asked.sent[site] = asked.waiting[site].characters + (self._naming.to_fetch if self._naming else 0)
        asked.begun = True

    def _send_ahead(self, asked: _Asked) -> None:
        """Create the subtasks of a call whose answers are looked for later; what fails is tried again then."""
        self._send(asked)
        self._sent_ahead.append(asked)
        self._create_due(asked)

    def _create_due(self, asked: _Asked) -> None:
        """Create those subtasks of a call that are due."""
        due = {site: creation for site, creation in asked.waiting.items() if creation.due <= time.monotonic()}
        for site, missing in self._create_at_once(due).items():
            creation = asked.waiting[site]
            if missing is not None:
                asked.refused[site] = missing
                del asked.waiting[site]
            elif creation.task is not None:
                asked.tasks[site] = creation.task
                asked.create_s[site] = asked.publish_s + creation.seconds
                del asked.waiting[site]

    def _answer(self, asked: _Asked, deadline_s: float) -> Iterator[Arrival]:
        begun = time.monotonic()
        deadline = begun + deadline_s
        if not asked.begun:
            self._send(asked)
        self._sent_ahead = [other for other in self._sent_ahead if other is not asked]
        pool = ThreadPoolExecutor(_FETCHED_AT_ONCE) if self._real and self._fetches else None
        try:
            yield from self._arrivals(asked, begun, deadline, pool)
        finally:
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
        waited = deadline_s if time.monotonic() > deadline else round(time.monotonic() - begun)
        for site, creation in asked.waiting.items():
            yield Arrival(site, None, creation.missing(f" within {waited:g} s"))
        for site, task_id in asked.tasks.items():
            yield self._late(site, task_id, f"no answer within {waited:g} s", asked.method, asked.requests[site])

    def _arrivals(
        self, asked: _Asked, begun: float, deadline: float, pool: ThreadPoolExecutor | None
    ) -> Iterator[Arrival]:
        """Yield what came until the deadline; those that did not stay in `asked`."""
        method, tasks, waiting = asked.method, asked.tasks, asked.waiting
        fetching: dict[str, Future[Arrival | None]] = {}
        unread, offline, looked = Unread(), OfflineNodes(self._client), begun
        while True:
            # Looked at before the sites are: what is there at the deadline is taken.
            over = time.monotonic() > deadline
            self._create_due(asked)
            for site in list(asked.refused):
                yield Arrival(site, None, asked.refused.pop(site))
            silent = False
            for site, task_id in list(tasks.items()):
                if site not in fetching:
                    status = self._status(task_id)
                    if status is None:
                        silent = True
                    elif status not in runs.ALIVE:
                        fetching[site] = self._begin(pool, site, task_id, status, unread)
                if site not in fetching or not fetching[site].done():
                    continue
                if (arrival := fetching.pop(site).result()) is None:
                    silent = True
                elif self._lacks_model(arrival):
                    del tasks[site]
                    waiting[site] = self._creation(method, site, self._organization(site), asked.requests[site])
                    asked.sent[site] += waiting[site].characters
                else:
                    if self._naming is not None and arrival.text is not None:
                        self._naming.answered(site, asked.requests[site])
                    del tasks[site]
                    asked.answers += arrival.missing is None
                    arrival.create_s = asked.create_s[site]
                    yield arrival
            if not tasks and not waiting:
                self._took[method] = time.monotonic() - begun
                return
            # A server that is silent now says nothing of the sites; an answer on its way is waited for.
            if over and not fetching and not (silent and time.monotonic() < deadline + subtasks.OUTAGE_S):
                return
            if asked.answered_enough and not fetching and time.monotonic() - looked >= subtasks.OFFLINE_S / 10:
                looked = time.monotonic()
                if offline.are_all(tasks.values()):
                    return
            pause_s = self._pause_s(method, time.monotonic() - begun)
            if fetching:
                wait(fetching.values(), pause_s, FIRST_COMPLETED)
            else:
                time.sleep(pause_s)

    def _begin(
        self, pool: ThreadPoolExecutor | None, site: str, task_id: int, status: str, unread: Unread
    ) -> Future[Arrival | None]:
        """Begin to fetch an answer; without a pool it is there when this returns."""
        if pool is not None:
            return pool.submit(self._collect, site, task_id, status, unread)
        answer: Future[Arrival | None] = Future()
        answer.set_result(self._collect(site, task_id, status, unread))
        return answer

    def _late(self, site: str, task_id: int, reason: str, method: str, request: dict[str, Any]) -> Arrival:
        status = self._status(task_id)
        self._owed[site] = task_id, method, request
        if status is None:
            return Arrival(site, None, Missing("unreachable", f"{reason}, and the server does not say how its run is"))
        offline = "; its node seems to be offline" if status == "pending" else ""
        return Arrival(site, None, Missing("late", f"{reason} (its run is {status}{offline})"))

    def _organization(self, site: str) -> int:
        return next(known.id for known in self._sites if known.name == site)

    def _creation(self, method: str, site: str, organization: int, request: dict[str, Any]) -> Creation:
        """Return what is to be created for a site, with the models left out that it has."""
        question = fingerprint(method, request)
        if self._naming is not None:
            request = self._naming.named(site, request, self._publisher.tasks)
        if self._takes_frames and method in _WITH_MODELS:
            request = {**request, frames.ASKED: True}
        text = wire.to_text(request)
        # Parsed again so that the mock, which does not serialise inputs, gets what a node would.
        content = request if self._real else json.loads(text)
        return Creation(method, content, organization, question, len(text))

    def _publish(self, requests: Mapping[str, dict[str, Any]]) -> float:
        """Publish the large models that several sites do not have yet; returns the seconds that it took."""
        start = time.monotonic()
        if self._naming is not None:
            for name, text in self._naming.missing(requests, LEAST_CHARACTERS).items():
                self._publisher.publish(name, text)
        return time.monotonic() - start

    def _lacks_model(self, arrival: Arrival) -> bool:
        """Say whether a site has lost a model that it was named: then it is asked again, with all of it."""
        text = arrival.text
        if (
            self._naming is None
            or not isinstance(text, str)
            or len(text) > _LONGEST_ERROR
            or known_models.UNKNOWN not in text
        ):
            return False
        reply = json.loads(text)
        lacks = isinstance(reply, dict) and reply.get("kind") == known_models.UNKNOWN
        if lacks:
            self._naming.lost(arrival.site)
        return lacks

    def _pause_s(self, method: str, elapsed_s: float) -> float:
        """Return how long to wait for the next look: the nearer the end that the last call foretells, the shorter.

        Of a method's first call nothing is foretold: it is looked at in proportion to what it has taken so far.
        """
        took = self._took.get(method, 0.0)
        share = max(abs(took - elapsed_s), took * _NEAR_ITS_END) / _USUAL_CALL_S
        return self._poll_s * min(max(share, _MOST_POLLS), _LEAST_POLLS)

    def _create_at_once(self, creations: Mapping[str, Creation]) -> dict[str, Missing | None]:
        """Create the subtasks of several sites, or take those that ask the same; see `_take_creation`."""
        taken = {site: self._children.take(creation.question) for site, creation in creations.items()}
        new = [creation for site, creation in creations.items() if taken[site] is None]
        # The mock runs the sites' code in here, one after the other.
        at_once = _CHARACTERS_AT_ONCE // max((creation.characters for creation in new), default=1)
        if self._real and min(at_once, len(new)) > 1:
            with ThreadPoolExecutor(min(MOST_AT_ONCE, at_once, len(new))) as pool:
                answers = iter(list(pool.map(self._ask, new)))
        else:
            answers = iter([self._ask(creation) for creation in new])
        outcome: dict[str, Missing | None] = {}
        for site, creation in creations.items():
            creation.task = taken[site]
            outcome[site] = None if creation.task is not None else self._take_creation(creation, next(answers))
            self._newest = max(self._newest, creation.task or 0)
        return outcome

    def _ask(self, creation: Creation) -> dict[str, Any] | Missing:
        """Ask the server for a subtask; returns its answer, or why there will be none."""
        start = time.monotonic()
        try:
            return self._create(creation)
        except SystemExit:
            # The mock runs the site's code in here, and the tools call exit().
            return Missing("crashed", runs.reason("crashed"))
        except Exception as error:
            if not self._real:
                return Missing("crashed", f"{runs.reason('crashed')}: {type(error).__name__}")
            return {"msg": f"{_SILENT} ({type(error).__name__})"}
        finally:
            creation.seconds += time.monotonic() - start

    def _take_creation(self, creation: Creation, answer: dict[str, Any] | Missing) -> Missing | None:
        """Book the server's answer; returns why there will be no subtask, None is 'see later'.

        What fails on the way to the server says nothing of the site: it is tried again until the call is over.
        """
        if isinstance(answer, Missing):
            return answer
        if "id" in answer:
            creation.task = int(answer["id"])
            return None
        said = str(answer.get("msg"))
        creation.failed(said, self._poll_s)
        if any(words in said for words in _PASSING):
            # It may be that only the answer was lost.
            with suppress(UnreachableError):
                self.take_over(self._newest)
            return None
        return None if creation.attempts < _TRIES else creation.missing()

    def _create(self, creation: Creation) -> dict[str, Any]:
        request = creation.request
        task = self._client.task.create(
            input_={"method": creation.method, "kwargs": {"request": request}},
            organizations=[creation.organization],
            name=runs.subtask_name(creation.method, request["round"], request["site"]),
            description=describe(creation.question),
        )
        # Errors come back as dictionaries with a message.
        return task if isinstance(task, dict) else {"msg": "no answer from the server"}

    def _end(self, task_id: int) -> str | None:
        """Return the status that a subtask ended with; None while it is open, or cannot be asked for."""
        status = self._status(task_id)
        return None if status in runs.ALIVE else status

    def _status(self, task_id: int) -> str | None:
        """Ask for a subtask's status; None is 'ask again', for the proxy also fails in passing."""
        if not self._real:
            return "completed"
        try:
            answer = self._client.request(f"task/{task_id}/status")
        except Exception:  # whatever the network does, the next look may succeed; the deadline ends it
            return None
        return answer.get("status") if isinstance(answer, dict) else None

    def _collect(self, site: str, task_id: int, status: str, unread: Unread) -> Arrival | None:
        """Fetch what a run that has ended gave; None where it cannot be had now, as when the server restarts."""
        if status != "completed":
            kind = "refused" if status == "not allowed" else "crashed"
            return Arrival(site, None, Missing(kind, f"{runs.reason(status)}{self._last_line(task_id)}"))
        trouble = "it has none"
        try:
            if (text := self._result(task_id)) is not None:
                return Arrival(site, text)
        except Exception as error:  # the proxy fails in passing; a round's work is not lost to that
            trouble = type(error).__name__
        return unread.give_up(site, trouble)

    def _result(self, task_id: int) -> str | TextFile | None:
        """Fetch the text of a result; None where there is none that can be read."""
        if self._real and self._fetches:
            clear = self._publisher.in_the_clear()
            with suppress(results.UnreadableError):
                text = results.fetch(self._client, task_id, clear=clear)
                self._takes_frames |= clear and text is not None
                return text
            if self._takes_frames:
                # vantage6's client reads JSON only.
                with self._in_memory, suppress(results.UnreadableError):
                    return results.fetch(self._client, task_id, clear=clear, in_memory=True)
        with self._in_memory:
            given = self._client.result.from_task(task_id)
        return json.dumps(given[0]) if isinstance(given, list) and len(given) == 1 and given[0] is not None else None

    def _last_line(self, task_id: int) -> str:
        """Return the last line of a failed run's log; the node decides whether there is one."""
        try:
            return runs.last_line(self._client.run.from_task(task_id)[0].get("log"))
        except Exception:  # no log is no reason to lose the round
            return ""


def container_client() -> Any:
    """Return the client of the vantage6 container that this is; raises ExperimentError elsewhere."""
    if "TOKEN_FILE" not in os.environ:
        raise ExperimentError("client: there is none, and this is no vantage6 container; to run here: v6-algorithm run")
    from vantage6.algorithm.client import AlgorithmClient

    token = Path(os.environ["TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    return AlgorithmClient(
        token=token, host=os.environ["HOST"], port=os.environ["PORT"], path=os.environ.get("API_PATH", "")
    )
