"""Metrics of times until an event: what a site collects (`collector`), what can be done with its state (`state`), and
the counting of pairs (`concordance`)."""

from v6_algorithm.metrics.survival.collector import SurvivalMetrics

__all__ = ["SurvivalMetrics"]
