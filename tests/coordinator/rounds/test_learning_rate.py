"""The learning rate by round: ReduceLROnPlateau over a federation's validation is torch's on the same numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.coordinator.rounds.learning_rate import LearningRate
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import local
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment

PLATEAU = {"kind": "reducelronplateau", "patience": 0, "factor": 0.5, "threshold": 0.2}
SGD = {"kind": "sgd", "lr": 0.4}


def experiment_of(scheduler, monitor="loss", optimizer=SGD, **changes):
    return Experiment.parse(
        {
            "data": {"target": "y"},
            "training": {"optimizer": optimizer, "scheduler": scheduler},
            "stopping": {"monitor": monitor, "patience": None},
        }
        | changes
    )


def torchs(scores, lr=0.4, **options):
    """Give the rate that torch's class has before each of the scores, and after all."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, **options)
    rates = [optimiser.param_groups[0]["lr"]]
    for score in scores:
        plateau.step(score)
        rates.append(optimiser.param_groups[0]["lr"])
    return rates


@settings(max_examples=40)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12),
    st.integers(0, 3),
    st.sampled_from(["loss", "auroc"]),
    st.sampled_from(["rel", "abs"]),
)
def test_a_rate_is_that_of_torchs_class_fed_by_the_same_numbers(scores, patience, monitor, threshold_mode):
    options = {"patience": patience, "factor": 0.2, "cooldown": 1, "min_lr": 0.01, "threshold_mode": threshold_mode}
    rates = LearningRate(experiment_of({"kind": "ReduceLROnPlateau", **options}, monitor))
    # A round in which the metric is not defined is passed over.
    known = [score for score in scores if score is not None]
    expected = torchs(known, mode="max" if monitor == "auroc" else "min", **options)[-1]
    assert rates.in_round(len(scores) + 1, scores) == expected


def test_what_is_monitored_and_its_direction_are_filled_in():
    assert experiment_of(PLATEAU, "auroc").training.scheduler.options()["mode"] == "max"
    scheduler = experiment_of({**PLATEAU, "monitor": "brier"}, "auroc").training.scheduler
    assert (scheduler.monitor, scheduler.options()["mode"]) == ("brier", "min")
    resolved = experiment_of(PLATEAU, "auroc").resolved()["training"]["scheduler"]
    assert (resolved["monitor"], resolved["mode"]) == ("auroc", "max")


@pytest.mark.parametrize(
    ("scheduler", "changes", "message"),
    [
        ({**PLATEAU, "mode": "min"}, {}, "mode is min, and of auroc a higher value is better; leave it out, or"),
        ({**PLATEAU, "monitor": "mse"}, {}, "training.scheduler.monitor is 'mse', which problem classification"),
        ({**PLATEAU, "mode": "up"}, {}, "training.scheduler: ReduceLROnPlateau"),
        ({**PLATEAU, "gamma": 0.1}, {}, "unknown option 'gamma' of ReduceLROnPlateau; allowed: mode, factor"),
        ({"kind": "steplr", "step_size": 1, "monitor": "loss"}, {}, "monitor is of kind reducelronplateau"),
        (PLATEAU, {"split": {"train": 0.8, "validation": 0, "test": 0.2}}, "split.validation is 0: there are no rows"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_reason(scheduler, changes, message):
    with pytest.raises(ExperimentError) as refused:
        experiment_of(scheduler, "auroc", **changes)
    assert message in str(refused.value)


def test_a_given_split_without_validation_rows_is_refused_before_training(spied, tables):
    sites = {
        name: TableSource(frame=source.frame.assign(part=["train", "test"] * (len(source.frame) // 2)))
        for name, source in tables.items()
    }
    experiment = experiment_of(PLATEAU, data={"target": "y", "split_column": "part"}, split="given")
    with pytest.raises(ExperimentError, match="follows a validation metric, and no site has validation rows"):
        spied(experiment, sites=sites)


def test_sites_train_with_the_rate_that_the_history_says(spied):
    """A round begins with a model that the call itself validates: its rate follows from those before."""
    spy, result = spied(experiment_of(PLATEAU, rounds=6))
    history = result["history"]
    expected = torchs(history["validation_loss"], mode="min", patience=0, factor=0.5, threshold=0.2)
    assert history["train_lr"] == [0.4, *expected[:5]]
    assert len(set(history["train_lr"])) > 1
    for number, requests in enumerate(spy.of("RPC_train"), start=1):
        assert {request["folds"][0]["lr"] for request in requests.values()} == {history["train_lr"][number - 1]}


def test_a_site_uses_the_rate_of_the_request_and_refuses_to_guess_it(monkeypatch, spied):
    asked = []
    answer = local.handle
    monkeypatch.setattr(local, "handle", lambda *given, **options: asked.append(given) or answer(*given, **options))
    spied(experiment_of(PLATEAU, rounds=1))
    method, request, context = next(given for given in asked if given[0] == "train")
    (item,) = request["folds"]

    def model(**changes):
        reply = answer(method, {**request, "folds": [item | changes]}, context)
        return reply["folds"][0]["parameters"] if reply["status"] == "ok" else reply["message"]

    assert model() == model(lr=0.4) != model(lr=0.2)
    assert "must carry lr, a finite number" in model(lr=None)
    # No step at all: the model that came is the model that goes.
    assert wire.unpack(model(lr=0.0)).keys() == wire.unpack(model()).keys()


@pytest.mark.parametrize("kind", ["cyclic", "scaffold", "fednova", "fedsgd"])
def test_a_plateau_goes_with_strategies_that_reckon_with_the_rate(spied, kind):
    training = {"optimizer": SGD, "scheduler": PLATEAU, "batch_size": None}
    _, result = spied(experiment_of(PLATEAU, training=training, strategy=kind, rounds=5))
    assert result["status"] == "completed"
    assert len(result["history"]["train_lr"]) == 5
    assert result["history"]["train_lr"][-1] < 0.4


def test_fedsgd_with_a_plateau_steps_at_the_server_as_a_site_would(spied):
    """With full batches a round is one step of gradient descent, whoever takes it."""

    def model(strategy, scheduler):
        training = {"optimizer": SGD, "scheduler": scheduler, "batch_size": None, "dtype": "float64"}
        changes = {"strategy": strategy, "rounds": 5, "mode": "centralised", "output": {"model": "last"}}
        result = spied(experiment_of(None, training=training, **changes))[1]
        return result["history"]["train_lr"], wire.unpack(result["parameters"])

    (rates, server), (same, site) = model("fedsgd", PLATEAU), model("fedavg", PLATEAU)
    assert rates == same
    assert rates[-1] < rates[0]
    for name, tensor in server.items():
        torch.testing.assert_close(tensor, site[name], rtol=0, atol=1e-12)
    _, unchanged = model("fedsgd", {**PLATEAU, "patience": 99})
    assert any(not torch.equal(server[name], unchanged[name]) for name in server)


def test_each_fold_has_its_own_rates(spied):
    spy, result = spied(experiment_of(PLATEAU, split={"kind": "kfold", "folds": 3}, rounds=5))
    for fold in result["folds"]:
        scores = fold["history"]["validation_loss"]
        assert fold["history"]["train_lr"] == [
            0.4,
            *torchs(scores, mode="min", patience=0, factor=0.5, threshold=0.2)[:4],
        ]
    sent = [[item["lr"] for item in requests["berlin"]["folds"]] for requests in spy.of("RPC_train")]
    assert sent == [
        list(rates) for rates in zip(*(fold["history"]["train_lr"] for fold in result["folds"]), strict=True)
    ]


def test_the_rates_of_any_scheduler_are_in_the_history_and_without_one_there_are_none(run_locally, tables):
    steps = run_locally(experiment_of({"kind": "steplr", "step_size": 2, "gamma": 0.5}, rounds=4), tables)
    assert steps["history"]["train_lr"] == [0.4, 0.4, 0.2, 0.2]
    assert "train_lr" not in run_locally(experiment_of(None, rounds=1), tables)["history"]
