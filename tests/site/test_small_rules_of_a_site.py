"""What a site keeps, compares and refuses, one rule each, at the numbers where it begins or ends."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import table

from v6_algorithm.data.preparation.setup import unpack_arrays
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError, PolicyError, SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, comparison, preflight, preparing, secure_aggregation
from v6_algorithm.site.guard import Guard
from v6_algorithm.site.guard.privacy_account import PrivacyAccount
from v6_algorithm.site.learning import rate_of
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD, RULES
from v6_algorithm.site.state.kept_terms import KeptTerm
from v6_algorithm.site.work import Work, _bytes_of

LINEAR = {"data": {"target": "y"}, "model": "linear"}

# -- terms that a site keeps -----------------------------------------------------------------------------------------


def term(context, round, message, *, strategy="scaffold", participants=3, share=0.25, received=None, **changes):
    experiment = Experiment.parse(
        {"data": {"target": "y"}, "model": {"kind": "mlp", "hidden": [4]}, "strategy": strategy, "rounds": 9, "seed": 1,
         "training": {"optimizer": {"kind": "sgd", "lr": 0.25}, "local_epochs": None, "local_steps": 2}} | changes
    )  # fmt: skip
    asked = {"secure_aggregation": {"participants": ["p"] * participants}}
    work = SimpleNamespace(experiment=experiment, site="a", round=round, context=context, request=asked)
    spec = {"w": wire.TensorSpec((2,), "float32", "parameter"), "n": wire.TensorSpec((), "float32", "buffer")}
    state = {"w": torch.tensor(received or [1.0, 2.0]), "n": torch.tensor(0.0)}
    return KeptTerm(work, 0, message, spec, state, share)


def test_changes_of_a_control_variate_add_up_to_it():
    """The coordinator sums what has changed: SCAFFOLD's option II, whose c_i is (x - y_i) / (K lr) without a mean."""
    context, sums = SiteContext({}, lasting=True), torch.zeros(2, dtype=torch.float64)
    for number, moved in ((1, [0.0, 4.0]), (2, [2.0, 2.0]), (3, [-1.0, 5.0])):
        kept = term(context, number, {"kept": {"a": number - 1}})
        change = kept.keep({"w": torch.tensor(moved)}, 2, None)
        sums += change["w"]
        assert sums.tolist() == pytest.approx([(1 - moved[0]) / (2 * 0.25), (2 - moved[1]) / (2 * 0.25)])
        assert set(change) == {"w"}


def test_a_site_corrects_by_the_mean_less_its_own_control_variate():
    context = SiteContext({}, lasting=True)
    mean = {"mean": wire.pack({"w": torch.tensor([10.0, 20.0])})}
    first = term(context, 1, {"kept": {}} | mean)
    assert type(first.objective()).__name__ == "Corrected"
    assert first._correction["w"].tolist() == [10, 20]
    first.keep({"w": torch.tensor([0.0, 0.0])}, 2, None)
    # c_i = (x - y) / (K lr) - c: [2, 4] less [10, 20].
    second = term(context, 2, {"kept": {"a": 1}} | mean)
    second.objective()
    assert second._correction["w"].tolist() == [10 - (2 - 10), 20 - (4 - 20)]
    without = term(context, 2, {"kept": {"a": 1}})
    without.objective()
    assert type(without.objective()).__name__ == "LocalObjective"
    assert without._alpha == 0
    assert without._correction == {}


def test_the_linear_term_of_feddyn_weighs_by_the_sites_share():
    context = SiteContext({}, lasting=True)
    kept = term(context, 1, {"kept": {}}, strategy={"kind": "feddyn", "alpha": 0.3}, participants=4, share=0.5)
    assert kept._alpha == pytest.approx(0.3 / (4 * 0.5))
    assert type(kept.objective()).__name__ == "Corrected", "before there is a term it is the proximal one alone"
    assert kept.keep({"w": torch.tensor([3.0, 2.0])}, 2, None) == {}
    later = term(context, 2, {"kept": {"a": 1}}, strategy={"kind": "feddyn", "alpha": 0.3}, participants=4, share=0.5)
    assert later._term["w"].tolist() == pytest.approx([-0.15 * 2, 0])
    later.objective()
    assert later._correction["w"].tolist() == pytest.approx([0.15 * 2, 0])


@pytest.mark.parametrize(("mu", "rounds", "pulls"), [(1.0, 2, True), (0.0, 2, False), (1.0, 1, False)])
def test_moon_is_pulled_from_the_sites_last_model_where_there_is_one(mu, rounds, pulls):
    context, strategy = SiteContext({}, lasting=True), {"kind": "moon", "mu": mu}
    term(context, 1, {"kept": {}}, strategy=strategy).keep({"w": torch.zeros(2), "n": torch.tensor(0.0)}, 2, None)
    later = term(context, rounds, {"kept": {"a": rounds - 1}}, strategy=strategy)
    assert (type(later.objective()).__name__ == "Contrastive") is pulls


@pytest.mark.parametrize("named", [1, 2, -1, True, "0", None])
def test_a_term_is_of_an_earlier_round_and_is_not_made_up(named):
    message = {"kept": {"a": named}} if named is not None else {}
    with pytest.raises(WireError, match="round whose term counts"):
        term(SiteContext({}, lasting=True), 1, message)


def test_a_term_that_is_gone_is_told_and_a_sum_has_participants():
    with pytest.raises(SiteError, match="no longer has its term of round 2"):
        term(SiteContext({}, lasting=True), 3, {"kept": {"a": 2}})
    with pytest.raises(WireError, match="names no participants"):
        term(SiteContext({}, lasting=True), 1, {"kept": {}}, participants=0)


# -- what a request must say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr", "right"),
    [(0, True), (0.25, True), (-0.1, False), (True, False), ("0.1", False), (None, False),
     (float("inf"), False), (float("nan"), False)],
)  # fmt: skip
def test_the_rate_of_a_plateau_is_a_finite_number_from_0(lr, right):
    scheduler = SimpleNamespace(kind="reducelronplateau", on_plateau=True)
    given = SimpleNamespace(training=SimpleNamespace(scheduler=scheduler))
    assert rate_of(Experiment.parse(LINEAR), {"lr": lr}) is None
    if right:
        assert rate_of(given, {"lr": lr}) == lr
        return
    with pytest.raises(WireError, match="a finite number from 0"):
        rate_of(given, {"lr": lr})


@pytest.mark.parametrize(
    ("run", "right"),
    [("0123456789abcdef" * 2, True), ("a" * 32, True), ("a" * 31, False), ("a" * 33, False), ("A" * 32, False),
     ("g" * 32, False), (["a"] * 32, False)],
)  # fmt: skip
def test_a_run_is_named_by_32_digits(run, right):
    work = SimpleNamespace(request={"secure_aggregation": {"run": run}})
    if right:
        assert secure_aggregation._run_of(work) == run
        return
    with pytest.raises(WireError, match="must be 32 hexadecimal digits"):
        secure_aggregation._run_of(work)


@pytest.mark.parametrize(("limit", "right"), [("0", False), ("1", True), ("1000000000000000", True),
                                              ("1000000000000001", False)])  # fmt: skip
@pytest.mark.parametrize("field", ["maximum_row_passes", "maximum_cells"])
def test_what_a_request_may_cost_is_a_whole_number_to_a_million_billions(field, limit, right):
    if right:
        assert BY_FIELD[field].read(limit) == int(limit)
        return
    with pytest.raises(PolicyError, match=r"must be from 1 to 1e\+15"):
        BY_FIELD[field].read(limit)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.kind == "whole"], ids=lambda rule: rule.field)
def test_whole_numbers_of_rules_begin_at_1_and_of_sites_that_hide_a_sum_at_2(rule):
    least = 2 if rule.field == "secure_aggregation_sites" else 1
    assert rule.read(str(least)) == least
    with pytest.raises(PolicyError, match=f"must be from {least} to"):
        rule.read(str(least - 1))


# -- the guard -------------------------------------------------------------------------------------------------------


def test_a_task_is_trained_until_five_updates_were_kept_back():
    policy = Policy(refuse_isolated_rows=True)
    made = Guard(SiteContext({}, policy, lasting=True), {"folds": [{"fold": 0}]}, Experiment.parse(LINEAR))
    for _ in range(5):
        made.admit("train")
        made.count_isolated()
    with pytest.raises(PolicyError, match="has kept 5 updates of this task"):
        made.admit("train")
    made.admit("evaluate")


def test_a_site_that_is_the_unit_is_booked_once_a_round():
    experiment = Experiment.parse(
        {"data": {"target": "y"}, "model": "logistic", "rounds": 4, "training": {"batch_size": 4},
         "privacy": {"differential_privacy": {"epsilon": 3.0, "delta": 1e-3, "unit": "site"}}}
    )  # fmt: skip
    book = SimpleNamespace(content={})
    table_here = SimpleNamespace(folds=[SimpleNamespace(train=np.arange(9))], target=np.zeros(9))
    (found,) = PrivacyAccount(Policy(), experiment, book, book, "database", 1)._folds(table_here).values()
    assert (found.rate, found.by_round, found.units) == (1.0, (1, 1, 1, 1), 1)


# -- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "told"), [(2**60, None), (2**60 - 1, 2**60 - 1), (4096, 4096)])
def test_a_limit_of_memory_near_2_to_63_is_none(monkeypatch, limit, told):
    texts = {preflight._CGROUP_LIMITS[1]: f"{limit}\n", preflight._CGROUP_LIMITS[0]: "max\n"}
    monkeypatch.setattr(preflight, "_text", lambda path: texts.get(path, ""))
    assert preflight.memory_bytes() == told
    texts["/proc/meminfo"] = "MemTotal: 99 kB\nMemAvailable: 3 kB\n"
    assert preflight.memory_bytes() == 3 * 1024


def test_a_paired_comparison_needs_the_same_rows_of_the_same_hospitals(monkeypatch):
    def compare(**changes):
        rows = {"members": ["a"], "member": np.zeros(3, int), "origin": np.arange(3)}
        tables = [SimpleNamespace(**rows), SimpleNamespace(**(rows | changes))]
        monkeypatch.setattr(comparison, "_other", lambda work, against: None)
        monkeypatch.setattr(comparison, "_loaded", lambda other, against, device: (None, None, None, tables[1]))
        monkeypatch.setattr("v6_algorithm.learning.training.loop.evaluate", lambda *_, **__: "measured")
        return comparison.compare(None, {"against": {}}, None, None, None, None, tables[0], None)

    assert compare() == {"compared": "measured"}
    for changes in ({"origin": np.array([0, 1, 3])}, {"member": np.array([0, 0, 1])}, {"members": ["b"]}):
        with pytest.raises(DataError, match="measured on other rows here"):
            compare(**changes)


@pytest.mark.parametrize(("rows", "tried"), [(0, 0), (1, 0), (2, 2), (5, 2)])
def test_gradients_of_single_rows_are_tried_on_two_rows_where_there_are_two(monkeypatch, rows, tried):
    seen = []
    monkeypatch.setattr("v6_algorithm.learning.problems.trial.shape_of_row", lambda problem: (4,))
    monkeypatch.setattr(
        "v6_algorithm.learning.training.private_descent.try_private_gradients",
        lambda problem, networks, inputs, target: seen.append((tuple(inputs.shape), inputs.dtype, len(target))),
    )
    experiment = SimpleNamespace(data=SimpleNamespace(rows=None), training=SimpleNamespace(dtype="float32"))
    preparing._try_private_gradients(
        SimpleNamespace(experiment=experiment), None, SimpleNamespace(target=np.ones(rows))
    )
    assert seen == ([((2, 4), torch.float32, 2)] if tried else [])
    experiment.data.rows = "drawn"
    preparing._try_private_gradients(SimpleNamespace(experiment=experiment), None, SimpleNamespace(target=np.ones(9)))
    assert len(seen) == (1 if tried else 0)


def test_moments_are_of_the_targets_that_are_scaled_over_training_rows():
    policy = Policy(minimum_part_rows=2)
    targets = [SimpleNamespace(column=name) for name in ("a", "b", "c")]
    data = SimpleNamespace(scaled_targets=["a", "c"])
    work = SimpleNamespace(experiment=SimpleNamespace(data=data), targets=targets, policy=policy)
    values = np.array([[1.0, 7, 10], [3.0, 7, np.nan], [99.0, 7, 30]])
    folds = [SimpleNamespace(train=np.array([0, 1]))]
    packed, few = preparing._target_moments(work, SimpleNamespace(target=values, folds=folds))
    assert few == ["c"]
    arrays = unpack_arrays(packed)
    assert arrays["count"].tolist() == [[2, 0]]
    assert arrays["mean"].tolist() == [[2, 0]]
    data.scaled_targets = []
    assert preparing._target_moments(work, None) == (None, [])


def test_a_description_by_another_column_is_not_of_that_column_too(monkeypatch):
    heard = []
    monkeypatch.setattr("v6_algorithm.data.summary.groups.group_names", lambda frame, by: ["f", "m"])
    monkeypatch.setattr(
        "v6_algorithm.data.summary.groups.by_group",
        lambda frame, names, columns, kept, targets, smallest, cell: heard.append(
            (columns, kept.categorical, smallest, cell)
        ),
    )
    content = {"data": {"target": "y", "categorical": ["sex", "ward"]}, "model": "linear", "evaluation": {"by": "sex"}}
    guarded = SimpleNamespace(account_frame=lambda *_: None, time_cell=lambda columns: ("cell", columns))
    work = SimpleNamespace(
        experiment=Experiment.parse(content), policy=Policy(minimum_cell=7), guard=guarded, targets=[]
    )
    preparing._groups(work, pd.DataFrame({"sex": ["f"]}), ["age", "sex", "ward"])
    assert heard == [(["age", "ward"], ["ward"], 7, ("cell", 0))]


@pytest.mark.parametrize("fingerprint", ["abc", None])
def test_a_prepared_table_is_kept_on_disk_where_its_source_can_be_told_from_another(tmp_path, monkeypatch, fingerprint):
    from v6_algorithm.data.preparation import Preparation, Setup

    zero = np.zeros((1, 2))
    setup = Setup(["a", "b"], {}, [0, 1], preparation=Preparation(zero, zero, zero + 1))
    context = SiteContext({"hospital": TableSource(frame=table(60, 0))}, state=tmp_path)
    asked = Experiment.parse({"data": {"target": "y", "features": ["a", "b"]}, "model": "logistic"})
    request = wire.message(
        site="hospital", round=0, attempt=1, sites=3, experiment=asked.for_sites(), setup=setup.to_json()
    )
    work = Work(request, context)
    work._fingerprint = lambda source: fingerprint
    work.table(setup)
    assert bool(list(tmp_path.iterdir())) is (fingerprint is not None)


def test_a_table_takes_the_bytes_of_its_numbers_and_of_references_to_text():
    frame = pd.DataFrame({"a": np.zeros(5, np.float32), "b": np.zeros(5, np.int64)})
    assert _bytes_of(frame) == 5 * (4 + 8)
    assert _bytes_of(frame.assign(c=pd.Categorical(["x"] * 5))) > 5 * (4 + 8)
