"""Replies that lie in files are read to the same bits as texts, one tensor at a time, with the same refusals."""

import json

import pybase64
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.coordinator.strategies.averaging import WeightedMean
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import in_file, wire

REQUEST = {"schema": wire.SCHEMA, "site": "a", "round": 2, "attempt": 1}
TENSORS = {
    "w": torch.randn(40, 3),
    "b": torch.randn(7, dtype=torch.float64),
    "half": torch.randn(5).to(torch.bfloat16),
    "n": torch.tensor(3),
    "none": torch.empty(0, 4),
    "on": torch.tensor([True, False, True]),
}
SPEC = {name: wire.TensorSpec(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in TENSORS.items()}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Let strings of 64 bytes be long, and pieces small, so that borders fall everywhere."""
    monkeypatch.setattr(in_file, "LONG", 64)
    monkeypatch.setattr(in_file, "_PIECE", 48)


def in_a_file(text):
    file = in_file.TextFile()
    file.write(text.encode())
    return file


def reply(packed, **more):
    item = {"fold": 0, "parameters": packed, "metrics": {}, **more}
    return wire.to_text(wire.message(site="a", round=2, attempt=1, status="ok", folds=[item]))


def test_tensors_in_a_file_are_those_of_the_text_bit_for_bit():
    text = reply(wire.pack(TENSORS))
    read = wire.read_reply(in_a_file(text), REQUEST)
    packed = read["folds"][0]["parameters"]
    assert isinstance(packed, in_file.LongString)
    tensors = wire.unpack(packed, SPEC)
    assert list(tensors) == list(SPEC)
    for name, tensor in wire.unpack(wire.read_reply(text, REQUEST)["folds"][0]["parameters"], SPEC).items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name], tensor)
    whole = wire.unpack(packed)
    assert list(whole) == sorted(SPEC)
    assert all(torch.equal(whole[name], TENSORS[name]) for name in whole)


def test_the_mean_is_the_same_to_the_bit():
    spec = {name: item for name, item in SPEC.items() if name in ("w", "b")}
    draw = {name: (item.shape, getattr(torch, item.dtype)) for name, item in spec.items()}
    packed = [
        wire.pack({name: torch.randn(shape, dtype=dtype) for name, (shape, dtype) in draw.items()}) for _ in range(4)
    ]
    means = WeightedMean(spec), WeightedMean(spec)
    for number, text in enumerate(packed, start=1):
        (read,) = wire.read_reply(in_a_file(reply(text)), REQUEST)["folds"]
        means[0].add(wire.unpack(text, spec), number)
        means[1].add(wire.unpack(read["parameters"], spec), number)
    one, other = (mean.combined() for mean in means)
    assert all(torch.equal(one[name], other[name]) for name in spec)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=200),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=12,
    )
)
def test_json_in_a_file_is_the_json(content):
    for text in (json.dumps(content), json.dumps(content, ensure_ascii=False)):
        if "\ud800" <= max(text, default="") <= "\udfff":
            continue
        read = in_file.read_json(in_a_file(text), json.loads)
        assert whole(read) == content


def whole(value):
    if isinstance(value, in_file.LongString):
        return value._text.at(value._offset, len(value)).decode()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


def test_only_models_stay_in_the_file():
    long = "x" * 500
    read = wire.read_reply(in_a_file(reply(long, samples=long)), REQUEST)
    assert read["folds"][0]["samples"] == long
    assert isinstance(read["folds"][0]["parameters"], in_file.LongString)


def changed(change):
    content = bytearray(pybase64.b64decode(wire.pack({"w": torch.randn(40, 3)})))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return pybase64.b64encode(len(text).to_bytes(8, "little") + text + content[8 + size :]).decode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header["w"].update(shape=[3, 40]), "has shape"),
        (lambda header: header["w"].update(shape=[41, 3]), "not valid base64 safetensors"),
        (lambda header: header["w"].update(dtype="I32"), "has dtype int32"),
        (lambda header: header["w"].update(dtype="X9"), "not valid base64 safetensors"),
        (lambda header: header["w"].update(data_offsets=[8, 488]), "not valid base64 safetensors"),
        (lambda header: header.update(v=header["w"]), "not valid base64 safetensors"),
        (lambda header: header.update(v=header.pop("w")), "missing|not part"),
        (lambda header: header["w"].update(shape=[-40, -3]), "not valid base64 safetensors"),
    ],
)
def test_a_header_that_is_wrong_is_refused(change, reason):
    (read,) = wire.read_reply(in_a_file(reply(changed(change))), REQUEST)["folds"]
    with pytest.raises(WireError, match=reason):
        wire.unpack(read["parameters"], {"w": wire.TensorSpec((40, 3), "float32")})


def test_numbers_that_are_not_finite_text_that_is_no_base64_and_too_much_of_it_are_refused():
    spec = {"w": wire.TensorSpec((40, 3), "float32")}
    bad = torch.randn(40, 3)
    bad[39, 2] = float("nan")
    good = wire.pack({"w": torch.randn(40, 3)})
    for packed, reason in (
        (wire.pack({"w": bad}), "holds non-finite numbers"),
        (good[:-8] + "!" * 8, "not valid base64 safetensors"),
        (good[:-4], "not valid base64 safetensors"),
        (wire.pack({"w": torch.randn(4000)}), "over the cap"),
    ):
        (read,) = wire.read_reply(in_a_file(reply(packed)), REQUEST)["folds"]
        with pytest.raises(WireError, match=reason):
            wire.unpack(read["parameters"], spec)


def test_a_reply_of_another_round_is_refused_wherever_it_lies():
    with pytest.raises(WireError, match="the reply is of round '2', asked was 3"):
        wire.read_reply(in_a_file(reply("x" * 100)), REQUEST | {"round": 3})
    with pytest.raises(WireError, match="not JSON"):
        wire.read_reply(in_a_file(reply("x" * 100)[:-5]), REQUEST)
