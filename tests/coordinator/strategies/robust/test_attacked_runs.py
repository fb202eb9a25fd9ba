"""Robust rules in whole runs: one of seven sites sends noise, or too few sites are there."""

import pytest
import torch
from hospitals import make_table

from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.strategy.combine import MINIMUM

SITES = {f"site-{number}": TableSource(frame=make_table(60, number)) for number in range(7)}


def noise_from(bad_site, size=100.0):
    """Add noise to every number of a site's model."""

    def tamper(method, site, number, reply):
        if method == "RPC_train" and site == bad_site:
            for item in reply["folds"]:
                model = wire.unpack(item["parameters"])
                generator = torch.Generator().manual_seed(number)
                item["parameters"] = wire.pack(
                    {
                        name: tensor + size * torch.randn(tensor.shape, generator=generator)
                        for name, tensor in model.items()
                    }
                )
        return reply

    return tamper


def accuracy(result):
    return result["metrics"]["test"]["pooled"]["accuracy"]


@pytest.fixture
def attacked(spied, make_experiment):
    def go(combine, bad="site-3", sites=SITES, **changes):
        experiment = make_experiment(
            strategy={"kind": "fedavg", "combine": combine}, rounds=5, output={"model": "last"}, **changes
        )
        return spied(experiment, noise_from(bad), sites=sites)[1]

    return go


def test_the_mean_does_not_bear_one_site_that_sends_noise(attacked):
    assert accuracy(attacked("mean")) < 0.75


@pytest.mark.parametrize("kind", sorted(MINIMUM))
@pytest.mark.slow
def test_every_rule_bears_one_site_that_sends_noise(attacked, kind):
    assert accuracy(attacked(kind)) > 0.85


def test_fewer_sites_than_a_rule_needs_are_refused_before_any_is_asked(attacked):
    six = dict(list(SITES.items())[:6])
    with pytest.raises(ExperimentError, match="bulyan needs 7 sites to bear 1 malicious, the federation has 6: site-0"):
        attacked("bulyan", sites=six)


def test_a_round_in_which_too_few_sites_answered_for_the_rule_is_waited_over(spied, make_experiment):
    experiment = make_experiment(strategy={"kind": "fedavg", "combine": "bulyan"}, rounds=3)

    def lose_one(method, site, number, reply):
        return None if method == "RPC_train" and site == "site-0" and number == 2 else reply

    _, result = spied(experiment, lose_one, sites=SITES)
    assert result["status"] == "stopped"
    assert result["rounds_run"] == 1


@pytest.mark.parametrize(
    ("combine", "told"),
    [("mean", 7), ("bulyan", 7), ("krum", 1), ("multi_krum", 4), ({"kind": "multi_krum", "keep": 2}, 2)],
)
def test_a_node_is_told_of_how_many_sites_the_next_model_is_made(spied, make_experiment, combine, told):
    """A node may refuse a model that hides its own among too few; krum's is one site's as it is."""
    spy, _ = spied(make_experiment(strategy={"kind": "fedavg", "combine": combine}, rounds=1), sites=SITES)
    assert {request["sites"] for requests in spy.of("RPC_train") for request in requests.values()} == {told}


def test_centred_clipping_goes_on_about_the_last_rounds_update(make_experiment):
    from v6_algorithm.coordinator.strategies import create_strategy
    from v6_algorithm.coordinator.strategies.reply import Reply
    from v6_algorithm.exchange.wire import TensorSpec

    spec, rows = {"w": TensorSpec((1,), "float64")}, dict.fromkeys("abc", 10)
    combine = {"kind": "centred_clipping", "radius": 1.0}

    def strategy():
        return create_strategy(make_experiment(strategy={"kind": "fedavg", "combine": combine}), spec, rows)

    def next_model(one, number, sent):
        one.configure(number, list(rows), {"w": torch.tensor([sent], dtype=torch.float64)})
        for site in rows:
            one.add(Reply(site, {"w": torch.tensor([sent + 10.0], dtype=torch.float64)}, 10, 1, 0.5))
        return float(one.aggregate()["w"])

    first = strategy()
    assert next_model(first, 1, 0.0) == pytest.approx(1)
    resumed = strategy()
    resumed.load_state_dict(first.state_dict())
    # The centre is at 1, and moves by 1 once more.
    assert [next_model(one, 2, 1.0) for one in (first, resumed)] == [pytest.approx(3)] * 2


@pytest.mark.parametrize(
    ("combine", "message"),
    [
        ("mode", "'mean', 'median'"),
        ({"kind": "krum", "malicious": -1}, "malicious"),
        ({"kind": "krum", "keep": 2}, "keep does not go with combine krum; it is for multi_krum"),
        ({"kind": "mean", "malicious": 2}, "malicious does not go with combine mean"),
        ({"kind": "krum", "weighted": True}, "weighted does not go with combine krum"),
        ({"kind": "norm_clipping", "radius": 0}, "radius"),
    ],
)
def test_wrong_options_of_a_rule_are_refused(combine, message):
    with pytest.raises(ExperimentError, match=message):
        Experiment.parse({"data": {"target": "y"}, "strategy": {"kind": "fedavg", "combine": combine}})


def test_a_rule_that_can_weigh_takes_the_strategys_weighting():
    combine = {"kind": "geometric_median", "weighted": True}
    content = {"data": {"target": "y"}, "strategy": {"kind": "fedavg", "weighting": "steps"}}
    content["strategy"]["combine"] = combine
    assert Experiment.parse(content).strategy.combine.weighted
    with pytest.raises(ExperimentError, match="weighting does not go with combine geometric_median"):
        Experiment.parse({**content, "strategy": {**content["strategy"], "combine": "geometric_median"}})
