"""A safetensors file in pieces is the library's own to the byte, and lies in the tensors' memory."""

from __future__ import annotations

import base64
import json

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import tensor_file, wire
from v6_algorithm.exchange.wire import packed as packed_module

DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.float16, torch.bfloat16, torch.int32, torch.float32, torch.float64,
    torch.int64,
)  # fmt: skip
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)),
    max_size=5,
)


def made(about):
    return {name: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype) for name, (dtype, shape) in about}


@given(TENSORS, st.none() | st.just({"about": "ü"}))
def test_the_pieces_are_what_safetensors_itself_writes(about, metadata):
    tensors = made(about.items())
    whole = b"".join(tensor_file.pieces(tensors, metadata))
    assert whole == safetensors.torch.save(tensors, metadata)
    assert metadata is not None or tensor_file.size(tensors) == len(whole)


@given(st.lists(st.binary(max_size=7)))
def test_pieces_of_any_length_make_the_base64_of_the_whole_and_come_back(pieces):
    text = "".join(tensor_file.in_base64(pieces))
    assert text == base64.b64encode(b"".join(pieces)).decode()
    assert b"".join(tensor_file.from_base64(text)) == b"".join(pieces)


def test_a_text_longer_than_a_piece_is_cut_where_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(tensor_file, "PIECE", 6)
    content = bytes(range(20))
    pieces = list(tensor_file.in_base64([content]))
    assert [len(piece) for piece in pieces] == [8, 8, 8, 4]
    assert b"".join(tensor_file.from_base64("".join(pieces))) == content


def test_the_bytes_of_a_tensor_are_its_own_memory():
    tensor = torch.zeros(2, 3)
    tensor_file.bytes_of(tensor)[:4] = torch.ones(1).numpy().tobytes()
    assert tensor[0, 0] == 1


def test_bytes_of_a_transposed_tensor_are_in_its_order():
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert bytes(tensor_file.bytes_of(tensor)) == tensor.contiguous().numpy().tobytes()


@given(TENSORS)
def test_what_is_held_is_as_long_and_has_the_fingerprint_of_its_text(about):
    held = wire.Held(made(about.items()))
    text = held.text()
    assert "".join(held.letters()) == text
    assert held.length == len(text)
    assert held.digest == held.digest == wire.digest(text)
    content = {"a": [held, 1], "b": {"c": held}}
    written = wire.to_text(content)
    assert written == wire.to_text({"a": [text, 1], "b": {"c": text}})
    assert wire.text_length(content) == len(written)


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ({"w": torch.tensor([0.0, 1.0])}, True),
        ({"w": torch.tensor([-0.0, 1.0])}, False),
        ({"w": torch.tensor([0.0, 1.0], dtype=torch.float64)}, False),
        ({"w": torch.tensor([[0.0, 1.0]])}, False),
        ({"v": torch.tensor([0.0, 1.0])}, False),
    ],
)
def test_two_held_models_are_equal_where_their_texts_are(other, equal):
    first, second = wire.Held({"w": torch.tensor([0.0, 1.0])}), wire.Held(other)
    assert (first == second) is (first.text() == second.text()) is equal
    assert len({first, second}) == 2 - equal
    assert first != "text"


@given(TENSORS, st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5))
def test_what_is_read_of_a_message_is_what_its_text_says(about, other):
    held = wire.Held(made(about.items()))
    content = {"folds": [{"parameters": held, "other": other}, {"parameters": held.text()}], "last": [1, [held]]}
    read, length = wire.as_read(content)
    text = wire.to_text(content)
    assert read == json.loads(text)
    assert length == len(text)
    assert type(read["folds"][0]["parameters"]) is type(read["folds"][1]["parameters"]) is str


@given(TENSORS)
def test_a_large_text_is_read_tensor_by_tensor_to_the_same_tensors(about):
    tensors = made(about.items())
    text = str(wire.pack(tensors))
    usual = wire.unpack(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_module, "_LARGE", 0)
        large = wire.unpack(text)
    assert list(large) == list(usual)
    assert wire.Held(large) == wire.Held(usual) == wire.Held(tensors)


@pytest.mark.parametrize("wrong", ["AAAA", "AAA", "????", "\u00fc" * 16, "A" * 64])
def test_a_large_text_that_is_no_model_is_refused(monkeypatch, wrong):
    monkeypatch.setattr(packed_module, "_LARGE", 0)
    with pytest.raises(WireError, match="not valid base64 safetensors"):
        wire.unpack(wrong)


def test_a_large_model_of_another_shape_is_refused_by_name(monkeypatch):
    text = str(wire.pack({"w": torch.zeros(3)}))
    monkeypatch.setattr(packed_module, "_LARGE", 0)
    with pytest.raises(WireError, match=r"'w' has shape \[3\], expected \[2\]"):
        wire.unpack(text, {"w": wire.TensorSpec((2,), "float32")})


@given(TENSORS)
def test_stored_tensors_are_read_as_they_were_and_make_the_same_file(about):
    tensors = made(about.items())
    stored = tensor_file.Stored(tensors)
    assert b"".join(map(bytes, tensor_file.pieces(stored))) == b"".join(tensor_file.pieces(tensors))
    assert (tensor_file.size(stored), list(stored)) == (tensor_file.size(tensors), list(tensors))
    for name, tensor in tensors.items():
        assert (stored[name].dtype, stored[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(stored[name], tensor)
    assert list(stored.in_order(sorted(tensors))) == sorted(tensors)


def test_who_looks_at_a_stored_tensor_may_change_it_and_the_file_has_no_name(monkeypatch, tmp_path):
    monkeypatch.setattr(tensor_file.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tensor_file, "PIECE", 3)
    stored = tensor_file.Stored({"a": torch.arange(4.0), "b": torch.ones(2)})
    stored["a"].zero_()
    assert stored["a"].tolist() == [0, 1, 2, 3]
    assert (stored | {"b": torch.zeros(1)})["b"].tolist() == [0]
    assert b"".join(map(bytes, stored.pieces("b"))) == torch.ones(2).numpy().tobytes()
    assert not list(tmp_path.iterdir())


def test_large_tensors_are_held_in_a_file_where_there_is_room(monkeypatch, tmp_path):
    monkeypatch.setattr(packed_module, "_LARGE", 8)
    small, large = {"w": torch.ones(1)}, {"w": torch.tensor([1.0, 2.0])}
    spec = {"w": wire.TensorSpec((2,), "float32")}
    assert wire.hold(small).tensors is small
    held = wire.hold(large)
    assert isinstance(held.tensors, tensor_file.Stored)
    assert (held, held.text(), held.digest) == (wire.Held(large), wire.pack(large), wire.digest(wire.pack(large)))
    assert isinstance(wire.unpack(held, spec), tensor_file.Stored)
    with pytest.raises(WireError, match="shape"):
        wire.unpack(held, {"w": wire.TensorSpec((3,), "float32")})
    monkeypatch.setattr(tensor_file.tempfile, "tempdir", str(tmp_path / "none"))
    assert wire.hold(large).tensors is large
