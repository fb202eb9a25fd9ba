"""Metrics of times until an event: what a site collects (`collector`), what can be done with its state (`state`), the
counting of pairs (`concordance`), and a Cox model's survival curves (`baseline`)."""

from v6_algorithm.learning.metrics.survival.baseline import BaselineSums, check_baseline, cumulative, survival
from v6_algorithm.learning.metrics.survival.collector import SurvivalMetrics

__all__ = ["BaselineSums", "SurvivalMetrics", "check_baseline", "cumulative", "survival"]
