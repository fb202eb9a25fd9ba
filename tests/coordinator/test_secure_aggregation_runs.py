"""Runs with secure aggregation: models and metrics as in the clear, whoever drops out, and no site's numbers."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
from hospitals import table
from loopback import LoopbackProxy
from spying import Spy, lose

from v6_algorithm.coordinator.checkpoint import Checkpoints
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.engines.simulation.simulate import local_federation, mock_federation
from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, preparing
from v6_algorithm.site import policy as site_policy
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.state.memory import RoundMemory


class Killed(BaseException):
    """What SIGKILL is to the process."""


class Dying(Spy):
    """A federation whose process is killed at some call, after so many replies."""

    def __init__(self, federation, call, replies):
        super().__init__(federation, self._count)
        self._call, self._replies = call, replies

    def _count(self, method, site, number, reply):
        if len(self.requests) == self._call:
            if self._replies == 0:
                raise Killed
            self._replies -= 1
        return reply


ROWS = {"amsterdam": 60, "berlin": 45, "cairo": 52}
SECURE = {"secure_aggregation": {"threshold": 2}}


@pytest.fixture(scope="module")
def frames():
    frames = {}
    for seed, (name, rows) in enumerate(ROWS.items()):
        frame = table(rows, seed).drop(columns="remark")
        frame.loc[::7, "c"] = np.nan
        frames[name] = frame.assign(
            ward=np.array(["north", "south"])[np.arange(rows) % 2], z=1e6 + 10 * frame["a"].fillna(0)
        )
    return frames


def experiment_of(**changes) -> Experiment:
    strategy = changes.pop("strategy", "fedavg")
    strategy = {"kind": strategy} if isinstance(strategy, str) else strategy
    # Sums under masks tell no spread between the sites, which is what `moments` adds in the clear.
    if changes.get("model") != "glm":
        changes["strategy"] = {"batch_norm": "average"} | strategy
    base = {
        "data": {"target": "y", "categorical": ["ward"], "exclude": ["z"]},
        "model": {"kind": "mlp", "hidden": [4], "norm": "batch"},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 16},
        "rounds": 3,
    }
    return Experiment.parse(base | changes)


def federation_of(experiment, frames, engine=local_federation):
    return engine(experiment, {name: TableSource(frame=frame) for name, frame in frames.items()})


def both(frames, tamper=None, **changes):
    """Run an experiment in the clear and with secure aggregation."""
    plain, hidden = experiment_of(**changes), experiment_of(**changes, privacy=SECURE)
    return tuple(run(Spy(federation_of(one, frames), tamper), one) for one in (plain, hidden))


# Of 512 bins, which are all summed, where a run in the clear lists those of a million that hold rows.
RANKED = ("auroc", "auprc", "sensitivity", "threshold", "brier_low", "brier_high", "recalibration")


def assert_alike(plain, hidden):
    assert hidden["status"] == plain["status"] == "completed"
    for name, values in plain["history"].items():
        if not any(metric in name for metric in RANKED):
            assert hidden["history"][name] == pytest.approx(values, abs=1e-4, nan_ok=True), name
    for part, scopes in plain["metrics"].items():
        pooled, found = scopes["pooled"], hidden["metrics"][part]["pooled"]
        known = {name: value for name, value in pooled.items() if value is not None}
        for name in known:
            if name.rpartition(".")[2] in ("auroc", "auprc"):
                assert abs(found[name] - known[name]) <= found[f"{name}_resolution"] + 1e-3
        wanted = {name: value for name, value in known.items() if not name.rpartition(".")[2].startswith(RANKED)}
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    models = [wire.unpack(result["parameters"]) for result in (plain, hidden)]
    for name, tensor in models[0].items():
        if not tensor.is_floating_point():
            # Of counters the largest is kept in the clear; of a sum there is only the mean.
            continue
        assert np.allclose(models[1][name].double(), tensor.double(), atol=2e-5, rtol=1e-4), name


@pytest.mark.parametrize(
    "strategy",
    [
        "fedavg",
        {"kind": "fedavg", "weighting": "uniform", "clip": 0.1},
        pytest.param({"kind": "fedprox", "mu": 0.1, "adaptive": True}, marks=pytest.mark.slow),
        pytest.param({"kind": "fedadam", "lr": 0.05}, marks=pytest.mark.slow),
        {"kind": "fedopt", "server": {"kind": "sgd", "lr": 0.5, "momentum": 0.5}},
        "fedsgd",
    ],
    ids=str,
)
def test_a_run_with_secure_aggregation_equals_the_run_in_the_clear(frames, strategy):
    changes = {"strategy": strategy}
    if strategy == "fedsgd":
        changes["training"] = {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": None}
    assert_alike(*both(frames, **changes))


def test_regression_in_folds_with_scaled_targets_far_from_zero(frames):
    assert_alike(
        *both(
            frames,
            data={"target": "z", "features": ["a", "b", "c"], "target_scaling": "standard"},
            problem="regression",
            model="linear",
            split={"kind": "kfold", "folds": 3},
            rounds=2,
        )
    )


# Some epochs, so that sites of different size make different numbers of steps, and momentum, of which each counts more.
KEPT = {
    "scaffold": {"kind": "scaffold"},
    "scaffold, uniform": {"kind": "scaffold", "weighting": "uniform"},
    "feddyn": {"kind": "feddyn", "alpha": 0.3},
    "feddyn, uniform": {"kind": "feddyn", "alpha": 0.3, "weighting": "uniform"},
    "moon": {"kind": "moon", "mu": 2.0, "tau": 0.3},
}
MOMENTUM = {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.5}, "batch_size": 16, "local_epochs": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "uniform" in name or name == "moon" else ()) for name in KEPT]
)
def test_sites_keep_the_terms_that_the_coordinator_keeps_in_the_clear(frames, name):
    """The same parameters, with a site that drops out once; and they are not FedAvg's."""
    changes = {"training": MOMENTUM, "rounds": 4, "model": {"kind": "mlp", "hidden": [4]}}
    plain, hidden = both(frames, lose("berlin", {2}), strategy=KEPT[name], **changes)
    assert_alike(plain, hidden)
    assert [call["answered"] for call in hidden["participation"] if call["round"] == 2 and "berlin" in call["missing"]]
    simple = run(federation_of(experiment_of(**changes), frames), experiment_of(**changes))
    models = [wire.unpack(result["parameters"]) for result in (hidden, simple)]
    far = max(float((models[0][name] - models[1][name]).abs().max()) for name in models[0])
    assert far > 1e-3


INFERENCE = {
    "binomial": {"data": {"target": "died", "features": ["a", "b", "c"], "missing": "mean"}, "model": "glm"},
    "poisson": {"data": {"target": "n", "features": ["a", "b"]}, "problem": "count", "model": "glm"},
    "cox": {
        "data": {"target": {"duration": "days", "event": "died"}, "features": ["a", "b"]},
        "problem": "survival",
        "model": {"kind": "cox", "strata": "site"},
    },
}


_OF_CLASSES = {"data": {"target": "died", "features": ["a", "b", "c"], "missing": "mean"}}
SLOW = ("poisson", "elastic net, cross-validated", "curve and product")
INFERENCE |= {
    "negative binomial": INFERENCE["poisson"] | {"model": {"kind": "glm", "family": "negative_binomial"}},
    "weights": _OF_CLASSES | {"model": {"kind": "glm", "weights": {"column": "w", "kind": "frequency"}}},
    "firth": _OF_CLASSES | {"model": {"kind": "glm", "firth": True}},
    "lasso": _OF_CLASSES | {"model": {"kind": "glm", "penalty": {"kind": "lasso", "strength": 0.03}}},
    "elastic net, cross-validated": {
        **INFERENCE["poisson"],
        "model": {"kind": "glm", "penalty": {"kind": "elastic_net", "mixing": 0.5, "strengths": 5, "folds": 3}},
    },
    "curve and product": _OF_CLASSES
    | {"model": {"kind": "glm", "splines": {"a": [-1.0, 0.0, 1.0]}, "interactions": [["b", "c"]]}},
}


def numbers(line):
    return {name: value for name, value in line.items() if isinstance(value, (int, float))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in INFERENCE]
)
def test_coefficients_are_those_of_a_fit_in_the_clear(frames, name):
    """Their sums travel with 96 binary places, so nothing of them is lost: estimates, errors, likelihoods."""
    generator = np.random.default_rng(1)
    rows = {
        site: frame.assign(
            days=generator.exponential(np.exp(-frame["a"])) + 0.1,
            died=generator.integers(0, 2, len(frame)),
            n=generator.poisson(np.exp(0.3 * frame["b"]) * generator.gamma(1.0, 1.0, len(frame))),
            w=generator.integers(1, 4, len(frame)),
        )
        for site, frame in frames.items()
    }
    plain, hidden = (
        run(federation_of(experiment, rows), experiment)
        for experiment in (Experiment.parse(INFERENCE[name] | more) for more in ({}, {"privacy": SECURE}))
    )
    assert len(hidden["coefficients"]) == len(plain["coefficients"]) > 1
    for line, wanted in zip(hidden["coefficients"], plain["coefficients"], strict=True):
        assert numbers(line) == pytest.approx(numbers(wanted), rel=1e-12, abs=1e-13)
    assert numbers(hidden["fit"]) == pytest.approx(numbers(plain["fit"]), rel=1e-12)


def test_a_folder_holds_the_term_of_this_round_and_of_the_last_that_counted(frames, tmp_path):
    experiment = experiment_of(strategy="scaffold", privacy=SECURE, training=MOMENTUM, rounds=4)
    contexts = {
        name: SiteContext({name: TableSource(frame=frame)}, state=tmp_path / name) for name, frame in frames.items()
    }
    assert run(LocalFederation(contexts), experiment)["status"] == "completed"
    for name in frames:
        terms = [path.name for path in (tmp_path / name).glob("term-*")]
        assert {re.sub(r"[0-9a-f]{32}", "<key>", term) for term in terms} == {
            "term-<key>-0-3.safetensors",
            "term-<key>-0-4.safetensors",
        }


def test_a_term_that_is_gone_is_named(frames, monkeypatch):
    """The others' sum still has it: to begin anew at zero would leave the sum wrong for ever."""
    experiment = experiment_of(strategy="scaffold", privacy=SECURE, training=MOMENTUM, rounds=3)
    before = RoundMemory.at

    def emptied(self, round):
        return {} if self._name.startswith("term-") and round == 1 else before(self, round)

    monkeypatch.setattr(RoundMemory, "at", emptied)
    result = run(federation_of(experiment, frames), experiment)
    assert (result["status"], len(result["history"]["round"])) == ("stopped", 1)
    assert "no longer has its term of round 1, which the others' sum holds" in result["stopped_because"]


SURVIVAL = {"duration": "days", "event": "died"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"data": {"target": SURVIVAL, "features": ["a", "b"]}, "problem": "survival", "model": "linear"},
            marks=pytest.mark.slow,
        ),
        {
            "data": {"target": SURVIVAL, "features": ["a", "b"]},
            "problem": {"kind": "survival", "method": "discrete_time", "intervals": 4},
        },
        {
            "data": {
                "targets": {"ward": "classification", "c": "regression"},
                "features": ["a", "b"],
                "target_scaling": "standard",
            },
            "problem": "multitask",
        },
        pytest.param(
            {
                "data": {"target": "y", "image": {"column": "scan", "size": [16, 16], "range": [0, 255]}},
                "problem": {"kind": "gan", "latent": 4},
                "model": {"kind": "dcgan", "width": 4},
                # Two networks that chase each other make a large difference of a small one, in more rounds.
                "rounds": 1,
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["cox", "discrete time", "several targets", "synthetic images"],
)
def test_problems_whose_metrics_are_more_than_sums(frames, tmp_path, monkeypatch, changes):
    # Masked sites tell no middle of their event times; the bins of both runs stand still.
    monkeypatch.setattr(preparing, "_counts_around_one", lambda work: True)
    generator = np.random.default_rng(0)
    whole = {}
    for name, frame in frames.items():
        days = generator.exponential(300, len(frame)).round() + 1
        scans = [f"{name}-{row}.npy" for row in range(len(frame))]
        for scan in scans:
            np.save(tmp_path / scan, generator.integers(0, 255, (6, 5), dtype=np.uint8))
        whole[name] = frame.assign(days=days, died=generator.integers(0, 2, len(frame)), scan=scans)
    if "died" not in str(changes["data"]):
        whole = {name: frame.drop(columns=["days", "died"]) for name, frame in whole.items()}
    settings = {"model": {"kind": "mlp", "hidden": [4]}, **changes}
    plain, hidden = experiment_of(**settings), experiment_of(**settings, privacy=SECURE)
    sources = {name: TableSource(frame=frame, base=tmp_path) for name, frame in whole.items()}
    clear, summed = (run(local_federation(one, sources), one) for one in (plain, hidden))
    assert_alike(clear, summed)
    assert ("samples" in summed) == ("samples" in clear)
    if hazard := clear["preparation"].get("baseline"):
        found = summed["preparation"]["baseline"]["cumulative_hazard"]
        assert found == pytest.approx(hazard["cumulative_hazard"], abs=1e-4)


def test_local_engine_and_mock_client_give_the_same_bits(frames):
    experiment = experiment_of(privacy=SECURE, rounds=2)
    local, mock = (
        run(federation_of(experiment, frames, engine), experiment) for engine in (local_federation, mock_federation)
    )
    assert mock["history"] == local["history"]
    assert mock["parameters"] == local["parameters"]


@pytest.mark.slow
def test_over_http_with_a_node_that_dies_in_mid_round_come_the_bits_of_the_local_engine(frames, tmp_path, monkeypatch):
    """vantage6's own client, containers' entry functions, a folder that lasts a job; the seventh call is round 2."""
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    experiment = experiment_of(privacy=SECURE)
    organizations = dict(enumerate(frames.items(), start=3))
    with LoopbackProxy(
        organizations, outcome=lambda organization, call: "crashed" if (organization, call) == (4, 7) else None
    ) as proxy:
        result = run(Vantage6Federation(proxy.client(), poll_s=0.01), experiment)
    local = run(Spy(federation_of(experiment, frames), lose("berlin", {2})), experiment)
    assert result["status"] == "completed"
    assert (result["history"], result["parameters"]) == (local["history"], local["parameters"])
    (second,) = [one for one in result["participation"] if (one["round"], one["call"]) == (2, "train")]
    assert second["answered"] == ["amsterdam", "cairo"]
    assert any("V6_ALGORITHM_NODE_SECRET" in note for note in result["notes"])


def test_a_site_that_drops_out_in_mid_round_leaves_the_sum_of_the_others(frames):
    plain, hidden = both(frames, lose("berlin", {2}))
    assert_alike(plain, hidden)
    (second,) = [one for one in hidden["participation"] if (one["round"], one["call"]) == (2, "train")]
    assert second["answered"] == ["amsterdam", "cairo"]
    assert second["missing"] == {"berlin": "crashed: lost on the way"}


def test_a_site_that_gives_numbers_and_is_gone_before_the_sum_is_opened_is_in_the_sum(frames):
    def tamper(method, site, number, reply):
        gone = method == "RPC_prepare" and number == 2 and site == "berlin" and "shares" in reply
        return None if gone else reply

    experiment = experiment_of(privacy=SECURE)
    plain, hidden = run(federation_of(experiment_of(), frames), experiment_of()), None
    hidden = run(Spy(federation_of(experiment, frames), tamper), experiment)
    assert_alike(plain, hidden)
    (second,) = [one for one in hidden["participation"] if (one["round"], one["call"]) == (2, "unmask")]
    assert second["missing"] == {"berlin": "crashed: lost on the way"}


def test_below_the_threshold_the_run_ends_with_the_reason_and_what_is_done_is_kept(frames):
    def tamper(method, site, number, reply):
        return None if method == "RPC_train" and number == 3 and site != "cairo" else reply

    experiment = experiment_of(privacy=SECURE)
    result = run(Spy(federation_of(experiment, frames), tamper), experiment)
    assert result["status"] == "stopped"
    assert result["rounds_run"] == 2
    assert "round 3: 1 of 3 sites gave masked numbers, 2 are needed" in result["stopped_because"]
    assert "amsterdam: crashed: lost on the way" in result["stopped_because"]


def test_a_changed_share_or_mask_never_becomes_a_model(frames):
    def tamper(method, site, number, reply):
        if method == "RPC_train" and site == "berlin":
            numbers = reply["masked"]["numbers"]
            reply["masked"]["numbers"] = base64.b64encode(bytes(len(base64.b64decode(numbers)))).decode()
        return reply

    experiment = experiment_of(privacy=SECURE)
    with pytest.raises(FederationError, match=r"round 1: (the masks do not cancel|what the sites)"):
        run(Spy(federation_of(experiment, frames), tamper), experiment)


def numbers_in(value, path=""):
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, (int, float)):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from numbers_in(item, f"{path}.{key}")
    else:
        for item in value:
            yield from numbers_in(item, f"{path}[]")


def test_no_reply_holds_a_count_a_loss_or_a_metric_of_one_site(frames):
    """All numbers in the clear are the protocol's own: lengths, shapes, numbers of folds, seconds."""
    experiment = experiment_of(privacy=SECURE, split={"kind": "kfold", "folds": 3}, rounds=2)
    spy = Spy(federation_of(experiment, frames))
    run(spy, experiment)
    clear = {
        (path, value)
        for _, _, reply in spy.replies
        for path, value in numbers_in(json.loads(wire.to_text(reply)))
        if not path.startswith((".timing.", ".spec.", ".policy.")) and path not in (".round", ".attempt", ".schema")
    }
    allowed = (".shape[]", ".fold", ".n_classes", ".bins", ".specificities[]", ".labels[]")
    # Which classes and which codes there are is told as it is without secure aggregation, by the node's smallest cell.
    allowed += (".masked.updates", ".masked.words", ".codes.y[]")
    left = sorted((path, value) for path, value in clear if not path.endswith(allowed))
    # Of the columns' description: whether there are rows, and whether some have no target.
    assert left == [(f".members.{name}.{key}", value) for name in ROWS for key, value in
                    (("rows", 1), ("rows_without_target", 0), ("synthetic", 0))]  # fmt: skip


def test_the_result_names_the_sites_and_the_share_that_was_clipped(frames):
    experiment = experiment_of(
        privacy={"secure_aggregation": {"threshold": 0.67, "clip": 0.02, "bits": 40}},
        training={"optimizer": {"kind": "sgd", "lr": 1.0}},
    )
    result = run(federation_of(experiment, frames), experiment)
    told = result["secure_aggregation"]
    assert list(told["sites"]) == sorted(ROWS)
    assert told["sites"]["berlin"]["policy"]["preset"] == "trusted"
    assert (told["threshold"], told["bits"], told["sums"]) == (3, 40, 5)
    assert 0 < told["clipped_share"] < 1
    assert any("privacy.secure_aggregation.clip" in note for note in result["notes"])
    assert list(result["sites"]) == ["all sites"]
    # What would look like a single site's, or like a mean over sites, is not there.
    assert all(scopes["sites"] == scopes["mean_over_sites"] == {} for scopes in result["metrics"].values())
    assert {row["site"] for row in result["metrics_table"]} == {"all, pooled"}
    assert result["sites"]["all sites"]["n"]["rows"] == sum(ROWS.values())


def test_a_site_without_training_rows_adds_nothing(frames):
    little = frames["berlin"].assign(part="test")
    split = {
        "amsterdam": frames["amsterdam"].assign(part=np.array(["train", "validation", "test"])[np.arange(60) % 3]),
        "berlin": little,
        "cairo": frames["cairo"].assign(part=np.array(["train", "validation"])[np.arange(52) % 2]),
    }
    assert_alike(
        *both(
            split,
            data={"target": "y", "features": ["a", "b"], "split_column": "part"},
            split={"kind": "given"},
            participation={"minimum": 2},
        )
    )


@pytest.mark.parametrize("call", [7, 8, 9, 11], ids=["training", "opening", "next training", "evaluation"])
def test_a_run_that_was_killed_goes_on_with_new_keys_to_the_same_bits(frames, tmp_path, call):
    experiment = experiment_of(privacy=SECURE)
    whole = run(federation_of(experiment, frames), experiment)
    checkpoints = Checkpoints(tmp_path / "checkpoint.safetensors")
    with pytest.raises(Killed):
        run(Dying(federation_of(experiment, frames), call, 1), experiment, checkpoints=checkpoints)
    again = run(
        federation_of(experiment, frames), experiment, checkpoints=Checkpoints(tmp_path / "checkpoint.safetensors")
    )
    for key in ("status", "history", "metrics", "parameters", "sites", "secure_aggregation", "notes"):
        assert again[key] == whole[key], key


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scaffold", "feddyn", "moon"])
def test_a_killed_run_goes_on_with_the_terms_that_its_sites_kept(frames, tmp_path, kind):
    """The sites' folders last as long as their job; where they do not, the site says so (see above)."""
    experiment = experiment_of(privacy=SECURE, strategy=kind, training=MOMENTUM)
    whole = run(federation_of(experiment, frames), experiment)
    federation = federation_of(experiment, frames)
    with pytest.raises(Killed):
        run(Dying(federation, 9, 1), experiment, checkpoints=Checkpoints(tmp_path / "checkpoint.safetensors"))
    again = run(federation, experiment, checkpoints=Checkpoints(tmp_path / "checkpoint.safetensors"))
    for key in ("status", "history", "metrics", "parameters"):
        assert again[key] == whole[key], key


def test_a_threshold_of_half_the_sites_is_refused_with_what_is_allowed(frames):
    experiment = experiment_of(privacy=SECURE)
    four = {**frames, "delft": frames["cairo"]}
    with pytest.raises(ExperimentError, match="threshold: 2 is 2 of 4 sites; allowed: 3 to 4"):
        run(federation_of(experiment, four), experiment)


def test_sites_with_a_rule_of_more_sites_refuse_the_list(frames, monkeypatch):
    monkeypatch.setenv(site_policy.MINIMUM_SITES, "4")
    experiment = experiment_of(privacy=SECURE)
    with pytest.raises((FederationError, ExperimentError), match="at least 4 sites"):
        run(federation_of(experiment, frames), experiment)


def test_a_node_that_wants_it_from_three_sites_on_refuses_a_run_in_the_clear(frames):
    policy = Policy.of("trusted", secure_aggregation_sites=3)
    sources = {name: TableSource(frame=frame) for name, frame in frames.items()}
    plain, hidden = experiment_of(rounds=1), experiment_of(rounds=1, privacy=SECURE)
    with pytest.raises(FederationError, match="only under secure aggregation from 3 sites on, and this run has 3"):
        run(local_federation(plain, sources, policy), plain)
    assert run(local_federation(hidden, sources, policy), hidden)["status"] == "completed"


def test_one_such_node_ends_a_run_in_the_clear_with_its_refusal_named(frames):
    """Where all sites are needed the run ends; where fewer do, they go on, and the site is named in the notes."""
    policies = {"berlin": Policy.of("standard", secure_aggregation_sites=3)}
    contexts = {
        name: SiteContext({name: TableSource(frame=frame)}, policies.get(name, Policy.of("standard")), lasting=True)
        for name, frame in frames.items()
    }
    plain = experiment_of(rounds=1, participation={"minimum": 3})
    with pytest.raises(FederationError, match=r"(?s)berlin.*V6_ALGORITHM_SECURE_AGGREGATION_FROM_SITES"):
        run(LocalFederation(contexts), plain)
    result = run(LocalFederation(contexts), experiment_of(rounds=1))
    assert result["status"] == "completed"
    assert any("berlin" in note and "SECURE_AGGREGATION_FROM_SITES" in note for note in result["notes"])
    assert sorted(result["sites"]) == ["amsterdam", "cairo"]


def test_a_node_that_forgets_at_the_end_of_a_task_is_noted(frames, tmp_path):
    """Two tasks that differ by a patient are not noticed without a ledger that lasts: the run says at which sites."""
    experiment = experiment_of(rounds=1, privacy=SECURE)
    contexts = {
        name: SiteContext(
            {name: TableSource(frame=frame)},
            Policy.of("standard", ledger_folder=str(tmp_path / name) if name == "cairo" else None),
            lasting=True,
        )
        for name, frame in frames.items()
    }
    (note,) = [note for note in run(LocalFederation(contexts), experiment)["notes"] if "LEDGER_FOLDER" in note]
    assert "amsterdam" in note
    assert "berlin" in note
    assert "cairo" not in note


def test_it_runs_under_the_standard_policy(frames):
    policy = Policy.of("standard", secure_aggregation_sites=3)
    experiment = experiment_of(privacy=SECURE, rounds=2)
    sources = {name: TableSource(frame=frame) for name, frame in frames.items()}
    result = run(local_federation(experiment, sources, policy), experiment)
    assert result["status"] == "completed"
    assert result["secure_aggregation"]["sites"]["cairo"]["policy"]["preset"] == "standard"
