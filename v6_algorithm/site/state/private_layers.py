"""A site's own layers from round to round, in its state folder, or in the memory of a process that lasts.

A version is kept for each round that trained here, as long as `master` may need it: that of the newest model, and of
the best one. A request names the version that goes with the model it sends. One that is gone, for the folder was
cleaned or could not be written, is replaced by the initial weights, and the reply says so; nothing else is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from v6_algorithm.data.cache import cache_key
from v6_algorithm.errors import ExperimentError, SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.site.state.memory import RoundMemory
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from torch import Tensor, nn


def shared_and_own(work: Work, networks: Mapping[str, nn.Module]) -> tuple[wire.StateSpec, PrivateLayers | None]:
    """Describe the tensors that travel, and return the place of those that stay; None where all of them travel.

    Raises
    ------
    ExperimentError
        When `strategy.private` and `training.freeze` leave nothing to be trained, together or alone.
    """
    from v6_algorithm.learning.training.patterns import frozen_names, private_names
    from v6_algorithm.learning.training.state import spec_of

    freeze = work.experiment.training.freeze
    private, frozen = private_names(networks, work.experiment.private), frozen_names(networks, freeze)
    _check_something_moves(work, networks, private, frozen)
    spec = spec_of(networks)
    if freeze is not None:
        mark = {"kind": "frozen"} if freeze.rounds is None else {"thaws": freeze.rounds}
        spec = {name: replace(item, **mark) if name in frozen else item for name, item in spec.items()}
    if not private:
        return spec, None
    shared = {name: item for name, item in spec.items() if name not in private}
    return shared, PrivateLayers(work, {name: spec[name] for name in spec if name in private})


def _check_something_moves(
    work: Work, networks: Mapping[str, nn.Module], private: frozenset[str], frozen: frozenset[str]
) -> None:
    from v6_algorithm.learning.training.patterns import parameters_beside

    section, freeze = work.experiment.private, work.experiment.training.freeze
    if section is None or freeze is None:
        return
    moving = set(parameters_beside(networks, frozen))
    if not moving - private and (freeze.rounds is None or section.epochs):
        raise ExperimentError("training.freeze: names all parameters that strategy.private leaves to be shared")
    if not moving & private and section.epochs:
        raise ExperimentError("training.freeze: names all of strategy.private, whose epochs would train nothing")


class PrivateLayers:
    """The private tensors of one run at one site.

    Parameters
    ----------
    work
        The request; its experiment and site say whose tensors they are.
    spec
        The private tensors of the model.

    Raises
    ------
    SiteError
        Of kind ``request`` when there is no place that lasts from round to round.
    """

    def __init__(self, work: Work, spec: wire.StateSpec) -> None:
        if work.context.state is None and not work.context.lasting:
            raise SiteError(
                "strategy.private: this site has no place for layers of its own between rounds; it needs a "
                "TEMPORARY_FOLDER, as vantage6's nodes have, or --engine local",
                "request",
            )
        self._spec = spec
        self.names = frozenset(spec)
        self._work = work
        self._key = cache_key("private", work.experiment.model_dump(mode="json"), work.site)

    def load(self, fold: int, round: int) -> dict[str, Tensor] | None:
        """Return the tensors as a round left them; None where there was none (round 0), or they are gone."""
        if not round:
            return None
        try:
            kept, _ = wire.fit(self._memory(fold).at(round), self._spec, partial=False)
        except WireError:
            return None
        # The networks would train what is kept in this process.
        return {name: tensor.clone() for name, tensor in kept.items()}

    def keep(self, fold: int, round: int, state: Mapping[str, Tensor], others: Collection[int]) -> None:
        """Keep the private tensors of a state as those of a round, and of other rounds only those named."""
        self._memory(fold).keep(round, {name: state[name].detach().cpu() for name in self._spec}, others)

    def _memory(self, fold: int) -> RoundMemory:
        return RoundMemory(self._work.context, f"private-{self._key}-{fold}")
