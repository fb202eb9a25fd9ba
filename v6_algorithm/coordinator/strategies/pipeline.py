"""The way from the sites' replies to the next model, which all strategies share: FedAvg, and where others differ.

For each fold and round `master` calls, in this order, `turns`, `configure`, then `read` and `add` for every reply as
it comes in, and `aggregate`. A reply goes through small stages: it is weighted (`weigh`), changed by itself
(`transform`, such as clipping), combined with the others (`make_combiner`), and what they come to becomes a step of
the server (`make_server`, `step`). A strategy overrides the stages in which it differs.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar
from typing import cast as cast_type

import torch
from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import Combiner, Gathered, State, WeightedMean, cast
from v6_algorithm.coordinator.strategies.reply import Message, Reply, read_counts
from v6_algorithm.coordinator.strategies.robust.rules import create_rule, needs_origin
from v6_algorithm.coordinator.strategies.server import ServerStep, TorchServer
from v6_algorithm.coordinator.strategies.trajectory import RoundAverage
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.compression import create_compressor
from v6_algorithm.exchange.downlink import ROUNDED
from v6_algorithm.exchange.joint import JointTraining
from v6_algorithm.experiment import Experiment, NoOptions, Section


class FedAvg:
    """Federated averaging: the mean of the sites' models, weighted by their training rows, steps or uniformly.

    With one full-batch step of plain gradient descent at each site, and weights by rows, a round is one step of
    gradient descent on the pooled rows (FedSGD). Many local steps save rounds; sites with different data then
    drift apart, and the mean of their models is no longer a step on the mean of their losses.

    Parameters
    ----------
    experiment
        The experiment.
    section
        Its strategy, or the one that is used instead.
    spec
        Kind, shape and dtype of every tensor.
    rows
        Site to training rows, of all sites that may take part.

    Attributes
    ----------
    sent
        The model that the sites train, while a round lasts; None where nobody needs it.
    lr
        The sites' learning rate in the round, where there is a scheduler.
    kept
        Tensors that last from round to round, in groups by name.
    run
        A name under which sites remember their compression: another run at the same sites is not this one.
    average
        The average over the rounds, where `output.model` asks for one; whoever runs the rounds adds to it.

    References
    ----------
    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017.
    """

    # Of a plug-in: its own keys beside `kind`, and the common keys that do not go with it, each with the reason.
    Options: ClassVar[type[Section]] = NoOptions
    refuses: ClassVar[Mapping[str, str]] = {}
    # Whether it has to know the model that was sent.
    needs_sent: ClassVar[bool] = False
    # Whether it has to know each site's loss before it trains.
    needs_start_loss: ClassVar[bool] = False
    # Whether replies may be taken in by `add_joint`; a class that is derived from one says so itself, or they are not.
    joins: ClassVar[bool] = True
    # Whether no further round would move the model; only strategies that can tell set it.
    converged: bool = False
    # What is known of the fit beside the model, as plain JSON; of strategies that solve for it.
    fitted: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, experiment: Experiment, section: Any, spec: wire.StateSpec, rows: Mapping[str, float]) -> None:
        self.experiment = experiment
        self.section = section
        self.spec = spec
        self.rows = {site: count for site, count in rows.items() if count}
        self.parameters = [name for name, item in spec.items() if item.kind == "parameter"]
        # The weights that shares are of and their sum, with the rows that they were made of.
        self._shares: tuple[Mapping[str, float], Mapping[str, float], float] | None = None
        self.round = 0
        self.lr: float | None = None
        self.sent: State | None = None
        # Whether the sites are asked for the model that they start from.
        self._asks_start = False
        self.kept: dict[str, State] = {}
        self._frozen = [name for name, item in spec.items() if item.kind == "frozen"]
        self._thaws = any(item.thaws for item in spec.values())
        # What was sent of the frozen tensors, and in which text that was.
        self._held: tuple[str | None, State] = None, {}
        self.run = secrets.token_hex(8)
        self.server = self.make_server()
        self.average = RoundAverage(experiment, spec) if experiment.output.averages else None
        self._begin()

    # -- what master calls -----------------------------------------------------------------------------------------

    @property
    def wants_sent(self) -> bool:
        """Whether `configure` is to be given the model that the sites train."""
        by_updates = bool(self.section.compress.stages or self.section.compress_down) or self.experiment.pipelined
        moments = self.section.batch_norm == "moments" and any(item.momentum is not None for item in self.spec.values())
        return self._steps_from_sent or by_updates or self._thaws or moments

    @property
    def _steps_from_sent(self) -> bool:
        stages = self.server is not None or self.section.clip is not None or needs_origin(self.section.combine)
        return self.needs_sent or stages or self.experiment.participation.late == "stale"

    def admit(self, rows: Mapping[str, float]) -> None:
        """Take in who may take part from now on: site to training rows, those of before among them."""
        self.rows = {site: count for site, count in rows.items() if count}

    def turns(self, number: int, sites: Sequence[str]) -> list[list[str]]:
        """Cut the sites that train in a round into turns: those of one turn train the same model at once."""
        return [list(sites)]

    def configure(
        self, number: int, sites: Sequence[str], sent: State | None, lr: float | None = None
    ) -> dict[str, Message]:
        """Begin a round, or a turn of it, and return what each site's request tells its training.

        Parameters
        ----------
        number
            The round.
        sites
            Those that train.
        sent
            The model that they train; None where only they have it, because they draw it from the seed.
        lr
            Their learning rate in this round; None where it is the optimiser's throughout.
        """
        self.round, self.sent, self.lr = number, sent, lr
        self._asks_start = self._steps_from_sent and sent is None
        self._begin()
        return self.messages(number, sites, known=sent is not None)

    def messages(self, number: int, sites: Sequence[str], *, known: bool) -> dict[str, Message]:
        """Return what each site's request tells its training in a round; `known` is whether the model that is sent is.

        By itself it asks for a round ahead of its time: `configure` comes when the answers do.
        """
        common: Message = {"start": True} if self._steps_from_sent and not known else {}
        # A model that only the sites know is sent whole: nobody here could add an update to it.
        if self.section.compress.stages and number >= self.section.compress.start and known:
            common["compress"] = self.run
        return {site: self.message(site) | common for site in sites}

    def read(self, site: str, item: dict[str, Any], asked: Mapping[str, Any]) -> Reply:
        """Check a site's item of a reply against what was asked; raises WireError, and changes nothing here.

        The item is left without its parameters: their text is larger than the tensors that are read from it.
        """
        rows, steps, loss = read_counts(item)
        state = self._read_state(item, asked)
        reply = Reply(site, state, rows, steps, loss)
        return self._with_extras(reply, item.get("strategy", {}), asked)

    def add(self, reply: Reply) -> None:
        """Take in a reply; one of a site without training rows changes nothing."""
        if not reply.rows:
            return
        if self.sent is None:
            self.sent = reply.start
        weight = self.weigh(reply)
        extras = (reply.start_loss, reply.sums, reply.term, reply.share)
        self.seen.append(Reply(reply.site, {}, reply.rows, reply.steps, reply.loss, None, *extras))
        self._combiner.add(self.transform(reply), weight)

    @property
    def takes_joint(self) -> bool:
        """Whether replies may be read and added as one, by `add_joint`: of whole models."""
        return bool(vars(type(self)).get("joins")) and not self.section.compress.stages and not self._frozen

    def check_joint(self, training: JointTraining) -> None:
        """Check the replies of several sites as `read` does; raises WireError."""
        training.check()
        for stacks, numbers in training.stacks:
            wire.check_stacks(stacks, len(numbers), self.spec, training.names, training.checked)
        asked = self._asks_start, self.needs_start_loss
        if (training.start is not None, training.start_losses is not None) != asked:
            raise WireError("they tell other things for the strategy than they were asked for")
        if training.start is not None:
            self._check_start(wire.unpack(training.start, self.spec))

    def add_joint(self, training: JointTraining) -> None:
        """Take in the replies of several sites, which `check_joint` has looked at."""
        if self.sent is None and training.start is not None:
            self.sent = wire.unpack(training.start, self.spec)
        replies = [
            Reply(
                site, {}, training.rows[number], training.steps[number],
                training.losses[number] / training.seen[number],
                start_loss=training.start_losses[number] if training.start_losses is not None else None,
            )
            for number, site in enumerate(training.sites)
        ]  # fmt: skip
        if not self._combiner.takes_stacks:
            for reply, state in zip(replies, training.states(list(self.spec)), strict=True):
                self.add(replace(reply, state=cast_type("State", state)))
            return
        self.seen += replies
        for stacks, numbers in training.stacks:
            self.add_stack(stacks, [replies[number] for number in numbers])

    def add_stack(self, stacks: Mapping[str, Tensor], replies: Sequence[Reply]) -> None:
        """Take in several sites' models, tensors by name, (sites, …), with the rest of their replies."""
        weights, scales = [self.weigh(reply) for reply in replies], None
        if self.scales:
            lengths = self._lengths(stacks)
            scales = [self.scale(reply, length) for reply, length in zip(replies, lengths, strict=True)]
        cast_type(WeightedMean, self._combiner).add_stack(stacks, list(self.spec), weights, scales, self.sent)

    def add_belated(self, reply: Reply, sent: State, age: int) -> None:
        """Take in a reply to a model sent `age` rounds ago: its update counts from the present model, and less.

        Of its weight 1 / √(1 + age) is left, as in Nguyen et al., Federated Learning with Buffered Asynchronous
        Aggregation, AISTATS 2022, after Xie et al., Asynchronous Federated Optimization, 2019.
        """
        if not reply.rows or self.sent is None:
            return
        fresh = self.rebased(reply, sent)
        self._combiner.add(self.transform(fresh), self.weigh(fresh) / math.sqrt(1 + age))

    def rebased(self, reply: Reply, sent: State) -> Reply:
        """Return a reply to another model, earlier or rounded, as one to the present one, moved by the same update."""
        known = self.known
        moved = {n: known[n].double() + reply.state[n].double() - sent[n].double() for n in self.parameters}
        return replace(reply, state=reply.state | moved)

    def aggregate(self) -> State:
        """Return the next model; raises ValueError when there is none, or when it is not finite."""
        following = cast(self.step(self._combiner.combined()), self.spec)
        if self.wants_sent and not all(wire.all_finite(following[name]) for name in self.parameters):
            raise ValueError("the server's step leads to a model that is not finite; lower its learning rate")
        if self._thaws and self.sent is not None:
            # A server's optimiser may decay what no site has moved.
            following |= {name: self.sent[name] for name, item in self.spec.items() if self.round <= item.thaws}
        return following

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that lasts from round to round, by name."""
        server = self.server.state_dict() if self.server else {}
        average = self.average.state_dict() if self.average else {}
        groups = {"server": server, "average": average, **self.kept}
        return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        groups: dict[str, State] = {}
        for path, tensor in state.items():
            group, _, name = path.rpartition("/")
            groups.setdefault(group, {})[name] = tensor.clone()
        server, average = groups.pop("server", {}), groups.pop("average", {})
        if self.server:
            self.server.load_state_dict(server)
        if self.average:
            self.average.load_state_dict(average)
        self.kept = groups

    # -- where strategies differ -----------------------------------------------------------------------------------

    def message(self, site: str) -> Message:
        """Return what a site's training has to know in this round, and what it is asked to tell beside its model."""
        return {"start_loss": True} if self.needs_start_loss else {}

    def weigh(self, reply: Reply) -> float:
        """Return the weight of a reply, >= 0."""
        # Of rows no more than the plan says, where a site's share is limited.
        counted = min(reply.rows, self.rows.get(reply.site, reply.rows))
        return float({"samples": counted, "uniform": 1, "steps": reply.steps}[self.section.weighting])

    @property
    def scales(self) -> bool:
        """Whether `scale` is to be asked of each reply."""
        return self.section.clip is not None

    def scale(self, reply: Reply, length: float) -> float:
        """Return by what a reply's update is multiplied, whose L2 norm is `length`; here so that `clip` is no less."""
        clip = self.section.clip
        return 1.0 if clip is None else float(clip / max(length, clip))

    def transform(self, reply: Reply) -> State:
        """Return what a reply adds: its model, with an update that is multiplied by `scale`."""
        return self.moved(reply.state, lambda length: self.scale(reply, length)) if self.scales else reply.state

    def make_combiner(self) -> Combiner:
        """Return an empty combiner for a round."""
        section = self.section.combine
        if section.kind == "mean":
            return self.make_mean()
        rule = create_rule(section, self.kept)
        return Gathered(self.spec, rule, (lambda: self.known) if needs_origin(section) else None)

    def make_mean(self) -> WeightedMean:
        """Return an empty mean, with BatchNorm's statistics as `strategy.batch_norm` says."""
        # A model that only the sites know is a new one, but where they have read weights.
        unknown: State | None = {} if self.experiment.start.weights is None else None
        start = unknown if self.sent is None else self.sent
        return WeightedMean(self.spec, moments=self.section.batch_norm == "moments", start=start)

    def make_server(self) -> ServerStep | None:
        """Return the server's step; None where the combined model is the next one."""
        section = self.section.server
        return TorchServer(section.kind, section.options()) if section else None

    def step(self, combined: State) -> State:
        """Return the model that follows; buffers and counters are those combined, no optimiser touches them.

        Momentum over BatchNorm's variances would make them negative (peers.md, trap 4).
        """
        if self.server is None:
            return combined
        try:
            return combined | self.server.step(
                self.of_parameters(self.known), self.of_parameters(combined), self.round, self.lr
            )
        except (ArithmeticError, RuntimeError) as error:
            raise ValueError(
                f"the server's step cannot be taken with these options ({type(error).__name__}: {error}); lower its "
                "learning rate"
            ) from None

    def arrived(self, update: State) -> State:
        """Return the parameters that a reply with a compressed update stands for; here what was sent, moved by it."""
        return cast({name: self.known[name].double() + delta for name, delta in update.items()}, self.spec)

    def read_sums(self, packed: Any) -> dict[str, Any]:
        """Check the sums that a site's rows come to, where they were asked for; raises WireError."""
        raise WireError("it tells sums that nobody asked for")

    # -- for those who override them -------------------------------------------------------------------------------

    @property
    def known(self) -> State:
        """The model that was sent; raises ValueError where no reply has told it."""
        if self.sent is None:
            raise ValueError("no site with a training row gave a model")
        return self.sent

    def of_parameters(self, state: Mapping[str, Tensor]) -> State:
        """Return the parameters of a state, in float64."""
        return {name: state[name].double() for name in self.parameters}

    def update(self, state: Mapping[str, Tensor]) -> State:
        """Return how far the parameters of a state are from those that were sent, in float64."""
        known = self.known
        return {name: state[name].double() - known[name].double() for name in self.parameters}

    def moved(self, state: State, scale: Callable[[float], float]) -> State:
        """Return a state with its update scaled: `scale` gives the factor for an update of some L2 norm."""
        update = self.update(state)
        factor = scale(norm(update))
        if factor == 1:
            return state
        known = self.known
        return state | {name: known[name].double() + factor * delta for name, delta in update.items()}

    def _lengths(self, stacks: Mapping[str, Tensor]) -> list[float]:
        """Return the L2 norm of each site's update; `stacks` are tensors by name, (sites, …)."""
        known = self.known
        squares = [(stacks[n].double() - known[n].double()).flatten(1).square().sum(1) for n in self.parameters]
        lengths: list[float] = torch.stack(squares).sum(0).sqrt().tolist()
        return lengths

    def share(self, site: str) -> float:
        """Return a site's share of the weight of all sites, those included that do not take part in this round."""
        if self._shares is None or self._shares[0] is not self.rows:
            equal = self.section.weighting != "samples"
            known: Mapping[str, float] = dict.fromkeys(self.rows, 1) if equal else self.rows
            self._shares = self.rows, known, sum(known.values())
        _, weights, total = self._shares
        return weights[site] / total

    def _begin(self) -> None:
        # What the replies of this round said, but for their tensors.
        self.seen: list[Reply] = []
        self._combiner = self.make_combiner()

    def _read_state(self, item: dict[str, Any], asked: Mapping[str, Any]) -> State:
        held = self._sent_frozen(asked)
        spec = {name: item for name, item in self.spec.items() if name not in held} if held else self.spec
        if "compress" not in asked.get("strategy", {}):
            given = wire.unpack(item.pop("parameters"), spec)
            if not held:
                return given
            given = given | held
            return {name: given[name] for name in self.spec}
        # Entries of a compressed tensor have longer names, never more numbers than the tensor.
        most = wire.spec_bytes(self.spec) + 4096 * (len(self.spec) + 8)
        content = wire.unpack(item.pop("parameters"), max_bytes=most)
        others = {name: item for name, item in spec.items() if item.kind != "parameter"}
        whole = {name: content.pop(name) for name in others if name in content}
        wire.check(whole, others)
        state = held | whole | self.arrived(create_compressor(self.section.compress, self.spec).decode(content))
        wire.check(state, self.spec)
        return {name: state[name] for name in self.spec}

    def _sent_frozen(self, asked: Mapping[str, Any]) -> State:
        """Return the tensors that stay frozen as a request had them; a site that was sent them leaves them out."""
        text = asked.get("parameters")
        if not self._frozen or text is None or asked.get("partial"):
            return {}
        if ROUNDED in asked:
            # They are what they were before they were rounded.
            return {name: self.known[name] for name in self._frozen}
        if self._held[0] != text:
            sent = wire.unpack(text, self.spec)
            self._held = text, {name: sent[name] for name in self._frozen}
        return self._held[1]

    def _check_start(self, start: Mapping[str, Tensor]) -> None:
        if self.sent is not None and not all(start[name].equal(self.sent[name]) for name in self.spec):
            raise WireError("it started from another model than the other sites")

    def _with_extras(self, reply: Reply, given: Any, asked: Mapping[str, Any]) -> Reply:
        question = asked.get("strategy", {})
        wanted = {key for key in ("start", "start_loss", "sums", "term") if question.get(key)}
        wanted |= {"share"} if question.get("keeps") else set()
        if not isinstance(given, dict) or set(given) != wanted:
            raise WireError("it tells other things for the strategy than it was asked for")
        if "start" in given:
            start = wire.unpack(given["start"], self.spec)
            self._check_start(start)
            reply = replace(reply, start=start)
        if "start_loss" in given:
            loss = given["start_loss"]
            if isinstance(loss, bool) or not isinstance(loss, (int, float)) or not math.isfinite(loss):
                raise WireError("its loss before training is not a finite number")
            reply = replace(reply, start_loss=float(loss))
        if "sums" in given:
            reply = replace(reply, sums=self.read_sums(given["sums"]))
        if "term" in given:
            spec = {name: replace(self.spec[name], dtype="float64") for name in self.parameters}
            reply = replace(reply, term=wire.unpack(given["term"], spec))
        if "share" in given:
            reply = replace(reply, share=float(given["share"]))
        return reply


def norm(state: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of all of a state's numbers together."""
    return math.sqrt(sum(float((tensor * tensor).sum()) for tensor in state.values()))
