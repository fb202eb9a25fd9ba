"""Augmentation: what is done to images while they are trained on, by whom it is drawn, and where it is not done."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import ExperimentError, SiteError
from v6_algorithm.experiment import Experiment, Training
from v6_algorithm.learning.metrics import compute
from v6_algorithm.learning.problems.tabular import Classification
from v6_algorithm.learning.training import augmentation
from v6_algorithm.learning.training.loop import Rows, evaluate, mean_loss, train
from v6_algorithm.learning.training.state import build_networks, state_of

EVERY = ["flip", "rotation", "zoom", {"kind": "crop", "size": 6}, "color", "noise", "elastic", "bias_field", "mixup"]


def kinds(*wanted):
    return Training.model_validate({"augmentation": list(wanted)}).augmentation


def images(count=5, channels=3, shape=(8, 10), seed=0):
    return torch.rand(count, channels, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(batch, *wanted, seed=1):
    return augmentation.augment(batch, kinds(*wanted), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", EVERY, ids=str)
@pytest.mark.parametrize("shape", [(8, 10), (6, 8, 10)], ids=["image", "volume"])
def test_the_same_generator_changes_alike_and_another_one_otherwise(kind, shape):
    batch = images(shape=shape)
    before = batch.clone()
    (one, _), (again, _), (other, _) = (drawn(batch, kind, seed=seed) for seed in (1, 1, 2))
    assert one.equal(again)
    assert not one.equal(other)
    assert batch.equal(before), "the rows themselves are changed"
    assert one.dtype == batch.dtype


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_each_image_of_a_batch_is_changed_in_its_own_way(kind):
    batch = images(1).expand(6, -1, -1, -1)
    if kind == "mixup":
        batch = batch + torch.arange(6.0).view(-1, 1, 1, 1)
    changed, _ = drawn(batch, kind)
    own = changed - changed.mean(dim=(1, 2, 3), keepdim=True) if kind == "noise" else changed
    assert len({tuple(image.flatten().tolist()) for image in own}) > 1


@pytest.mark.parametrize(
    "kind",
    [
        {"kind": "flip", "probability": 0},
        {"kind": "rotation", "degrees": 0},
        {"kind": "zoom", "share": 1},
        {"kind": "crop", "size": [8, 10]},
        {"kind": "color", "brightness": 0, "contrast": 0, "saturation": 0},
        {"kind": "noise", "sd": 0},
    ],
    ids=lambda kind: kind["kind"],
)
def test_strength_zero_changes_nothing(kind):
    batch = images()
    assert drawn(batch, kind)[0].equal(batch)


def test_a_square_turned_by_a_right_angle_is_torchs_rot90():
    batch = images(shape=(9, 9))
    turned = augmentation.resample(batch, torch.tensor([[0.0, -1.0], [1.0, 0.0]]).expand(5, 2, 2))
    torch.testing.assert_close(turned, torch.rot90(batch, 1, (2, 3)), atol=1e-5, rtol=0)


def test_a_cube_turned_by_a_right_angle_is_torchs_rot90():
    batch = images(2, 1, (6, 6, 6))
    around_depth = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = augmentation.resample(batch, around_depth.expand(2, 3, 3))
    torch.testing.assert_close(turned, torch.rot90(batch, 1, (3, 4)), atol=1e-5, rtol=0)


def test_a_turn_keeps_distances_in_an_image_that_is_not_square():
    """In the coordinates of grid_sample, -1 to 1 along each side, a plain turn would shear it."""
    batch = torch.zeros(1, 1, 41, 81, dtype=torch.float64)
    batch[0, 0, 20, 50] = 1.0  # 10 pixels right of the middle
    turned = augmentation.resample(batch, torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]))
    found = (turned[0, 0] > 0.5).nonzero().tolist()
    assert found == [[10, 40]]


def test_the_middle_of_a_volume_stays_where_it_is_under_any_rotation():
    batch = torch.zeros(8, 1, 9, 11, 13)
    batch[:, :, 4, 5, 6] = 1.0
    changed, _ = drawn(batch, {"kind": "rotation", "degrees": 180})
    torch.testing.assert_close(changed[:, 0, 4, 5, 6], torch.ones(8), atol=1e-4, rtol=0)


def test_a_flip_of_certainty_is_torchs_flip():
    batch = images(shape=(4, 6, 8))
    changed, _ = drawn(batch, {"kind": "flip", "axes": ["depth", "width"], "probability": 1})
    assert changed.equal(batch.flip(2).flip(4))


@pytest.mark.parametrize("shape", [(8, 10), (6, 8, 10)])
def test_a_crop_is_a_piece_of_its_image(shape):
    batch = torch.arange(float(torch.Size(shape).numel())).view(1, 1, *shape).expand(20, 2, *shape)
    changed, _ = drawn(batch, {"kind": "crop", "size": 4})
    assert changed.shape == (20, 2, *[4] * len(shape))
    for axis in range(2, changed.ndim):
        steps = changed.diff(dim=axis)
        assert (steps == steps.flatten()[0]).all()
    assert len({image.flatten()[0].item() for image in changed}) > 5


def test_the_middle_of_a_crop_is_the_middle():
    batch = torch.arange(7.0).expand(1, 1, 6, 7)
    middle = augmentation.measured(batch, kinds("flip", {"kind": "crop", "size": [4, 3]}))
    assert middle.tolist() == [[[[2.0, 3.0, 4.0]] * 4]]


def test_a_zoom_shows_a_piece_of_the_image():
    ramp = torch.linspace(0, 1, 21, dtype=torch.float64).expand(50, 1, 21, 21)
    changed, _ = drawn(ramp, {"kind": "zoom", "share": 0.5})
    steps = changed[:, 0, 10, 5:15].diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-6, rtol=0)
    assert (steps >= 0.025 - 1e-6).all()
    assert (steps <= 0.05 + 1e-6).all()
    assert changed.min() > -1e-6
    assert changed.max() < 1 + 1e-6


def test_saturation_changes_no_grey_and_no_mean():
    grey = images(channels=1).expand(-1, 3, -1, -1)
    only = {"kind": "color", "brightness": 0, "contrast": 0, "saturation": 1}
    torch.testing.assert_close(drawn(grey, only)[0], grey)
    changed, _ = drawn(images(), only)
    torch.testing.assert_close(changed.mean(dim=1), images().mean(dim=1))


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100), seed=st.integers(0, 2**30))
def test_strengths_mean_the_same_whatever_the_images_are_scaled_to(scale, shift, seed):
    kinds_ = [kind for kind in EVERY if kind != "bias_field"]  # has single precision, and a test of its own
    plain, mix = drawn(images(), *kinds_, seed=seed)
    scaled, same = drawn(images() * scale + shift, *kinds_, seed=seed)
    assert mix.partner.equal(same.partner)
    torch.testing.assert_close(scaled, plain * scale + shift, rtol=1e-7, atol=1e-7 * (scale + abs(shift)))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**30), alpha=st.floats(0.05, 5))
def test_the_loss_of_a_mixture_is_cross_entropy_against_the_mixed_probabilities(seed, alpha):
    batch, target = images(6, seed=seed), torch.arange(6) % 3
    mixed, mix = augmentation.mixup(batch, torch.Generator().manual_seed(seed), alpha=alpha)
    share = mix.share.view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed, share * batch + (1 - share) * batch[mix.partner])
    output = mixed.flatten(1)[:, :3]
    one_hot = nn.functional.one_hot(target, 3).double()
    probabilities = mix.share[:, None] * one_hot + (1 - mix.share[:, None]) * one_hot[mix.partner]
    losses = [nn.functional.cross_entropy(output, wanted, reduction="none") for wanted in (target, target[mix.partner])]
    expected = nn.functional.cross_entropy(output, probabilities, reduction="none")
    torch.testing.assert_close(mix.loss(*losses), expected)


class OfImages(Classification):
    """Two classes of 8 by 8 images by a convolution."""

    def build_networks(self):
        layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)]
        return {"model": nn.Sequential(*layers)}


def problem_of(*wanted):
    experiment = Experiment.parse({"data": {"target": "y"}, "training": {"batch_size": 8}})
    experiment.training.augmentation = kinds(*wanted)
    return OfImages(experiment, Setup(["image"], {}, [0, 1]))


def rows_of_images(count=20):
    inputs = images(count, 1, (8, 8)).float()
    return Rows(inputs, torch.arange(count) % 2, torch.zeros(count, dtype=torch.long))


def trained(problem, *, round=1, site="here"):
    networks = build_networks(problem)
    rows = rows_of_images()
    targets = rows.target.clone()
    sums = train(problem, networks, rows, torch.arange(20), site=site, round=round, fold=0)
    assert rows.target.equal(targets)
    return state_of(networks)["model.0.weight"], sums


def test_a_training_is_changed_by_augmentation_and_drawn_for_the_seed_site_and_round():
    problem = problem_of(*EVERY)
    first, sums = trained(problem)
    assert first.equal(trained(problem)[0])
    assert not first.equal(trained(problem, round=2)[0])
    assert not first.equal(trained(problem, site="there")[0])
    assert not first.equal(trained(problem_of())[0])
    assert (sums.rows, sums.steps) == (20, 3)


def test_augmentation_of_no_strength_leaves_the_training_as_it_was():
    """Batches and dropout are drawn from generators of their own."""
    nothing = [{"kind": "flip", "probability": 0}, {"kind": "noise", "sd": 0}]
    assert trained(problem_of(*nothing))[0].equal(trained(problem_of())[0])


def test_nothing_but_the_middle_of_a_crop_is_done_where_a_model_is_measured():
    def measure(problem, rows):
        networks, part = build_networks(problem), torch.arange(20)
        states = evaluate(problem, networks, rows, part, ["here"], fold=0)
        return compute(states["here"]), mean_loss(problem, networks, rows, part, fold=0)

    rows = rows_of_images()
    plain = measure(problem_of(), rows)
    assert measure(problem_of("flip", "rotation", "color", "noise", "mixup"), rows) == plain
    middle = Rows(rows.inputs[:, :, 1:7, 1:7], rows.target, rows.member)
    assert measure(problem_of(*EVERY), rows) == measure(problem_of(), middle) != plain


@pytest.mark.parametrize(
    ("batch", "kind", "message"),
    [
        (torch.rand(5, 3), "flip", "is for images and volumes; the inputs of this problem are neither"),
        (torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "flip", "is for images and volumes"),
        (images(), {"kind": "flip", "axes": ["depth"]}, "images have no depth, volumes do"),
        (images(), {"kind": "crop", "size": 9}, "crop.size 9 is more than the images' 8"),
        (images(), {"kind": "crop", "size": [4, 4, 4]}, "crop.size has 3 numbers, images have 2 axes"),
    ],
)
def test_what_does_not_fit_the_inputs_is_refused(batch, kind, message):
    with pytest.raises(SiteError, match=message) as refused:
        drawn(batch, kind)
    assert refused.value.kind == "request"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["flip"], "training.augmentation is for images and volumes; the inputs of problem classification are neither"),
        (["blur"], "training.augmentation.0.kind: unknown value 'blur'; allowed: flip, rotation, zoom, crop, color, "),
        ([{"kind": "crop"}], "training.augmentation.0.size"),
        ([{"kind": "rotation", "degree": 3}], "unknown key 'degree' (did you mean 'degrees'?); allowed: kind, degrees"),
        (["mixup", "flip"], "mixup comes last"),
        ([{"kind": "crop", "size": 4}] * 2, "crop may be there once"),
    ],
)
def test_wrong_input_is_refused_by_name(given, message):
    with pytest.raises(ExperimentError) as refused:
        Experiment.parse({"data": {"target": "y"}, "training": {"augmentation": given}})
    assert message in str(refused.value)


# -- by MONAI ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 48), (20, 24, 28)], ids=["image", "volume"])
def test_elastic_moves_pixels_about_as_far_as_it_says(shape):
    """Of an image of a coordinate, the change is how far a pixel has moved along it."""
    pytest.importorskip("monai")
    ramp = torch.arange(shape[-1], dtype=torch.float32).expand(12, 1, *shape)
    changed, _ = drawn(ramp, {"kind": "elastic", "displacement": 3, "smoothness": 4})
    moved = (changed - ramp).abs()[..., 8:-8]  # apart from what is mirrored
    farthest = moved.flatten(1).amax(1)
    assert 1 < farthest.max() < 6
    assert farthest.unique().numel() == 12
    assert moved.square().mean().sqrt() < 1.5
    still, _ = drawn(ramp, {"kind": "elastic", "displacement": 0})
    torch.testing.assert_close(still, ramp)


@pytest.mark.parametrize("shape", [(12, 14), (6, 8, 10)], ids=["image", "volume"])
def test_a_bias_field_multiplies_what_is_above_the_lowest_value_whatever_the_scaling(shape):
    pytest.importorskip("monai")
    batch = images(shape=shape).float()
    (plain, _), (scaled, _) = drawn(batch, "bias_field"), drawn((batch - 0.4) / 0.2, "bias_field")
    torch.testing.assert_close(scaled, (plain - 0.4) / 0.2, rtol=1e-4, atol=1e-4)
    low = batch.amin(dim=tuple(range(1, batch.ndim)), keepdim=True)
    field = (plain - low)[batch > low + 0.05] / (batch - low)[batch > low + 0.05]
    assert 0 < field.min() < 1 < field.max()
    # One field for all channels of an image.
    factor = (plain - low) / (batch - low).clamp(min=1e-3)
    torch.testing.assert_close(
        factor[:, 0][batch[:, 0] > low[:, 0] + 0.1].mean(), factor[:, 0].mean(), rtol=0.5, atol=0.5
    )


def test_without_monai_its_kinds_are_refused_by_name(monkeypatch):
    for name in ("monai", "monai.networks.layers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SiteError, match=r"elastic needs the package monai: pip install 'v6-algorithm\[imaging\]'"):
        drawn(images(), "elastic")
