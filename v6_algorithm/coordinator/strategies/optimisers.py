"""FedAvg with another step of the server: momentum, the adaptive ones, and one gradient a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import State
from v6_algorithm.coordinator.strategies.pipeline import FedAvg
from v6_algorithm.coordinator.strategies.reply import Message, Reply
from v6_algorithm.coordinator.strategies.server import AdaptiveServer, ServerStep, TorchServer


class FedAvgM(FedAvg):
    """FedAvg with momentum at the server: v ← βv + Δ, x ← x + ηv, with the mean update Δ.

    References
    ----------
    Hsu et al., Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019.
    """

    joins = True

    def make_server(self) -> ServerStep:
        """Return SGD with momentum."""
        return TorchServer("sgd", {"lr": self.section.lr, "momentum": self.section.momentum})


class Adaptive(FedAvg):
    """FedAdam, FedYogi and FedAdagrad; see `server.AdaptiveServer`."""

    joins = True

    def make_server(self) -> ServerStep:
        """Return the paper's optimiser."""
        section = self.section
        return AdaptiveServer(section.kind, section.lr, section.beta1, section.beta2, section.tau)


class FedSGD(FedAvg):
    """One gradient a round from each site, and `training.optimizer` steps at the server with their mean (dSGD).

    With full batches and weights by rows a round is one step on the pooled rows, whatever the optimiser: no drift,
    and as many rounds as steps. coinstac-dinunet's dSGD is that with `weighting: uniform`.

    References
    ----------
    McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017 (FedSGD).
    """

    joins = True

    def make_server(self) -> ServerStep:
        """Return the optimiser of the training, whose scheduler steps once a round as it does at sites."""
        training = self.experiment.training
        scheduler = (training.scheduler.kind, training.scheduler.options()) if training.scheduler else None
        return TorchServer(training.optimizer.kind, training.optimizer.options(), scheduler)

    def message(self, site: str) -> Message:
        """Ask for the gradient."""
        return {"gradient": True}

    def transform(self, reply: Reply) -> State:
        """Turn gradients into the model one step of size 1 away, from where the stages are those of any update."""
        return super().transform(replace(reply, state=reply.state | self._moved(reply.state)))

    def add_stack(self, stacks: Mapping[str, Tensor], replies: Sequence[Reply]) -> None:
        """Take in several sites' gradients as the models one step away."""
        super().add_stack({**stacks, **self._moved(stacks)}, replies)

    def _moved(self, gradients: Mapping[str, Tensor]) -> State:
        known = self.known
        return {name: known[name].double() - gradients[name] for name in self.parameters}

    def arrived(self, update: State) -> State:
        """Return the gradients, which are what was compressed."""
        return update
