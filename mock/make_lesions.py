"""Synthetic skin lesions: PNG files, and `lesions.csv` with their labels, patients, skin types and scanners.

    python mock/make_lesions.py mock/lesions --images 1200 --size 64
    python mock/make_lesions.py mock/skewed --artefact ruler=0.1 --artefact ruler:melanoma=0.6

Dermatoscopic images cannot be shipped; these have what makes them hard, and no patient. A melanoma's outline is more
irregular, its border sharper and its colours more varied than a benign lesion's, all by degrees that overlap, while
sizes and mean colours do not tell them apart. Patients have several lesions on skin of one colour, seen by one
scanner; hairs, rulers and dark frames lie over them as often as --artefact says. Numbers are drawn from --seed alone.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("benign", "melanoma")
ARTEFACTS = ("hair", "ruler", "frame")
# Fitzpatrick's types I to VI, about as often as dermatologists of northern Europe see them.
SKIN = np.array([[236, 200, 180], [225, 184, 157], [205, 160, 128], [176, 128, 95], [132, 90, 64], [92, 62, 46]]) / 255
SKIN_SHARES = (0.15, 0.35, 0.25, 0.13, 0.08, 0.04)
# What a melanoma's colour varies between, as factors of the skin's: brown, black, blue-grey, red and pale.
PIGMENTS = np.array(
    [[0.62, 0.50, 0.42], [0.25, 0.22, 0.22], [0.50, 0.56, 0.68], [0.85, 0.50, 0.45], [0.90, 0.85, 0.80]]
)
COLUMNS = ("file", "label", "patient", "sex", "age", "skin_type", "scanner", *ARTEFACTS, "duplicate_of")


@dataclass(frozen=True)
class Rule:
    """How often an artefact is seen: in all images, or where the words (a class, a scanner) are those of the image."""

    artefact: str
    words: tuple[str, ...]
    probability: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``ruler=0.2``, ``ruler:melanoma=0.6`` or ``frame:scanner-1:benign=1``; raises ValueError."""
        name, _, number = text.partition("=")
        artefact, *words = name.split(":")
        if artefact not in ARTEFACTS or not number or not 0 <= float(number) <= 1:
            raise ValueError(f"{text!r}: must be like ruler:melanoma=0.6, of {', '.join(ARTEFACTS)} and 0 to 1")
        return cls(artefact, tuple(words), float(number))


DEFAULT_RULES = tuple(Rule.parse(text) for text in ("hair=0.3", "ruler=0.15", "frame=0.1"))


@dataclass(frozen=True)
class Scanner:
    """How a scanner sees: factors of contrast and brightness, and channels that leak into each other."""

    contrast: float
    brightness: float
    mixing: np.ndarray

    @classmethod
    def draw(cls, number: int, shift: float, generator: np.random.Generator) -> Scanner:
        """Draw a scanner; the first is neutral, and `shift` is how far the others are from it."""
        contrast, brightness, hue = generator.uniform(-1, 1, 3) * shift * bool(number)
        angle = 0.35 * hue
        # A turn around the grey axis: Rodrigues' formula.
        axis = np.full(3, 3**-0.5)
        cross = np.cross(np.eye(3), axis)
        turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
        return cls(1 + 0.35 * contrast, 1 + 0.3 * brightness, turn)

    def see(self, image: np.ndarray) -> np.ndarray:
        """Return (size, size, 3) values as this scanner has them."""
        image = image @ self.mixing.T * self.brightness
        return 0.5 + self.contrast * (image - 0.5)


def lesion(size: int, melanoma: bool, skin: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw one lesion on skin: (size, size, 3) values, about 0 to 1."""
    # How malignant it looks, on which all signs depend, and each sign a little by itself.
    looks = np.clip(generator.normal(0.72 if melanoma else 0.28, 0.15), 0, 1)
    irregular, sharp, varied = np.clip(looks + generator.normal(0, 0.12, 3), 0, 1)
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    x0, y0 = generator.uniform(-0.15, 0.15, 2)
    angle, radius = np.arctan2(y - y0, x - x0), np.hypot(x - x0, y - y0)
    outline = np.ones_like(angle)
    for wave in range(2, 10):
        height = generator.normal(0, (0.01 + 0.2 * irregular**1.5) / wave**0.6)
        outline += height * np.cos(wave * angle + generator.uniform(0, 2 * np.pi))
    edge = generator.uniform(0.32, 0.6) * np.clip(outline, 0.25, None)
    inside = 1 / (1 + np.exp(np.clip((radius - edge) / (0.1 - 0.08 * sharp), -30, 30)))
    # Pigments lie in clouds; a benign lesion is nearly of one brown.
    clouds = np.stack([_clouds(size, 4, generator) for _ in PIGMENTS]) * 3
    clouds[0] += 9 * (1 - varied)
    shares = np.exp(clouds) / np.exp(clouds).sum(axis=0)
    # Its darkness varies as much from lesion to lesion as between the classes, so that the mean does not tell.
    pigment = np.clip(np.tensordot(shares, PIGMENTS, axes=(0, 0)) + generator.normal(0, 0.1), 0.08, 1)
    texture = 1 + 0.05 * _clouds(size, 6, generator) + 0.03 * _clouds(size, size // 2, generator)
    cover = inside[..., None] * generator.uniform(0.6, 1)
    return skin * texture[..., None] * (1 - cover + cover * pigment)


def with_hair(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lay 5 to 12 curved dark hairs over it."""

    def draw(pen: ImageDraw.ImageDraw, size: int) -> None:
        for _ in range(generator.integers(5, 13)):
            start, bend, end = generator.uniform(-0.1, 1.1, (3, 2)) * size
            way = np.linspace(0, 1, 16)[:, None]
            points = (1 - way) ** 2 * start + 2 * way * (1 - way) * (start + end + bend) / 3 + way**2 * end
            pen.line([tuple(point) for point in points], fill=255, width=max(size // 90, 1))

    return _painted(image, draw, [0.12, 0.08, 0.06], 0.85)


def with_ruler(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Lay a ruler's ticks along one of its edges."""
    step, offset, side = generator.uniform(0.04, 0.07), generator.uniform(0, 0.05), generator.integers(4)

    def draw(pen: ImageDraw.ImageDraw, size: int) -> None:
        for number, place in enumerate(np.arange(offset, 1, step)):
            length = 0.13 if number % 5 == 0 else 0.07
            pen.line([(place * size, size), (place * size, size * (1 - length))], fill=255, width=max(size // 80, 1))

    turned = np.rot90(image, side)
    return np.rot90(_painted(turned, draw, [0.1, 0.1, 0.12], 0.9), -side)


def with_frame(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Leave a round window and make the corners black, as a dermatoscope's tube does."""
    size = len(image)
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    seen = 1 / (1 + np.exp(np.clip((np.hypot(x, y) - generator.uniform(0.92, 1.08)) * 40, -30, 30)))
    return image * seen[..., None]


_ADD = {"hair": with_hair, "ruler": with_ruler, "frame": with_frame}


def patients(images: int, scanners: int, melanoma: float, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Return a row for each image, in the order of their files: what is known of its patient, and its label."""
    rows: list[dict[str, Any]] = []
    for number in generator.permutation(10 * images)[:images]:
        # Most patients come once, some with many lesions; one patient's lesions are more alike in kind.
        risk = generator.beta(melanoma * 2, (1 - melanoma) * 2)
        about = {
            "patient": f"IP_{number:07d}",
            "sex": str(generator.choice(["female", "male"])),
            "age": int(np.clip(generator.normal(50 + 8 * risk, 15), 15, 90)),
            "skin_type": int(generator.choice(6, p=SKIN_SHARES)) + 1,
            "scanner": f"scanner-{generator.integers(scanners)}",
        }
        for _ in range(min(generator.geometric(0.4), 8)):
            rows.append({"label": CLASSES[int(generator.random() < risk)], **about})
        if len(rows) >= images:
            break
    return [rows[place] for place in generator.permutation(images)]


def make(
    folder: Path,
    images: int,
    *,
    size: int = 64,
    seed: int = 0,
    melanoma: float = 0.35,
    scanners: int = 3,
    shift: float = 0.6,
    rules: Sequence[Rule] = (),
    duplicates: float = 0.0,
) -> list[dict[str, Any]]:
    """Write the images and `lesions.csv`; return its rows.

    Parameters
    ----------
    folder
        Where to.
    images
        How many, duplicates not counted.
    size
        Their width and height in pixels.
    seed
        What all numbers are drawn from. An image depends on it, its number, its label and its patient only: other
        rules lay other artefacts over the same lesions.
    melanoma
        Share of melanomas among the images.
    scanners, shift
        Number of scanners, and how far apart their brightness, contrast and hue are; 0: not at all.
    rules
        How often artefacts are seen, after the default ones; of those that fit an image the last one holds.
    duplicates
        Share of images of which there is a second photograph, of the same patient, named in `duplicate_of`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([seed, 0])
    devices = [Scanner.draw(number, shift, np.random.default_rng([seed, 1, number])) for number in range(scanners)]
    rows = patients(images, scanners, melanoma, generator)
    again = np.flatnonzero(generator.random(images) < duplicates)
    written = []
    for number, row in enumerate(rows):
        own = np.random.default_rng([seed, 2, number])
        # A patient's skin is of one colour, whichever lesion it is around.
        tone = np.random.default_rng([seed, 3, int(row["patient"][3:])]).normal(0, 0.03, 3)
        clean = lesion(size, row["label"] == "melanoma", SKIN[row["skin_type"] - 1] + tone, own)
        device = devices[int(row["scanner"].rpartition("-")[2])]
        name = f"lesion-{number:06d}.png"
        chance = {artefact: _chance(artefact, row, [*DEFAULT_RULES, *rules]) for artefact in ARTEFACTS}
        for copy in [name, f"lesion-{images + number:06d}.png"][: 1 + (number in again)]:
            image = clean if copy == name else np.roll(clean, own.integers(-size // 32, size // 32 + 1, 2), (0, 1))
            seen = {artefact: int(own.random() < chance[artefact]) for artefact in ARTEFACTS}
            # Each artefact has numbers of its own, or the one before would change how the next one looks.
            for place, artefact in enumerate(ARTEFACTS):
                drawn = np.random.default_rng([seed, 4, number, place, copy != name])
                image = _ADD[artefact](image, drawn) if seen[artefact] else image
            image = device.see(image * own.uniform(0.92, 1.08)) + own.normal(0, 0.01, image.shape)
            Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8)).save(folder / copy)
            written.append({"file": copy, **row, **seen, "duplicate_of": "" if copy == name else name})
    written.sort(key=lambda row: str(row["file"]))
    with (folder / "lesions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(written)
    return written


def _chance(artefact: str, row: dict[str, Any], rules: Sequence[Rule]) -> float:
    """Return the probability that the last of the fitting rules gives."""
    own = {row["label"], row["scanner"]}
    return [rule.probability for rule in rules if rule.artefact == artefact and own >= set(rule.words)][-1]


def _clouds(size: int, cells: int, generator: np.random.Generator) -> np.ndarray:
    """Return smooth noise, (size, size), of about mean 0 and standard deviation 1."""
    grid = generator.normal(size=(cells + 2, cells + 2)).astype(np.float32)
    wide = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(wide, dtype=np.float64)


def _painted(image: np.ndarray, draw: Any, colour: Sequence[float], strength: float) -> np.ndarray:
    """Lay what `draw` draws over an image; drawn four times as large and shrunk, lines have soft edges."""
    size = len(image)
    canvas = Image.new("L", (4 * size, 4 * size))
    draw(ImageDraw.Draw(canvas), 4 * size)
    mask = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float64)[..., None] / 255 * strength
    return image * (1 - mask) + np.asarray(colour) * mask


def main() -> None:
    """Parse and make."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--size", type=int, default=64, help="pixels, 32 to 256 look as they should")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--melanoma", type=float, default=0.35, help="share of melanomas")
    parser.add_argument("--scanners", type=int, default=3)
    parser.add_argument("--shift", type=float, default=0.6, help="how much the scanners differ, 0 to 1")
    parser.add_argument("--artefact", type=Rule.parse, action="append", default=[], help="such as ruler:melanoma=0.6")
    parser.add_argument("--duplicates", type=float, default=0.0, help="share of images photographed twice")
    given = parser.parse_args()
    rows = make(
        given.folder,
        given.images,
        size=given.size,
        seed=given.seed,
        melanoma=given.melanoma,
        scanners=given.scanners,
        shift=given.shift,
        rules=given.artefact,
        duplicates=given.duplicates,
    )
    people = len({row["patient"] for row in rows})
    print(f"wrote {len(rows):,} images of {people:,} patients and lesions.csv to {given.folder}")


if __name__ == "__main__":
    main()
