"""The section of differential privacy, and what goes with it: what would pass by the noise is refused by name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

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
    """DP-SGD at each site: gradients are clipped for each unit, and noise is added to their sum before each step."""

    unit: Literal["sample", "patient", "site"] = Field(
        "sample", description="whose presence is hidden: one row's, or that of all rows with one value of data.group"
    )
    epsilon: float = Field(
        gt=0, le=1000, description="what a site's training may cost at most, over all rounds and folds"
    )
    delta: float = Field(
        gt=0, lt=1, description="chance of more than that; well below 1 / (rows of a site), which each site checks"
    )
    clip: float = Field(1.0, gt=0, le=1e6, description="largest L2 norm of a unit's gradient, over all parameters")

    @field_validator("unit")
    @classmethod
    def _available(cls, value: str) -> str:
        if value == "site":
            raise refuse(
                "site is not available in this version: the noise would have to be shared among the sites under secure "
                "aggregation; allowed: sample, patient"
            )
        return value


def check_differential_privacy(experiment: AllSections) -> None:
    """Refuse, by name, what would tell of rows beside the noised gradients, or has no gradient of each row."""
    section = experiment.privacy.differential_privacy
    if section is None:
        return
    strategy, training, problem = experiment.strategy, experiment.training, experiment.problem
    for wrong, what in (
        (experiment.tune is not None, "tune: the tries are not counted in this version"),
        (
            strategy.kind not in PRIVATE,
            f"strategy {strategy.kind}, which {_WHY_NOT.get(strategy.kind, _OTHER)}; it goes with {', '.join(PRIVATE)}",
        ),
        (strategy.private is not None, "strategy.private: layers that stay at a site would be trained without noise"),
        (experiment.personal is not None, "personal: a model of a site alone would be trained without noise"),
        (bool(experiment.start.pretrain_epochs), "start.pretrain_epochs: the pretraining is not counted"),
        (problem.generative, f"problem {problem.kind}, which takes steps of its own"),
        (
            problem.kind == "survival" and problem.options().method == "cox",
            "problem survival with method cox, in which a row's loss depends on other rows; "
            "method discrete_time has one of each row",
        ),
        (
            getattr(experiment.model, "norm", None) == "batch",
            "model.norm batch, in which a row's gradient depends on other rows; allowed: layer, group, none",
        ),
        (
            any(kind.kind == "mixup" for kind in training.augmentation),
            "training.augmentation mixup, which makes one row of two",
        ),
        (training.accumulate > 1, "training.accumulate: a step is one batch; take a larger training.batch_size"),
        (training.precision == "mixed", "training.precision mixed: noise is added in full precision"),
        (section.unit == "patient" and experiment.data.group is None, "unit patient without data.group, their column"),
    ):
        if wrong:
            raise refuse(f"privacy.differential_privacy does not go with {what}")
