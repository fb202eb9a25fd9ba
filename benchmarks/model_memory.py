"""What a simulated run needs in memory, in multiples of the model, phase by phase, and what a loop by hand needs.

    python benchmarks/model_memory.py                                     10 and 50 million parameters, plain SGD
    python benchmarks/model_memory.py --millions 10 --optimizer adam      its two moments are two models more
    python benchmarks/model_memory.py --keep best                         keeps the best round's model beside the newest

Four sites of 64 rows x 100 columns train an MLP of float32, four rounds, `v6-algorithm run` from the command to the
files, checkpoints among them. Each run is a process of its own with one thread. A phase's peak is the largest resident
size in it (VmHWM of /proc, begun anew at each event) less the peak of the same run with 0.1 million parameters, which
is what libraries and data take; the loop is `growth.py`'s, less its own with 0.1 million.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import table
from growth import experiment, measure_loop

SMALL = 100_000
OPTIMISERS = {
    "sgd": {"kind": "sgd", "lr": 0.01},
    "momentum": {"kind": "sgd", "lr": 0.01, "momentum": 0.9},
    "adam": {"kind": "adam", "lr": 0.001},
}
PHASES = ("preparation", "round 1", "later rounds", "evaluation", "result and files")


def peak_mb() -> float:
    """Return the largest resident size since this was asked last, in MB of 10^6 bytes."""
    with open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    with open("/proc/self/clear_refs", "w") as begin_anew:
        begin_anew.write("5")
    return kilobytes * 1024 / 1e6


def measure(size: int, optimizer: str, keep: str, options: list[str]) -> dict[str, float]:
    """Run once in this process; return each phase's peak."""
    import torch
    import yaml

    from v6_algorithm.coordinator import master
    from v6_algorithm.researcher.cli import main

    torch.set_num_threads(1)
    peaks = dict.fromkeys(PHASES, 0.0)
    run = master.run
    rounds = 0

    def watched(federation: Any, asked: Any, on_event: Any = None, **more: Any) -> Any:
        def listen(event: dict[str, Any]) -> None:
            nonlocal rounds
            on_event(event)
            if event["event"] == "prepared":
                phase = "preparation"
            elif event["event"] == "round":
                rounds += 1
                # The last event of a round is the final evaluation's.
                phase = ["round 1", "later rounds", "evaluation"][min(rounds - 1, 1) + (rounds > asked.rounds)]
            else:
                return
            peaks[phase] = max(peaks[phase], peak_mb())

        return run(federation, asked, listen, **more)

    master.run = watched
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = experiment("parameters", size, folder)
        content["training"]["optimizer"] = OPTIMISERS[optimizer]
        content["output"] = {"model": keep}
        (folder / "experiment.yaml").write_text(yaml.safe_dump(content))
        sys.argv = [
            "v6-algorithm",
            "run",
            str(folder / "experiment.yaml"),
            "--out",
            str(folder / "run"),
            "-q",
            *options,
        ]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
    peaks["result and files"] = peak_mb()
    return peaks


def of_process(*asked: str) -> dict[str, float]:
    """Measure in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", *asked], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{asked} failed:\n{done.stderr[-2000:]}")
    peaks: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return peaks


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", nargs="*", type=float, default=[10, 50], help="parameters of the models")
    parser.add_argument("--optimizer", choices=OPTIMISERS, default="sgd")
    parser.add_argument("--keep", choices=("last", "best"), default="last", help="output.model")
    parser.add_argument("--exact", action="store_true", help="v6-algorithm run --exact")
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        who, size, *rest = given.one
        if who == "loop":
            measure_loop(int(size))
            print(json.dumps({"loop": peak_mb()}))
        else:
            print(json.dumps(measure(int(size), rest[0], rest[1], rest[2:])))
        return
    options = ["--exact"] if given.exact else []
    small: dict[str, float] = {}
    rows = []
    for size in (SMALL, *(round(millions * 1e6) for millions in given.millions)):
        peaks = of_process("ours", str(size), given.optimizer, given.keep, *options)
        if given.optimizer == "sgd":
            peaks |= of_process("loop", str(size))
        small = small or peaks
        if size != SMALL:
            model_mb = size * 4 / 1e6
            alone = max(small[phase] for phase in PHASES)
            least = {phase: small["loop"] if phase == "loop" else alone for phase in peaks}
            rows.append([f"{size:,}", *(f"{(mb - least[phase]) / model_mb:.2f}" for phase, mb in peaks.items())])
            rows[-1].append(f"{max(peaks[phase] for phase in PHASES):.0f}")
    loop = ["the loop"] if given.optimizer == "sgd" else []
    print(table(["parameters", *PHASES, *loop, "peak, MB"], rows))


if __name__ == "__main__":
    main()
