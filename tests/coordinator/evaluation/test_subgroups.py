"""Groups of rows by themselves: what is told of them is the pooled value, and what is withheld cannot be had."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hospitals import make_table
from hypothesis import given
from hypothesis import strategies as st
from loopback import LoopbackProxy
from spying import Spy

from v6_algorithm.coordinator.evaluation.subgroups import gap, in_order
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.subgroups import encode_groups, join_groups
from v6_algorithm.engines.simulation.simulate import local_federation, mock_federation
from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
from v6_algorithm.errors import DataError, ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment, Subgroup
from v6_algorithm.learning.metrics import compute
from v6_algorithm.site import SiteContext, handle, policy

SIZES = {"amsterdam": 120, "berlin": 90, "cairo": 100}
FEATURES = ["a", "b", "c", "d"]


def hospital(name: str, rows: int, seed: int, classes: int = 2) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = make_table(rows, seed, classes=classes)
    return frame.assign(
        sex=generator.choice(["female", "male"], rows),
        age=np.where(generator.random(rows) < 0.1, np.nan, generator.integers(20, 90, rows)),
        everybody="all",
        place=name,
    )


@pytest.fixture
def hospitals() -> dict[str, TableSource]:
    return {name: TableSource(frame=hospital(name, rows, seed)) for seed, (name, rows) in enumerate(SIZES.items())}


def experiment_of(*subgroups, **changes) -> Experiment:
    return Experiment.parse(
        {
            "data": {"target": "y", "features": FEATURES},
            "model": {"kind": "mlp", "hidden": [6]},
            "rounds": 2,
            "training": {"optimizer": {"kind": "adam", "lr": 0.02}, "batch_size": 16},
            "evaluation": {"subgroups": list(subgroups)},
            **changes,
        }
    )


def go(experiment, sources, tamper=None):
    spy = Spy(local_federation(experiment, sources), tamper)
    return spy, run(spy, experiment)


def same(one, other):
    """Say whether metrics are the same but for rounding: a network computes in other blocks for other rows."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == (None if other[name] is None else pytest.approx(other[name], rel=1e-6, abs=1e-6)), name


KINDS = {
    "classification": {},
    "three classes": {"classes": 3},
    "regression": {"classes": 0, "problem": "regression"},
    "folds": {"split": {"kind": "kfold", "folds": 3}},
    "leave one site out": {"split": "leave_one_site_out"},
    "each alone": {"mode": "local"},
    "centralised": {"mode": "centralised"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_over_all_sites_has_the_pooled_metrics_and_one_that_is_a_site_the_sites(kind):
    changes = dict(KINDS[kind])
    classes = changes.pop("classes", 2)
    sources = {
        name: TableSource(frame=hospital(name, rows, seed, classes)) for seed, (name, rows) in enumerate(SIZES.items())
    }
    _, result = go(experiment_of("everybody", "place", **changes), sources)
    for part, scopes in result["metrics"].items():
        same(result["subgroups"][part]["everybody"]["all"], scopes["pooled"])
        assert set(result["subgroups"][part]["place"]) == set(SIZES)
        for name, metrics in scopes["sites"].items():
            same(result["subgroups"][part]["place"][name], metrics)
    assert result["gap"]["test"]["place"] == pytest.approx(result["gap"]["test"]["site"])


def test_federated_groups_equal_those_of_the_pooled_rows(hospitals):
    """With one step on all rows both modes make the same model, but for rounding."""
    training = {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": None, "dtype": "float64"}
    age = {"column": "age", "bands": [40, 60]}
    federated, pooled = (
        go(experiment_of("sex", age, training=training, mode=mode), hospitals)[1]["subgroups"]
        for mode in ("federated", "centralised")
    )
    assert set(federated["test"]) == {"sex", "age"}
    assert set(federated["test"]["sex"]) == {"female", "male"}
    for part in federated:
        for column in federated[part]:
            for group, metrics in federated[part][column].items():
                same(metrics, pooled[part][column][group])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cox", "discrete_time"])
def test_survival_is_measured_on_groups_as_well(method):
    generator = np.random.default_rng(0)
    sources = {}
    for name, rows in SIZES.items():
        frame = hospital(name, rows, 1)
        days = np.ceil(generator.exponential(300 * np.exp(-frame["a"].to_numpy() / 3)))
        sources[name] = TableSource(frame=frame.assign(days=days, died=generator.integers(0, 2, rows)))
    data = {"target": {"duration": "days", "event": "died"}, "features": FEATURES}
    problem = {"kind": "survival", "method": method}
    _, result = go(experiment_of("everybody", "sex", data=data, problem=problem), sources)
    # Pairs of different sites are counted by bins wherever they are told from, pairs of one site exactly.
    same(result["subgroups"]["test"]["everybody"]["all"], result["metrics"]["test"]["pooled"])
    assert set(result["subgroups"]["test"]["sex"]) == {"female", "male"}


@pytest.mark.slow
def test_all_engines_tell_the_same_of_groups(hospitals):
    experiment = experiment_of("sex", {"column": "age", "bands": [50]}, split={"kind": "kfold", "folds": 3}, rounds=1)
    organizations = {number: (name, source.frame) for number, (name, source) in enumerate(hospitals.items(), start=3)}
    with LoopbackProxy(organizations) as proxy:
        over_http = run(Vantage6Federation(proxy.client(), poll_s=0.01), experiment)
    for other in (over_http, run(mock_federation(experiment, hospitals), experiment)):
        assert other["subgroups"] == go(experiment, hospitals)[1]["subgroups"]


def test_several_targets_have_metrics_of_each_by_group(hospitals):
    data = {"targets": {"y": "classification", "a": "regression"}, "features": ["b", "c", "d"]}
    _, result = go(experiment_of("everybody", data=data, problem="multitask"), hospitals)
    same(result["subgroups"]["test"]["everybody"]["all"], result["metrics"]["test"]["pooled"])


def test_without_subgroups_nothing_more_is_asked_and_only_the_sites_are_compared(hospitals):
    spy, result = go(experiment_of(), hospitals)
    assert len(spy.of("RPC_evaluate")) == 1
    assert result["subgroups"] == {}
    assert set(result["gap"]["test"]) == {"site"}


# -- small groups --------------------------------------------------------------------------------------------------


def planted(counts: dict[str, int], rows: int = 60) -> pd.DataFrame:
    """A hospital whose test rows have so many of each group."""
    frame = make_table(rows, 3)
    groups = [name for name, number in counts.items() for _ in range(number)]
    part = ["test"] * len(groups) + ["train"] * (rows - len(groups))
    return frame.assign(ward=groups + ["rest"] * (rows - len(groups)), part=part)


def told(counts: dict[str, int], **options) -> tuple[dict, dict]:
    """Groups that a hospital with such test rows tells, and the state of all its test rows."""
    data = {"target": "y", "features": FEATURES, "split_column": "part"}
    experiment = experiment_of("ward", data=data, split="given", **options)
    spy, _ = go(
        experiment,
        {"here": TableSource(frame=planted(counts)), "there": TableSource(frame=planted({"x": 20}))},
    )
    replies = [reply for method, site, reply in spy.replies if method == "RPC_evaluate" and site == "here"]
    (groups,) = (reply["subgroups"] for reply in replies if "subgroups" in reply)
    return groups["test"]["here"]["ward"], replies[0]["folds"][-1]["metrics"]["test"]["here"]


def test_a_small_group_and_the_next_smallest_are_withheld():
    groups, _ = told({"north": 15, "south": 9, "west": 4})
    assert set(groups) == {"north"}
    groups, _ = told({"north": 15, "south": 9, "west": 2, "east": 3})
    assert set(groups) == {"north", "south"}


def test_one_large_group_beside_one_small_one_is_withheld_too():
    assert told({"north": 25, "west": 1})[0] == {}


def test_a_group_that_is_everybody_is_told():
    assert set(told({"north": 25})[0]) == {"north"}


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(["n", "s", "e", "w", "c"]), st.integers(1, 12), min_size=1))
def test_all_rows_less_the_groups_told_are_no_row_or_a_cell_of_two_groups(counts):
    if sum(counts.values()) < policy.Policy().minimum_part_rows:
        return
    smallest = policy.Policy().minimum_cell
    groups, everybody = told(counts, rounds=1)
    rest = everybody["n"] - sum(state["n"] for state in groups.values())
    assert all(state["n"] >= smallest for state in groups.values())
    if groups:
        assert rest == 0 or (rest >= smallest and len(set(counts) - set(groups)) >= 2)
    for state in groups.values():
        assert state["n"] == sum(map(sum, state["confusion"]))


def test_the_nodes_smallest_cell_decides(monkeypatch):
    monkeypatch.setenv(policy.MINIMUM_CELL, "10")
    assert set(told({"north": 15, "south": 9, "west": 9})[0]) == {"north"}
    monkeypatch.setenv(policy.MINIMUM_CELL, "1")
    assert set(told({"north": 15, "south": 9, "west": 3})[0]) == {"north", "south", "west"}


def test_the_result_says_of_how_many_rows_the_group_is_not_told():
    data = {"target": "y", "features": FEATURES, "split_column": "part"}
    sources = {"here": planted({"north": 15, "west": 4, "east": 3}), "there": planted({"north": 20})}
    _, result = go(
        experiment_of("ward", data=data, split="given"), {name: TableSource(frame=own) for name, own in sources.items()}
    )
    assert result["subgroups"]["test"]["ward"]["north"]["n"] == 35
    assert any("ward: the group of 7 of 42 test rows is not told" in note for note in result["notes"])


def test_where_every_group_is_withheld_the_result_says_so():
    data = {"target": "y", "features": FEATURES, "split_column": "part"}
    sources = {name: TableSource(frame=planted({"north": 6, "west": 2})) for name in ("here", "there")}
    _, result = go(experiment_of("ward", data=data, split="given"), sources)
    assert result["subgroups"] == {}
    assert any("ward: the group of 16 of 16 test rows is not told" in note for note in result["notes"])


def test_no_part_of_the_folds_is_told_by_itself(hospitals):
    """The difference of two such answers would be a single fold's."""
    experiment = experiment_of("sex", split={"kind": "kfold", "folds": 3})
    spy, _ = go(experiment, hospitals)
    request = json.loads(json.dumps(spy.of("RPC_evaluate")[1]["berlin"]))
    context = SiteContext({"berlin": hospitals["berlin"]})
    assert handle("evaluate", request, context)["status"] == "ok"
    for folds in (request["folds"][:2], [*request["folds"], request["folds"][0]], request["folds"][::-1]):
        reply = handle("evaluate", request | {"folds": folds}, context)
        assert (reply["status"], reply["kind"]) == ("error", "request")
        assert "over all folds" in reply["message"]


def test_groups_of_training_rows_are_not_told(hospitals):
    spy, _ = go(experiment_of("sex"), hospitals)
    request = json.loads(json.dumps(spy.of("RPC_evaluate")[1]["berlin"]))
    request["folds"][0]["subgroups"] = ["train"]
    reply = handle("evaluate", request, SiteContext({"berlin": hospitals["berlin"]}))
    assert "subgroups are of validation and test rows" in reply["message"]


def test_a_column_that_the_node_does_not_allow_makes_no_groups(hospitals, monkeypatch):
    monkeypatch.setenv(policy.ALLOWED_COLUMNS, "[abcdy]")
    with pytest.raises(Exception, match="does not allow column 'sex'"):
        go(experiment_of("sex"), hospitals)


def test_a_repeated_request_has_the_same_answer(hospitals):
    spy, _ = go(experiment_of("sex", {"column": "age", "bands": [50]}), hospitals)
    request = spy.of("RPC_evaluate")[1]["cairo"]
    one, again = (handle("evaluate", request, SiteContext({"cairo": hospitals["cairo"]})) for _ in range(2))
    assert one["subgroups"] == again["subgroups"]


# -- a wrong answer ------------------------------------------------------------------------------------------------


def _part(reply):
    reply["subgroups"]["train"] = reply["subgroups"].pop("test")


def _hospital(reply):
    reply["subgroups"]["test"]["nowhere"] = reply["subgroups"]["test"].pop("cairo")


def _band(reply):
    reply["subgroups"]["test"]["cairo"]["age"] = {"under 12": _any(reply)}


def _long(reply):
    reply["subgroups"]["test"]["cairo"]["sex"] = {"x" * 500: _any(reply)}


def _many(reply):
    reply["subgroups"]["test"]["cairo"]["sex"] = {str(number): _any(reply) for number in range(50)}


def _rows(reply):
    reply["subgroups"]["test"]["cairo"]["sex"] = {str(number): _any(reply) for number in range(9)}


def _state(reply):
    _any(reply)["n"] += 1


def _none(reply):
    del reply["subgroups"]


def _any(reply):
    return next(iter(reply["subgroups"]["test"]["cairo"]["sex"].values()))


@pytest.mark.parametrize("change", [_part, _hospital, _band, _long, _many, _rows, _state, _none])
def test_a_wrong_answer_is_dropped_and_named_and_the_others_are_told(hospitals, change):
    def tamper(method, site, number, reply):
        if site == "cairo" and "subgroups" in reply:
            change(reply)
        return reply

    experiment = experiment_of("sex", {"column": "age", "bands": [50]}, rounds=1)
    _, right = go(experiment, hospitals)
    _, result = go(experiment, hospitals, tamper)
    assert "cairo" in result["participation"][-1]["missing"]
    lost = [right["subgroups"]["test"]["sex"][one]["n"] - own["n"] for one, own in groups_of(result, "sex")]
    assert sum(lost) == right["metrics"]["test"]["sites"]["cairo"]["n"]


def groups_of(result, column):
    return result["subgroups"]["test"][column].items()


def test_a_site_that_is_lost_at_the_end_leaves_the_groups_of_the_others(hospitals):
    def tamper(method, site, number, reply):
        return None if site == "cairo" and "subgroups" in reply else reply

    _, result = go(experiment_of("place"), hospitals, tamper)
    assert set(result["subgroups"]["test"]["place"]) == {"amsterdam", "berlin"}
    assert result["status"] == "completed"


# -- columns and gaps ----------------------------------------------------------------------------------------------


def encode(values, **options):
    codes, names = encode_groups(pd.DataFrame({"x": values}), [Subgroup(column="x", **options)])
    return [names[0][code] for code in codes[:, 0]]


def test_bands_begin_at_their_number():
    bands = {"bands": [40, 60.5]}
    expected = ["under 40", "40 to under 60.5", "40 to under 60.5", "60.5 and over", "not known"]
    assert encode([39.9, 40, 60, 60.5, None], **bands) == expected


def test_values_are_groups_and_written_alike_at_all_sites():
    assert encode([1, 2, 1]) == encode(["1", " 2", "1.0"]) == encode([1.0, 2.0, 1.0]) == ["1", "2", "1"]
    assert encode([True, False, None]) == ["1", "0", "not known"]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([0.5, 1.5], {}, "not whole; give bands"),
        (list(range(30)), {}, "over 20 values; give bands"),
        ([f"patient {number}" for number in range(30)], {}, "over 20 values: an identifier"),
        (["a", "b"], {"bands": [1]}, "holds text, and bands are of numbers"),
        (pd.to_datetime(["2020-01-01", "2021-01-01"]), {}, "holds dates or arrays"),
    ],
)
def test_a_column_that_makes_no_groups_is_refused_without_its_values(values, options, message):
    with pytest.raises(DataError, match=message) as caught:
        encode(values, **options)
    assert not any(str(value) in str(caught.value) for value in ["patient 3", "2020", "0.5", "1.5"])


def test_a_column_that_is_not_there_ends_the_run_before_it_trains(hospitals):
    with pytest.raises(ExperimentError, match=r"column 'skin' \(evaluation.subgroups\) is not there"):
        go(experiment_of("skin"), hospitals)


def test_members_with_other_groups_are_put_together():
    one = encode_groups(pd.DataFrame({"x": ["b", "c"]}), [Subgroup(column="x")])
    two = encode_groups(pd.DataFrame({"x": ["a", "c"]}), [Subgroup(column="x")])
    codes, names = join_groups([one, two])
    assert [names[0][code] for code in codes[:, 0]] == ["b", "c", "a", "c"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"subgroups": "sex"}, r"evaluation: subgroups must be a list, such as \[sex\]"),
        ({"subgroups": ["sex", "sex"]}, "column 'sex' is named twice in subgroups"),
        ({"subgroups": ["site"]}, "the sites are compared without being named"),
        ({"subgroups": [{"column": "age", "bands": [60, 40]}]}, "bands must increase"),
        ({"subgroups": [{"column": "age", "bands": []}]}, "bands"),
        ({"subgroups": [{"column": "age", "cuts": [4]}]}, "unknown key 'cuts'"),
        ({"specificity": [1.0]}, "less than 1"),
        ({"specificity": [0.9, 0.9]}, "given twice"),
        ({"specificities": [0.9]}, "unknown key 'specificities'"),
    ],
)
def test_a_wrong_section_is_refused_by_name(section, message):
    with pytest.raises(ExperimentError, match=message):
        experiment_of(evaluation=section)


def test_what_only_two_classes_have_is_not_monitored_with_three():
    sources = {name: TableSource(frame=make_table(60, seed, classes=3)) for seed, name in enumerate(SIZES)}
    with pytest.raises(ExperimentError, match="sensitivity_at_90', which is of two classes; the target has 3"):
        go(experiment_of(stopping={"monitor": "sensitivity_at_90"}), sources)


def test_a_sensitivity_can_be_monitored(hospitals):
    stopping = {"monitor": "sensitivity_at_80"}
    _, result = go(experiment_of(stopping=stopping, evaluation={"specificity": [0.8]}), hospitals)
    assert result["history"]["validation_sensitivity_at_80"][-1] is not None
    with pytest.raises(ExperimentError, match=r"allowed: .*sensitivity_at_90, sensitivity_at_95"):
        experiment_of(stopping=stopping)


def test_the_gap_is_the_largest_less_the_smallest_over_known_groups():
    groups = {
        "f": {"n": 9, "auroc": 0.7, "loss": 1.0, "r2": None, "auroc_resolution": 0.1, "threshold_at_90": 0.4},
        "m": {"n": 5, "auroc": 0.9, "loss": 0.5, "r2": 0.1, "auroc_resolution": 0.3, "threshold_at_90": 0.9},
        "not known": {"n": 5, "auroc": 0.1},
    }
    assert gap(groups) == {"auroc": pytest.approx(0.2), "loss": 0.5}


def test_groups_stand_in_the_order_a_reader_expects():
    assert in_order(["not known", "10", "9", "b", "a"], []) == ["9", "10", "a", "b", "not known"]
    bands = ["under 40", "40 to under 60", "60 and over"]
    assert in_order([*reversed(bands), "not known"], bands) == [*bands, "not known"]


def test_groups_survive_the_wire(hospitals):
    spy, _ = go(experiment_of("sex"), hospitals)
    replies = [reply for _, _, reply in spy.replies if "subgroups" in reply]
    assert [json.loads(wire.to_text(reply))["subgroups"] for reply in replies] == [one["subgroups"] for one in replies]
    assert all(
        compute(state)["n"] for reply in replies for state in reply["subgroups"]["test"][reply["site"]]["sex"].values()
    )


@pytest.mark.slow
@pytest.mark.parametrize(("output", "calls"), [("last", 1), ("best", 2)])
def test_groups_take_no_call_of_their_own_where_the_kept_model_is_known(hospitals, output, calls):
    """With personal models there are two calls either way, and the numbers are those of a call for each."""
    changes = {"output": {"model": output}, "rounds": 4, "training": {"optimizer": {"kind": "adam", "lr": 0.5}}}
    _, plain = go(experiment_of(**changes), hospitals)
    spy, result = go(experiment_of("sex", **changes), hospitals)
    assert [method for method, _ in spy.requests].count("RPC_evaluate") == calls
    assert (result["best_round"] == 4) == (plain["best_round"] == 4)
    assert result["metrics"] == plain["metrics"]
    spy, both = go(experiment_of("sex", personal="fine_tune", **changes), hospitals)
    assert [method for method, _ in spy.requests].count("RPC_evaluate") == 2
    assert both["subgroups"] == result["subgroups"]
    _, alone = go(experiment_of(personal="fine_tune", **changes), hospitals)
    assert both["baselines"] == alone["baselines"]
