"""How the sites' replies become the next model: the strategies by name.

`master` makes one for each fold with `create_strategy`, and calls it as `pipeline.FedAvg` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from v6_algorithm.experiment import plugins
from v6_algorithm.experiment.strategy.kinds import ONE_GRADIENT

if TYPE_CHECKING:
    from v6_algorithm.coordinator.strategies.pipeline import FedAvg
    from v6_algorithm.exchange.wire import StateSpec
    from v6_algorithm.experiment import Experiment


def create_strategy(experiment: Experiment, spec: StateSpec, rows: Mapping[str, float]) -> FedAvg:
    """Make the experiment's strategy for one fold.

    One site alone, in the modes ``centralised`` and ``local``, has nobody to be combined with: it trains plainly. Only
    FedSGD and Newton stay what they are there, for their step is the training.

    Parameters
    ----------
    experiment
        The experiment.
    spec
        Kind, shape and dtype of every tensor of the model.
    rows
        Site to training rows in this fold.
    """
    from v6_algorithm.coordinator.strategies import (
        cyclic,
        fairness,
        heterogeneity,
        newton,
        optimisers,
        penalised,
        pipeline,
    )
    from v6_algorithm.experiment.strategy import kinds as sections

    classes: dict[str, type[FedAvg]] = {
        "fedavg": pipeline.FedAvg,
        "fedavgm": optimisers.FedAvgM,
        "fedopt": pipeline.FedAvg,
        "fedadam": optimisers.Adaptive,
        "fedyogi": optimisers.Adaptive,
        "fedadagrad": optimisers.Adaptive,
        **dict.fromkeys(ONE_GRADIENT, optimisers.FedSGD),
        "cyclic": cyclic.Cyclic,
        "newton": newton.Newton,
        "fedprox": heterogeneity.FedProx,
        "moon": heterogeneity.Moon,
        "scaffold": heterogeneity.Scaffold,
        "fednova": heterogeneity.FedNova,
        "feddyn": heterogeneity.FedDyn,
        "qfedavg": fairness.QFedAvg,
        "agnostic": fairness.AgnosticFL,
    }
    section = experiment.strategy
    if experiment.mode != "federated" and section.kind not in (*ONE_GRADIENT, "newton"):
        section = sections.FedAvg()
    if experiment.model.kind == "cox":
        classes["newton"] = newton.CoxNewton
    elif getattr(experiment.model, "penalty", None) is not None:
        classes["newton"] = penalised.PenalisedNewton
    made = classes[section.kind] if section.kind in classes else plugins.strategy(section.kind)
    return made(experiment, section, spec, rows)
