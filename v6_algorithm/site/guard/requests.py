"""The form of a request, checked before anything in it is used: types and bounds of each part that a site reads.

`Work` calls it first. The experiment has checks of its own, tensors theirs; what columns and folds there are is the
table's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from v6_algorithm.errors import WireError
from v6_algorithm.exchange.wire import Held
from v6_algorithm.experiment import PARTS

_MOST = 10**9
_LONGEST = 1000
_WITH_SETUP = ("statistics", "quantiles", "harmonisation", "moments", "imputation")


def check_request(request: Mapping[str, Any]) -> None:
    """Raise WireError, naming the part, for a request of another form than `master` and `describe` write."""
    for key in ("round", "sites", "attempt"):
        _check(_is_count(request.get(key, None if key == "round" else 0)), key, f"a whole number from 0 to {_MOST}")
    _check(_is_text(request.get("site")), "site", "a name")
    _check(request.get("step") is None or _is_text(request.get("step")), "step", "a name")
    for key in ("weights", "shares"):
        wholes = request.get(key, {})
        _check(
            isinstance(wholes, Mapping) and all(map(_is_count, wholes.values())), key, "whole numbers by number of fold"
        )
    _check(_is_protocol(request.get("secure_aggregation", {})), "secure_aggregation", "a mapping with participants")
    if (features := request.get("features")) is not None:
        _check(_are(features, _is_text), "features", "a list of names")
    if (setup := request.get("setup")) is not None:
        _check(isinstance(setup, Mapping), "setup", "a mapping")
        _check_setup(setup)
    if (folds := request.get("folds")) is not None:
        _check(_are(folds, lambda item: isinstance(item, Mapping)), "folds", "a list of mappings")
        for item in folds:
            _check_item(item)


def check_parts(method: str, request: Mapping[str, Any]) -> None:
    """Raise WireError for a request that leaves out what its method is about."""
    measures = method in ("train", "evaluate")
    if measures:
        _check(isinstance(request.get("folds"), list), "folds", "a list of mappings")
        _check(all("parameters" in item for item in request["folds"]), "folds.parameters", "there, if only as null")
    if measures or (method == "prepare" and request.get("step") in _WITH_SETUP):
        setup = request.get("setup")
        _check(isinstance(setup, Mapping) and {"preparation", "combat"} <= set(setup), "setup", "what the sites agreed")


def _is_protocol(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("participants", []), list)


def _check_setup(setup: Mapping[str, Any]) -> None:
    for key in ("features", "pixels", "covariates", "hospitals"):
        _check(_are(setup.get(key, []), _is_text), f"setup.{key}", "a list of names")
    for key in ("categories", "task_classes"):
        columns = setup.get(key, {})
        _check(
            isinstance(columns, Mapping) and all(_are(labels, _is_label) for labels in columns.values()),
            f"setup.{key}", "names with lists of labels",
        )  # fmt: skip
    classes, weights = setup.get("classes"), setup.get("class_weights")
    _check(classes is None or _are(classes, _is_label), "setup.classes", "a list of labels")
    _check(
        weights is None or _are(weights, lambda fold: _are(fold, _is_number) and len(fold) == len(classes or [])),
        "setup.class_weights", "a number for each class, for each fold",
    )  # fmt: skip
    for key in ("sequence_length", "sequence_shortest"):
        _check(setup.get(key) is None or _is_count(setup[key]), f"setup.{key}", "a whole number")
    shape = setup.get("image_shape")
    _check(shape is None or _are(shape, _is_count), "setup.image_shape", "whole numbers")


def _check_item(item: Mapping[str, Any]) -> None:
    _check(_is_count(item.get("fold")), "folds.fold", "a whole number from 0")
    for key in ("evaluate", "subgroups"):
        _check(_are(item.get(key, []), lambda part: part in PARTS), f"folds.{key}", f"parts: {', '.join(PARTS)}")
    for key in ("train", "partial", "personal", "samples"):
        _check(item.get(key) is None or isinstance(item[key], bool), f"folds.{key}", "true or false")
    for key in ("epochs", "baseline"):
        _check(item.get(key) is None or _is_count(item[key]), f"folds.{key}", "a whole number")
    given = item.get("parameters")
    _check(given is None or isinstance(given, (str, Held)), "folds.parameters", "a packed text")
    _check(item.get("rounded") is None or _is_text(item["rounded"]), "folds.rounded", "a name")
    _check(item.get("strategy") is None or isinstance(item["strategy"], Mapping), "folds.strategy", "a mapping")
    if (against := item.get("against")) is not None:
        _check(
            isinstance(against, Mapping) and {"experiment", "setup", "parameters"} <= set(against),
            "folds.against", "a model with its experiment and setup",
        )  # fmt: skip
        placements = against.get("placements")
        _check(placements is None or isinstance(placements, str), "folds.against.placements", "a packed text")
    if (private := item.get("private")) is not None:
        _check(
            isinstance(private, Mapping)
            and _is_count(private.get("round"))
            and _are(private.get("keep", []), _is_count),
            "folds.private", "round and keep, whole numbers",
        )  # fmt: skip


def _check(holds: bool, what: str, needed: str) -> None:
    if not holds:
        raise WireError(f"the request's {what} must be {needed}")


def _are(values: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(holds(value) for value in values)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MOST


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_label(value: Any) -> bool:
    return isinstance(value, (int, float)) or _is_text(value)
