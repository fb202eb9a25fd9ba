"""Two networks that train against each other: every part against its formula, and rounds that can be repeated."""

import copy

import pytest
import torch
from torch import nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import SiteError
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training.device import Device
from v6_algorithm.learning.training.generative.adversarial import (
    Adversaries,
    advantage,
    classification_loss,
    ema_decay,
    one_hot,
    r1_penalty,
)
from v6_algorithm.learning.training.learner import TrainingContext
from v6_algorithm.learning.training.loop import Rows, train
from v6_algorithm.learning.training.objectives import create_objective
from v6_algorithm.learning.training.state import build_networks, spec_of, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


MODELS = {
    "dcgan": {"kind": "dcgan", "width": 2},
    "stylegan2": {"kind": "stylegan2", "channel_base": 64, "channel_max": 8, "mapping_layers": 2, "style": 6},
}


def problem_of(model="dcgan", size=16, training=None, **options):
    content = {
        "data": {"target": "y", "image": {"column": "scan"}},
        "problem": {"kind": "gan", "latent": 5, **options},
        "model": MODELS[model],
        "training": {"batch_size": 8, **(training or {})},
    }
    return create_problem(Experiment.parse(content), Setup(["scan[0]"], {}, [0, 1], image_shape=[1, size, size]))


def rows_of(count=20, size=16):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, size, size, generator=generator)
    return Rows(images, torch.arange(count) % 2, torch.zeros(count, dtype=torch.long))


def trained(problem, networks=None, *, round=1, site="here", **options):
    networks = networks or build_networks(problem)
    rows = rows_of()
    sums = train(problem, networks, rows, torch.arange(20), site=site, round=round, fold=0, **options)
    return networks, sums


def adversaries(problem, networks=None):
    networks = networks or build_networks(problem)
    context = TrainingContext(0, "here", 1, 0)
    return networks, Adversaries(networks, problem.options, problem.experiment.training, problem.classes, context)


class Sure(nn.Module):
    """A discriminator's body that thinks the same of every image, whose features are its mean."""

    def __init__(self, output):
        super().__init__()
        self.output = nn.Parameter(torch.tensor(float(output)))

    def forward(self, images, classes):
        return self.output + 0 * images.sum(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3))[:, None].expand(-1, 8)


@pytest.mark.parametrize("model", MODELS)
def test_all_parameters_move_in_a_round_and_the_average_follows(model):
    problem = problem_of(model)
    before = {name: tensor.clone() for name, tensor in state_of(build_networks(problem)).items()}
    networks, sums = trained(problem)
    # A number's own slope may be zero for a class's scale that has not been used, never for a whole network's.
    still = [name for name, tensor in state_of(networks).items() if torch.equal(tensor, before[name])]
    assert [name for name in still if not name.endswith("augment_p")] == []
    assert (sums.rows, sums.steps) == (20, 3)


def test_the_loss_that_is_told_is_that_of_both_networks_by_image():
    """Of a discriminator that cannot tell, log 2 for real images, for made ones, and for the generator."""
    problem = problem_of(r1=0.0, augment=None, training={"optimizer": {"kind": "sgd", "lr": 1e-9}})
    networks = build_networks(problem)
    networks["discriminator"].body = Sure(0)
    _, sums = trained(problem, networks)
    assert sums.loss / sums.rows == pytest.approx(3 * torch.log(torch.tensor(2.0)).item(), rel=1e-5)


def test_classes_are_told_apart_among_real_and_among_made_images():
    """By hand, of two classes: the outputs are for real images of class 0 and 1, then for made ones."""
    classes = one_hot(torch.tensor([0, 1]), 2, torch.float64)
    real = torch.tensor([[2.0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.float64)
    made = torch.tensor([[1.0, 0, 3, 0], [0, 1, 0, 2]], dtype=torch.float64)
    of_real = -(real.log_softmax(1)[0, 0] + real.log_softmax(1)[1, 1]) / 2
    of_made = -(made.log_softmax(1)[0, 2] + made.log_softmax(1)[1, 3]) / 2
    assert classification_loss(real, made, classes).item() == pytest.approx(((of_real + of_made) / 2).item())
    # log of p(real, class) over p(made, class), of the images that the generator made.
    assert advantage(made, classes).tolist() == pytest.approx([1 - 3, 1 - 2])


def test_the_generator_is_drawn_to_what_the_classifier_takes_for_real_images_of_the_class():
    problem = problem_of(r1=0.0, augment=None, training={"optimizer": {"kind": "adam", "lr": 0.01}})
    networks, learner = adversaries(problem)
    networks["discriminator"].body = Sure(0)
    classifier = networks["discriminator"].classifier
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.weight[:2] = torch.tensor([[1.0], [-1.0]])  # bright images are of class 0, dark ones of class 1
    classes = one_hot(torch.arange(8) % 2, 2, torch.float32)
    latents = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    start = networks["generator"](latents, classes).detach()
    for _ in range(40):
        learner._teach_generator(networks["generator"](latents, classes), classes)
    brighter = (networks["generator"](latents, classes) - start).mean(dim=(1, 2, 3))
    assert (brighter[::2] > 0).all()
    assert (brighter[1::2] < 0).all()


def test_without_a_weight_nothing_tells_the_classes_apart():
    networks = build_networks(problem_of(classify=0))
    assert networks["discriminator"].classifier is None
    assert networks["discriminator"].judge(rows_of().inputs, torch.eye(2).repeat(10, 1))[1] is None


def test_r1_of_a_linear_discriminator_is_the_norm_of_its_weights():
    class Linear(nn.Module):
        weight = nn.Parameter(torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0)))

        def forward(self, images, classes):
            return (images * self.weight).sum(dim=(1, 2, 3)) + 7

    penalty = r1_penalty(Linear(), rows_of().inputs, torch.zeros(20, 0))
    assert penalty.tolist() == pytest.approx([Linear.weight.square().sum().item()] * 20, rel=1e-5)
    penalty.mean().backward()
    assert torch.allclose(Linear.weight.grad, 2 * Linear.weight, rtol=1e-5)


def test_r1_comes_in_every_nth_batch_also_over_the_end_of_a_round(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "v6_algorithm.learning.training.generative.adversarial.r1_penalty",
        lambda discriminator, images, classes: asked.append(1) or torch.zeros(len(images)),
    )
    problem = problem_of(r1_every=4)
    networks = build_networks(problem)
    counts = []
    for round in (1, 2, 3, 4):
        trained(problem, networks, round=round)
        counts.append(len(asked))
    assert counts == [1, 2, 3, 3], "batches 0, 4 and 8 of 12"
    assert networks["discriminator"].steps.item() == 12


def test_the_average_is_the_formulas():
    problem = problem_of(ema_images=100, ema_rampup=None)
    networks, learner = adversaries(problem)
    mean = [parameter.clone() for parameter in networks["ema"].parameters()]
    for batch in (8, 8, 4):
        learner.step(torch.rand(batch, 1, 16, 16), torch.arange(batch) % 2)
        decay = 0.5 ** (batch / 100)
        mean = [decay * old + (1 - decay) * new for old, new in zip(mean, networks["generator"].parameters())]  # noqa: B905
    for expected, found in zip(mean, networks["ema"].parameters(), strict=True):
        assert torch.allclose(expected, found, atol=1e-6)


def test_half_of_an_average_is_left_after_its_half_life_and_at_first_it_forgets_faster():
    assert ema_decay(64, 64) == 0.5
    problem = problem_of(ema_images=10_000, ema_rampup=0.05)
    networks, learner = adversaries(problem)
    learner.step(torch.rand(8, 1, 16, 16), torch.arange(8) % 2)
    for mean, value in zip(networks["ema"].parameters(), networks["generator"].parameters(), strict=True):
        assert torch.allclose(mean, value, atol=1e-5), "of 8 images 2 ** -20 is left"


@pytest.mark.parametrize(("output", "start", "end"), [(3, 0.0, 0.2), (-3, 0.5, 0.3), (-3, 0.0, 0.0), (3, 0.8, 0.8)])
def test_p_rises_while_the_discriminator_is_sure_of_real_images_and_falls_else(output, start, end):
    problem = problem_of(augment={"length": 100, "probability": start}, r1=0.0)
    networks = build_networks(problem)
    networks["discriminator"].body = Sure(output)
    trained(problem, networks)
    assert networks["discriminator"].augment_p.item() == pytest.approx(end), "20 of 100 images"


def test_p_goes_on_from_round_to_round_and_stays_where_there_is_no_target():
    problem = problem_of(augment={"length": 100, "probability": 0.1}, r1=0.0)
    networks = build_networks(problem)
    networks["discriminator"].body = Sure(3)
    for round in (1, 2):
        trained(problem, networks, round=round)
    assert networks["discriminator"].augment_p.item() == pytest.approx(0.5)
    networks, _ = trained(problem_of(augment={"target": None, "probability": 0.3}))
    assert networks["discriminator"].augment_p.item() == pytest.approx(0.3)


def test_real_and_made_images_are_changed_and_the_networks_see_values_from_minus_one_to_one(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "v6_algorithm.learning.training.generative.adversarial.augment",
        lambda images, probability, kinds, generator: seen.append(images.detach()) or images,
    )
    _, learner = adversaries(problem_of())
    images = rows_of(8).inputs
    learner.step(images, torch.arange(8) % 2)
    assert torch.equal(seen[0], 2 * images - 1)
    assert torch.equal(seen[1], seen[2]), "the images that the discriminator saw, and then the generator learns from"


@pytest.mark.parametrize("model", MODELS)
def test_a_repeated_round_has_the_same_bits_and_others_do_not(model):
    problem = problem_of(model, augment={"target": None, "probability": 0.5})
    one, again = (state_of(trained(problem)[0]) for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    name = next(name for name in one if name.startswith("generator."))
    for changed in ({"round": 2}, {"site": "there"}):
        assert not torch.equal(one[name], state_of(trained(problem, **changed)[0])[name])


def test_the_discriminator_has_a_learning_rate_of_its_own_and_both_a_schedule():
    problem = problem_of(
        discriminator_lr=0.1,
        training={
            "optimizer": {"kind": "sgd", "lr": 0.2},
            "scheduler": {"kind": "steplr", "step_size": 1, "gamma": 0.5},
        },
    )
    networks = build_networks(problem)
    learner = Adversaries(networks, problem.options, problem.experiment.training, 2, TrainingContext(0, "here", 3, 0))
    rates = [one.param_groups[0]["lr"] for one in (learner._steps_generator, learner._steps_discriminator)]
    assert rates == pytest.approx([0.05, 0.005])


def test_a_rate_that_follows_from_validation_is_both_networks_with_the_factor():
    problem = problem_of(discriminator_lr=0.1)
    context = TrainingContext(0, "here", 1, 0, lr=0.03)
    learner = Adversaries(build_networks(problem), problem.options, problem.experiment.training, 2, context)
    rates = [one.param_groups[0]["lr"] for one in (learner._steps_generator, learner._steps_discriminator)]
    assert rates == pytest.approx([0.03, 0.003])


def test_frozen_layers_of_the_discriminator_stay_and_the_others_learn():
    problem, name = problem_of(), "discriminator.body.convolutions.0.weight"
    before = {key: tensor.clone() for key, tensor in state_of(build_networks(problem)).items()}
    after = state_of(trained(problem, frozen={name})[0])
    assert torch.equal(before[name], after[name])
    assert not torch.equal(before["discriminator.body.last.weight"], after["discriminator.body.last.weight"])


def test_a_network_that_is_frozen_as_a_whole_is_refused():
    problem = problem_of()
    networks = build_networks(problem)
    names = {name for name in state_of(networks) if name.startswith("discriminator.")}
    with pytest.raises(SiteError, match=r"training\.freeze leaves one of the networks nothing to learn"):
        trained(problem, networks, frozen=names)


def test_a_batch_that_does_not_fit_is_told_and_not_tried_in_halves(monkeypatch):
    def full(self, inputs, target):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(Adversaries, "step", full)
    with pytest.raises(SiteError, match="does not hold 8 rows at once"):
        trained(problem_of())


def test_in_mixed_precision_it_learns_and_its_numbers_stay_full():
    networks, sums = trained(problem_of("stylegan2"), device=Device(mixed=True))
    assert {tensor.dtype for name, tensor in state_of(networks).items() if "steps" not in name} == {torch.float32}
    full = trained(problem_of("stylegan2"))[1]
    assert sums.loss == pytest.approx(full.loss, rel=0.05)
    assert sums.loss != full.loss


def test_divergence_is_told():
    problem = problem_of(training={"optimizer": {"kind": "sgd", "lr": 1e30}, "local_epochs": 3})
    with pytest.raises(SiteError, match="diverged in round 1"):
        trained(problem)


def test_a_strategy_that_changes_steps_is_refused():
    problem = problem_of()
    networks = build_networks(problem)
    with pytest.raises(SiteError, match="takes steps of its own"):
        trained(problem, networks, objective=create_objective({"mu": 0.1}, spec_of(networks)))


def test_classes_become_columns_and_none_none():
    assert one_hot(torch.tensor([1, 0]), 2, torch.float64).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert one_hot(torch.tensor([1, 0]), 0, torch.float32).shape == (2, 0)


def test_the_average_is_no_parameter_whatever_state_is_loaded():
    from v6_algorithm.learning.training.state import build_shapes, load_state

    problem = problem_of()
    networks, shapes = build_networks(problem), build_shapes(problem)
    load_state(shapes, copy.deepcopy(state_of(networks)))
    for found in (networks, shapes):
        kinds = {name: item.kind for name, item in spec_of(found).items()}
        assert {kind for name, kind in kinds.items() if name.startswith("ema.")} == {"buffer"}
        assert {kind for name, kind in kinds.items() if name.startswith("generator.")} == {"parameter"}
        counts = [kinds[f"discriminator.{name}"] for name in ("augment_p", "images", "steps")]
        assert counts == ["buffer", "buffer", "counter"]
