"""What strategies ask of each site's training (`objectives`), for many sites at once whose parameters are stacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from v6_algorithm.exchange import wire
from v6_algorithm.learning.training.objectives import Contrastive, Corrected, LocalObjective, contrastive_loss


class StackedCorrections:
    """What strategies add to the gradients: see `objectives.Corrected`."""

    def __init__(self, objectives: Sequence[LocalObjective], received: Mapping[str, Tensor]) -> None:
        corrected = [objective if isinstance(objective, Corrected) else None for objective in objectives]
        self._received = received
        self._mus = [0.0 if objective is None else objective.mu for objective in corrected]
        names = {name for objective in corrected if objective is not None for name in objective.correction}
        given = [{} if objective is None else objective.correction for objective in corrected]
        self._corrections = {name: _stacked(given, name, received[name]) for name in names}

    def add(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Change the gradients that are there."""
        if not any(self._mus) and not self._corrections:
            return
        with torch.no_grad():
            for name, parameter in parameters.items():
                if parameter.grad is None:
                    continue
                if any(self._mus):
                    mu = torch.tensor(self._mus, dtype=parameter.dtype, device=parameter.device)
                    parameter.grad.addcmul_(parameter - self._received[name], mu.view(-1, *[1] * (parameter.dim() - 1)))
                if name in self._corrections:
                    parameter.grad.add_(self._corrections[name])

    def cut(self, staying: int) -> None:
        """Keep those of the first sites."""
        self._mus = self._mus[:staying]
        self._corrections = {name: stack[:staying] for name, stack in self._corrections.items()}


class StackedContrast:
    """What MOON adds to the losses of those sites that have an own model: see `objectives.Contrastive`."""

    def __init__(self, objectives: Sequence[LocalObjective], received: Mapping[str, Tensor]) -> None:
        given = [objective if isinstance(objective, Contrastive) else None for objective in objectives]
        asked = [objective for objective in given if objective is not None]
        self.is_asked = bool(asked)
        if not asked:
            return
        # One strategy asks all sites; of those that have no model yet the features are 0, and so is the weight.
        self._tau = asked[0].tau
        self._mus = torch.tensor([0.0 if objective is None else objective.mu for objective in given])[:, None]
        self._received = {name: tensor.expand(len(given), *tensor.shape) for name, tensor in received.items()}
        models = [{} if objective is None else objective.own for objective in given]
        self._own = {name: _stacked(models, name, tensor) for name, tensor in received.items()}

    def models(self, sites: int) -> Iterator[dict[str, Tensor]]:
        """Return the models as received and the own ones, of the first sites."""
        for stacks in (self._received, self._own):
            yield {name: stack[:sites] for name, stack in stacks.items()}

    def losses(self, features: Tensor, received: Tensor, own: Tensor) -> Tensor:
        """Return μ times the loss of each row, (sites, rows), from features of three models, (sites, rows, width)."""
        flat = [values.flatten(0, 1) for values in (features, received, own)]
        losses = contrastive_loss(flat[0], flat[1], flat[2], self._tau).view(features.shape[:2])
        return losses * self._mus[: len(features)].to(losses)


def _stacked(given: Sequence[Mapping[str, Tensor]], name: str, like: Tensor) -> Tensor:
    """Return (sites, …) of a name from each site's tensors, zeros where it has none."""
    first = given[0]
    if isinstance(first, wire.Stacked) and all(
        isinstance(each, wire.Stacked) and each.stacks is first.stacks for each in given
    ):
        layers = [each.layer for each in given if isinstance(each, wire.Stacked)]
        return first.stacks[name][layers].to(like.device)
    return torch.stack([each[name].to(like.device) if name in each else torch.zeros_like(like) for each in given])
