"""Sites that were away when a run was prepared, and join when they are back; `training` lets them in between rounds.

Columns, statistics, scales and class weights stay those that were agreed on without them, so nothing changes for the
others but that there is one more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from v6_algorithm.coordinator.call_log import Caller
from v6_algorithm.coordinator.preparation.negotiate import tell_silent
from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.preparation.schema_checks import (
    check_counts,
    check_names,
    check_policy,
    check_schema,
    is_silent,
)
from v6_algorithm.data.preparation.columns import agree
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.rows import row_kind
from v6_algorithm.data.rows.kind import listed
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Missing
from v6_algorithm.experiment import PARTS, Experiment

# Why a site was missing, where it may be there another time; who refused, or whose data do not fit, has said its word.
_AWAY = ("late", "unreachable", "crashed")


class Joining:
    """Looks for sites that are back.

    Parameters
    ----------
    experiment
        With `participation.join`.
    caller
        Its books say who was away.
    plan
        Who takes part.
    """

    def __init__(self, experiment: Experiment, caller: Caller, plan: Plan) -> None:
        self.notes: list[str] = []
        self._experiment, self._caller = experiment, caller
        self._tries: dict[str, int] = {}
        self._until: dict[str, int] = {}
        if not experiment.may_join:
            return
        caller.close_books()  # so that its books say who was away
        for entry in caller.participation:
            if entry["call"] == "prepare" and entry["round"] == 0:
                away = {site: reason for site, reason in entry["missing"].items() if site not in plan.sites}
                for site, reason in away.items():
                    if reason.partition(":")[0] in _AWAY:
                        self._tries.setdefault(site, 0)
                    else:
                        self._tries.pop(site, None)

    def look(self, plan: Plan, round: int) -> Plan:
        """Return the plan with the sites that are back before this round; the same one where none is.

        A site that still owes an answer is not asked: that would cost the others a deadline. One that fails is asked
        again after 1, 3, 7, … rounds.
        """
        back = [
            site
            for site in sorted(self._tries)
            if round > 1 and round >= self._until.get(site, 0) and not self._caller.overdue(site)
        ]
        if not back:
            return plan
        setup = _as_agreed(plan.setup)
        joined = plan
        schemas = self._ask(back, round, {"step": "schema"}, lambda reply: self._check_schema(reply, plan.setup))
        replies = self._ask(
            list(schemas),
            round,
            {"step": "statistics", "setup": setup.to_json()},
            lambda reply: _check_statistics(reply, plan),
        )
        for site, counts in replies.items():
            joined = _with_site(joined, site, counts, *schemas[site])
            del self._tries[site]
            self._tell(
                f"round {round}: site '{site}' joined; it was away when the run was prepared, so columns, scales and "
                "class weights are those agreed on without it"
            )
            for note in tell_silent([site] if site in joined.silent else [], others=plan.validated):
                self._tell(f"round {round}: {note}")
        return joined

    def _ask(self, sites: Sequence[str], round: int, body: dict[str, Any], check: Any) -> dict[str, Any]:
        if not sites:
            return {}
        replies = self._caller.call("RPC_prepare", round, dict.fromkeys(sites, body))
        answers = {}
        for site, reply in replies:
            try:
                answers[site] = check(reply)
            except ExperimentError as error:
                replies.missing[site] = Missing("data", str(error))
                replies.answered.remove(site)
            except (KeyError, TypeError, AttributeError, ValueError, WireError) as error:
                replies.reject(site, str(error) if isinstance(error, WireError) else "its statistics are malformed")
        for site, missing in replies.missing.items():
            self._tries[site] += 1
            self._until[site] = round + 2 ** self._tries[site]
            if missing.kind not in _AWAY:
                del self._tries[site]
                self._tell(f"round {round}: site '{site}' was back and does not join: {missing}")
        return answers

    def _check_schema(self, reply: Mapping[str, Any], setup: Setup) -> tuple[dict[str, int], dict[str, Any]]:
        """Read each member hospital's synthetic rows, and the rules of the node.

        Raises
        ------
        ExperimentError
            When the site lacks columns that were agreed on, or has classes or values that were not.
        """
        kind = row_kind(self._experiment.data)
        schemas = {str(name): check_schema(schema, kind) for name, schema in reply["members"].items()}
        check_names(schemas)
        classification = setup.classes is not None or bool(setup.task_classes)
        known = {name: _beside_agreed(schema, setup) for name, schema in schemas.items()}
        mine = agree(self._experiment.data, known, classification=classification)
        if lacking := (set(setup.features) - set(mine.features)) | (set(setup.categories) - set(mine.categories)):
            raise ExperimentError(f"column {listed(sorted(lacking))} is not there, or of another kind")
        labels = [(name, mine.categories[name], values) for name, values in setup.categories.items()]
        labels += [("the target", mine.classes or [], setup.classes or [])]
        labels += [(name, mine.task_classes.get(name, []), values) for name, values in setup.task_classes.items()]
        if other := [name for name, labels_there, agreed in labels if set(labels_there) - set(agreed)]:
            raise ExperimentError(f"{listed(other)} has values that no site had when the run was prepared")
        if mine.image_shape != setup.image_shape:
            raise ExperimentError(f"its images are {mine.image_shape}, those of the others {setup.image_shape}")
        return {name: schema["synthetic"] for name, schema in schemas.items()}, check_policy(reply.get("policy"))

    def _tell(self, text: str) -> None:
        self.notes.append(text)
        self._caller.on_event({"event": "note", "text": text})

    def state_dict(self) -> dict[str, Any]:
        """Return who is waited for."""
        return {"tries": self._tries, "until": self._until, "notes": self.notes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._tries, self._until, self.notes = dict(state["tries"]), dict(state["until"]), list(state["notes"])


def _beside_agreed(schema: Mapping[str, Any], setup: Setup) -> dict[str, Any]:
    """Return what a hospital tells with the classes that were agreed on: its own rows may all be of one."""
    told = schema["task_labels"]
    return {
        **schema,
        "labels": [*schema["labels"], *(setup.classes or [])],
        "task_labels": {name: [*told.get(name, []), *agreed] for name, agreed in setup.task_classes.items()}
        | {name: labels for name, labels in told.items() if name not in setup.task_classes},
    }


def _as_agreed(setup: Setup) -> Setup:
    """Return the setup as it was before there were statistics."""
    return replace(
        setup, class_weights=None, preparation=None, combat=None, sums={}, target_scales={}, baseline=None, unknown=[]
    )


def _check_statistics(reply: Mapping[str, Any], plan: Plan) -> list[dict[str, dict[str, int]]]:
    """Read the row counts, of a site whose model is the others'."""
    counts = check_counts(reply["counts"])
    if len(counts) != len(plan.counts):
        raise WireError("it has another number of folds than the other sites")
    if wire.spec_from_json(reply["spec"]) != plan.spec:
        raise WireError("its model has other tensors than that of the other sites")
    if any(name in fold for fold, members in zip(plan.counts, counts, strict=True) for name in members):
        raise WireError("it has a hospital that takes part already")
    return counts


def _with_site(
    plan: Plan,
    site: str,
    counts: Sequence[Mapping[str, Mapping[str, int]]],
    synthetic: Mapping[str, int],
    policy: Mapping[str, Any],
) -> Plan:
    rows = [{part: sum(member[part] for member in fold.values()) for part in PARTS} for fold in counts]
    sites = sorted([*plan.sites, site])
    together = {**plan.rows, site: rows}
    return replace(
        plan,
        sites=sites,
        rows={name: together[name] for name in sites},
        counts=[
            {**before, **{name: dict(parts) for name, parts in fold.items()}}
            for before, fold in zip(plan.counts, counts, strict=True)
        ],
        synthetic={**plan.synthetic, **synthetic},
        policies={**plan.policies, **({name: dict(policy) for name in synthetic} if policy else {})},
        silent=[*plan.silent, *([site] if is_silent(policy) else [])],
    )
