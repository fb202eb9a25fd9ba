"""What was added up over all sites, in the form of one site's reply; `secure_aggregation` makes replies of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.downlink import read_sent
from v6_algorithm.exchange.secure_aggregation.layout import rounded


def preparation_reply(
    name: str, sums: Mapping[str, Any], clear: Mapping[str, Mapping[str, Any]], notes: list[str]
) -> dict[str, Any]:
    """Return the reply to step statistics of all sites together.

    Parameters
    ----------
    name
        What all sites are called.
    sums
        The numbers that were added up.
    clear
        What each site told in the clear.
    notes
        Gets a sentence for each column of which some sites told nothing.

    Raises
    ------
    ExperimentError
        When the sites do not start from the same weights.
    """
    from v6_algorithm.data.preparation.additive import lists_to_arrays, moments_from_sums

    starts = {site: str(answer["start"]) for site, answer in clear.items()}
    if len(set(starts.values())) > 1:
        told_by = ", ".join(f"{site} {start[:8]}" for site, start in sorted(starts.items()))
        raise ExperimentError(
            f"the sites do not start from the same weights, so they do not run the same software or have other files: "
            f"{told_by}"
        )
    hidden = {site: [str(column) for column in answer["hidden"]] for site, answer in clear.items()}
    nowhere = set.intersection(*map(set, hidden.values()))
    for site, columns in sorted(hidden.items()):
        if some := [column for column in columns if column not in nowhere]:
            notes.append(
                f"site '{site}': too few training rows have a value in {', '.join(some)} for statistics, which come "
                "from the other sites"
            )
    first = next(iter(clear.values()))
    return {
        "counts": [{name: fold} for fold in sums["counts"]],
        "class_counts": sums["class_counts"],
        "sums": lists_to_arrays(sums["sums"]),
        "moments": moments_from_sums(sums["moments"]),
        "targets": moments_from_sums(sums["targets"]),
        "copies": sums["copies"],
        "trained_on": sums["trained_on"],
        "hidden": sorted(nowhere),
        "spec": first["spec"],
        "start": first["start"],
    }


def training_reply(
    name: str,
    sums: Sequence[Mapping[str, Any]],
    updates: np.ndarray,
    asked: Sequence[Mapping[str, Any]],
    clear: Mapping[str, Mapping[str, Any]],
    spec: wire.StateSpec,
) -> list[dict[str, Any]]:
    """Return the folds of the reply to training or evaluation of all sites together.

    Parameters
    ----------
    name
        What all sites are called.
    sums
        The numbers of each fold.
    updates
        (n,) sums of the weighted updates, one fold after another.
    asked
        The folds of the request.
    clear
        What each site told in the clear.
    spec
        The model's tensors.
    """
    from v6_algorithm.data.preparation.additive import lists_to_arrays
    from v6_algorithm.learning.metrics.additive import from_sums

    starts = _starts(clear)
    samples = next((answer["samples"] for answer in clear.values() if "samples" in answer), [None] * len(asked))
    folds, used, trained = [], 0, 0
    for fold, wanted, picture in zip(sums, asked, samples, strict=True):
        metrics = {part: {name: rounded(from_sums(state))} for part, state in fold["metrics"].items()}
        item: dict[str, Any] = {"fold": fold["fold"], "metrics": metrics}
        if "baseline" in fold:
            item["baseline"] = {name: rounded(fold["baseline"])}
        if picture is not None:
            item["samples"] = picture
        if "share" in fold:
            start = starts[trained] if trained < len(starts) else None
            state, used = _mean_state(fold, updates, used, wanted, start, spec)
            question = wanted.get("strategy", {})
            extras: dict[str, Any] = {"start": start} if question.get("start") else {}
            if question.get("keeps"):
                extras["share"] = float(fold["share"])
            if question.get("sums"):
                extras["sums"] = lists_to_arrays(fold["sums"])
            if question.get("term"):
                term, used = _summed_term(updates, used, spec)
                extras["term"] = wire.pack(term)
            trained += 1
            item |= {"parameters": wire.pack(state), "rows": fold["rows"], "steps": fold["steps"]}
            item["loss"] = rounded(fold["loss"])
            if extras:
                item["strategy"] = extras
        folds.append(item)
    return folds


def evaluation_reply(
    folds: list[dict[str, Any]], clear: Mapping[str, Mapping[str, Any]], notes: list[str]
) -> dict[str, Any]:
    """Return the reply of all sites together, with what they compute on; `notes` gets who was short of memory."""
    devices = {site: answer["device"] for site, answer in clear.items()}
    device = {
        key: ", ".join(sorted({str(used[key])[:60] for used in devices.values()})) for key in ("name", "precision")
    }
    for site, used in devices.items():
        if type(used.get("pieces")) is int:
            notes.append(
                f"site '{site}': a batch did not fit the memory of {str(used['name'])[:60]}; it was trained in "
                f"pieces of {used['pieces']} rows"
            )
    # Of one experiment it is the same at all sites, but for one that had to repeat a round.
    costs = [answer["epsilon"] for answer in clear.values() if "epsilon" in answer]
    return {"folds": folds, "device": device} | ({"epsilon": max(costs)} if costs else {})


def _mean_state(
    fold: Mapping[str, Any],
    updates: np.ndarray,
    used: int,
    wanted: Mapping[str, Any],
    start: str | None,
    spec: wire.StateSpec,
) -> tuple[dict[str, Any], int]:
    """Return the weighted mean of the sites' models, and where in `updates` the next fold begins."""
    import torch

    sent = wanted["parameters"] is not None and not wanted.get("partial")
    base = read_sent(wanted, spec) if sent else wire.unpack(start, spec)
    leaves = {key: item for key, item in spec.items() if item.kind != "frozen"} if sent else spec
    gradient = bool(wanted.get("strategy", {}).get("gradient"))
    # Without training rows anywhere there is no mean; a strategy leaves such a reply out.
    share = fold["share"] or Fraction(1)
    state = {}
    for key, item in leaves.items():
        dtype = getattr(torch, item.dtype)
        size = int(np.prod(item.shape))
        if item.kind == "parameter":
            mean = torch.from_numpy(updates[used : used + size] / float(share)).reshape(item.shape)
            used += size
            if len(mean.flatten()) != size:
                raise WireError("the sums are of fewer parameters than the model has")
            state[key] = (mean if gradient else base[key].double() + mean).to(dtype)
        elif item.kind == "frozen":
            state[key] = base[key]
        else:
            means = [value / share for value in fold["others"][key]]
            numbers = [round(value) for value in means] if item.kind == "counter" else [float(value) for value in means]
            state[key] = torch.tensor(numbers, dtype=dtype).reshape(item.shape)
    return state, used


def _summed_term(updates: np.ndarray, used: int, spec: wire.StateSpec) -> tuple[dict[str, Any], int]:
    """Return the sum of what the sites' terms changed by, float64 by parameter, and where the next fold begins."""
    import torch

    term = {}
    for key, item in spec.items():
        if item.kind == "parameter":
            size = int(np.prod(item.shape))
            term[key] = torch.from_numpy(updates[used : used + size].copy()).reshape(item.shape)
            used += size
    return term, used


def _starts(clear: Mapping[str, Mapping[str, Any]]) -> list[str | None]:
    """Return the models that training began with, which only the sites know before the first round."""
    starts_by_site = {site: answer["starts"] for site, answer in clear.items() if "starts" in answer}
    if len({wire.digest("".join(map(str, starts))) for starts in starts_by_site.values()}) > 1:
        raise WireError("the sites trained other models than each other")
    return next(iter(starts_by_site.values()), [])
