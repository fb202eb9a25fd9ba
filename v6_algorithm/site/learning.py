"""The answers of a round: the model measured and trained on this site's rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from v6_algorithm import wire
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import PARTS
from v6_algorithm.site.sending import Sender
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from v6_algorithm.problems.base import Networks, Problem
    from v6_algorithm.training.device import Device
    from v6_algorithm.training.loop import Rows


def train(work: Work) -> dict[str, Any]:
    """Validate the model as received, train it, and return it: for each fold that the request names."""
    return _work_on_folds(work, train=True)


def evaluate(work: Work) -> dict[str, Any]:
    """Measure the model as received on the parts asked for."""
    return _work_on_folds(work, train=False)


def _work_on_folds(work: Work, *, train: bool) -> dict[str, Any]:
    import torch

    from v6_algorithm.problems import create_problem
    from v6_algorithm.training import loop
    from v6_algorithm.training.device import Device
    from v6_algorithm.training.state import build_networks, build_shapes, load_state, overlay, spec_of
    from v6_algorithm.training.threads import threads_for

    setup = work.setup()
    device = Device.choose(work.experiment.training)
    with work.timed("data_s"):
        table = work.table(setup)
    problem = create_problem(work.experiment, setup)
    networks = build_shapes(problem)
    spec = spec_of(networks)
    folds = []
    for item in work.request["folds"]:
        number = int(item["fold"])
        if not 0 <= number < len(table.folds):
            raise WireError(f"fold {number} is asked for, the split has {len(table.folds)}")
        if item["parameters"] is None:
            # The first round, in which every site starts from the seed, or from its image.
            networks = build_networks(problem)
        elif item.get("partial"):
            networks = build_networks(problem)
            overlay(networks, wire.unpack(item["parameters"]), partial=True)
        else:
            load_state(networks, wire.unpack(item["parameters"], spec))
        with work.timed("data_s"):
            rows = work.rows(table, setup, number, device)
        for network in networks.values():
            network.to(device.kind)
        parts = {part: torch.from_numpy(table.folds[number][part]) for part in PARTS}
        reply: dict[str, Any] = {"fold": number, "metrics": {}}
        batch_rows = min(work.experiment.training.batch_size or len(parts["train"]), len(parts["train"]))
        with threads_for(networks, batch_rows):
            if item.get("personal"):
                _personalise(work, problem, networks, rows, parts["train"], number, device)
            with work.timed("evaluate_s"):
                for part in item.get("evaluate", []):
                    reply["metrics"][part] = loop.evaluate(
                        problem, networks, rows, parts[part], table.members, fold=number, device=device
                    )
                if item.get("baseline"):
                    reply["baseline"] = loop.evaluate(
                        problem,
                        networks,
                        rows,
                        parts["train"],
                        table.members,
                        fold=number,
                        device=device,
                        accumulator=partial(problem.baseline, work.policy.minimum_part_rows),
                    )
            if train and item.get("train", True):
                if not len(parts["train"]):
                    raise WireError(f"fold {number} is to be trained, and has no training rows here")
                reply |= _train(work, problem, networks, rows, parts["train"], item, device)
        folds.append(reply)
    return {"folds": folds, "device": device.to_json()}


def _personalise(
    work: Work, problem: Problem, networks: Networks, rows: Rows, part: Tensor, fold: int, device: Device
) -> None:
    """Train the networks on, for this site alone: freely, or with Ditto's pull towards what was received.

    References
    ----------
    Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021: the personal model
    minimises the site's loss + mu/2 times the squared distance to the shared one, here the one that was kept.
    """
    from v6_algorithm.training import loop
    from v6_algorithm.training.objectives import create_objective
    from v6_algorithm.training.state import spec_of

    own = work.experiment.personal
    if own is None:
        raise WireError("a personal model is asked for, the experiment wants none")
    message = {} if own.mu is None else {"mu": own.mu}
    with work.timed("train_s"):
        loop.train(
            problem,
            networks,
            rows,
            part,
            site=work.site,
            round=work.round,
            fold=fold,
            device=device,
            epochs=own.epochs,
            objective=create_objective(message, spec_of(networks)),
        )


def _train(
    work: Work, problem: Problem, networks: Networks, rows: Rows, part: Tensor, item: Mapping[str, Any], device: Device
) -> dict[str, Any]:
    """Train the networks on the rows numbered in `part`, and return what the reply tells of it."""
    from v6_algorithm.training import loop
    from v6_algorithm.training.objectives import create_objective
    from v6_algorithm.training.state import spec_of, state_of

    message, fold = item.get("strategy", {}), int(item["fold"])
    spec = spec_of(networks)
    objective, sender = create_objective(message, spec), Sender(work, fold, message, spec, state_of(networks))
    told: dict[str, Any] = {}
    if message.get("start"):
        told["start"] = wire.pack(state_of(networks))
    if message.get("start_loss"):
        with work.timed("evaluate_s"):
            told["start_loss"] = loop.mean_loss(problem, networks, rows, part, fold=fold)
    with work.timed("train_s"):
        sums = loop.train(
            problem,
            networks,
            rows,
            part,
            site=work.site,
            round=work.round,
            fold=fold,
            device=device,
            epochs=item.get("epochs"),
            objective=objective,
        )
    reply: dict[str, Any] = {
        "parameters": sender.pack(objective.outgoing(state_of(networks))),
        "rows": len(part),
        "loss": {"sum": sums.loss, "rows": sums.rows},
        "steps": sums.steps,
    }
    return reply | ({"strategy": told} if told else {})
