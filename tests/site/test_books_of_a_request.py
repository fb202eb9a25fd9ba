"""What a reply says of its time, what bounds of the node are told, and which sites of a simulation go alone."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from hospitals import table

from v6_algorithm import site
from v6_algorithm.data.preparation.terms import DesignTerms
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines import entry, known_models
from v6_algorithm.engines.vantage6 import children
from v6_algorithm.errors import ExperimentError, PolicyError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, together
from v6_algorithm.site.guard import bounds
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD
from v6_algorithm.site.together import group as together_group


def test_the_time_of_a_reply_is_told_by_what_it_was_spent_on(monkeypatch):
    ticks = iter([100.0, 107.0])
    monkeypatch.setattr(site, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))

    def train(work):
        work.seconds.update(train_s=4.0, encode_s=1.0)
        return {}

    monkeypatch.setitem(site._METHODS, "train", train)
    monkeypatch.setattr(site, "check_parts", lambda method, request: None)
    monkeypatch.setattr("v6_algorithm.site.guard.Guard.screen", lambda self, method, body: body)
    experiment = Experiment.parse({"data": {"target": "y"}, "model": "logistic"}).for_sites()
    request = wire.message(site="a", round=1, attempt=1, sites=3, experiment=experiment, setup=None, folds=[])
    reply = site.handle("train", request, SiteContext({"a": TableSource(frame=table(30, 0))}), raise_bugs=True)
    assert reply["timing"] == {"train_s": 4.0, "encode_s": 1.0, "other_s": 2.0}


def test_the_time_of_sites_that_train_together_is_shared_by_them(monkeypatch):
    ticks = iter([10.0, 20.0])
    monkeypatch.setattr(together_group, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    made = object.__new__(together_group.Group)
    made._sites, made._errors, made._seconds = ["a", "b"], {}, {"train_s": 6.0}
    made._requests = {name: {"round": 2, "attempt": 1, "folds": []} for name in "ab"}
    experiment = Experiment.parse({"data": {"target": "y"}, "model": "logistic"})
    device = SimpleNamespace(to_json=lambda: {"name": "cpu"})
    made._run = SimpleNamespace(experiment=experiment, networks={}, device=device)
    joint = made.answer()
    assert joint.timing == {"train_s": 3.0, "other_s": 2.0}
    assert joint.heads == {name: {"site": name, "round": 2, "attempt": 1} for name in "ab"}


@pytest.mark.parametrize(("sites", "reason", "asked"), [(1, None, 0), (2, None, 1), (2, "strategy.private", 0)])
def test_one_site_by_itself_is_not_asked_together(monkeypatch, sites, reason, asked):
    groups = []

    class Group:
        def __init__(self, method, run, group, contexts):
            groups.append(list(group))

        def lay_out(self):
            pass

        def answer(self):
            return SimpleNamespace(heads={}, split=dict)

        def errors(self):
            return {}

        screen = None

    measured = []
    run = SimpleNamespace(goes_together=lambda method: reason is None, measure_with=measured.append)
    group = {str(number): {"setup": number} for number in range(sites)}
    monkeypatch.setattr(together, "groups", lambda *_: [(run, group)])
    monkeypatch.setattr(together, "Group", Group)
    assert together.answer_together("train", group, {}, {}) == {}
    assert len(groups) == asked
    assert measured == [list(range(sites))] * asked
    together.open_together("train", group, {}, {})
    assert len(groups) == 2 * asked


@pytest.mark.parametrize(("number", "told"), [(10**300 - 1, "1e\\+300"), (10**300, "more than 1e\\+300")])
def test_a_number_larger_than_any_float_is_told_as_that(number, told):
    with pytest.raises(PolicyError, match=f"rounds: {told} is over this node's bound of 10 "):
        bounds._check(Policy(maximum_rounds=10), "maximum_rounds", number, "rounds")


def test_a_rule_without_a_range_of_its_own_takes_numbers_to_a_billion():
    for field in ("minimum_rows", "minimum_cell", "maximum_rounds", "maximum_layers"):
        assert BY_FIELD[field].read("1000000000") == 10**9
        with pytest.raises(PolicyError, match=r"must be from 1 to 1e\+09"):
            BY_FIELD[field].read("1000000001")


def test_of_subtasks_that_ask_the_same_the_completed_one_is_taken_and_else_the_first():
    made = children.Children(None)
    made._by_question = {
        "both": [children._Child(3, "active", None), children._Child(5, "completed", None)],
        "open": [children._Child(9, "active", None), children._Child(4, "pending", None)],
    }
    assert [made.take("both"), made.take("open"), made.take("both"), made.take("none")] == [5, 4, None, None]


def test_a_model_is_fetched_where_its_subtask_is_named_and_its_hash_is_right(tmp_path):
    name, asked = known_models._hash("model"), []

    def fetch(task):
        asked.append(task)
        return {5: "model", 6: "another"}.get(task)

    def resolved(task, fetch=fetch):
        request = {"parameters": {known_models.NAME: name, known_models.TASK: task}}
        return known_models.resolve(request, None, fetch)["parameters"]

    assert resolved(5) == "model"
    for task in (6, 7, "5", True):
        with pytest.raises(known_models.SiteError):
            resolved(task)
    with pytest.raises(known_models.SiteError):
        resolved(5, None)
    assert asked == [5, 6, 7]


def test_data_beside_a_request_are_no_request(monkeypatch):
    """A mapping stands for the request only where there is no other."""
    heard = []
    monkeypatch.setattr(entry, "handle", lambda method, request, context: heard.append(context) or {"status": "ok"})
    request = {"schema": 1, "site": "a", "round": 0, "attempt": 1}
    frame = pd.DataFrame({"x": [1.0]})
    entry.run_site("summary", frame, request, None, provenance=lambda: None, quiet=True)
    assert heard[0].sources["a"].frame is frame


@pytest.mark.parametrize("column", ["months", "unknown"])
def test_a_curve_is_of_a_feature_and_never_of_the_offset(column):
    model = SimpleNamespace(splines={column: None}, interactions=[], offset="months")
    with pytest.raises(ExperimentError, match=f"'{column}' is no numeric feature"):
        DesignTerms.of(model, ["age", "months"], {})
    model = SimpleNamespace(splines={}, interactions=[["age", column]], offset="months")
    with pytest.raises(ExperimentError, match=f"'{column}' is no feature"):
        DesignTerms.of(model, ["age", "months"], {})
