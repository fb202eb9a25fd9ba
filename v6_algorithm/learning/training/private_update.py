"""Differential privacy with a site as the unit: the update of a whole round, clipped and noised before it leaves.

`site/learning.py` passes each trained model through here when the experiment has `unit: site`. How the site trained
does not matter, for only the noised update is sent; what noise it needs is booked before
(`site/guard/privacy_account.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from v6_algorithm.errors import SiteError
from v6_algorithm.learning.training.private_gradients import NoiseSource


@dataclass(frozen=True)
class UpdateNoise:
    """How a site's update is bounded and hidden.

    Attributes
    ----------
    clip
        Largest L2 norm of the update, over all parameters.
    sd
        Standard deviation of the noise on each parameter, in the parameter's unit.
    """

    clip: float
    sd: float

    def hide(
        self,
        received: Mapping[str, Tensor],
        outgoing: Mapping[str, Tensor],
        parameters: Collection[str],
        *,
        gradient: bool,
        source: NoiseSource | None = None,
    ) -> dict[str, Tensor]:
        """Return what may leave in place of a trained state.

        Parameters
        ----------
        received
            The state that training began with.
        outgoing
            What would be sent without noise: the trained state, or gradients.
        parameters
            Names of the tensors that training moves; all others must be as they were, or gradients of nought.
        gradient
            Whether `outgoing` holds gradients, which are updates already.
        source
            For tests only: where the noise comes from.

        Raises
        ------
        SiteError
            Of kind ``request`` where something else than parameters has changed, and ``diverged`` for an update that
            is not finite, which has no norm to be clipped.

        References
        ----------
        McMahan et al., Learning Differentially Private Recurrent Language Models, ICLR 2018, with the norm clipped over
        all parameters together.
        """
        source = source or NoiseSource()
        changed = [
            name
            for name, value in outgoing.items()
            if name not in parameters and not torch.equal(value, received[name]) and (value.any() or not gradient)
        ]
        if changed:
            raise SiteError(
                "privacy.differential_privacy: the network keeps numbers of the rows that it sees, to which no noise "
                "is added (buffers, such as BatchNorm's)",
                "request",
            )
        moved = {
            name: outgoing[name].double() - (0 if gradient else received[name].double())
            for name in outgoing
            if name in parameters
        }
        length = torch.stack([value.norm() for value in moved.values()]).norm() if moved else torch.zeros(())
        if not torch.isfinite(length):
            raise SiteError(
                "privacy.differential_privacy: the update is not finite, so it cannot be clipped", "diverged"
            )
        factor = min(1.0, self.clip / max(length.item(), 1e-300))
        hidden = dict(outgoing)
        for name, value in moved.items():
            noised = value * factor + source.normal(value, self.sd)
            hidden[name] = (noised if gradient else received[name].double() + noised).to(outgoing[name].dtype)
        return hidden
