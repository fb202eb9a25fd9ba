"""A site's noised update: no longer than the clip, noise of the size that was booked, and nothing beside it."""

import pytest
import torch

from v6_algorithm.errors import SiteError
from v6_algorithm.learning.training.private_gradients import NoiseSource
from v6_algorithm.learning.training.private_update import UpdateNoise

RECEIVED = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2), "seen": torch.tensor(3)}


def hidden(outgoing, clip=1.0, sd=0.0, **options):
    return UpdateNoise(clip, sd).hide(RECEIVED, outgoing, {"a", "b"}, **{"gradient": False} | options)


def length(state, received=RECEIVED):
    return torch.stack([(state[name] - received[name]).norm() for name in ("a", "b")]).norm().item()


def test_an_update_is_scaled_to_the_clip_over_all_parameters_and_a_short_one_left():
    far = RECEIVED | {"a": RECEIVED["a"] + 30.0, "b": RECEIVED["b"] - 40.0}
    assert length(hidden(far, clip=0.5)) == pytest.approx(0.5, rel=1e-5)
    near = RECEIVED | {"b": RECEIVED["b"] + 0.1}
    torch.testing.assert_close(hidden(near), near)


def test_gradients_are_updates_already():
    gradient = {"a": torch.full((2, 3), 7.0), "b": torch.zeros(2), "seen": RECEIVED["seen"]}
    clipped = hidden(gradient, clip=2.0, gradient=True)
    assert torch.stack([clipped["a"].norm(), clipped["b"].norm()]).norm().item() == pytest.approx(2.0, rel=1e-5)


def test_a_frozen_layer_gets_no_noise_and_its_gradient_may_be_nought():
    gradient = {"a": torch.ones(2, 3), "b": torch.zeros(2), "seen": RECEIVED["seen"]}
    sent = UpdateNoise(1.0, 0.5).hide(RECEIVED, gradient, {"a"}, gradient=True)
    assert not sent["b"].any()
    assert sent["a"].std() > 0.01


def test_noise_is_of_the_size_asked_for_on_every_parameter():
    received = {"a": torch.zeros(200_000), "b": torch.zeros(3)}
    noise = UpdateNoise(1.0, 0.25).hide(received, received, {"a", "b"}, gradient=False, source=NoiseSource(1))
    assert noise["a"].std().item() == pytest.approx(0.25, rel=0.01)
    assert noise["b"].all()


@pytest.mark.parametrize("honest", [1, 2, 5])
def test_parts_of_the_honest_sites_add_up_to_the_whole_noise(honest):
    still = {"a": torch.zeros(100_000)}
    parts = [
        UpdateNoise(1.0, 0.8 / honest**0.5).hide(still, still, {"a"}, gradient=False, source=NoiseSource(seed))["a"]
        for seed in range(honest)
    ]
    assert sum(parts).std().item() == pytest.approx(0.8, rel=0.02)


def test_a_buffer_that_counts_rows_is_refused():
    with pytest.raises(SiteError, match="the network keeps numbers of the rows that it sees"):
        hidden(RECEIVED | {"seen": torch.tensor(4)})


def test_an_update_that_is_not_finite_is_named():
    with pytest.raises(SiteError, match="the update is not finite") as refused:
        hidden(RECEIVED | {"b": torch.tensor([1.0, float("nan")])})
    assert refused.value.kind == "diverged"
