"""Images from the model of a finished run: `v6-algorithm generate`. They are written with a table, as a site has them.

The header of the model file says how the networks are built, what the classes are, and what the table's columns are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.coordinator.rounds.initial_model import about_model, models_in, read_model
from v6_algorithm.data.preparation import Setup
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import png, wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.condition import parse_condition

if TYPE_CHECKING:
    from v6_algorithm.learning.problems.base import Networks, Problem

TABLE = "generated.csv"
# Synthetic images at once.
_ROWS_AT_ONCE = 64
_Cell = str | int | float


@dataclass(frozen=True)
class TrainedGenerator:
    """A trained generator.

    Attributes
    ----------
    experiment
        As far as the file's header has it.
    problem, networks
        What makes images.
    classes
        Names of the classes, in the order of their numbers; none where the generator is not told any.
    shares
        Each one's share of the rows that were trained on.
    """

    experiment: Experiment
    problem: Problem
    networks: Networks
    classes: list[str]
    shares: list[float]

    def labels(self, wanted: str | None, n: int) -> list[int]:
        """Return n class numbers, ascending: of one class, or of all by their shares; 0 where there are no classes.

        Raises
        ------
        ExperimentError
            When there is no such class.
        """
        if wanted is not None and wanted not in self.classes:
            allowed = ", ".join(self.classes) or "none, for it was trained with problem.conditional: false"
            raise ExperimentError(f"--class {wanted}: the model has no such class; allowed: {allowed}")
        if wanted is not None:
            return [self.classes.index(wanted)] * n
        exact = np.array(self.shares or [1.0]) * n / (sum(self.shares) or 1.0)
        counts = np.floor(exact).astype(int)
        # What is left goes to those that lost most by rounding.
        for place in np.argsort(counts - exact, kind="stable")[: n - counts.sum()]:
            counts[place] += 1
        return [number for number, count in enumerate(counts) for _ in range(count)]

    def images(self, labels: Sequence[int], seed: int) -> Iterator[np.ndarray]:
        """Yield (height, width, channels) uint8 images of these classes; the same seed makes the same ones."""
        import torch

        from v6_algorithm.learning.training.generative.evaluation import making, to_bytes

        generator = seeding.torch_generator(seed, "generate")
        for numbers in torch.tensor(labels, dtype=torch.int64).split(_ROWS_AT_ONCE):
            with making(self.problem, self.networks, "generate", seed):
                made = to_bytes(self.problem.generate(self.networks, numbers, generator))
            yield from made.permute(0, 2, 3, 1).contiguous().numpy()


def read_generator(path: Path) -> TrainedGenerator:
    """Read the generator of a run's folder, result.json or model.safetensors.

    Raises
    ------
    ExperimentError
        When it cannot be read, or is not one generator of problem gan.
    """
    from v6_algorithm.learning.problems import problem_class
    from v6_algorithm.learning.training.state import build_networks

    packed = read_model(path, str(path), "RESULT")
    try:
        about, models = about_model(packed), models_in(wire.unpack(packed))
        if about is None:
            raise ExperimentError(f"RESULT: {path} has no header of a run of this package, which says what it is")
        if not problem_class(about["problem"]).generative:
            raise ExperimentError(
                f"RESULT: {path} is a model of problem {about['problem']}, which makes no images; allowed: gan"
            )
        if set(models) != {""}:
            raise ExperimentError(f"RESULT: {path} holds {len(models)} models, of folds or sites; allowed: one")
        experiment = _experiment(about)
        agreed = about["preparation"]
        setup = Setup(agreed["features"], {}, agreed["classes"], image_shape=agreed["image_shape"])
        problem = problem_class(about["problem"])(experiment, setup)
        networks = build_networks(problem)
        _fill(networks, models[""])
        conditional = experiment.problem.told_classes
        classes = [str(label) for label in setup.classes or []] if conditional else []
        shares = [float(share) for share in about["shares"]] if conditional else []
    except WireError as error:
        raise ExperimentError(f"RESULT: {path}: {error}") from None
    except (KeyError, TypeError, ValueError, LookupError):
        raise ExperimentError(f"RESULT: {path}: its header does not say all that is needed to use it") from None
    return TrainedGenerator(experiment, problem, networks, classes, shares or [1.0] * len(classes))


def _experiment(about: Mapping[str, Any]) -> Experiment:
    """Return what a model's header tells of its experiment."""
    training_experiment = about["experiment"]
    return Experiment.parse(
        {name: about[name] for name in ("name", "seed", "data", "model", "split")}
        | {"problem": training_experiment["problem"], "training": {"dtype": training_experiment["training"]["dtype"]}},
        where="its header",
        checked=True,
    )


def _fill(networks: Networks, tensors: Mapping[str, Any]) -> None:
    """Make networks use a file's tensors, all of them; a discriminator may be missing, which makes no images.

    Raises
    ------
    WireError
        When others are missing too, or do not fit.
    """
    from v6_algorithm.learning.training.state import load_state, spec_of, state_of

    spec = spec_of(networks)
    needed = {name: item for name, item in spec.items() if name in tensors or not name.startswith("discriminator.")}
    load_state(networks, state_of(networks) | wire.fit(tensors, needed, partial=False)[0])


def write_images(trained: TrainedGenerator, labels: Sequence[int], seed: int, folder: Path) -> Path:
    """Write images, and a table of them with the columns of the experiment's; return the table's path.

    A column says of each that it is synthetic: `data.synthetic` of an experiment that trains on them.
    """
    data = trained.experiment.data
    columns = [(data.image.column if data.image else None) or "file"]
    columns += [*data.target_columns.values()] if trained.classes else []
    columns += [data.group] if data.group is not None else []
    columns += [*data.split_columns, data.synthetic or "synthetic"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for number, (label, image) in enumerate(zip(labels, trained.images(labels, seed), strict=True), start=1):
        name = f"generated-{number:06d}.png"
        (folder / name).write_bytes(png.encode(image))
        cells: list[_Cell] = [name, *([_cell(trained, label)] if trained.classes else [])]
        # Nobody's image: no two are of one patient.
        cells += [f"synthetic-{seed}-{number}"] if data.group is not None else []
        table.writerow([*cells, *("train" for _ in data.split_columns), 1])
    path = folder / TABLE
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def _cell(trained: TrainedGenerator, label: int) -> _Cell:
    """Return the target's cell for a class; with `data.positive` a value for which that holds, or does not."""
    positive = trained.experiment.data.positive
    if positive is None:
        return trained.classes[label]
    operator, value = parse_condition(positive)
    holds = trained.classes[label] == "1"
    if isinstance(value, str):
        return value if holds == (operator == "==") else f"not {value}"
    value = int(value) if value.is_integer() else value
    beside = {"==": value + 1, "!=": value + 1, ">": value + 1, ">=": value - 1, "<": value - 1, "<=": value + 1}
    # Of these the value itself is one that the condition holds for.
    return value if holds == (operator in ("==", ">=", "<=")) else beside[operator]
