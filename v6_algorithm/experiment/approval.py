"""The hash by which a node's owner approves an experiment; `approve` prints it and the site's guard computes it anew.

It covers all that a site is told: data, problem, model, split, training, strategy, privacy, seed, who must take part.
It leaves out names of runs, and how long and how often `master` waits.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment

_NO_SCIENCE = ("name", "output")
_WAITING = ("deadline_s", "poll_s", "late")


def approved_content(experiment: Experiment) -> dict[str, Any]:
    """Return what an approval is of, as plain JSON."""
    content = {key: value for key, value in experiment.for_sites().items() if key not in _NO_SCIENCE}
    content["participation"] = {key: value for key, value in content["participation"].items() if key not in _WAITING}
    return content


def fingerprint(experiment: Experiment) -> str:
    """Return the SHA-256 of an experiment, 64 hexadecimal digits, which is the same wherever it is computed."""
    text = json.dumps(approved_content(experiment), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
