"""Two models on the same rows of all hospitals: DeLong's test of pooled rows, from sums, under every policy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hospitals import command
from oracles import delong
from spying import Spy

import v6_algorithm.api as v6
from v6_algorithm.coordinator.evaluation.comparison import check_paired
from v6_algorithm.coordinator.evaluation.model_test import experiment_of_comparison, two_models
from v6_algorithm.coordinator.evaluation.resampling import _summary, resampled
from v6_algorithm.coordinator.evaluation.returned_model import ReturnedModel
from v6_algorithm.coordinator.master import run as run_master
from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
from v6_algorithm.errors import ExperimentError, FederationError, PolicyError, WireError
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.python.sites import tables_of_sites
from v6_algorithm.site.guard.order import Order

KEYS = {"data": {"target": "y", "missing": "error"}, "model": {"kind": "glm"}}


def table(rows: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 4))
    risk = 1 / (1 + np.exp(-(x[:, 0] + 0.8 * x[:, 1] - 0.3)))
    return pd.DataFrame(x, columns=list("abcd")).assign(y=(generator.random(rows) < risk).astype(int))


FRAMES = {"one": table(80, 1), "two": table(70, 2), "three": table(90, 3)}


def fitted(*features: str) -> v6.Result:
    return v6.run({**KEYS, "data": {**KEYS["data"], "features": list(features)}}, FRAMES)


@pytest.fixture(scope="module")
def models():
    return fitted("a", "b", "c"), fitted("a")


def single_rows(models):
    """Difference and standard error from single rows."""
    rows = pd.concat(FRAMES.values(), ignore_index=True)
    return delong(rows["y"].to_numpy() == 1, *(model.predict(rows)["p(1)"].to_numpy() for model in models))


@pytest.mark.parametrize("engine", ["local", "mock"])
def test_delongs_test_is_that_of_the_pooled_rows(models, engine):
    result = v6.run(KEYS, FRAMES, test=models[0], against=models[1], engine=engine)
    assert "two models on the same rows" in result.report()
    tested = result.content["comparison"]["test"]
    difference, error = single_rows(models)
    assert tested["auroc"]["difference"] == pytest.approx(difference, rel=1e-9)
    assert tested["auroc"]["standard_error"] == pytest.approx(error, rel=1e-9)
    assert tested["auroc"]["resolution"] == 0
    rows = pd.concat(FRAMES.values(), ignore_index=True)
    risks = [model.predict(rows)["p(1)"].to_numpy() for model in models]
    gaps = (risks[0] - rows["y"]) ** 2 - (risks[1] - rows["y"]) ** 2
    assert tested["brier"]["difference"] == pytest.approx(gaps.mean(), rel=1e-9)
    assert tested["brier"]["standard_error"] == pytest.approx(gaps.std(ddof=1) / len(gaps) ** 0.5, rel=1e-6)
    y, losses = rows["y"].to_numpy(), [-np.log(np.where(rows["y"] == 1, risk, 1 - risk)) for risk in risks]
    assert tested["log_loss"]["first"] == pytest.approx(losses[0].mean(), rel=1e-9)
    gaps = losses[0] - losses[1]
    assert tested["log_loss"]["standard_error"] == pytest.approx(gaps.std(ddof=1) / len(gaps) ** 0.5, rel=1e-6)
    told = result.comparison
    assert list(told.index[3:]) == ["accuracy", "balanced_accuracy", "recall", "specificity", "precision", "npv", "f1"]
    for name, scopes in (("first", result.content["metrics"]["test"]), ("second", tested["metrics"])):
        for metric in told.index[3:]:
            assert told.loc[metric, name] == pytest.approx(scopes["pooled"][metric], rel=1e-12)
    # The bootstrap's variance of a share is that of the rows' differences, McNemar's: (b + c - (b - c)^2 / n) / n^2.
    gaps = ((risks[0] > 0.5) == y).astype(float) - ((risks[1] > 0.5) == y)
    assert told.loc["accuracy", "standard_error"] == pytest.approx(gaps.std() / len(gaps) ** 0.5, rel=0.06)


def test_the_bootstrap_of_counts_is_that_of_rows():
    """Rows drawn anew one by one, 2000 times, as papers do it; the same spread and percentiles of every metric."""
    generator = np.random.default_rng(7)
    counts = {"a": [30, 4, 9, 7, 6, 5, 12, 27], "b": [12, 1, 5, 2, 8, 3, 9, 20]}
    told, notes = resampled({**counts, "few": None}, 3)
    assert [note for note in notes if "few has few rows" in note]
    kinds = {name: np.repeat(np.arange(8), of_site) for name, of_site in counts.items()}
    drawn = {name: [] for name in told}
    for _ in range(2000):
        rows = np.concatenate([generator.choice(of_site, len(of_site)) for of_site in kinds.values()])
        event, first, second = rows // 4 == 1, rows // 2 % 2 == 1, rows % 2 == 1
        values = [
            {
                "accuracy": (taken == event).mean(),
                "recall": taken[event].mean(),
                "specificity": 1 - taken[~event].mean(),
                "precision": event[taken].mean(),
                "npv": 1 - event[~taken].mean(),
                "f1": 2 * (taken & event).sum() / (taken.sum() + event.sum()),
            }
            for taken in (first, second)
        ]
        for both in values:
            both["balanced_accuracy"] = (both["recall"] + both["specificity"]) / 2
        for name, of_metric in drawn.items():
            of_metric.append(values[0][name] - values[1][name])
    for name, gaps in drawn.items():
        assert told[name]["standard_error"] == pytest.approx(np.std(gaps), rel=0.08)
        assert [told[name]["low"], told[name]["high"]] == pytest.approx(
            list(np.percentile(gaps, [2.5, 97.5])), abs=0.02
        )
    same, _ = resampled({"a": [30, 0, 0, 20, 5, 0, 0, 40]}, 0)
    assert same["accuracy"]["difference"] == 0
    assert same["accuracy"]["p"] == 1


@pytest.mark.parametrize("policy", ["standard", "strict"])
def test_nodes_that_join_bins_answer_and_the_difference_is_within_its_resolution(models, policy):
    weights = two_models(*(str(model.content["parameters"]) for model in models))
    asked = experiment_of_comparison(Experiment.parse(KEYS), weights, ["a", "b"])
    rules = replace(own_policy(policy), approved_experiments=None)
    result = run_master(local_federation(asked, tables_of_sites(FRAMES, asked), rules), asked, weights=weights)
    told, (difference, error) = result["comparison"]["test"]["auroc"], single_rows(models)
    assert told["resolution"] > 0
    assert abs(told["difference"] - difference) < told["resolution"]
    assert told["standard_error"] == pytest.approx(error, rel=0.25)
    assert any("have moved the difference of the AUROCs" in note for note in result["notes"])


def test_a_model_that_the_experiment_does_not_name_is_not_measured(models):
    weights = two_models(*(str(model.content["parameters"]) for model in models))
    asked = experiment_of_comparison(Experiment.parse(KEYS), weights, ["a", "b"])
    other = two_models(str(models[0].content["parameters"]), str(fitted("b").content["parameters"]))
    with pytest.raises(ExperimentError, match="names other models"):
        run_master(local_federation(asked, tables_of_sites(FRAMES, asked)), asked, weights=other)


def test_models_that_leave_out_other_rows_are_not_compared():
    frames = {name: frame.assign(b=frame["b"].where(np.arange(len(frame)) > 9)) for name, frame in FRAMES.items()}
    keys = {**KEYS, "data": {"target": "y", "missing": "drop"}}
    each = [v6.run({**keys, "data": {**keys["data"], "features": names}}, frames) for names in (["a"], ["a", "b"])]
    with pytest.raises((ExperimentError, FederationError), match="measured on other rows"):
        v6.run({**keys, "data": {**keys["data"], "features": ["a"]}}, frames, test=each[0], against=each[1])


@pytest.mark.parametrize(
    "sums", [{"positives": [1, 2]}, {"positives": [float("nan")] * 6}, {"joint": [1.5] * 8}, {"joint": [-1] * 8}, {}]
)
def test_malformed_sums_are_refused(sums):
    whole = {"positives": [1.0] * 6, "negatives": [1.0] * 6, "brier": None, "log_loss": None, "joint": None}
    assert check_paired({"one": whole}, ["one"]) == {"one": whole}
    with pytest.raises(WireError):
        check_paired({"one": {**whole, **sums} if sums else {}}, ["one"])


def test_a_site_that_does_not_answer_the_second_call_is_named(models):
    weights = two_models(*(str(model.content["parameters"]) for model in models))
    asked = experiment_of_comparison(Experiment.parse(KEYS), weights, ["a", "b"])
    asked = asked.model_copy(update={"participation": asked.participation.model_copy(update={"minimum": 2})})

    def lose(method, site, number, reply):
        paired = method == "RPC_evaluate" and any("paired" in item for item in reply.get("folds", []))
        return None if paired and site == "two" else reply

    federation = Spy(local_federation(asked, tables_of_sites(FRAMES, asked)), lose)
    result = run_master(federation, asked, weights=weights)
    assert result["comparison"]["test"]["auroc"]["standard_error"] > 0
    assert [note for note in result["notes"] if note.startswith("comparison: two did not answer the second call")]


def test_what_cannot_be_compared_is_named(models, tmp_path):
    with pytest.raises(ExperimentError, match="are the same"):
        v6.run(KEYS, FRAMES, test=models[0], against=models[0])
    with pytest.raises(ExperimentError, match="goes with test"):
        v6.run(KEYS, FRAMES, against=models[0])
    file = tmp_path / "experiment.yaml"
    FRAMES["one"].to_csv(tmp_path / "one.csv", index=False)
    file.write_text("sites: {one: {uri: one.csv}}\ndata: {target: y, missing: error}\nmodel: glm\n")
    alone = command("run", file, "--against", tmp_path)
    assert alone.exit_code == 2
    assert "goes with --test RUN" in alone.output


def test_a_node_tells_sums_at_other_placements_no_second_time(models):
    weights = two_models(*(str(model.content["parameters"]) for model in models))
    asked = experiment_of_comparison(Experiment.parse(KEYS), weights, ["a", "b"])
    order = Order({"steps": {"prepare schema": []}}, asked, most_experiments=1, researcher_weights=False)
    parameters = next(iter(ReturnedModel.of(weights.split("\n")[0], "a").tensors.values()))

    def request(placements):
        item = {"fold": 0, "parameters": parameters, "evaluate": [], "against": {"placements": placements}}
        return {"round": 1, "folds": [item]}

    order.admit("evaluate", request(None))
    order.admit("evaluate", request("first"))
    order.admit("evaluate", request("first"))
    with pytest.raises(PolicyError, match="placements"):
        order.admit("evaluate", request("second"))


def test_the_bootstraps_p_counts_the_gaps_beyond_none():
    gaps = np.linspace(0.1, 0.4, 99)
    assert _summary(0.7, 0.6, gaps)["p"] == pytest.approx(2 * 1 / 100)
    assert _summary(0.7, 0.6, np.append(gaps[:-4], [-0.1] * 4))["p"] == pytest.approx(2 * 5 / 100)
    assert _summary(0.7, 0.7, np.append(gaps, -gaps))["p"] == 1
