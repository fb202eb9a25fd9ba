"""What the calls before the first round come to: sites, columns, counts and the model's tensors.

`negotiate` makes it once; all later requests are made from it, and a checkpoint keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from v6_algorithm.coordinator.preparation.schema_checks import Counts
from v6_algorithm.coordinator.preparation.shares import capped_rows
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.exchange import wire


@dataclass(frozen=True)
class Plan:
    """What training needs to know.

    Attributes
    ----------
    sites
        Names of the sites that take part.
    setup
        Columns, classes, weights and preparation.
    spec
        The tensors every reply must have.
    counts
        For each fold: hospital to rows of each part.
    rows
        Site to rows of each part in each fold; a site is a hospital, but in a centralised run it holds all.
    notes
        Sentences for the researcher.
    class_rows
        For each fold: training rows of each class, of all sites together; none where there are no classes.
    synthetic
        Hospital to its rows that are made, and only train.
    policies
        Hospital to the rules that its node says are in force.
    maximum_share
        Of all training rows that one site counts as having.
    means
        Site to what its training rows are like; see `site_means`.
    fingerprints
        Hospital to the keyed fingerprint of its table's file, of nodes that have a secret.
    silent
        The sites whose nodes measure no model in the rounds, by their owner's rule.
    filled
        Whether cells of training rows are empty, or may be, so that they are filled in.
    """

    sites: list[str]
    setup: Setup
    spec: wire.StateSpec
    counts: Counts
    rows: dict[str, list[dict[str, int]]]
    notes: list[str] = field(default_factory=list)
    class_rows: list[list[int]] = field(default_factory=list)
    synthetic: dict[str, int] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    maximum_share: float = 1.0
    means: dict[str, dict[str, Any]] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    filled: bool = True

    @property
    def folds(self) -> list[int]:
        """The folds to train: all, less those whose hospital was to be left out and is lost anyway."""
        hospitals = self.setup.hospitals
        return [n for n, members in enumerate(self.counts) if not hospitals or hospitals[n] in members]

    def weights(self, fold: int) -> dict[str, float]:
        """Return the rows that each trainer counts as having: its own, or `maximum_share` of all if that is less."""
        return capped_rows({site: self.rows[site][fold]["train"] for site in self.trainers(fold)}, self.maximum_share)

    def trainers(self, fold: int) -> list[str]:
        """Return the sites that have training rows in a fold."""
        return [site for site in self.sites if self.rows[site][fold]["train"]]

    def has(self, part: str) -> bool:
        """Say whether any hospital has rows in this part."""
        return any(member[part] for fold in self.counts for member in fold.values())

    def validates(self, site: str, fold: int) -> bool:
        """Say whether a site measures the models of a fold's rounds: it has validation rows, and its node lets it."""
        return site not in self.silent and self.rows[site][fold]["validation"] > 0

    @property
    def validated(self) -> bool:
        """Whether models are measured in the rounds at all."""
        return any(self.validates(site, fold) for site in self.sites for fold in self.folds)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, for a checkpoint."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return plain | {
            "setup": self.setup.to_json(),
            "spec": [[name, tensor_spec.to_json()] for name, tensor_spec in self.spec.items()],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plan:
        """Read the JSON form."""
        spec = wire.spec_from_json(dict(content["spec"]))
        return cls(**{**content, "setup": Setup.from_json(content["setup"]), "spec": spec})
