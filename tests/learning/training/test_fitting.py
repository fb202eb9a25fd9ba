"""Batches that do not fit a device: cut in halves, the same step all the same, and told."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.errors import SiteError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import compute
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.training import fitting as fitting_module
from v6_algorithm.learning.training.fitting import Fitting, in_chunks
from v6_algorithm.learning.training.loop import Rows, evaluate, mean_loss, train
from v6_algorithm.learning.training.state import build_networks, state_of
from v6_algorithm.site import SiteContext, handle


class Device:
    """A device whose memory holds so many rows at once: a forward pass with more of them fails as CUDA's does."""

    def __init__(self, rows, backward=False, error=None):
        self.rows = rows
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.backward = backward
        self.failures = 0

    def watch(self, network):
        if self.backward:
            network.register_forward_hook(lambda _, inputs, output: self._watch_gradient(output))
        else:
            network.register_forward_pre_hook(lambda _, inputs: self._check(len(inputs[0])))

    def _watch_gradient(self, output):
        if output.requires_grad:
            output.register_hook(lambda gradient: self._check(len(gradient)))

    def _check(self, rows):
        if rows > self.rows:
            self.failures += 1
            raise self.error


def problem_of(**changes):
    content = {"data": {"target": "y"}, "model": {"kind": "mlp", "hidden": [6]}} | changes
    return create_problem(Experiment.parse(content), Setup(["a", "b", "c"], {}, [0, 1]))


def rows_of(count=37):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return Rows(inputs, (inputs[:, 0] > 0).long(), torch.zeros(count, dtype=torch.long))


def trained(device=None, fitting=None, **training):
    problem = problem_of(training={"batch_size": 16, "dtype": "float64", "local_epochs": 2, **training})
    networks = build_networks(problem)
    if device:
        device.watch(networks["model"])
    sums = train(problem, networks, rows_of(), torch.arange(37), site="here", round=1, fold=0, fitting=fitting)
    return state_of(networks), sums


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("rows", [1, 3, 8, 15])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_in_pieces_is_the_training_that_would_have_fitted(rows, accumulate, backward):
    momentum = {"optimizer": {"kind": "sgd", "lr": 0.3, "momentum": 0.9}, "accumulate": accumulate}
    device, fitting = Device(rows, backward), Fitting()
    (state, sums), (expected, all_at_once) = trained(device, fitting, **momentum), trained(**momentum)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-12)
    assert (sums.rows, sums.steps) == (all_at_once.rows, all_at_once.steps)
    assert sums.loss == pytest.approx(all_at_once.loss, abs=1e-9)
    assert fitting.to_json() == {"batch": 16, "pieces": {1: 1, 3: 2, 8: 8, 15: 8}[rows]}


# What torch raises beside OutOfMemoryError, where a library wants the memory or another process has it.
OTHERS = [
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
]


@pytest.mark.parametrize("text", OTHERS)
def test_libraries_that_lack_memory_are_a_lack_of_memory(text):
    fitting, seen = Fitting(), []
    state, _ = trained(Device(8, error=RuntimeError(text)), fitting)
    for name, tensor in trained()[0].items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-12)
    assert fitting.to_json() == {"batch": 16, "pieces": 8}

    def measure(chunk):
        Device(4, error=RuntimeError(text))._check(len(chunk))
        seen.append(len(chunk))

    in_chunks(torch.arange(10), 10, measure, whole=False)
    assert seen == [2, 2, 2, 2, 2]


def test_another_error_is_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="device-side assert"):
        trained(Device(8, error=RuntimeError("CUDA error: device-side assert triggered")))
    with pytest.raises(RuntimeError, match="shape"):
        in_chunks(torch.arange(9), 9, lambda _: Device(1, error=RuntimeError("shape '[2]'"))._check(9), whole=False)


def test_the_smaller_size_is_kept_for_the_steps_that_follow():
    device, fitting = Device(4), Fitting()
    trained(device, fitting)
    assert device.failures == 2, "16, then 8"
    again = Device(4)
    trained(again, fitting)
    assert again.failures == 0


def test_what_fits_is_not_told():
    assert Fitting().to_json() == {}
    fitting = Fitting()
    trained(Device(16), fitting)
    assert fitting.to_json() == {}


def test_a_device_too_small_for_one_row_is_an_error_in_words():
    with pytest.raises(SiteError, match=r"does not hold 1 row at once, and fewer cannot be; take a smaller") as error:
        trained(Device(0))
    assert error.value.kind == "request"


def test_batch_norm_gets_no_piece_of_one_row():
    problem = problem_of(
        model={"kind": "mlp", "hidden": [6], "norm": "batch"}, training={"batch_size": 9, "dtype": "float64"}
    )
    for rows, fits in ((3, True), (1, False)):
        networks = build_networks(problem)
        Device(rows).watch(networks["model"])
        options = {"site": "here", "round": 1, "fold": 0}
        if fits:
            train(problem, networks, rows_of(), torch.arange(37), **options)
        else:
            with pytest.raises(SiteError, match=r"does not hold [23] rows at once"):
                train(problem, networks, rows_of(), torch.arange(37), **options)


def test_a_loss_over_risk_sets_is_not_cut():
    content = {"data": {"target": {"duration": "t", "event": "e"}}, "problem": "survival", "model": "linear"}
    problem = create_problem(Experiment.parse(content), Setup(["a", "b", "c"], {}, None))
    target = torch.stack([torch.arange(1.0, 38), torch.ones(37)], dim=1)
    rows = Rows(rows_of().inputs.float(), target, torch.zeros(37, dtype=torch.long))
    networks = build_networks(problem)
    device = Device(8)
    device.watch(networks["model"])
    with pytest.raises(SiteError, match="does not hold 37 rows at once"):
        train(problem, networks, rows, torch.arange(37), site="here", round=1, fold=0)
    assert device.failures == 1


@pytest.mark.parametrize("rows", [1, 5, 36])
def test_measuring_in_pieces_measures_the_same(rows):
    problem = problem_of(training={"dtype": "float64"})
    networks, part = build_networks(problem), torch.arange(37)

    def measure():
        states = evaluate(problem, networks, rows_of(), part, ["here"], fold=0)
        return compute(states["here"]), mean_loss(problem, networks, rows_of(), part, fold=0)

    at_once, loss = measure()
    device = Device(rows)
    device.watch(networks["model"])
    in_pieces, same = measure()
    assert device.failures
    assert in_pieces == pytest.approx(at_once, abs=1e-9)
    assert same == pytest.approx(loss, abs=1e-12)
    with pytest.raises(SiteError, match="does not hold 1 row"):
        in_chunks(part, 8, lambda chunk: Device(0)._check(len(chunk)), whole=False)


def test_the_gpus_cache_is_emptied_before_another_try_and_after_every_request(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    trained(Device(4))
    assert len(emptied) == 2
    request = wire.message(site="here", round=1, attempt=1, experiment={"data": {"target": "y"}})
    assert handle("train", request, SiteContext({}))["status"] == "error"
    assert len(emptied) == 3


def test_without_a_gpu_nothing_is_emptied(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("there is no GPU"))
    fitting_module.empty_cache()


# -- over whole runs -----------------------------------------------------------------------------------------------


EXPERIMENT = {
    "data": {"target": "y"},
    "model": {"kind": "mlp", "hidden": [4]},
    "training": {"batch_size": 16, "optimizer": {"kind": "sgd", "lr": 0.1}},
    "rounds": 3,
}


@pytest.fixture
def small_memory(monkeypatch):
    """Let the site berlin have the memory for four rows; gives its failures by round."""
    failures = {}

    def answer(method, request, context, **options):
        if request["site"] != "berlin":
            return handle(method, request, context, **options)
        device = Device(4)
        with pytest.MonkeyPatch.context() as patch:
            forward = torch.nn.Sequential.forward

            def limited(network, rows):
                if network.training:
                    device._check(len(rows))
                return forward(network, rows)

            patch.setattr(torch.nn.Sequential, "forward", limited)
            reply = handle(method, request, context, **options)
        if method == "train":
            failures[request["round"]] = device.failures
        return json.loads(wire.to_text(reply))

    monkeypatch.setattr(local, "handle", answer)
    return failures


def contexts(tables, folder=None):
    return {
        name: SiteContext({name: source}, state=folder / name if folder else None, lasting=folder is None)
        for name, source in tables.items()
    }


@pytest.mark.parametrize("folder", [True, False], ids=["state folder", "process"])
def test_a_site_remembers_over_rounds_what_fits_and_the_result_tells_it_once(tables, small_memory, tmp_path, folder):
    experiment = Experiment.parse(EXPERIMENT)
    sites = contexts(tables, tmp_path if folder else None)
    result = run(LocalFederation(sites), experiment)
    assert small_memory == {1: 2, 2: 0, 3: 0}
    told = [note for note in result["notes"] if "did not fit" in note]
    assert told == [
        "site 'berlin': a batch of 16 rows did not fit the memory of cpu; it was trained in pieces of 4, at the same "
        "mean over its rows (BatchNorm, if there is any, saw each piece by itself)"
    ]
    assert result["devices"]["berlin"] == {"name": "cpu", "precision": "full"}


def test_a_repeated_request_gets_the_same_answer(tables, small_memory, tmp_path, monkeypatch):
    asked = []
    answer = local.handle
    monkeypatch.setattr(local, "handle", lambda *given, **options: asked.append(given) or answer(*given, **options))
    run(LocalFederation(contexts(tables, tmp_path)), Experiment.parse(EXPERIMENT))
    method, request, context = next(one for one in asked if one[0] == "train" and one[1]["site"] == "berlin")
    first, again = (answer(method, request, SiteContext(context.sources, state=context.state)) for _ in range(2))
    assert first["folds"] == again["folds"]
    assert first["device"] == again["device"] == {"name": "cpu", "precision": "full", "batch": 16, "pieces": 4}


@pytest.mark.parametrize("told", [{"pieces": 2}, {"batch": 4, "pieces": 4}, {"batch": "16", "pieces": 2}], ids=str)
def test_a_reply_that_tells_nonsense_of_its_batches_is_dropped(spied, make_experiment, told):
    def tamper(method, site, number, reply):
        if method == "RPC_train" and site == "berlin":
            reply["device"] |= told
        return reply

    _, result = spied(make_experiment(rounds=1), tamper)
    assert "berlin" in result["participation"][2]["missing"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(OTHERS[0])], ids=repr)
def test_a_model_that_does_not_fit_is_an_error_in_words(monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("v6_algorithm.site.learning._received", fail)
    frame = pd.DataFrame({"a": np.linspace(0, 1, 40), "y": [0, 1] * 20})
    with pytest.raises(Exception, match="the memory of this site's device does not hold the model"):
        run(
            LocalFederation(contexts({name: TableSource(frame=frame) for name in ("one", "two")})),
            Experiment.parse(EXPERIMENT),
        )
