"""MONAI's networks: of known size, with heads of their own, in two and three dimensions."""

import pytest
import torch
from torch import nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, MonaiNetwork
from v6_algorithm.experiment.imaging.networks import MONAI_VARIANTS
from v6_algorithm.experiment.strategy.private import PrivateSection
from v6_algorithm.learning.models.images import build_image_model
from v6_algorithm.learning.models.normalisation import norm_layers
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training.patterns import private_names

pytest.importorskip("monai")

# For 1000 classes and three channels, as torchvision's documentation and efficientnet_pytorch have them.
KNOWN = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "efficientnet-b0": 5_288_548,
    "efficientnet-b2": 9_109_994,
    "efficientnet-b7": 66_347_960,
}
KINDS = {variant: kind for kind, variants in MONAI_VARIANTS.items() for variant in variants}


def build(variant, outputs=1000, shape=(3, 64, 64), **section):
    with torch.device("meta"):
        return build_image_model(MonaiNetwork(kind=KINDS[variant], variant=variant, **section), list(shape), outputs)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("variant", KNOWN)
def test_a_network_has_the_parameters_that_it_is_known_for(variant):
    assert parameters(build(variant, norm="batch")) == KNOWN[variant]
    # A norm over groups has a weight and a bias for each channel as well.
    assert parameters(build(variant)) == KNOWN[variant]


def test_a_resnets_tensors_have_torchvisions_names():
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{name}" for name in norms)}
    for layer in range(1, 5):
        for block in range(2):
            own = f"layer{layer}.{block}"
            expected |= {f"{own}.conv{number}.weight" for number in (1, 2)}
            expected |= {f"{own}.bn{number}.{name}" for number in (1, 2) for name in norms}
        if layer > 1:
            expected |= {f"layer{layer}.0.downsample.0.weight", *(f"layer{layer}.0.downsample.1.{n}" for n in norms)}
    assert set(build("resnet18", norm="batch").state_dict()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("variant", KINDS)
@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 64, 64, 64)], ids=["2-D", "3-D"])
def test_every_variant_builds_without_a_download_with_a_head_and_without(variant, shape):
    assert parameters(build(variant, 3, shape, head=[5], dropout=0.1)) != parameters(build(variant, 3, shape))


def test_the_dermatology_seeds_head_is_a_layer_of_500_and_the_output():
    """seeds.md 3.4: efficientnet-b2, whose fully connected layer gives way to Linear(1408, 500) and Linear(500, 1)."""
    plain, seeds = build("efficientnet-b2", 1), build("efficientnet-b2", 1, head=[500], dropout=0.3)
    layers = [layer for layer in seeds._fc.modules() if isinstance(layer, (nn.Linear, nn.Dropout))]
    assert [(layer.in_features, layer.out_features) for layer in layers[1:]] == [(1408, 500), (500, 1)]
    assert layers[0].p == 0.3
    assert parameters(seeds) - parameters(plain) == (1408 * 500 + 500) + (500 + 1) - (1408 + 1)


@pytest.mark.parametrize("variant", ["resnet10", "densenet121", "efficientnet-b0", "seresnet50", "senet154"])
def test_dropout_is_there_once_and_replaces_the_networks_own(variant):
    # DenseNet and SENet have none before the output; of EfficientNet's stochastic depth nothing is changed.
    network = build(variant, 2, dropout=0.25)
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.25]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["resnet10", "densenet121", "efficientnet-b0", "seresnet50"])
@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 32, 32, 32)], ids=["2-D", "3-D"])
def test_a_network_with_a_head_gives_an_output_a_row(variant, shape):
    model = MonaiNetwork(kind=KINDS[variant], variant=variant, head=[7], dropout=0.5)
    network = build_image_model(model, list(shape), 3).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("width", [1, 7, 9, 12, 17, 24, 36, 64, 97])
def test_group_norm_takes_any_number_of_channels(width):
    (layer,) = norm_layers("group", width)
    assert width % layer.num_groups == 0
    assert layer(torch.randn(2, width, 4)).shape == (2, width, 4)


@pytest.mark.parametrize(
    ("model", "features"),
    [
        ({"kind": "cnn", "widths": [4, 6]}, 6),
        ({"kind": "cnn", "widths": [4], "head": [5]}, 5),
        ({"kind": "mnist_cnn"}, 128),
        ({"kind": "mlp", "hidden": [9]}, 9),
        ({"kind": "resnet", "variant": "resnet10"}, 512),
        ({"kind": "efficientnet", "head": [50]}, 50),
        ({"kind": "densenet"}, 1024),
        ({"kind": "senet"}, 2048),
        ({"kind": "logistic"}, None),
    ],
    ids=str,
)
def test_a_problem_with_images_knows_the_layer_behind_its_features(model, features):
    content = {"data": {"target": "y", "image": "file"}, "problem": "image_classification", "model": model}
    problem = create_problem(Experiment.parse(content), Setup(["file[0]"], {}, [0, 1], image_shape=[1, 32, 32]))
    with torch.device("meta"):
        head = problem.head(problem.build_networks())
    assert (head.in_features if head else None) == features
    assert head is None or head.out_features == 1


def test_an_unknown_variant_is_refused_with_those_there_are():
    content = {"data": {"target": "y", "image": "file"}, "problem": "image_classification"}
    with pytest.raises(ExperimentError, match="variant 'senet50' is no senet; allowed: seresnet50, seresnet101"):
        Experiment.parse(content | {"model": {"kind": "senet", "variant": "senet50"}})


@pytest.mark.parametrize(("variant", "head"), [("resnet10", []), ("densenet121", [5]), ("seresnet50", [])])
def test_the_private_head_is_the_layer_behind_the_features(variant, head):
    networks = {"model": build(variant, 3, head=head)}
    names = private_names(networks, PrivateSection(include=["head"]))
    tensors = networks["model"].state_dict()
    assert {tuple(tensors[name.removeprefix("model.")].shape)[:1] for name in names} == {(3,)}
    assert len(names) == 2
