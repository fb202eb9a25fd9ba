"""The section of differential privacy, and what goes with it: what would pass by the noise is refused by name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment.base import AllSections, Section, refuse

# Strategies to whose sites' training the clipped and noised gradient is all that the rows say.
PRIVATE = (
    "fedavg", "fedavgm", "fedopt", "fedadam", "fedyogi", "fedadagrad", "fedsgd", "dsgd", "fedprox", "cyclic",
)  # fmt: skip
_WHY_NOT = {
    "moon": "adds a loss that compares several models",
    "scaffold": "steps along more than the noised gradient",
    "feddyn": "steps along more than the noised gradient",
    "fednova": "was not examined for it",
    "qfedavg": "tells each site's loss, to which no noise is added",
    "agnostic": "tells each site's loss, to which no noise is added",
    "newton": "sends exact sums over rows (model linear or logistic learns by steps)",
}
_OTHER = "was not examined for it"


class DifferentialPrivacy(Section):
    """DP-SGD at each site, or with unit site a clipped and noised update of each site in each round."""

    unit: Literal["sample", "patient", "site"] = Field(
        "sample",
        description="whose presence is hidden: one row's, that of all rows with one value of data.group, or all of a "
        "site's rows",
    )
    epsilon: float = Field(
        gt=0, le=1000, description="what a site's training may cost at most, over all rounds and folds"
    )
    delta: float = Field(
        gt=0, lt=1, description="chance of more than that; well below 1 / (rows of a site), which each site checks"
    )
    clip: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="largest L2 norm of a unit's gradient, or of a site's update, over all parameters",
    )
    honest_sites: int | None = Field(
        None,
        ge=1,
        description="unit site under secure aggregation: how many of the sites in a sum are taken to add their part of "
        "the noise and to tell nobody; null: threshold - 1; 1: each adds all of it",
    )
    accountant: Literal["rdp", "prv"] = Field(
        "rdp",
        description="what counts epsilon: Rényi bounds, or Opacus' PRV, which is tighter (extra dp, at each site)",
    )

    def honest_of(self, threshold: int) -> int:
        """Return how many of the sites in a sum are taken to be honest, where `threshold` of them open one.

        Raises
        ------
        ExperimentError
            When that is more than are sure to be in it.
        """
        if self.honest_sites is None:
            return max(1, threshold - 1)
        if self.honest_sites > threshold:
            raise ExperimentError(
                f"privacy.differential_privacy.honest_sites: {self.honest_sites} is more than the {threshold} sites "
                "that are sure to be in a sum (privacy.secure_aggregation.threshold)"
            )
        return self.honest_sites


def check_differential_privacy(experiment: AllSections) -> None:
    """Refuse, by name, what would tell of rows beside the noised gradients or updates, or has none of each unit."""
    section = experiment.privacy.differential_privacy
    if section is None:
        return
    strategy = experiment.strategy
    by_unit = _not_of_sites(experiment, section) if section.unit == "site" else _not_of_rows(experiment, section)
    for wrong, what in (
        (experiment.tune is not None, "tune: the tries are not counted in this version"),
        (
            strategy.kind not in PRIVATE,
            f"strategy {strategy.kind}, which {_WHY_NOT.get(strategy.kind, _OTHER)}; it goes with {', '.join(PRIVATE)}",
        ),
        (strategy.private is not None, "strategy.private: layers that stay at a site would be trained without noise"),
        (experiment.personal is not None, "personal: a model of a site alone would be trained without noise"),
        (bool(experiment.start.pretrain_epochs), "start.pretrain_epochs: the pretraining is not counted"),
        (experiment.problem.generative, f"problem {experiment.problem.kind}, which takes steps of its own"),
        (
            getattr(experiment.model, "norm", None) == "batch",
            "model.norm batch, in which a row's gradient depends on other rows, and whose statistics get no noise; "
            "allowed: layer, group, none",
        ),
        *by_unit,
    ):
        if wrong:
            raise refuse(f"privacy.differential_privacy does not go with {what}")


def _not_of_rows(experiment: AllSections, section: DifferentialPrivacy) -> list[tuple[bool, str]]:
    """Return what does not go with the units sample and patient, whose gradients have to be single ones."""
    training, problem = experiment.training, experiment.problem
    return [
        (
            problem.kind == "survival" and problem.options().method == "cox",
            "problem survival with method cox, in which a row's loss depends on other rows; "
            "method discrete_time has one of each row",
        ),
        (
            any(kind.kind == "mixup" for kind in training.augmentation),
            "training.augmentation mixup, which makes one row of two",
        ),
        (training.accumulate > 1, "training.accumulate: a step is one batch; take a larger training.batch_size"),
        (training.precision == "mixed", "training.precision mixed: noise is added in full precision"),
        (section.unit == "patient" and experiment.data.group is None, "unit patient without data.group, their column"),
        (
            section.honest_sites is not None,
            f"honest_sites and unit {section.unit}: each site adds all of its noise; honest_sites is of unit site",
        ),
    ]


def _not_of_sites(experiment: AllSections, section: DifferentialPrivacy) -> list[tuple[bool, str]]:
    """Return what does not go with unit site, of whose update all but the noised sum or update has to stay."""
    strategy, hides = experiment.strategy, experiment.privacy.secure_aggregation is not None
    return [
        (experiment.mode != "federated", f"unit site and mode {experiment.mode}, in which no site sends an update"),
        (
            hides and strategy.weighting != "uniform",
            f"unit site under privacy.secure_aggregation and strategy.weighting {strategy.weighting}: a large site's "
            "share of the sum has no bound; allowed: uniform",
        ),
        (
            hides and strategy.clip is not None,
            "unit site under privacy.secure_aggregation and strategy.clip, which would cut the noise; "
            "privacy.differential_privacy.clip bounds the update",
        ),
        (
            not hides and section.honest_sites is not None,
            "honest_sites without privacy.secure_aggregation: each site then adds all of its noise",
        ),
    ]
