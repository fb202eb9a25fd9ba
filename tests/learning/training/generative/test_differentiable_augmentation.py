"""Changes of what a discriminator sees: exact where they can be, nothing without p, and gradients go through."""

import pytest
import torch

from v6_algorithm.learning.training.generative.differentiable_augmentation import PLACES, augment

KINDS = (*PLACES, "color", "cutout")


def pictures(rows=64, channels=3, size=16):
    return 2 * torch.rand(rows, channels, size, size, generator=torch.Generator().manual_seed(0)) - 1


def changed(images, probability, kinds, seed=1):
    return augment(images, probability, kinds, torch.Generator().manual_seed(seed))


def test_without_p_images_stay_to_the_bit():
    images = pictures()
    assert torch.equal(changed(images, 0.0, KINDS), images)


@pytest.mark.parametrize("kind", KINDS)
def test_about_a_share_p_of_the_images_is_changed_and_the_others_stay_to_the_bit(kind):
    images = pictures(400)
    touched = (changed(images, 0.5, [kind]) != images).flatten(1).any(dim=1).float().mean().item()
    # Half of the mirror images, a quarter of the turns and a few shifts are none.
    share = {"flip": 0.25, "rotate90": 0.375, "translate": 0.48}.get(kind, 0.5)
    assert touched == pytest.approx(share, abs=0.09)


def test_what_is_drawn_does_not_depend_on_p():
    """So that a little more of p changes a few more images, and not all of them."""
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for generator, probability in zip(generators, (0.0, 0.7), strict=True):
        augment(pictures(), probability, KINDS, generator)
    assert torch.equal(torch.rand(3, generator=generators[0]), torch.rand(3, generator=generators[1]))


def test_turns_and_mirror_images_are_exact():
    image = pictures(1)
    symmetries = [turned.flip(axis) if axis else turned for k in range(4) for axis in (0, 3) for turned in
                  [torch.rot90(image, k, (2, 3))]]  # fmt: skip
    found = set()
    for one in changed(image.expand(200, -1, -1, -1), 0.99, ["flip", "rotate90"]):
        (place,) = {number for number, wanted in enumerate(symmetries) if torch.equal(one, wanted[0])}
        found.add(place)
    assert len(found) == 8


def test_a_shift_is_by_whole_pixels_and_mirrors_at_the_edge():
    image = pictures(1)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")[0]
    shifts = [padded[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
    for one in changed(image.expand(50, -1, -1, -1), 0.99, ["translate"]):
        assert any(torch.equal(one, wanted) for wanted in shifts)


def test_scale_keeps_the_middle_in_place():
    image = torch.zeros(1, 1, 17, 17)
    image[0, 0, 8, 8] = 1.0
    assert changed(image.expand(20, -1, -1, -1), 0.99, ["scale"])[:, 0, 8, 8].tolist() == [1.0] * 20


def test_grey_images_have_brightness_and_contrast_only():
    images = pictures(channels=1)
    assert changed(images, 0.9, ["color"]).shape == images.shape


def test_a_cutout_is_a_square_of_half_a_side_at_most():
    holes = (changed(torch.ones(100, 1, 16, 16), 0.99, ["cutout"]) == 0).sum(dim=(1, 2, 3))
    assert holes.max() <= 64
    assert holes.float().mean() > 20


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_go_through_twice(kind):
    images = pictures(6, size=4).double().requires_grad_(True)

    def loss(given):
        return changed(given, 0.9, [kind]).square().sum()

    assert torch.autograd.gradcheck(loss, images)
    (slope,) = torch.autograd.grad(loss(images), images, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), images)
    assert curvature.abs().sum() > 0
