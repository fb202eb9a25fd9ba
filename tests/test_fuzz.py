"""A few thousand cases of `tools.fuzz`: nothing wrong ends without a name."""

from __future__ import annotations

import random

import pytest

from tools.fuzz import KINDS, fuzz, places, spoil


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cases"), [("wire", 4000), ("yaml", 800), ("requests", 800), ("replies", 60), ("results", 60)]
)
def test_what_is_wrong_ends_by_name(kind, cases):
    done, faults = fuzz(cases, seed=11, kinds=(kind,))
    assert done[kind] == cases
    assert not faults, "\n".join(trace for _, _, trace in faults.values())


def test_a_case_is_made_again_from_its_number():
    content = {"a": [1, {"b": "text"}], "c": None}
    assert list(places(content)) == [("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("c",)]
    first, again = (spoil(content, random.Random(5)) for _ in range(2))
    assert repr(first) == repr(again)
    assert content == {"a": [1, {"b": "text"}], "c": None}
    assert len({repr(spoil(content, random.Random(seed))) for seed in range(50)}) > 20


def test_an_exception_without_a_name_is_found_and_counted(monkeypatch):
    def broken():
        def case(draw):
            if draw.randrange(2):
                raise KeyError("a bug")

        return case

    monkeypatch.setattr("tools.fuzz._MAKERS", dict.fromkeys(KINDS, broken))
    done, faults = fuzz(100, kinds=("wire",))
    ((name, (kind, _, trace)),) = faults.items()
    assert done["wire"] == 100
    assert (kind, "KeyError" in name, "a bug" in trace) == ("wire", True, True)
