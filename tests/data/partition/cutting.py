"""Cutting small tables in tests: a section in, the sites' rows out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from v6_algorithm.data.partition.tables import cut_table
from v6_algorithm.experiment import parse_partition


def frame_of(labels, **columns):
    return pd.DataFrame({"y": np.asarray(labels), **columns})


def cut_frame(frame, content, seed=0, **options):
    """Return the `Parts` of a table cut as the section says; the target is `y`."""
    options = {"target": "y", "classes": True} | options
    return cut_table(parse_partition(content), frame, np.random.default_rng(seed), **options)


def cut(content, labels, seed=0, **options):
    """Return the rows of each site of a table that has labels only."""
    return cut_frame(frame_of(labels), content, seed, **options).rows


def counts(parts, labels, classes=None):
    """Return (sites, labels) counts."""
    labels = np.asarray(labels)
    classes = labels.max() + 1 if classes is None else classes
    return np.stack([np.bincount(labels[part], minlength=classes) for part in parts])
