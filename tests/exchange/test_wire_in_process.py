"""Tensors handed on within one process, and limits of what is read, on both sides of each."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import torch

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.wire import packed


def spec(length=2, dtype="float32"):
    return {"w": wire.TensorSpec((length,), dtype)}


def held(length=2, checked=None, value=1.0):
    return wire.Held({"w": torch.full((length,), value)}, checked)


def test_what_its_maker_knows_to_be_of_the_spec_is_not_looked_through_again():
    known, nan = spec(), float("nan")
    for wanted in (known, spec(), spec()):
        assert wire.unpack(held(checked=known, value=nan), wanted)["w"].isnan().all()
    with pytest.raises(WireError, match="non-finite"):
        wire.unpack(held(value=nan), known)


def test_a_description_that_was_found_equal_to_one_says_nothing_of_another():
    known, equal = spec(), spec()
    wire.unpack(held(checked=known), equal)
    with pytest.raises(WireError, match=r"shape \[2\], expected \[3\]"):
        wire.unpack(held(checked=known), spec(3))
    wire.unpack(held(checked=known), equal)
    with pytest.raises(WireError, match=r"shape \[3\], expected \[2\]"):
        wire.unpack(held(3, checked=spec(3)), equal)


def test_held_tensors_come_in_the_order_of_the_spec_or_of_their_names():
    tensors = {"b": torch.ones(1), "a": torch.zeros(1)}
    wanted = {"b": wire.TensorSpec((1,), "float32"), "a": wire.TensorSpec((1,), "float32")}
    assert list(wire.unpack(wire.Held(tensors))) == ["a", "b"]
    assert list(wire.unpack(wire.Held(tensors), wanted)) == ["b", "a"]


def test_a_layer_of_a_stack_has_the_names_that_are_asked_for():
    layer = wire.Stacked({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}, 1)
    assert layer.only(["b"]).keys() == {"b"}
    assert float(layer.only(["b"])["b"]) == 4
    assert layer.only(["a", "b"]) is layer
    with pytest.raises(KeyError):
        layer.only(["b"])["a"]


@pytest.mark.parametrize(
    ("stack", "fits"),
    [
        (torch.zeros(3, 2), True), (torch.zeros(2, 2), False), (torch.zeros(3, 1), False),
        (torch.zeros(3, 2, dtype=torch.float64), False),
    ],
)  # fmt: skip
def test_a_stack_has_as_many_layers_as_sites_of_the_models_shape_and_dtype(stack, fits):
    known = spec()
    if fits:
        wire.check_stacks({"w": stack}, 3, known, ["w"], known)
        return
    with pytest.raises(WireError, match="'w' has another shape or dtype than expected"):
        wire.check_stacks({"w": stack}, 3, known, ["w"], known)


@pytest.mark.parametrize(
    ("number", "taken"),
    [
        ("1e100", True), ("-1e100", True), ("1.0000001e100", False), (str(2**62), True), (str(-(2**62)), True),
        (str(2**62 + 1), False), (str(-(2**62) - 1), False),
    ],
)  # fmt: skip
def test_the_largest_number_of_a_reply_is_taken_and_one_beyond_is_not(number, taken):
    request = wire.message(site="a", round=1, attempt=1)
    text = json.dumps(request | {"status": "ok", "value": 0}).replace('"value": 0', f'"value": {number}')
    if taken:
        assert wire.read_reply(text, request)["value"] == float(number)
        return
    with pytest.raises(WireError, match="too large to be added up"):
        wire.read_reply(text, request)


def test_tensors_of_more_bytes_than_their_header_are_packed_and_kept():
    tensors = {"w": torch.arange(1000.0), "n": torch.zeros(0)}
    large = packed._pack_large(dict(tensors), None, keep=True, consume=False)
    assert large == wire.pack(tensors)
    assert torch.equal(large.tensors["w"], tensors["w"])


def test_only_a_model_of_one_network_may_go_without_its_name():
    two = {name: wire.TensorSpec((1,), "float32") for name in ("generator.w", "critic.w")}
    named = {name: torch.ones(1) for name in two}
    assert wire.fit(named, two, partial=False)[0].keys() == named.keys()
    with pytest.raises(WireError, match="is missing"):
        wire.fit(
            {"w": torch.ones(1)}, {"generator.w": two["generator.w"], "generator.b": two["critic.w"]}, partial=False
        )
    with pytest.raises(WireError, match="none of its tensors fits"):
        wire.fit({"w": torch.ones(1)}, two, partial=True)
    one = {"model.w": wire.TensorSpec((1,), "float32")}
    assert wire.fit({"model.w": torch.ones(1)}, one, partial=False)[0].keys() == one.keys()


def test_a_model_that_was_written_as_text_does_not_wait_for_a_search_for_circles():
    """A round's models lay in memory for several more rounds: 88 MB each, with the text, of 9.4 million numbers."""
    gc.collect()
    gc.disable()
    try:
        tensor = torch.zeros(3)
        known = weakref.ref(tensor)
        wire.to_text({"folds": [{"parameters": wire.Held({"w": tensor})}]})
        del tensor
        assert known() is None
    finally:
        gc.enable()
