"""Images in columns and volumes in files: test accuracy and seconds of networks, and the memory of a site.

    python benchmarks/images.py                 # a quarter of an hour on two cores, 0.7 GB of disk
    python benchmarks/images.py digits          # or mnist, or volumes

`digits` are scikit-learn's 1,797 of 8 x 8 pixels. `mnist` is a table of MNIST's shape, 10,000 rows of 28 x 28 pixels,
and not MNIST: the same digits made larger, turned, moved and with noise, by a seed. Each network trains 2 rounds of
5 epochs at 3 sites of a quarter each, and is tested on the last quarter, which is made of other people's digits:
the CNN as torch-vantage6 trains it (SGD 0.01, momentum 0.5, batches of 64) and with Adam 0.001, which so few steps
need; the MLP as PyFed does (Adam 0.0003, 32).

`volumes` are noise of the shape of a VBM map, 121 x 145 x 121 float32, of which half have a brighter region. The peak
is that of a process that reads, trains and tests at one site, with the pages of the mapped file that it touched.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import table, train

from v6_algorithm.data.builtin import load_builtin
from v6_algorithm.data.sources import TableSource

NETWORKS: dict[str, dict[str, Any]] = {
    "MNIST CNN": {
        "model": "mnist_cnn",
        "training": {"local_epochs": 5, "batch_size": 64, "optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.5}},
    },
    "MNIST CNN, Adam": {
        "model": "mnist_cnn",
        "training": {"local_epochs": 5, "batch_size": 64, "optimizer": {"kind": "adam", "lr": 0.001}},
    },
    "PyFed's MLP": {
        "model": {"kind": "mlp", "hidden": [500, 1000, 2000, 1000, 500], "norm": "none"},
        "training": {"local_epochs": 5, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 0.0003}},
    },
}
VOLUME = (121, 145, 121)


def digits() -> tuple[pd.DataFrame, int]:
    """Return scikit-learn's digits, shuffled, and the length of an image's side."""
    return load_builtin("digits").sample(frac=1, random_state=0, ignore_index=True), 8


def mnist(rows: int = 10_000) -> tuple[pd.DataFrame, int]:
    """Return a table of MNIST's shape whose last quarter is made of other digits than the rest."""
    from scipy import ndimage

    frame, _ = digits()
    generator = np.random.default_rng(0)
    small = frame.drop(columns="target").to_numpy().reshape(-1, 8, 8) * (255 / 16)
    known, cut = 3 * rows // 4, 3 * len(frame) // 4
    chosen = np.concatenate([generator.integers(0, cut, known), generator.integers(cut, len(frame), rows - known)])
    images = np.zeros((rows, 28, 28))
    for row, number in enumerate(chosen):
        large = ndimage.rotate(
            ndimage.zoom(small[number], 2.5, order=1), generator.uniform(-15, 15), reshape=False, order=1
        )
        down, right = generator.integers(1, 8, 2)
        images[row, down : down + 20, right : right + 20] = large
    images = np.clip(images + generator.normal(0, 10, images.shape), 0, 255).round().astype(np.uint8)
    made = pd.DataFrame(images.reshape(rows, -1)).rename(columns=lambda pixel: f"pixel{pixel}")
    return made.assign(target=frame["target"].to_numpy()[chosen]), 28


def quarters(frame: pd.DataFrame) -> dict[str, TableSource]:
    """Give three sites a quarter each to train on, and a third each of the last quarter to test on."""
    train, test = np.split(np.arange(len(frame)), [3 * len(frame) // 4])
    sites = {}
    for number, (own, held) in enumerate(zip(np.array_split(train, 3), np.array_split(test, 3), strict=True), 1):
        part = ["train"] * len(own) + ["test"] * len(held)
        sites[f"site{number}"] = TableSource(frame=frame.iloc[[*own, *held]].assign(part=part).reset_index(drop=True))
    return sites


def compare(frame: pd.DataFrame, side: int, name: str, networks: Sequence[str]) -> list[list[Any]]:
    """Train networks on the pixels of a table."""
    rows = []
    for network in networks:
        content = NETWORKS[network]
        start = time.perf_counter()
        result = train(
            {
                "data": {"target": "target", "image": {"shape": [1, side, side]}, "split_column": "part"},
                "problem": "image_classification",
                "split": "given",
                "rounds": 2,
                "stopping": {"patience": None},
                "output": {"model": "last"},
                **content,
            },
            quarters(frame),
        )
        test = result["metrics"]["test"]["pooled"]
        rows.append([name, network, test["n"], f"{test['accuracy']:.4f}", f"{time.perf_counter() - start:.0f} s"])
        print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
    return rows


def volumes(batch_size: int, number: int) -> list[Any]:
    """Train VBMNet at one site, in a process of its own, for one round."""
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        for row in range(number):
            volume = generator.random(VOLUME, dtype=np.float32)
            volume[40:60, 50:80, 40:60] += 0.5 * (row % 2)
            np.save(Path(folder, f"{row}.npy"), volume)
        frame = pd.DataFrame({"file": [f"{row}.npy" for row in range(number)], "label": np.arange(number) % 2})
        frame.to_csv(Path(folder, "volumes.csv"), index=False)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "site", "--folder", folder, "--batch-size", str(batch_size)],
            check=True,
            capture_output=True,
            text=True,
        )
        return [number, batch_size, f"{float(done.stdout):.2f} GB", f"{time.perf_counter() - start:.0f} s"]


def site(folder: str, batch_size: int) -> float:
    """Be that process; return its peak resident memory in GB."""
    train(
        {
            "data": {"target": "label", "image": {"column": "file", "threshold": 0.05}},
            "problem": "volume_classification",
            "model": "vbmnet",
            "rounds": 1,
            "participation": {"minimum": 1},
            "training": {"batch_size": batch_size},
        },
        {"hospital": TableSource(str(Path(folder, "volumes.csv")))},
    )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="*", help="digits, mnist, volumes; all if none is named")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="all if none is named")
    parser.add_argument("--folder")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--volumes", type=int, default=40)
    options = parser.parse_args()
    if options.what == ["site"]:
        print(site(options.folder, options.batch_size))
        return
    what = options.what or ["digits", "mnist", "volumes"]
    rows = [
        row
        for name, make in (("digits", digits), ("mnist", mnist))
        if name in what
        for row in compare(*make(), name, options.network or list(NETWORKS))
    ]
    if rows:
        print(table(["table", "network", "test rows", "test accuracy", "time"], rows), flush=True)
    if "volumes" in what:
        rows = [volumes(size, options.volumes) for size in (4, options.batch_size)]
        print(table(["volumes", "batch", "peak memory", "time"], rows))


if __name__ == "__main__":
    main()
