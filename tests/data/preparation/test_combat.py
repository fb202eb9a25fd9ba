"""Federated ComBat gives what ComBat on the pooled training rows gives, and no site needs another's numbers."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.preparation.negotiate import agree_on_columns, plan
from v6_algorithm.data.encoding import load_table
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.preparation.combat import Combat, Sums, empirical_bayes, merge_sums
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.table import TableData
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import DataError, ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems import problem_class
from v6_algorithm.site import SiteContext, handle

FEATURES = [f"x{number}" for number in range(6)]


def hospital(rows, seed, *, location=0.0, scale=1.0, missing=0.0):
    """Return six features with a site's location and scale in them, age, sex and a target that both depend on."""
    rng = np.random.default_rng(seed)
    age, sex = rng.normal(50 + 5 * seed, 10, rows), rng.choice(["f", "m"], rows)
    y = (rng.random(rows) < 1 / (1 + np.exp(-(age - 55) / 10))).astype(int)
    weights = np.linspace(-1, 1, len(FEATURES))
    signal = 1000 + np.outer(age - 50, weights) / 5 + np.outer(sex == "m", weights**2) + np.outer(y, weights[::-1])
    shift = location * (1 + 0.3 * rng.normal(size=len(FEATURES)))
    frame = pd.DataFrame(signal + shift + scale * rng.normal(size=(rows, len(FEATURES))), columns=FEATURES)
    frame = frame.mask(rng.random(frame.shape) < missing)
    return frame.assign(age=age, sex=sex, y=y)


FRAMES = {
    "amsterdam": hospital(60, 1, location=3, scale=1),
    "berlin": hospital(45, 2, location=-4, scale=2.5),
    "cairo": hospital(36, 3, location=0.5, scale=0.4),
}


def experiment(covariates=(), **changes):
    data = {"target": "y", "features": FEATURES, "scaling": "none"}
    data |= {"harmonisation": {"kind": "combat", "covariates": list(covariates)}} | changes.pop("data", {})
    return Experiment.parse({"data": data, "training": {"dtype": "float64"}, **changes})


def planned(content, frames, *, mode=None):
    """Run the calls before training; return the agreed setup and, by site, its table."""
    content = content if mode is None else content.model_copy(update={"mode": mode})
    federation = local_federation(content, {name: TableSource(frame=frame) for name, frame in frames.items()})
    names = [site.name for site in federation.sites()]

    def ask(sites, body):
        common = {"experiment": content.for_sites(), "sites": len(sites)}
        requests = {site: wire.message(site=site, round=0, attempt=1, **common, **body) for site in sites}
        return federation.call("RPC_prepare", requests, deadline_s=60)

    sites, agreement = agree_on_columns(ask, content, names, 1)
    setup = plan(ask, content, agreement, sites, 1).setup
    targets = problem_class(content.problem.kind).targets(content)
    # As a site gets it.
    setup = Setup.from_json(json.loads(wire.to_text(setup.to_json())))
    return setup, {name: load_table({name: frame}, content, setup, targets) for name, frame in frames.items()}


def harmonised(content, frames, fold=0):
    """Return all sites' inputs, and their training rows, one under the other."""
    setup, tables = planned(content, frames)
    inputs = [table.inputs(setup, content.data, fold)[:, : len(setup.features)] for table in tables.values()]
    train = [np.isin(np.arange(len(table.values)), table.folds[fold].train) for table in tables.values()]
    return np.concatenate(inputs), np.concatenate(train)


def reference(values, sites, covariates, train):
    """ComBat as Johnson et al. (2007) write it, on the pooled training rows; applied to all rows.

    Sections 3.2 steps 1 to 3: standardise by least squares with an effect a batch, estimate the batch effects'
    posterior means by iteration, adjust. One batch without training rows is estimated from all its rows.
    """
    batches = np.unique(sites)
    trained = [batch for batch in batches if train[sites == batch].any()]
    design = np.column_stack([*((sites == batch).astype(float) for batch in trained), covariates])
    solution = np.linalg.lstsq(design[train], values[train], rcond=None)[0]
    shares = np.array([(sites[train] == batch).mean() for batch in trained])
    alpha, beta = shares @ solution[: len(trained)], solution[len(trained) :]
    sigma = np.sqrt(((values[train] - design[train] @ solution) ** 2).mean(axis=0))
    kept = alpha + covariates @ beta
    scaled, adjusted = (values - kept) / sigma, np.empty_like(values)
    for batch in batches:
        own = sites == batch
        z = scaled[own & train] if batch in trained else scaled[own]
        n, gamma_hat, delta_hat = len(z), z.mean(axis=0), z.var(axis=0, ddof=1)
        gamma_bar, tau2 = gamma_hat.mean(), gamma_hat.var(ddof=1)
        m, s2 = delta_hat.mean(), delta_hat.var(ddof=1)
        lam, theta = (m**2 + 2 * s2) / s2, (m**3 + m * s2) / s2
        gamma, delta, change = gamma_hat, delta_hat, 1.0
        while change > 1e-4:
            new_gamma = (n * tau2 * gamma_hat + delta * gamma_bar) / (n * tau2 + delta)
            new_delta = (theta + 0.5 * ((z - new_gamma) ** 2).sum(axis=0)) / (n / 2 + lam - 1)
            change = max(np.abs(new_gamma / gamma - 1).max(), np.abs(new_delta / delta - 1).max())
            gamma, delta = new_gamma, new_delta
        adjusted[own] = kept[own] + sigma * (scaled[own] - gamma) / np.sqrt(delta)
    return adjusted


def pooled(frames, covariates):
    frame = pd.concat(frames.values(), ignore_index=True)
    sites = np.repeat(list(frames), [len(own) for own in frames.values()])
    design = {"age": frame["age"], "sex": (frame["sex"] == "m").astype(float)}
    return frame, sites, np.column_stack([np.empty((len(frame), 0)), *(design[name] for name in covariates)])


@pytest.mark.parametrize("covariates", [[], ["age"], ["age", "sex"]])
def test_federated_combat_equals_pooled_combat(covariates):
    content = experiment(covariates, data={"categorical": ["sex"]})
    found, train = harmonised(content, FRAMES)
    frame, sites, design = pooled(FRAMES, covariates)
    expected = reference(frame[FEATURES].to_numpy(), sites, design, train)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert np.abs(expected - frame[FEATURES].to_numpy()).max() > 1


def test_federated_combat_equals_neurocombat():
    """The package that the field uses; it has no separate training rows, so all rows train."""
    neurocombat = pytest.importorskip("neuroCombat").neuroCombat
    content = experiment(["age"], split={"kind": "ratio", "train": 1, "validation": 0, "test": 0})
    frames = {name: frame.assign(age=frame["age"].round()) for name, frame in FRAMES.items()}
    frame, sites, _ = pooled(frames, [])
    covars = pd.DataFrame({"site": sites, "age": frame["age"]})
    expected = neurocombat(frame[FEATURES].to_numpy().T, covars, "site", continuous_cols=["age"])["data"].T
    np.testing.assert_allclose(harmonised(content, frames)[0], expected, atol=1e-8)


@pytest.mark.parametrize("fold", range(3))
def test_every_fold_is_harmonised_with_its_own_training_rows(fold):
    content = experiment(["age"], split={"kind": "kfold", "folds": 3})
    found, train = harmonised(content, FRAMES, fold)
    frame, sites, design = pooled(FRAMES, ["age"])
    np.testing.assert_allclose(found, reference(frame[FEATURES].to_numpy(), sites, design, train), atol=1e-8)


def given(frame, part):
    return frame.assign(part=part if isinstance(part, str) else np.resize(part, len(frame)))


def test_rows_of_validation_and_test_change_nothing_of_the_others():
    parts = ["train", "train", "validation", "test"]
    frames = {name: given(frame, parts) for name, frame in FRAMES.items()}
    content = experiment(["age"], data={"split_column": "part"}, split={"kind": "given"})
    changed = {name: frame.copy() for name, frame in frames.items()}
    for frame in changed.values():
        frame.loc[frame["part"] != "train", FEATURES] *= 1e3
    before, train = harmonised(content, frames)
    after, _ = harmonised(content, changed)
    np.testing.assert_array_equal(before[train], after[train])


def test_a_site_left_out_is_harmonised_by_its_own_rows_without_their_targets():
    frames = {name: given(frame, "test" if name == "cairo" else ["train"]) for name, frame in FRAMES.items()}
    content = experiment(["age"], data={"split_column": "part"}, split={"kind": "given"})
    found, train = harmonised(content, frames)
    frame, sites, design = pooled(frames, ["age"])
    np.testing.assert_allclose(found, reference(frame[FEATURES].to_numpy(), sites, design, train), atol=1e-8)
    frames["cairo"] = frames["cairo"].assign(y=1 - frames["cairo"]["y"])
    np.testing.assert_array_equal(harmonised(content, frames)[0], found)


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_leaving_each_site_out_in_turn_is_combat_on_the_others(fold):
    content = experiment(["age"], split={"kind": "leave_one_site_out", "validation": 0.2})
    found, train = harmonised(content, FRAMES, fold)
    frame, sites, design = pooled(FRAMES, ["age"])
    assert not train[sites == list(FRAMES)[fold]].any()
    np.testing.assert_allclose(found, reference(frame[FEATURES].to_numpy(), sites, design, train), atol=1e-8)


@pytest.mark.parametrize("scaling", ["standard", "robust"])
@pytest.mark.parametrize("mode", ["federated", "centralised"])
def test_a_harmonised_run_that_leaves_each_site_out_tests_every_row_once(mode, scaling):
    content = experiment(
        ["age"], data={"scaling": scaling}, split="leave_one_site_out", model="logistic", rounds=2, mode=mode
    )
    sources = {name: TableSource(frame=frame) for name, frame in FRAMES.items()}
    result = run(local_federation(content, sources), content)
    pooled_test = result["metrics"]["test"]["pooled"]
    assert pooled_test["n"] == sum(len(frame) for frame in FRAMES.values())
    assert np.isfinite(pooled_test["loss"])
    assert [fold["test_site"] for fold in result["folds"]] == list(FRAMES)


def test_harmonised_training_rows_are_made_one_fold_at_a_time(monkeypatch):
    """Ten harmonised copies of a wide table would not fit."""
    setup, tables = planned(experiment(split={"kind": "kfold", "folds": 4}), FRAMES)
    made = []
    adjust = TableData.harmonised
    monkeypatch.setattr(TableData, "harmonised", lambda *given: made.append(given[3]) or adjust(*given))
    folds = iter(tables["berlin"].training_values(setup, experiment().data))
    assert made == []
    next(folds)
    assert made == [0]
    assert len(list(folds)) == 3


def test_a_site_left_out_and_scaled_by_site_is_scaled_by_all_its_rows():
    """It has no training rows: their mean would be NaN, and all its predictions with it."""
    frames = {name: given(frame, "test" if name == "cairo" else ["train"]) for name, frame in FRAMES.items()}
    data = {"split_column": "part", "harmonisation": "none", "scaling": {"kind": "standard", "scope": "site"}}
    setup, tables = planned(experiment(data=data, split={"kind": "given"}), frames)
    inputs = tables["cairo"].inputs(setup, experiment(data=data, split={"kind": "given"}).data, 0)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(inputs.std(axis=0), 1)


def test_a_centralised_run_harmonises_hospitals_as_the_federation_does():
    content = experiment(["age"])
    federated, _ = planned(content, FRAMES)
    centralised, _ = planned(content, FRAMES, mode="centralised")
    for name, array in federated.combat.arrays().items():
        np.testing.assert_allclose(getattr(centralised.combat, name), array, rtol=1e-10)


def test_where_each_site_trains_alone_nothing_is_harmonised():
    assert planned(experiment(), {"cairo": FRAMES["cairo"]}, mode="local")[0].combat is None


@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust"])
def test_scales_are_of_the_harmonised_columns(scaling):
    content = experiment(data={"scaling": scaling})
    plain, train = harmonised(experiment(), FRAMES)
    scaled, _ = harmonised(content, FRAMES)
    rows = plain[train]
    if scaling == "standard":
        expected, tolerance = (plain - rows.mean(axis=0)) / rows.std(axis=0), 1e-9
    elif scaling == "minmax":
        expected, tolerance = (plain - rows.min(axis=0)) / np.ptp(rows, axis=0), 1e-9
    else:
        low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
        # Quantiles come from cells of five neighbouring rows, of 22 training rows at the smallest site.
        expected, tolerance = (plain - middle) / (high - low), 0.6
    np.testing.assert_allclose(scaled, expected, atol=tolerance)


def test_missing_values_are_filled_before_with_the_federations_means():
    frames = {
        name: hospital(len(frame), seed, location=2 * seed, missing=0.2)
        for seed, (name, frame) in enumerate(FRAMES.items())
    }
    found, train = harmonised(experiment(["age"]), frames)
    frame, sites, design = pooled(frames, ["age"])
    filled = frame[FEATURES].fillna(frame.loc[train, FEATURES].mean()).to_numpy()
    np.testing.assert_allclose(found, reference(filled, sites, design, train), atol=1e-8)


def test_a_covariate_that_is_a_feature_stays_as_it_is():
    content = experiment(["age"], data={"features": [*FEATURES, "age"]})
    found, train = harmonised(content, FRAMES)
    frame, sites, design = pooled(FRAMES, ["age"])
    np.testing.assert_allclose(found[:, -1], frame["age"])
    np.testing.assert_allclose(found[:, :-1], reference(frame[FEATURES].to_numpy(), sites, design, train), atol=1e-8)


def test_what_the_covariates_explain_is_kept_and_the_sites_effect_is_gone():
    found, train = harmonised(experiment(["age"]), FRAMES)
    frame, sites, design = pooled(FRAMES, ["age"])
    before = frame[FEATURES].to_numpy()[train]
    residuals = [
        values
        - design[train] * (values.T @ (design[train] - design[train].mean()) / design[train].var() / train.sum()).T
        for values in (before, found[train])
    ]
    spread = [np.std([values[sites[train] == site].mean(axis=0) for site in FRAMES], axis=0) for values in residuals]
    assert (spread[1] < 0.2 * spread[0]).all()
    slope = np.polyfit(frame["age"][train], found[train][:, 0], 1)[0]
    assert slope == pytest.approx(-0.2, abs=0.1)


def test_features_that_no_site_varies_stay_as_they_are():
    frames = {name: frame.assign(x0=float(seed)) for seed, (name, frame) in enumerate(FRAMES.items())}
    found, _ = harmonised(experiment(), frames)
    np.testing.assert_array_equal(found[:, 0], pooled(frames, [])[0]["x0"])
    assert np.isfinite(found).all()


def test_a_feature_that_one_site_does_not_vary_is_harmonised_and_finite():
    frames = {**FRAMES, "cairo": FRAMES["cairo"].assign(x0=7.0)}
    assert np.isfinite(harmonised(experiment(), frames)[0]).all()


def test_volumes_of_a_million_with_a_small_spread_do_not_cancel():
    frames = {name: frame.assign(**{f: 1e6 + frame[f] for f in FEATURES}) for name, frame in FRAMES.items()}
    found, _ = harmonised(experiment(["age"]), frames)
    plain, _ = harmonised(experiment(["age"]), FRAMES)
    np.testing.assert_allclose(found - 1e6, plain, atol=1e-7)


def test_covariates_that_say_the_same_twice_change_nothing():
    frames = {name: frame.assign(born=2026 - frame["age"]) for name, frame in FRAMES.items()}
    once, _ = harmonised(experiment(["age"]), frames)
    twice, _ = harmonised(experiment(["age", "born"]), frames)
    np.testing.assert_allclose(twice, once, atol=1e-7)


def test_no_message_holds_a_sites_location_or_scale(monkeypatch):
    """They are estimated and used at the site: what the sites share are beta, alpha and sigma."""
    setup, _ = planned(experiment(["age"]), FRAMES)
    assert set(setup.combat.arrays()) == {"beta", "alpha", "sigma"}
    assert setup.combat.alpha.shape == (1, len(FEATURES))


def test_the_result_says_what_a_new_site_needs_to_harmonise_itself():
    content = experiment(["age"], rounds=1, model="logistic")
    tables = {name: TableSource(frame=frame) for name, frame in FRAMES.items()}
    result = run(local_federation(content, tables), content)
    combat = result["preparation"]["combat"]
    assert np.shape(combat["beta"]) == (1, len(FEATURES))
    assert np.shape(combat["alpha"]) == np.shape(combat["sigma"]) == (len(FEATURES),)


def test_the_engines_agree_on_a_harmonised_run():
    from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

    import v6_algorithm

    content = experiment(["age"], rounds=2, model="logistic")
    tables = {name: TableSource(frame=frame) for name, frame in FRAMES.items()}
    local = run(local_federation(content, tables), content)
    client = MockAlgorithmClient(datasets=[[{"database": frame}] for frame in FRAMES.values()], module="v6_algorithm")
    plain = content.model_dump(mode="json", exclude={"sites"})
    mock = v6_algorithm.master(client, plain, names={str(n): name for n, name in enumerate(FRAMES)})
    assert mock["parameters"] == local["parameters"]


# -- what is refused -----------------------------------------------------------------------------------------------


def test_the_target_cannot_be_a_covariate():
    """It would be written into the inputs of every row, also of those to be predicted."""
    with pytest.raises(ExperimentError, match="column 'y' is the target and cannot be a covariate"):
        experiment(["y"])


def test_a_covariate_without_combat_and_zscore_are_refused_with_what_to_write():
    with pytest.raises(ExperimentError, match="covariates go with kind combat"):
        experiment(data={"harmonisation": {"covariates": ["age"]}})
    with pytest.raises(ExperimentError, match=r"`scaling: \{kind: standard, scope: site\}`"):
        experiment(data={"harmonisation": "zscore"})
    with pytest.raises(ExperimentError, match=r"scaling.scope site takes the sites' differences out as well"):
        experiment(data={"scaling": {"kind": "standard", "scope": "site"}})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.drop(columns="age"), r"column 'age' \(data.harmonisation.covariates\) is not there"),
        (lambda frame: frame.assign(age="old"), "column 'age' holds text where numbers are expected"),
        (lambda frame: frame.assign(age=frame["age"].where(frame.index > 3)), "column 'age' .* has empty cells"),
    ],
)
def test_a_covariate_that_a_site_cannot_give_ends_the_run_and_names_both(spoil, message):
    frames = {**FRAMES, "berlin": spoil(FRAMES["berlin"])}
    with pytest.raises(ExperimentError, match=f"site 'berlin': {message}"):
        planned(experiment(["age"]), frames)


def test_time_series_cannot_be_harmonised():
    data = {"target": "y", "sequence": "series", "harmonisation": "combat"}
    with pytest.raises(ExperimentError, match="harmonisation is of columns of numbers, of which time series have none"):
        Experiment.parse({"data": data, "problem": "sequence_classification"})


@pytest.mark.parametrize("step", ["harmonisation", "moments"])
def test_a_request_by_hand_does_not_get_sums_of_a_column_with_one_value(step):
    """The mean of one value is that value, also when the empty cells beside it are filled."""
    setup, _ = planned(experiment(), FRAMES)
    content = experiment(data={"split_column": "part"}, split={"kind": "given"})
    request = wire.message(
        site="cairo", round=0, attempt=1, experiment=content.for_sites(), sites=3, step=step, setup=setup.to_json()
    )
    frame = FRAMES["cairo"].assign(part="train")
    frame.loc[1:, "x0"] = np.nan
    reply = handle("prepare", request, SiteContext({"cairo": TableSource(frame=frame)}))
    assert (reply["status"], reply["kind"]) == ("error", "refused")
    assert "x0" in reply["message"]


def test_one_feature_or_one_site_cannot_be_harmonised():
    with pytest.raises(ExperimentError, match="at least 2 numeric features that are no covariates are needed"):
        planned(experiment(data={"features": ["x0"]}), FRAMES)
    with pytest.raises(ExperimentError, match="needs training rows at 2 sites"):
        planned(experiment(), {"cairo": FRAMES["cairo"]})


def test_a_covariate_that_the_node_does_not_allow_is_refused(monkeypatch):
    from v6_algorithm.site.policy import Policy

    content = experiment(["age"])
    contexts = {n: SiteContext({n: TableSource(frame=f)}, Policy(allowed_columns="x.|y")) for n, f in FRAMES.items()}
    federation = LocalFederation(contexts)
    with pytest.raises(Exception, match="this node does not allow column 'age'"):
        run(federation, content)


@pytest.mark.parametrize("change", [{"yy": -1.0}, {"rows": 1.0}, {"xx": np.nan}, {"hospitals": -1.0}])
def test_sums_that_cannot_be_are_refused(change):
    rng = np.random.default_rng(0)
    arrays = Sums.of([[(rng.normal(size=(9, 4)), rng.normal(size=(9, 2)))] * 2]).arrays()
    Sums.check(arrays, 1, 4, 2)
    for name, value in change.items():
        arrays[name] = np.full_like(arrays[name], value)
    with pytest.raises(WireError):
        Sums.check(arrays, 1, 4, 2)


def test_features_that_all_vary_alike_are_no_division_by_zero():
    scaled = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
    location, scale = empirical_bayes(scaled)
    assert np.isfinite(location).all()
    np.testing.assert_allclose(scale, 1)


def test_the_steps_end_where_no_feature_moves_by_more_than_a_ten_thousandth():
    """As in the original: more steps give other digits."""
    scaled = np.random.default_rng(0).normal([0.2, 1.0, -0.5, 0.1], [0.5, 1.5, 1.0, 3.0], (8, 4))
    location, variance = scaled.mean(axis=0), scaled.var(axis=0, ddof=1)
    centre, between, mean, spread = location.mean(), location.var(ddof=1), variance.mean(), variance.var(ddof=1)
    shape, rate = (2 * spread + mean**2) / spread, (mean * spread + mean**3) / spread
    gamma, delta, change = location, variance, 1.0
    while change > 1e-4:
        before = np.concatenate([gamma, delta])
        gamma = (between * 8 * location + delta * centre) / (between * 8 + delta)
        delta = (((scaled - gamma) ** 2).sum(axis=0) / 2 + rate) / (4 + shape - 1)
        change = np.abs(np.concatenate([gamma, delta]) / before - 1).max()
    found = empirical_bayes(scaled)
    np.testing.assert_allclose(found[0], gamma, rtol=1e-12)
    np.testing.assert_allclose(found[1], np.sqrt(delta), rtol=1e-12)


def test_a_site_with_one_row_says_what_is_missing():
    rng = np.random.default_rng(0)
    sums = merge_sums([Sums.of([[(rng.normal(size=(9, 3)), np.empty((9, 0)))]]) for _ in range(2)])
    combat = Combat.fit(sums, untouched=np.zeros(3, dtype=bool))
    with pytest.raises(DataError, match="at least 2 training rows"):
        combat.adjust(np.ones((3, 3)), np.empty((3, 0)), 0, np.array([1]))
