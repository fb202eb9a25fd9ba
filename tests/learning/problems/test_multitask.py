"""Several targets at once: each is learned and measured as if alone, and gaps in one do not cost the others."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import TaskMetrics, check_state, compute, merge_states
from v6_algorithm.learning.problems import create_problem
from v6_algorithm.researcher.report.reading import MetricRow, columns, label

TARGETS = {
    "sex": "classification",
    "tissue": "classification",
    "death": {"kind": "classification", "positive": "!= alive"},
    "age": {"kind": "regression", "weight": 0.01},
}


def donors(rows, seed):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(size=(rows, 5)), columns=list("abcde"))
    return frame.assign(
        sex=np.where(frame["a"] > 0, "f", "m"),
        tissue=np.digitize(frame["b"], [-0.5, 0.5]),
        death=np.where(frame["c"] > 0.3, "ventilator", np.where(frame["c"] > 0, "sudden", "alive")),
        age=50 + 12 * frame["d"],
    )


def sources(change=lambda frame: frame):
    return {name: TableSource(frame=change(donors(rows, rows))) for name, rows in (("one", 140), ("two", 100))}


def experiment(**changes):
    return Experiment.parse(
        {
            "data": {"targets": TARGETS},
            "problem": "multitask",
            "model": {"kind": "mlp", "hidden": [16]},
            "rounds": 25,
            "training": {"local_epochs": 2, "batch_size": 16, "optimizer": {"kind": "adam", "lr": 0.01}},
            "stopping": {"monitor": "sex.auroc", "patience": None},
            "output": {"model": "last"},
        }
        | changes
    )


def refusal(**changes):
    with pytest.raises(ExperimentError) as refused:
        experiment(**changes)
    return str(refused.value)


@pytest.mark.slow
def test_all_targets_are_learned_at_once(run_locally):
    result = run_locally(experiment(), sources())
    pooled = result["metrics"]["test"]["pooled"]
    assert pooled["sex.accuracy"] > 0.85
    assert pooled["tissue.accuracy"] > 0.7
    assert pooled["death.auroc"] > 0.85
    assert pooled["age.r2"] > 0.7
    assert result["preparation"]["task_classes"] == {"sex": ["f", "m"], "tissue": [0, 1, 2], "death": [0, 1]}
    assert result["preparation"]["features"] == list("abcde")
    assert result["best_round"] == 25
    assert len(result["history"]["validation_sex.auroc"]) == 25


def problem():
    return create_problem(
        experiment(), Setup(["a"], {}, None, task_classes={"sex": ["f", "m"], "tissue": [0, 1, 2], "death": [0, 1]})
    )


def test_the_loss_is_the_weighted_sum_of_the_tasks_losses():
    output = torch.randn(4, 1 + 3 + 1 + 1)
    target = torch.tensor([[0, 2, 1, 50.0], [1, 0, 0, 61.0], [1, 1, 1, 40.0], [0, 0, 0, 44.0]])
    wanted = (
        functional.binary_cross_entropy_with_logits(output[:, 0], target[:, 0], reduction="none")
        + functional.cross_entropy(output[:, 1:4], target[:, 1].long(), reduction="none")
        + functional.binary_cross_entropy_with_logits(output[:, 4], target[:, 2], reduction="none")
        + 0.01 * (output[:, 5] - target[:, 3]) ** 2
    )
    torch.testing.assert_close(problem().row_loss(output, target, 0), wanted)


def test_a_missing_target_has_no_loss_and_no_gradient():
    output = torch.randn(2, 6, requires_grad=True)
    target = torch.tensor([[torch.nan, 1, torch.nan, torch.nan], [torch.nan] * 4])
    problem().row_loss(output, target, 0).sum().backward()
    assert output.grad[0, 1:4].abs().sum() > 0
    assert output.grad[0, [0, 4, 5]].tolist() == [0, 0, 0]
    assert output.grad[1].tolist() == [0] * 6


def test_rows_with_any_target_are_kept_and_each_task_counts_its_own(run_locally):
    def gaps(frame):
        frame.loc[::2, "sex"] = None
        frame.loc[::3, "age"] = np.nan
        frame.loc[::6, ["tissue", "death"]] = None
        return frame

    result = run_locally(experiment(rounds=2), sources(gaps))
    # Every sixth row has no target at all.
    assert sum(site["n"]["rows"] for site in result["sites"].values()) == 240 - 24 - 17
    assert result["status"] == "completed"


def test_a_split_is_stratified_by_all_classes_together():
    from v6_algorithm.data.encoding import load_table
    from v6_algorithm.learning.problems.multitask import MultiTask

    setup = Setup(["a"], {}, None, task_classes={"sex": ["f", "m"], "tissue": [0, 1, 2], "death": [0, 1]})
    frame = donors(300, 1)
    table = load_table({"va": frame}, experiment(), setup, MultiTask.targets(experiment()))
    assert table.target.shape == (300, 4)
    for part in ("train", "validation", "test"):
        share = (table.target[table.folds[0][part]][:, :3] == 0).mean(axis=0)
        np.testing.assert_allclose(share, (table.target[:, :3] == 0).mean(axis=0), atol=0.04)


def test_federated_metrics_of_tasks_equal_the_pooled_ones():
    generator = np.random.default_rng(0)
    rows = 60
    prediction = np.column_stack([generator.dirichlet([1, 1, 1], rows), generator.normal(size=rows)])
    target = np.column_stack([generator.integers(0, 3, rows), generator.normal(size=rows)]).astype(float)
    target[::4, 0] = target[::5, 1] = np.nan

    def state_of(part):
        metrics = TaskMetrics({"tissue": 3, "age": None})
        metrics.update(prediction[part], target[part], np.full(len(target[part]), 0.5))
        return metrics.state()

    merged = merge_states([state_of(slice(0, 20)), state_of(slice(20, 60)), state_of(slice(0, 0))])
    check_state(merged)
    whole = compute(state_of(slice(0, 60)))
    together = compute(merged)
    assert together.keys() == whole.keys()
    for name, value in whole.items():
        assert together[name] == (None if value is None else pytest.approx(value, rel=1e-9)), name
    known = ~np.isnan(target[:, 1])
    assert whole["age.mae"] == pytest.approx(np.abs(prediction[known, 3] - target[known, 1]).mean())
    other = TaskMetrics({"tissue": 4, "age": None}).state()
    with pytest.raises(ValueError, match="differ in shape"):
        merge_states([merged, other])
    # As a reply brings it: what was made of checked states is not checked again.
    merged = json.loads(json.dumps(merged))
    merged["tasks"]["age"]["n"] = 61
    with pytest.raises(ValueError, match="more rows"):
        check_state(merged)


def test_a_table_shows_first_the_main_metric_of_each_task():
    metrics = {"n": 9, "loss": 1.0, "sex.accuracy": 0.5, "sex.auroc": 0.5, "sex.auroc_resolution": 0.1, "age.mae": 2.0}
    assert columns([MetricRow("federated", "test", "pooled", "", metrics)]) == [
        "sex.auroc", "age.mae", "sex.accuracy", "loss"
    ]  # fmt: skip
    assert label("sex.auroc") == "sex: AUROC"


def test_the_page_is_made_of_a_multitask_result(run_locally):
    from v6_algorithm.researcher.report.page import render

    page = render(run_locally(experiment(rounds=2), sources()))
    assert "sex: AUROC" in page
    assert "of sex, tissue, death, age over 2 sites" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem": "classification", "stopping": {}}, "problem multitask and data.targets go together"),
        ({"data": {"target": "sex"}, "stopping": {}}, "problem multitask and data.targets go together"),
        ({"data": {"targets": TARGETS, "target": "sex"}}, "give target or targets, not both"),
        ({"data": {"targets": {"sex": "classification"}}}, "two columns or more"),
        ({"data": {"targets": {"sex": "clasification", "age": "regression"}}}, "data.targets.sex.kind"),
        ({"data": {"targets": TARGETS, "positive": "> 0"}}, "each has its own"),
        ({"data": {"targets": TARGETS, "features": ["age"]}}, "'age' is the targets.age"),
        (
            {"stopping": {"monitor": "sex.mae"}},
            "stopping.monitor is 'sex.mae', which problem multitask does not measure",
        ),
        (
            {"data": {"targets": {**TARGETS, "age": {"kind": "regression", "loss": "cross_entropy"}}}},
            "not for regression",
        ),
        ({"training": {"loss": "mse"}}, "or each task, has its own"),
    ],
)
def test_targets_that_cannot_be_are_refused(changes, message):
    assert message in refusal(**changes)


def test_a_task_that_a_site_lacks_or_cannot_learn_is_named(run_locally):
    with pytest.raises(ExperimentError, match=r"site 'one': column 'sex' \(data.targets.sex\) is not there"):
        run_locally(experiment(), sources(lambda frame: frame.drop(columns="sex")))
    with pytest.raises(ExperimentError, match=r"data.targets.sex has 1 class over all sites"):
        run_locally(experiment(), sources(lambda frame: frame.assign(sex="f")))
    with pytest.raises(ExperimentError, match=r"column 'age' \(data.targets.age\) holds text"):
        run_locally(experiment(), sources(lambda frame: frame.assign(age="60-69")))
