"""The coordinator's side of secure aggregation: many sites that look like one, whose numbers are the sums over all.

`master` puts a `SummingFederation` in front of the real one when the sites have agreed on their columns. From then on
it asks one site, `all sites`: each call goes to every participant, their masked numbers are added up, the sum is opened
with a second, small call, and what comes back looks like the reply of one site with everybody's rows. So strategies,
history, stopping and the result need not know; and nothing here ever holds the numbers of a single site.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from v6_algorithm.coordinator.masked_answer import MaskedAnswer, drop_other_forms
from v6_algorithm.coordinator.preparation.questions import raise_data_errors
from v6_algorithm.coordinator.rounds.stragglers import Stragglers
from v6_algorithm.coordinator.strategies.averaging import means_of_variances
from v6_algorithm.coordinator.sums import evaluation_reply, preparation_reply, training_reply
from v6_algorithm.data.preparation.additive import lists_to_arrays
from v6_algorithm.errors import ExperimentError, FederationError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.joint import Joint
from v6_algorithm.exchange.protocol import Belated, Federation, Replies, Site
from v6_algorithm.exchange.secure_aggregation import fixed_point, layout, protocol
from v6_algorithm.exchange.secure_aggregation.keys import Participant, check_participants, digest
from v6_algorithm.exchange.secure_aggregation.ring import Vector
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.privacy.secure_aggregation import KEEPS_TERMS

ALL_SITES = "all sites"
# Books a call of the protocol's own: its name, the round, the replies.
Book = Callable[[str, int, Replies], None]


@dataclass
class AggregationReport:
    """What a run tells of its secure aggregation.

    Attributes
    ----------
    notes
        Sentences for the researcher.
    calls
        How many sums were opened.
    numbers, clipped
        Numbers of updates that were added up, and how many of them were cut to `clip`.
    policies
        Each site's rules in force.
    """

    notes: list[str] = field(default_factory=list)
    calls: int = 0
    numbers: int = 0
    clipped: int = 0
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)


def threshold_of(experiment: Experiment, sites: int) -> int:
    """Return how many of so many sites open a sum; raises ExperimentError where they are too few, or more than all."""
    section = experiment.privacy.secure_aggregation
    if section is None:
        raise ValueError("the experiment does not ask for secure aggregation")
    threshold = section.sites_needed(sites)
    if (private := experiment.privacy.differential_privacy) is not None and private.unit == "site":
        private.honest_of(threshold)
    if not sites < 2 * threshold <= 2 * sites:
        raise ExperimentError(
            f"privacy.secure_aggregation.threshold: {section.threshold} is {threshold} of {sites} sites; "
            f"allowed: {sites // 2 + 1} to {sites}, for two halves must not open two sums"
        )
    return threshold


class SummingFederation:
    """A federation of one site, which is all sites of another, added up under masks.

    Parameters
    ----------
    federation
        The real sites.
    experiment
        Its `privacy.secure_aggregation` says how.
    sites
        Those that have agreed on their columns.
    minimum
        How many have to take part in every sum, beside the threshold.
    book
        Books calls of the protocol's own.

    Raises
    ------
    FederationError
        When too few sites give keys.
    ExperimentError
        When the threshold does not fit the number of sites, or the bits overflow.
    """

    def __init__(
        self, federation: Federation, experiment: Experiment, sites: Sequence[str], minimum: int, book: Book
    ) -> None:
        section = experiment.privacy.secure_aggregation
        if section is None:
            raise ValueError("the experiment does not ask for secure aggregation")
        self._federation, self._experiment, self._section, self._book = federation, experiment, section, book
        self.report = AggregationReport()
        self._run = secrets.token_hex(16)
        self._number = 0
        self._stragglers = Stragglers(federation.overdue)
        self._rows: list[int] = []
        # By fold the last round in whose sum a site was, where sites keep terms from round to round.
        self._kept: dict[str, dict[str, int]] = {}
        self._spec: wire.StateSpec = {}
        threshold_of(experiment, len(sites))
        self.participants = self._agree_on_keys(sites)
        self.threshold = threshold_of(experiment, len(self.participants))
        self._least = max(self.threshold, minimum)
        self._bits, self._words = fixed_point.words_for(section.bits, len(self.participants))

    def in_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a run's result without what looks like a single site's: the one site in it is all of them."""
        shown = dict(result)
        shown["metrics"] = {part: _pooled(scopes) for part, scopes in result["metrics"].items()}
        kept = [row for row in result["metrics_table"] if row.get("site") not in (ALL_SITES, "mean over sites")]
        shown["metrics_table"] = kept
        shown["folds"] = [
            {**fold, "metrics": {part: _pooled(scopes) for part, scopes in fold["metrics"].items()}}
            for fold in result["folds"]
        ]
        for name in ("confusion", "calibration"):
            parts = result.get(name, {}).items()
            shown |= {name: {part: scores | ({"sites": {}} if "sites" in scores else {}) for part, scores in parts}}
        shown["site_history"] = {}
        return shown | {"secure_aggregation": self.to_json()}

    def closing_notes(self) -> list[str]:
        """Return the sentences for the researcher, at the end of the run."""
        report = self.report
        notes = list(dict.fromkeys(report.notes))
        if self._experiment.strategy.batch_norm == "moments" and means_of_variances(self._spec):
            notes.append(
                "strategy.batch_norm: BatchNorm's running variances are averaged as they are; the spread between the "
                "sites' means, which moments would add, is in no sum that is told under secure aggregation"
            )
        if not report.clipped:
            return notes
        return [
            *notes,
            f"privacy.secure_aggregation.clip: {report.clipped / report.numbers:.2%} of the changes of parameters were "
            f"larger than {self._section.clip:g} and were cut to it; a larger clip changes less",
        ]

    @property
    def names(self) -> list[str]:
        """The real sites that take part."""
        return [participant.site for participant in self.participants]

    def sites(self) -> Sequence[Site]:
        """Return the one site that all are."""
        return [Site(ALL_SITES, 0)]

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Ask every participant, and yield one reply with the sums."""
        (request,) = requests.values()
        return _SummedReplies(self, method, request, deadline_s)

    def overdue(self, site: str) -> bool:
        """Nobody is: a late site is left out of the sum, and its late numbers are never opened."""
        return False

    def belated(self) -> Sequence[Belated]:
        """Nothing: late numbers are never opened."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Return what lasts from round to round: of the run's keys nothing, for sites make new ones."""
        spec = {name: item.to_json() for name, item in self._spec.items()}
        content = {"sites": self.names, "report": asdict(self.report), "rows": self._rows, "spec": spec}
        return content | ({"kept": self._kept} if self._kept else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, with the keys that the sites have made anew."""
        newer = self.report.notes
        self.report = AggregationReport(**state["report"])
        self.report.notes += newer
        self._kept = {fold: dict(rounds) for fold, rounds in state.get("kept", {}).items()}
        self._rows, self._spec = list(state["rows"]), wire.spec_from_json(state["spec"])

    def to_json(self) -> dict[str, Any]:
        """Return what the result tells of it, with each site's rules in force."""
        report, section = self.report, self._section
        return {
            "sites": {name: {"policy": dict(report.policies.get(name, {}))} for name in self.names},
            "threshold": self.threshold,
            "clip": section.clip,
            "bits": self._bits,
            "sums": report.calls,
            "clipped_share": report.clipped / report.numbers if report.numbers else 0.0,
        }

    def sum(
        self, replies: Replies, method: str, request: Mapping[str, Any], deadline_s: float
    ) -> tuple[dict[str, Any], float]:
        """Ask all participants, open the sum, and return the reply of all sites together and the seconds waited.

        `replies` is told who answered, who did not and why, and what it cost.

        Raises
        ------
        FederationError
            When fewer sites than the threshold, or than `participation.minimum`, gave numbers or opened the sum.
        """
        self._number += 1
        number = request["round"]
        common = {key: value for key, value in request.items() if key != "site"}
        common |= {"sites": len(self.participants)} | self._weights(method, request)
        # As the sites see it, who read it from JSON text.
        common = json.loads(wire.to_text(common))
        call = protocol.Call(self._run, self._number, self.participants, self.threshold, digest(common))
        awake = [site for site in self.names if not self._stragglers.rests(site, number)]
        awake = awake if len(awake) >= self._least else self.names
        section = self._to_sites()
        requests = {site: {**common, "site": site, "secure_aggregation": section} for site in awake}
        inner = self._federation.call(method, requests, deadline_s=deadline_s)
        arrived: dict[str, MaskedAnswer] = {}
        for site, reply in inner:
            try:
                arrived[site] = MaskedAnswer.read(reply, call)
            except WireError as error:
                inner.reject(site, str(error))
            except (KeyError, TypeError, AttributeError, ValueError):
                inner.reject(site, "malformed reply")
        drop_other_forms(arrived, inner)
        self._stragglers.name_resting(inner, set(self.names) - set(awake))
        self._stragglers.book(inner, number)
        replies.missing.update(inner.missing)
        replies.answered[:] = sorted(arrived)
        replies.bytes_sent.update(inner.bytes_sent)
        replies.bytes_received.update(inner.bytes_received)
        replies.site_s.update(inner.site_s)
        replies.phases.update(inner.phases)
        if method == "RPC_prepare":
            raise_data_errors(inner, self._experiment.participation.unfit)
        self._require(len(arrived), f"round {number}: {{}} of {len(self.names)} sites gave masked numbers", inner)
        total, waited = self._open(call, arrived, number, deadline_s)
        try:
            return self._reply(method, request, arrived, total), inner.seconds + waited
        except (WireError, ValueError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, (WireError, ValueError)) else "malformed sums"
            raise FederationError(f"round {number}: what the sites added up is of no use: {reason}") from None

    def _open(
        self, call: protocol.Call, arrived: Mapping[str, MaskedAnswer], number: int, deadline_s: float
    ) -> tuple[Vector, float]:
        """Ask the sites that gave numbers for what hides their sum."""
        names = sorted(arrived)
        body = {"step": "secure_aggregation_unmask", "question": call.asked, "arrived": names}
        requests = {
            site: self._message(
                site, number, body | {"letters": {name: arrived[name].masked.letters[site] for name in names}}
            )
            for site in names
        }
        replies = self._federation.call("RPC_prepare", requests, deadline_s=deadline_s)
        self._book("RPC_unmask", number, replies)
        answers: dict[str, Any] = {}
        for site, reply in replies:
            shares = reply.get("shares")
            if not isinstance(shares, dict):
                replies.reject(site, "malformed reply")
            elif reply.get("context") != call.context:
                replies.reject(site, "it told its shares of another call, or of another list of participants")
            else:
                answers[site] = shares
        self._stragglers.book(replies, number)
        self._require(len(answers), f"round {number}: {{}} of {len(names)} sites opened the sum", replies)
        shape = next(iter(arrived.values())).masked.vector.shape
        masked = {site: answer.masked for site, answer in arrived.items()}
        try:
            return protocol.unmask(call, masked, answers, shape), replies.seconds
        except WireError as error:
            raise FederationError(f"round {number}: the sum is not opened: {error}") from None

    def _reply(
        self, method: str, request: Mapping[str, Any], arrived: Mapping[str, MaskedAnswer], total: Vector
    ) -> dict[str, Any]:
        first = next(iter(arrived.values()))
        sums = layout.put_together(first.skeleton, fixed_point.decode_sums(total.sums))
        if sums["sites"] != len(arrived):
            raise FederationError(
                f"round {request['round']}: the masks do not cancel, so there is no sum; the sites were not asked the "
                "same, or do not run the same software"
            )
        self.report.calls += 1
        self.report.numbers += len(total.updates) * len(arrived)
        self.report.clipped += sums["clipped"]
        clear = {site: answer.clear for site, answer in arrived.items()}
        if method == "RPC_prepare" and request.get("step") == "imputation":
            body: dict[str, Any] = {"products": lists_to_arrays(sums["body"]["products"])}
        elif method == "RPC_prepare":
            body = preparation_reply(ALL_SITES, sums["body"], clear, self.report.notes)
            self._rows = [fold[ALL_SITES]["train"] for fold in body["counts"]]
            self._spec = wire.spec_from_json(body["spec"])
        else:
            updates = fixed_point.decode_updates(total.updates, self._section.clip, self._bits)
            folds = training_reply(ALL_SITES, sums["body"]["folds"], updates, request["folds"], clear, self._spec)
            body = evaluation_reply(folds, clear, self.report.notes)
            for item in request["folds"]:
                if method == "RPC_train" and item["train"] and item.get("strategy", {}).get("keeps"):
                    rounds = self._kept.setdefault(str(item["fold"]), {})
                    rounds |= dict.fromkeys(arrived, request["round"])
        return wire.message(site=ALL_SITES, round=request["round"], attempt=request["attempt"], status="ok", **body)

    def _weights(self, method: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Tell sites what all weights come to, so that each sends its share of it."""
        if method != "RPC_train":
            return {}
        # A model that only the sites know has to come back with the first round, for the updates to be added to.
        folds = [
            item | {"strategy": {**item.get("strategy", {}), "start": True}}
            if item["train"] and (item["parameters"] is None or item.get("partial"))
            else item
            for item in request["folds"]
        ]
        strategy, numbers = self._experiment.strategy, [item["fold"] for item in request["folds"]]
        shares = {
            str(fold): len(self.names) if strategy.weighting == "uniform" else self._rows[fold] for fold in numbers
        }
        if strategy.kind not in KEEPS_TERMS:
            return {"folds": folds, "weights": shares}
        folds = [
            item | {"strategy": {**item["strategy"], "kept": self._kept.get(str(item["fold"]), {})}}
            if item.get("strategy", {}).get("keeps")
            else item
            for item in folds
        ]
        # FedDyn counts the models alike, and the terms by their share.
        alike = {str(fold): len(self.names) for fold in numbers}
        return {"folds": folds, "weights": alike if strategy.kind == "feddyn" else shares, "shares": shares}

    def _agree_on_keys(self, sites: Sequence[str]) -> tuple[Participant, ...]:
        body = {"step": "secure_aggregation_keys", "secure_aggregation": {"run": self._run}, "sites": len(sites)}
        replies = self._federation.call(
            "RPC_prepare",
            {site: self._message(site, 0, body) for site in sites},
            deadline_s=self._experiment.participation.deadline_s,
        )
        self._book("RPC_keys", 0, replies)
        published, unsealed = [], []
        for site, reply in replies:
            try:
                participant = Participant.from_json(reply["keys"])
                if participant.site != site:
                    raise WireError("its keys are those of another site")
                if reply["run"] != self._run:
                    raise WireError("its keys are those of another run")
            except (WireError, KeyError) as error:
                replies.reject(site, str(error) if isinstance(error, WireError) else "malformed reply")
                continue
            published.append(participant)
            if reply.get("sealed") is not True:
                unsealed.append(site)
        raise_data_errors(replies)
        least = max(self._section.sites_needed(len(sites)), 2)
        if len(published) < least:
            raise FederationError(
                f"secure aggregation: {len(published)} of {len(sites)} sites gave keys, {least} are needed"
                + _reasons(replies)
            )
        self.report.notes += [
            f"site '{site}' takes no part in secure aggregation: {missing}"
            for site, missing in sorted(replies.missing.items())
        ]
        if unsealed:
            self.report.notes.append(
                f"secure aggregation: {len(unsealed)} of {len(published)} sites have no secret of the node's own "
                "(V6_ALGORITHM_NODE_SECRET), so their keys of this run are as safe as the job's folder: "
                f"{', '.join(unsealed)}"
            )
        participants = tuple(sorted(published, key=lambda participant: participant.site))
        try:
            check_participants(participants, self._run, participants[0], None)
        except WireError as error:
            raise FederationError(f"secure aggregation: {error}") from None
        return participants

    def _message(self, site: str, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
        participants = getattr(self, "participants", ())
        common = {"experiment": self._experiment.for_sites(), "sites": len(participants)}
        if participants:
            common["secure_aggregation"] = self._to_sites()
        return wire.message(site=site, round=number, attempt=1, **{**common, **body})

    def _to_sites(self) -> dict[str, Any]:
        return {
            "run": self._run,
            "call": self._number,
            "participants": [participant.to_json() for participant in self.participants],
        }

    def _require(self, count: int, what: str, replies: Replies) -> None:
        if count < self._least:
            raise FederationError(
                f"{what.format(count)}, {self._least} are needed (privacy.secure_aggregation.threshold "
                f"{self.threshold}, participation.minimum), so the sum stays closed{_reasons(replies)}"
            )


class _SummedReplies(Replies):
    """One reply, of all sites; `answered` and `missing` name the real ones."""

    def __init__(self, federation: SummingFederation, method: str, request: dict[str, Any], deadline_s: float) -> None:
        super().__init__({ALL_SITES: request}, iter(()), {})
        self._ask = lambda: federation.sum(self, method, request, deadline_s)

    def taken(self) -> Iterator[tuple[str, dict[str, Any] | Joint]]:
        start = time.perf_counter()
        reply, waited = self._ask()
        self.busy_s = time.perf_counter() - start - waited
        yield ALL_SITES, reply
        self.seconds = time.perf_counter() - start


def _pooled(scopes: Mapping[str, Any]) -> dict[str, Any]:
    return {**scopes, "sites": {}, "mean_over_sites": {}}


def _reasons(replies: Replies) -> str:
    return "".join(f"\n  {site}: {missing}" for site, missing in sorted(replies.missing.items()))
