"""What a site tells, keeps and adds up, at the numbers where that begins or ends."""

from __future__ import annotations

import json
from contextlib import suppress
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import table

from v6_algorithm import seeding
from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.data.preparation.setup import pack_arrays
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import PolicyError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.training.state import spec_of
from v6_algorithm.site import SiteContext, comparison, preparing, secure_aggregation
from v6_algorithm.site.guard import Guard
from v6_algorithm.site.guard.coarse import coarse_edges, coarse_state
from v6_algorithm.site.guard.rowsets import check_differences, sets_of
from v6_algorithm.site.learning import _Learner
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.state.memory import RoundMemory, remembered
from v6_algorithm.site.state.private_layers import shared_and_own
from v6_algorithm.site.work import Work

LINEAR = {"data": {"target": "y"}, "model": "linear"}


def experiment(**changes):
    return Experiment.parse(LINEAR | changes)


def guard(request=None, content=None, **rules):
    return Guard(SiteContext({}, Policy(**rules), lasting=True), request or {}, Experiment.parse(content or LINEAR))


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "told"), [(0, 0), (1, None), (4, None), (5, 5), (6, 6)])
def test_a_count_is_told_of_nothing_and_of_a_cell(count, told):
    assert Policy(minimum_cell=5).disclosed(count) == told


def test_seeds_are_mixed_with_a_secret_only_where_folds_are_secret():
    plain, secret = guard(folds_secret="ab" * 32), guard(secret_folds=True, folds_secret="ab" * 32)
    assert plain.drawn is plain._experiment
    wanted = seeding.derive(plain._experiment.seed, "secret of the node", "ab" * 32)
    assert secret.seed == secret.drawn.seed == wanted != plain.seed
    assert secret.drawn.model_copy(update={"seed": plain.seed}) == plain.drawn


@pytest.mark.parametrize(("column", "group", "keyed", "hides"), [
    ("pid", "pid", False, False), (None, "pid", False, False), ("pid", "other", False, False),
    ("pid", "pid", True, False), ("pid", "pid", False, True),
])  # fmt: skip
def test_hashes_of_patients_are_told_where_there_are_patients_and_nothing_hides_them(column, group, keyed, hides):
    content = {"data": {"target": "y"} | ({"group": group} if column else {}), "model": "linear"}
    work = SimpleNamespace(
        experiment=SimpleNamespace(data=Experiment.parse(content).data, for_sites=lambda: content,
                                   privacy=SimpleNamespace(secure_aggregation="asked" if hides else None)),
        policy=Policy(aggregation_secret="ab" * 32 if keyed else None),
    )  # fmt: skip
    frame = pd.DataFrame({"pid": ["a", "b", "a"]})
    found = preparing._group_hashes(work, frame)
    if not column or group not in frame or hides:
        assert found is None
        return
    assert found["keyed"] is keyed
    assert len(set(found["hashes"])) == 2
    work.policy = Policy(patient_hashes=False)
    assert preparing._group_hashes(work, frame) is None


def test_of_a_problems_sums_the_histogram_of_times_alone_is_joined():
    work = SimpleNamespace(guard=SimpleNamespace(joined=lambda counts: counts * 0 - 1))
    found = preparing._joined(work, {"event_times": np.ones(3), "others": np.ones(2)})
    assert {name: sums.tolist() for name, sums in found.items()} == {"event_times": [-1] * 3, "others": [1] * 2}


def test_a_category_counts_as_trained_on_where_a_training_row_has_it():
    one_hot = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0.5]])
    folds = [SimpleNamespace(train=np.array([0, 1])), SimpleNamespace(train=np.array([2]))]
    assert preparing._trained_on(SimpleNamespace(one_hot=one_hot, folds=folds)) == [[1, 1, 0], [0, 0, 1]]


def test_a_column_is_hidden_where_any_fold_has_few_of_its_values():
    work = SimpleNamespace(policy=Policy(minimum_part_rows=3))
    counts = np.array([[0, 3, 2, 9], [0, 9, 9, 1]])
    assert preparing._hidden(work, counts).tolist() == [False, False, True, True]


def survival_work(**rules):
    content = {"data": {"target": {"duration": "t", "event": "e"}}, "problem": "survival", "model": "cox"}
    targets = [SimpleNamespace(column="t", role="duration"), SimpleNamespace(column="e", role="event")]
    return SimpleNamespace(experiment=Experiment.parse(content), policy=Policy(**rules), targets=targets)


def test_mean_logarithms_are_told_of_a_cells_events_and_more(monkeypatch):
    monkeypatch.setattr("v6_algorithm.data.targets.event_times", lambda frame, targets: frame["t"].to_numpy())
    for rows, cell, told in ((4, 5, (0, 0.0)), (5, 5, (5, 1.0)), (1, 1, (1, 1.0)), (0, 1, (0, 0.0))):
        frame = pd.DataFrame({"t": np.full(rows, 2.0)})
        assert preparing._log_times(survival_work(minimum_cell=cell), frame) == told
    for rule in ("secret_folds", "refuse_differences", "coarse_histograms"):
        assert preparing._log_times(survival_work(**{rule: True}), pd.DataFrame({"t": np.full(9, 2.0)})) is None


@pytest.mark.parametrize("members", [["a"], ["a", "b"]])
def test_sets_of_rows_are_named_by_hospital_where_there_are_several(members):
    data = SimpleNamespace(
        members=members, member=np.array([0, 0, len(members) - 1]), origin=np.array([4, 7, 9]),
        target=np.array([0, 1, 1]), values=np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]]),
        group_names=[["f", "m"]], groups=np.array([[0], [1], [1]]),
    )  # fmt: skip
    given = Experiment.parse(
        {
            "data": {"target": "y"},
            "problem": "classification",
            "model": "logistic",
            "evaluation": {"subgroups": ["sex"]},
        }
    )
    sets = {name: rows.tolist() for name, rows in sets_of(data, Setup(["u", "v"], {}, ["no", "yes"]), given).items()}
    where = "a: " if len(members) > 1 else ""
    assert sets[f"{where}the rows"] == ([4, 7] if where else [4, 7, 9])
    assert sets[f"{where}column 'v'"] == ([7] if where else [7, 9])
    assert sets[f"{where}column 'u'"] == sets[f"{where}the rows"]
    assert ("b: the rows" in sets) == bool(where)
    groups = {name[-1]: rows for name, rows in sets.items() if name.startswith(f"{where}a group of sex")}
    assert groups == {"0": [4], "1": [7] if where else [7, 9]}
    labels = [rows for name, rows in sets.items() if name.startswith(f"{where}label")]
    assert labels == [[4], [7] if where else [7, 9]]


def test_groups_are_by_an_allowed_column_or_by_site(monkeypatch):
    monkeypatch.setattr("v6_algorithm.data.summary.groups.group_names", lambda frame, by: None)
    monkeypatch.setattr("v6_algorithm.data.summary.groups.by_group", lambda *given, **more: {})
    booked = []

    def ask(by):
        guarded = SimpleNamespace(account_frame=lambda frame, features, names: booked.append(by))
        content = LINEAR | ({"evaluation": {"by": by}} if by else {})
        work = SimpleNamespace(
            experiment=Experiment.parse(content), policy=Policy(allowed_columns="y|age"), guard=guarded
        )
        with suppress(AttributeError):  # what comes after is of the table
            preparing._groups(work, pd.DataFrame({"age": [1.0]}), ["age"])

    ask("site")
    ask("age")
    with pytest.raises(PolicyError, match="does not allow column 'sex'"):
        ask("sex")
    with pytest.raises(WireError, match=r"without evaluation\.by"):
        ask(None)
    assert booked == ["site", "age"]


def test_sums_are_booked_once_a_request_and_only_where_a_rule_asks():
    guard().account(None, None)
    asked = guard(maximum_share_of_sums=0.2)
    with pytest.raises(AttributeError):
        asked.account(None, None)
    # It has begun to book.
    asked.account(None, None)
    with pytest.raises(AttributeError):
        guard(refuse_differences=True).account(None, None)


def test_layers_of_a_sites_own_stay_and_the_others_travel():
    networks = {"model": torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))}
    content = {"data": {"target": "y"}, "model": {"kind": "mlp"}, "strategy": {"kind": "fedavg", "private": "norm"},
               "training": {"freeze": "model.0.*"}}  # fmt: skip
    work = SimpleNamespace(experiment=Experiment.parse(content), context=SiteContext({}, lasting=True), site="a")
    shared, own = shared_and_own(work, networks)
    assert {name: item.kind for name, item in shared.items()} == {
        "model.0.weight": "frozen", "model.0.bias": "frozen",
        "model.2.weight": "parameter", "model.2.bias": "parameter",
    }  # fmt: skip
    assert own.names == {name for name in spec_of(networks) if name.startswith("model.1.")}
    work.experiment = Experiment.parse(LINEAR)
    assert shared_and_own(work, networks) == (spec_of(networks), None)


def test_under_differential_privacy_nothing_is_trained_that_was_not_booked():
    def steps(*, booked=None, noise=None, private=True):
        learner = object.__new__(_Learner)
        section = "asked" if private else None
        work = SimpleNamespace(experiment=SimpleNamespace(privacy=SimpleNamespace(differential_privacy=section)))
        learner.__dict__.update({"steps": booked, "noise": noise, "work": work})
        return learner._noised()

    assert steps(booked="plan") == "plan"
    assert steps(booked="plan", noise="of the update") is None
    assert steps(noise="of the update") is None
    assert steps(private=False) is None
    with pytest.raises(WireError, match="was not booked"):
        steps()


@pytest.mark.parametrize("question", [None, 7, "a" * 63, "a" * 65, ["a"] * 64])
def test_what_was_asked_is_named_by_64_digits(question):
    with pytest.raises(WireError, match="64 hexadecimal digits"):
        secure_aggregation.open_sum(SimpleNamespace(request={"question": question}))


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_trainings_of_a_request_are_added_up_where_it_trains():
    items = [{"fold": 0}, {"fold": 1, "train": False}, {"fold": 1}, {"fold": 2}, {"fold": -1}]
    epochs = {"training": {"local_epochs": 2, "batch_size": None}}

    def refused(most, *, train=True):
        asked = guard({"folds": items, "round": 1}, LINEAR | epochs, maximum_row_passes=most)
        try:
            asked.check_passes([10, 7], train=train)
        except PolicyError:
            return True
        return False

    # Of two folds, the second once: others are none of this site's, or are not trained.
    assert not refused(2 * 17)
    assert refused(2 * 17 - 1)
    assert not refused(1, train=False)


def test_a_training_is_measured_in_the_round_that_is_asked_or_said():
    asked = guard(
        {"folds": [], "round": 1}, LINEAR | {"training": {"local_epochs": {1: 1, 3: 5}}}, maximum_row_passes=30
    )
    asked.check_training(30, {})
    asked.check_training(30, {}, round=2)
    asked.check_training(6, {}, round=3)
    for rows, number in ((31, None), (7, 3)):
        with pytest.raises(PolicyError, match="training: rows x epochs"):
            asked.check_training(rows, {}, round=number)


@pytest.mark.parametrize("strata", ["site", "none"])
@pytest.mark.parametrize("rules", [{}, {"coarse_histograms": True}, {"maximum_share_of_sums": 0.2}])
def test_imputed_tables_of_one_baseline_are_refused_where_nothing_may_be_matched(strata, rules):
    content = {"data": {"target": {"duration": "t", "event": "e"}}, "problem": "survival",
               "model": {"kind": "cox", "strata": strata}}  # fmt: skip
    asked = guard(content=content, **rules)
    assert asked.matches is (not rules)
    if strata == "none" and rules:
        with pytest.raises(PolicyError, match=r"takes model\.strata site here"):
            asked.check_imputation()
    else:
        asked.check_imputation()
    guard(**rules).check_imputation()


def test_sets_of_rows_that_differ_by_a_cells_rows_are_answered_and_by_fewer_not():
    def ask(kept, key, rows):
        check_differences(kept, key, {"y": np.array(rows, dtype=int)}, 5, "VARIABLE")

    kept = {}
    ask(kept, "first", range(20))
    ask(kept, "second", range(20))
    ask(kept, "second", range(25))
    ask(kept, "second", range(5, 25))
    for rows in (range(19), range(1, 20), range(21), [*range(19), 40], [*range(16), *range(30, 33)]):
        if len(set(range(20)) ^ set(rows)) >= 5:
            ask(dict(kept), "third", rows)
            continue
        with pytest.raises(PolicyError, match="differs from an earlier answer of this node by few rows"):
            ask(kept, "third", rows)
    # Of one experiment's own sets none is a difference to the asker.
    ask(own := {}, "first", range(20))
    ask(own, "first", range(19))
    empty = {}
    ask(empty, "first", [])
    with pytest.raises(PolicyError):
        ask(empty, "second", range(4))
    ask(empty, "second", range(5))


@pytest.mark.parametrize(("weighting", "kind", "share", "weight"), [
    ("samples", "fedavg", Fraction(4, 20), 0.2), ("uniform", "fedavg", Fraction(1, 20), 0.05),
    ("samples", "feddyn", Fraction(4, 20), 0.05),
])  # fmt: skip
def test_a_site_weighs_as_its_rows_or_as_one(weighting, kind, share, weight):
    strategy = SimpleNamespace(weighting=weighting, kind=kind)
    work = SimpleNamespace(experiment=SimpleNamespace(strategy=strategy), request={"shares": {"1": 20}})
    assert secure_aggregation.share_of(work, 1, 4) == share
    assert secure_aggregation._share(work, {"rows": 4}, 20) == Fraction(weight)
    assert secure_aggregation._share(work, {"rows": 0}, None) == 0
    least = 1 if weighting == "uniform" else 4
    assert secure_aggregation.share_of(work, 1, least) == Fraction(least, 20)
    whole = 1 if weight == 0.05 else 4
    assert secure_aggregation._share(work, {"rows": 4}, whole) == 1
    for wrong in (whole - 1, 20.0, None, True):
        with pytest.raises(WireError, match="not below this site's"):
            secure_aggregation._share(work, {"rows": 4}, wrong)
    for fold, rows in ((2, 4), *([(1, 21)] if weighting == "samples" else [])):
        with pytest.raises(WireError, match="not below this site's"):
            secure_aggregation.share_of(work, fold, rows)


@pytest.mark.parametrize(("share", "right"), [
    (0.0, True), (1.0, True), (1 + 5e-10, True), (1 + 2e-9, False), (-1e-15, False), (np.inf, False),
])  # fmt: skip
def test_shares_of_placements_are_from_0_to_1_but_for_rounding(share, right):
    good = {f"{model}_{name}": np.array(values) for model in ("first", "second") for name, values in (
        ("negatives", [1, 4]), ("below", [0.0, 1.0]), ("positives", [3]), ("reached", [1.0]))}  # fmt: skip
    given = pack_arrays(good | {"second_reached": np.array([share])})
    if right:
        assert comparison._check_placements(given)[1]["reached"].tolist() == [share]
    else:
        with pytest.raises(WireError, match="shares of placements must be from 0 to 1"):
            comparison._check_placements(given)


# -- what is made coarser --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "low", "high"), [(1, 3.0, 3.0), (2, 3.5, 3.5), (3, 3.5, 4.5), (9, 3.5, 10.5)])
def test_the_smallest_and_largest_value_told_are_means_of_a_cell(rows, low, high):
    values = np.column_stack([np.arange(3.0, 3 + rows), np.full(rows, np.nan)])[::-1]
    found = coarse_edges([values], np.full((1, 2), -7.0), np.full((1, 2), 7.0), 2)
    assert [edge.tolist() for edge in found] == [[[low, -7.0]], [[high, 7.0]]]


def test_states_in_lists_and_of_other_kinds_are_made_coarse_where_they_are_histograms():
    assert coarse_state([], 5) == []
    assert coarse_state([1, 2], 5) == [1, 2]
    assert coarse_state({"kind": "regression", "n": 3}, 5) == {"kind": "regression", "n": 3}
    assert coarse_state([{"n": 3, "part": [4]}], 5) == [{"n": 3, "part": [4]}]


# -- what is kept ------------------------------------------------------------------------------------------------------


def rounds_of(memory, most=9):
    return [number for number in range(most) if memory.at(number)]


@pytest.mark.parametrize("folder", [None, "state", "rounds_folder"])
def test_the_newest_two_rounds_are_kept_or_those_that_are_named(tmp_path, folder):
    memory, other = (
        RoundMemory(SiteContext({}, **({folder: tmp_path} if folder else {})), name) for name in ("term-1", "term-12")
    )
    other.keep(1, {"x": torch.ones(1)})
    for number in (1, 2, 3, 5):
        memory.keep(number, {"x": torch.full((2,), float(number))})
    assert rounds_of(memory) == [3, 5]
    assert memory.before(5)["x"].tolist() == [3, 3]
    assert memory.before(9)["x"].tolist() == [5, 5]
    assert memory.before(3) == {}
    # A round that comes again leaves what is newer behind: it is the one before that counts.
    memory.keep(4, {"x": torch.zeros(2)})
    assert rounds_of(memory) == [3, 4]
    memory.keep(6, {"x": torch.zeros(2)}, [3])
    assert rounds_of(memory) == [3, 6]
    memory.keep(7, {"x": torch.zeros(2)}, [])
    assert rounds_of(memory) == [7]
    assert rounds_of(other) == [1]
    assert len(list(tmp_path.iterdir())) == (2 if folder else 0)


def test_what_was_made_of_the_same_content_is_not_made_again():
    made, memory = [], {}

    def ask(name, content, **same):
        return remembered(memory, name, content, lambda: made.append(content) or len(made), **same)

    assert [ask("a", [1]), ask("a", [1]), ask("b", [1]), ask("a", [2]), ask("a", [1])] == [1, 1, 2, 3, 4]
    content = [7]
    assert [ask("c", content), ask("c", content, same=lambda before: False)] == [5, 5]
    assert [ask("c", [7], same=lambda before: False), ask("c", [8], same=lambda before: before == [7])] == [6, 6]


def test_a_table_is_split_anew_for_another_seed_and_not_for_the_same():
    """The key of a table is remembered: for one that differs by its seed alone it is another."""
    zero = np.zeros((1, 2))
    setup = Setup(["a", "b"], {}, [0, 1], preparation=Preparation(zero, zero, zero + 1))
    context = SiteContext({"hospital": TableSource(frame=table(60, 0))})

    def loaded(seed, given=setup):
        asked = Experiment.parse({"data": {"target": "y", "features": ["a", "b"]}, "model": "logistic", "seed": seed})
        content = wire.message(
            site="hospital", round=0, attempt=1, sites=3, experiment=asked.for_sites(), setup=setup.to_json()
        )
        return Work(json.loads(json.dumps(content)), context).table(given)

    first, other, again = loaded(1), loaded(2), loaded(1)
    assert first.folds[0].train.tolist() != other.folds[0].train.tolist()
    assert again.folds[0].train.tolist() == first.folds[0].train.tolist()
    narrow = Setup(["a"], {}, [0, 1], preparation=Preparation(zero[:, :1], zero[:, :1], zero[:, :1] + 1))
    assert loaded(1, narrow).values.shape[1] == 1
