"""Survival: the losses are the likelihoods of the books, stratified by site, and a federation learns by them."""

import base64
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.data.preparation import Setup, times
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, SurvivalOptions
from v6_algorithm.learning.metrics import SurvivalMetrics, compute
from v6_algorithm.learning.metrics.survival import BaselineSums, cumulative, survival
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.learning.problems.survival import efron_loss, hazard_loss

TARGET = {"duration": "days", "event": "died"}


def ward(rows, seed, scale=500.0):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(size=(rows, 3)), columns=["a", "b", "c"])
    time = scale * generator.weibull(1.3, rows) * np.exp(-frame["a"] + 0.5 * frame["b"])
    censored = generator.exponential(2 * scale, rows)
    return frame.assign(days=np.ceil(np.minimum(time, censored)), died=(time <= censored).astype(int))


def sites(rows=(120, 90, 60)):
    return {f"site{number}": ward(n, number, 500 * (1 + number)) for number, n in enumerate(rows)}


def sources(frames):
    return {name: TableSource(frame=frame) for name, frame in frames.items()}


def content(**changes):
    return {
        "data": {"target": TARGET},
        "problem": "survival",
        "model": "linear",
        "training": {"batch_size": None, "local_steps": 5, "optimizer": {"kind": "sgd", "lr": 1.0}},
        "rounds": 10,
        "stopping": {"monitor": "loss", "patience": None},
    } | changes


# -- Cox -----------------------------------------------------------------------------------------------------------


def partial_likelihood(risk, duration, event):
    """Efron's log partial likelihood, term by term."""
    total = 0.0
    for moment in np.unique(duration[event]):
        died = risk[event & (duration == moment)]
        at_risk = np.exp(risk[duration >= moment]).sum()
        total += died.sum()
        total -= sum(np.log(at_risk - l / len(died) * np.exp(died).sum()) for l in range(len(died)))  # noqa: E741
    return total


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 40), distinct=st.integers(1, 30))
def test_cox_loss_is_efrons_partial_likelihood(seed, rows, distinct):
    generator = np.random.default_rng(seed)
    risk, duration = generator.normal(0, 2, rows), generator.integers(1, distinct + 1, rows).astype(float)
    event = generator.random(rows) < 0.6
    loss = efron_loss(torch.tensor(risk), torch.tensor(duration), torch.tensor(event))
    assert (loss[~torch.tensor(event)] == 0).all()
    assert loss.sum().item() == pytest.approx(-partial_likelihood(risk, duration, event), abs=1e-9)


def test_cox_loss_at_lifelines_solution_is_its_likelihood():
    lifelines = pytest.importorskip("lifelines")
    from lifelines.datasets import load_rossi

    frame = load_rossi()
    fitted = lifelines.CoxPHFitter().fit(frame, "week", "arrest")
    features = frame[fitted.params_.index].to_numpy(float)
    risk = torch.tensor(features @ fitted.params_.to_numpy())
    loss = efron_loss(risk, torch.tensor(frame["week"].to_numpy(float)), torch.tensor(frame["arrest"].to_numpy() == 1))
    assert loss.sum().item() == pytest.approx(-fitted.log_likelihood_, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_cox_loss_has_the_gradient_of_finite_differences_and_does_not_overflow(scale):
    frame = ward(30, 1)
    risk = (torch.tensor(frame["a"].to_numpy()) * scale).requires_grad_()
    duration, event = torch.tensor(frame["days"].to_numpy() // 100), torch.tensor(frame["died"].to_numpy() == 1)
    loss = efron_loss(risk, duration, event)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(risk.grad).all()
    if scale == 1:
        assert torch.autograd.gradcheck(lambda h: efron_loss(h, duration, event), risk)


def test_a_batch_without_events_changes_nothing():
    risk = torch.zeros(3, requires_grad=True)
    efron_loss(risk, torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3, dtype=torch.bool)).mean().backward()
    assert risk.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.slow
def test_federated_cox_is_the_likelihood_stratified_by_site(run_locally):
    """One full-batch step a round is gradient descent; it ends where lifelines does with `strata`."""
    lifelines = pytest.importorskip("lifelines")
    frames = sites()
    experiment = Experiment.parse(
        content(
            data={"target": TARGET, "scaling": "none"},
            split={"kind": "ratio", "train": 1.0, "validation": 0.0, "test": 0.0},
            training={
                "batch_size": None, "local_steps": 1, "dtype": "float64", "optimizer": {"kind": "sgd", "lr": 1.5}
            },
            rounds=60,
        )
    )  # fmt: skip
    from v6_algorithm.exchange import wire

    result = run_locally(experiment, sources(frames))
    weights = wire.unpack(result["parameters"])["model.weight"][0].numpy()
    together = pd.concat([frame.assign(site=name) for name, frame in frames.items()])
    fitted = lifelines.CoxPHFitter().fit(together, "days", "died", strata=["site"])
    np.testing.assert_allclose(weights, fitted.params_[["a", "b", "c"]], atol=1e-4)


# -- discrete time -------------------------------------------------------------------------------------------------


def test_hazard_loss_is_the_likelihood_of_leaving_where_one_left():
    logits = torch.tensor([[0.3, -0.2, 1.0]]).repeat(2, 1).double()
    hazard = torch.sigmoid(logits[0])
    loss = hazard_loss(logits, torch.tensor([1, 1]), torch.tensor([True, False]))
    torch.testing.assert_close(loss[0], -torch.log((1 - hazard[0]) * hazard[1]))
    torch.testing.assert_close(loss[1], -torch.log(1 - hazard[0]))


def discrete(horizons):
    experiment = Experiment.parse(
        content(problem={"kind": "survival", "method": "discrete_time", "intervals": horizons})
    )
    return create_problem(
        experiment, Setup(["a"], {}, None, sums={"event_times": times.count_times(np.array([2.0, 5.0]))})
    )


def test_survival_falls_over_the_horizons_and_a_higher_hazard_is_a_higher_risk():
    problem = discrete([1.0, 3.0])
    prediction = problem.prediction(torch.tensor([[0.0, 0.0, 9.0], [1.0, 0.0, 0.0]]))
    torch.testing.assert_close(prediction[0, 1:], torch.tensor([0.5, 0.25], dtype=torch.float64))
    assert prediction[1, 0] > prediction[0, 0]
    assert problem.outputs == 3


def test_hazards_near_zero_or_one_stay_finite():
    assert torch.isfinite(discrete([1.0, 3.0]).prediction(torch.tensor([[-200.0] * 3, [200.0] * 3]))).all()


# -- times ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=200), st.integers(2, 30))
@settings(max_examples=50)
def test_cuts_are_quantiles_to_a_sixteenth_of_a_doubling(values, parts):
    values = np.sort(values)
    cuts = times.cut(times.count_times(values), parts)
    assert all(later > earlier for earlier, later in itertools.pairwise(cuts))
    assert len(cuts) < parts
    exact = [values[max(int(np.ceil(len(values) * k / parts - 1e-9)), 1) - 1] for k in range(1, parts)]

    def within_a_bin(cut, value):
        return value / 1.0001 <= cut <= value * 2 ** (1 / 16) * 1.0001

    # Each quantile is a cut but in the last bin; where several are one, other cuts are at other times.
    assert all(any(within_a_bin(cut, value) for cut in cuts) for value in exact if value * 2 ** (1 / 16) < values[-1])
    assert all(any(within_a_bin(cut, value) for value in values) for cut in cuts)


def test_counted_times_add_up_over_sites_and_the_ends_take_what_is_beyond():
    one, other = np.array([1e-9, 3.0]), np.array([7.0, 1e15])
    both = times.count_times(np.concatenate([one, other]))
    assert (times.count_times(one) + times.count_times(other) == both).all()
    assert both.sum() == 4


def test_given_intervals_are_taken_as_they_are():
    options = SurvivalOptions(method="discrete_time", intervals=[30, 90])
    assert times.horizons(options, times.count_times(np.array([1.0]))) == [30, 90]
    assert times.interval_count(options) == 3


# -- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"kind": "mlp", "hidden": [8]}},
        {"problem": {"kind": "survival", "method": "discrete_time", "intervals": 6}},
        {"problem": {"kind": "survival", "method": "discrete_time", "intervals": [100, 500, 1500]}},
    ],
    ids=["cox", "cox mlp", "discrete time", "given intervals"],
)
@pytest.mark.parametrize(
    "mode", ["federated", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("centralised", "local"))]
)
def test_survival_learns(run_locally, changes, mode):
    result = run_locally(Experiment.parse(content(mode=mode, **changes)), sources(sites()))
    pooled = result["metrics"]["test"]["pooled"]
    assert pooled["c_index_within"] > 0.65
    assert pooled["brier"] < 0.25


# -- survival curves of a Cox model --------------------------------------------------------------------------------


def header(result):
    content = base64.b64decode(result["parameters"])
    about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["v6_algorithm"]
    return safetensors.numpy.load(content), json.loads(about)["preparation"]


def with_parts(frames):
    return {
        name: frame.assign(part=np.resize(["train", "train", "train", "validation", "test"], len(frame)))
        for name, frame in frames.items()
    }


GIVEN = {"data": {"target": TARGET, "split_column": "part"}, "split": "given"}


def cox_run(run_locally, frames, **changes):
    training = content()["training"] | {"dtype": "float64"}
    return run_locally(Experiment.parse(content(training=training, **GIVEN | changes)), sources(frames))


def scored(result, frames, part):
    """Time, event and log-risk of all sites' rows of a part, by the returned model."""
    weights, prepared = header(result)
    rows = pd.concat([frame[frame["part"] == part] for frame in frames.values()])
    inputs = (rows[prepared["features"]].to_numpy() - prepared["shift"]) / prepared["scale"]
    score = inputs @ weights["model.weight"][0] + weights["model.bias"]
    return rows["days"].to_numpy(float), rows["died"].to_numpy(), score


def test_the_brier_score_of_a_federation_is_that_of_its_model_on_the_pooled_rows(run_locally):
    frames = with_parts(sites())
    result = cox_run(run_locally, frames, problem={"kind": "survival", "baseline": "pooled"})
    baseline = header(result)[1]["baseline"]
    assert result["preparation"]["baseline"] == baseline
    time, event, score = scored(result, frames, "train")
    pooled = BaselineSums(baseline["times"])
    pooled.update(score[:, None], np.column_stack([time, event]), np.zeros(len(time)))
    np.testing.assert_allclose(
        baseline["cumulative_hazard"], cumulative([pooled.state()], baseline["times"]), rtol=1e-9
    )
    for part in ("validation", "test"):
        time, event, score = scored(result, frames, part)
        metrics = SurvivalMetrics(baseline["times"], baseline["times"])
        curves = survival(baseline["cumulative_hazard"], score)
        metrics.update(np.column_stack([score, curves]), np.column_stack([time, event]), np.zeros(len(time)))
        assert result["metrics"][part]["pooled"]["brier"] == compute(metrics.state())["brier"]


def test_the_brier_score_is_that_of_breslows_curves_with_weights_by_kaplan_meier_within_0_01(run_locally):
    lifelines = pytest.importorskip("lifelines")
    frames = with_parts({f"site{number}": ward(300, number) for number in range(3)})
    result = cox_run(run_locally, frames)
    times = np.array(header(result)[1]["baseline"]["times"])
    time, event, score = scored(result, frames, "train")
    moments = np.unique(time[event == 1])
    steps = [event[time == moment].sum() / np.exp(score[time >= moment]).sum() for moment in moments]
    breslow = np.array([sum(step for step, moment in zip(steps, moments, strict=True) if moment <= at) for at in times])
    time, event, score = scored(result, frames, "test")
    curves = np.exp(-np.outer(np.exp(score), breslow))
    stay = lifelines.KaplanMeierFitter().fit(time, 1 - event)
    before = stay.survival_function_at_times(time - 1e-9).to_numpy()
    squares = []
    for column, at in enumerate(times):
        died, alive = (event == 1) & (time <= at), time > at
        total = (curves[died, column] ** 2 / before[died]).sum()
        squares.append((total + ((1 - curves[alive, column]) ** 2).sum() / stay.predict(at)) / len(time))
    wanted = np.trapezoid(squares, times) / (times[-1] - times[0])
    assert result["metrics"]["test"]["pooled"]["brier"] == pytest.approx(wanted, abs=0.01)


def test_each_fold_has_its_own_baseline_hazard(run_locally):
    result = run_locally(Experiment.parse(content(split={"kind": "kfold", "folds": 3}, rounds=2)), sources(sites()))
    hazards = [fold["baseline"]["cumulative_hazard"] for fold in header(result)[1].values()]
    assert len(hazards) == 3
    assert all(np.all(np.diff(hazard, prepend=0) > 0) for hazard in hazards)
    assert len({tuple(hazard) for hazard in hazards}) == 3
    assert result["metrics"]["test"]["mean_over_folds"]["brier"] < 0.25


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_baseline_is_asked_for_once_and_the_history_has_no_brier_score(spied, keep):
    experiment = Experiment.parse(content(rounds=3, output={"model": keep}, **GIVEN))
    spy, result = spied(experiment, sites=sources(with_parts(sites())))
    first, second = spy.of("RPC_evaluate")
    assert all(item["baseline"] for request in first.values() for item in request["folds"])
    assert all(
        "baseline" not in item and item["evaluate"] == ["validation", "test"]
        for request in second.values()
        for item in request["folds"]
    )
    assert len(next(iter(second.values()))["folds"]) == 1
    assert "validation_brier" not in result["history"]
    assert None not in result["history"]["validation_loss"]


def test_hospitals_that_are_left_out_are_measured_with_the_others_baseline(run_locally):
    result = run_locally(
        Experiment.parse(content(split="leave_one_site_out", rounds=3, training=content()["training"])),
        sources({f"site{number}": ward(80, number) for number in range(3)}),
    )
    assert all(scores["brier"] < 0.3 for scores in result["metrics"]["test"]["sites"].values())


def test_a_site_that_tells_nonsense_of_its_baseline_is_named_and_left_out(spied):
    def tamper(method, site, number, reply):
        for item in reply.get("folds", ()):
            if site == "site1" and "baseline" in item:
                item["baseline"]["site1"]["risk"] = [-1.0] * len(item["baseline"]["site1"]["risk"])
        return reply

    _, result = spied(Experiment.parse(content(rounds=2, **GIVEN)), tamper, sites=sources(with_parts(sites())))
    assert result["status"] == "completed"
    wrong = [call["missing"] for call in result["participation"] if call["call"] == "evaluate" and call["missing"]]
    assert "risk of the metric state" in wrong[0]["site1"]
    assert result["metrics"]["test"]["pooled"]["brier"] < 0.25


def test_rows_that_are_all_censored_leave_no_curves_and_no_error(run_locally):
    frames = {name: frame.assign(died=0) for name, frame in sites().items()}
    result = run_locally(Experiment.parse(content(rounds=1)), sources(frames))
    assert result["status"] == "completed"
    assert "brier" not in result["metrics"]["test"]["pooled"]


def test_brier_cannot_be_monitored_where_curves_come_at_the_end():
    with pytest.raises(ExperimentError, match="brier is of method discrete_time; a Cox model has survival curves when"):
        Experiment.parse(content(stopping={"monitor": "brier"}))
    discrete = {"kind": "survival", "method": "discrete_time"}
    assert Experiment.parse(content(problem=discrete, stopping={"monitor": "brier"})).stopping.monitor == "brier"


# -- folds and parts -----------------------------------------------------------------------------------------------


def test_folds_pool_their_pairs(run_locally):
    result = run_locally(Experiment.parse(content(split={"kind": "kfold", "folds": 3}, rounds=3)), sources(sites()))
    assert result["metrics"]["test"]["pooled"]["n"] == 270
    assert result["metrics"]["test"]["pooled"]["c_index"] > 0.6


def test_parts_are_stratified_by_event():
    from v6_algorithm.data.encoding import load_table
    from v6_algorithm.learning.problems.survival import Survival

    frame = ward(200, 5)
    experiment = Experiment.parse(content())
    table = load_table({"va": frame}, experiment, Setup(["a"], {}, None), Survival.targets(experiment))
    share = frame["died"].mean()
    for part in ("train", "validation", "test"):
        assert table.target[table.folds[0][part], 1].mean() == pytest.approx(share, abs=0.02)


def test_an_event_may_be_told_by_a_condition(run_locally):
    plain = sites()
    words = {name: frame.assign(died=frame["died"].map({0: "alive", 1: "dead"})) for name, frame in plain.items()}
    experiment = Experiment.parse(content(rounds=2))
    told = Experiment.parse(content(rounds=2, data={"target": TARGET, "positive": "== dead"}))
    one, other = run_locally(experiment, sources(plain)), run_locally(told, sources(words))
    assert one["parameters"] is not None
    assert one["metrics"] == other["metrics"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("days", -4711, "column 'days' (data.target.duration) holds times below 0, or not finite; data.where: {days"),
        ("days", np.inf, "not finite"),
        ("days", None, "column 'days' (data.target.duration) has empty cells"),
        (
            "days",
            "SECRET-4711",
            "column 'days' (data.target.duration) holds numbers beside a few words; survival needs",
        ),
        ("died", 4711, "column 'died' (data.target.event) holds other values than 0 (not seen until then) and 1"),
        ("died", None, "column 'died' (data.target.event) has empty cells"),
        (
            "died",
            "SECRET-4711",
            "column 'died' (data.target.event) holds numbers beside a few words; survival needs 0 and 1",
        ),
    ],
)
def test_times_and_events_that_cannot_be_are_named_without_their_values(run_locally, column, value, message):
    frames = sites()
    frames["site1"] = frames["site1"].astype(object)
    frames["site1"].loc[3, column] = value
    with pytest.raises(ExperimentError) as refused:
        run_locally(Experiment.parse(content()), sources(frames))
    assert str(refused.value).startswith("site 'site1': ")
    assert message in str(refused.value)
    assert "4711" not in str(refused.value)


def test_a_missing_event_column_is_named_with_its_key(run_locally):
    frames = sites()
    frames["site2"] = frames["site2"].drop(columns="died")
    with pytest.raises(ExperimentError, match=r"site 'site2': column 'died' \(data.target.event\) is not there"):
        run_locally(Experiment.parse(content()), sources(frames))


@pytest.mark.parametrize("problem", [{}, {"method": "discrete_time", "intervals": 4}])
def test_a_time_of_0_stops_no_hospital_and_is_counted(run_locally, problem):
    frames = sites()
    frames["site1"].loc[:6, "days"] = 0
    experiment = Experiment.parse(content(rounds=2, problem={"kind": "survival", **problem}))
    result = run_locally(experiment, sources(frames))
    assert any(note.startswith("site 'site1': 7 rows have a time of 0; their events") for note in result["notes"])
    assert not any("'site2'" in note and "time of 0" in note for note in result["notes"])
    pooled = result["metrics"]["test"]["pooled"]
    assert np.isfinite([pooled[name] for name in ("loss", "c_index", "brier")]).all()


def test_rows_at_a_time_of_0_are_left_out_on_request(run_locally):
    frames, without = sites(), sites()
    frames["site1"].loc[:11, "days"] = 0
    without["site1"] = without["site1"].loc[12:]
    asked = {"kind": "survival", "at_zero": "leave_out"}
    one = run_locally(Experiment.parse(content(rounds=2, problem=asked)), sources(frames))
    other = run_locally(Experiment.parse(content(rounds=2)), sources(without))
    assert one["metrics"]["test"] == other["metrics"]["test"]
    assert any("12 rows do not meet data.where, or have a time of 0, and are left out" in note for note in one["notes"])
