"""Problem gan in a federation: three networks in one call, averaged as each is to be, and what does not go with it."""

import numpy as np
import pandas as pd
import pytest
import torch
from spying import Spy

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError, SiteError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training.state import build_networks

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = {"one": 24, "two": 16}
IMAGE = {"shape": [1, 16, 16], "range": [0, 255]}


def merged(first, second):
    """Return a mapping with another's keys in it; a section that names its kind takes the place of the other."""
    both = dict(first)
    for key, value in second.items():
        adds = isinstance(value, dict) and isinstance(both.get(key), dict) and "kind" not in value
        both[key] = {**both[key], **value} if adds else value
    return both


def experiment(**changes):
    content = {
        "data": {"target": "y", "image": IMAGE},
        "problem": {"kind": "gan", "latent": 4, "augment": {"length": 100}},
        "model": {"kind": "dcgan", "width": 2},
        "split": {"kind": "ratio", "train": 1, "validation": 0, "test": 0},
        "rounds": 2,
        "training": {"batch_size": 8},
    }
    return Experiment.parse(merged(content, changes))


def sites(high=255, size=16):
    """Return two hospitals' tables of pixels; images of class 1 are bright."""
    found = {}
    for name, rows in ROWS.items():
        generator = np.random.default_rng(rows)
        labels = np.arange(rows) % 2
        values = generator.integers(0, high // 2, (rows, size**2)) + labels[:, None] * (high // 2)
        frame = pd.DataFrame(values).rename(columns=lambda number: f"pixel{number}")
        found[name] = TableSource(frame=frame.assign(y=labels))
    return found


def watched(content, tables=None):
    """Run an experiment; return the result, and each site's packed models by round."""
    spy = Spy(local_federation(content, tables or sites()))
    result = run(spy, content)
    given = [(site, reply["folds"][0]["parameters"]) for method, site, reply in spy.replies if method == "RPC_train"]
    return result, [dict(given[start : start + len(ROWS)]) for start in range(0, len(given), len(ROWS))]


def problem_of(classes=2, **changes):
    return create_problem(experiment(**changes), Setup(["p[0]"], {}, list(range(classes)), image_shape=[1, 16, 16]))


def mean_of(round):
    states = {site: wire.unpack(text) for site, text in round.items()}
    names = next(iter(states.values()))
    total = sum(ROWS.values())
    return {
        name: sum(states[site][name].double() * ROWS[site] for site in ROWS) / total
        for name in names
        if names[name].is_floating_point()
    }


# -- in a federation -----------------------------------------------------------------------------------------------


def test_both_networks_the_average_and_p_come_back_as_the_weighted_mean_of_the_sites():
    result, rounds = watched(experiment())
    made = wire.unpack(result["parameters"])
    assert {name.partition(".")[0] for name in made} == {"generator", "discriminator", "ema"}
    expected = mean_of(rounds[-1])
    for name, tensor in expected.items():
        assert torch.allclose(made[name].double(), tensor, atol=1e-6), name
    p = [wire.unpack(text)["discriminator.augment_p"].item() for text in rounds[-1].values()]
    assert made["discriminator.augment_p"].item() == pytest.approx(0.6 * p[0] + 0.4 * p[1])
    assert made["discriminator.images"].item() == pytest.approx(2 * (0.6 * 24 + 0.4 * 16))
    assert made["discriminator.steps"].item() == 6, "of the site that made the most"


def test_the_sites_average_is_averaged_and_no_servers_step_touches_it():
    result, rounds = watched(experiment(strategy={"kind": "fedadam", "lr": 0.1}))
    made, mean = wire.unpack(result["parameters"]), mean_of(rounds[-1])
    for name, tensor in made.items():
        if name.startswith("ema."):
            assert torch.allclose(tensor.double(), mean[name], atol=1e-6), name
    weight = "generator.first.weight"
    assert not torch.allclose(made[weight].double(), mean[weight], atol=1e-2)


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "cyclic"},
        {"strategy": {"kind": "fedavg", "combine": {"kind": "median", "malicious": 0}}},
        {"strategy": {"kind": "fedavg", "compress": "int8"}, "rounds": 3},
        {"strategy": {"kind": "fedavg", "private": "norm"}},
        {"strategy": {"kind": "fedavg", "private": "discriminator.*"}},
        {"strategy": {"kind": "fedavg", "clip": 1.0}},
        {"mode": "centralised"},
        {"mode": "local"},
        {"output": {"model": "ema"}},
        {"training": {"dtype": "float64"}},
        {"training": {"augmentation": ["flip"]}},
        {"model": {"kind": "stylegan2", "channel_base": 32, "mapping_layers": 1, "style": 4}},
        {"problem": {"conditional": False}},
    ],
    ids=str,
)
def test_it_goes_with(changes):
    content = experiment(**changes)
    result = run(local_federation(content, sites()), content)
    assert result["status"] == "completed"
    assert np.isfinite(result["history"]["train_loss"]).all()


def test_the_discriminator_may_stay_at_the_sites():
    result, _ = watched(experiment(strategy={"kind": "fedavg", "private": "discriminator.*"}))
    assert {name.partition(".")[0] for name in wire.unpack(result["parameters"])} == {"generator", "ema"}


def test_an_average_is_nothing_that_is_learned_together():
    content = experiment(strategy={"kind": "fedavg", "private": ["generator.*", "discriminator.*"]})
    with pytest.raises(ExperimentError, match="some must be private and some shared"):
        run(local_federation(content, sites()), content)


def test_a_run_goes_on_from_the_weights_and_counts_of_an_earlier_one():
    first, _ = watched(experiment())
    content = experiment(start={"weights": "earlier.safetensors"}, rounds=1)
    result = run(local_federation(content, sites()), content, weights=first["parameters"])
    images = [wire.unpack(one["parameters"])["discriminator.images"].item() for one in (first, result)]
    assert images == pytest.approx([2 * 20.8, 3 * 20.8])


def test_the_same_seed_gives_the_same_bits():
    assert watched(experiment())[0]["parameters"] == watched(experiment())[0]["parameters"]


@pytest.mark.slow
def test_classes_that_differ_are_made_to_differ():
    changes = {
        "rounds": 30,
        "training": {"batch_size": 8, "optimizer": {"kind": "adam", "lr": 0.005, "betas": [0.0, 0.99]}},
    }
    content = experiment(model={"kind": "dcgan", "width": 4}, problem={"augment": None}, **changes)
    networks = build_networks(problem_of(model={"kind": "dcgan", "width": 4}))
    from v6_algorithm.learning.training.state import load_state

    load_state(networks, wire.unpack(run(local_federation(content, sites()), content)["parameters"]))
    made = create_problem(content, Setup(["p[0]"], {}, [0, 1], image_shape=[1, 16, 16])).generate(
        networks, torch.arange(40) % 2, torch.Generator().manual_seed(0)
    )
    dark, bright = made[::2].mean(dim=(1, 2, 3)), made[1::2].mean(dim=(1, 2, 3))
    assert bright.mean() - dark.mean() > 0.3, "real ones differ by 0.5"


# -- synthetic images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_are_of_their_shape_from_0_to_1_and_those_of_the_seed(dtype):
    problem = problem_of(training={"dtype": dtype})
    networks = build_networks(problem)
    labels = torch.tensor([0, 1, 1])
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(problem.generate(networks, labels, torch.Generator().manual_seed(7)))
    assert torch.equal(*made)
    assert (made[0].shape, made[0].dtype) == ((3, 1, 16, 16), torch.float32)
    assert 0 <= made[0].min() <= made[0].max() <= 1
    assert not torch.equal(made[0], problem.generate(networks, labels, torch.Generator().manual_seed(8)))


def test_they_come_from_the_average_and_not_from_the_generator():
    problem = problem_of()
    networks = build_networks(problem)
    before = problem.generate(networks, torch.tensor([0]), torch.Generator().manual_seed(7))
    for parameter in networks["generator"].parameters():
        parameter.data.zero_()
    assert torch.equal(before, problem.generate(networks, torch.tensor([0]), torch.Generator().manual_seed(7)))


def test_it_has_no_loss_of_a_row_and_predicts_nothing():
    problem = problem_of()
    for asked in (
        lambda: problem.row_loss(torch.zeros(1), torch.zeros(1), 0),
        lambda: problem.prediction(torch.zeros(1)),
    ):
        with pytest.raises(SiteError, match="predicts nothing"):
            asked()


# -- what does not go with it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(({"strategy": kind}, f"strategy {kind} does not go with problem gan") for kind in
          ("fedprox", "feddyn", "qfedavg", "agnostic", "fedsgd")),
        *(({"strategy": kind, "training": {"optimizer": {"kind": "sgd", "lr": 0.1}}}, f"strategy {kind} does not go")
          for kind in ("scaffold", "fednova")),
        ({"personal": "fine_tune"}, "personal does not go with problem gan"),
        ({"evaluation": {"subgroups": ["sex"]}}, "evaluation.subgroups does not go with problem gan"),
        ({"training": {"augmentation": ["mixup"]}}, "training.augmentation mixup does not go"),
        ({"training": {"augmentation": [{"kind": "crop", "size": 16}]}}, "training.augmentation crop does not go"),
        ({"training": {"accumulate": 2}}, "training.accumulate does not go with problem gan"),
        ({"training": {"loss": "cross_entropy"}}, "training.loss.kind is cross_entropy; problem gan takes none"),
        ({"data": {"scaling": "standard"}}, "data.scaling must be none"),
        ({"data": {"image": {"column": "f", "mean": [0.5], "sd": [0.5]}}}, "data.scaling must be none"),
        ({"data": {"image": {"shape": [1, 28, 28]}}}, "square images of 16, 32, 64, 128, 256, 512 pixels"),
        ({"data": {"image": {"shape": [2, 16, 16]}}}, "1 or 3 channels; these have 16 x 16 and 2"),
        ({"data": {"image": {"column": "f", "size": [32, 64]}}}, "these have 32 x 64"),
        ({"data": {"image": {"column": "f", "dimensions": 3}}}, "dimensions is 2 for image_classification and gan"),
        ({"data": {"image": None}}, "data.image goes with problem image_classification, volume_classification or gan"),
        ({"model": "cnn"}, "model.kind cnn is not for gan, which takes dcgan or stylegan2"),
        ({"stopping": {"monitor": "loss"}}, "stopping.monitor is 'loss', which problem gan does not measure"),
        ({"problem": {"gamma": 1}}, "unknown key 'gamma'"),
        ({"problem": {"augment": {"probability": 0.9}}}, "augment.probability: must be less than or equal to 0.8"),
        ({"problem": {"augment": {"kinds": ["flip", "flip"]}}}, "a kind is named twice"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_does_not_go_together_is_refused_before_any_site_is_asked(changes, reason):
    with pytest.raises(ExperimentError) as refused:
        experiment(**changes)
    assert reason in str(refused.value)


def test_another_problem_does_not_take_its_networks():
    with pytest.raises(ExperimentError, match=r"model\.kind dcgan is not for image_classification"):
        Experiment.parse({"data": {"target": "y", "image": "f"}, "problem": "image_classification", "model": "dcgan"})


def test_its_defaults_are_not_those_of_other_problems_and_give_way_to_what_is_given():
    given = {"data": {"target": "y", "image": "f"}, "problem": "gan"}
    content = Experiment.parse(given)
    assert (content.data.scaling.kind, content.stopping.monitor, content.stopping.patience) == ("none", "fid", None)
    assert content.training.optimizer.options() == {"lr": 0.001, "betas": [0.0, 0.99]}
    assert content.model.kind == "dcgan"
    assert Experiment.parse(given | {"model": "stylegan2"}).training.optimizer.options()["lr"] == 0.002
    changed = Experiment.parse(
        given | {"training": {"optimizer": "sgd"}, "stopping": {"monitor": "kid", "patience": 3}}
    )
    assert (changed.training.optimizer.kind, changed.stopping.monitor, changed.stopping.patience) == ("sgd", "kid", 3)
    assert Experiment.parse(content.resolved()).resolved() == content.resolved()
    assert Experiment.parse(content.for_task()).resolved() == content.resolved()


def test_pixels_beyond_0_to_1_are_told_without_their_values(run_locally):
    image = {key: value for key, value in IMAGE.items() if key != "range"}
    with pytest.raises(ExperimentError, match=r"one.*data\.image: problem gan needs pixels from 0 to 1") as refused:
        run_locally(experiment(data={"image": image}), sites(high=197))
    assert "19" not in str(refused.value)


def test_images_of_files_that_cannot_be_made_are_told_with_their_size(tmp_path, run_locally):
    np.save(tmp_path / "scan.npy", np.zeros((18, 16), dtype=np.uint8))
    table = pd.DataFrame({"file": ["scan.npy"] * 20, "y": [0, 1] * 10})
    content = experiment(data={"image": {"column": "file"}})
    with pytest.raises(ExperimentError, match="these have 18 x 16 and 1; see size and channels"):
        run_locally(content, {name: TableSource(frame=table, base=tmp_path) for name in ROWS})
