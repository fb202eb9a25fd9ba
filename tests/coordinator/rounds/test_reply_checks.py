"""Checks on replies to training and evaluation, one by one: what passes, what is refused, and what is noted."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest

from v6_algorithm.coordinator.rounds.comparable import ComparableScore
from v6_algorithm.coordinator.rounds.reply_checks import ReplyCheck, check_sums
from v6_algorithm.coordinator.secure_aggregation import ALL_SITES
from v6_algorithm.errors import WireError
from v6_algorithm.exchange.joint import Joint, JointItem, JointStates, JointTraining
from v6_algorithm.learning.metrics import ClassificationMetrics, RegressionMetrics
from v6_algorithm.learning.metrics.by_site import SiteStates

DEVICE = {"name": "cpu", "precision": "float32"}


class Dropped(list):
    def reject(self, site, reason):
        self.append((site, reason))


def plan(classes=("no", "yes"), rows=4):
    sites = {site: [{"train": rows}, {"train": rows + 1}] for site in ("a", "b", ALL_SITES)}
    counts = [{"a": {}, "b": {}}, {"a": {}}]
    return SimpleNamespace(rows=sites, counts=counts, setup=SimpleNamespace(classes=classes))


def private(epsilon=2.0, unit="row"):
    return SimpleNamespace(epsilon=epsilon, unit=unit)


def classification(classes=2):
    metrics = ClassificationMetrics(classes)
    metrics.update(np.full((3, classes), 1 / classes), np.array([0, 1, 1]), np.ones(3))
    return metrics.state()


def regression():
    metrics = RegressionMetrics()
    metrics.update(np.ones(3), np.zeros(3), np.ones(3))
    return metrics.state()


def asked(fold=0, evaluate=("validation",), train=True, **more):
    return {"fold": fold, "evaluate": list(evaluate), "train": train} | more


def answer(state=None, fold=0, rows=4, part="validation", hospital="a", **more):
    item = {"fold": fold, "metrics": {part: {hospital: state or classification()}}, "rows": rows}
    return {"folds": [item | more], "round": 3, "device": dict(DEVICE)}


def checked(reply, wanted, check=None, site="a"):
    check, dropped = check or ReplyCheck(plan(), {0: lambda *_: "read", 1: lambda *_: "read 1"}), Dropped()
    return check.items(dropped, site, copy.deepcopy(reply), wanted), dropped, check


def test_a_reply_as_it_should_be_is_read_by_the_strategy_of_its_fold():
    items, dropped, check = checked(answer(), [asked()])
    assert (items[0]["reply"], dropped, check.devices) == ("read", [], {"a": DEVICE})
    (item,), dropped, _ = checked(answer(fold=1, rows=5), [asked(1)])
    assert (item["reply"], dropped) == ("read 1", [])
    (item,), dropped, _ = checked(answer(rows=99), [asked(train=False)])
    assert "reply" not in item


@pytest.mark.parametrize(
    ("reply", "wanted", "reason"),
    [
        (answer(fold=1), asked(), "other folds"), (answer(part="test"), asked(), "other parts"),
        (answer(hospital="c" * 60), asked(), f"a hospital '{'c' * 40}' that is not known"),
        (answer(hospital="b", fold=1), asked(1), "a hospital 'b' that is not known"),
        (answer(rows=5), asked(), "other training rows than the 4"), (answer(rows=4.0), asked(), "other training rows"),
        (answer(rows=True), asked(), "other training rows"), (answer(classification(3)), asked(), "number of classes"),
        (answer(epsilon=1), asked() | {"baseline": 2}, "baseline hazard"),
        (answer() | {"epsilon": 1.0}, asked(), "not asked for"),
        (answer() | {"device": {}}, asked(), "malformed reply"),
        (answer() | {"folds": None}, asked(), "malformed reply"),
    ],
)  # fmt: skip
def test_a_reply_with_one_thing_wrong_is_dropped_and_named(reply, wanted, reason):
    items, dropped, _ = checked(reply, [wanted])
    assert items == []
    assert [site for site, _ in dropped] == ["a"]
    assert reason in dropped[0][1]


def test_metrics_are_of_one_kind_and_shape_until_others_are_expected():
    check = ReplyCheck(plan(), {0: lambda *_: None})
    assert checked(answer(), [asked()], check)[1] == []
    assert "another kind or shape" in checked(answer(regression()), [asked()], check)[1][0][1]
    check.expect_other_metrics()
    assert checked(answer(regression()), [asked()], check)[1] == []
    assert "another kind or shape" in checked(answer(), [asked()], check)[1][0][1]
    # Of a regression there are no classes to compare.
    assert checked(answer(regression()), [asked()], ReplyCheck(plan(None), {0: lambda *_: None}))[1] == []


@pytest.mark.parametrize(("rows", "taken"), [(1, True), (4, True), (5, False), (0, False), (-1, False), (2.0, False)])
def test_of_a_sum_under_masks_some_sites_may_be_missing(rows, taken):
    assert (checked(answer(rows=rows), [asked()], site=ALL_SITES)[1] == []) is taken
    assert (checked(answer(rows=rows), [asked()])[1] == []) is (rows == 4)


@pytest.mark.parametrize(
    ("epsilon", "booked"),
    [
        (0, 0.0), (1.5, 1.5), (2, 2.0), (2.0005, 2.0), (2.0015, None), (-0.1, None), (True, None), ("1", None),
        (None, None), (float("nan"), None),
    ],
)  # fmt: skip
def test_what_training_has_cost_is_at_most_what_was_allowed(epsilon, booked):
    check = ReplyCheck(plan(), {0: lambda *_: None}, private())
    _, dropped, _ = checked(answer() | {"epsilon": epsilon}, [asked()], check)
    assert (dropped == []) is (booked is not None)
    assert check.epsilons == ({} if booked is None else {"a": {3: booked}})


def test_nothing_is_spent_where_nobody_trained():
    check = ReplyCheck(plan(), {}, private())
    assert checked(answer(), [asked(train=False)], check)[1] == []
    assert "not asked for" in checked(answer() | {"epsilon": 1.0}, [asked(train=False)], check)[1][0][1]
    assert check.epsilons == {}


@pytest.mark.parametrize(("unit", "epsilon", "booked"), [("row", 0.5, 2.0), ("row", None, 2.0), ("site", 0.5, 0.5)])
def test_under_masks_each_sites_rows_may_have_cost_all_that_was_allowed(unit, epsilon, booked):
    check = ReplyCheck(plan(), {0: lambda *_: None}, private(unit=unit))
    assert checked(answer() | {"epsilon": epsilon}, [asked()], check, ALL_SITES)[1] == []
    assert check.epsilons == {ALL_SITES: {3: booked}}


@pytest.mark.parametrize(
    ("batch", "pieces", "taken"),
    [(8, 1, True), (8, 7, True), (8, 8, False), (8, 0, False), (8, 4.0, False), (8.0, 4, False), (True, 0, False)],
)
def test_pieces_of_a_batch_are_smaller_than_it(batch, pieces, taken):
    device = DEVICE | {"batch": batch, "pieces": pieces}
    _, dropped, check = checked(answer() | {"device": device}, [asked()])
    assert (dropped == []) is taken
    assert (
        not taken
        or f"a batch of 8 rows did not fit the memory of cpu; it was trained in pieces of {pieces}" in (check.notes[0])
    )


def test_names_of_devices_end_after_a_hundred_letters_and_one_object_is_looked_at_once():
    check = ReplyCheck(plan(), {})
    device = DEVICE | {"name": "x" * 150}
    for site in ("a", "b"):
        check._check_device(site, device)
    assert check.devices["a"]["name"] == "x" * 100 + " …"
    assert check.devices["b"] is check.devices["a"]
    check._check_device("b", DEVICE)
    assert check.devices["b"] == DEVICE


@pytest.mark.parametrize(("version", "dropped", "noted"), [(2, 0, 0), (0, 0, 1), (1, 1, 0), (2.0, 1, 0), (True, 1, 0)])
def test_own_layers_are_of_the_round_asked_for_or_the_initial_ones(version, dropped, noted):
    _, refused, check = checked(answer(private=version), [asked(private={"round": 2})])
    assert (len(refused), len(check.notes)) == (dropped, noted)
    assert not noted or check.notes[0].startswith("round 3: site 'a' had lost its own layers, of round 2")


def test_a_picture_that_nobody_asked_for_is_left_out_and_the_rest_counts():
    (item,), dropped, check = checked(answer(samples="AAAA"), [asked()])
    assert "samples" not in item
    assert dropped == []
    assert check.notes == ["round 3: the samples of site 'a' are left out: nobody asked for them"]


def test_a_baseline_hazard_is_told_by_known_hospitals_where_it_is_asked_for():
    good = {"baseline": {"a": {"events": [1, 0], "risk": [2.0, 1.0]}}}
    check_sums(good, 2, ["a"])
    check_sums({}, None, ["a"])
    check_sums({}, 0, ["a"])
    for item, times, hospitals in ((good, None, ["a"]), ({}, 2, ["a"]), (good, 2, ["b"]), (good, 0, ["a"])):
        with pytest.raises(WireError):
            check_sums(item, times, hospitals)
    with pytest.raises(ValueError, match="lists of 3"):
        check_sums(good, 3, ["a"])


def test_what_is_known_goes_on_after_a_checkpoint():
    check = ReplyCheck(plan(), {0: lambda *_: None}, private())
    checked(answer() | {"epsilon": 0.5}, [asked()], check)
    other = ReplyCheck(plan(), {0: lambda *_: None}, private())
    other.load_state_dict(check.state_dict())
    assert (other.devices, other.epsilons) == ({"a": DEVICE}, {"a": {3: 0.5}})
    assert "another kind or shape" in checked(answer(regression()), [asked()], other)[1][0][1]


# -- all replies as one ----------------------------------------------------------------------------------------------


def table(sites=2, classes=2):
    rows, lengths = 3 * sites, [3] * sites
    probability = np.full((rows, classes), 1 / classes)
    return SiteStates.of(ClassificationMetrics(classes), probability, np.tile([0, 1, 1], sites), np.ones(rows), lengths)


def joint(of_states=None, of_training=None, **changes):
    states = {"sites": ["a", "b"], "hospitals": ["a", "b"], "table": table()} | (of_states or {})
    training = {
        "sites": ["a", "b"], "rows": [4, 4], "steps": [1, 1], "losses": [1.0, 1.0], "seen": [4, 4], "stacks": [],
        "names": [], "checked": {},
    } | (of_training or {})  # fmt: skip
    item = {
        "fold": 0, "places": {"a": 0, "b": 0}, "metrics": {"validation": JointStates(**states)},
        "training": JointTraining(**training),
    }  # fmt: skip
    rest = {name: changes.pop(name) for name in ("heads", "device") if name in changes}
    return Joint(
        **{"heads": {"a": {}, "b": {}}, "device": DEVICE, "timing": {}} | rest, items=[JointItem(**item | changes)]
    )


BOTH = {"a": [asked()], "b": [asked()]}


def test_joint_replies_as_they_should_be_are_taken():
    check = ReplyCheck(plan(), {})
    (states,) = check.joint(joint(), BOTH)
    assert list(states) == ["validation"]
    assert list(states["validation"]) == ["a", "b"]
    assert check.devices == {"a": DEVICE, "b": DEVICE}
    # Where nobody trains or measures there is nothing to take.
    only = {site: [asked(train=False)] for site in BOTH}
    assert len(check.joint(joint(training=None), only)) == 1
    quiet = {site: [asked(evaluate=())] for site in BOTH}
    assert check.joint(joint(metrics={}), quiet) == [{}]
    one = {"a": [asked()], "b": [asked(evaluate=(), train=False)]}
    of_one = {"sites": ["a"], "hospitals": ["a"], "table": table(1)}
    assert len(check.joint(joint(of_one, {"sites": ["a"], "rows": [4]}), one)) == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (joint(heads={"a": {}}), BOTH), (joint(heads={"b": {}, "a": {}}), BOTH),
        (joint(device=DEVICE | {"pieces": 2, "batch": 8}), BOTH), (joint(places={"a": 0}), BOTH),
        (joint(places={"b": 0, "a": 0}), BOTH), (joint(places={"a": 0, "b": 1}), BOTH),
        (joint(), BOTH | {"b": [asked(), asked(1)]}), (joint(), BOTH | {"b": [asked(1)]}), (joint(fold=1), BOTH),
        (joint(), BOTH | {"b": [asked(baseline=3)]}), (joint(), BOTH | {"b": [asked(train=False)]}),
        (joint(training=None), BOTH), (joint(of_training={"rows": [4, 5]}), BOTH), (joint(metrics={}), BOTH),
        (joint(), {site: [asked(evaluate=("validation", "test"))] for site in BOTH}),
        (joint({"table": None, "states": []}), BOTH), (joint({"sites": ["b", "a"]}), BOTH),
        (joint({"hospitals": ["a", "c"]}), BOTH), (joint({"hospitals": ["a", "a"]}), BOTH),
        (joint({"table": table(3)}), BOTH), (joint({"table": table(1)}), BOTH),
        (joint({"table": table(classes=3)}), BOTH),
    ],
)  # fmt: skip
def test_joint_replies_with_anything_unexpected_are_looked_at_one_by_one(given, wanted):
    check = ReplyCheck(plan(), {})
    assert check.joint(given, wanted) is None
    assert check.devices == {}


def test_joint_replies_are_of_the_metrics_that_came_before_and_not_private():
    check = ReplyCheck(plan(), {0: lambda *_: None})
    checked(answer(regression()), [asked()], check)
    assert check.joint(joint(), BOTH) is None
    assert ReplyCheck(plan(), {}, private()).joint(joint(), BOTH) is None


# -- rounds that are compared ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "better"), [("accuracy", 1.0), ("loss", -1.0)])
def test_by_how_much_a_value_is_better_has_the_metrics_sign(metric, better):
    assert ComparableScore(metric, "classification").by(3.0, 2.0) == better


def test_an_equal_value_is_not_better_and_a_missing_one_is_none():
    score = ComparableScore("loss", "regression")
    states = {"a": regression()}
    assert [score.take({"loss": value}, states) for value in (None, 2.0, 2.0, 1.5, None)] == [
        (None, False), (2.0, True), (2.0, False), (1.5, True), (None, False),
    ]  # fmt: skip
    assert score.values == [None, 2.0, 2.0, 1.5, None]
    assert score.best == 1.5
