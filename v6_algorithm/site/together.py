"""The answers of many simulated sites to one call, computed together: what `handle` gives, for all sites at once.

Only for the engine that has all sites in its process. Each site's request is admitted and its table read by the rules
of that site, once a run; then the sites that got the same model are measured in one pass over all their rows and
trained in one batched computation (`learning.training.together`). A site that cannot go together, and a run in which
none can, is left to `handle`, with the reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import SiteError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.downlink import ROUNDED, read_sent
from v6_algorithm.exchange.joint import KEYS, Joint, JointItem, JointStates, JointTraining
from v6_algorithm.experiment import PARTS
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.guard.leaving import check_keys
from v6_algorithm.site.learning import rate_of
from v6_algorithm.site.private import shared_and_own
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.problems.base import Networks, Problem
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.loop import Rows
    from v6_algorithm.site.policy import Policy

# What an item of a request may ask of sites that go together.
_ITEM = {"fold", "parameters", ROUNDED, "evaluate", "train", "strategy", "lr", "epochs"}
_STRATEGY = {"mu", "correction", "start", "start_loss", "gradient", "contrast"}
# What it asks a site to tell beside its model, or in its place.
_TOLD = ("start", "start_loss", "gradient")
# Strategies that ask for something else, and what.
_WHY = {
    "cyclic": "strategy cyclic trains at one site after the other",
}
# Bytes of inputs of one part of all sites that are held a second time, beside each other.
_MOST_BYTES = 2**30
# Quicker steps, as the result names them.
FUSED, CHANNELS_LAST = "fused optimiser", "channels last"


@dataclass
class _Session:
    """One site's part of a run: its table and rows, as its rules gave them out.

    Attributes
    ----------
    work
        The request that opened it.
    rules
        The number of the owner's rules among the different ones that the sites of the run have.
    """

    work: Work
    table: TableData
    parts: list[dict[str, Tensor]]
    rules: int
    rows: dict[int, Rows] = field(default_factory=dict)


class _Run:
    """What all sites of a run share: the problem and its networks, and the sites' sessions."""

    def __init__(self, work: Work) -> None:
        import torch

        from v6_algorithm.learning.problems import create_problem
        from v6_algorithm.learning.training.device import Device
        from v6_algorithm.learning.training.learner import has_fused_step
        from v6_algorithm.learning.training.state import build_shapes, load_state, state_of
        from v6_algorithm.learning.training.together import is_large, reason_against

        self.experiment, self.setup = work.experiment, work.setup()
        self.problem: Problem = create_problem(self.experiment, self.setup)
        self.device: Device = Device.choose(self.experiment.training)
        # Without numbers, which no model needs that is trained by each site itself.
        self.networks: Networks = build_shapes(self.problem)
        self.shared, self.private = shared_and_own(work, self.networks)
        self.sessions: dict[str, _Session] = {}
        # The owners' rules that differ: what one of them says of a request, its equals say too.
        self.rules: list[Policy] = []
        # Inputs, targets and lengths of a part at some sites, beside each other.
        self.joined: dict[Any, tuple[Tensor, Tensor, list[int]]] = {}
        # Where most of a site's training is its optimiser's, it steps in one pass; the rest stays exact to the bit.
        training = self.experiment.training
        self.fuses = self.device.kind == "cpu" and has_fused_step(training) and is_large(self.networks, training)
        self.reason = self._reason() or reason_against(self.problem, self.networks, self.experiment.training)
        if self.reason is None:
            empty = {name: torch.empty(of.shape, dtype=of.dtype) for name, of in state_of(self.networks).items()}
            load_state(self.networks, empty)
        for network in self.networks.values():
            network.eval()
        # Their tensors, by the names of a state.
        self._tensors: dict[str, Tensor] = state_of(self.networks)

    def rules_of(self, policy: Policy) -> int:
        """Return the number of an owner's rules, those of other owners that are equal among them."""
        if policy not in self.rules:
            self.rules.append(policy)
        return self.rules.index(policy)

    def load(self, received: Mapping[str, Tensor]) -> None:
        """Copy a model into the networks, which nobody trains."""
        for name, tensor in received.items():
            self._tensors[name].copy_(tensor)

    def start(self) -> dict[str, Tensor]:
        """Return the model that training begins with, which follows from the seed."""
        from v6_algorithm.learning.training.state import build_networks, state_of

        state = state_of(build_networks(self.problem))
        return {name: state[name] for name in self.shared}

    def _reason(self) -> str | None:
        experiment = self.experiment
        if experiment.privacy.secure_aggregation is not None:
            return "secure aggregation: each site's answer is masked by itself"
        if experiment.privacy.differential_privacy is not None:
            return "differential privacy: each site draws batches and noise of its own, and books them"
        if self.private is not None:
            return "strategy.private: each site has layers of its own"
        if experiment.strategy.compress.stages:
            return "strategy.compress: each site compresses its update by itself"
        if experiment.strategy.kind in _WHY:
            return _WHY[experiment.strategy.kind]
        if experiment.mode != "federated":
            return f"mode {experiment.mode}: no two sites train the same model"
        if experiment.start.at_sites:
            return "start.weights: each site has its own"
        if self.device.kind != "cpu":
            return "on a GPU: what is batched here stays in the processor's memory"
        return None


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
    for run, group in _groups(requests, contexts, shared, _can_go):
        if run.reason is None and len(group) > 1:
            answered = _Group(method, run, group, contexts)
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
    for run, group in _groups(requests, contexts, shared, lambda items: True):
        if run.reason is None and len(group) > 1:
            # What is wrong with a site it has said in its reply, or says in the next one.
            with suppress(Exception):
                _Group(method, run, group, contexts).lay_out()


def know_run(
    requests: Mapping[str, dict[str, Any]], contexts: Mapping[str, SiteContext], shared: dict[Any, Any]
) -> bool:
    """Look at what a run's sites share, by which `quicker_steps` and `why_alone` tell; returns whether that went."""
    if not requests:
        return False
    first = next(iter(requests))
    try:
        _run_of(requests[first], contexts[first], shared)
        return True
    except Exception:
        # Each site is asked by itself, and then says in its reply what is wrong.
        return False


def _groups(
    requests: Mapping[str, dict[str, Any]],
    contexts: Mapping[str, SiteContext],
    shared: dict[Any, Any],
    can_go: Callable[[Sequence[Mapping[str, Any]]], bool],
) -> list[tuple[_Run, dict[str, dict[str, Any]]]]:
    """Return what sites of a call share, and the requests to those of them whose items can go together."""
    if not know_run(requests, contexts, shared):
        return []
    groups: dict[Any, dict[str, dict[str, Any]]] = {}
    for site, request in requests.items():
        if _reason_of_site(contexts[site]) is not None or not can_go(request["folds"]):
            continue
        groups.setdefault((id(request["experiment"]), id(request["setup"])), {})[site] = request
    firsts = {key: next(iter(group)) for key, group in groups.items()}
    return [(_run_of(group[firsts[key]], contexts[firsts[key]], shared), group) for key, group in groups.items()]


def why_alone(contexts: Mapping[str, SiteContext], shared: Mapping[Any, Any]) -> str | None:
    """Say why the sites of a run are not trained together; empty where they are, None where no round has told."""
    for context in contexts.values():
        if (reason := _reason_of_site(context)) is not None:
            return reason
    if len(contexts) == 1:
        return "there is one site"
    known = shared.get("together")
    return None if known is None else known[2].reason or ""


def quicker_steps(shared: Mapping[str, Any]) -> list[str]:
    """Name the quicker steps of sites that are not trained together, for `quicker` and for the result."""
    known = shared.get("together")
    if known is None:
        return []
    run = known[2]
    ways, model = [FUSED] if run.fuses else [], run.experiment.model
    # A bias before BatchNorm has a gradient that is nothing but rounding, of which Adam makes a step. A volume stays.
    if model.kind == "cnn" and model.norm in ("none", "group") and len(run.setup.image_shape or ()) == 3:
        ways.append(CHANNELS_LAST)
    return ways


@contextmanager
def quicker(shared: Mapping[str, Any]) -> Iterator[None]:
    """Let sites that are not trained together take quicker steps, which differ by rounding from those on a node.

    Large networks step in one pass over the memory; for the network `cnn` without BatchNorm the channels of a pixel lie
    beside each other. Others stay exact to the bit: dropout of maps, say, draws in the order of the memory.
    """
    ways = quicker_steps(shared)
    with ExitStack() as stack:
        if FUSED in ways:
            from v6_algorithm.learning.training.learner import fused_steps

            stack.enter_context(fused_steps())
        if CHANNELS_LAST in ways:
            from v6_algorithm.learning.training.images import channels_last

            stack.enter_context(channels_last())
        yield


def _reason_of_site(context: SiteContext) -> str | None:
    policy = context.policy
    if policy.request_order or policy.refuse_differences or policy.maximum_share_of_sums is not None:
        return "the node's rules keep a book of every request"
    if policy.refuse_isolated_rows:
        return "the node's rules try to read rows out of each update"
    if policy.maximum_seconds is not None:
        return "the node's rules stop a request that takes long"
    if len(context.sources) > 1:
        return "the site holds several hospitals' tables"
    return None


def _can_go(items: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether what is asked of a site can be done together with others; `_Run.reason` says why it seldom cannot."""
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


def _run_of(request: dict[str, Any], context: SiteContext, shared: dict[Any, Any]) -> _Run:
    """Return what is known of a run, which begins anew when the experiment or the setup is another one."""
    known = shared.get("together")
    if known is None or known[0] is not request["experiment"] or known[1] != request["setup"]:
        known = shared["together"] = request["experiment"], request["setup"], _Run(Work(request, context))
    run: _Run = known[2]
    return run


class _Group:
    """Sites of one run that were asked in one call, and what is answered for them.

    Parameters
    ----------
    method
        ``train`` or ``evaluate``.
    run
        What they share.
    requests, contexts
        By site.
    """

    def __init__(
        self,
        method: str,
        run: _Run,
        requests: Mapping[str, dict[str, Any]],
        contexts: Mapping[str, SiteContext],
    ) -> None:
        self._method, self._run, self._requests = method, run, requests
        self._round = next(iter(requests.values()))["round"]
        self._sites = [
            site
            for site, request in requests.items()
            if site in run.sessions or self._open(site, request, contexts[site])
        ]
        self._errors: dict[str, SiteError] = {}
        self._seconds: dict[str, float] = {}

    def _open(self, site: str, request: dict[str, Any], context: SiteContext) -> bool:
        """Let a site read its table by its rules; returns whether it did."""
        import torch

        try:
            work = Work(request, context)
            work.guard.admit(self._method)
            table = work.table(work.setup())
            work.guard.check_networks(self._run.networks)
            work.guard.check_passes([len(fold.train) for fold in table.folds], train=self._method == "train")
        except Exception:
            # It is asked by itself, and then says in its reply what is wrong.
            return False
        parts = [{part: torch.from_numpy(fold[part]) for part in PARTS} for fold in table.folds]
        self._run.sessions[site] = _Session(work, table, parts, self._run.rules_of(context.policy))
        return True

    def lay_out(self) -> None:
        """Put the rows that are trained on or measured beside each other, where nothing is answered yet."""
        from v6_algorithm.learning.metrics import by_site  # noqa: F401 (the next round's)
        from v6_algorithm.learning.training import together  # noqa: F401

        # Of round 1, in which one of them went by itself.
        self._run.joined.clear()
        trained: dict[int, list[str]] = {}
        measured: dict[int, list[str]] = {}
        for site in self._sites:
            for item in self._requests[site]["folds"]:
                if item.get("train", True) and self._comes_again("train"):
                    trained.setdefault(item["fold"], []).append(site)
                if len(self._run.sessions[site].parts[item["fold"]]["validation"]):
                    measured.setdefault(item["fold"], []).append(site)
        for part, sites_of in (("train", trained), ("validation", measured)):
            for fold, sites in sites_of.items():
                self._joined(sites, part, fold)

    def answer(self) -> Joint:
        """Measure and train each model that was sent, and return what the sites answer that nothing failed at."""
        from v6_algorithm.learning.training.device import deterministic
        from v6_algorithm.learning.training.learner import fused_steps
        from v6_algorithm.learning.training.threads import threads_for

        run, start = self._run, time.perf_counter()
        models: dict[Any, dict[str, int]] = {}
        for site in self._sites:
            for place, item in enumerate(self._requests[site]["folds"]):
                told = tuple(bool((item.get("strategy") or {}).get(name)) for name in _TOLD)
                models.setdefault((item["fold"], id(item["parameters"]), item.get("epochs"), told), {})[site] = place
        with (
            fused_steps(),
            deterministic(run.experiment.training.deterministic),
            threads_for(run.networks, run.experiment.training.batch_size or 1),
        ):
            items = [item for places in models.values() if (item := self._model(places)) is not None]
        seconds = time.perf_counter() - start
        alike = max(len(self._sites), 1)
        timing = {name: value / alike for name, value in self._seconds.items()}
        timing["other_s"] = max(seconds - sum(self._seconds.values()), 0.0) / alike
        heads = {
            site: {"site": site, "round": request["round"], "attempt": request["attempt"]}
            for site in self._sites
            if site not in self._errors
            for request in [self._requests[site]]
        }
        return Joint(heads, items, run.device.to_json(), timing)

    def errors(self) -> dict[str, dict[str, Any]]:
        """Return the replies of the sites at which something failed."""
        return {
            site: wire.message(
                **{key: self._requests[site][key] for key in ("site", "round", "attempt")},
                status="error",
                kind=error.kind,
                message=str(error),
            )
            for site, error in self._errors.items()
        }

    def screen(self, site: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return a site's answer as its guard lets it leave."""
        return self._run.sessions[site].work.guard.screen(self._method, body)

    def leaves_as_it_is(self, joint: Joint) -> bool:
        """Say whether the sites' guards would let each answer leave as it is, and none of them has more to say."""
        from v6_algorithm.learning.metrics.by_site import SiteStates
        from v6_algorithm.learning.metrics.joined import capped

        run = self._run
        if any(policy.coarse_histograms for policy in run.rules):
            return False
        check_keys(self._method, KEYS)
        for item in joint.items:
            for measured in item.metrics.values():
                # Of a table no state lists more than it may.
                if not isinstance(measured.table, SiteStates) and any(
                    capped(state) is not state for state in measured.states or ()
                ):
                    return False
        return True

    def _model(self, places: dict[str, int]) -> JointItem | None:
        """Answer for one model of one fold; `places` are those of the sites' items of it."""
        if self._errors:
            places = {site: place for site, place in places.items() if site not in self._errors}
        items = {site: self._requests[site]["folds"][place] for site, place in places.items()}
        if not items:
            return None
        first = next(iter(items.values()))
        fold = first["fold"]
        sent = first["parameters"] is not None
        received = read_sent(first, self._run.shared) if sent else self._run.start()
        answer = JointItem(fold, places)
        start = time.perf_counter()
        for part in PARTS:
            measured = [site for site, item in items.items() if part in item.get("evaluate", ())]
            if measured:
                answer.metrics[part] = self._measure(received, measured, part, fold)
        middle = time.perf_counter()
        trained = [site for site, item in items.items() if item.get("train", True)] if self._method == "train" else []
        if trained:
            answer.training = self._train(received, {site: items[site] for site in trained}, fold)
            if not sent:
                # Who has sent nothing does not know the frozen ones.
                answer.training.names = list(self._run.shared)
        self._book("evaluate_s", middle - start)
        self._book("train_s", time.perf_counter() - middle)
        return answer

    def _book(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def _joined(self, sites: Sequence[str], part: str, fold: int) -> tuple[Tensor, Tensor, list[int]]:
        """Return inputs and targets of a part at some sites, one site's rows after the other's, and their numbers."""
        import torch

        run, key = self._run, (tuple(sites), part, fold)
        if (known := run.joined.get(key)) is not None:
            return known
        pieces = [self._rows(site, fold, part) for site in sites]
        joined = (
            torch.cat([inputs for inputs, _ in pieces]),
            torch.cat([target for _, target in pieces]),
            [len(target) for _, target in pieces],
        )
        held = sum(inputs.nbytes for inputs, _, _ in run.joined.values())
        if self._comes_again(part) and held + joined[0].nbytes <= _MOST_BYTES:
            run.joined[key] = joined
        return joined

    def _comes_again(self, part: str) -> bool:
        """Say whether the same sites are asked for a part again: of those that are drawn to train, the same are not."""
        return part != "train" or self._run.experiment.participation.fraction == 1

    def _rows(self, site: str, fold: int, part: str) -> tuple[Tensor, Tensor]:
        session, run = self._run.sessions[site], self._run
        rows = session.rows.get(fold)
        if rows is None:
            rows = session.work.rows(session.table, run.setup, fold, run.device)
            if len(session.table.folds) == 1:
                session.rows[fold] = rows
        numbers = session.parts[fold][part].to(run.device.kind)
        return rows.inputs[numbers], rows.target[numbers]

    def _measure(self, received: Mapping[str, Tensor], sites: Sequence[str], part: str, fold: int) -> JointStates:
        """Return how good the model as received is at each site."""
        from v6_algorithm.learning.metrics import ClassificationMetrics
        from v6_algorithm.learning.metrics.by_site import SiteStates
        from v6_algorithm.learning.metrics.many_sites import states_of_sites

        run = self._run
        inputs, target, lengths = self._joined(sites, part, fold)
        prediction, loss = (values.numpy() for values in self._outputs(received, inputs, target, lengths, fold))
        answer = JointStates(list(sites), [run.sessions[site].table.members[0] for site in sites])
        accumulator = run.problem.accumulator()
        rows = prediction, target.cpu().numpy(), loss, lengths
        if type(accumulator) is ClassificationMetrics:
            answer.table = SiteStates.of(accumulator, *rows)
        else:
            answer.states = states_of_sites(run.problem.accumulator, *rows)
        return answer

    def _train(
        self, received: Mapping[str, Tensor], items: Mapping[str, Mapping[str, Any]], fold: int
    ) -> JointTraining:
        """Train the model as received at each site, and return what comes of it."""
        from v6_algorithm.learning.training.learner import TrainingContext
        from v6_algorithm.learning.training.loop import diverged
        from v6_algorithm.learning.training.objectives import LocalObjective, create_objective
        from v6_algorithm.learning.training.patterns import frozen_names
        from v6_algorithm.learning.training.together import SiteRows, train_together

        run, sites = self._run, list(items)
        frozen = frozen_names(run.networks, run.experiment.training.freeze, self._round)
        inputs, target, lengths = self._joined(sites, "train", fold)
        nothing, first, checked = LocalObjective(), items[sites[0]], set()
        parts, start = [], 0
        for (site, item), rows in zip(items.items(), lengths, strict=True):
            session = run.sessions[site]
            guard = session.work.guard
            # What a guard says of a training depends on its owner's rules, the rows and the passes.
            if (question := (session.rules, rows, item.get("epochs"))) not in checked:
                guard.check_training(rows, item, self._round)
                guard.check_information(run.problem.sums_of_squares, rows)
                guard.check_left_out(rows)
                checked.add(question)
            strategy = item.get("strategy")
            objective = create_objective(strategy, run.shared) if strategy else nothing
            parts.append(SiteRows(start, rows, site, guard.seed, objective))
            start += rows
        asked = first.get("strategy") or {}
        start_losses = self._start_losses(received, inputs, target, lengths, fold) if asked.get("start_loss") else None
        lr = rate_of(run.experiment, first)
        context = TrainingContext(parts[0].seed, sites[0], self._round, fold, run.device, "training", frozen, lr)
        trained = train_together(
            run.problem, run.networks, received, inputs, target, parts, context, epochs=first.get("epochs")
        )
        for site, loss, before in zip(sites, trained.losses, start_losses or trained.losses, strict=True):
            if not math.isfinite(loss) or not math.isfinite(before):
                self._errors[site] = diverged(run.experiment.training, self._round)
        leaves = [name for name, item in run.shared.items() if item.kind != "frozen"]
        begun = wire.Held({name: received[name] for name in run.shared}, run.shared) if asked.get("start") else None
        return JointTraining(
            sites, lengths, trained.steps, trained.losses, trained.seen, trained.stacks, leaves, run.shared, begun,
            start_losses,
        )  # fmt: skip

    def _start_losses(
        self, received: Mapping[str, Tensor], inputs: Tensor, target: Tensor, lengths: Sequence[int], fold: int
    ) -> list[float]:
        """Return the mean loss of the model as received over each site's rows."""
        import torch

        _, loss = self._outputs(received, inputs, target, lengths, fold)
        means: list[float] = torch.stack([of_site.mean() for of_site in loss.split(list(lengths))]).tolist()
        return means

    def _outputs(
        self, received: Mapping[str, Tensor], inputs: Tensor, target: Tensor, lengths: Sequence[int], fold: int
    ) -> tuple[Tensor, Tensor]:
        """Return predictions and losses of the model as received, of each row, on the CPU."""
        import torch

        from v6_algorithm.learning.training.loop import rows_at_once_of

        problem, run = self._run.problem, self._run
        run.load(received)
        outputs, predictions, losses = [], [], []
        with torch.inference_mode():
            for chunk, true in zip(
                *(rows.split(rows_at_once_of(problem, inputs)) for rows in (inputs, target)), strict=True
            ):
                output = problem.forward(run.networks, chunk)
                predictions.append(problem.prediction_of(output, fold).cpu())
                if problem.joint:
                    outputs.append(output)
                else:
                    losses.append(problem.row_loss(output, true, fold).double().cpu())
            if problem.joint:
                counts = torch.tensor(lengths)
                filled = torch.arange(int(counts.max())) < counts[:, None]
                of_sites = []
                for rows in (torch.cat(outputs), target):
                    stack = rows.new_zeros(*filled.shape, *rows.shape[1:])
                    stack[filled] = rows
                    of_sites.append(stack)
                by_site = problem.losses_of_sites(of_sites[0], of_sites[1], filled, fold)
                losses.append(by_site[filled].double())
        return torch.cat(predictions), torch.cat(losses)
