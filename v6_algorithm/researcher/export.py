"""A finished model as files that run without this package: ONNX, `torch.export`, and what its inputs and outputs are.

`v6-algorithm export` and `Result.export` call it. The graph takes inputs as they stand in a table (empty cells as NaN)
and gives what `predict` gives: filling, scaling, network and the step to probabilities are all in it. What was exported
is run beside the model on rows drawn at random, and refused where it differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from v6_algorithm.coordinator.evaluation.returned_model import ReturnedModel
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.researcher.external.predict import column_names

if TYPE_CHECKING:
    from v6_algorithm.data.preparation import Preparation, Setup
    from v6_algorithm.learning.problems.base import Problem

FORMATS = ("onnx", "torch")
# Largest difference between a model and its export, of the numbers that it gives; relative above 1.
TOLERANCE = 1e-5
_SUFFIXES = {"onnx": "onnx", "torch": "pt2"}
_OPSET = 18
# Rows of the trials: an export must take other numbers of them than the one that it was made with.
_ROWS = (3, 8)


@dataclass(frozen=True)
class Exported:
    """What was written, and the largest difference that any of it showed from the model."""

    files: list[Path]
    difference: float


class PreparedModel(nn.Module):
    """Network with its preparation in front and the step to predictions behind.

    Parameters
    ----------
    problem, network
        What `predict` uses.
    setup
        Numbers that fill and scale, of one fold.
    """

    fill: Tensor
    shift: Tensor
    scale: Tensor
    known: Tensor
    hazard: Tensor | None

    def __init__(self, problem: Problem, network: nn.Module, setup: Setup) -> None:
        super().__init__()
        if setup.terms is not None:
            raise ExperimentError(
                "export: a model with curves or products (model.splines, model.interactions) cannot be exported; its "
                "coefficients are in coefficients.csv, and `v6-algorithm predict` applies it"
            )
        preparation = _preparation(setup)
        self._problem, self.network = problem, network
        dtype = getattr(torch, problem.experiment.training.dtype)
        # Numbers so far from 0 that float32 cannot tell them apart are centred first, as in training.
        self.takes = torch.float64 if _far(preparation) else torch.float32
        exact = torch.promote_types(dtype, self.takes)
        self._features = len(setup.features)
        # Of series channels come last, of images first.
        series, image = problem.experiment.data.sequence is not None, setup.image_shape is not None
        shape = (1, 1, -1) if series else (1, -1, *[1] * (len(setup.image_shape or [1]) - 1)) if image else (1, -1)
        for name, numbers in (("fill", preparation.fill), ("shift", preparation.shift), ("scale", preparation.scale)):
            self.register_buffer(name, torch.tensor(numbers[0], dtype=exact).reshape(shape))
        known = torch.ones(1, len(setup.category_columns), dtype=dtype)
        if setup.unknown:
            known[:, setup.unknown[0]] = 0
        self.register_buffer("known", known)
        cox = getattr(problem, "cox", False) and setup.baseline is not None
        self.register_buffer("hazard", torch.tensor(np.asarray(setup.baseline)[:1]) if cox else None)
        self._dtype, self._exact = dtype, exact

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (rows, predictions) float32 of (rows, inputs) numbers as in a table, images or series, of `takes`."""
        values = inputs.to(self._exact)
        categories = None
        if self.known.shape[1]:
            values, categories = values[:, : self._features], values[:, self._features :] * self.known
        values = ((torch.where(torch.isnan(values), self.fill, values) - self.shift) / self.scale).to(self._dtype)
        if categories is not None:
            values = torch.cat([values, categories.to(self._dtype)], dim=1)
        output = self._problem.prediction(self._problem.forward({"model": self.network}, values))
        if self.hazard is not None:
            # What `prediction_of` adds to a Cox model's log-risk, in operations that a graph holds.
            output = torch.cat([output, torch.exp(-self.hazard * torch.exp(output[:, :1]))], dim=1)
        return output.reshape(inputs.shape[0], -1).float()


def export(model: ReturnedModel, folder: Path, formats: Sequence[str] = FORMATS) -> Exported:
    """Write a run's models: ``model.onnx``, ``model.pt2`` (of folds ``fold-0.onnx``, …), ``model.json``.

    Parameters
    ----------
    model
        The run's.
    folder
        Where to write; made when it is not there.
    formats
        Of `FORMATS`.

    Returns
    -------
    Exported

    Raises
    ------
    ExperimentError
        When a format is not known or not installed, when the preparation is not the model's alone, or when an export
        differs from the model.
    """
    wrong = [name for name in formats if name not in FORMATS]
    if wrong or not formats:
        raise ExperimentError(f"export: format '{', '.join(wrong)}' is not known; allowed: {', '.join(FORMATS)}")
    _check(model)
    files, largest = [], 0.0
    about: dict[str, Any] = {}
    for name, setup in model.setups.items():
        prepared = _prepared(model, setup, model.tensors[name])
        trials = [_trial(model, setup, rows) for rows in _ROWS]
        stem = name.replace("/", "-") or "model"
        about = about or _about(model, prepared, setup, trials[0])
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExperimentError(f"export: {folder} cannot be written: {error.strerror}") from None
        for kind in formats:
            path = folder / f"{stem}.{_SUFFIXES[kind]}"
            try:
                run = {"onnx": _to_onnx, "torch": _to_torch}[kind](prepared, trials[0], path)
            except ExperimentError:
                raise
            except Exception as error:  # of torch's compiler, of any kind
                said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ExperimentError(f"export: {kind} cannot hold this network: {said}") from error
            difference = max(_difference(prepared, run, trial) for trial in trials)
            if difference > TOLERANCE:
                path.unlink()
                raise ExperimentError(f"export: {path.name} differs from the model by {difference:.1e}; it is not kept")
            largest = max(largest, difference)
            files.append(path)
    text = json.dumps(about | {"files": [path.name for path in files]}, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")
    return Exported([*files, folder / "model.json"], largest)


def _check(model: ReturnedModel) -> None:
    """Refuse what a graph cannot hold: preparation by the table's own rows, and rows of several lengths."""
    data, problem = model.experiment.data, model.experiment.problem
    if problem.generative:
        raise ExperimentError(f"export: a model of problem {problem.kind} makes images; see `v6-algorithm generate`")
    if data.scaling.scope == "site" and data.scaling.kind != "none":
        raise ExperimentError("export: data.scaling of scope site scales a table by its own rows, which no graph knows")
    if data.harmonisation.kind != "none":
        raise ExperimentError(f"export: data.harmonisation {data.harmonisation.kind} needs the table's own rows")
    if data.sequence is not None and data.sequence.length == "longest":
        raise ExperimentError(
            "export: data.sequence.length longest, rows of several lengths; only shortest is exported"
        )
    if data.rows is not None:
        raise ExperimentError(f"export: rows of kind {data.rows.kind} are made numbers by a plug-in, not by a graph")


def _preparation(setup: Setup) -> Preparation:
    if setup.preparation is None:
        raise ExperimentError("export: the model's file does not say how inputs are prepared")
    return setup.preparation


def _far(preparation: Preparation) -> bool:
    """Say whether float32 takes more than a thousandth of what a feature is scaled by."""
    return bool((np.abs(preparation.shift) * 2.0**-24 > 1e-3 * np.abs(preparation.scale)).any())


def _prepared(model: ReturnedModel, setup: Setup, tensors: wire.Packed) -> PreparedModel:
    from v6_algorithm.learning.problems import create_problem
    from v6_algorithm.learning.training.state import build_networks, load_state, spec_of

    problem = create_problem(model.experiment, setup)
    networks = build_networks(problem)
    if set(networks) != {"model"}:
        raise ExperimentError(f"export: problem {model.experiment.problem.kind} has several networks; one is exported")
    load_state(networks, wire.unpack(tensors, spec_of(networks)))
    return PreparedModel(problem, networks["model"], setup).eval()


def _trial(model: ReturnedModel, setup: Setup, rows: int) -> Tensor:
    """Draw rows like those of the training, some cells of them empty."""
    from v6_algorithm.experiment.imaging.augmentation import Crop

    generator = np.random.default_rng(rows)
    preparation = _preparation(setup)
    dtype = torch.float64 if _far(preparation) else torch.float32
    shift, scale = preparation.shift[0], np.abs(preparation.scale[0])
    if setup.image_shape is not None:
        crop = next((kind.size for kind in model.experiment.training.augmentation if isinstance(kind, Crop)), None)
        lengths = setup.image_shape[1:]
        lengths = lengths if crop is None else [crop] * len(lengths) if isinstance(crop, int) else list(crop)
        shape = (1, -1, *[1] * len(lengths))
        drawn = generator.normal(size=(rows, setup.image_shape[0], *lengths)) * scale.reshape(shape) + shift.reshape(
            shape
        )
        return torch.tensor(drawn, dtype=dtype)
    if model.experiment.data.sequence is not None:
        drawn = generator.normal(size=(rows, setup.sequence_length or 1, len(setup.features))) * scale + shift
    else:
        drawn = generator.normal(size=(rows, len(setup.features))) * scale + shift
    drawn[generator.random(drawn.shape) < 0.1] = np.nan
    categories = generator.integers(0, 2, (rows, len(setup.category_columns)))
    return torch.tensor(np.concatenate([drawn, categories], axis=1) if categories.size else drawn, dtype=dtype)


def _to_onnx(model: PreparedModel, inputs: Tensor, path: Path) -> Callable[[Tensor], np.ndarray]:
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        raise ExperimentError(
            "export: ONNX is not installed: pip install 'v6-algorithm[onnx]', or --format torch"
        ) from None
    import logging
    import warnings

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    rows = torch.export.Dim("rows", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (inputs,), dynamo=True, dynamic_shapes=({0: rows},), input_names=["inputs"],
            output_names=["predictions"], opset_version=_OPSET, verbose=False,
        )  # fmt: skip
    program.save(str(path))  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda given: np.asarray(session.run(None, {"inputs": given.numpy()})[0])


def _to_torch(model: PreparedModel, inputs: Tensor, path: Path) -> Callable[[Tensor], np.ndarray]:
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(model, (inputs,), dynamic_shapes=({0: rows},))
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    return lambda given: loaded(given).detach().numpy()


def _difference(model: PreparedModel, run: Callable[[Tensor], np.ndarray], inputs: Tensor) -> float:
    with torch.no_grad():
        expected = model(inputs).numpy()
    given = run(inputs)
    if given.shape != expected.shape:
        raise ExperimentError(f"export: it gives {given.shape}, the model {expected.shape}")
    return float((np.abs(given - expected) / np.maximum(1, np.abs(expected))).max())


def _about(model: ReturnedModel, prepared: PreparedModel, setup: Setup, inputs: Tensor) -> dict[str, Any]:
    """Say what goes in and what comes out."""
    experiment = model.experiment
    with torch.no_grad():
        width = prepared(inputs).shape[1]
    content: dict[str, Any] = {
        "name": experiment.name,
        "problem": experiment.problem.kind,
        "target": list(experiment.data.target_columns.values()),
        "shape": ["rows", *inputs.shape[1:]],
        "dtype": str(inputs.dtype).removeprefix("torch."),
        "inputs": setup.inputs,
        "outputs": column_names(prepared._problem, setup, width),
        "classes": setup.classes,
        "empty": "NaN" if setup.image_shape is None else None,
    }
    if setup.image_shape is not None:
        content["images"] = experiment.data.image.model_dump(mode="json") if experiment.data.image else None
    return content
