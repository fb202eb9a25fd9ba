"""How much noise a site adds to its update, and whether the masked integers have room for it."""

from __future__ import annotations

from math import sqrt
from types import SimpleNamespace

import pytest

from v6_algorithm.errors import SiteError, WireError
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import private_update
from v6_algorithm.site.private_update import check_adds_noise, check_shared_noise, check_weights, update_noise


def work_of(sites=4, unit="site", *, masked=True, clip=50.0, bits=None, threshold=3, **request):
    privacy = {"differential_privacy": {"unit": unit, "epsilon": 3.0, "delta": 1e-5, "clip": 2.0}} if unit else {}
    if masked:
        privacy["secure_aggregation"] = {"threshold": threshold, "clip": clip} | ({"bits": bits} if bits else {})
    content = {"data": {"target": "y"}, "model": "logistic", "rounds": 2, "privacy": privacy}
    if unit == "site":
        content["strategy"] = {"kind": "fedavg", "weighting": "uniform"}
    return SimpleNamespace(
        experiment=Experiment.parse(content),
        request={"secure_aggregation": {"participants": ["s"] * sites}, **request},
    )


def test_alone_a_site_adds_all_noise_and_in_a_sum_its_honest_part():
    booked = SimpleNamespace(noise_multiplier=1.5)
    assert update_noise(work_of(unit="sample", masked=False), booked) is None
    assert update_noise(work_of(unit=None), booked) is None
    with pytest.raises(WireError, match="was not booked"):
        update_noise(work_of(), None)
    alone, part = update_noise(work_of(masked=False), booked), update_noise(work_of(), booked)
    section = work_of().experiment.privacy
    honest = section.differential_privacy.honest_of(section.secure_aggregation.sites_needed(4))
    assert honest > 1
    numbers = [sorted(value for value in vars(noise).values() if isinstance(value, float)) for noise in (alone, part)]
    assert numbers[0] == [2.0, 3.0]
    assert numbers[1] == pytest.approx(sorted([2.0, 3.0 / sqrt(honest)]))


def test_masked_integers_have_room_for_the_noise_and_steps_fine_enough():
    section = work_of().experiment.privacy
    honest = section.differential_privacy.honest_of(section.secure_aggregation.sites_needed(4))
    sd = 1.5 * 2.0 / sqrt(honest)
    largest = (2.0 + 8.6 * sd) / 4
    check_shared_noise(work_of(clip=largest * (1 + 1e-9), bits=30), 1.5, 10)
    with pytest.raises(SiteError, match=r"secure_aggregation\.clip: .* would cut the noise"):
        check_shared_noise(work_of(clip=largest * (1 - 1e-9), bits=30), 1.5, 10)
    # Rounded over all parameters, a hundredth of the noise of one.
    step = 50.0 / (2**15 - 1)
    most = (private_update._ROUNDING * sd / 4 / step) ** 2
    check_shared_noise(work_of(bits=16), 1.5, int(most))
    with pytest.raises(SiteError, match=r"secure_aggregation\.bits: 16 bits up to clip 50 are too coarse"):
        check_shared_noise(work_of(bits=16), 1.5, int(most) + 1)
    for other in (work_of(unit="sample", clip=1e-3), work_of(unit=None, clip=1e-3), work_of(masked=False)):
        check_shared_noise(other, 1.5, 10**9)
    check_shared_noise(work_of(clip=1e-3), None, 10**9)


def test_under_masks_each_site_weighs_the_same_and_adds_noise():
    check_weights(work_of(weights={"0": 4, "1": 4}))
    for wrong in ({"0": 4, "1": 5}, {"0": 3}, None, [4]):
        with pytest.raises(WireError, match="must be their number"):
            check_weights(work_of(weights=wrong))
    for other in (work_of(unit="sample", weights=None), work_of(unit=None), work_of(masked=False)):
        check_weights(other)
    check_adds_noise(work_of(unit="sample"), 3)
    check_adds_noise(work_of(unit=None), 3)
    with pytest.raises(SiteError, match="fold 3 has no training rows here"):
        check_adds_noise(work_of(), 3)
