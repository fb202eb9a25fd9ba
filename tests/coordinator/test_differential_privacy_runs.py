"""Runs under differential privacy: noise, clip, account, refusals, and where epsilon is told."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import command, read_result, tables, write

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation, mock_federation
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.privacy.accountant import Steps, epsilon
from v6_algorithm.learning.training import private_descent
from v6_algorithm.learning.training.private_gradients import NoiseSource
from v6_algorithm.researcher.report.model_card import model_card
from v6_algorithm.site.guard import Guard
from v6_algorithm.site.policy import Policy

SOURCES = {name: TableSource(frame=frame) for name, frame in tables().items()}


def experiment(**changes) -> Experiment:
    privacy = {"differential_privacy": {"epsilon": 3, "delta": 1e-3} | changes.pop("dp", {})}
    content = {
        "data": {"target": "y"},
        "model": {"kind": "mlp", "hidden": [4]},
        "rounds": 3,
        "training": {"batch_size": 8, "optimizer": {"kind": "sgd", "lr": 0.1}},
        "stopping": {"patience": None},
        "output": {"model": "last"},
        "privacy": privacy | changes.pop("privacy", {}),
    }
    return Experiment.parse(content | changes)


def trained(asked: Experiment, policy: Policy | None = None, sources=SOURCES) -> dict:
    return run(local_federation(asked, sources, policy), asked)


def weights(result: dict) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in wire.unpack(result["parameters"]).values()])


@pytest.mark.slow
def test_two_runs_of_one_seed_differ_and_epsilon_is_the_accountants():
    first, second = trained(experiment()), trained(experiment())
    assert not torch.equal(weights(first), weights(second))
    told = first["differential_privacy"]
    rows = first["sites"]["amsterdam"]["n"]["train"]
    plan = Steps(8 / rows, _noise(rows), 3 * -(-rows // 8))
    assert told["sites"]["amsterdam"]["epsilon"] == pytest.approx(epsilon([plan], 1e-3), abs=2e-4)
    assert told["epsilon"] == max(site["epsilon"] for site in told["sites"].values())
    assert 2.99 < told["epsilon"] <= 3


def _noise(rows: int) -> float:
    from v6_algorithm.learning.privacy.accountant import noise_for

    return noise_for([Steps(8 / rows, 1, 3 * -(-rows // 8))], 3, 1e-3)


def test_epsilon_is_in_history_participation_result_model_and_report(tmp_path):
    file = write(
        tmp_path,
        privacy={"differential_privacy": {"epsilon": 3, "delta": 1e-3}},
        stopping={"patience": None},
    )
    done = command("run", file, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    assert "training cost each site epsilon 3 at most, of 3 planned, at delta 0.001" in shown
    assert "outside the account, for no noise is added to it: row counts" in shown
    result = read_result(tmp_path / "out")
    spent = result["history"]["epsilon"]
    assert spent == sorted(spent)
    assert 0 < spent[0] < spent[-1] <= 3
    rounds = [call for call in result["participation"] if call["call"] == "train"]
    assert [max(call["epsilon"].values()) for call in rounds] == spent
    assert "epsilon" in (tmp_path / "out" / "history.csv").read_text().splitlines()[0].split(",")
    assert "<dt>Differential privacy</dt><dd>epsilon 3.000 at most a site" in (tmp_path / "out/report.html").read_text()
    from safetensors import safe_open

    with safe_open(tmp_path / "out" / "model.safetensors", framework="numpy") as model:
        header = json.loads(model.metadata()["v6_algorithm"])["differential_privacy"]
    assert (header["epsilon"], header["unit"]) == (spent[-1], "sample")


def test_a_steps_gradient_is_no_longer_than_clip_and_noise_allow(monkeypatch):
    """With the noise off, one plain step of all rows moves the model by lr times clip at most, whatever the rows."""
    monkeypatch.setattr(NoiseSource, "normal", lambda self, like, sd: torch.zeros_like(like))
    frame = tables()["amsterdam"].assign(a=lambda rows: rows["a"] * 1e6)
    sources = {"amsterdam": TableSource(frame=frame), "berlin": SOURCES["berlin"]}
    step = {"local_steps": 1, "batch_size": None, "optimizer": {"kind": "sgd", "lr": 1.0}}
    asked = experiment(dp={"clip": 0.01}, rounds=1, training=step, data={"target": "y", "scaling": "none"}, seed=3)
    began: list[dict[str, torch.Tensor]] = []
    begin = private_descent.PrivateDescent.__init__

    def watch(self, problem, networks, *rest):
        began.append({f"model.{name}": value.detach().clone() for name, value in networks["model"].named_parameters()})
        begin(self, problem, networks, *rest)

    monkeypatch.setattr(private_descent.PrivateDescent, "__init__", watch)
    ended = wire.unpack(trained(asked, sources=sources)["parameters"])
    moved = torch.cat([(ended[name] - value).flatten() for name, value in began[0].items()])
    assert 0 < moved.norm() <= 0.01 * (1 + 1e-4)


def test_the_noise_is_as_wide_as_was_booked(monkeypatch):
    widths, booked = [], []
    monkeypatch.setattr(NoiseSource, "normal", lambda self, like, sd: widths.append(sd) or torch.zeros_like(like))
    book = Guard.book_privacy

    def watch(self, table, folds):
        booked.append(book(self, table, folds))
        return booked[-1]

    monkeypatch.setattr(Guard, "book_privacy", watch)
    trained(experiment(dp={"clip": 0.5}))
    assert set(widths) == {0.5 * cost.noise_multiplier for cost in booked}


@pytest.mark.slow
def test_folds_share_one_account():
    result = trained(experiment(split={"kind": "kfold", "folds": 3}, rounds=2))
    told = result["differential_privacy"]["sites"]["amsterdam"]
    n = [fold["sites"]["amsterdam"]["n"]["train"] for fold in result["folds"]]
    alone = experiment(rounds=2)
    assert told["epsilon"] <= 3
    # Each fold has a noise for all three: with the noise of one alone they would cost more.
    single = trained(alone)["differential_privacy"]["sites"]["amsterdam"]["by_round"]
    assert len(n) == 3
    assert told["by_round"].keys() == single.keys()


def test_rounds_without_a_row_drawn_are_rounds_all_the_same(monkeypatch):
    monkeypatch.setattr(NoiseSource, "batch", lambda self, units, rate: torch.zeros(0, dtype=torch.int64))
    result = trained(experiment())
    assert result["status"] == "completed"
    assert all(np.isfinite(result["history"]["train_loss"]))


def test_a_repeated_round_costs_again_until_the_account_is_empty_and_is_then_refused_by_name():
    from v6_algorithm.engines.simulation import local

    answer, texts = local.handle, []

    def twice(method, request, context, **options):
        reply = answer(method, request, context, **options)
        if method == "train":
            again = answer(method, request | {"attempt": 2}, context, **options)
            texts.append(again.get("message") or f"epsilon {again['epsilon']}")
            assert again.get("epsilon", 99) > reply.get("epsilon", 0)
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", twice)
        result = trained(experiment())
    assert result["status"] == "stopped"
    assert "the privacy budget of this run is used up here" in result["stopped_because"]
    assert any("a repeated round costs again" in text for text in texts)


def test_a_run_whose_ledger_is_lost_goes_on_from_what_was_planned():
    from v6_algorithm.engines.simulation import local

    answer, told = local.handle, []

    def forgetful(method, request, context, **options):
        if method == "train" and request["round"] == 3:
            context.memory.clear()
        reply = answer(method, request, context, **options)
        if method == "train" and request["round"] == 3:
            told.append(reply["epsilon"])
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", forgetful)
        trained(experiment())
    assert all(2.99 < cost <= 3.0001 for cost in told)


def test_a_resumed_run_goes_on_with_the_account(tmp_path):
    from v6_algorithm.coordinator.checkpoint import Checkpoints
    from v6_algorithm.engines.simulation import local

    asked, path, answer = experiment(), tmp_path / "checkpoint.safetensors", local.handle

    def dies(method, request, context, **options):
        if method == "train" and request["round"] == 3:
            raise KeyboardInterrupt
        return answer(method, request, context, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", dies)
        stopped = run(local_federation(asked, SOURCES), asked, checkpoints=Checkpoints(path))
    assert stopped["status"] == "stopped"
    # The sites' memory is gone with the process.
    whole = run(local_federation(asked, SOURCES), asked, checkpoints=Checkpoints(path))
    assert whole["history"]["epsilon"][:2] == stopped["history"]["epsilon"]
    assert 2.99 < whole["history"]["epsilon"][2] <= 3


def test_sites_that_could_be_trained_together_are_not():
    asked = experiment()
    result = run(local_federation(asked, SOURCES, way="fast"), asked)
    assert result["engine"]["together"] is False
    assert "differential privacy: each site draws batches" in result["engine"]["because"]


def test_a_node_that_requires_it_refuses_a_run_without_and_one_with_more_and_admits_one_with_less():
    strict = Policy.of("trusted", maximum_epsilon=2.0)
    without = Experiment.parse({"data": {"target": "y"}, "model": "logistic", "rounds": 1})
    with pytest.raises((ExperimentError, FederationError), match="requires differential privacy"):
        trained(without, strict)
    with pytest.raises(
        (ExperimentError, FederationError), match=r"differential_privacy\.epsilon: 3 is over this node's bound of 2"
    ):
        trained(experiment(), strict)
    with pytest.raises((ExperimentError, FederationError), match=r"differential_privacy\.delta: 0\.002 is over"):
        trained(experiment(dp={"epsilon": 1, "delta": 2e-3}), strict)
    assert trained(experiment(dp={"epsilon": 1}), strict)["differential_privacy"]["epsilon"] <= 1


def test_the_nodes_ledger_counts_all_runs_together(tmp_path):
    source = {"amsterdam": SOURCES["amsterdam"]}
    rules = Policy.of("trusted", maximum_epsilon=1.2, ledger_folder=str(tmp_path))
    asked = experiment(dp={"epsilon": 1}, rounds=1, participation={"minimum": 1})
    assert trained(asked, rules, source)["status"] == "completed"
    with pytest.raises((ExperimentError, FederationError), match=r"over this node's epsilon of 1\.2"):
        trained(asked.model_copy(update={"name": "again"}), rules, source)


def test_a_delta_above_one_over_the_rows_is_refused():
    with pytest.raises((ExperimentError, FederationError), match=r"delta: 0.05 is not below 1 / \(training samples"):
        trained(experiment(dp={"delta": 0.05}))


def test_under_secure_aggregation_no_site_tells_its_epsilon():
    from v6_algorithm.engines.simulation import local

    answer, replies = local.handle, []

    def listen(method, request, context, **options):
        replies.append(answer(method, request, context, **options))
        return replies[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", listen)
        result = trained(experiment(privacy={"secure_aggregation": {"threshold": 2}}))
    assert result["status"] == "completed"
    assert all("epsilon" not in reply for reply in replies)
    told = result["differential_privacy"]
    assert (told["sites"], told["epsilon"]) == ({}, 3.0)
    assert result["history"]["epsilon"] == [3.0] * 3


@pytest.mark.slow
def test_patients_are_the_unit_where_they_are_asked_for():
    def visits(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(patient=np.arange(len(frame)) // 3)

    sources = {name: TableSource(frame=visits(frame)) for name, frame in tables().items()}
    seen = []
    plan = private_descent.PrivateSteps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_descent, "PrivateSteps", lambda *given: seen.append(plan(*given)) or seen[-1])
        data = {"target": "y", "features": ["a", "b", "c"], "group": "patient"}
        result = trained(experiment(data=data, dp={"unit": "patient"}), sources=sources)
    assert result["differential_privacy"]["unit"] == "patient"
    for steps in seen:
        assert steps.units < len(steps.unit)
        assert torch.bincount(steps.unit).max() <= 3
    by_row = trained(experiment(data=data), sources=sources)
    assert any("unit sample hides one row, and data.group 'patient'" in note for note in by_row["notes"])


SITES = {"unit": "site", "epsilon": 8, "delta": 1e-2}
MASKED = {"secure_aggregation": {"threshold": 2}}
EQUAL = {"kind": "fedavg", "weighting": "uniform"}


def test_with_unit_site_each_site_tells_epsilon_of_its_updates_in_every_round():
    result = trained(experiment(dp=SITES))
    told = result["differential_privacy"]
    exact = [epsilon([Steps(1.0, _site_noise(3, 8), done)], 1e-2) for done in (1, 2, 3)]
    assert result["history"]["epsilon"] == pytest.approx(exact, abs=2e-4)
    assert list(told["sites"]) == ["amsterdam", "berlin", "cairo"]
    assert told["noise"] == "each site adds all of its noise by itself"
    assert "Gaussian mechanism, one noised update a round" in told["accountant"]
    card = model_card(result)
    for text in ("differential privacy of sites compares federations in which", "counted by RDP of the Gaussian"):
        assert any(text in note for note in result["notes"])
        assert text in card


def _site_noise(updates: int, target: float) -> float:
    from v6_algorithm.learning.privacy.accountant import noise_for

    return noise_for([Steps(1.0, 1, updates)], target, 1e-2)


def _widths(monkeypatch, asked: Experiment) -> list[float]:
    widths: list[float] = []
    monkeypatch.setattr(NoiseSource, "normal", lambda self, like, sd: widths.append(sd) or torch.zeros_like(like))
    assert trained(asked)["status"] == "completed"
    return widths


def test_under_masks_each_site_adds_a_part_of_the_noise_and_alone_all_of_it(monkeypatch):
    whole = _site_noise(3, 8) * 0.5
    section = SITES | {"clip": 0.5}
    assert sorted(set(_widths(monkeypatch, experiment(dp=section)))) == [pytest.approx(whole, rel=1e-3)]
    shared = experiment(dp=section | {"honest_sites": 2}, privacy=MASKED, strategy=EQUAL)
    assert sorted(set(_widths(monkeypatch, shared))) == [pytest.approx(whole / 2**0.5, rel=1e-3)]


def test_under_masks_epsilon_of_sites_is_told_by_round_for_it_follows_from_the_experiment():
    result = trained(experiment(dp=SITES, privacy=MASKED, strategy=EQUAL))
    assert result["history"]["epsilon"] == trained(experiment(dp=SITES))["history"]["epsilon"]
    told = result["differential_privacy"]
    assert told["sites"] == {}
    assert "epsilon holds where threshold - 1 of the sites in a sum add theirs and tell nobody" in told["noise"]


def test_masked_integers_without_room_for_the_noise_are_refused_before_training():
    tight = {"secure_aggregation": {"threshold": 2, "clip": 0.1}}
    with pytest.raises((ExperimentError, FederationError), match=r"clip: 0\.1 would cut the noise.*allowed here: from"):
        trained(experiment(dp=SITES, privacy=tight, strategy=EQUAL))
    coarse = {"secure_aggregation": {"threshold": 2, "bits": 8}}
    with pytest.raises((ExperimentError, FederationError), match="bits: 8 bits up to clip 8 are too coarse"):
        trained(experiment(dp=SITES, privacy=coarse, strategy=EQUAL))


def test_more_honest_sites_than_the_threshold_end_the_run_at_its_beginning():
    with pytest.raises((ExperimentError, FederationError), match="honest_sites: 3 is more than the 2 sites"):
        trained(experiment(dp=SITES | {"honest_sites": 3}, privacy=MASKED, strategy=EQUAL))


def test_a_nodes_rule_trusts_only_in_the_noise_of_its_own_site():
    rules = Policy.of("trusted", maximum_epsilon=9.0, maximum_delta=1e-2)
    assert trained(experiment(dp=SITES), rules)["status"] == "completed"
    shared = experiment(dp=SITES | {"honest_sites": 2}, privacy=MASKED, strategy=EQUAL)
    with pytest.raises((ExperimentError, FederationError), match="over this node's epsilon of 9"):
        trained(shared, rules)


@pytest.mark.parametrize("strategy", ["fedsgd", "cyclic", {"kind": "fedavg", "compress": ["topk"]}])
def test_strategies_of_clipped_updates_go_with_unit_site(strategy):
    result = trained(experiment(dp=SITES, strategy=strategy, rounds=2))
    assert result["status"] == "completed"
    assert len(result["history"]["epsilon"]) == 2


def test_the_prv_accountant_is_named_and_spends_no_more_than_is_planned():
    pytest.importorskip("opacus")
    told = trained(experiment(dp=SITES | {"accountant": "prv"}, rounds=2))["differential_privacy"]
    assert told["accountant"].startswith("PRV (Opacus, upper bound) of the Gaussian mechanism")
    assert 7.9 < told["epsilon"] <= 8


@pytest.mark.slow
def test_the_mock_client_gives_the_same_account():
    asked = experiment()
    mocked = run(mock_federation(asked, SOURCES), asked)
    local = trained(asked)
    assert mocked["differential_privacy"]["sites"] == local["differential_privacy"]["sites"]
