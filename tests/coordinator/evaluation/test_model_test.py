"""A finished model tested across hospitals: nothing trains, sites measure that model only, and all policies answer."""

from __future__ import annotations

import numpy as np
import pytest
from hospitals import command, make_table, read_result, write

import v6_algorithm.api as v6
from v6_algorithm.coordinator.evaluation.model_test import experiment_of_test
from v6_algorithm.errors import ExperimentError, PolicyError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics.histogram import bin_index, logits
from v6_algorithm.learning.metrics.recalibration import recalibrate
from v6_algorithm.site.guard.order import Order

SMALL = {"target": "y", "hidden": [8], "rounds": 4, "batch_size": 8, "seed": 3, "learning_rate": 0.05}
FRAMES = {"a": make_table(80, 1), "b": make_table(60, 2)}


@pytest.fixture(scope="module")
def result() -> v6.Result:
    return v6.run(v6.Experiment(**SMALL), FRAMES)


@pytest.fixture(scope="module")
def run_folder(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("engine", ["local", "mock"])
def test_a_tested_model_has_the_metrics_that_evaluate_finds_on_each_sites_rows(result, run_folder, engine):
    tested = v6.run(v6.Experiment(**SMALL), {**FRAMES, "new": make_table(50, 7)}, test=run_folder, engine=engine)
    content = tested.content
    assert content["status"] == "tested"
    assert content["rounds_run"] == 0
    assert content["parameters"] is None
    for name, frame in {**FRAMES, "new": make_table(50, 7)}.items():
        alone = result.evaluate(frame).content["metrics"]["central"]["pooled"]
        assert content["metrics"]["test"]["sites"][name] == pytest.approx(alone, rel=1e-12)
    assert content["metrics"]["test"]["pooled"]["n"] == 190
    assert set(content["recalibration"]["test"]["y"]["sites"]) == {"a", "b", "new"}
    assert "Intercept" in tested.report()


@pytest.mark.parametrize("policy", ["trusted", "standard", "strict"])
def test_the_command_tests_under_every_policy_and_leaves_files(tmp_path, policy):
    file = write(tmp_path)
    assert command("run", file, "--out", tmp_path / "out", "--quiet").exit_code == 0
    tested = command("run", file, "--test", tmp_path / "out", "--out", tmp_path / "test", "--policy", policy)
    assert tested.exit_code == 0, tested.output
    assert "tested, nothing was trained" in tested.output
    assert "recalibration, pooled: intercept" in tested.output
    assert read_result(tmp_path / "test")["sites"]["berlin"]["n"] == {
        "train": 0,
        "validation": 0,
        "test": 36,
        "rows": 36,
    }
    assert not (tmp_path / "test" / "model.safetensors").exists()
    approved = command("approve", file, "--test", tmp_path / "out").output.split()[-1]
    assert (policy != "strict") or approved in tested.output
    assert approved != command("approve", file).output.split()[-1]


def test_each_model_of_a_cross_validation_is_tested_and_the_mean_told(tmp_path):
    folds = v6.run(v6.Experiment(folds=3, **SMALL), FRAMES)
    tested = v6.run(v6.Experiment(**SMALL), FRAMES, test=folds.save(tmp_path / "run")).content
    losses = [fold["metrics"]["test"]["pooled"]["loss"] for fold in tested["folds"]]
    assert len(losses) == 3
    assert tested["metrics"]["test"]["pooled"]["loss"] == pytest.approx(np.mean(losses))
    assert tested["metrics"]["test"]["pooled"]["n"] == 140


def test_groups_are_measured_too(run_folder):
    frames = {name: frame.assign(sex=np.arange(len(frame)) % 2) for name, frame in FRAMES.items()}
    keys = {**SMALL, "evaluation": {"subgroups": ["sex"]}, "features": ["a", "b", "c", "d"]}
    tested = v6.run(keys, frames, test=run_folder).content
    assert {name: group["n"] for name, group in tested["subgroups"]["test"]["sex"].items()} == {"0": 70, "1": 70}


@pytest.mark.parametrize(
    ("keys", "sites", "message"),
    [
        ({}, {"a": make_table(40, 1).drop(columns="b")}, "a: .*'b'"),
        (
            {},
            {"a": make_table(40, 1, classes=3)},
            "column 'y' has 1 class that the model does not know; it knows: 0",
        ),
        ({"positive": "> 0"}, FRAMES, "the model was trained with data.positive None, this has '> 0'"),
        ({"privacy": {"secure_aggregation": {"threshold": 2}}}, FRAMES, "secure_aggregation does not go with --test"),
    ],
)
def test_what_does_not_fit_the_model_is_one_line_that_names_it(run_folder, keys, sites, message):
    with pytest.raises(ExperimentError, match=message):
        v6.run({**SMALL, "minimum_sites": 1, **keys}, sites, test=run_folder)


def test_a_site_that_does_not_fit_may_be_left_out_by_name(run_folder):
    sites = {**FRAMES, "odd": make_table(40, 1).drop(columns="b")}
    tested = v6.run({**SMALL, "participation": {"unfit": "leave_out"}}, sites, test=run_folder)
    assert set(tested.content["metrics"]["test"]["sites"]) == {"a", "b"}
    assert any("left out: odd" in note for note in tested.notes)


def test_split_test_without_a_model_is_refused():
    with pytest.raises(ExperimentError, match="v6-algorithm run FILE --test RUN"):
        v6.run({"target": "y", "split": {"kind": "tested"}}, FRAMES)


# -- what the guard demands ----------------------------------------------------------------------------------------


@pytest.fixture
def tested(result) -> Experiment:
    return experiment_of_test(Experiment.parse({"data": {"target": "y"}}), result.content["parameters"])


def admit(experiment: Experiment, *asked: tuple[str, dict], job: dict | None = None) -> None:
    job = {} if job is None else job
    order = Order(job, experiment, most_experiments=3, researcher_weights=False)
    for method, request in asked:
        order.admit(method, request)


def items(parameters: str, **other) -> dict:
    return {"round": 1, "folds": [{"fold": 0, "parameters": parameters, "evaluate": ["test"], "train": False, **other}]}


def test_the_guard_measures_the_named_model_and_no_other(result, tested):
    from v6_algorithm.coordinator.evaluation.returned_model import ReturnedModel

    model = ReturnedModel.of(result.content["parameters"], "").tensors[""]
    schema = ("prepare", {"step": "schema"})
    admit(tested, schema, ("evaluate", items(model)))
    changed = wire.pack({name: tensor + 1 for name, tensor in wire.unpack(model).items()})
    for asked, message in (
        ([("evaluate", items(model))], "comes after the question for columns"),
        ([schema, ("evaluate", items(changed))], "measures the models that its experiment names"),
        ([schema, ("train", items(model, train=True))], "a task that tests one trains none"),
        ([schema, ("evaluate", items(model, personal=True))], "trains nothing"),
    ):
        with pytest.raises(PolicyError, match=message):
            admit(tested, *asked)


def test_a_task_that_tested_does_not_go_on_to_train(result, tested):
    job: dict = {}
    admit(tested, ("prepare", {"step": "schema", "experiment": "of the test"}), job=job)
    with pytest.raises(PolicyError, match="split must stay the same"):
        admit(Experiment.parse({"data": {"target": "y"}, "seed": 3}), ("prepare", {"step": "schema"}), job=job)


def test_ten_models_on_the_same_rows_are_too_many_for_a_node_that_minds_the_order(tested):
    section = tested.split.model_copy(update={"models": [f"{number:032x}" for number in range(10)]})
    with pytest.raises(PolicyError, match="10 models are to be tested on the same rows"):
        admit(tested.model_copy(update={"split": section}), ("prepare", {"step": "schema"}), ("evaluate", items("x")))


MIDDLES = logits(np.arange(4096), 4096)
# -- recalibration -------------------------------------------------------------------------------------------------


def scores(rows: int, seed: int, intercept: float, slope: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logit = generator.normal(-0.5, 1.2, rows)
    outcome = generator.random(rows) < 1 / (1 + np.exp(-(intercept + slope * logit)))
    return logit, outcome


def histograms(logit: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    bins = bin_index(1 / (1 + np.exp(-logit)), 4096)
    return np.stack([np.bincount(bins[outcome == kind], minlength=4096) for kind in (True, False)])


def fit_by_statsmodels(logit, outcome) -> tuple[np.ndarray, np.ndarray]:
    import statsmodels.api as sm

    fit = sm.Logit(outcome.astype(float), sm.add_constant(logit)).fit(disp=0)
    return np.asarray(fit.params), np.asarray(fit.bse)


def test_recalibration_is_the_logistic_regression_on_the_logits():
    pytest.importorskip("statsmodels")
    logit, outcome = scores(600, 0, 0.4, 0.7)
    fit = recalibrate(*histograms(logit, outcome).tolist(), MIDDLES)
    expected, errors = fit_by_statsmodels(logit, outcome)
    assert [fit["intercept"], fit["slope"]] == pytest.approx(expected, abs=2e-3)
    assert [fit["intercept_se"], fit["slope_se"]] == pytest.approx(errors, rel=5e-3)


def test_where_a_node_joins_bins_recalibration_is_off_by_less_than_its_standard_error():
    """Thirty hospitals of 300 rows: the largest difference from the fit on single rows, in standard errors."""
    pytest.importorskip("statsmodels")
    from v6_algorithm.site.guard.coarse import join_bins

    apart = []
    for seed in range(30):
        logit, outcome = scores(300, seed, 0.4, 0.7)
        fit = recalibrate(*join_bins(histograms(logit, outcome), 5).tolist(), MIDDLES)
        expected, errors = fit_by_statsmodels(logit, outcome)
        apart.append(np.abs(np.array([fit["intercept"], fit["slope"]]) - expected) / errors)
    assert np.max(apart) < 0.35


@pytest.mark.parametrize("rows", [([0, 0, 3, 2], [4, 1, 0, 0]), ([0, 0, 0, 0], [1, 1, 1, 1]), ([0, 3, 0], [0, 4, 0])])
def test_there_is_no_recalibration_where_the_likelihood_has_no_maximum(rows):
    assert recalibrate(*rows, np.arange(float(len(rows[0])))) is None
