"""Two models on the same rows of all hospitals: DeLong's test of pooled rows, from sums, under every policy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hospitals import command
from spying import Spy

import v6_algorithm.api as v6
from v6_algorithm.coordinator.evaluation.comparison import check_paired
from v6_algorithm.coordinator.evaluation.model_test import experiment_of_comparison, two_models
from v6_algorithm.coordinator.evaluation.returned_model import ReturnedModel
from v6_algorithm.coordinator.master import run as run_master
from v6_algorithm.engines.simulate import local_federation, own_policy
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


def delong(models):
    """Difference and standard error from single rows, by the definition of placements."""
    rows = pd.concat(FRAMES.values(), ignore_index=True)
    event, placed = rows["y"].to_numpy() == 1, []
    for model in models:
        risk = model.predict(rows)["p(1)"].to_numpy()
        order = np.sign(risk[event][:, None] - risk[~event]) / 2 + 0.5
        placed.append((order.mean(axis=1), order.mean(axis=0)))
    (a, b), (c, d) = placed
    return a.mean() - c.mean(), np.sqrt(np.var(a - c, ddof=1) / len(a) + np.var(b - d, ddof=1) / len(b))


@pytest.mark.parametrize("engine", ["local", "mock"])
def test_delongs_test_is_that_of_the_pooled_rows(models, engine):
    result = v6.run(KEYS, FRAMES, test=models[0], against=models[1], engine=engine)
    assert "two models on the same rows" in result.report()
    tested = result.content["comparison"]["test"]
    difference, error = delong(models)
    assert tested["auroc"]["difference"] == pytest.approx(difference, rel=1e-9)
    assert tested["auroc"]["standard_error"] == pytest.approx(error, rel=1e-9)
    assert tested["auroc"]["resolution"] == 0
    rows = pd.concat(FRAMES.values(), ignore_index=True)
    risks = [model.predict(rows)["p(1)"].to_numpy() for model in models]
    gaps = (risks[0] - rows["y"]) ** 2 - (risks[1] - rows["y"]) ** 2
    assert tested["brier"]["difference"] == pytest.approx(gaps.mean(), rel=1e-9)
    assert tested["brier"]["standard_error"] == pytest.approx(gaps.std(ddof=1) / len(gaps) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("policy", ["standard", "strict"])
def test_nodes_that_join_bins_answer_and_the_difference_is_within_its_resolution(models, policy):
    weights = two_models(*(str(model.content["parameters"]) for model in models))
    asked = experiment_of_comparison(Experiment.parse(KEYS), weights, ["a", "b"])
    rules = replace(own_policy(policy), approved_experiments=None)
    result = run_master(local_federation(asked, tables_of_sites(FRAMES, asked), rules), asked, weights=weights)
    told, (difference, error) = result["comparison"]["test"]["auroc"], delong(models)
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


@pytest.mark.parametrize("sums", [{"positives": [1, 2]}, {"positives": [float("nan")] * 6}, {}])
def test_malformed_sums_are_refused(sums):
    whole = {"positives": [1.0] * 6, "negatives": [1.0] * 6, "brier": None}
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
