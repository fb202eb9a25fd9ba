"""Networks that make images: their shapes, what they are told, and the formulas of their layers."""

import pytest
import torch

from v6_algorithm.experiment import DCGAN, StyleGAN2
from v6_algorithm.learning.models.generators import build_pair, widest
from v6_algorithm.learning.models.generators.layers import MinibatchSpread
from v6_algorithm.learning.models.generators.stylegan2 import EqualConv, EqualLinear, ModulatedConv, blurred, enlarged

SMALL = {
    "dcgan": DCGAN(kind="dcgan", width=2),
    "stylegan2": StyleGAN2(kind="stylegan2", channel_base=64, channel_max=8, mapping_layers=2, style=6),
}


def pair(kind, shape=(3, 16, 16), classes=2):
    torch.manual_seed(0)
    return build_pair(SMALL[kind], list(shape), classes, 5)


def inputs(rows=4, classes=2):
    generator = torch.Generator().manual_seed(1)
    of_class = torch.eye(classes)[torch.arange(rows) % classes] if classes else torch.zeros(rows, 0)
    return torch.randn(rows, 5, generator=generator), of_class


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 32, 32), (3, 64, 64)])
@pytest.mark.parametrize("classes", [0, 3])
def test_a_generator_makes_images_and_the_discriminator_takes_them(kind, shape, classes):
    generator, discriminator = pair(kind, shape, classes)
    latents, of_class = inputs(classes=classes)
    images = generator(latents, of_class)
    assert images.shape == (4, *shape)
    assert discriminator(images, of_class).shape == (4,)


@pytest.mark.parametrize("kind", SMALL)
def test_images_depend_on_the_class_once_it_is_learned(kind):
    generator, _ = pair(kind)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    latents, of_class = inputs()
    noise = [torch.Generator().manual_seed(2) for _ in range(2)]
    generator.eval()
    one, other = generator(latents, of_class, noise[0]), generator(latents, of_class.flip(1), noise[1])
    assert (one - other).abs().amax(dim=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("kind", SMALL)
def test_the_same_latents_and_noise_make_the_same_images_whatever_torch_has_drawn(kind):
    generator, _ = pair(kind)
    generator.eval()
    made = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        made.append(generator(*inputs(), torch.Generator().manual_seed(2)))
    assert torch.equal(*made)


def test_a_discriminator_sees_how_much_a_batch_differs():
    alike, varied = torch.ones(4, 2, 4, 4), torch.stack([torch.full((2, 4, 4), float(n)) for n in range(4)])
    spread = MinibatchSpread()
    assert spread(alike)[:, 2].max() < 1e-3
    assert spread(varied)[:, 2].flatten().tolist() == pytest.approx([1.25**0.5] * 64)


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_a_batch_of_any_size_has_a_spread(rows):
    assert MinibatchSpread()(torch.randn(rows, 2, 4, 4)).shape == (rows, 3, 4, 4)


def test_demodulated_weights_have_unit_norm():
    torch.manual_seed(0)
    layer = ModulatedConv(5, 7, 3, 6)
    styles = layer.style(torch.randn(4, 6))
    weights = layer.weight * layer._scale * styles[:, None, :, None, None]
    weights = weights * layer.demodulation(styles)[:, :, None, None, None]
    assert weights.square().sum(dim=(2, 3, 4)).sqrt().flatten().tolist() == pytest.approx([1] * 28, abs=1e-4)


def test_scaling_input_and_output_is_a_convolution_with_modulated_weights():
    torch.manual_seed(0)
    layer, features, w = ModulatedConv(5, 7, 3, 6), torch.randn(2, 5, 8, 8), torch.randn(2, 6)
    styles = layer.style(w)
    weights = layer.weight * layer._scale * styles[:, None, :, None, None]
    weights = weights * layer.demodulation(styles)[:, :, None, None, None]
    by_row = torch.cat(
        [torch.nn.functional.conv2d(features[row : row + 1], weights[row], padding=1) for row in range(2)]
    )
    assert torch.allclose(layer(features, w), by_row, atol=1e-5)


def test_layers_of_equal_scale_keep_the_spread_of_what_they_get():
    torch.manual_seed(0)
    assert EqualLinear(400, 300)(torch.randn(200, 400)).std().item() == pytest.approx(1, abs=0.02)
    assert EqualConv(40, 40, 3)(torch.randn(8, 40, 32, 32)).std().item() == pytest.approx(1, abs=0.05)


def test_the_filter_keeps_the_level_of_an_image():
    flat = torch.ones(1, 2, 16, 16)
    assert torch.allclose(blurred(flat, 2)[:, :, 3:-3, 3:-3], torch.ones(1))
    assert torch.allclose(enlarged(flat)[:, :, 2:-2, 2:-2], torch.ones(1))
    assert enlarged(flat).shape == (1, 2, 32, 32)


def test_stylegan2_has_the_papers_size_at_256_pixels():
    """About 30 million parameters each with channel_base 32,768, of which 256 pixels need less."""
    with torch.device("meta"):
        networks = build_pair(StyleGAN2(kind="stylegan2", channel_base=32_768), [3, 256, 256], 0, 512)
    generator, discriminator = (sum(parameter.numel() for parameter in one.parameters()) for one in networks)
    assert generator == pytest.approx(30.0e6, rel=0.03)
    assert discriminator == pytest.approx(28.9e6, rel=0.03)


@pytest.mark.parametrize("kind", SMALL)
def test_a_generator_holds_no_more_numbers_than_evaluation_reckons_with(kind):
    generator, _ = pair(kind, (1, 32, 32))
    numbers = []
    for module in generator.modules():
        if not any(module.children()):
            module.register_forward_hook(lambda _, given, output: numbers.append(given[0].numel() + output.numel()))
    with torch.inference_mode():
        generator(*inputs(rows=1))
    assert max(numbers) <= widest(SMALL[kind], 32) * 32 * 32
