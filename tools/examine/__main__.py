"""Try the inputs and print how many of each kind came out right, told, refused clearly, refused unclearly, or wrong.

python -m tools.examine                          # all samples, policy trusted
python -m tools.examine --kind A3 A4 --policy standard --show
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.examine.case import CASES, Case, Input, matches

KINDS = [f"A{number}" for number in range(1, 12)]
LETTERS = {
    "r": "right",
    "t": "right and told",
    "c": "refused in one clear line",
    "u": "refused unclearly",
    "w": "wrong or silent",
}
# What a node says that keeps something to itself, or answers nothing.
WITHHELD = (
    r"withh|not told|policy|V6_ALGORITHM_|(this|its) node|node's (rules|least|smallest)|may not|fewer than \d+ rows"
)
# Notes of every run under these policies, which are about no table.
ALWAYS = ("rule against differences", "neighbouring score bins", "binned, within", "measures models at the end")


@dataclass(frozen=True)
class Verdict:
    """A letter of `LETTERS`, what lacks, and what was said."""

    letter: str
    lacks: str
    said: str


def run_input(given: Input, folder: Path, policy: str) -> dict[str, Any]:
    """Run an input as `v6-algorithm run --policy` does; raises what that explains."""
    from v6_algorithm.coordinator.master import run
    from v6_algorithm.engines.simulation.simulate import local_federation, own_policy, tables_of
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.python.sites import tables_of_sites

    if isinstance(given.experiment, str):
        file = folder / "experiment.yaml"
        file.write_text(given.experiment)
        experiment = Experiment.load(file)
    else:
        experiment = Experiment.parse(dict(given.experiment))
    tables = tables_of(experiment, folder) if given.sites is None else tables_of_sites(given.sites, experiment)
    rules = own_policy(policy)
    if policy == "strict":
        rules = replace(rules, approved_experiments=None)
    federation = local_federation(experiment, tables, rules, way="fast")
    try:
        return run(federation, experiment)
    finally:
        federation.close()


def judge(one: Case, policy: str = "trusted") -> Verdict:
    """Try one input."""
    from v6_algorithm.errors import V6AlgorithmError

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = one.make(folder)
        expected = given.expected
        try:
            result = run_input(given, folder, policy)
        except V6AlgorithmError as error:
            said = str(error)
            lacks = ["a result"] if expected.refused is None else matches(expected.refused, said)
            if lacks and policy != "trusted" and re.search(WITHHELD, said):
                lacks = []
            return Verdict("u" if lacks else "c", ", ".join(lacks), said)
        except Exception:  # a traceback is what the examiner looks for
            return Verdict("u", "an explained error", traceback.format_exc(limit=-2))
        said = "\n".join(result["notes"])
        lacks = [] if expected.told is None else matches(expected.told, said)
        about_rows = [line for line in result["notes"] if not any(phrase in line for phrase in ALWAYS)]
        withheld = policy != "trusted" and re.search(WITHHELD, "\n".join(about_rows)) is not None
        if withheld:
            lacks = []
        looked_at = policy == "trusted" or not (expected.seeded or withheld)
        if expected.told is None and expected.right is None:
            lacks.append(f"a refusal with {', '.join(expected.refused or ())}")
        elif expected.right is not None and looked_at and not expected.right(result):
            lacks.append("the right numbers")
        return Verdict("w" if lacks else "r" if expected.told is None else "t", ", ".join(lacks), said)


def main() -> None:
    """Try what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tools.examine", description=__doc__.splitlines()[0])
    parser.add_argument("--sample", nargs="*", default=["first", "second", "third", "fourth", "fifth"])
    parser.add_argument("--kind", nargs="*", default=KINDS)
    parser.add_argument("--name", default="", help="part of an input's name")
    parser.add_argument("--policy", default="trusted", choices=["trusted", "standard", "strict"])
    parser.add_argument("--show", action="store_true", help="print what was said of each input, not of u and w only")
    asked = parser.parse_args()
    os.environ.pop("V6_ALGORITHM_POLICY", None)
    import tools.examine.samples  # noqa: F401  registers the inputs

    counts: dict[str, Counter[str]] = {kind: Counter() for kind in asked.kind}
    for one in CASES:
        if one.sample not in asked.sample or one.kind not in asked.kind or asked.name not in one.name:
            continue
        verdict = judge(one, asked.policy)
        counts[one.kind][verdict.letter] += 1
        print(
            f"{one.kind:4}{verdict.letter}  {one.name}" + (f"   lacks: {verdict.lacks}" if verdict.lacks else ""),
            flush=True,
        )
        if asked.show or verdict.letter in "uw":
            print("        " + verdict.said.replace("\n", "\n        "))
    print("\n" + "kind".ljust(6) + "".join(letter.rjust(5) for letter in LETTERS))
    for kind, found in counts.items():
        print(kind.ljust(6) + "".join(str(found[letter]).rjust(5) for letter in LETTERS))
    total: Counter[str] = sum(counts.values(), Counter())
    print("all".ljust(6) + "".join(str(total[letter]).rjust(5) for letter in LETTERS))
    print("; ".join(f"{letter} {text}" for letter, text in LETTERS.items()))


if __name__ == "__main__":
    main()
