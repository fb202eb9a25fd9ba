"""Each part of a request as large as it may be passes, and one step further is refused by its name."""

from __future__ import annotations

import pytest

from v6_algorithm.errors import WireError
from v6_algorithm.site.guard.requests import check_parts, check_request

REQUEST = {"site": "a", "round": 0, "attempt": 1, "sites": 3}
MOST, NAME = 10**9, "n" * 1000
RIGHT = {
    "site": ["", NAME], "step": [None, "schema", NAME], "round": [0, MOST], "sites": [0, MOST], "attempt": [0, MOST],
    "weights": [{}, {"0": MOST, "1": 0}], "shares": [{"0": 3}], "features": [None, [], [NAME]],
    "secure_aggregation": [{}, {"participants": []}], "setup": [None, {}], "folds": [None, []],
}  # fmt: skip
WRONG = {
    "site": [NAME + "n", 3, None], "step": [NAME + "n", 3], "round": [-1, MOST + 1, 0.0, True, "1"],
    "sites": [-1, MOST + 1], "attempt": [1.5, None], "weights": [[], {"0": -1}, {"0": MOST + 1}, {"0": 2.0}, None],
    "shares": [{"0": True}, 3], "features": ["ab", ["a", 3], {"a": 1}, [NAME + "n"]],
    "secure_aggregation": [[], None, {"participants": "ab"}], "setup": [[], "a"], "folds": [{}, [3], "a"],
}  # fmt: skip
SETUP_RIGHT = {
    "features": [[], [NAME]], "pixels": [["a"]], "covariates": [["a"]], "hospitals": [["a"]],
    "categories": [{}, {"c": [1, 0.5, NAME]}], "task_classes": [{"t": ["a"]}], "classes": [None, [0, 1], ["a"]],
    "class_weights": [None, []], "sequence_length": [None, 0, MOST], "sequence_shortest": [None, 5],
    "image_shape": [None, [], [1, MOST]],
}  # fmt: skip
SETUP_WRONG = {
    "features": [None, "ab", [3]], "pixels": [[None]], "covariates": [{}], "hospitals": [[NAME + "n"]],
    "categories": [[], {"c": "ab"}, {"c": [None]}, {"c": [[1]]}], "task_classes": [{"t": 3}], "classes": ["ab", [None]],
    "class_weights": [[1.0], [[1.0]], "a", [[]] * 2 + [[1.0]]], "sequence_length": [-1, 2.0, True, MOST + 1],
    "sequence_shortest": ["5"], "image_shape": [3, [-1], [1.0]],
}  # fmt: skip
ITEM_RIGHT = {
    "fold": [0, MOST], "evaluate": [[], ["train", "validation", "test"]], "subgroups": [["test"]],
    "train": [None, True, False], "partial": [False], "personal": [True], "samples": [None, False],
    "epochs": [None, 0, MOST], "baseline": [None, 7], "parameters": [None, "text"], "strategy": [None, {}],
    "against": [None, {"experiment": 1, "setup": 2, "parameters": 3},
                {"experiment": 1, "setup": 2, "parameters": 3, "placements": "text"}],
    "private": [None, {"round": 0}, {"round": MOST, "keep": [0, MOST]}],
}  # fmt: skip
ITEM_WRONG = {
    "fold": [None, -1, 1.0, True, MOST + 1], "evaluate": [["all"], "test", None, ["test", 3]], "subgroups": [["x"]],
    "train": [1, "yes"], "partial": [0], "personal": ["no"], "samples": [1], "epochs": [-1, 1.0, True],
    "baseline": ["7", -1], "parameters": [3, []], "strategy": [[], "a"],
    "against": [[], {"experiment": 1, "setup": 2}, {"experiment": 1, "setup": 2, "parameters": 3, "placements": 4}],
    "private": [[], {}, {"round": -1}, {"round": 1, "keep": 3}, {"round": 1, "keep": [-1]}],
}  # fmt: skip


def cases(values):
    return [(key, value) for key, several in values.items() for value in several]


@pytest.mark.parametrize(("key", "value"), cases(RIGHT))
def test_a_part_of_a_request_may_be(key, value):
    check_request(REQUEST | {key: value})


@pytest.mark.parametrize(("key", "value"), cases(WRONG))
def test_a_part_of_a_request_may_not_be(key, value):
    with pytest.raises(WireError, match=f"the request's {key} must be "):
        check_request(REQUEST | {key: value})


@pytest.mark.parametrize(("key", "value"), cases(SETUP_RIGHT))
def test_a_part_of_a_setup_may_be(key, value):
    check_request(REQUEST | {"setup": {key: value}})


@pytest.mark.parametrize(("key", "value"), cases(SETUP_WRONG))
def test_a_part_of_a_setup_may_not_be(key, value):
    with pytest.raises(WireError, match=rf"the request's setup\.{key} must be |the request's setup must be "):
        check_request(REQUEST | {"setup": {key: value}})


@pytest.mark.parametrize(
    ("weight", "right"), [(1.0, True), (0, True), (10**9, True), (-(10**9), True), (10**9 + 1, False), (True, False),
                          (None, False), ("1", False)],
)  # fmt: skip
def test_weights_of_classes_are_numbers_one_for_each(weight, right):
    setup = {"classes": ["a", "b"], "class_weights": [[1.0, weight], [2, 3]]}
    if right:
        check_request(REQUEST | {"setup": setup})
    for wrong in ([[1.0, 2.0, weight]], [[weight]], *([] if right else [[[1.0, weight]]])):
        with pytest.raises(WireError, match=r"setup\.class_weights must be a number for each class"):
            check_request(REQUEST | {"setup": setup | {"class_weights": wrong}})


@pytest.mark.parametrize(("key", "value"), cases(ITEM_RIGHT))
def test_a_part_of_a_fold_may_be(key, value):
    check_request(REQUEST | {"folds": [{"fold": 0}, {"fold": 1, key: value}]})


@pytest.mark.parametrize(("key", "value"), cases(ITEM_WRONG))
def test_a_part_of_a_fold_may_not_be(key, value):
    with pytest.raises(WireError, match=rf"the request's folds\.{key}[.a-z]* must be "):
        check_request(REQUEST | {"folds": [{"fold": 0}, {"fold": 1, key: value}]})


@pytest.mark.parametrize("method", ["train", "evaluate"])
def test_what_is_measured_names_a_model_or_says_that_there_is_none(method):
    setup = {"setup": {"preparation": None, "combat": None}}
    check_parts(method, setup | {"folds": [{"parameters": None}, {"parameters": "text"}]})
    with pytest.raises(WireError, match=r"folds\.parameters must be there"):
        check_parts(method, setup | {"folds": [{"parameters": None}, {}]})
    for wrong in ({}, {"folds": None}, {"folds": {}}):
        with pytest.raises(WireError, match="folds must be a list"):
            check_parts(method, setup | wrong)


@pytest.mark.parametrize("step", ["statistics", "quantiles", "harmonisation", "moments", "imputation"])
def test_steps_after_the_first_say_what_the_sites_agreed(step):
    check_parts("prepare", {"step": step, "setup": {"preparation": None, "combat": None, "more": 1}})
    for wrong in (None, {}, {"preparation": None}, {"combat": None}):
        with pytest.raises(WireError, match="setup must be what the sites agreed"):
            check_parts("prepare", {"step": step, "setup": wrong})
    check_parts("summary", {"step": step})
