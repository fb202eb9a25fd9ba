"""An experiment's most used keys as plain arguments of `master`, for forms that know no JSON, such as vantage6's own.

`entry` calls `with_arguments`; `algorithm_store.json`, from which vantage6 makes its form, is checked against `PATHS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment.reading import put

# The argument and the key of the experiment that it sets.
PATHS = {
    "target": "data.target",
    "positive": "data.positive",
    "features": "data.features",
    "categorical": "data.categorical",
    "exclude": "data.exclude",
    "group": "data.group",
    "scaling": "data.scaling.kind",
    "missing": "data.missing.kind",
    "problem": "problem.kind",
    "model": "model.kind",
    "hidden": "model.hidden",
    "train_share": "split.train",
    "validation_share": "split.validation",
    "test_share": "split.test",
    "folds": "split.folds",
    "rounds": "rounds",
    "local_epochs": "training.local_epochs",
    "batch_size": "training.batch_size",
    "optimizer": "training.optimizer.kind",
    "learning_rate": "training.optimizer.lr",
    "patience": "stopping.patience",
    "seed": "seed",
    "minimum_sites": "participation.minimum",
    "deadline_s": "participation.deadline_s",
}


def is_given(value: Any) -> bool:
    """Say whether somebody filled this in: vantage6's form sends an empty text or list for a field left empty."""
    return value is not None and value != [] and not (isinstance(value, str) and not value.strip())


def with_arguments(experiment: Any, arguments: Mapping[str, Any]) -> Any:
    """Return the experiment with the plain arguments in it.

    Parameters
    ----------
    experiment
        The mapping that was given, or None. It is not changed.
    arguments
        Argument to value, of the names in `PATHS`. One that is given sets its key whatever the experiment says, as
        ``--set`` does; one that is not (see `is_given`) changes nothing.

    Raises
    ------
    ExperimentError
        When there is neither an experiment nor an argument.
    """
    given = {PATHS[name]: value for name, value in arguments.items() if is_given(value)}
    if experiment is None and not given:
        raise ExperimentError("experiment: is required, or the plain argument `target`")
    if not given or not isinstance(experiment, (Mapping, type(None))):
        # What is not a mapping is refused where experiments are checked.
        return experiment
    if "split.folds" in given:
        given["split.kind"] = "kfold"
    content = deepcopy(dict(experiment or {}))
    for path, value in given.items():
        put(content, path, value)
    return content
