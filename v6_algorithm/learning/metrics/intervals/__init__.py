"""95 % confidence intervals of metrics, from the sums that sites send anyway: no state has a key for them.

`classification_state`, `regression` and the survival state put them beside each metric as `<metric>_low` and
`<metric>_high`. Rows count as independent. Where too few rows or events are behind a metric there is none: an interval
by a large-sample formula would look sure of what nobody knows.
"""

from v6_algorithm.learning.metrics.intervals.proportions import (
    LEAST_EVENTS,
    LEAST_ROWS,
    Interval,
    f1_interval,
    mean_of_shares,
    wilson,
)
from v6_algorithm.learning.metrics.intervals.ranking import auprc_interval, auroc_interval, c_index_interval
from v6_algorithm.learning.metrics.intervals.repeats import corrected_over_folds, on_scale, over_repeats
from v6_algorithm.learning.metrics.intervals.sums import brier_interval, difference, mae_interval, r2_interval

__all__ = [
    "LEAST_EVENTS",
    "LEAST_ROWS",
    "Interval",
    "auprc_interval",
    "auroc_interval",
    "brier_interval",
    "c_index_interval",
    "corrected_over_folds",
    "difference",
    "ends",
    "f1_interval",
    "mae_interval",
    "mean_of_shares",
    "on_scale",
    "over_repeats",
    "r2_interval",
    "wilson",
]


def ends(metric: str, interval: Interval | None) -> dict[str, float | None]:
    """Return an interval under the names that stand beside a metric's own."""
    low, high = interval or (None, None)
    return {f"{metric}_low": low, f"{metric}_high": high}
