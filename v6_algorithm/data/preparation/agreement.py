"""The columns, classes and shapes that all sites use, as `columns.agree` makes them from what each site told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Label = int | float | str


@dataclass(frozen=True)
class Agreement:
    """The columns that the run uses at every site.

    Attributes
    ----------
    features
        Numeric columns, in the order of the model's inputs.
    categories
        Categorical column to the sorted union of its values; one-hot inputs after the numeric ones.
    classes
        The sorted union of the target's labels; None when the target is a number.
    notes
        Sentences for the researcher about what was left out or is uneven.
    hospitals
        Whose tables these are, where the split needs to know.
    task_classes
        For several targets: column to the sorted union of its labels, of those that are classes.
    sequence_length
        For time series: the number of times that rows are cut to, or padded to.
    sequence_shortest
        The number of times that every row has at least.
    covariates
        Numeric columns that only harmonisation uses.
    image_shape
        For images: channels and lengths; the features are the channels.
    pixels
        For images whose pixels are columns: those.
    synthetic
        Site to its rows that are made, and only train.
    policies
        Site to the rules that its node says are in force.
    fingerprints
        Site to the keyed fingerprint of its table's file, of nodes that have a secret.
    rows
        Site to its rows with a target; under secure aggregation whether there are any.
    facts
        What an installed kind of row agreed on; see `data.rows.kind`.
    middle
        Mean binary logarithm of the event times of survival; 0 where a site does not tell it.
    silent
        Sites whose nodes measure no model in the rounds.
    """

    features: list[str]
    categories: dict[str, list[Label]]
    classes: list[Label] | None
    notes: list[str] = field(default_factory=list)
    hospitals: list[str] = field(default_factory=list)
    task_classes: dict[str, list[Label]] = field(default_factory=dict)
    sequence_length: int | None = None
    sequence_shortest: int | None = None
    covariates: list[str] = field(default_factory=list)
    image_shape: list[int] | None = None
    pixels: list[str] = field(default_factory=list)
    synthetic: dict[str, int] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    middle: float = 0.0
    silent: list[str] = field(default_factory=list)
