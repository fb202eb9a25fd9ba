"""The answers of a round: the model measured and trained on this site's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.cache import cache_key
from v6_algorithm.errors import PolicyError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.downlink import read_sent
from v6_algorithm.exchange.tensor_file import Stored
from v6_algorithm.experiment import PARTS, Experiment
from v6_algorithm.site.comparison import compare
from v6_algorithm.site.fitting import FittingMemory
from v6_algorithm.site.private_update import check_adds_noise, check_weights, update_noise
from v6_algorithm.site.secure_aggregation import UpdateSender, WeightedUpdate, share_of, untrained
from v6_algorithm.site.sending import Sender
from v6_algorithm.site.state import local_models
from v6_algorithm.site.state.kept_terms import KeptTerm
from v6_algorithm.site.state.private_layers import shared_and_own
from v6_algorithm.site.subgroups import GroupStates
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.problems.base import Networks, Problem
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.fitting import Fitting
    from v6_algorithm.learning.training.loop import Rows, TrainingSums
    from v6_algorithm.learning.training.objectives import LocalObjective
    from v6_algorithm.learning.training.private_descent import PrivateSteps
    from v6_algorithm.learning.training.private_update import UpdateNoise
    from v6_algorithm.site.guard.privacy_account import Booked
    from v6_algorithm.site.guard.watch import UpdateWatch


def train(work: Work) -> dict[str, Any]:
    """Validate the model as received, train it, and return it: for each fold that the request names."""
    return _work_on_folds(work, train=True)


def evaluate(work: Work) -> dict[str, Any]:
    """Measure the model as received on the parts asked for."""
    return _work_on_folds(work, train=False)


def _work_on_folds(work: Work, *, train: bool) -> dict[str, Any]:
    import torch

    from v6_algorithm.learning.problems import create_problem
    from v6_algorithm.learning.problems.survival import Survival
    from v6_algorithm.learning.training import loop
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.patterns import frozen_names
    from v6_algorithm.learning.training.state import build_shapes, state_of
    from v6_algorithm.learning.training.threads import threads_for

    setup = work.setup()
    device = Device.choose(work.experiment.training)
    with work.timed("data_s"):
        table = work.table(setup)
    problem = create_problem(work.experiment, setup)
    problem.folder = work.folder
    if problem.sums_of_squares and isinstance(problem, Survival):
        problem.time_cell = work.guard.time_cell(problem.sums_of_squares)
    networks = build_shapes(problem)
    work.guard.check_networks(networks, problem.sums_of_squares)
    work.guard.check_passes([len(fold.train) for fold in table.folds], train=train)
    shared, private = shared_and_own(work, networks)
    groups = GroupStates(work, table) if any(item.get("subgroups") for item in work.request["folds"]) else None
    frozen = frozen_names(networks, work.experiment.training.freeze, work.round)
    memory = FittingMemory(work, device)
    fitting = memory.load()
    booked = None
    numbers = _trained_here(work, table) if train else []
    if numbers:
        check_weights(work)
        for item in work.request["folds"]:
            if int(item["fold"]) in numbers:
                # Before anything is booked, which is not given back.
                work.guard.check_training(len(table.folds[int(item["fold"])].train), item)
        booked = work.guard.book_privacy(table, numbers)
    folds = []
    hides = work.experiment.privacy.secure_aggregation is not None
    for item in work.request["folds"]:
        number = int(item["fold"])
        if not 0 <= number < len(table.folds):
            raise WireError(f"fold {number} is asked for, the split has {len(table.folds)}")
        # What each site has by itself: layers of its own as a round left them, where there are any and they are there.
        version = int(item["private"]["round"]) if private else 0
        layers = private.load(number, version) if private else None
        trains = train and item.get("train", True)
        changes = bool(trains or item.get("personal"))
        networks = _received(problem, networks, item, shared, layers or {}, changes=changes)
        with work.timed("data_s"):
            rows = work.rows(table, setup, number, device)
        for network in networks.values():
            network.to(device.kind)
        parts = {part: torch.from_numpy(table.folds[number][part]) for part in PARTS}
        reply: dict[str, Any] = {"fold": number, "metrics": {}}
        if private:
            reply["private"] = version if layers else 0
        batch_rows = min(work.experiment.training.batch_size or len(parts["train"]), len(parts["train"]))
        learner = _Learner(
            work, problem, rows, parts["train"], number, device,
            private=private.names if private else frozenset(), frozen=frozen,
            lr=rate_of(work.experiment, item) if trains or item.get("personal") else None, fitting=fitting,
            steps=_private_steps(work, booked, number) if trains else None,
            noise=update_noise(work, booked) if number in numbers else None,
        )  # fmt: skip
        with threads_for(networks, batch_rows):
            if item.get("personal"):
                learner.personalise(networks)
            with work.timed("evaluate_s"):
                for part in item.get("evaluate", []):
                    reply["metrics"][part] = _measure(work, problem, networks, rows, parts[part], table, number, device)
                if not train and "test" in item.get("evaluate", []):
                    whole = state_of(networks)
                    if item.get("personal"):
                        local_models.keep(work, number, local_models.PERSONAL, whole)
                    elif private and layers:
                        local_models.keep(work, number, local_models.PRIVATE, {n: whole[n] for n in private.names})
                if item.get("samples"):
                    reply |= _samples(problem, networks, number, device)
                if groups:
                    groups.measure(problem, networks, rows, item, device)
                if item.get("against"):
                    reply |= compare(work, item, problem, networks, rows, parts["test"], table, device)
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
            if trains and hides and not len(parts["train"]):
                check_adds_noise(work, number)
                asked_term = bool((item.get("strategy") or {}).get("term"))
                reply |= untrained(work, learner.leaves(item, shared), term=asked_term)
            elif trains:
                if not len(parts["train"]):
                    raise WireError(f"fold {number} is to be trained, and has no training rows here")
                work.guard.check_information(problem.sums_of_squares, len(parts["train"]))
                work.guard.check_left_out(len(parts["train"]))
                reply |= learner.train(networks, item, shared)
                if private:
                    private.keep(
                        number,
                        work.round,
                        state_of(networks),
                        [int(kept_round) for kept_round in item["private"]["keep"]],
                    )
        folds.append(reply)
    group_reply = {} if groups is None else {"subgroups": groups.to_json()}
    memory.keep(fitting)
    # Rounded up, for it is a bound.
    cost = {} if booked is None else {"epsilon": ceil(booked.epsilon * 1e4) / 1e4}
    return {"folds": folds, **group_reply, **cost, "device": device.to_json() | fitting.to_json()}


def _trained_here(work: Work, table: TableData) -> list[int]:
    """Number the folds of a request that are to be trained and have training rows here."""
    numbers = [int(item["fold"]) for item in work.request["folds"] if item.get("train", True)]
    return [number for number in numbers if 0 <= number < len(table.folds) and len(table.folds[number].train)]


def _private_steps(work: Work, booked: Booked | None, fold: int) -> PrivateSteps | None:
    """Return the noised steps of a fold as they were booked; None: differential privacy is not asked for."""
    import torch

    from v6_algorithm.learning.training.private_descent import PrivateSteps

    section = work.experiment.privacy.differential_privacy
    if section is None or section.unit == "site" or booked is None or fold not in booked.folds:
        return None
    plan = booked.folds[fold]
    return PrivateSteps(
        torch.from_numpy(plan.unit),
        plan.units,
        plan.rate,
        booked.noise_multiplier,
        section.clip,
        plan.by_round[work.round - 1],
    )


def _measure(
    work: Work,
    problem: Problem,
    networks: Networks,
    rows: Rows,
    part: Tensor,
    table: TableData,
    fold: int,
    device: Device,
) -> dict[str, dict[str, Any]]:
    """Return the state of each member hospital over the rows numbered in `part`."""
    from v6_algorithm.learning.training import loop
    from v6_algorithm.learning.training.generative import evaluation

    if not problem.generative:
        return loop.evaluate(problem, networks, rows, part, table.members, fold=fold, device=device)
    return evaluation.evaluate(
        problem,
        networks,
        rows,
        part,
        table.members,
        site=work.site,
        round=work.round,
        fold=fold,
        least=work.policy.minimum_part_rows,
        device=device,
    )


def _samples(problem: Problem, networks: Networks, fold: int, device: Device) -> dict[str, str]:
    """Return a picture of what the networks make, if they make anything."""
    from v6_algorithm.learning.training.generative.evaluation import sample_grid

    grid = sample_grid(problem, networks, fold=fold, device=device) if problem.generative else None
    return {} if grid is None else {"samples": grid}


def _received(
    problem: Problem,
    networks: Networks,
    item: Mapping[str, Any],
    shared: wire.StateSpec,
    layers: Mapping[str, Tensor],
    *,
    changes: bool,
) -> Networks:
    """Return networks with the tensors of the request and the site's own layers, the rest as it was initially.

    In the first round nothing may be sent: every site starts from the seed, or from its image. `changes` says whether
    the networks are trained; those that are only measured may hold tensors that other sites of a process hold too.
    """
    from v6_algorithm.learning.training.state import build_networks, load_state, overlay, spec_of

    given = item["parameters"]
    if given is None:
        tensors = {}
    else:
        tensors = wire.unpack(given) if item.get("partial") else read_sent(item, shared)
    held = isinstance(given, wire.Held) or (isinstance(given, wire.Packed) and given.tensors is not None)
    if changes and held and not isinstance(tensors, Stored):
        # Of others in this process too, and the networks train in place; what is read from a file is nobody's.
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    if set(tensors) | set(layers) == set(spec_of(networks)):
        load_state(networks, {**tensors, **layers})
        return networks
    networks = build_networks(problem)
    for part in (tensors, layers):
        if part:
            overlay(networks, part, partial=True)
    return networks


def _of(spec: wire.StateSpec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name] for name in spec}


@dataclass(frozen=True)
class _Learner:
    """What trains a fold's networks in place, for the round of the request.

    Attributes
    ----------
    part
        (n,) numbers of the training rows.
    private, frozen
        Names of the tensors that are the site's own, and of those that training leaves alone in this round.
    lr
        The learning rate of the round, where it follows from validation.
    fitting
        How many rows the device takes at once.
    steps
        Noised steps in place of the experiment's, under differential privacy of rows or patients.
    noise
        What hides the update as a whole, under differential privacy of sites.
    """

    work: Work
    problem: Problem
    rows: Rows
    part: Tensor
    fold: int
    device: Device
    private: frozenset[str]
    frozen: frozenset[str]
    lr: float | None
    fitting: Fitting
    steps: PrivateSteps | None
    noise: UpdateNoise | None

    def personalise(self, networks: Networks) -> None:
        """Train the networks on, for this site alone: freely, or with Ditto's pull towards what was received.

        References
        ----------
        Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021: the personal model
        minimises the site's loss + mu/2 times the squared distance to the shared one, here the one that was kept.
        """
        from v6_algorithm.learning.training.objectives import create_objective
        from v6_algorithm.learning.training.state import spec_of

        personal = self.work.experiment.personal
        if personal is None:
            raise WireError("a personal model is asked for, the experiment wants none")
        objective = create_objective({} if personal.mu is None else {"mu": personal.mu}, spec_of(networks))
        self._learn(networks, personal.epochs, self.frozen, objective)

    @staticmethod
    def leaves(item: Mapping[str, Any], shared: wire.StateSpec) -> wire.StateSpec:
        """Return the tensors that are sent: who sent the whole model knows what is frozen in it."""
        sent = item["parameters"] is not None and not item.get("partial")
        return {name: spec for name, spec in shared.items() if spec.kind != "frozen"} if sent else shared

    def train(self, networks: Networks, item: Mapping[str, Any], shared: wire.StateSpec) -> dict[str, Any]:
        """Train the networks, and return what the reply tells of it: shared tensors only."""
        import numpy as np

        from v6_algorithm.learning.training import loop
        from v6_algorithm.learning.training.objectives import create_objective
        from v6_algorithm.learning.training.state import state_of

        work, message = self.work, item.get("strategy") or {}
        leaves = self.leaves(item, shared)
        kept = self._kept_term(message, shared, networks)
        objective = create_objective(message, shared) if kept is None else kept.objective()
        sender: Sender | UpdateSender
        if work.experiment.privacy.secure_aggregation is None:
            sender = Sender(work, self.fold, message, leaves, state_of(networks))
        else:
            sender = UpdateSender(work, message, leaves, state_of(networks))
        extras: dict[str, Any] = {}
        if message.get("start"):
            extras["start"] = wire.pack(_of(shared, state_of(networks)))
        if message.get("start_loss"):
            with work.timed("evaluate_s"):
                extras["start_loss"] = loop.mean_loss(self.problem, networks, self.rows, self.part, fold=self.fold)
        received = _of(shared, state_of(networks)) if self.noise is not None else {}
        received = {name: value.detach().clone() for name, value in received.items()}
        held = self.frozen
        section = work.experiment.private
        if section is not None and (first := section.epochs):
            self._learn(networks, first, self.frozen | set(shared), None, alone=True)
            held = self.frozen | self.private
        watch = work.guard.watch(self.problem, networks, self.rows, self.part)
        sums = self._learn(networks, item.get("epochs"), held, objective)
        outgoing = _of(leaves, objective.outgoing(state_of(networks)))
        if self.noise is not None:
            moved = [name for name, spec in leaves.items() if spec.kind == "parameter" and name not in self.frozen]
            outgoing = self.noise.hide(received, outgoing, moved, gradient=bool(message.get("gradient")))
        if watch is not None:
            self._check_sent(watch, outgoing, message)
        if message.get("sums"):
            extras["sums"] = _sums_of(networks)
        with work.timed("encode_s"):
            parameters = sender.pack(outgoing)
        change = kept.keep(state_of(networks), sums.steps, self.lr) if kept is not None else {}
        if change and isinstance(parameters, WeightedUpdate):
            parameters = replace(parameters, term=np.concatenate([change[name].flatten().numpy() for name in change]))
        reply: dict[str, Any] = {
            "parameters": parameters,
            "rows": len(self.part),
            "loss": {"sum": sums.loss, "rows": sums.rows},
            "steps": sums.steps,
        }
        return reply | ({"strategy": extras} if extras else {})

    def _kept_term(self, message: Mapping[str, Any], shared: wire.StateSpec, networks: Networks) -> KeptTerm | None:
        """Return the term that this site keeps under secure aggregation; None where the coordinator keeps it."""
        from v6_algorithm.learning.training.state import state_of

        if not message.get("keeps"):
            return None
        share = float(share_of(self.work, self.fold, len(self.part)))
        return KeptTerm.of(self.work, self.fold, message, shared, state_of(networks), share)

    def _check_sent(self, watch: UpdateWatch, outgoing: Mapping[str, Tensor], message: Mapping[str, Any]) -> None:
        work = self.work
        try:
            watch.check(
                outgoing,
                gradient=bool(message.get("gradient")),
                smallest=work.policy.minimum_cell,
                context=work.context,
                round=work.round,
                key=f"{cache_key(work.experiment.for_sites(), work.site)}-{self.fold}",
            )
        except PolicyError:
            work.guard.count_isolated()
            raise

    def _noised(self) -> PrivateSteps | None:
        """Return the booked steps; an experiment under differential privacy is trained with them or not at all."""
        if self.noise is not None:
            return None
        if self.steps is None and self.work.experiment.privacy.differential_privacy is not None:
            raise WireError("this training was not booked for differential privacy")
        return self.steps

    def _learn(
        self,
        networks: Networks,
        epochs: int | None,
        frozen: frozenset[str],
        objective: LocalObjective | None,
        *,
        alone: bool = False,
    ) -> TrainingSums:
        """Train, and book the seconds; `alone` is of the private layers, whose batches are drawn by themselves."""
        from v6_algorithm.learning.training import loop

        with self.work.timed("train_s"):
            return loop.train(
                self.problem,
                networks,
                self.rows,
                self.part,
                site=self.work.site,
                round=self.work.round,
                fold=self.fold,
                device=self.device,
                epochs=epochs,
                objective=objective,
                frozen=frozen,
                lr=self.lr,
                fitting=self.fitting,
                purpose="private layers" if alone else "training",
                seed=self.work.guard.seed,
                private=self._noised(),
            )


def _sums_of(networks: Networks) -> str:
    """Return what the rows of a model that is fitted by sums came to, packed."""
    from v6_algorithm.data.preparation.setup import pack_arrays
    from v6_algorithm.learning.models.cox import CoxRegression

    model = networks.get("model")
    if not isinstance(model, CoxRegression):
        raise WireError("sums are asked for a model that is trained by gradients")
    return pack_arrays(model.sums)


def rate_of(experiment: Experiment, item: Mapping[str, Any]) -> float | None:
    """Read the learning rate of the round; None where the site knows it by itself."""
    scheduler = experiment.training.scheduler
    if scheduler is None or not scheduler.on_plateau:
        return None
    lr = item.get("lr")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < float("inf"):
        raise WireError(f"with training.scheduler {scheduler.kind} the request must carry lr, a finite number from 0")
    return float(lr)
