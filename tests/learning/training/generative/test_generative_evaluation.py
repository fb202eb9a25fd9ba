"""What a generative problem is measured and shown by, with a generator whose images are known."""

import base64
import io

import numpy as np
import pytest
import torch
from pictures import images
from torch import nn

from v6_algorithm.data.preparation import Setup
from v6_algorithm.exchange import png
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import compute, merge_states
from v6_algorithm.learning.problems.base import Problem
from v6_algorithm.learning.training.generative.evaluation import evaluate, sample_grid, to_bytes
from v6_algorithm.learning.training.loop import Rows

ROWS = 160


class Copier(Problem):
    """Makes images by drawing from a store of them, of the class that is asked for, and adding `network`'s number."""

    generative = True
    classification = True

    def __init__(self, experiment, setup, store):
        super().__init__(experiment, setup)
        self._images, self._shown = store

    def build_networks(self):
        return {"ema": nn.Linear(1, 1)}

    def row_loss(self, output, target, fold):
        raise AssertionError("no row has a loss")

    def prediction(self, output):
        raise AssertionError("nothing is predicted")

    def generate(self, networks, labels, generator):
        assert not networks["ema"].training
        assert not torch.is_grad_enabled()
        drawn = torch.randint(0, len(self._images) // 2, (len(labels),), generator=generator)
        noise = 1e-3 * torch.randn(len(labels), 1, 1, 1)
        return (self._images[2 * drawn + labels] + networks["ema"].bias + noise).clamp(0, 1)


def tensors(rows, seed, size=16):
    pixels, shown = images(rows, seed, size)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(shown)


def copier(store=None, **changes):
    experiment = Experiment.parse(
        {"data": {"target": "kind", "image": {"column": "file"}}, "problem": "gan", **changes}
    )
    setup = Setup(["0", "1", "2"], {}, ["cross", "disc"], image_shape=[3, 16, 16])
    return Copier(experiment, setup, store or tensors(400, 1))


def networks(offset=0.0):
    network = nn.Linear(1, 1)
    nn.init.constant_(network.bias, offset)
    return {"ema": network.train()}


INPUTS, TARGET = tensors(ROWS, 0)
HERE = {"site": "amsterdam", "round": 3, "fold": 0}


def states(problem, offset=0.0, members=1, part=None, **changes):
    rows = Rows(INPUTS, TARGET, torch.arange(ROWS) % members)
    names = ["amsterdam", "berlin"][:members]
    chosen = torch.arange(ROWS) if part is None else part
    return evaluate(problem, networks(offset), rows, chosen, names, **HERE | changes)


def fid(found):
    return compute(merge_states(found.values()))["fid"]


def test_a_generator_of_such_images_is_nearer_than_one_of_brighter_ones_or_of_one_class():
    good = fid(states(copier()))
    store, shown = tensors(400, 1)
    one_class = store[shown.bool()].repeat_interleave(2, dim=0), shown
    assert good < fid(states(copier(), 0.1)) < fid(states(copier(), 0.3))
    assert 2 * good < fid(states(copier(one_class)))


def test_as_many_images_are_made_as_there_are_rows_of_the_part():
    found = states(copier(), part=torch.arange(20, 120))
    assert compute(found["amsterdam"])["n"] == 100


def test_a_request_that_is_repeated_is_answered_alike_and_other_rounds_and_sites_are_not():
    first = states(copier())
    torch.manual_seed(7)
    assert states(copier()) == first
    for other in ({"round": 4}, {"site": "berlin"}, {"fold": 1}):
        changed = states(copier(), **other)
        assert changed["amsterdam"]["real"] == first["amsterdam"]["real"]
        assert changed["amsterdam"]["made"] != first["amsterdam"]["made"]


def test_each_member_hospital_has_sums_of_its_own_rows_and_they_add_up_to_those_of_all():
    found = states(copier(), members=2)
    assert [state["n"] for state in found.values()] == [ROWS / 2, ROWS / 2]
    assert fid(found) == pytest.approx(fid(states(copier())), rel=1e-9)


def test_the_size_of_the_batches_changes_nothing_but_rounding():
    # Latents are drawn batch by batch, from one generator.
    store = tensors(400, 1)
    small = states(copier(store, training={"evaluation_batch_size": 64}))
    assert compute(small["amsterdam"])["n"] == ROWS
    assert fid(small) == pytest.approx(fid(states(copier(store))), rel=0.5)


def test_where_memory_runs_out_fewer_images_are_made_at_once_from_the_same_latents():
    problem, seen = copier(), []
    whole = problem.generate

    def only_fifty(networks, labels, generator):
        seen.append(len(labels))
        made = whole(networks, labels, generator)
        if len(labels) > 50:
            raise torch.OutOfMemoryError("out of memory")
        return made

    problem.generate = only_fifty
    found = states(problem)["amsterdam"]
    assert seen[:3] == [ROWS, ROWS // 2, ROWS // 4]
    assert found["n"] == ROWS
    by_forty = states(copier(training={"evaluation_batch_size": 40}))["amsterdam"]
    assert compute(found) == pytest.approx(compute(by_forty), rel=1e-2)


def test_a_part_with_few_rows_is_not_told_of_nor_one_below_the_nodes_minimum():
    few = states(copier(), part=torch.arange(63))["amsterdam"]
    assert (few["n"], few["withheld"]) == (0, 63)
    below = states(copier(), part=torch.arange(100), least=101)["amsterdam"]
    assert (below["n"], below["withheld"]) == (0, 100)


def test_an_empty_part_has_an_empty_state():
    assert states(copier(), part=torch.arange(0))["amsterdam"]["n"] == 0


def test_making_images_leaves_torchs_generator_alone():
    problem, made, rows = copier(), networks(), Rows(INPUTS, TARGET, torch.zeros(ROWS))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    evaluate(problem, made, rows, torch.arange(ROWS), ["amsterdam"], **HERE)
    sample_grid(problem, made, fold=0)
    assert torch.equal(torch.get_rng_state(), before)


def read(text):
    image = pytest.importorskip("PIL.Image")
    content = base64.b64decode(text)
    png.pixels_only(content, most_side=600)
    return np.asarray(image.open(io.BytesIO(content)))


def test_a_grid_has_a_line_of_eight_for_each_class():
    grid = read(sample_grid(copier(), networks(), fold=0))
    assert grid.shape == (2 * 16 + 2, 8 * 16 + 7 * 2, 3)
    assert (grid[16:18] == 255).all(), "white between the lines"
    middle = grid[[8, 18 + 8]][:, 8::18].astype(int)
    ground = grid[[1, 18 + 1]][:, 1::18].astype(int)
    assert (middle[0] < ground[0]).all(), "crosses are dark"
    assert (middle[1] > ground[1]).all(), "discs are bright"


def test_grids_of_two_models_are_of_the_same_latents():
    grids = [read(sample_grid(copier(), networks(offset), fold=0)).astype(int) for offset in (0.0, 0.1)]
    assert grids[0].shape == grids[1].shape
    inside = (grids[0] < 200) & (grids[1] < 255)
    assert np.abs((grids[1] - grids[0])[inside] - 25.5).max() <= 1
    assert sample_grid(copier(), networks(), fold=0) == sample_grid(copier(), networks(), fold=0)


def test_large_images_are_shown_small():
    problem = copier((torch.rand(8, 1, 100, 160), torch.arange(8) % 2))
    assert read(sample_grid(problem, networks(), fold=0)).shape == (2 * 40 + 2, 8 * 64 + 7 * 2)


def test_a_grid_that_cannot_be_made_is_none():
    problem = copier()
    problem.generate = lambda networks, labels, generator: torch.zeros(1) @ torch.zeros(2)
    assert sample_grid(problem, networks(), fold=0) is None


def test_pixels_that_are_no_numbers_are_black():
    made = to_bytes(torch.tensor([float("nan"), -1.0, 0.5, 2.0]))
    assert made.tolist() == [0, 0, 128, 255]
