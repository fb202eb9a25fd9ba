"""A generator learned at three hospitals: its FID by round, and what a classifier learns from its images alone.

    python benchmarks/gan.py                    # a quarter of an hour on two cores
    python benchmarks/gan.py --rounds 2 --images 1400 --classifier-rounds 2 --seeds 1      # whether it runs

The experiment is `mock/lesions_gan.yaml`, on synthetic lesions of 32 pixels. A quarter of the patients is kept apart
from the generator, and tests the classifiers: one that real images of the other patients train, at the three hospitals;
one that only made images train, as many and with the same share of melanomas; and one that both train. Made images are
a site of their own, a folder as `v6-algorithm generate` writes it. Each looks at grey and at colour images: a generator
gives its classes hues that they do not have in nature, and what learns from colour learns those.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import table, train

from v6_algorithm.data.sources import TableSource
from v6_algorithm.experiment.reading import read_file
from v6_algorithm.researcher.generate import read_generator, write_images
from v6_algorithm.researcher.report import write_artifacts

MOCK = Path(__file__).resolve().parents[1] / "mock"
sys.path.insert(0, str(MOCK))
make_lesions = import_module("make_lesions")
HOSPITALS = ("one", "two", "three")
SHOWN = 8
LOOKS = {"grey": 1, "colour": 3}


def patients(folder: Path, images: int) -> dict[str, TableSource]:
    """Make lesions; return a quarter of the patients as site ``tested``, and a quarter each as the hospitals."""
    make_lesions.make(folder, images, size=32)
    frame = pd.read_csv(folder / "lesions.csv")
    people = np.random.default_rng(0).permutation(frame["patient"].unique())
    quarters = zip(("tested", *HOSPITALS), np.array_split(people, 4), strict=True)
    return {
        name: TableSource(frame=frame[frame["patient"].isin(own)].reset_index(drop=True), base=folder)
        for name, own in quarters
    }


def learn_generator(sites: dict[str, TableSource], rounds: int | None) -> dict[str, Any]:
    """Train the generator at the hospitals."""
    content = read_file(MOCK / "lesions_gan.yaml", []) | ({"rounds": rounds} if rounds else {})
    content.pop("sites")
    return train(content, {name: sites[name] for name in HOSPITALS})


def classify(sites: dict[str, TableSource], trained: list[str], channels: int, rounds: int, seed: int) -> float:
    """Train a classifier at some of the sites; return its AUROC on the patients who were kept apart."""
    chosen = {}
    for name in [*trained, "tested"]:
        frame = sites[name].read()
        chosen[name] = TableSource(
            frame=frame.assign(part="test" if name == "tested" else "train"), base=sites[name].folder
        )
    data = {"target": "label", "positive": "== melanoma", "image": {"column": "file", "channels": channels}}
    result = train(
        {
            "data": data | {"split_column": "part"} | ({"synthetic": "synthetic"} if "made" in trained else {}),
            "seed": seed,
            "problem": "image_classification",
            "model": {"kind": "cnn", "widths": [16, 32, 64]},
            "split": "given",
            "rounds": rounds,
            "training": {
                "batch_size": 32,
                "optimizer": {"kind": "adam", "lr": 0.002},
                "augmentation": ["flip", {"kind": "rotation", "degrees": 180}, "color"],
                "loss": {"kind": "cross_entropy", "class_weights": "balanced"},
            },
            "participation": {"minimum": 1},
            "stopping": {"patience": None},
        },
        chosen,
    )
    return float(result["metrics"]["test"]["pooled"]["auroc"])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, help="of the generator; those of the experiment if not given")
    parser.add_argument("--classifier-rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3, help="classifiers of which the mean AUROC is told")
    parser.add_argument("--out", type=Path, help="where the generator's report and model are kept")
    options = parser.parse_args()
    # Small networks: another thread hardly helps, and figures would depend on the number of cores.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sites = patients(Path(folder, "lesions"), options.images)
        start = time.perf_counter()
        result = learn_generator(sites, options.rounds)
        seconds = time.perf_counter() - start
        run = options.out or Path(folder, "run")
        write_artifacts(result, run)
        history = result["history"]
        rows = [
            [history["round"][at], f"{history['validation_fid'][at]:.2f}", f"{history['validation_kid'][at]:.4f}"]
            for at in sorted({round(at) for at in np.linspace(0, len(history["round"]) - 1, SHOWN)})
        ]
        print(table(["round", "FID", "KID"], rows))
        print(f"\nbest round {result['best_round']}; {seconds:.0f} s\n", flush=True)
        maker, made = read_generator(run), Path(folder, "made")
        made.mkdir()
        number = sum(len(sites[name].read()) for name in HOSPITALS)
        sites["made"] = TableSource(str(write_images(maker, maker.labels(None, number), 0, made)))
        rows = []
        for what, trained in {
            "real images": list(HOSPITALS),
            "made images": ["made"],
            "both": [*HOSPITALS, "made"],
        }.items():
            rows.append([what])
            for channels in LOOKS.values():
                seeds = range(options.seeds)
                found = [classify(sites, trained, channels, options.classifier_rounds, seed) for seed in seeds]
                rows[-1].append(f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})")
            print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
        print(table([f"trained on ({number} each)", *(f"test AUROC, {look}" for look in LOOKS)], rows))


if __name__ == "__main__":
    main()
