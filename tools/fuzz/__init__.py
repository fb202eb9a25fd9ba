"""Fuzzing: wrong bytes, files, requests, replies and results, made from right ones; none may end without a name.

    python -m tools.fuzz --cases 100000 --seed 1 [--kinds wire,yaml,requests,replies,results]

A case is a right message or file of which a part is replaced, moved, cut or repeated. It may be accepted, or end in one
of the package's own errors, or in a reply that names what is wrong; any other exception, and a reply of kind "bug", is
printed with the case's number, from which `--only NUMBER` makes it again. CI runs a few thousand; `replies` are whole
runs of a federation, one in 2,000 cases.
"""

from __future__ import annotations

import argparse
import random
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tools.fuzz.runs import reply_cases, request_cases, result_cases
from tools.fuzz.spoiling import places, spoil
from tools.fuzz.texts import wire_cases, yaml_cases

__all__ = ["KINDS", "fuzz", "main", "places", "spoil"]

KINDS = ("wire", "yaml", "requests", "replies", "results")
# How often each kind is tried: by what a case of it costs.
_SHARES = {"wire": 0.75, "yaml": 0.19, "requests": 0.05, "replies": 0.0003, "results": 0.0097}
Case = Callable[[random.Random], None]


_MAKERS: dict[str, Callable[[], Case]] = {
    "wire": wire_cases, "yaml": yaml_cases, "requests": request_cases, "replies": reply_cases, "results": result_cases,
}  # fmt: skip


def fuzz(
    cases: int, seed: int = 0, kinds: tuple[str, ...] = KINDS, *, only: int | None = None, seconds: float = float("inf")
) -> tuple[Counter[str], dict[str, tuple[str, int, str]]]:
    """Try cases; return how many of each kind, and for each place of a fault its kind, first case and traceback."""
    makers = {kind: _MAKERS[kind]() for kind in kinds}
    done: Counter[str] = Counter()
    faults: dict[str, tuple[str, int, str]] = {}
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    for number in range(cases) if only is None else [only]:
        if time.monotonic() > until:
            break
        draw = random.Random(f"{seed} {number}")  # noqa: S311
        kind = draw.choices(kinds, [_SHARES[kind] for kind in kinds])[0]
        done[kind] += 1
        try:
            makers[kind](draw)
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "v6_algorithm" in frame.filename]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "tools.fuzz"
            name = f"{kind}: {type(error).__name__} in {place}"
            seen[name] += 1
            faults.setdefault(name, (kind, number, traceback.format_exc()))
    for name, count in seen.most_common():
        faults[f"{name}, {count} times"] = faults.pop(name)
    return done, faults


def main() -> int:
    """Run, print what ended without a name, and return 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    parser.add_argument("--only", type=int, help="one case by its number")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    given = parser.parse_args()
    kinds = tuple(given.kinds.split(","))
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds {', '.join(sorted(unknown))}: allowed: {', '.join(KINDS)}")
    warnings.simplefilter("ignore")
    start = time.monotonic()
    done, faults = fuzz(given.cases, given.seed, kinds, only=given.only, seconds=given.seconds)
    for name, (_, number, trace) in faults.items():
        print(f"UNNAMED {name}, first in case {number}\n{trace}")
    counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(done.items()))
    print(f"{sum(done.values()):,} cases ({counts}) in {time.monotonic() - start:.0f} s: {len(faults)} unnamed places")
    return int(bool(faults))
