"""Tensors and messages come out as they went in, and what is wrong is refused before anything is computed with it."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import tensor_file, wire
from v6_algorithm.exchange.wire import packed

DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "uint8", "bool")
SECRET = 4711.0


def bits(tensor):
    """The tensor's bytes, so that NaN equals NaN and -0 differs from 0."""
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype, name
        assert tensor.shape == expected[name].shape, name
        assert bits(tensor) == bits(expected[name]), name


@st.composite
def tensors(draw):
    """Any bit pattern of any allowed dtype: subnormals, NaN and infinities included; 0-d and empty too."""
    dtype = getattr(torch, draw(st.sampled_from(DTYPES)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    elements = int(np.prod(shape))
    raw = draw(st.binary(min_size=elements * dtype.itemsize, max_size=elements * dtype.itemsize))
    if dtype is torch.bool:
        return torch.tensor([byte % 2 == 1 for byte in raw]).reshape(shape)
    if not elements:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)


states = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), tensors(), max_size=4)


def spec_of(state):
    return {name: wire.TensorSpec(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()}


def header_only(**entries):
    """A safetensors file made by hand: only its header, and as many zero bytes as it speaks of."""
    header = json.dumps(entries).encode()
    size = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    return base64.b64encode(struct.pack("<Q", len(header)) + header + bytes(size)).decode()


# -- round trips ---------------------------------------------------------------------------------------------------


@given(states.filter(lambda state: "__metadata__" not in state))
def test_tensors_come_out_to_the_bit(state):
    assert_same(wire.unpack(wire.pack(state)), state)


@given(states.filter(lambda state: "__metadata__" not in state))
def test_packing_does_not_depend_on_the_order_of_the_names(state):
    backwards = dict(reversed(list(state.items())))
    assert wire.pack(backwards) == wire.pack(state)


@given(states.filter(lambda state: "__metadata__" not in state))
def test_tensors_come_out_in_one_order(state):
    # safetensors gives them in another order each time, and with it a sum over tensors other bits.
    assert list(wire.unpack(wire.pack(state))) == sorted(state)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3)], ids=str)
def test_every_dtype_and_shape_comes_out(dtype, shape):
    state = {"x": torch.ones(shape, dtype=getattr(torch, dtype))}
    assert_same(wire.unpack(wire.pack(state), spec_of(state)), state)


@pytest.mark.parametrize("values", [[float("nan"), -0.0, 0.0, float("inf"), 5e-324]])
def test_special_floats_come_out(values):
    state = {"x": torch.tensor(values, dtype=torch.float64)}
    assert_same(wire.unpack(wire.pack(state)), state)


def test_what_is_not_contiguous_comes_out():
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "transposed": base.T,
        "strided": base[:, ::2],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "image": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    }
    assert_same(wire.unpack(wire.pack(state)), state)


def test_tied_weights_come_out_as_two():
    base = torch.arange(6.0)
    state = {"encoder": base, "decoder": base, "row": base[:3], "rest": base[3:]}
    unpacked = wire.unpack(wire.pack(state))
    assert_same(unpacked, state)
    unpacked["encoder"].zero_()
    assert torch.equal(unpacked["decoder"], base)


def test_parameters_come_out_without_their_graph():
    unpacked = wire.unpack(wire.pack({"w": torch.nn.Parameter(torch.ones(2))}))
    assert not unpacked["w"].requires_grad


def test_unpacked_tensors_can_be_written_to():
    text = wire.pack({"w": torch.ones(3)})
    wire.unpack(text)["w"].add_(1)
    assert torch.equal(wire.unpack(text)["w"], torch.ones(3))


def test_a_state_without_tensors_comes_out():
    assert wire.unpack(wire.pack({})) == {}


def test_packing_leaves_the_tensors_alone():
    base = torch.arange(4.0)
    wire.pack({"a": base, "b": base})
    assert torch.equal(base, torch.arange(4.0))


def test_hrc_trap_tensors_are_not_cast_on_the_way():
    # HRC cast features in [0, 1] to uint8 before it sent them: every value below 1 became 0.
    state = {"x": torch.tensor([0.0, 0.3, 0.999, 1.0])}
    assert_same(wire.unpack(wire.pack(state)), state)


# -- what is refused -----------------------------------------------------------------------------------------------


GOOD = {"w": torch.full((2, 3), SECRET), "n": torch.tensor(int(SECRET))}
SPEC = spec_of(GOOD)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"w": GOOD["w"]}, "'n' is missing"),
        (GOOD | {"x": GOOD["w"]}, "'x' is not part of the model"),
        (GOOD | {"w": GOOD["w"].T}, r"'w' has shape \[3, 2\], expected \[2, 3\]"),
        (GOOD | {"w": GOOD["w"].flatten()}, r"'w' has shape \[6\]"),
        (GOOD | {"n": GOOD["n"].reshape(1)}, r"'n' has shape \[1\], expected \[\]"),
        (GOOD | {"w": GOOD["w"].double()}, "'w' has dtype float64, expected float32"),
        (GOOD | {"w": GOOD["w"].int()}, "'w' has dtype int32, expected float32"),
        (GOOD | {"w": GOOD["w"] * float("nan")}, "'w' holds non-finite numbers"),
        (GOOD | {"w": GOOD["w"] * float("inf")}, "'w' holds non-finite numbers"),
    ],
)
def test_peers_trap_a_state_of_another_architecture_is_refused_by_name(state, message):
    with pytest.raises(WireError, match=message) as refused:
        wire.unpack(wire.pack(state), SPEC)
    assert "4711" not in str(refused.value)


def test_one_nan_among_many_numbers_is_found():
    state = {"w": torch.ones(1000, dtype=torch.bfloat16)}
    state["w"][999] = float("nan")
    with pytest.raises(WireError, match="non-finite"):
        wire.unpack(wire.pack(state), spec_of(state))


@given(tensors())
def test_a_nan_or_an_infinity_anywhere_is_found(tensor):
    expected = not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
    assert wire.all_finite(tensor) == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_large_finite_numbers_are_finite_though_their_sum_is_not(dtype):
    assert wire.all_finite(torch.full((4,), torch.finfo(getattr(torch, dtype)).max, dtype=getattr(torch, dtype)))


@pytest.mark.parametrize(
    "text",
    ["", "!", "AAAA", "====", "patient 4711", "Ünïcödé", "A" * 4000, base64.b64encode(b"\xff" * 64).decode()],
    ids=lambda text: text[:8] or "empty",
)
def test_garbage_is_refused(text):
    with pytest.raises(WireError, match="not valid base64 safetensors") as refused:
        wire.unpack(text)
    assert "4711" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"AAAA", 3, ["AAAA"], {}], ids=repr)
def test_what_is_no_text_is_refused(content):
    with pytest.raises(WireError, match="must be base64 text, not"):
        wire.unpack(content)


@given(st.data())
def test_a_truncated_state_is_refused(data):
    text = wire.pack(GOOD)
    with pytest.raises(WireError):
        wire.unpack(text[: data.draw(st.integers(0, len(text) - 4))], SPEC)


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_or_give_tensors_of_the_spec(data):
    raw = bytearray(base64.b64decode(wire.pack(GOOD)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        unpacked = wire.unpack(base64.b64encode(raw).decode(), SPEC)
    except WireError:
        return
    assert spec_of(unpacked) == SPEC
    assert torch.isfinite(unpacked["w"]).all()


@pytest.mark.parametrize("dtype", ["I16", "U16", "F8_E5M2", "F8_E4M3", "F4", "F8_E8M0", "C64", "nonsense"])
@pytest.mark.parametrize("elements", [0, 4])
def test_a_dtype_that_is_not_ours_is_refused(dtype, elements):
    size = elements * {"I16": 2, "U16": 2, "C64": 8}.get(dtype, 1)
    with pytest.raises(WireError):
        wire.unpack(header_only(x={"dtype": dtype, "shape": [elements], "data_offsets": [0, size]}))


@pytest.mark.parametrize("shape", [[2**63], [2**40, 2**40], [0, 2**63], [-1], ["2"], None], ids=str)
def test_an_impossible_shape_is_refused(shape):
    with pytest.raises(WireError):
        wire.unpack(header_only(x={"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}))


def test_more_bytes_than_the_model_has_are_refused_before_they_are_decoded():
    huge = "A" * (4 * (wire.spec_bytes(SPEC) + 100_000))
    with pytest.raises(WireError, match=r"over the cap of \d+ bytes"):
        wire.unpack(huge, SPEC)


def test_the_size_cap_counts_decoded_bytes():
    text = wire.pack(GOOD)
    size = len(base64.b64decode(text))
    wire.unpack(text, max_bytes=size)
    with pytest.raises(WireError, match="over the cap"):
        wire.unpack(text, max_bytes=size - 4)


def test_the_cap_leaves_room_for_the_header_of_a_model_of_many_tiny_tensors():
    state = {f"encoder.layers.{number}.norm.running_mean": torch.zeros(1) for number in range(300)}
    wire.unpack(wire.pack(state), spec_of(state))


# -- the description of a model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parameter", "buffer", "counter"])
def test_a_description_survives_json(kind):
    spec = {"w": wire.TensorSpec((2, 3), "bfloat16", kind), "n": wire.TensorSpec((), "int64", kind)}
    sent = json.loads(json.dumps({name: item.to_json() for name, item in spec.items()}))
    assert wire.spec_from_json(sent) == spec
    none = {"w": wire.TensorSpec((0, 3), "float32", kind)}
    assert wire.spec_from_json({"w": none["w"].to_json()}) == none


def test_the_size_of_a_description_is_that_of_its_tensors():
    assert wire.spec_bytes(SPEC) == 2 * 3 * 4 + 8


GOOD_ITEM = {"shape": [2], "dtype": "float32", "kind": "parameter"}


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "w",
        {"w": None},
        {"w": {"shape": [2]}},
        {"w": GOOD_ITEM | {"shape": 2}},
        {"w": GOOD_ITEM | {"shape": [-1]}},
        {"w": GOOD_ITEM | {"shape": [2.5]}},
        {"w": GOOD_ITEM | {"shape": [float("inf")]}},
        {"w": GOOD_ITEM | {"shape": "12"}},
        {"w": GOOD_ITEM | {"shape": [True]}},
        {"w": GOOD_ITEM | {"dtype": "complex64"}},
        {"w": GOOD_ITEM | {"dtype": None}},
        {"w": GOOD_ITEM | {"kind": "secret"}},
    ],
    ids=str,
)
def test_a_malformed_description_is_refused(content):
    with pytest.raises(WireError):
        wire.spec_from_json(content)


# -- messages ------------------------------------------------------------------------------------------------------


REQUEST = wire.message(site="va", round=3, attempt=1, folds=[])


def reply(**changes):
    return wire.to_text(wire.message(site="va", round=3, attempt=1, status="ok", rows=12) | changes)


def test_a_reply_to_the_request_is_read():
    assert wire.read_reply(reply(), REQUEST)["rows"] == 12


def test_a_reply_that_says_no_is_read():
    assert wire.read_reply(reply(status="error", kind="data"), REQUEST)["kind"] == "data"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"schema": 2}, "schema"),
        ({"schema": None}, "schema"),
        ({"site": "cleveland"}, "site"),
        ({"round": 2}, "round"),
        ({"round": "3"}, "round"),
        ({"attempt": 2}, "attempt"),
        ({"attempt": [1]}, "attempt"),
    ],
)
def test_a_reply_to_another_request_is_refused_by_what_differs(changes, key):
    with pytest.raises(WireError, match=f"the reply is of {key} "):
        wire.read_reply(reply(**changes), REQUEST)


@pytest.mark.parametrize("key", ["schema", "site", "round", "attempt", "status"])
def test_a_reply_without_its_head_is_refused(key):
    head = json.loads(reply())
    del head[key]
    with pytest.raises(WireError):
        wire.read_reply(json.dumps(head), REQUEST)


@pytest.mark.parametrize("status", ["fine", None, True, ["ok"]])
def test_a_reply_with_another_status_is_refused(status):
    with pytest.raises(WireError, match="no status"):
        wire.read_reply(reply(status=status), REQUEST)


@pytest.mark.parametrize("text", ["", "{", "ok", "\x00", "[" * 100_000, "1" * 5000], ids=lambda text: repr(text[:4]))
def test_a_reply_that_is_no_json_is_refused(text):
    with pytest.raises(WireError, match="not JSON"):
        wire.read_reply(text, REQUEST)


@pytest.mark.parametrize("content", [[], "ok", 3, None])
def test_a_reply_that_is_no_message_is_refused(content):
    with pytest.raises(WireError, match="not a message"):
        wire.read_reply(json.dumps(content), REQUEST)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_reply_with_a_number_that_is_not_finite_is_refused(number):
    with pytest.raises(WireError, match="not finite"):
        wire.read_reply(reply().replace("12", number), REQUEST)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_written(number):
    with pytest.raises(ValueError, match="JSON compliant"):
        wire.to_text({"loss": number})


def test_a_long_wrong_head_is_cut_short():
    with pytest.raises(WireError) as refused:
        wire.read_reply(reply(site="x" * 10_000), REQUEST)
    assert len(str(refused.value)) < 200


def test_a_fingerprint_tells_states_apart():
    one, other = wire.pack({"w": torch.zeros(3)}), wire.pack({"w": torch.tensor([0.0, 0.0, 1e-30])})
    assert wire.digest(one) == wire.digest(wire.pack({"w": torch.zeros(3)}))
    assert wire.digest(one) != wire.digest(other)
    assert len(wire.digest(one)) == 32


@pytest.mark.parametrize(
    "other",
    [
        {"w": torch.tensor([0.0, 0.0, 1e-30]), "n": torch.tensor(3)},
        {"w": torch.zeros(3, 1), "n": torch.tensor(3)},
        {"w": torch.zeros(3, dtype=torch.bfloat16), "n": torch.tensor(3)},
        {"v": torch.zeros(3), "n": torch.tensor(3)},
        {"w": torch.zeros(3), "n": torch.tensor(4)},
        {"w": torch.zeros(3)},
    ],
    ids=["number", "shape", "dtype", "name", "counter", "fewer"],
)
def test_a_fingerprint_of_tensors_tells_states_apart_and_not_their_order(other):
    one = {"w": torch.zeros(3), "n": torch.tensor(3)}
    assert wire.digest_of(one) == wire.digest_of({"n": torch.tensor(3), "w": torch.zeros(3)})
    assert wire.digest_of(one) != wire.digest_of(other)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=4), tensors(), max_size=6), st.none() | st.just({"made": "by \u00fc"}))
def test_large_models_are_packed_to_the_bytes_of_small_ones(monkeypatch, several, metadata):
    given_tensors = {f"{number}{name}": tensor for number, (name, tensor) in enumerate(several.items())}
    usual = wire.pack(given_tensors, metadata)
    # Pieces so small that there are several.
    monkeypatch.setattr(tensor_file, "PIECE", 12)
    large = packed._pack_large(dict(given_tensors), metadata, keep=True, consume=True)
    assert large == usual
    assert_same(dict(large.tensors), given_tensors)


def test_a_model_of_several_pieces_is_whole_again():
    """base64 takes three bytes at a time, so that pieces of other lengths would not fit together."""
    weights = torch.arange(tensor_file.PIECE // 4 + 5, dtype=torch.float32)
    assert_same(wire.unpack(wire.pack({"w": weights})), {"w": weights})


@pytest.mark.parametrize("thaws", ["3", -1, True, 2.0, None])
def test_a_spec_that_is_frozen_for_no_whole_number_of_rounds_is_refused(thaws):
    item = {"shape": [2], "dtype": "float32", "kind": "parameter"}
    with pytest.raises(WireError, match="frozen for rounds that are no whole number"):
        wire.spec_from_json({"w": item | {"thaws": thaws}})
    assert wire.spec_from_json({"w": item | {"thaws": 3}})["w"].thaws == 3


def test_a_file_that_fits_as_a_whole_leaves_nothing_of_the_model_over():
    spec = {name: wire.TensorSpec((2,), "float32", "parameter", 0) for name in ("model.a", "model.b")}
    tensors = {"a": torch.ones(2, dtype=torch.float64), "b": torch.zeros(2)}
    fitting, left = wire.fit(tensors, spec, partial=False)
    assert (sorted(fitting), left) == (["model.a", "model.b"], [])
    fitting, left = wire.fit({"a": torch.ones(2), "b": torch.zeros(3)}, spec, partial=True)
    assert (sorted(fitting), left) == (["model.a"], ["model.b"])


@pytest.mark.parametrize(
    "arrays",
    [
        {"b": np.arange(3.0), "a": np.ones((2, 0)), "c": np.float64(1.5)},
        {"n": np.arange(4), "x": np.ones(2, np.float32), "y": np.zeros((2, 3), bool), "ü": np.full(3, np.nan)},
        {"t": np.arange(12.0).reshape(3, 4).T, "every": np.arange(12.0)[::2]},
        {},
    ],
    ids=["floats", "types", "not dense", "none"],
)  # fmt: skip
def test_arrays_are_packed_to_the_text_of_the_same_tensors(arrays):
    packed = wire.pack_arrays(arrays)
    assert packed == wire.pack({name: torch.from_numpy(np.ascontiguousarray(of)) for name, of in arrays.items()})
    assert isinstance(packed, wire.Packed)
    read = wire.unpack(packed)
    assert all(np.array_equal(read[name].numpy().ravel(), of.ravel(), equal_nan=True) for name, of in arrays.items())
