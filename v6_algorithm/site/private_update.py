"""A site's part of differential privacy with the site as the unit: how much noise it adds to its update.

Alone each site adds all of the noise. Under secure aggregation nobody sees its update but in a sum, so that each adds a
part: of `honest_sites` of those in the sum the parts together are what was booked. `learning` and the guard ask here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from v6_algorithm.errors import SiteError, WireError
from v6_algorithm.site.guard.privacy_account import honest_sites, participants_in

if TYPE_CHECKING:
    from v6_algorithm.learning.training.private_update import UpdateNoise
    from v6_algorithm.site.guard.privacy_account import Booked
    from v6_algorithm.site.work import Work

# `NoiseSource` draws of 53 bits, which give no normal number beyond sqrt(-2 log 2^-53) = 8.57.
_LARGEST_NORMAL = 8.6
# What rounding to the fixed-point step may be beside the noise: as L2 norms, over all parameters against one.
_ROUNDING = 0.01


def update_noise(work: Work, booked: Booked | None) -> UpdateNoise | None:
    """Return the noise of a booked round's updates; None where the experiment hides no sites."""
    from v6_algorithm.learning.training.private_update import UpdateNoise

    section = work.experiment.privacy.differential_privacy
    if section is None or section.unit != "site":
        return None
    if booked is None:
        raise WireError("this training was not booked for differential privacy")
    share = math.sqrt(honest_sites(work.experiment, work.request))
    return UpdateNoise(section.clip, booked.noise_multiplier * section.clip / share)


def check_shared_noise(work: Work, noise_multiplier: float | None, parameters: int) -> None:
    """See before anything is trained that the masked integers have room for the noise, and are fine enough for it.

    A number that were cut, or rounded coarsely, would hide less than is counted.

    Parameters
    ----------
    work
        The request, of step statistics.
    noise_multiplier
        Of the run; None: no differential privacy.
    parameters
        Numbers in an update.

    Raises
    ------
    SiteError
        Of kind ``request``, naming the key and what would do.
    """
    from v6_algorithm.exchange.secure_aggregation.fixed_point import words_for

    section, sums = work.experiment.privacy.differential_privacy, work.experiment.privacy.secure_aggregation
    if section is None or section.unit != "site" or sums is None or noise_multiplier is None:
        return
    sites = participants_in(work.request)
    sd = noise_multiplier * section.clip / math.sqrt(honest_sites(work.experiment, work.request))
    largest = (section.clip + _LARGEST_NORMAL * sd) / sites
    if largest > sums.clip:
        raise SiteError(
            f"privacy.secure_aggregation.clip: {sums.clip:g} would cut the noise of differential privacy, of which a "
            f"site's share of the mean may be up to {largest:.3g}; allowed here: from {_rounded_up(largest):g}",
            "request",
        )
    bits, _ = words_for(sums.bits, sites)
    step = sums.clip / (2 ** (bits - 1) - 1)
    if step * math.sqrt(parameters) > _ROUNDING * sd / sites:
        raise SiteError(
            f"privacy.secure_aggregation.bits: {bits} bits up to clip {sums.clip:g} are too coarse for the noise of "
            f"differential privacy, {sd / sites:.3g} a number; take more bits or a smaller clip",
            "request",
        )


def check_weights(work: Work) -> None:
    """Refuse a request under which a site's share of the sum is another than 1 / sites."""
    section, sums = work.experiment.privacy.differential_privacy, work.experiment.privacy.secure_aggregation
    if section is None or section.unit != "site" or sums is None:
        return
    weights, sites = work.request.get("weights"), participants_in(work.request)
    if not isinstance(weights, Mapping) or any(whole != sites for whole in weights.values()):
        raise WireError("under differential privacy of sites the weights of all must be their number")


def check_adds_noise(work: Work, fold: int) -> None:
    """Refuse to be one of a sum without adding to its noise, as a site without training rows would."""
    section = work.experiment.privacy.differential_privacy
    if section is not None and section.unit == "site":
        raise SiteError(
            f"privacy.differential_privacy: fold {fold} has no training rows here, so this site would be in the sum "
            "and add no noise to it",
            "request",
        )


def _rounded_up(value: float) -> float:
    """Return a number not below, of two digits."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / scale) * scale
