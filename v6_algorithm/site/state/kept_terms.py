"""What a site keeps from round to round under secure aggregation: its control variate, linear term or last model.

In the clear SCAFFOLD, FedDyn and MOON keep a term of each site at the coordinator (`coordinator.strategies.
heterogeneity`), which makes it of the site's update. Nobody has that update under masks, so the site makes and keeps
its term itself, by the same formulas. The coordinator says which round's term counts, for it alone knows whose numbers
were in an opened sum; a term that is gone is refused by name, for the others' sum still has it. Called by `learning`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from v6_algorithm.data.cache import cache_key
from v6_algorithm.errors import SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment.optimisers import local_reach
from v6_algorithm.experiment.privacy.secure_aggregation import KEEPS_TERMS
from v6_algorithm.experiment.strategy.kinds import FedDyn, Moon, Scaffold
from v6_algorithm.site.state.memory import RoundMemory
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor

    from v6_algorithm.learning.training.objectives import LocalObjective


class KeptTerm:
    """One site's term in one fold and round.

    Parameters
    ----------
    work
        The request.
    fold
        Its number.
    message
        What the request tells the fold's training; `kept` has the round whose term counts, by site.
    spec
        The tensors that are shared.
    received
        The state before training, of which copies are kept.
    share
        The site's share of the weight of all sites.

    Raises
    ------
    SiteError
        Of kind ``request`` when the term that counts is not here any more.
    """

    def __init__(
        self,
        work: Work,
        fold: int,
        message: Mapping[str, Any],
        spec: wire.StateSpec,
        received: Mapping[str, Tensor],
        share: float,
    ) -> None:
        self._work, self._spec = work, spec
        self._section = work.experiment.strategy
        self._parameters = {name: item for name, item in spec.items() if item.kind == "parameter"}
        self._received = {name: received[name].detach().cpu().double().clone() for name in self._parameters}
        key = cache_key("term", work.experiment.for_sites(), work.site)
        self._memory = RoundMemory(work.context, f"term-{key}-{fold}")
        self._round = self._counted(message)
        self._term = self._load()
        self._mean = wire.unpack(message["mean"], self._parameters) if "mean" in message else None
        self._correction: dict[str, Tensor] = {}
        sites = len(work.request.get("secure_aggregation", {}).get("participants", []))
        if not sites:
            raise WireError("the request names no participants for secure aggregation")
        self._alpha = float(self._section.alpha / (sites * share)) if isinstance(self._section, FedDyn) else 0.0

    @classmethod
    def of(cls, work: Work, *arguments: Any) -> KeptTerm | None:
        """Return the term; None where the strategy has none, or the coordinator keeps it."""
        hides = work.experiment.privacy.secure_aggregation is not None
        return cls(work, *arguments) if hides and work.experiment.strategy.kind in KEEPS_TERMS else None

    def objective(self) -> LocalObjective:
        """Return what the term asks of the site's training: the same as the coordinator would send in the clear."""
        from v6_algorithm.learning.training.objectives import Contrastive, Corrected, LocalObjective

        section = self._section
        if isinstance(section, Moon):
            if not self._term or not section.mu:
                return LocalObjective()
            return Contrastive(section.mu, section.tau, self._term)
        if isinstance(section, Scaffold) and self._mean is not None:
            mean, zeros = self._mean, self._zeros()
            self._correction = self._cast({n: mean[n].double() - self._term.get(n, zeros[n]) for n in mean})
        elif isinstance(section, FedDyn):
            self._correction = self._cast({name: -tensor for name, tensor in self._term.items()})
        if not self._alpha and not self._correction:
            return LocalObjective()
        return Corrected(self._alpha, self._correction, set(self._parameters))

    def keep(self, trained: Mapping[str, Tensor], steps: int, lr: float | None) -> dict[str, Tensor]:
        """Keep the term that follows from the trained state; return how a control variate has changed, else nothing.

        Only the terms of this round and of the one that counts are kept, for this round's sum may stay closed.
        """
        section, zeros = self._section, self._zeros()
        if isinstance(section, Moon):
            self._memory.keep(self._work.round, {n: trained[n].detach().cpu() for n in self._spec}, [self._round])
            return {}
        moved = {n: trained[n].detach().cpu().double() - before for n, before in self._received.items()}
        if isinstance(section, Scaffold):
            rate, reach = local_reach(self._work.experiment.training, self._work.round, lr, steps)
            scale = 1 / (rate * reach)
        else:
            scale = self._alpha
        term = {n: -self._correction.get(n, zeros[n]).double() - scale * delta for n, delta in moved.items()}
        self._memory.keep(self._work.round, term, [self._round])
        return {n: term[n] - self._term.get(n, zeros[n]) for n in term} if isinstance(section, Scaffold) else {}

    def _counted(self, message: Mapping[str, Any]) -> int:
        rounds = message.get("kept")
        number = rounds.get(self._work.site, 0) if isinstance(rounds, Mapping) else None
        if type(number) is not int or not 0 <= number < max(1, self._work.round):
            raise WireError("the request must name, for each site, the round whose term counts")
        return number

    def _load(self) -> dict[str, Tensor]:
        if not self._round:
            return {}
        kept = dict(self._memory.at(self._round))
        wanted = set(self._spec if isinstance(self._section, Moon) else self._parameters)
        if set(kept) != wanted:
            raise SiteError(
                f"strategy {self._section.kind}: this site no longer has its term of round {self._round}, which the "
                "others' sum holds; its folder was emptied, or the run goes on in another task",
                "request",
            )
        return kept

    def _zeros(self) -> dict[str, Tensor]:
        import torch

        return {name: torch.zeros(item.shape, dtype=torch.float64) for name, item in self._parameters.items()}

    def _cast(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Round to the model's precision, as what the coordinator would send."""
        import torch

        return {name: tensor.to(getattr(torch, self._parameters[name].dtype)) for name, tensor in tensors.items()}
