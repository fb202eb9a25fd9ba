"""One fold in one round: who trains when, what each is asked, and what the replies come to.

`master` makes one for each active fold and round. Most strategies have one turn, in which all sites train the same
model; where the model goes from site to site there is a turn for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from v6_algorithm.coordinator.rounds.folds import FoldProgress, States
from v6_algorithm.errors import FederationError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.downlink import ROUNDED, pack_rounded, read_sent
from v6_algorithm.exchange.joint import JointItem

if TYPE_CHECKING:
    from v6_algorithm.coordinator.strategies.pipeline import FedAvg
    from v6_algorithm.coordinator.strategies.reply import Reply


class FoldRound:
    """A fold's part in a round.

    Parameters
    ----------
    fold
        The fold, whose newest model is trained.
    strategy
        Its strategy.
    number
        The round.
    sites
        Those that train in it.
    spec
        The model's tensors.
    ahead
        Whether it is asked for before the round before is over, on the model that is the newest then. When that one is
        over, `receive` has to come before the answers.

    Attributes
    ----------
    lr
        The learning rate of the round, by `training.scheduler`; None where there is none.
    sent_round
        The round that made the model which the sites are sent; 0: the one that training begins with.
    validates
        Whether the sites are asked how good that model is; whoever asks them sets it.
    gave
        How many sites gave a model.
    states
        Hospital to how good the model was that the round began with.
    """

    def __init__(
        self,
        fold: FoldProgress,
        strategy: FedAvg,
        number: int,
        sites: Sequence[str],
        spec: wire.StateSpec,
        *,
        ahead: bool = False,
    ) -> None:
        self.fold = fold
        self.strategy = strategy
        self.turns = strategy.turns(number, sites)
        self.lr = fold.rate(number)
        self.sent_round = fold.rounds_done
        self.validates = False
        self.gave = 0
        self._ahead = ahead
        # The model that the sites train, where another is the newest: an earlier one, or the newest before rounding.
        self._trained_from: dict[str, Any] | None = None
        # The model that is sent, where it is rounded.
        self._rounded: wire.Packed | None = None
        self._sent_text = fold.model
        self.states: States = {}
        self._number = number
        self._spec = spec
        # What the turn before made; None in the first, which trains the fold's own.
        self._model: wire.Model | None = None
        self._messages: dict[str, dict[str, Any]] = {}
        self._loss = [0.0, 0]
        self._gave_in_turn = 0

    def trainers(self, turn: int) -> list[str]:
        """Return the sites that train in a turn, counted from 0; none where the fold has no such turn."""
        return self.turns[turn] if turn < len(self.turns) else []

    def begin(self, turn: int) -> None:
        """Begin a turn: with the model that the one before made."""
        if turn:
            self._close()
        self._gave_in_turn = 0
        self._round_down()
        if self._ahead:
            self._messages = self.strategy.messages(self._number, self.trainers(turn), known=True)
            return
        self._messages = self.strategy.configure(self._number, self.trainers(turn), self._sent(), self.lr)

    def receive(self) -> None:
        """Begin to take in answers to what was asked ahead: their updates count from the model that is the newest now.

        As in Zhu et al., Delayed Gradient Averaging: Tolerate the Communication Latency for Federated Learning,
        NeurIPS 2021, with sites that hold no model of their own: x ← x + mean of (y - x_sent).
        """
        self.strategy.configure(self._number, self.trainers(0), self._sent(), self.lr)
        if self._trained_from is None and self.fold.rounds_done != self.sent_round and self._sent_text is not None:
            self._trained_from = wire.unpack(self._sent_text, self._spec)

    def state_dict(self) -> dict[str, Any]:
        """Return what was asked ahead of its time, without the requests."""
        return {
            "fold": self.fold.number,
            "sites": self.trainers(0),
            "lr": self.lr,
            "sent_round": self.sent_round,
            "sent": self._sent_text,
            "validates": self.validates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.lr, self.sent_round, self.validates = state["lr"], state["sent_round"], state["validates"]
        self._sent_text = state["sent"]
        self.begin(0)

    def item(self, site: str, evaluate: list[str]) -> dict[str, Any]:
        """Return this fold's part of a site's request."""
        item = self.fold.item(site, evaluate, train=site in self._messages, model=self._rounded or self._model)
        if self._rounded is not None:
            item[ROUNDED] = self.strategy.section.compress_down
        message = self._messages.get(site)
        return item | ({"strategy": message} if message else {})

    def take(self, item: dict[str, Any]) -> None:
        """Take in a site's checked answer to this fold's item."""
        if "validation" in item["metrics"]:
            self._measured(item["metrics"]["validation"])
        if "samples" in item:
            self.fold.samples[self.sent_round] = item["samples"]
        reply: Reply | None = item.pop("reply", None)
        if reply is None:
            return
        # A compressed update was added to the newest model when it was read, a gradient is one already.
        whole = not {"compress", "gradient"} & self._messages.get(reply.site, {}).keys()
        if self._trained_from is not None and whole:
            reply = self.strategy.rebased(reply, self._trained_from)
        self.strategy.add(reply)
        self.fold.trained(reply.site, self._number, reply.loss)
        self._loss[0] += item["loss"]["sum"]
        self._loss[1] += item["loss"]["rows"]
        self.gave += 1
        self._gave_in_turn += 1

    def _measured(self, states: States) -> None:
        """Take in how good the model is at some hospitals."""
        self.states = {**self.states, **states} if self.states else states

    @property
    def takes_joint(self) -> bool:
        """Whether the replies of all sites may be taken in as one."""
        return self.strategy.takes_joint and self._trained_from is None

    def take_joint(self, item: JointItem, states: States) -> None:
        """Take in all sites' checked answers to this fold's item at once, with their states."""
        training = item.training
        if training is not None:
            self.strategy.add_joint(training)
            losses = [loss / seen for loss, seen in zip(training.losses, training.seen, strict=True)]
            self.fold.trained_together(training.sites, self._number, losses)
            for loss in training.losses:
                # In the order of the sites, as `take` does.
                self._loss[0] += loss
            self._loss[1] += sum(training.seen)
            self.gave += len(training.sites)
            self._gave_in_turn += len(training.sites)
        if states:
            self._measured(states)

    def take_belated(self, reply: Reply, asked: dict[str, Any], age: int) -> None:
        """Take in a reply to the model of `age` rounds ago, which the request had; without it there is no update."""
        if asked["parameters"] is not None and not asked.get("partial"):
            self.strategy.add_belated(reply, read_sent(asked, self._spec), age)

    def finish(self, epsilon: float | None = None) -> None:
        """Give the fold the model that the round made, and the average over the rounds where it is to be kept.

        `epsilon` is what training has cost under differential privacy.
        """
        self._close()
        total, rows = self._loss
        model, packed = cast("wire.Model", self._model), None
        if self.strategy.average is not None:
            average = self.strategy.average.add(wire.unpack(model), self._number)
            packed = self.fold.pack(average) if average else None
        self.fold.advance(
            self._number,
            model,
            total / rows,
            packed,
            self.lr,
            epsilon,
            self.sent_round if self.strategy.experiment.pipelined else None,
        )

    def _sent(self) -> dict[str, Any] | None:
        """Return the model that is sent, where the strategy has to know it and anybody here does."""
        if not self.strategy.wants_sent:
            return None
        known = self._model or self.fold.model or self._whole_start
        return wire.unpack(known, self._spec) if known is not None else None

    @property
    def _whole_start(self) -> wire.Model | None:
        """The model that training begins with, where it is known here and whole."""
        return None if self.fold.starts_partly else self.fold.start

    def _round_down(self) -> None:
        """Round the model that is sent, where `strategy.compress_down` asks for it; a part of one is sent as it is."""
        kind, sent = self.strategy.section.compress_down, self._model or self._sent_text or self._whole_start
        if kind is None or sent is None:
            return
        try:
            self._rounded = pack_rounded(wire.unpack(sent, self._spec), self._spec, kind)
        except WireError as error:
            raise FederationError(f"round {self._number}: {error}") from None
        self._trained_from = dict(self._rounded.tensors or {})

    def _close(self) -> None:
        if not self._gave_in_turn:
            return
        try:
            following = self.strategy.aggregate()
        except ValueError as error:
            raise FederationError(f"round {self._number}: {error}") from None
        self._model = self.fold.pack(following, self._spec)
