"""Replies whose models lie behind the JSON as they are: they read as the same replies in JSON do."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import frames, wire
from v6_algorithm.exchange.in_file import TextFile

ASKED = {"schema": wire.SCHEMA, "site": "a", "round": 3, "attempt": 1}
SPEC = {"w": wire.TensorSpec((3, 5), "float32"), "n": wire.TensorSpec((), "int64", "counter")}


@pytest.fixture(autouse=True)
def small_models_go_too(monkeypatch):
    monkeypatch.setattr(frames, "LEAST_CHARACTERS", 100)


def reply(**item):
    generator = torch.Generator().manual_seed(1)
    state = {"w": torch.randn(3, 5, generator=generator), "n": torch.tensor(7)}
    folds = [{"fold": 0, "parameters": wire.pack(state), "loss": {"sum": 0.1, "rows": 3}} | item]
    return wire.message(site="a", round=3, attempt=1, status="ok", folds=folds)


def framed(content, path):
    message, parts = frames.take_out(content, wire.Packed)
    frame = frames.Frame(str(path))
    for part in parts:
        frame.add([part[:10], part[10:]])
    frame.finish(message)
    return path.read_bytes()


def in_file(content):
    text = TextFile(in_memory=True)
    text.write(content)
    return text


def test_a_frame_reads_as_its_json_does_in_a_quarter_fewer_bytes(tmp_path):
    content = reply()
    written = framed(content, tmp_path / "output")
    text = wire.to_text(content)
    one, other = (wire.read_reply(given, ASKED) for given in (text, in_file(written)))
    ours, theirs = (answer["folds"][0].pop("parameters") for answer in (one, other))
    assert one == other
    assert theirs.read() == ours
    assert len(theirs) == len(ours)
    for name, tensor in wire.unpack(theirs, SPEC).items():
        assert torch.equal(tensor, wire.unpack(ours, SPEC)[name])
    assert len(text) - len(written) > len(ours) / 4 - 100
    with pytest.raises(UnicodeDecodeError):
        written.decode()


def test_a_frame_is_written_over_what_an_earlier_attempt_left(tmp_path):
    given_up = frames.Frame(str(tmp_path / "output"))
    given_up.add([b"x" * 10_000])
    given_up.give_up()
    assert wire.read_reply(in_file(framed(reply(), tmp_path / "output")), ASKED)["status"] == "ok"


@given(st.data())
def test_a_frame_that_was_changed_is_no_reply_or_no_model(data):
    """One byte that is another, or bytes that are missing: nothing but WireError comes of it."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        written = bytearray(framed(reply(), Path(folder, "output")))
    place = data.draw(st.integers(len(frames.MARK), len(written) - 1))
    if data.draw(st.booleans()):
        del written[place:]
    else:
        written[place] = data.draw(st.integers(0, 255))
    try:
        answer = wire.read_reply(in_file(bytes(written)), ASKED)
        wire.unpack(answer["folds"][0]["parameters"], SPEC)
    except WireError:
        pass
    except (KeyError, TypeError, IndexError):
        # Names are the caller's to check: see reply_checks.
        assert answer != reply()


@pytest.mark.parametrize(
    "head",
    [
        {"message": {}, "parts": [-1]},
        {"message": {}, "parts": [2**40]},
        {"message": {"a": {"$part": 1}}, "parts": [4]},
        {"message": {"a": {"$part": True}}, "parts": [4]},
        {"message": {}, "parts": None},
        [],
    ],
)
def test_a_head_that_fits_no_file_is_refused(head):
    text = json.dumps(head).encode()
    with pytest.raises(WireError, match="not JSON"):
        wire.read_reply(in_file(frames.MARK + b"four" + text + len(text).to_bytes(8, "big")), ASKED)


def test_parts_elsewhere_than_parameters_are_read_as_text(tmp_path):
    content = reply(samples=wire.pack({"w": torch.zeros(50)}))
    answer = wire.read_reply(in_file(framed(content, tmp_path / "output")), ASKED)
    assert answer["folds"][0]["samples"] == content["folds"][0]["samples"]
