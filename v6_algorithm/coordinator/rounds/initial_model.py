"""What the first round starts from, when that is weights which the researcher has: read, checked, and cut into folds.

`run` and `submit` read the file with `read_weights`; `master` fits it to the run with `initial_model_from`. A model
of an earlier run brings the fill values and scales it was trained with, for with others it would be another function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.reading import meant

# Keys of the experiment's `data` without which the same columns are other inputs or another target.
SAME_DATA = ("target", "positive", "scaling", "target_scaling", "missing", "missing_values", "image")
_SHOWN = 5


@dataclass(frozen=True)
class InitialModel:
    """How the folds of a run begin.

    Attributes
    ----------
    plan
        The run's plan, with the preparation of the model that it goes on from.
    models
        Fold to packed tensors: all of the model's, or with `start.partial` those that fit.
    notes
        Sentences for the researcher.
    """

    plan: Plan
    models: dict[int, wire.Packed]
    notes: list[str]


def read_weights(experiment: Experiment, folder: Path) -> wire.Packed | None:
    """Read the file that `start.weights` names, relative to `folder`; None where it names none, or one at the sites.

    Raises
    ------
    ExperimentError
        When the file is not there, or is neither a safetensors file nor the result of a run.
    """
    name = experiment.start.weights
    if name is None or experiment.start.at_sites:
        return None
    return read_model(folder / Path(name).expanduser(), name, "start.weights")


def read_model(path: Path, name: str | None, what: str) -> wire.Packed:
    """Read a model file, or the model of a run from its result.json or its folder.

    Parameters
    ----------
    path
        Where it is.
    name, what
        What to call it in messages, and who wants it: ``start.weights``; without a name `what` is the file.

    Raises
    ------
    ExperimentError
        When it is not there, or is neither a safetensors file nor the result of a run.
    """
    subject = "" if name is None else f"{name} "
    if path.is_dir():
        if not (path / "model.safetensors").exists():
            raise ExperimentError(f"{what}: {subject}is a folder without model.safetensors, so that of no finished run")
        path /= "model.safetensors"
    if path.suffix not in (".safetensors", ".json"):
        if not path.exists():
            none = "there is no such file or folder" if name is None else f"there is no file or folder {name}"
            raise ExperimentError(f"{what}: {none}{meant(path)}")
        raise ExperimentError(
            f"{what}: {subject}must be a .safetensors file, a result.json or the folder of a run; "
            "a pickle (.pt, .pth, .bin) is not read, for it is code"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExperimentError(f"{what}: {subject}cannot be read: {error.strerror}") from None
    if path.suffix == ".safetensors":
        return wire.pack_file(content)
    try:
        parameters = json.loads(content)["parameters"]
        wire.unpack(parameters)
    except (ValueError, KeyError, TypeError, WireError):
        raise ExperimentError(f"{what}: {subject}is not the result of a run that has a model") from None
    return wire.Packed(parameters)


def initial_model_from(weights: Any, experiment: Experiment, plan: Plan) -> InitialModel:
    """Fit weights to a run.

    Parameters
    ----------
    weights
        Base64 safetensors: a state dict of the network, or the model file of an earlier run, whose folds begin the
        folds of this one.
    experiment, plan
        The run.

    Raises
    ------
    ExperimentError
        Saying what does not fit: a tensor, the model, the columns, classes or scaling, or the number of folds.
    """
    try:
        models = models_in(wire.unpack(weights))
        about = about_model(weights)
    except WireError as error:
        raise ExperimentError(f"start.weights: {error}") from None
    partial = experiment.start.partial
    names = _model_names(models, experiment, plan)
    packed: dict[str, wire.Packed] = {}
    left: list[str] = []
    for name in dict.fromkeys(names.values()):
        try:
            fitting, left = wire.fit(models[name], plan.spec, partial=partial)
        except WireError as error:
            hint = "" if partial else "; `start.partial: true` takes over what fits"
            raise ExperimentError(f"start.weights: {error}{hint}") from None
        packed[name] = wire.pack(fitting)
    notes = []
    if left:
        shown = ", ".join(left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
        notes.append(f"start.weights: {len(left)} of {len(plan.spec)} tensors start from the seed: {shown}")
    if about is not None and not partial:
        _check_same(about, experiment, plan.setup)
        plan = replace(plan, setup=_as_before(about, names, plan))
        if (about.get("seed"), about.get("split")) != (experiment.seed, experiment.split.model_dump(mode="json")):
            notes.append(
                "start.weights: the earlier run had another seed or split, so its model may have been trained on rows "
                "that are tested here"
            )
    return InitialModel(plan, {fold: packed[name] for fold, name in names.items()}, notes)


def models_in(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Take apart a file of several models, whose tensors are called ``fold-0/model.…``."""
    models: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        model, _, tensor_name = name.rpartition("/")
        models.setdefault(model, {})[tensor_name] = tensor
    return models


def about_model(weights: Any) -> dict[str, Any] | None:
    """Return what an earlier run wrote into its model file; None for a file from elsewhere."""
    text = wire.read_metadata(weights).get("v6_algorithm")
    if text is None:
        return None
    try:
        about = json.loads(text)
        if isinstance(about["preparation"], dict) and isinstance(about["data"], dict):
            return dict(about)
    except (ValueError, KeyError, TypeError):
        pass
    raise WireError("the file's header is not one of a run of this package")


def _model_names(models: Mapping[str, Any], experiment: Experiment, plan: Plan) -> dict[int, str]:
    """Say which of the file's models each fold begins from."""
    site = [plan.sites[0]] if experiment.mode == "local" else []
    several = len(plan.counts) > 1
    by_fold = {fold: "/".join([*site, *([f"fold-{fold}"] if several else [])]) for fold in plan.folds}
    # In a file of models that were trained alone, those of the other sites are not this one's.
    if set(by_fold.values()) == {name for name in models if not site or f"{name}/".startswith(f"{site[0]}/")}:
        return by_fold
    if set(models) == {""}:
        return dict.fromkeys(by_fold, "")
    held = f"{len(models)} models ({', '.join(sorted(models)[:_SHOWN])}{', …' if len(models) > _SHOWN else ''})"
    raise ExperimentError(
        f"start.weights: the file holds {held}, this run trains {len(by_fold)}: "
        f"{', '.join(list(by_fold.values())[:_SHOWN])}"
        if several or site
        else f"start.weights: the file holds {held}, this run trains one"
    )


def _check_same(about: Mapping[str, Any], experiment: Experiment, setup: Setup) -> None:
    """Refuse a model of an earlier run that was of something else."""
    pairs: list[tuple[str, Any, Any]] = [
        ("problem.kind", about.get("problem"), experiment.problem.kind),
        ("model", about.get("model"), experiment.model.model_dump(mode="json")),
    ]
    data = experiment.data.model_dump(mode="json")
    # Of a key that a file from before it does not have, its default is what that run did.
    defaults = {"target_scaling": "none"}
    pairs += [(f"data.{key}", about["data"].get(key, defaults.get(key)), data[key]) for key in SAME_DATA]
    for key, before, now in pairs:
        if before != now:
            raise ExperimentError(f"start.weights: the earlier run had {key} {before!r}, this one has {now!r}")
    columns: dict[str, Any] = next(iter(preparations_of(about).values()), {})
    for what, now in (("features", setup.features), ("categories", setup.categories), ("classes", setup.classes)):
        if columns.get(what) != now:
            raise ExperimentError(
                f"start.weights: the earlier run had other {what} than these sites have, or in another order"
                f"{_first_difference(columns.get(what), now)}"
            )


def _first_difference(before: Any, now: Any) -> str:
    if not isinstance(before, Sequence) or not isinstance(now, Sequence):
        return ""
    for there, here in zip(before, now, strict=False):
        if there != here:
            return f": {there!r} there, {here!r} here"
    return f": {len(before)} there, {len(now)} here"


def preparations_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what prepared each of the file's models, by the model's name."""
    preparation = about["preparation"]
    return {"": preparation} if "features" in preparation else preparation


def _as_before(about: Mapping[str, Any], names: Mapping[int, str], plan: Plan) -> Setup:
    """Give each fold the fill values and scales, of features and targets, of the model that it begins from."""
    setup, preparations = plan.setup, preparations_of(about)
    if setup.preparation is None:
        return setup
    arrays = {name: array.copy() for name, array in setup.preparation.arrays().items()}
    targets = {name: scale.copy() for name, scale in setup.target_scales.items()}
    for fold, model in names.items():
        for name, scale in targets.items():
            scale[fold] = _target_scale(preparations[model], name)
        for name, array in arrays.items():
            try:
                numbers = np.asarray(preparations[model][name], dtype=np.float64)
            except (KeyError, TypeError, ValueError):
                numbers = np.empty(0)
            if numbers.shape != array[fold].shape or not np.isfinite(numbers).all():
                raise ExperimentError(f"start.weights: the file's header does not tell each feature's {name}")
            array[fold] = numbers
    if (arrays["scale"] == 0).any():
        raise ExperimentError("start.weights: the file's header scales a feature by 0")
    return replace(setup, preparation=Preparation(**arrays), target_scales=targets)


def _target_scale(preparation: Any, column: str) -> list[float]:
    """Read the mean and standard deviation that a model learned a target with."""
    try:
        scale = preparation["target_scaling"][column]
        mean, sd = float(scale["mean"]), float(scale["sd"])
    except (KeyError, TypeError, ValueError):
        mean, sd = 0.0, 0.0
    if not np.isfinite([mean, sd]).all() or sd <= 0:
        raise ExperimentError(f"start.weights: the file's header does not tell mean and sd of target '{column}'")
    return [mean, sd]
