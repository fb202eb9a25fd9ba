"""Tensors of a GPU meet none of the CPU: losses, sums, changes and whole runs give there what they give here.

Where there is no GPU, one is pretended, which refuses what torch refuses on a real one; see `pretend_gpu`.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import make_table
from pretend_gpu import pretended_gpu
from torch import nn

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment, Training
from v6_algorithm.learning.models.glm import GeneralisedLinear, ScoringSums
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training import augmentation
from v6_algorithm.learning.training.device import Device
from v6_algorithm.learning.training.generative.adversarial import Adversaries
from v6_algorithm.learning.training.learner import TrainingContext
from v6_algorithm.learning.training.loop import Rows, train
from v6_algorithm.learning.training.private_gradients import clipped_sum
from v6_algorithm.learning.training.state import build_networks, state_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def gpu():
    with pretended_gpu():
        yield torch.device("cuda")


def near(there, here):
    """What was computed on the GPU is there, and is what the CPU gives."""
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-5)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_pretended_gpu_refuses_what_a_real_one_refuses(gpu):
    here, there = drawn(3), drawn(3).to(gpu)
    for mixed in (
        lambda: here + there,
        lambda: torch.stack([here, there]),
        lambda: torch.where(here > 0, there, there),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    assert (there[torch.tensor([2, 0])].cpu() == here[[2, 0]]).all(), "rows are found by numbers of the CPU"


@pytest.mark.parametrize("problem", ["survival", {"kind": "survival", "method": "discrete_time", "intervals": 4}])
def test_losses_of_survival(gpu, problem):
    content = {"data": {"target": {"duration": "t", "event": "e"}}, "problem": problem, "model": "linear"}
    times = {"event_times": np.arange(1, 60)}
    created = create_problem(Experiment.parse(content), Setup(["a"], {}, None, sums=times))
    output = drawn(12, created.outputs)
    target = torch.stack([torch.arange(12) % 5 + 1.0, torch.arange(12) % 3 % 2 * 1.0], dim=1)
    near(created.row_loss(output.to(gpu), target.to(gpu), 0), created.row_loss(output, target, 0))


def test_sums_of_a_glm_with_a_null_model_and_the_fits_of_a_penalty(gpu):
    inputs, y = drawn(30, 3).double(), (torch.arange(30) % 4).double()

    def sums(device):
        model = GeneralisedLinear(3, "poisson", "log", null=True, fits=6).to(device)
        with torch.no_grad():
            model.totals.fill_(1.0)
            model.path_on.fill_(1.0)
        learner = ScoringSums(model, lambda output, target: output[:, 0], lambda rows: torch.arange(rows) % 3)
        learner.step(inputs.to(device), y.to(device))
        learner.finish()
        return dict(model.named_buffers())

    here = sums(torch.device("cpu"))
    for name, there in sums(gpu).items():
        near(there, here[name])


@pytest.mark.parametrize(
    "kind", ["flip", "rotation", "zoom", {"kind": "crop", "size": 6}, "color", "noise", "mixup"], ids=str
)
@pytest.mark.parametrize("shape", [(8, 10), (6, 8, 10)], ids=["image", "volume"])
def test_images_are_changed(gpu, kind, shape):
    kinds = Training.model_validate({"augmentation": [kind]}).augmentation
    there, here = (
        augmentation.augment(drawn(4, 3, *shape).to(device), kinds, torch.Generator().manual_seed(1))[0]
        for device in (gpu, "cpu")
    )
    near(there, here)


def test_gradients_of_single_rows(gpu):
    problem = SimpleNamespace(
        joint=False,
        expansion=1,
        forward=lambda networks, inputs: networks["model"](inputs),
        row_loss=lambda output, target, fold: output[:, 0] * target,
    )

    def summed(device):
        torch.manual_seed(0)
        networks = {"model": nn.Linear(3, 1).to(device)}
        rows = drawn(6, 3).to(device), drawn(6).to(device), (torch.arange(6) // 2).to(device)
        return clipped_sum(problem, networks, *rows, fold=0, clip=0.5)[0]

    here = summed("cpu")
    for name, there in summed(gpu).items():
        near(there, here[name])


def test_a_step_of_two_networks_against_each_other(gpu):
    content = {"data": {"target": "y", "image": {"column": "scan"}}, "problem": {"kind": "gan", "latent": 4}}
    content["model"] = {"kind": "stylegan2", "channel_base": 64, "channel_max": 4, "mapping_layers": 1, "style": 4}
    problem = create_problem(Experiment.parse(content), Setup(["scan[0]"], {}, [0, 1], image_shape=[1, 16, 16]))
    images, labels = drawn(6, 1, 16, 16).sigmoid(), torch.arange(6) % 2

    def stepped(device):
        networks = build_networks(problem)
        for network in networks.values():
            network.to(device).train()
        context = TrainingContext(0, "here", 1, 0, Device.choose(problem.experiment.training))
        learner = Adversaries(networks, problem.options, problem.experiment.training, problem.classes, context)
        loss = learner.step(images.to(device), labels.to(device))
        learner.finish()
        assert all(value.device.type == torch.device(device).type for value in state_of(networks).values())
        return loss

    assert torch.isfinite(stepped(gpu).cpu())


def test_rows_are_read_by_numbers_that_the_gpu_need_not_be_asked_for(gpu):
    problem = create_problem(Experiment.parse({"data": {"target": "y"}, "model": "linear"}), Setup(["a"], {}, [0, 1]))
    asked = []

    class Images:
        nbytes = 0

        def __getitem__(self, rows):
            asked.append(rows.device.type)
            return drawn(len(rows), 1).to(gpu)

    networks = {name: network.to(gpu) for name, network in build_networks(problem).items()}
    rows = Rows(Images(), (torch.arange(40) % 2).to(gpu), torch.zeros(40, dtype=torch.long).to(gpu))
    device = Device.choose(problem.experiment.training)
    train(problem, networks, rows, torch.arange(40), site="here", round=1, fold=0, device=device)
    assert asked
    assert set(asked) == {"cpu"}


def regression(rows, seed):
    inputs = np.random.default_rng(seed).normal(size=(rows, 3))
    counts = np.random.default_rng(seed).poisson(np.exp(0.3 * inputs[:, 0]))
    return TableSource(frame=pd.DataFrame(inputs, columns=list("abc")).assign(y=counts))


# Coordinators that add to a site's numbers some of their own.
RUNS = {
    "scaffold": {"strategy": "scaffold", "model": {"kind": "mlp", "hidden": [3], "norm": "batch"}},
    "glm": {"problem": "count", "model": {"kind": "glm", "family": "poisson"}, "rounds": 4, "training": {}},
}


@pytest.mark.parametrize("content", RUNS.values(), ids=RUNS)
def test_a_run_at_the_desk_is_that_of_the_cpu(content):
    shared = {
        "data": {"target": "y"},
        "rounds": 2,
        "training": {"batch_size": 32, "optimizer": {"kind": "sgd", "lr": 0.1}},
    }
    experiment = Experiment.parse(shared | content)
    table = regression if "problem" in content else lambda rows, seed: TableSource(frame=make_table(rows, seed))
    sites = {"berlin": table(60, 1), "cairo": table(50, 2)}

    def state():
        result = run(local_federation(experiment, sites, way="exact"), experiment)
        return {name: result[name] for name in ("history", "metrics", "coefficients") if name in result}, result

    here, result = state()
    assert {told["name"] for told in result["devices"].values()} == {"cpu"} or torch.cuda.is_available()
    with pretended_gpu():
        there, result = state()
    assert all(told["name"].startswith("cuda") for told in result["devices"].values())
    for name, value in here.items():
        flat, other = (pd.json_normalize(content) for content in ({"it": value}, {"it": there[name]}))
        pd.testing.assert_frame_equal(other, flat, rtol=1e-3)
