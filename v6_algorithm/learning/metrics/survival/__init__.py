"""Metrics of times until an event: what a site collects (`collector`), what can be done with its state (`state`), the
counting of pairs (`concordance`), and a Cox model's survival curves (`baseline`)."""

from v6_algorithm.learning.metrics.survival.baseline import BaselineSums, check_baseline, cumulative, survival
from v6_algorithm.learning.metrics.survival.calibration import calibration_at_horizons, calibration_over_time
from v6_algorithm.learning.metrics.survival.collector import SurvivalMetrics
from v6_algorithm.learning.metrics.survival.over_time import auroc_over_time

__all__ = [
    "BaselineSums",
    "SurvivalMetrics",
    "auroc_over_time",
    "calibration_at_horizons",
    "calibration_over_time",
    "check_baseline",
    "cumulative",
    "survival",
]
