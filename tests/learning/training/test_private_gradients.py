"""Gradients of units, one by one as the oracle; and that noise is the site's own."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from v6_algorithm.errors import SiteError
from v6_algorithm.learning.training import private_gradients
from v6_algorithm.learning.training.private_gradients import NoiseSource, clipped_sum, noised

PROBLEM = SimpleNamespace(
    joint=False,
    expansion=1,
    forward=lambda networks, inputs: networks["model"](inputs),
    row_loss=lambda output, target, fold: nn.functional.cross_entropy(output, target, reduction="none"),
)


def networks(norm: type[nn.Module] = nn.LayerNorm) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"model": nn.Sequential(nn.Linear(5, 7), norm(7), nn.ReLU(), nn.Linear(7, 3))}


def one_by_one(nets, inputs, target, unit, clip):
    """The oracle: backward for each unit by itself."""
    parameters = [value for value in nets["model"].parameters() if value.requires_grad]
    total = [torch.zeros_like(value) for value in parameters]
    for name in unit.unique():
        rows = unit == name
        loss = PROBLEM.row_loss(nets["model"](inputs[rows]), target[rows], 0).mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.stack([value.norm() for value in gradients]).norm()
        for place, value in enumerate(gradients):
            total[place] += value * min(1.0, clip / norm.item())
    return total


def batch(rows=20):
    torch.manual_seed(1)
    return torch.randn(rows, 5), torch.randint(3, (rows,))


@pytest.mark.parametrize("clip", [0.1, 1.0, 1e6])
@pytest.mark.parametrize("units", ["rows", "patients"])
@pytest.mark.parametrize("at_once", [2**25, 200])
def test_the_sum_is_that_of_units_taken_one_by_one(monkeypatch, clip, units, at_once):
    monkeypatch.setattr(private_gradients, "_NUMBERS_AT_ONCE", at_once)
    nets, (inputs, target) = networks(), batch()
    unit = torch.arange(20) if units == "rows" else torch.arange(20) % 6
    summed, losses = clipped_sum(PROBLEM, nets, inputs, target, unit, fold=0, clip=clip)
    expected = one_by_one(nets, inputs, target, unit, clip)
    assert list(summed) == [f"model.{name}" for name, _ in nets["model"].named_parameters()]
    for value, wanted in zip(summed.values(), expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.float(), PROBLEM.row_loss(nets["model"](inputs), target, 0).detach())


def test_one_unit_more_moves_the_sum_by_no_more_than_the_clip():
    nets, (inputs, target) = networks(), batch()
    unit = torch.arange(20) // 4
    with_all, _ = clipped_sum(PROBLEM, nets, 100 * inputs, target, unit, fold=0, clip=0.5)
    without, _ = clipped_sum(PROBLEM, nets, 100 * inputs[4:], target[4:], unit[4:], fold=0, clip=0.5)
    moved = torch.stack([(with_all[name] - without[name]).norm() for name in with_all]).norm()
    assert 0 < moved <= 0.5 * (1 + 1e-5)


def test_a_gradient_that_is_not_finite_is_named_and_no_row_with_it():
    nets, (inputs, target) = networks(), batch(3)
    inputs[0] = float("inf")
    with pytest.raises(SiteError, match="a gradient is not finite, so it cannot be clipped; lower") as refused:
        clipped_sum(PROBLEM, nets, inputs, target, torch.arange(3), fold=0, clip=1.0)
    assert refused.value.kind == "diverged"
    assert not any(digit.isdigit() for digit in str(refused.value).replace("float32", ""))


def test_frozen_parameters_have_no_gradient_and_an_empty_batch_is_noise_alone():
    nets = networks()
    nets["model"][0].requires_grad_(False)
    nothing = torch.empty(0, dtype=torch.int64)
    summed, losses = clipped_sum(PROBLEM, nets, torch.empty(0, 5), nothing, nothing, fold=0, clip=1.0)
    assert "model.0.weight" not in summed
    assert not len(losses)
    assert all(not value.any() for value in summed.values())
    assert all(value.all() for value in noised(summed, NoiseSource(), sd=1.0, expected=4.0).values())


def test_batch_norm_is_refused_by_name():
    with pytest.raises(SiteError, match="BatchNorm"):
        clipped_sum(PROBLEM, networks(nn.BatchNorm1d), *batch(), torch.arange(20), fold=0, clip=1.0)


def test_noise_does_not_follow_the_seeds_that_the_asker_knows():
    torch.manual_seed(0)
    first = NoiseSource().normal(torch.zeros(8), 1.0)
    torch.manual_seed(0)
    assert not torch.equal(first, NoiseSource().normal(torch.zeros(8), 1.0))


def test_noise_and_batches_have_the_size_that_is_accounted_for():
    source = NoiseSource(1)
    noise = noised({"w": torch.zeros(200_000)}, source, sd=3.0, expected=4.0)["w"]
    assert noise.std().item() == pytest.approx(0.75, rel=0.01)
    sizes = torch.tensor([float(len(source.batch(172, 4 / 172))) for _ in range(4_000)])
    assert sizes.mean().item() == pytest.approx(4, rel=0.05)
    assert sizes.var().item() == pytest.approx(4 * (1 - 4 / 172), rel=0.1)


def test_gradients_of_rows_are_those_of_opacus():
    opacus = pytest.importorskip("opacus")
    nets, (inputs, target) = networks(), batch()
    mine, _ = clipped_sum(PROBLEM, nets, inputs, target, torch.arange(20), fold=0, clip=1e6)
    wrapped = opacus.GradSampleModule(networks()["model"], loss_reduction="sum")
    PROBLEM.row_loss(wrapped(inputs), target, 0).sum().backward()
    theirs = [value.grad_sample.sum(dim=0) for value in wrapped.parameters()]
    for value, wanted in zip(mine.values(), theirs, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_rows_of_recurrent_networks_are_taken_one_by_one(kind):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.last = kind(2, 3, batch_first=True), nn.Linear(3, 3)

        def forward(self, inputs):
            return self.last(self.steps(inputs.unflatten(1, (2, 2)))[0].mean(1))

    torch.manual_seed(0)
    nets, (inputs, target) = {"model": Recurrent()}, batch(6)
    summed, _ = clipped_sum(PROBLEM, nets, inputs[:, :4], target, torch.arange(6) % 4, fold=0, clip=0.2)
    expected = one_by_one(nets, inputs[:, :4], target, torch.arange(6) % 4, 0.2)
    for value, wanted in zip(summed.values(), expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


def test_noise_is_normal_and_batches_have_the_rate():
    noise = NoiseSource(3).normal(torch.zeros(200_001), 2.0).double() / 2
    assert noise.shape == (200_001,)
    moments = [(noise**power).mean().item() for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.05)
    assert (noise.abs() > 3).double().mean().item() == pytest.approx(0.0027, abs=0.0006)
    assert len(NoiseSource(4).batch(100_000, 0.3)) == pytest.approx(30_000, abs=600)
    assert len(NoiseSource().batch(10, 1.0)) == 10
