"""Every metric as a sum of per-site statistics. A problem fills a collector with its predictions,
the site sends `state()`, the master merges the states and computes: the federated value is the
pooled value, and no row leaves its site. Needs numpy only."""

from v6_algorithm.experiment.metric_names import METRIC_NAMES, higher_is_better, is_score, is_sensitivity
from v6_algorithm.learning.metrics.classification import ClassificationMetrics
from v6_algorithm.learning.metrics.generation import GenerationMetrics
from v6_algorithm.learning.metrics.means import MeanMetrics
from v6_algorithm.learning.metrics.regression import RegressionMetrics
from v6_algorithm.learning.metrics.states import (
    CheckedState,
    check_state,
    checked_state,
    compute,
    explain,
    merge_by_name,
    merge_states,
    scores_by_name,
    scores_of,
    shape_of,
)
from v6_algorithm.learning.metrics.survival import SurvivalMetrics
from v6_algorithm.learning.metrics.tasks import TaskMetrics

__all__ = [
    "METRIC_NAMES",
    "CheckedState",
    "ClassificationMetrics",
    "GenerationMetrics",
    "MeanMetrics",
    "RegressionMetrics",
    "SurvivalMetrics",
    "TaskMetrics",
    "check_state",
    "checked_state",
    "compute",
    "explain",
    "higher_is_better",
    "is_score",
    "is_sensitivity",
    "merge_by_name",
    "merge_states",
    "scores_by_name",
    "scores_of",
    "shape_of",
]
