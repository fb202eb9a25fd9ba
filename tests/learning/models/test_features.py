"""The fixed features of images: the same everywhere, and further apart the more images differ."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from v6_algorithm.errors import ExperimentError
from v6_algorithm.learning.metrics import GenerationMetrics, compute
from v6_algorithm.learning.models.features import DIMENSIONS, feature_network

MOCK = Path(__file__).parents[3] / "mock"
SIZE = 32


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    """Real lesions in two disjoint halves, (200, 3, 32, 32) each."""
    image = pytest.importorskip("PIL.Image")
    sys.path.insert(0, str(MOCK))
    folder = tmp_path_factory.mktemp("lesions")
    rows = import_module("make_lesions").make(folder, 400, size=SIZE, seed=3)
    pixels = np.stack([np.asarray(image.open(folder / row["file"])) for row in rows])
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return tensor[:200], tensor[200:]


def distances(real, made):
    features = feature_network(*real.shape[1:])
    metrics = GenerationMetrics(DIMENSIONS)
    metrics.update(features(real).numpy(), features(made.clamp(0, 1)).numpy())
    found = compute(metrics.state())
    return found["fid"], found["kid"]


def blurred(images, sigma):
    reach = int(3 * sigma + 1)
    weights = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel = torch.outer(weights, weights) / weights.sum() ** 2
    padded = F.pad(images, [reach] * 4, mode="reflect")
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)


def noisy(images, sigma):
    return images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def shifted(images, by):
    return images + by * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)


def fewer(images, modes):
    return images[torch.arange(len(images)) % modes]


@pytest.mark.parametrize(
    ("corrupted", "degrees"),
    [
        (blurred, [0.6, 1, 2, 4]),
        (noisy, [0.03, 0.06, 0.12, 0.25]),
        (shifted, [0.1, 0.2, 0.4]),
        (fewer, [40, 10, 3, 1]),
    ],
)
def test_images_are_further_from_real_ones_the_more_they_are_corrupted(lesions, corrupted, degrees):
    real, other = lesions
    found = [distances(real, other), *(distances(real, corrupted(other, degree)) for degree in degrees)]
    for values in zip(*found, strict=True):
        assert list(values) == sorted(values)


@pytest.mark.parametrize("corrupted", [lambda images: blurred(images, 1.5), lambda images: noisy(images, 0.1)])
def test_two_halves_of_real_images_are_much_nearer_than_corrupted_ones(lesions, corrupted):
    real, other = lesions
    (fid, kid), (far, further) = distances(real, other), distances(real, corrupted(other))
    assert 3 * fid < far
    assert 10 * abs(kid) < further


def test_no_few_of_the_dimensions_dominate(lesions):
    real, other = lesions
    values = np.linalg.eigvalsh(np.cov(feature_network(3, SIZE, SIZE)(torch.cat([real, other])).numpy().T))
    assert values.max() / values.sum() < 0.6
    assert values.sum() ** 2 / (values**2).sum() > 3


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 16), (1, 17, 30), (3, 64, 64)])
def test_images_of_any_size_from_16_pixels_have_64_features(shape):
    found = feature_network(*shape)(torch.rand(5, *shape, generator=torch.Generator().manual_seed(1)))
    assert found.shape == (5, DIMENSIONS)
    assert found.dtype == torch.float64
    assert torch.isfinite(found).all()
    assert feature_network(*shape)(torch.empty(0, *shape)).shape == (0, DIMENSIONS)


def test_features_of_an_image_do_not_depend_on_the_images_beside_it():
    images = torch.rand(70, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    features = feature_network(3, 16, 16)
    assert torch.allclose(features(images)[66:], features(images[66:]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 15, 32), (4, 32, 32)])
def test_images_that_cannot_be_compared_are_refused(shape):
    with pytest.raises(ExperimentError, match="fid compares images of 1 or 3 channels and 16 pixels"):
        feature_network(*shape)


@pytest.mark.slow
def test_two_processes_have_the_same_features_whatever_else_was_drawn():
    code = (
        "import torch; torch.manual_seed({}); torch.rand(7);"
        "from v6_algorithm.learning.models.features import feature_network;"
        "x = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16);"
        "print(feature_network(3, 16, 16)(x).numpy().tobytes().hex())"
    )
    found = {
        subprocess.run([sys.executable, "-c", code.format(seed)], capture_output=True, text=True, check=True).stdout
        for seed in (0, 1)
    }
    assert len(found) == 1


def test_the_network_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    feature_network.cache_clear()
    feature_network(1, 16, 16)
    assert torch.equal(torch.get_rng_state(), before)
