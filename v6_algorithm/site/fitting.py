"""How many rows fit a site's device at once, remembered from round to round once a batch did not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from v6_algorithm.data.cache import cache_key
from v6_algorithm.site.state.memory import RoundMemory
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.fitting import Fitting


class FittingMemory:
    """Where it is remembered: in the state folder, or in the memory of a process that lasts. Losing it costs a try.

    Parameters
    ----------
    work
        The request; what is remembered is of its experiment alone.
    device
        And of this device.
    """

    def __init__(self, work: Work, device: Device) -> None:
        key = cache_key("fitting", work.experiment.model_dump(mode="json"), device.name)
        self._memory, self._round = RoundMemory(work.context, f"fitting-{key}"), work.round

    def load(self) -> Fitting:
        """Return what the rounds before have come to; a repeated round begins as it did."""
        from v6_algorithm.learning.training.fitting import Fitting

        kept = self._memory.before(self._round)
        return Fitting(int(kept["rows"]), int(kept["asked"])) if set(kept) == {"rows", "asked"} else Fitting()

    def keep(self, fitting: Fitting) -> None:
        """Remember it for later rounds, where there is something to remember."""
        import torch

        if fitting.rows is not None:
            progress = {"rows": fitting.rows, "asked": fitting.asked}
            self._memory.keep(self._round, {name: torch.tensor(value) for name, value in progress.items()})
