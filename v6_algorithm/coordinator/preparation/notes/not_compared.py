"""What the researcher is told of comparisons between sites that the nodes' rules leave out: silence is no all-clear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v6_algorithm.data.rows.kind import listed
from v6_algorithm.experiment import Experiment

# Rules by which a node keeps to itself how large the numbers are that are learned.
_KEEP_SIZES = ("secret_folds", "refuse_differences", "coarse_histograms")


def tell_not_compared(experiment: Experiment, rules: Mapping[str, Mapping[str, Any]], *, tables: bool) -> list[str]:
    """Name the sites whose rules keep what a comparison of tables, or of regression targets, needs.

    `rules` are those that each hospital's node says are in force, empty where it says none; `tables` says whether rows
    are those of a table; images are compared otherwise.
    """
    if len(rules) < 2:
        return []
    masked = experiment.privacy.secure_aggregation is not None
    noisy = experiment.privacy.differential_privacy is not None
    same = [site for site, of in sorted(rules.items()) if masked or of.get("patient_hashes") is False]
    sizes = [site for site, of in sorted(rules.items()) if masked or noisy or any(of.get(rule) for rule in _KEEP_SIZES)]
    notes = []
    if same and tables:
        notes.append(
            f"not compared, since nodes keep it to themselves: whether two sites have the same rows (at {listed(same)})"
        )
    if sizes and (numbers := _numbers(experiment)):
        notes.append(
            f"not compared, since nodes keep it to themselves: how large {listed(numbers)} is (at {listed(sizes)}), so "
            "that other units or another sign at a site, or one number in all its rows, would not be noticed"
        )
    return notes


def _numbers(experiment: Experiment) -> list[str]:
    """Return the columns that are learned as numbers."""
    data = experiment.data
    if data.targets is not None:
        return [f"'{column}'" for column, target in data.targets.items() if target.kind == "regression"]
    return [f"'{data.target}'"] if experiment.problem.kind == "regression" else []
