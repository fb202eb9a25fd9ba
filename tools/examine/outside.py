"""Runs the examination: ``python -m tools.examine.outside``."""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pathlib import Path

from tools.examine.tries import CASES, VERDICTS, count, judge


def main() -> None:
    """Try all inputs, or some, and print the count by kind; then what is not right."""
    parser = argparse.ArgumentParser(prog="python -m tools.examine.outside", description=main.__doc__)
    parser.add_argument("--only", default="", help="kinds, such as B3 or B, or a part of a name, parted by commas")
    parser.add_argument("--sample", default="", help="first, second, third; all if absent")
    parser.add_argument("--list", action="store_true", help="print the inputs and try none")
    parser.add_argument("--all", action="store_true", help="print what came of each input")
    options = parser.parse_args()
    for module in sorted(Path(__file__).parent.glob("inputs_*.py")):
        import_module(f"tools.examine.{module.stem}")
    wanted = [part for part in options.only.split(",") if part]
    cases = [
        case
        for sample, listed in CASES.items()
        for case in listed
        if options.sample in ("", sample)
        and (not wanted or any(case.kind.startswith(part) or part in case.name for part in wanted))
    ]
    if options.list:
        print("\n".join(f"{case.kind:4} {case.name}" for case in cases))
        return
    verdicts = []
    for case in cases:
        started = time.perf_counter()
        verdict, what = judge(case)
        verdicts.append((case, verdict))
        if options.all or verdict != "right":
            print(
                f"{verdict:8} {case.kind:4} {case.name} [{time.perf_counter() - started:.1f} s]\n         {what}",
                flush=True,
            )
    print(f"\n{'':5}" + "".join(f"{name:>9}" for name in VERDICTS))
    counted = count(iter(verdicts))
    for kind in sorted(counted, key=lambda kind: (kind[0], int(kind[1:]))):
        print(f"{kind:5}" + "".join(f"{counted[kind][name]:>9}" for name in VERDICTS))
    print(f"{'all':5}" + "".join(f"{sum(of[name] for of in counted.values()):>9}" for name in VERDICTS))


if __name__ == "__main__":
    main()
