"""A model that a run returned, made again from its file alone: what it learns, how inputs are prepared, its tensors.

The file's header says all that a site was told while the model was trained, so that any table can be measured with it
later, by the code that measures at a site. To the model a new table is what a hospital is that leave-one-site-out
leaves out: none of its rows trained, and all are tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from v6_algorithm.coordinator.preparation.notes.assumed import tell_assumed
from v6_algorithm.coordinator.rounds.initial_model import about_model, models_in, preparations_of, read_model
from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.data.preparation.combat import Combat
from v6_algorithm.data.preparation.terms import DesignTerms
from v6_algorithm.data.rows import row_kind
from v6_algorithm.data.rows.kind import some
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Evaluation, Experiment

# What the researcher's own table is called where a hospital has its name.
CENTRAL = "central"
# Of the training only what says how a row's input, loss or precision is.
OF_TRAINING = ("loss", "augmentation", "dtype", "evaluation_batch_size", "deterministic")
# Roles that columns have in training, which a table that is only measured need not have.
WITHOUT: dict[str, Any] = {
    "group": None, "synthetic": None, "split_column": None, "load_limit": None, "where": None,
}  # fmt: skip


@dataclass(frozen=True)
class ReturnedModel:
    """The models of one file: one, or one for each fold, and in mode local for each site.

    Attributes
    ----------
    experiment
        What a site is told that measures with them.
    setups, tensors
        How each of them prepares its inputs, and its packed tensors, by its name: empty text, ``fold-0``, a site's
        name, or ``site/fold-0``.
    by_site
        Whether there is a model for each site: each trained alone, or has layers of its own.
    hazards
        By model and site the (times,) cumulative baseline hazard of a Cox model's site that has one of its own.
    joins_late
        Whether the rows that it was fitted to joined late, some of them: it predicts, and is not measured.
    """

    experiment: Experiment
    setups: dict[str, Setup]
    tensors: dict[str, wire.Packed]
    by_site: bool
    hazards: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    joins_late: bool = False

    @classmethod
    def load(cls, path: Path, layers: Sequence[SiteLayers] = ()) -> ReturnedModel:
        """Read the folder of a run, its result.json or its model file; raises as `of`."""
        return cls.of(read_model(path, None, str(path)), str(path), layers)

    @classmethod
    def of(cls, parameters: str, where: str, layers: Sequence[SiteLayers] = ()) -> ReturnedModel:
        """Read a model.

        Parameters
        ----------
        parameters
            Base64 safetensors: `parameters` of a result.
        where
            What to call it in messages.
        layers
            What stayed at sites: the model is then that of each of these sites.

        Raises
        ------
        ExperimentError
            When it is none that a run of this package returned, or layers of it are missing.
        """
        try:
            about = about_model(parameters)
            models = models_in(wire.unpack(wire.Packed(parameters)))
        except WireError as error:
            raise ExperimentError(f"{where}: {error}") from None
        if about is None:
            raise ExperimentError(
                f"{where}: does not say how its inputs are prepared; a model can be measured that a run of "
                "v6-algorithm returned: its folder, result.json or model.safetensors"
            )
        if about.get("private") and not layers:
            raise ExperimentError(
                f"{where}: layers of this model (strategy.private) stayed at the sites, so it is not whole and "
                "cannot be measured elsewhere; a hospital predicts with its own: --layers FILE"
            )
        try:
            submitted, data = about.get("experiment", {}), about["data"]
            # Of a new row nothing is known of when it joined; its prediction is from the start on.
            joins_late = isinstance(data["target"], dict) and data["target"].get("entry") is not None
            if joins_late:
                data = data | {"target": {name: value for name, value in data["target"].items() if name != "entry"}}
            experiment = Experiment.parse(
                {
                    "name": about["name"],
                    "seed": about["seed"],
                    "data": _without_draws(data | WITHOUT),
                    "problem": submitted.get("problem", {"kind": about["problem"]}),
                    "model": about["model"],
                    "split": "leave_one_site_out",
                    "training": {
                        key: value for key, value in submitted.get("training", {}).items() if key in OF_TRAINING
                    },
                    "evaluation": submitted.get("evaluation", {}),
                },
                where,
                checked=True,
            )
            preparations = preparations_of(about)
            setups = {
                name: _setup(experiment, prepared, about.get("horizons", [])) for name, prepared in preparations.items()
            }
            hazards = {
                name: (prepared.get("baseline") or {}).get("sites", {}) for name, prepared in preparations.items()
            }
            if not setups or setups.keys() != models.keys():
                raise KeyError
            if layers:
                setups, models = _with_layers(setups, models, layers, where)
            packed = {name: wire.pack(models[name]) for name in setups}
        except (KeyError, TypeError, AttributeError, ValueError):
            raise ExperimentError(
                f"{where}: its header does not say all that is needed to use it; was it made by another version?"
            ) from None
        by_site = bool(layers) or submitted.get("mode") == "local"
        return cls(experiment, setups, packed, by_site, hazards, joins_late)

    def check_measurable(self) -> None:
        """Refuse to measure a model on rows of which nobody knows when they joined; raises ExperimentError."""
        if self.joins_late:
            raise ExperimentError(
                "the model was fitted to rows that join late (data.target.entry), of which there is no C-index yet; it "
                "predicts, and cannot be measured"
            )

    def with_baseline_of(self, site: str) -> ReturnedModel | None:
        """Return it with a site's own baseline hazard in place of that of all; None where it has none in some fold."""
        of_site = {name: hazards[site] for name, hazards in self.hazards.items() if site in hazards}
        if not of_site or of_site.keys() != self.setups.keys():
            return None
        setups = {
            name: replace(setup, baseline=np.array([of_site[name]], dtype=np.float64))
            for name, setup in self.setups.items()
        }
        return replace(self, setups=setups)

    def with_evaluation(self, evaluation: Evaluation) -> ReturnedModel:
        """Return it with other groups or specificities to be told."""
        return replace(self, experiment=self.experiment.model_copy(update={"evaluation": evaluation}))


class SiteLayers(Protocol):
    """Tensors that stayed at a site, of one fold."""

    @property
    def site(self) -> str: ...
    @property
    def fold(self) -> int: ...
    @property
    def tensors(self) -> Mapping[str, Any]: ...


def _with_layers(
    setups: Mapping[str, Setup], models: Mapping[str, dict[str, Any]], layers: Sequence[SiteLayers], where: str
) -> tuple[dict[str, Setup], dict[str, dict[str, Any]]]:
    """Return a model for each site and fold that layers are of; raises ExperimentError where they do not fit."""
    of_sites: dict[str, Setup] = {}
    tensors: dict[str, dict[str, Any]] = {}
    for part in layers:
        name = f"fold-{part.fold}" if f"fold-{part.fold}" in setups else ""
        if name not in setups:
            raise ExperimentError(
                f"{where}: the layers of site '{part.site}' are of fold {part.fold}, which it has not"
            )
        model = f"{part.site}/{name}" if name else part.site
        of_sites[model], tensors[model] = setups[name], {**models[name], **part.tensors}
    return of_sites, tensors


def misfits(schema: Mapping[str, Any], experiment: Experiment, setup: Setup, where: str) -> tuple[list[str], list[str]]:
    """Say why a table cannot be measured with a model, and what is to be known where it can.

    Parameters
    ----------
    schema
        What its site tells of its columns.
    experiment, setup
        The model's.
    where
        What to call the table.
    """
    kind = row_kind(experiment.data)
    problems = kind.misfits(schema, setup)
    labels = {column: schema["task_labels"].get(column, []) for column in setup.task_classes}
    labels |= {} if setup.classes is None else {str(experiment.data.target): schema["labels"]}
    for column, there in labels.items():
        known = setup.labels_of(column)[column]
        if unknown := len(set(there) - set(known)):
            problems.append(
                f"column '{column}' has {unknown} class{'es' if unknown > 1 else ''} that the model does not know; it "
                f"knows: {', '.join(map(str, known))}"
            )
    notes = [
        f"{where}: column '{name}' has values that no site had; to the model they are none of them"
        for name, values in setup.categories.items()
        if set(schema["categories"].get(name, [])) - set(values)
    ]
    notes += [f"{where}: {remark}" for remark in kind.remarks(schema)]
    notes += [f"{where}: {note}" for note in tell_assumed({"": schema.get("assumed", [])})]
    if schema["rows_without_target"] != 0:
        notes.append(f"{where}: {some(schema['rows_without_target'])} rows have no target, and are left out")
    return [f"{where}: {problem}" for problem in problems], notes


def _setup(experiment: Experiment, prepared: Mapping[str, Any], horizons: list[float]) -> Setup:
    """Return what the sites had agreed on, from the form of it that the file has."""
    arrays = {name: np.array([prepared[name]], dtype=np.float64) for name in ("fill", "shift", "scale")}
    features, categories = list(prepared["features"]), dict(prepared["categories"])
    combat, baseline = prepared.get("combat"), prepared.get("baseline")
    covariates = experiment.data.harmonisation.covariates
    sums: dict[str, np.ndarray] = {}
    if experiment.problem.kind == "survival":
        sums = {
            "edges": np.array(prepared["edges"], dtype=np.float64),
            "horizons": np.array(horizons, dtype=np.float64),
        }
    columns = [f"{name}={value}" for name, values in categories.items() for value in values]
    unknown = [columns.index(name) for name in prepared.get("unknown", []) if name in columns]
    return Setup(
        features,
        categories,
        prepared["classes"],
        unknown=[unknown] if unknown else [],
        class_weights=prepared.get("class_weights") and [prepared["class_weights"]],
        preparation=Preparation(**arrays),
        hospitals=[CENTRAL],
        task_classes=prepared.get("task_classes", {}),
        sums=sums,
        sequence_length=prepared.get("sequence_length"),
        covariates=[name for name in covariates if name not in features and name not in categories],
        combat=combat
        and Combat(
            beta=np.array(combat["beta"], dtype=np.float64).reshape(1, -1, len(features)),
            alpha=np.array([combat["alpha"]], dtype=np.float64),
            sigma=np.array([combat["sigma"]], dtype=np.float64),
        ),
        target_scales={
            name: np.array([[scale["mean"], scale["sd"]]], dtype=np.float64)
            for name, scale in prepared.get("target_scaling", {}).items()
        },
        baseline=baseline and np.array([baseline["cumulative_hazard"]], dtype=np.float64),
        image_shape=prepared.get("image_shape"),
        pixels=prepared.get("pixels", []),
        terms=_terms(prepared, features, categories),
    )


def _without_draws(data: dict[str, Any]) -> dict[str, Any]:
    """Return a section in which rows that a model is used on have empty cells filled with means, not drawn anew."""
    drawn = isinstance(data.get("missing"), dict) and data["missing"].get("kind") == "impute"
    return data | ({"missing": {"kind": "mean"}} if drawn else {})


def _terms(prepared: Mapping[str, Any], features: list[str], categories: dict[str, list[Any]]) -> DesignTerms | None:
    """Return a regression's curves and products, whose knots the file has of this fold."""
    if "terms" not in prepared:
        return None
    content = prepared["terms"]
    knots = {name: [places] for name, places in content["knots"].items()}
    return DesignTerms.from_json({**content, "knots": knots}, features, categories)
