"""`privacy.secure_aggregation` in an experiment: what must see a single site's numbers is refused by name."""

from __future__ import annotations

import pytest

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment

SECURE = {"secure_aggregation": {"threshold": 2}}
COX = {
    "data": {"target": {"duration": "days", "event": "died"}, "features": ["a", "b"]},
    "problem": "survival",
    "model": "cox",
}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"kind": "glm", "errors": "site"}}, "errors site, made of each site's score; allowed: model"),
        (COX, "cox with strata none, whose sums are at the times of single sites"),
    ],
)
def test_a_fit_that_needs_single_sites_is_refused_by_name(changes, named):
    with pytest.raises(ExperimentError, match=named):
        Experiment.parse({"data": {"target": "y"}} | changes | {"privacy": SECURE})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": {"kind": "fedavg", "combine": "median"}}, "strategy.combine median"),
        ({"strategy": {"kind": "fedavg", "combine": {"kind": "krum", "malicious": 1}}}, "strategy.combine krum"),
        ({"strategy": {"kind": "fedavg", "compress": "rankdad"}}, "strategy.compress"),
        ({"strategy": "cyclic"}, "strategy cyclic, which hands the model of one site to the next"),
        ({"strategy": "qfedavg"}, "strategy qfedavg"),
        ({"strategy": {"kind": "fedavg", "weighting": "steps"}}, "strategy.weighting steps"),
        ({"strategy": {"kind": "fedavg", "private": "norm"}}, "strategy.private"),
        ({"participation": {"late": "stale"}}, "participation.late stale"),
        ({"participation": {"fraction": 0.5}}, "participation.fraction"),
        ({"participation": {"maximum_share": 0.5}}, "participation.maximum_share"),
        ({"mode": "local"}, "mode local"),
        ({"split": "leave_one_site_out"}, "split leave_one_site_out"),
        ({"data": {"target": "y", "scaling": "minmax"}}, "data.scaling minmax"),
        ({"data": {"target": "y", "missing": "median"}}, "data.missing median"),
        ({"evaluation": {"subgroups": ["ward"]}}, "evaluation.subgroups"),
        ({"start": {"pretrain_epochs": 2}}, "start.pretrain_epochs"),
        ({"personal": "fine_tune"}, "personal"),
    ],
    ids=str,
)
def test_what_must_see_one_sites_numbers_is_refused_by_name(changes, words):
    with pytest.raises(ExperimentError, match=f"privacy.secure_aggregation does not go with {words}"):
        Experiment.parse({"data": {"target": "y"}} | changes | {"privacy": SECURE})


@pytest.mark.parametrize("threshold", [1, 0.5, 1.5, -2, "two", True])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(ExperimentError, match="threshold"):
        Experiment.parse({"data": {"target": "y"}, "privacy": {"secure_aggregation": {"threshold": threshold}}})
