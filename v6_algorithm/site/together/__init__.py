"""The answers of many simulated sites to one call, computed together: what `handle` gives, for all sites at once.

Only for the engine that has all sites in its process. Each site's request is admitted and its table read by the rules
of that site, once a run; then the sites that got the same model are measured in one pass over all their rows and
trained in one batched computation (`learning.training.together`). A site that cannot go together, and a run in which
none can, is left to `handle`, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from v6_algorithm.exchange import wire
from v6_algorithm.exchange.downlink import ROUNDED
from v6_algorithm.exchange.joint import Joint
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.together.group import Group
from v6_algorithm.site.together.run import Run, as_trained_with, know_run, reason_of_site, run_of

# What an item of a request may ask of sites that go together.
_ITEM = {"fold", "parameters", ROUNDED, "evaluate", "train", "strategy", "lr", "epochs", "baseline"}
_STRATEGY = {"mu", "correction", "start", "start_loss", "gradient", "contrast", "compress"}


def answer_together(
    method: str, requests: Mapping[str, dict[str, Any]], contexts: Mapping[str, SiteContext], shared: dict[Any, Any]
) -> Joint | dict[str, dict[str, Any]]:
    """Answer those requests of a call that can be answered together.

    Parameters
    ----------
    method
        ``train`` or ``evaluate``.
    requests, contexts
        By site; the requests are `master`'s own objects.
    shared
        What lasts as long as the engine.

    Returns
    -------
    Joint or dict
        The replies of all sites at once, where each answered and no owner's rule changes anything; else replies by
        site, and who is not among them has to be asked by itself.
    """
    replies: dict[str, dict[str, Any]] = {}
    for run, group in groups(requests, contexts, shared, can_go):
        if run.goes_together(method) and len(group) > 1:
            run.measure_with([request["setup"] for request in group.values()])
            answered = Group(method, run, group, contexts)
            joint = answered.answer()
            if len(joint.heads) == len(requests) and answered.leaves_as_it_is(joint):
                return joint
            joint.screen = answered.screen
            replies |= joint.split() | answered.errors()
    return replies


def open_together(
    method: str, requests: Mapping[str, dict[str, Any]], contexts: Mapping[str, SiteContext], shared: dict[Any, Any]
) -> None:
    """Let sites of which some were asked by themselves in round 1 read their tables for the rounds that follow.

    Nothing is answered: it is what the first call of `answer_together` would do.
    """
    for run, group in groups(requests, contexts, shared, lambda items: True):
        if run.goes_together(method) and len(group) > 1:
            # What is wrong with a site it has said in its reply, or says in the next one.
            with suppress(Exception):
                Group(method, run, group, contexts).lay_out()


def groups(
    requests: Mapping[str, dict[str, Any]],
    contexts: Mapping[str, SiteContext],
    shared: dict[Any, Any],
    can_go: Callable[[Sequence[Mapping[str, Any]]], bool],
) -> list[tuple[Run, dict[str, dict[str, Any]]]]:
    """Return what sites of a call share, and the requests to those of them whose items can go together."""
    if not know_run(requests, contexts, shared):
        return []
    found: list[tuple[Any, dict[str, Any], dict[str, dict[str, Any]]]] = []
    group: dict[str, dict[str, Any]] = {}
    last: Any = None
    for site, request in requests.items():
        if reason_of_site(contexts[site]) is not None or not can_go(request["folds"]):
            continue
        experiment, setup = request["experiment"], request["setup"]
        if last is None or last[0] is not experiment or last[1] is not setup:
            # Once a Cox model is trained each site is told the baseline hazard of its own hospital.
            last, alike = (experiment, setup), as_trained_with(setup)
            known = [each for of, agreed, each in found if of is experiment and agreed == alike]
            group = known[0] if known else {}
            if not known:
                found.append((experiment, alike, group))
        group[site] = request
    firsts = [next(iter(group)) for _, _, group in found]
    return [
        (run_of(group[first], contexts[first], shared), group)
        for first, (_, _, group) in zip(firsts, found, strict=True)
    ]


def can_go(items: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether what is asked of a site can be done together with others; `Run.reason` says why it seldom cannot."""
    for item in items:
        given = item["parameters"]
        if set(item) - _ITEM or set(item.get("strategy", {})) - _STRATEGY:
            return False
        if given is None or isinstance(given, wire.Held):
            # Of round 1, in which each begins with what the seed gives it; or the model itself.
            continue
        if not isinstance(given, wire.Packed):
            return False
        if given.tensors is None:
            # Of a checkpoint, from which a run goes on as if nothing had been.
            given.tensors = wire.unpack(given)
    return True
