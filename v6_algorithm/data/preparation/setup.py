"""What every request tells a site about the agreed columns, so that no site has to remember anything."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from v6_algorithm.data.preparation.agreement import Agreement, Label
from v6_algorithm.data.preparation.combat import Combat
from v6_algorithm.data.preparation.imputation import Imputation
from v6_algorithm.data.preparation.statistics import Preparation
from v6_algorithm.data.preparation.terms import DesignTerms
from v6_algorithm.data.preparation.times import metric_edges
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire


@dataclass(frozen=True)
class Setup:
    """The agreement of the sites, and the numbers that prepare their data.

    `class_weights` is one list of weights a fold (None: all 1); `preparation` is None until statistics exist;
    `hospitals` are those that leave-one-site-out tests, in the order of its folds; `task_classes` has the labels of
    each of several targets. `sums` is what the problem asked to be added up over the sites (`Problem.sums`); like
    `preparation` it is there once statistics exist; a model's file has what was made of it. `covariates` are columns
    that harmonisation needs and the model does not; `combat` is what the sites share of it. `target_scales` has mean
    and standard deviation, (folds, 2), of each target that is learned in standard deviations. `baseline` has the
    cumulative baseline hazard of a Cox model at `times.baseline_times`, (folds, times), once it is trained; `baselines`
    has that of each hospital whose events suffice, -1 in folds in which they do not.
    `unknown` has for each fold the places in `category_columns` that no training row has, which count as of no
    category; it is empty where there are none. `image_shape` is channels and lengths of images, and `pixels` are the
    columns that hold them where no files do.
    `facts` are what an installed kind of row agreed on, as JSON. `event_times` are those of all sites' training rows,
    increasing, where a model is fitted by risk sets over all sites; no file has them. `terms` are a regression's curves
    and products, which are inputs after the columns. `imputation` fills empty cells, a fold for each of its tables.
    `middle` is the mean binary logarithm of the sites' event times, around which `sums` counts them; see `times`.
    """

    features: list[str]
    categories: dict[str, list[Label]]
    classes: list[Label] | None
    class_weights: list[list[float]] | None = None
    preparation: Preparation | None = None
    hospitals: list[str] = field(default_factory=list)
    task_classes: dict[str, list[Label]] = field(default_factory=dict)
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    sequence_length: int | None = None
    sequence_shortest: int | None = None
    covariates: list[str] = field(default_factory=list)
    combat: Combat | None = None
    target_scales: dict[str, np.ndarray] = field(default_factory=dict)
    baseline: np.ndarray | None = None
    baselines: dict[str, np.ndarray] = field(default_factory=dict)
    unknown: list[list[int]] = field(default_factory=list)
    image_shape: list[int] | None = None
    pixels: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    event_times: np.ndarray | None = None
    terms: DesignTerms | None = None
    imputation: Imputation | None = None
    middle: float = 0.0

    @classmethod
    def of(cls, agreement: Agreement) -> Setup:
        """Start from what the sites agreed on."""
        return cls(
            agreement.features,
            agreement.categories,
            agreement.classes,
            hospitals=agreement.hospitals,
            task_classes=agreement.task_classes,
            sequence_length=agreement.sequence_length,
            sequence_shortest=agreement.sequence_shortest,
            covariates=agreement.covariates,
            image_shape=agreement.image_shape,
            pixels=agreement.pixels,
            facts=agreement.facts,
            middle=agreement.middle,
        )

    def labels_of(self, target: str) -> dict[str, list[Label]]:
        """Return the labels of each target that has classes; `target` is the name of the only one."""
        return self.task_classes if self.classes is None else {target: self.classes}

    @property
    def inputs(self) -> list[str]:
        """Names of the model's inputs: numeric features, one-hot columns as ``column=value``, curves and products."""
        made = [] if self.terms is None else self.terms.names(self.features, self.categories)
        return [*self.features, *self.category_columns, *made]

    @property
    def category_columns(self) -> list[str]:
        """Names of the one-hot inputs."""
        return [f"{name}={value}" for name, values in self.categories.items() for value in values]

    def imputed_width(self, outcomes: int) -> int:
        """Return how many columns an imputation's regressions have: 1, features, categories, and of the outcome."""
        return 1 + len(self.features) + len(self.category_columns) + outcomes

    def design_columns(self, covariates: Sequence[str]) -> list[str]:
        """Name the columns of ComBat's design: a number is one, a category one for each value but the first."""
        return [
            column
            for name in covariates
            for column in (
                [f"{name}={value}" for value in self.categories[name][1:]] if name in self.categories else [name]
            )
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, tensors packed."""
        return {
            "features": self.features,
            "categories": self.categories,
            "classes": self.classes,
            "class_weights": self.class_weights,
            "hospitals": self.hospitals,
            "preparation": None if self.preparation is None else pack_arrays(self.preparation.arrays()),
            "task_classes": self.task_classes,
            "sums": pack_arrays(self.sums) if self.sums else None,
            "sequence_length": self.sequence_length,
            "sequence_shortest": self.sequence_shortest,
            "covariates": self.covariates,
            "combat": None if self.combat is None else pack_arrays(self.combat.arrays()),
            "target_scales": pack_arrays(self.target_scales) if self.target_scales else None,
            "baseline": None if self.baseline is None else pack_arrays({"hazard": self.baseline}),
            **self.hazards(),
            **({"unknown": self.unknown} if self.unknown else {}),
            "image_shape": self.image_shape,
            "pixels": self.pixels,
            **({"facts": self.facts} if self.facts else {}),
            **({} if self.event_times is None else {"event_times": pack_arrays({"times": self.event_times})}),
            **({} if self.terms is None else {"terms": self.terms.to_json()}),
            **({} if self.imputation is None else {"imputation": self._packed_imputation()}),
            **({"middle": self.middle} if self.middle else {}),
        }

    def hazards(self) -> dict[str, Any]:
        """Return the part of the JSON form that is of the hospitals' baseline hazards."""
        return {"baselines": pack_arrays(self.baselines) if self.baselines else None}

    def _packed_imputation(self) -> dict[str, Any]:
        made = self.imputation
        assert made is not None  # noqa: S101
        return {"columns": made.columns, "seed": made.seed, "draws": pack_arrays(made.arrays())}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Setup:
        """Read the JSON form; raises WireError when it is malformed."""
        try:
            packed, combat, terms = content["preparation"], content["combat"], content.get("terms")
            made = content.get("imputation")
            preparation = None if packed is None else Preparation(**unpack_arrays(packed))
            return cls(
                list(content["features"]),
                {str(name): list(values) for name, values in content["categories"].items()},
                content["classes"],
                content["class_weights"],
                preparation,
                [str(name) for name in content["hospitals"]],
                {str(name): list(values) for name, values in content["task_classes"].items()},
                unpack_arrays(content["sums"]) if content["sums"] else {},
                content["sequence_length"],
                content["sequence_shortest"],
                covariates=[str(name) for name in content["covariates"]],
                combat=None if combat is None else Combat(**unpack_arrays(combat)),
                target_scales=unpack_arrays(content["target_scales"]) if content["target_scales"] else {},
                baseline=unpack_arrays(content["baseline"])["hazard"] if content["baseline"] else None,
                baselines=unpack_arrays(content["baselines"]) if content.get("baselines") else {},
                unknown=[[int(place) for place in fold] for fold in content.get("unknown") or []],
                image_shape=content["image_shape"] and [int(length) for length in content["image_shape"]],
                pixels=[str(name) for name in content["pixels"]],
                facts=dict(content.get("facts") or {}),
                event_times=unpack_arrays(content["event_times"])["times"] if content.get("event_times") else None,
                imputation=made
                and Imputation.check(made, unpack_arrays(made["draws"]), content["features"], content["categories"]),
                terms=DesignTerms.from_json(terms, content["features"], content["categories"]) if terms else None,
                middle=_middle(content.get("middle", 0.0)),
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            raise WireError("the setup in the request is malformed") from None

    def readable(self, fold: int = 0) -> dict[str, Any]:
        """Return features, classes and the numbers of one fold as plain JSON, for the result and the model file."""
        numbers: dict[str, Any] = {}
        if self.preparation is not None:
            numbers = {name: array[fold].tolist() for name, array in self.preparation.arrays().items()}
        return {
            "features": self.features,
            "categories": self.categories,
            "classes": self.classes,
            **({"task_classes": self.task_classes} if self.task_classes else {}),
            **({"class_weights": self.class_weights[fold]} if self.class_weights else {}),
            **({"unknown": self._unknown_of(fold)} if self.unknown else {}),
            **({"sequence_length": self.sequence_length} if self.sequence_length else {}),
            **({"image_shape": self.image_shape} if self.image_shape else {}),
            **({"pixels": self.pixels} if self.pixels else {}),
            **({"facts": self.facts} if self.facts else {}),
            **({} if self.terms is None else {"terms": self._readable_terms(fold)}),
            "inputs": len(self.inputs),
            **numbers,
            **(
                {"combat": {name: array[fold].tolist() for name, array in self.combat.arrays().items()}}
                if self.combat
                else {}
            ),
            **({"target_scaling": self._readable_targets(fold)} if self.target_scales else {}),
            **({"edges": metric_edges(self.sums, self.middle)} if "event_times" in self.sums else {}),
            **({} if self.baseline is None else {"baseline": self._readable_baseline(self.baseline[fold], fold)}),
        }

    def _readable_terms(self, fold: int) -> dict[str, Any]:
        assert self.terms is not None  # noqa: S101
        content = self.terms.to_json()
        return content | {"knots": {name: places[fold] for name, places in content["knots"].items()}}

    def _unknown_of(self, fold: int) -> list[str]:
        return [self.category_columns[place] for place in self.unknown[fold]]

    def _readable_targets(self, fold: int) -> dict[str, Any]:
        scales = {name: scale[fold].tolist() for name, scale in self.target_scales.items()}
        return {name: {"mean": mean, "sd": sd} for name, (mean, sd) in scales.items()}

    def _readable_baseline(self, hazard: np.ndarray, fold: int) -> dict[str, Any]:
        sites = {name: hazards[fold].tolist() for name, hazards in self.baselines.items() if hazards[fold].min() >= 0}
        return {
            "times": metric_edges(self.sums, self.middle),
            "cumulative_hazard": hazard.tolist(),
            **({"sites": sites} if sites else {}),
        }

    def for_hospitals(self, names: Collection[str]) -> Setup:
        """Return the setup with the baseline hazards of these hospitals only: nobody is sent another's."""
        return replace(self, baselines={name: hazard for name, hazard in self.baselines.items() if name in names})


def pack_arrays(arrays: dict[str, np.ndarray]) -> str:
    """Pack float64 arrays for a message."""
    return wire.pack_arrays(arrays)


def unpack_arrays(text: Any) -> dict[str, np.ndarray]:
    """Read what `pack_arrays` made."""
    return {name: tensor.numpy() for name, tensor in wire.unpack(text).items()}


def _middle(given: float) -> float:
    """Return a mean binary logarithm, checked: float64 holds times of up to 2 to the 1024."""
    if not abs(float(given)) <= 1100:
        raise ValueError
    return float(given)
