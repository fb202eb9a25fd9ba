"""Sites of one simulated run that were asked in one call: what each would answer, computed for all of them at once."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import SiteError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.downlink import read_sent
from v6_algorithm.exchange.joint import KEYS, Joint, JointItem, JointStates, JointTraining
from v6_algorithm.experiment import PARTS
from v6_algorithm.site.context import SiteContext
from v6_algorithm.site.guard.leaving import check_keys
from v6_algorithm.site.learning import rate_of
from v6_algorithm.site.sending import check_run, compressed
from v6_algorithm.site.together.run import Run, Session
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from v6_algorithm.learning.training.together import StackedTraining

# What an item of a request may ask a site to tell beside its model, or in its place.
_TOLD = ("start", "start_loss", "gradient", "compress")


class Group:
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
        run: Run,
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

        from v6_algorithm.learning.training.loop import fewest_rows

        try:
            work = Work(request, context)
            work.guard.admit(self._method)
            table = work.table(work.setup())
            work.guard.check_networks(self._run.networks, self._run.problem.sums_of_squares)
            work.guard.check_passes([len(fold.train) for fold in table.folds], train=self._method == "train")
            if any(0 < len(fold.train) < fewest_rows(self._run.networks) for fold in table.folds):
                return False
        except Exception:
            # It is asked by itself, and then says in its reply what is wrong.
            return False
        parts = [{part: torch.from_numpy(fold[part]) for part in PARTS} for fold in table.folds]
        self._run.sessions[site] = Session(work, table, parts, self._run.rules_of(context.policy))
        return True

    def lay_out(self) -> None:
        """Put the rows that are trained on or measured beside each other, where nothing is answered yet."""
        from v6_algorithm.learning.metrics import by_site  # noqa: F401 (the next round's)
        from v6_algorithm.learning.training import together  # noqa: F401

        run = self._run
        # Of round 1, in which one of them went by itself.
        run.forget_rows()
        trained: dict[int, list[str]] = {}
        measured: dict[int, list[str]] = {}
        for site in self._sites:
            for item in self._requests[site]["folds"]:
                if item.get("train", True) and run.comes_again("train"):
                    trained.setdefault(item["fold"], []).append(site)
                if len(run.sessions[site].parts[item["fold"]]["validation"]):
                    measured.setdefault(item["fold"], []).append(site)
        for part, sites_of in (("train", trained), ("validation", measured)):
            for fold, sites in sites_of.items():
                run.joined_rows(sites, part, fold)

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
                asked = item["fold"], id(item["parameters"]), item.get("epochs"), item.get("baseline"), told
                models.setdefault(asked, {})[site] = place
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
        # Of a large model the tensors are read from a file, here once for all that is done with them.
        received = dict(read_sent(first, self._run.shared)) if sent else self._run.start()
        answer = JointItem(fold, places)
        start = time.perf_counter()
        for part in PARTS:
            measured = [site for site, item in items.items() if part in item.get("evaluate", ())]
            if measured:
                answer.metrics[part] = self._measure(received, measured, part, fold)
        if first.get("baseline"):
            answer.baseline = self._baseline(received, list(items), fold)
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

    def _measure(self, received: Mapping[str, Tensor], sites: Sequence[str], part: str, fold: int) -> JointStates:
        """Return how good the model as received is at each site."""
        from v6_algorithm.learning.metrics import ClassificationMetrics
        from v6_algorithm.learning.metrics.by_site import SiteStates
        from v6_algorithm.learning.metrics.many_sites import states_of_sites

        run = self._run
        inputs, target, lengths = run.joined_rows(sites, part, fold)
        answer = self._states(sites)
        outputs = self._outputs(received, inputs, target, lengths, fold, answer.hospitals)
        prediction, loss = (values.numpy() for values in outputs)
        accumulator = run.problem.accumulator()
        rows = prediction, target.cpu().numpy(), loss, lengths
        if type(accumulator) is ClassificationMetrics:
            answer.table = SiteStates.of(accumulator, *rows)
        else:
            answer.states = states_of_sites(run.problem.accumulator, *rows)
        return answer

    def _baseline(self, received: Mapping[str, Tensor], sites: Sequence[str], fold: int) -> JointStates:
        """Return the sums of a baseline hazard over the training rows of each site."""
        run, answer = self._run, self._states(sites)
        inputs, target, lengths = run.joined_rows(sites, "train", fold)
        outputs = self._outputs(received, inputs, target, lengths, fold, answer.hospitals)
        of_sites = zip(*(values.split(list(lengths)) for values in (outputs[0], target.cpu(), outputs[1])), strict=True)
        answer.states = []
        for site, rows in zip(sites, of_sites, strict=True):
            sums = run.problem.baseline(run.sessions[site].work.policy.minimum_part_rows)
            sums.update(*(values.numpy() for values in rows))
            answer.states.append(sums.state())
        return answer

    def _states(self, sites: Sequence[str]) -> JointStates:
        """Return the empty states of some sites, of one hospital each."""
        return JointStates(list(sites), [self._run.sessions[site].table.members[0] for site in sites])

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
        inputs, target, lengths = run.joined_rows(sites, "train", fold)
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
        compressed = self._compressed(received, trained, asked, sites, leaves, fold) if "compress" in asked else None
        begun = wire.Held({name: received[name] for name in run.shared}, run.shared) if asked.get("start") else None
        return JointTraining(
            sites, lengths, trained.steps, trained.losses, trained.seen, trained.stacks, leaves, run.shared, begun,
            start_losses, compressed,
        )  # fmt: skip

    def _compressed(
        self,
        received: Mapping[str, Tensor],
        trained: StackedTraining,
        asked: Mapping[str, Any],
        sites: Sequence[str],
        leaves: Sequence[str],
        fold: int,
    ) -> list[wire.Held]:
        """Return what each site sends of its training, compressed by itself; of one that diverged nothing."""
        check_run(asked["compress"])
        spec = {name: self._run.shared[name] for name in leaves}
        known = None if asked.get("gradient") else received
        sent = [wire.Held({}) for _ in sites]
        for stacks, numbers in trained.stacks:
            for layer, number in enumerate(numbers):
                site = sites[number]
                if site in self._errors:
                    continue
                tensors = {name: stacks[name][layer] for name in leaves}
                context = self._run.sessions[site].work.context
                sent[number] = wire.Held(
                    compressed(
                        context, self._run.experiment, site, self._round, fold, asked["compress"], spec, tensors, known
                    )
                )
        return sent

    def _start_losses(
        self, received: Mapping[str, Tensor], inputs: Tensor, target: Tensor, lengths: Sequence[int], fold: int
    ) -> list[float]:
        """Return the mean loss of the model as received over each site's rows."""
        import torch

        _, loss = self._outputs(received, inputs, target, lengths, fold)
        means: list[float] = torch.stack([of_site.mean() for of_site in loss.split(list(lengths))]).tolist()
        return means

    def _outputs(
        self,
        received: Mapping[str, Tensor],
        inputs: Tensor,
        target: Tensor,
        lengths: Sequence[int],
        fold: int,
        hospitals: Sequence[str] = (),
    ) -> tuple[Tensor, Tensor]:
        """Return predictions and losses of the model as received, of each row, on the CPU.

        Where `hospitals` are strata each one's rows are predicted with its own baseline hazard.
        """
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
                if problem.stratified and hospitals:
                    of_hospitals = zip(torch.cat(outputs).split(list(lengths)), hospitals, strict=True)
                    predictions = [problem.prediction_at(rows, fold, name).cpu() for rows, name in of_hospitals]
        return torch.cat(predictions), torch.cat(losses)
