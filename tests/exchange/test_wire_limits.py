"""The limits of what is packed and read: sizes to the byte, what is taken out of memory, fingerprints, headers."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import torch

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.wire import packed

ONE = {"w": wire.TensorSpec((3,), "float64")}


class Long(str):
    """A text that says it is longer than it is."""

    size = 0

    def __len__(self):
        return self.size


def letters(text, size):
    made = Long(text)
    made.size = size
    return made


def over(cap, *arguments, **options):
    """Return whether a text of 3 bytes more than the cap is over it, and one of 4."""
    found = []
    for size in (cap + 3, cap + 4):
        text = letters("AAAA", -(-size * 4 // 3))
        assert len(text) * 3 // 4 == size
        with pytest.raises(WireError) as caught:
            wire.unpack(text, *arguments, **options)
        found.append(f"are over the cap of {cap} bytes" in str(caught.value))
    return found


def test_texts_are_capped_by_what_is_expected_and_a_kilobyte_a_name():
    assert over(24 + 1024 * 9, ONE) == [False, True]
    assert over(2**31) == [False, True]
    assert over(5000, ONE, max_bytes=5000) == [False, True]
    assert over(50_000, max_bytes=50_000) == [False, True]


@pytest.mark.parametrize("large", [1, 2**24])
def test_only_who_says_so_has_tensors_taken_out_and_only_large_ones(monkeypatch, large):
    monkeypatch.setattr(packed, "_LARGE", large)
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2)}
    text = wire.pack(tensors)
    assert list(tensors) == ["a", "b"]
    assert wire.pack(MappingProxyType(tensors), consume=True) == text
    assert wire.pack(tensors, consume=True) == text
    assert list(tensors) == ([] if large == 1 else ["a", "b"])


@pytest.mark.parametrize("keep", [True, False])
def test_metadata_is_read_from_the_header(keep):
    told = {"round": "3", "name": "größe"}
    assert wire.read_metadata(str(wire.pack({"a": torch.ones(5)}, told, keep=keep))) == told
    assert wire.read_metadata(str(wire.pack({"a": torch.ones(5)}))) == {}
    for wrong in ("AAAA", "!", "CAAAAAAAAABbXQ=="):
        with pytest.raises(WireError):
            wire.read_metadata(wrong)


def test_fingerprints_have_32_letters():
    assert [len(wire.digest("text")), len(wire.digest_of({"a": torch.ones(1)}))] == [32, 32]


def test_entries_that_share_memory_are_kept_apart_and_others_are_not_copied():
    whole = torch.arange(4.0)
    kept = wire.pack({"a": whole, "b": whole, "none": torch.ones(0)}, keep=True).tensors
    assert kept["a"].data_ptr() != kept["b"].data_ptr()
    kept = wire.pack({"a": whole, "b": whole.clone(), "none": torch.ones(0), "no": torch.ones(0)}, keep=True).tensors
    assert kept["a"].data_ptr() == whole.data_ptr()


@pytest.mark.parametrize("what", ["names", "stacks", "known", "more names"])
def test_stacks_lack_nothing_that_the_model_has(what):
    spec = {"w": wire.TensorSpec((2,), "float32"), "v": wire.TensorSpec((1,), "float32")}
    given = {
        "stacks": {"w": torch.zeros(3, 2), "v": torch.zeros(3, 1), "more": torch.zeros(9)},
        "names": ["w", "v"], "known": dict(spec),
    }  # fmt: skip
    wire.check_stacks(given["stacks"], 3, spec, given["names"], given["known"])
    if what == "more names":
        given["names"] = ["w", "v", "more"]
    else:
        given[what] = ["w"] if what == "names" else {"w": given[what]["w"]}
    with pytest.raises(WireError, match="others than the model's"):
        wire.check_stacks(given["stacks"], 3, spec, given["names"], given["known"])
