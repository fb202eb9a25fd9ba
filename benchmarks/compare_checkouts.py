"""Two checkouts of this project on every experiment of mock/: same numbers, bit for bit, and at what cost.

    python benchmarks/compare_checkouts.py ../before . --turns 3 --out comparison
    python benchmarks/compare_checkouts.py ../before . --turns 1 --exact    # where a checkout knows --exact

Runs `v6-algorithm run` of each experiment from each checkout in turns, in processes of their own, and compares the two
`result.json` key by key but for times and versions, and the models' tensors byte by byte. Prints CPU and wall time as
ratios of the medians. The images and gene tables of mock/ are made once, small, in the folder `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

EXPERIMENTS = ("breast_cancer", "digits", "heart", "sequences", "survival", "lesions", "lesions_gan", "gtex")
# What may differ between two runs of the same code.
_MEASURED = {"timing", "software", "seconds", "devices"}
_LESS_WORK = {
    "lesions": ["--set", "rounds=3"],
    "lesions_gan": ["--set", "rounds=2"],
    "gtex": ["--set", "rounds=2"],
}


def prepare(folder: Path, checkout: Path) -> None:
    """Copy mock/ of the second checkout and make the data that its experiments name."""
    shutil.copytree(checkout / "mock", folder, dirs_exist_ok=True)
    make = {
        "lesions": ["make_lesions.py", str(folder / "lesions"), "--images", "300", "--size", "64"],
        "lesions_32": ["make_lesions.py", str(folder / "lesions_32"), "--images", "300", "--size", "32"],
        "gtex": ["make_gtex.py", str(folder / "gtex"), "--rows", "600", "--genes", "400"],
    }
    hearts = Path(os.environ.get("V6_ALGORITHM_DATA", checkout.parent / "shared" / "data")) / "heart_disease"
    if hearts.is_dir():
        shutil.copytree(hearts, folder / "heart", dirs_exist_ok=True)
    for name, command in make.items():
        if not (folder / name).exists():
            done = subprocess.run([sys.executable, folder / command[0], *command[1:]], capture_output=True, text=True)
            if done.returncode:
                print(f"{command[0]}: {done.stderr.strip().splitlines()[-1]}")
    table = folder / "gtex" / "table.parquet"
    if not table.exists():
        files = [folder / "gtex" / "samples.parquet", folder / "gtex" / "expressions.parquet", table]
        subprocess.run([sys.executable, folder / "gtex_table.py", *files, "--log2"], check=True, capture_output=True)


def run(
    checkout: Path, experiment: Path, out: Path, *, exact: bool = False
) -> tuple[dict[str, Any] | None, float, float]:
    """Return the result (None where the run failed), CPU seconds and wall seconds."""
    shutil.rmtree(out, ignore_errors=True)
    arguments = ["run", str(experiment), "--out", str(out), *_LESS_WORK.get(experiment.stem, [])]
    knows = any((checkout / "v6_algorithm" / "site").glob("together*"))
    arguments += ["--exact"] if exact and knows else []
    wing = "researcher." if (checkout / "v6_algorithm" / "researcher").is_dir() else ""
    code = f"import sys; from v6_algorithm.{wing}cli import main; sys.argv[0] = 'v6-algorithm'; main()"
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode:
        print(f"{experiment.stem} in {checkout.name}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
        return None, cpu, wall
    return json.loads((out / "result.json").read_text()), cpu, wall


def tensors(packed: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return the tensors of a packed model; its header also says what an experiment's keys were, which may be more."""
    import base64

    from safetensors.numpy import load

    arrays = load(base64.b64decode(packed))
    return {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items()}


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Return the keys at which two results differ, those of the second that the first lacks left out."""
    if isinstance(first, dict) and isinstance(second, dict):
        found = []
        for key in first:
            if key == "parameters" and isinstance(first[key], str) and isinstance(second.get(key), str):
                found += [] if tensors(first[key]) == tensors(second[key]) else ["parameters"]
            elif key not in _MEASURED:
                where = f"{path}.{key}".lstrip(".")
                found += differences(first[key], second[key], where) if key in second else [f"{where} is gone"]
        return found
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [
            text
            for i, pair in enumerate(zip(first, second, strict=True))
            for text in differences(*pair, f"{path}[{i}]")
        ]
    return [] if first == second or (first != first and second != second) else [path]


def main() -> None:
    """Compare and print a line for each experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    parser.add_argument("--only", nargs="*", default=list(EXPERIMENTS))
    parser.add_argument("--exact", action="store_true", help="train sites one after another, as on nodes")
    options = parser.parse_args()
    folder = options.out.resolve()
    checkouts = [options.before.resolve(), options.after.resolve()]
    prepare(folder, checkouts[1])
    print(f"{'experiment':16}{'same numbers':>14}{'CPU':>8}{'wall':>8}   (after / before, medians of {options.turns})")
    for name in options.only:
        times: list[list[tuple[float, float]]] = [[], []]
        results: list[Any] = [None, None]
        for _ in range(options.turns):
            for i, checkout in enumerate(checkouts):
                place = folder / "runs" / f"{name}-{i}"
                results[i], *seconds = run(checkout, folder / f"{name}.yaml", place, exact=options.exact)
                times[i].append((seconds[0], seconds[1]))
        if None in results:
            print(f"{name:16}{'failed':>14}")
            continue
        cpu, wall = (
            statistics.median(each[kind] for each in times[1]) / statistics.median(each[kind] for each in times[0])
            for kind in (0, 1)
        )
        found = differences(*results)
        print(f"{name:16}{'yes' if not found else 'no':>14}{cpu:8.2f}{wall:8.2f}   {', '.join(found[:6])}", flush=True)


if __name__ == "__main__":
    main()
