"""A site's side of secure aggregation: its keys, its numbers under masks, and the shares that open a sum.

`handle` passes every answer to `hide` that has numbers of rows in it, when the experiment wants secure aggregation:
what leaves is a skeleton without numbers, and the numbers masked. `answer_keys` and `open_sum` are the steps of
RPC_prepare around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.reading.assumed import without_counts
from v6_algorithm.errors import PolicyError, SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.secure_aggregation import fixed_point, protocol
from v6_algorithm.exchange.secure_aggregation.keys import Participant, check_participants, digest
from v6_algorithm.exchange.secure_aggregation.layout import take_apart
from v6_algorithm.exchange.secure_aggregation.ring import Vector
from v6_algorithm.experiment.privacy import SecureAggregation
from v6_algorithm.site.rules import BY_FIELD
from v6_algorithm.site.state.aggregation import AggregationState

if TYPE_CHECKING:
    from torch import Tensor

    from v6_algorithm.site.work import Work

KEYS, UNMASK = "secure_aggregation_keys", "secure_aggregation_unmask"
# Answers in which no row is counted: names, types and labels of columns, and the protocol's own.
IN_THE_CLEAR = ("preflight", "schema", KEYS, UNMASK)
# What two questions for the same numbers may differ in, beside keys: how many sites take part, and what they weigh.
_OF_THE_RUN = ("attempt", "sites", "weights", "shares")
_SUM = "the sum of question {}"


def answer_keys(work: Work) -> dict[str, Any]:
    """Begin a run: return this site's public keys, and whether what they are made of is also in the node's keeping."""
    run = _run_of(work)
    keys = AggregationState(work.context, run, work.site).keys(begins=True)
    # A secret that is in no folder is in this process only.
    sealed = work.policy.node_secret is not None or work.context.state is None
    return {"run": run, "keys": keys.public(run, _shared_secret(work)).to_json(), "sealed": sealed}


def open_sum(work: Work) -> dict[str, Any]:
    """Return this site's shares of what hides the sum over the sites whose numbers arrived; once a call."""
    asked = work.request.get("question")
    if not isinstance(asked, str) or len(asked) != 64:
        raise WireError("what was asked must be named by 64 hexadecimal digits")
    call, state = _call(work, asked)
    arrived, letters = work.request.get("arrived"), work.request.get("letters")
    if not isinstance(arrived, list) or not all(isinstance(name, str) for name in arrived):
        raise WireError("the sites whose numbers arrived must be a list of names")
    if not isinstance(letters, Mapping):
        raise WireError("the sealed shares must be one letter a site")
    # What is in the sum has to hide this site as well as what was asked.
    work.policy.check_sites(len(set(arrived)))
    shares = protocol.open_letters(call, state.keys(), arrived, letters)
    numbers = state.answered(_SUM.format(asked))
    if numbers is None:
        raise WireError("this site gave no numbers for this sum")
    state.answer_once(f"the unmasking of call {call.context[:16]}", digest([sorted(arrived), dict(letters)]))
    state.open_once(numbers, arrived)
    return {"context": call.context, "shares": shares}


def check_hidden(work: Work, method: str) -> bool:
    """Say whether an answer is to be masked; raises when the request leaves out what that takes."""
    if method == "summary" or (method == "prepare" and work.request.get("step") in IN_THE_CLEAR):
        return False
    if work.experiment.privacy.secure_aggregation is None:
        least, sites = work.policy.secure_aggregation_sites, int(work.request.get("sites", 0))
        if least is not None and sites >= least:
            raise PolicyError(
                f"this node answers only under secure aggregation from {least} sites on, and this run has {sites} "
                f"({BY_FIELD['secure_aggregation_sites'].variable}); add privacy: {{secure_aggregation: {{threshold: "
                f"{sites // 2 + 1}}}}}"
            )
        return False
    if "secure_aggregation" not in work.request:
        raise WireError("the experiment wants secure aggregation, and the request names no participants for it")
    return True


def hide_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Tell of row counts only whether there are any."""
    hidden = schema | {"rows": int(bool(schema["rows"]))}
    # None is a count that is too small to tell.
    hidden |= {"rows_without_target": None if schema["rows_without_target"] != 0 else 0}
    hidden |= {"assumed": without_counts(schema["assumed"])} if "assumed" in schema else {}
    return hidden | ({"at_zero": None} if "at_zero" in schema else {})


def hide(work: Work, method: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a reply with its numbers masked.

    Parameters
    ----------
    work
        The request.
    method
        ``prepare``, ``train`` or ``evaluate``.
    body
        The answer as it would leave without secure aggregation; trained models as `WeightedUpdate`.

    Returns
    -------
    dict
        `masked` with the numbers, `skeleton` with what they are, and in the clear `device`, and `start` where the
        model that training began with is not known to the coordinator; of a preparation `spec`, `hidden` and `start`.
    """
    section = _section(work)
    content = {key: value for key, value in work.request.items() if key not in ("site", "secure_aggregation")}
    call, state = _call(work, digest(content))
    step = work.request.get("step") if method == "prepare" else None
    if method == "prepare" and step not in ("statistics", "imputation"):
        raise WireError(f"step '{str(step)[:40]}' is not one of sums; allowed: statistics, imputation")
    # The same question, summed over other sites, would tell the difference; it is answered in one call.
    state.answer_once(f"question {call.asked[:16]}", call.context)
    if method == "train":
        # Twice the same training, summed over other sites, would tell the difference.
        state.answer_once(f"the training of round {work.round}", call.context)
    state.answer_once(_SUM.format(call.asked), _numbers(work, method, content))
    if step == "imputation":
        clear, open_body, updates = _products(body)
    else:
        clear, open_body, updates = _statistics(body) if method == "prepare" else _folds(work, section, body)
    bits, words = fixed_point.words_for(section.bits, len(call.participants))
    values = np.concatenate(updates) if updates else np.zeros(0)
    if not np.isfinite(values).all():
        raise SiteError("the trained model holds numbers that are not finite", "diverged")
    encoded, clipped = fixed_point.encode_updates(values, section.clip, bits, words)
    skeleton, numbers = take_apart({"sites": 1, "clipped": clipped, "body": open_body})
    vector = Vector(encoded, fixed_point.encode_sums(numbers, len(call.participants)))
    masked = protocol.mask_vector(vector, call, state.keys())
    return {
        **clear,
        "skeleton": skeleton,
        "masked": {
            "context": call.context,
            "updates": len(values),
            "words": words,
            "numbers": masked.vector.to_text(),
            "letters": masked.letters,
            "seals": masked.seals,
        },
    }


@dataclass
class WeightedUpdate:
    """A trained model on its way into a sum.

    Attributes
    ----------
    moved
        (n,) float64, how far each parameter has moved, or its gradient; not longer than `strategy.clip`.
    others
        Buffers and counters as they are, by name.
    term
        (n,) float64, how a term that the site keeps has changed, where the strategy adds that up as well.
    """

    moved: np.ndarray
    others: dict[str, list[Any]]
    term: np.ndarray | None = None


class UpdateSender:
    """Makes a `WeightedUpdate` of a trained state, where without secure aggregation `Sender` packs it.

    Parameters
    ----------
    work
        The request.
    message
        Its "strategy" for the fold.
    spec
        The tensors that are sent.
    received
        The state before training, of which a copy is kept.
    """

    def __init__(
        self, work: Work, message: Mapping[str, Any], spec: wire.StateSpec, received: Mapping[str, Tensor]
    ) -> None:
        self._clip = work.experiment.strategy.clip
        self._spec = spec
        self._parameters = [name for name, item in spec.items() if item.kind == "parameter"]
        # Gradients are updates already.
        self._received: dict[str, Tensor] = {}
        if not message.get("gradient"):
            self._received = {name: received[name].cpu().double().clone() for name in self._parameters}

    def pack(self, state: Mapping[str, Tensor]) -> WeightedUpdate:
        """Return the update of a trained state."""
        pieces = [np.zeros(0)]
        for name in self._parameters:
            trained = state[name].detach().cpu().double()
            pieces.append((trained - self._received[name] if self._received else trained).flatten().numpy())
        moved = np.concatenate(pieces)
        length = float(np.linalg.norm(moved))
        if self._clip is not None and length > self._clip:
            moved *= self._clip / length
        others = {
            name: state[name].detach().cpu().flatten().tolist()
            for name, item in self._spec.items()
            if item.kind in ("buffer", "counter")
        }
        return WeightedUpdate(moved, others)


def untrained(work: Work, spec: wire.StateSpec, *, term: bool) -> dict[str, Any]:
    """Return what a site without training rows adds: zeros, in the form of what the others add."""
    sizes = {name: int(np.prod(item.shape)) for name, item in spec.items()}
    parameters = sum(sizes[name] for name, item in spec.items() if item.kind == "parameter")
    others = {
        name: [0 if item.kind == "counter" else 0.0] * sizes[name]
        for name, item in spec.items()
        if item.kind in ("buffer", "counter")
    }
    update = WeightedUpdate(np.zeros(parameters), others, np.zeros(parameters) if term else None)
    return {"parameters": update, "rows": 0, "loss": {"sum": 0.0, "rows": 0}, "steps": 0}


def _statistics(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[np.ndarray]]:
    """Split the answer of step statistics into what stays in the clear and what is added up."""
    from v6_algorithm.data.preparation.additive import arrays_to_lists, moments_to_sums

    copies = body["copies"]
    numbers = {
        "counts": [next(iter(fold.values())) for fold in body["counts"]],
        "class_counts": body["class_counts"],
        "sums": arrays_to_lists(body["sums"]),
        "moments": moments_to_sums(body["moments"]),
        "targets": moments_to_sums(body["targets"]),
        # A count that is too small to be told adds nothing.
        "copies": copies and {key: count or 0 for key, count in copies.items()},
        "trained_on": body["trained_on"],
    }
    return {key: body[key] for key in ("spec", "hidden", "start")}, numbers, []


def _products(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[np.ndarray]]:
    """Split the answer of step imputation in the same way: all of it is added up."""
    from v6_algorithm.data.preparation.additive import arrays_to_lists

    return {}, {"products": arrays_to_lists(body["products"])}, []


def _folds(
    work: Work, section: SecureAggregation, body: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], list[np.ndarray]]:
    """Split the answer to training or evaluation in the same way, its updates weighted."""
    from v6_algorithm.data.preparation.additive import arrays_to_lists
    from v6_algorithm.learning.metrics.additive import to_sums

    wholes = work.request.get("weights", {})
    updates, folds, starts = [], [], []
    for item in body["folds"]:
        known = {"fold", "metrics", "parameters", "rows", "loss", "steps", "strategy", "samples", "baseline"}
        if set(item) - known:
            raise WireError("something is asked for that secure aggregation does not add up")
        # In a federated run a site is one hospital.
        numbers: dict[str, Any] = {
            "fold": item["fold"],
            "metrics": {part: to_sums(next(iter(states.values()))) for part, states in item["metrics"].items()},
        }
        if "baseline" in item:
            numbers["baseline"] = next(iter(item["baseline"].values()))
        if "parameters" in item:
            update: WeightedUpdate = item["parameters"]
            share = _share(work, item, wholes.get(str(item["fold"])))
            updates.append(update.moved * float(share))
            if update.term is not None:
                # Where its term counts by its share, and its model like any other's, the two are not the same.
                weight = share_of(work, item["fold"], item["rows"]) if item["rows"] else 0
                updates.append(update.term * float(weight))
            numbers |= {key: item[key] for key in ("rows", "loss", "steps")}
            numbers["share"] = share
            numbers["others"] = {
                name: [share * Fraction(value) for value in values] for name, values in update.others.items()
            }
            extras = item.get("strategy") or {}
            if "sums" in extras:
                numbers["sums"] = arrays_to_lists(extras["sums"])
            starts.append(extras.get("start"))
        folds.append(numbers)
    clear = {"device": body["device"]} | ({"starts": starts} if any(starts) else {})
    private = work.experiment.privacy.differential_privacy
    if private is not None and private.unit == "site" and "epsilon" in body:
        # The same for all sites: it follows from the experiment, and no number of rows is in it.
        clear["epsilon"] = body["epsilon"]
    # Made of random numbers that come from the seed alone, by the model that the coordinator has.
    samples = [item.get("samples") for item in body["folds"]]
    clear |= {"samples": samples} if any(samples) else {}
    return clear, {"folds": folds}, updates


def share_of(work: Work, fold: int, rows: int) -> Fraction:
    """Return this site's share of the weight of all sites, by which a term that it keeps counts."""
    whole = work.request.get("shares", {}).get(str(fold))
    weight = 1 if work.experiment.strategy.weighting == "uniform" else rows
    if type(whole) is not int or not 0 < weight <= whole:
        raise WireError("the shares of all sites together must be a whole number, not below this site's")
    return Fraction(weight, whole)


def _share(work: Work, item: Mapping[str, Any], whole: Any) -> Fraction:
    """Return this site's weight, as a share of what all sites' weights come to at most."""
    if not item["rows"]:
        return Fraction(0)
    strategy = work.experiment.strategy
    weight = 1 if strategy.weighting == "uniform" or strategy.kind == "feddyn" else item["rows"]
    if type(whole) is not int or not 0 < weight <= whole:
        raise WireError("the weights of all sites together must be a whole number, not below this site's")
    # The coordinator divides by the sum of what is sent, so that this rounding does not matter.
    return Fraction(float(Fraction(weight, whole)))


def _numbers(work: Work, method: str, content: Mapping[str, Any]) -> str:
    """Name what is summed, the same for a `master` that is run again: of an experiment, one training a round."""
    if method == "train":
        return digest([method, work.request["experiment"], work.round])
    return digest([method, {key: value for key, value in content.items() if key not in _OF_THE_RUN}])


def _section(work: Work) -> SecureAggregation:
    section = work.experiment.privacy.secure_aggregation
    if section is None:
        raise WireError("the experiment does not ask for secure aggregation")
    return section


def _shared_secret(work: Work) -> bytes | None:
    return None if work.policy.aggregation_secret is None else work.policy.aggregation_secret.encode()


def _run_of(work: Work) -> str:
    given = work.request.get("secure_aggregation")
    run = given.get("run") if isinstance(given, Mapping) else None
    if not isinstance(run, str) or len(run) != 32 or not set(run) <= set("0123456789abcdef"):
        raise WireError("secure_aggregation.run must be 32 hexadecimal digits")
    return run


def _call(work: Work, asked: str) -> tuple[protocol.Call, AggregationState]:
    """Read a call from the request, and check all that a site can check of it."""
    section, run = _section(work), _run_of(work)
    given = work.request["secure_aggregation"]
    number, listed = given.get("call"), given.get("participants")
    if type(number) is not int or number < 1 or not isinstance(listed, list):
        raise WireError("secure_aggregation must have a call, from 1, and a list of participants")
    participants = tuple(map(Participant.from_json, listed))
    work.policy.check_sites(len(participants))
    state = AggregationState(work.context, run, work.site)
    this_site = state.keys().public(run, _shared_secret(work))
    check_participants(participants, run, this_site, _shared_secret(work))
    # One list a run: what is the same for all sites is bound to it by their keys, and this site goes on with no other.
    state.answer_once("the list of participants", digest([participant.to_json() for participant in participants]))
    threshold = section.sites_needed(len(participants))
    return protocol.Call(run, number, participants, threshold, asked), state
