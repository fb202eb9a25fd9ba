"""`privacy.differential_privacy` in an experiment file: what goes with it, and what is refused by name."""

import pytest

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.privacy import DifferentialPrivacy

PRIVACY = {"differential_privacy": {"epsilon": 3, "delta": 1e-5}}


def refusal(**changes) -> str:
    with pytest.raises(ExperimentError) as refused:
        Experiment.parse({"data": {"target": "y"}, "privacy": PRIVACY} | changes)
    return str(refused.value)


def test_unit_and_clip_have_defaults():
    section = Experiment.parse({"data": {"target": "y"}, "privacy": PRIVACY}).privacy.differential_privacy
    assert (section.unit, section.clip) == ("sample", 1.0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tune": {"space": {"training.batch_size": [8, 16]}}}, "tune: the tries are not counted"),
        ({"training": {"accumulate": 2}}, "training.accumulate"),
        ({"training": {"precision": "mixed"}}, "training.precision mixed"),
        ({"model": {"kind": "mlp", "norm": "batch"}}, "model.norm batch"),
        ({"model": "glm"}, "strategy newton, which sends exact sums"),
        ({"personal": "fine_tune"}, "personal"),
        ({"strategy": {"kind": "fedavg", "private": "norm"}}, "strategy.private"),
        ({"start": {"pretrain_epochs": 2}}, "start.pretrain_epochs"),
        (
            {"data": {"target": {"duration": "days", "event": "died"}}, "problem": "survival", "model": "linear"},
            "problem survival with method cox",
        ),
        (
            {
                "data": {"target": "y", "image": {"column": "scan", "size": [16, 16], "range": [0, 255]}},
                "problem": {"kind": "gan", "latent": 4},
                "model": {"kind": "dcgan", "width": 4},
            },
            "problem gan",
        ),
        (
            {
                "data": {"target": "y", "image": "scan"},
                "problem": "image_classification",
                "model": {"kind": "cnn", "widths": [4]},
                "training": {"augmentation": ["mixup"]},
            },
            "training.augmentation mixup",
        ),
        (
            {"privacy": {"differential_privacy": {"unit": "patient", "epsilon": 3, "delta": 1e-5}}},
            "unit patient without data.group",
        ),
    ],
)
def test_what_would_pass_by_the_noise_is_refused_by_name(changes, named):
    assert f"privacy.differential_privacy does not go with {named}" in refusal(**changes)


@pytest.mark.parametrize("kind", ["moon", "feddyn", "qfedavg", "agnostic"])
def test_strategies_that_see_more_than_noised_gradients_are_refused(kind):
    assert f"strategy {kind}, which" in refusal(strategy=kind)


@pytest.mark.parametrize("kind", ["scaffold", "fednova"])
def test_strategies_of_plain_sgd_are_refused_too(kind):
    assert f"strategy {kind}, which" in refusal(strategy=kind, training={"optimizer": {"kind": "sgd", "lr": 0.1}})


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"epsilon": 0, "delta": 1e-5}, "privacy.differential_privacy.epsilon: must be greater than 0"),
        ({"epsilon": 1, "delta": 1}, "privacy.differential_privacy.delta: must be less than 1"),
        ({"epsilon": 1}, "privacy.differential_privacy.delta: is required"),
        ({"epsilon": 1, "delta": 1e-5, "clip": 0}, "privacy.differential_privacy.clip: must be greater than 0"),
        ({"epsilon": 1, "delta": 1e-5, "honest_sites": 0}, "honest_sites: must be greater than or equal to 1"),
        ({"epsilon": 1, "delta": 1e-5, "accountant": "pld"}, "must be 'rdp' or 'prv'"),
        ({"epsilon": 1, "delta": 1e-5, "unit": "person"}, "must be 'sample', 'patient' or 'site'"),
    ],
)
def test_numbers_and_units_that_cannot_be_are_named(section, named):
    assert named in refusal(privacy={"differential_privacy": section})


SITES = {"unit": "site", "epsilon": 3, "delta": 1e-2}
MASKED = {"secure_aggregation": {"threshold": 2}}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mode": "centralised"}, "unit site and mode centralised, in which no site sends an update"),
        ({"strategy": "scaffold", "training": {"optimizer": {"kind": "sgd", "lr": 0.1}}}, "strategy scaffold, which"),
        ({"strategy": "moon"}, "strategy moon, which"),
        ({"model": {"kind": "mlp", "norm": "batch"}}, "model.norm batch"),
        ({"privacy": MASKED | {"differential_privacy": SITES}}, "strategy.weighting samples: a large site's share"),
        (
            {
                "privacy": MASKED | {"differential_privacy": SITES},
                "strategy": {"kind": "fedavg", "weighting": "uniform", "clip": 1.0},
            },
            "strategy.clip, which would cut the noise",
        ),
        (
            {"privacy": {"differential_privacy": SITES | {"honest_sites": 2}}},
            "honest_sites without privacy.secure_aggregation",
        ),
    ],
)
def test_what_a_noised_update_of_a_site_does_not_go_with_is_refused_by_name(changes, named):
    assert named in refusal(**({"privacy": {"differential_privacy": SITES}} | changes))


def test_honest_sites_is_of_unit_site():
    section = PRIVACY["differential_privacy"] | {"honest_sites": 2}
    assert "honest_sites and unit sample" in refusal(privacy={"differential_privacy": section})


def test_what_needs_a_gradient_of_each_row_goes_with_unit_site():
    Experiment.parse(
        {
            "data": {"target": {"duration": "days", "event": "died"}},
            "problem": "survival",
            "model": "linear",
            "training": {"accumulate": 2},
            "privacy": {"differential_privacy": SITES},
        }
    )


@pytest.mark.parametrize(("given", "threshold", "honest"), [(None, 2, 1), (None, 5, 4), (1, 5, 1), (5, 5, 5)])
def test_without_a_number_all_but_one_of_the_threshold_are_taken_to_be_honest(given, threshold, honest):
    section = DifferentialPrivacy(**SITES, honest_sites=given)
    assert section.honest_of(threshold) == honest


def test_more_honest_sites_than_are_sure_to_be_in_a_sum_are_refused():
    with pytest.raises(ExperimentError, match="honest_sites: 3 is more than the 2 sites"):
        DifferentialPrivacy(**SITES, honest_sites=3).honest_of(2)
