"""Newton's method over sites: the next coefficients of a GLM or Cox model from sums over all sites' rows.

Of a GLM the sites' tensors are means over their rows (`learning.models.glm`), so their mean weighted by rows is that of
all rows together; of a Cox model the sums come beside the model (`learning.models.cox`). The step is the one that a
fit of the pooled rows would take.
"""

from v6_algorithm.coordinator.strategies.newton.cox import CoxNewton
from v6_algorithm.coordinator.strategies.newton.design import (
    elimination,
    independent,
    independent_but,
    log_determinant,
)
from v6_algorithm.coordinator.strategies.newton.glm import LOWEST_DISPERSION, Newton
from v6_algorithm.coordinator.strategies.pipeline import FedAvg
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, Glm

__all__ = [
    "LOWEST_DISPERSION",
    "CoxNewton",
    "Newton",
    "elimination",
    "fix_offset",
    "independent",
    "independent_but",
    "log_determinant",
]


def fix_offset(strategy: FedAvg, experiment: Experiment, setup: Setup, fold: int) -> None:
    """Tell a GLM's strategy which coefficient is 1 in units of its column; raises ExperimentError without one.

    Also, where there are curves or products, which columns are rather kept than others that tell the same.
    """
    model = experiment.model
    if isinstance(strategy, Newton):
        strategy.order = elimination(setup, intercept=not isinstance(strategy, CoxNewton))
    if not isinstance(strategy, Newton) or not isinstance(model, Glm) or model.offset is None:
        return
    if model.offset not in setup.features or setup.preparation is None:
        raise ExperimentError(f"model.offset: '{model.offset}' is no numeric column that all sites have")
    place = setup.features.index(model.offset)
    strategy.offset = place + 1, float(setup.preparation.scale[fold][place])
