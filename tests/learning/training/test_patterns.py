"""Which tensors stay at a site: patterns are about modules, not about how a name is spelt."""

import pytest
import torch
from torch import nn

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment.strategy.private import PrivateSection
from v6_algorithm.learning.training.patterns import private_names


class Residual(nn.Module):
    """As a ResNet's block: the shortcut's normalisation has no `bn` in its name, and a convolution has."""

    def __init__(self):
        super().__init__()
        self.bnarrow = nn.Conv2d(3, 4, 1)
        self.bn1 = nn.BatchNorm2d(4)
        self.downsample = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.norm = nn.GroupNorm(2, 4)
        self.out = nn.Linear(4, 2)
        self.last = nn.LayerNorm(2)


NETWORKS = {"model": Residual()}


def named(include, exclude=(), networks=NETWORKS):
    return private_names(networks, PrivateSection(include=include, exclude=list(exclude)))


def layers(names):
    return {name.rpartition(".")[0] for name in names}


def test_nothing_is_private_unless_asked_for():
    assert private_names(NETWORKS, None) == frozenset()


def test_dermatology_trap_norm_finds_every_normalisation_and_nothing_else():
    """seeds.md 3.7: the substring `bn` misses the normalisation of ResNet's shortcuts."""
    names = named(["norm"])
    assert layers(names) == {"model.bn1", "model.downsample.1", "model.norm", "model.last"}
    assert {name for name in names if name.startswith("model.bn1.")} == {
        f"model.bn1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


def test_the_head_is_the_last_layer_that_normalises_nothing():
    assert named(["head"]) == {"model.out.weight", "model.out.bias"}
    two = {"generator": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), "critic": nn.Sequential(nn.Linear(4, 1))}
    assert layers(named(["head"], networks=two)) == {"generator.1", "critic.0"}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["BatchNorm2d"], [], {"model.bn1", "model.downsample.1"}),
        (["*Norm*"], ["BatchNorm?d"], {"model.norm", "model.last"}),
        (["Sequential"], [], {"model.downsample.0", "model.downsample.1"}),
        (["model.downsample.*"], ["norm"], {"model.downsample.0"}),
        (["norm", "head"], [], {"model.bn1", "model.downsample.1", "model.norm", "model.last", "model.out"}),
    ],
)
def test_a_word_is_a_class_of_modules_and_one_with_a_dot_is_a_name(include, exclude, expected):
    assert layers(named(include, exclude)) == expected


def test_names_are_found_without_the_networks_numbers():
    with torch.device("meta"):
        assert named(["norm"], networks={"model": Residual()}) == named(["norm"])


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (["bn"], [], "'bn' fits no tensor of the model; allowed: norm, head, a class of layers"),
        (["model.fc.*"], [], "'model.fc.*' fits no tensor"),
        (["norm"], ["LSTM"], "'LSTM' fits no tensor"),
        (["model.*"], [], "names all of the model's parameters"),
        (["Residual"], [], "names all of the model's parameters"),
        (["head"], ["Linear"], "names no tensor of the model"),
    ],
)
def test_a_pattern_without_effect_or_that_leaves_nothing_to_share_is_refused(include, exclude, message):
    with pytest.raises(ExperimentError) as refused:
        named(include, exclude)
    assert message in str(refused.value)
