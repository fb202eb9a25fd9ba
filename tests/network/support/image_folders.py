"""Three hospitals that keep their images in three ways, for networks of nodes; and the same run here, to compare."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from v6config import Site

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource, source_in
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.policy import ALLOWED_COLUMNS

PIXELS, IMAGES = 24, 40
# Of site b; its place in the table, from 1, is what may be told of it.
CUT_SHORT = 11
FILES = "{label}/{patient}_*.png"
DATABASES = ("default", "images")
EXPERIMENT: dict[str, Any] = {
    "name": "folders",
    "data": {"target": "label", "group": "patient", "image": {"files": FILES, "tolerance": 0.1}},
    "problem": "image_classification",
    "model": {"kind": "cnn", "widths": [4]},
    "rounds": 2,
    "training": {"batch_size": 8, "optimizer": {"kind": "adam", "lr": 0.01}},
    "participation": {"minimum": 3, "deadline_s": 300},
}


def write_sites(folder: Path) -> dict[str, Site]:
    """Write PNG files: a has a table beside its folder, b a table in it, c names its images by class.

    Each has what it has in the databases `default` and `images`, so that one task is for all of them.
    """
    for seed, name in enumerate("abc"):
        rows = _write_images(folder / name, seed)
        if name == "c":
            continue
        table = folder / "a.csv" if name == "a" else folder / "b" / "table.csv"
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file", "label", "patient"])
            writer.writeheader()
            writer.writerows(rows)
        if name == "b":
            cut = folder / "b" / rows[CUT_SHORT - 1]["file"]
            cut.write_bytes(cut.read_bytes()[:-60])
    allowed = {ALLOWED_COLUMNS: r"file|label|patient|\{label\}/\{patient\}_\*\.png"}
    return {
        "a": Site({"default": folder / "a.csv", "images": folder / "a"}),
        "b": Site({"images": folder / "b"}),
        "c": Site({"images": folder / "c"}, allowed),
    }


def _write_images(folder: Path, seed: int) -> list[dict[str, str]]:
    from PIL import Image

    generator, rows = np.random.default_rng(seed), []
    for number in range(IMAGES):
        label = ("benign", "melanoma")[number % 2]
        values = generator.integers(0, 120, (PIXELS, PIXELS), dtype=np.uint8)
        values[8:16, 8:16] += np.uint8(80 * (number % 2))
        path = f"{label}/p{number // 4}_{number}.png"
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / path)
        rows.append({"file": path, "label": label, "patient": f"p{number // 4}"})
    return rows


def train_folders_here(sites: dict[str, Site]) -> dict[str, Any]:
    """Run the experiment over the same folders with the local engine."""
    experiment = Experiment.parse(EXPERIMENT)
    folders = {name: Path(site.databases["images"]) for name, site in sites.items()}
    sources = {
        "a": TableSource(str(sites["a"].databases["default"]), base=folders["a"]),
        "b": source_in(folders["b"]),
        "c": source_in(folders["c"], (FILES, "file")),
    }
    return run(local_federation(experiment, sources), experiment)
