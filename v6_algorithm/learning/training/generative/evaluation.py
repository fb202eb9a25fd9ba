"""What a generative problem is measured and shown by: sums over features of real and synthetic rows, and sample grids.

`site` calls both with the model that it received. What is made is drawn for the site, round and fold, so that a request
that is repeated is answered alike.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v6_algorithm import seeding
from v6_algorithm.exchange import png
from v6_algorithm.exchange.png import GRID_CLASSES, GRID_COLUMNS, GRID_GAP, GRID_PIXELS
from v6_algorithm.learning.metrics import GenerationMetrics
from v6_algorithm.learning.models.features import DIMENSIONS, feature_network
from v6_algorithm.learning.problems.base import Problem
from v6_algorithm.learning.training.augmentation import measured
from v6_algorithm.learning.training.device import Device, deterministic
from v6_algorithm.learning.training.fitting import in_chunks
from v6_algorithm.learning.training.loop import Rows, rows_at_once


def evaluate(
    problem: Problem,
    networks: Mapping[str, nn.Module],
    rows: Rows,
    part: Tensor,
    members: list[str],
    *,
    site: str,
    round: int,
    fold: int,
    least: int = 0,
    device: Device = Device(),
) -> dict[str, dict[str, Any]]:
    """Return the state of each member hospital: its rows numbered in `part`, and as many made with the same labels.

    Sums over fewer rows of a hospital than features have dimensions, or than `least`, are withheld.
    """
    metrics = {name: GenerationMetrics(DIMENSIONS, least) for name in members}
    part = part.to(device.kind)
    generator = seeding.torch_generator(problem.experiment.seed, "samples", site, round, fold)

    def add(chunk: Tensor) -> None:
        before = generator.get_state()
        real = measured(rows.inputs[chunk], problem.experiment.training.augmentation)
        try:
            made = problem.generate(networks, rows.target[chunk].long(), generator)
            features = feature_network(*real.shape[1:])
            of_real, of_made = features(real).numpy(), features(made).numpy()
        except RuntimeError:
            # Out of memory it is done again with fewer rows, from the same latents.
            generator.set_state(before)
            raise
        member = rows.member[chunk].cpu().numpy()
        for number, name in enumerate(members):
            metrics[name].update(of_real[member == number], of_made[member == number])

    with making(problem, networks, "samples", site, round, fold, device=device):
        if len(part):
            in_chunks(part, rows_at_once(problem, rows, part), add, whole=False)
    return {name: metric.state() for name, metric in metrics.items()}


def sample_grid(
    problem: Problem, networks: Mapping[str, nn.Module], *, fold: int, device: Device = Device()
) -> str | None:
    """Return synthetic images as one PNG in base64: a line for each of the first 8 classes, 8 images in it.

    Latents are drawn for the fold alone: at every site and in every round the same, so that one sees what training
    changes. None where none could be made: a picture is not worth a round.
    """
    classes = min(len(problem.setup.classes or [0]), GRID_CLASSES)
    labels = torch.arange(classes).repeat_interleave(GRID_COLUMNS).to(device.kind)
    try:
        with making(problem, networks, "grid", fold, device=device):
            generator = seeding.torch_generator(problem.experiment.seed, "grid", fold)
            images = problem.generate(networks, labels, generator).float().cpu()
        if max(images.shape[2:]) > GRID_PIXELS:
            shrunk = [max(length * GRID_PIXELS // max(images.shape[2:]), 1) for length in images.shape[2:]]
            images = F.interpolate(images, shrunk, mode="area")
        return base64.b64encode(png.encode(_side_by_side(to_bytes(images)).numpy())).decode()
    except (RuntimeError, ValueError, NotImplementedError):
        return None


def to_bytes(images: Tensor) -> Tensor:
    """Turn images from 0 to 1 into uint8; what is beyond is cut off, and what is no number is black."""
    return (images.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def _side_by_side(images: Tensor) -> Tensor:
    """Lay (rows, channels, height, width) uint8 out in lines of `GRID_COLUMNS`, white between; (…, …, channels)."""
    spaced = F.pad(images, (0, GRID_GAP, 0, GRID_GAP), value=255)
    rows, channels, height, width = spaced.shape
    lines = spaced.reshape(rows // GRID_COLUMNS, GRID_COLUMNS, channels, height, width).permute(0, 3, 1, 4, 2)
    grid = lines.reshape(rows // GRID_COLUMNS * height, GRID_COLUMNS * width, channels)
    return grid[:-GRID_GAP, :-GRID_GAP].contiguous()


@contextmanager
def making(
    problem: Problem, networks: Mapping[str, nn.Module], *keys: str | int, device: Device = Device()
) -> Iterator[None]:
    """Let networks make images: without gradients, and with noise of their own that is drawn for what `keys` name."""
    for network in networks.values():
        network.eval()
    with device.fork_rng(), torch.inference_mode(), deterministic(problem.experiment.training.deterministic):
        torch.manual_seed(seeding.derive(problem.experiment.seed, "noise", *keys))
        yield
