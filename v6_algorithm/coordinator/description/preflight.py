"""Asks every site, before a run is sent, all that would stop it: `v6-algorithm check`, and the network's `check`.

The questions are those of a run's preparation, in its order and through the nodes' guard, so that what a node refuses
here it refuses then; and one more, for software, machine and the rules of training. Nothing is trained. A site that
does not fit is a line of the table, and the others are asked on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from v6_algorithm.coordinator.master import quorum_of
from v6_algorithm.coordinator.preparation.negotiate import agree_on_columns, plan
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.preparation.schema_checks import check_policy
from v6_algorithm.coordinator.secure_aggregation import threshold_of
from v6_algorithm.data.preparation import Agreement
from v6_algorithm.errors import ExperimentError, FederationError, V6AlgorithmError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.in_file import TextFile
from v6_algorithm.exchange.protocol import Arrival, Federation, Missing, Replies
from v6_algorithm.exchange.text import printable
from v6_algorithm.experiment import Experiment

SCHEMA = 1
# What comes of a finding, the worst first: the run ends before it trains; it goes on without the site; neither.
STOPS, LEFT_OUT, WARNING = "stops the run", "site left out", "warning"
# A process with torch, and so many copies of the model: parameters, gradients, two moments, and request and reply as
# text. An estimate: activations and rows come on top.
_BASE_BYTES, _COPIES = 2**30, 8
_LEAST_DISK_BYTES = 2**30
_MOST_SHOWN = 8
_LONGEST_VERSION = 60


@dataclass
class _Asked:
    """One call, and the texts that came of it."""

    replies: Replies
    texts: dict[str, str | TextFile] = field(default_factory=dict)

    def answers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the replies that were usable, once the call is over."""
        for site in self.replies.answered:
            text = self.texts[site]
            yield site, json.loads(text if isinstance(text, str) else text.read())


def preflight(federation: Federation, experiment: Experiment) -> dict[str, Any]:
    """Ask all sites what would go wrong.

    Parameters
    ----------
    federation
        The sites and the way to them.
    experiment
        What is to be run; nothing is trained.

    Returns
    -------
    dict
        `status` ``checked``; `sites`: of each that answered `software` and `machine` (device, cores, bytes of memory
        and free disk), `policy` (the rules in force), `rows`, `columns` and `classes` of its table where it told
        them; `findings`: a list of `site` (None: of all together), `effect` (one of ``stops the run``,
        ``site left out``, ``warning``) and `what`, the worst first; `notes`; `exit_code`: 0, or 2 where the
        experiment or data do not fit, 3 where the federation would not be complete.
    """
    return _Preflight(federation, experiment).run()


class _Preflight:
    def __init__(self, federation: Federation, experiment: Experiment) -> None:
        self._federation, self._experiment = federation, experiment
        # A site that does not fit must not keep the others from being asked; what comes of it is said all the same.
        forgiving = experiment.participation.model_copy(update={"unfit": "leave_out"})
        self._forgiving = experiment.model_copy(update={"participation": forgiving})
        self._names = [site.name for site in federation.sites()]
        self._calls: list[_Asked] = []
        self._sites: dict[str, dict[str, Any]] = {}
        self._findings: list[dict[str, Any]] = []
        self._notes: list[str] = []
        self._exit_code = 0

    def run(self) -> dict[str, Any]:
        """Make the calls."""
        there = self._machines(self._names, {"step": "preflight"})
        try:
            quorum = quorum_of(self._experiment, self._names)
            if there:
                self._prepare(there, quorum)
        except V6AlgorithmError as error:
            self._stop(error)
        self._book_missing()
        self._compare()
        order = [STOPS, LEFT_OUT, WARNING]
        findings = sorted(self._findings, key=lambda finding: order.index(finding["effect"]))
        return {
            "schema": SCHEMA,
            "status": "checked",
            "name": self._experiment.name,
            "sites": {site: self._sites[site] for site in sorted(self._sites)},
            "findings": findings,
            "notes": list(dict.fromkeys(self._notes)),
            "exit_code": self._exit_code,
        }

    def _prepare(self, there: list[str], quorum: int) -> None:
        """Go through a run's preparation with the sites that are there."""
        experiment = self._experiment
        sites, agreement = agree_on_columns(self._ask, self._forgiving, there, min(quorum, len(there)))
        self._tables(self._calls[-1], agreement)
        self._notes += [note for note in agreement.notes if "took no part" not in note]
        if experiment.privacy.secure_aggregation is not None:
            threshold_of(experiment, len(sites))
            self._notes.append("sums over the rows are made under secure aggregation, so they were not asked for")
        else:
            groups = [[site] for site in sites] if experiment.mode == "local" else [sites]
            for group in groups:
                self._plan(agreement, group, min(quorum, len(group)))
        fit = set(self._names) - {site for asked in self._calls for site in asked.replies.missing}
        if len(fit) < quorum:
            raise FederationError(
                f"{len(fit)} of {len(self._names)} sites could take part, {quorum} are needed (participation.minimum)"
            )

    def _plan(self, agreement: Agreement, sites: list[str], quorum: int) -> None:
        """Ask for sums as a run does, then whether the nodes would let this be trained."""
        made: Plan = plan(self._ask, self._forgiving, agreement, sites, quorum)
        self._notes += [note for note in made.notes if "took no part" not in note]
        model_bytes = wire.spec_bytes(made.spec)
        self._machines(made.sites, {"step": "preflight", "setup": made.setup.to_json()})
        for site in made.sites:
            machine = self._sites.get(site, {}).get("machine", {})
            memory, needed = machine.get("memory_bytes"), _BASE_BYTES + _COPIES * model_bytes
            if memory is not None and memory < needed:
                self._find(site, WARNING, f"{_size(memory)} of memory are free; this model may need {_size(needed)}")

    # -- questions ----------------------------------------------------------------------------------------------------

    def _ask(self, sites: Sequence[str], body: dict[str, Any]) -> Replies:
        """Send one RPC_prepare message to each site, and keep what comes back."""
        # Of the first round, whose size of a training the owner's rules are asked about.
        number = 1 if body["step"] == "preflight" else 0
        common = {"experiment": self._experiment.for_sites(), "sites": len(sites)}
        requests = {site: wire.message(site=site, round=number, attempt=1, **common, **body) for site in sites}
        deadline_s = self._experiment.participation.deadline_s
        replies = self._federation.call("RPC_prepare", requests, deadline_s=deadline_s)
        asked = _Asked(replies)

        def kept(arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
            for arrival in arrivals:
                if arrival.text is not None:
                    asked.texts[arrival.site] = arrival.text
                yield arrival

        replies.arrivals = kept(replies.arrivals)
        self._calls.append(asked)
        return replies

    def _machines(self, sites: Sequence[str], body: dict[str, Any]) -> list[str]:
        """Ask for software, machine and rules; return who answered."""
        replies = self._ask(sites, body)
        for site, reply in replies:
            try:
                told = {"software": _versions(reply["software"]), "machine": _machine(reply["machine"])}
                told["policy"] = check_policy(reply.get("policy"))
            except (KeyError, TypeError, AttributeError, WireError):
                replies.reject(site, "what it says of its software and machine is malformed")
                continue
            self._sites.setdefault(site, {}).update(told)
        return list(replies.answered)

    def _tables(self, asked: _Asked, agreement: Agreement) -> None:
        """Take what the sites told of their tables, and name the classes that some have not."""
        for site, reply in asked.answers():
            schemas = list(reply["members"].values())
            labels = sorted({str(label) for schema in schemas for label in schema["labels"]})
            self._sites.setdefault(site, {}).update(
                # Under secure aggregation a schema says only whether there are rows.
                rows=None
                if self._experiment.privacy.secure_aggregation is not None
                else sum(schema["rows"] for schema in schemas),
                columns=len({name for schema in schemas for name in schema["columns"]}),
                classes=[printable(label, _LONGEST_VERSION) for label in labels],
            )
            absent = [str(label) for label in agreement.classes or [] if str(label) not in labels]
            if absent:
                shown = ", ".join(printable(label, _LONGEST_VERSION) for label in absent[:_MOST_SHOWN])
                self._find(site, WARNING, f"has no rows of {len(absent)} of the classes: {shown}")

    # -- what is made of the answers ----------------------------------------------------------------------------------

    def _book_missing(self) -> None:
        """Turn each reason why a site gave no usable answer into a finding, once."""
        unfit = self._experiment.participation.unfit
        for asked in self._calls:
            for site, missing in sorted(asked.replies.missing.items()):
                stops = missing.kind in ("data", "request") and unfit == "stop"
                self._find(site, STOPS if stops else LEFT_OUT, _told(missing))
                # An organisation without the table may well be the one that only coordinates.
                if missing.kind != "absent":
                    self._exit_code = self._exit_code or (2 if stops else 3)

    def _compare(self) -> None:
        """Warn where sites differ in what results depend on, or are short of disk."""
        for name in sorted({name for told in self._sites.values() for name in told.get("software", {})}):
            versions: dict[str, list[str]] = {}
            for site, told in sorted(self._sites.items()):
                if "software" in told:
                    versions.setdefault(told["software"].get(name, "none"), []).append(site)
            if len(versions) > 1:
                listing = "; ".join(f"{version} at {_some(sites)}" for version, sites in versions.items())
                self._find(None, WARNING, f"{name} is not the same everywhere: {listing}")
        for site, told in sorted(self._sites.items()):
            machine = told.get("machine", {})
            disk = machine.get("disk_bytes")
            if disk is not None and disk < _LEAST_DISK_BYTES:
                self._find(site, WARNING, f"{_size(disk)} of disk are free where its node keeps what lasts")
            if machine and not machine["lasting"]:
                self._find(site, WARNING, "its node keeps nothing from round to round: each prepares its rows anew")

    def _stop(self, error: V6AlgorithmError) -> None:
        self._exit_code = error.exit_code if isinstance(error, ExperimentError) else 3
        missing = {site: reason.reason for asked in self._calls for site, reason in asked.replies.missing.items()}
        for line in str(error).splitlines():
            # Those of single sites are booked as such.
            site = next((name for name in self._names if line.startswith((f"site '{name}': ", f"  {name}: "))), None)
            if site is None or site not in missing:
                self._find(site, STOPS, line.strip())

    def _find(self, site: str | None, effect: str, what: str) -> None:
        finding = {"site": site, "effect": effect, "what": what}
        if finding not in self._findings:
            self._findings.append(finding)


def _told(missing: Missing) -> str:
    return missing.reason if missing.kind == "data" else str(missing)


def _versions(content: Mapping[str, Any]) -> dict[str, str]:
    if len(content) > 2 * _MOST_SHOWN:
        raise WireError("too many versions")
    return {printable(name, _LONGEST_VERSION): printable(value, _LONGEST_VERSION) for name, value in content.items()}


def _machine(content: Mapping[str, Any]) -> dict[str, Any]:
    """Read what a site says of its machine; raises WireError for a number that is none."""
    numbers = {name: content[name] for name in ("cores", "memory_bytes", "disk_bytes")}
    if not all(number is None or (type(number) is int and number >= 0) for number in numbers.values()):
        raise WireError("its numbers must be whole, from 0")
    return {"device": printable(content["device"], 100), **numbers, "lasting": bool(content["lasting"])}


def _some(sites: Sequence[str]) -> str:
    rest = f" and {len(sites) - _MOST_SHOWN} more" if len(sites) > _MOST_SHOWN else ""
    return ", ".join(sites[:_MOST_SHOWN]) + rest


def _size(bytes_: int) -> str:
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e8 else f"{bytes_ / 1e6:.0f} MB"
