"""Predictions of a finished model for new rows, with the preparation it was trained with, for command line and API.

The rows are the researcher's own and stay here. They go through the code that a site measures with, so a prediction is
what that model would have been measured by; no outcome column is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.coordinator.evaluation.returned_model import CENTRAL, ReturnedModel
from v6_algorithm.coordinator.preparation.notes.assumed import tell_assumed
from v6_algorithm.data.names import named
from v6_algorithm.data.reading.assumed import disclosed
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.targets import TargetColumn, canonical
from v6_algorithm.errors import DataError, ExperimentError, SiteError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import parse_condition
from v6_algorithm.experiment.terms import weights_column

# Of missing columns, in a message.
_MOST_NAMED = 10

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.learning.problems.base import Problem


def predict(
    model: ReturnedModel, source: TableSource, site: str | None = None, times: Sequence[float] = ()
) -> pd.DataFrame:
    """Predict for each row of a table.

    Parameters
    ----------
    model
        Of one file. Of several folds the prediction is the mean of theirs.
    source
        The rows; the columns that the model was trained on must be there, others are not looked at.
    site
        Whose model, where each site trained alone (mode local); the mean of all of them when absent. Of a stratified
        Cox model whose baseline hazard gives the survival; that of all sites together when absent.
    times
        Of survival: when, in units of the duration column, in place of the model's own horizons. Between those the
        hazard is taken to be constant.

    Returns
    -------
    pandas.DataFrame
        A line for each row, in the table's order and with a dataframe's own index. Classification: a column of
        probabilities ``p(LABEL)`` for each class, and ``prediction``, the likeliest. Regression: ``prediction``.
        Survival: ``log_risk``, and ``survival(t)`` for each of the model's horizons or of `times`. Several targets:
        each column's name in front, as in ``age: prediction``. A row whose image cannot be read has empty cells.
        ``attrs["notes"]`` says how many rows have such cells, empty inputs, or values that no site had, and which
        sites have a baseline hazard of their own.

    Raises
    ------
    ExperimentError
        When a column is missing, cells are empty that may not be, there is no such site, or the model does not tell
        survival at one of the times.
    """
    own = sorted(set().union(*model.hazards.values())) if not model.by_site else []
    if site in own and (of_site := model.with_baseline_of(site)):
        model, site, own = of_site, None, []
    names = [name for name in model.setups if site is None or name == site or name.startswith(f"{site}/")]
    if not names:
        sites = sorted({name.split("/")[0] for name in model.setups}) if model.by_site else []
        known = ", ".join(sites) or "none, for there is one model for all"
        if own:
            raise ExperimentError(
                f"site '{site}': has no baseline hazard of its own; those that have: {', '.join(own)}"
            )
        raise ExperimentError(f"site '{site}': has no model of its own; those that have: {known}")
    if _class_of(model).generative:
        raise ExperimentError("a model of problem gan makes images and predicts nothing; see `v6-algorithm generate`")
    frames = []
    for name in names:
        values, index, problem = _outputs(model, model.setups[name], model.tensors[name], source)
        frames.append(_at_times(values, problem, times) if times else values)
    mean = np.mean(frames, axis=0)
    result = _named(mean, problem, model.setups[names[0]], times).set_index(index)
    result.attrs["notes"] = _notes(source, model, model.setups[names[0]], mean)
    if own:
        result.attrs["notes"].append(
            f"survival is by the baseline hazard of all sites; with `site` by that of one of these: {', '.join(own)}"
        )
    return result


def _at_times(values: np.ndarray, problem: Problem, times: Sequence[float]) -> np.ndarray:
    """Return (rows, 1 + times) log-risks and survival, from those at the model's horizons; see `predict`."""
    if problem.experiment.problem.kind != "survival":
        raise ExperimentError(
            "times are those at which a survival model is asked for survival; this model is of another kind"
        )
    horizons = np.array(getattr(problem, "horizons", [])[: values.shape[1] - 1])
    if not len(horizons):
        raise ExperimentError("times: the model has no baseline hazard, and tells log-risks alone")
    if wrong := [time for time in times if not 0 <= time <= horizons[-1]]:
        raise ExperimentError(
            f"times: survival at {wrong[0]:g} is not known; the model tells it from 0 to {horizons[-1]:g}"
        )
    ends = np.concatenate([[0.0], horizons])
    # No hazard is infinite: a survival that is rounded to 0 stays a number between the horizons too.
    hazard = -np.log(np.maximum(values[:, 1:], np.finfo(np.float64).tiny))
    hazard = np.column_stack([np.zeros(len(values)), hazard])
    curves = [np.interp(times, ends, of_row) for of_row in hazard]
    return np.column_stack([values[:, 0], np.exp(-np.array(curves).reshape(len(values), len(times)))])


def _notes(source: TableSource, model: ReturnedModel, setup: Setup, values: np.ndarray) -> list[str]:
    """Say what the model took for something else than it is: values no site had, empty cells, unreadable images."""
    from v6_algorithm.data.missing_values import without_codes

    data, notes = model.experiment.data, []
    frame = without_codes(source.read(), data.missing_values, form=source.form)
    untrained = {setup.category_columns[place] for place in setup.unknown[0]} if setup.unknown else set()
    for name, labels in setup.categories.items():
        if name in data.indicators:
            continue
        known = {label for label in labels if f"{name}={label}" not in untrained}
        unknown = sum(label not in known for label in canonical(frame[name].dropna()))
        if unknown:
            notes.append(
                f"column '{name}': {unknown} rows have a value that no site had in training; to the model it is "
                "none of them"
            )
    numbers = [name for name in setup.features if name in frame.columns] if data.image is None else []
    empty = int(frame[numbers].isna().any(axis=1).sum()) if numbers and data.sequence is None else 0
    if empty:
        notes.append(f"{empty} rows have empty cells among the inputs, which the values of the training fill")
    notes += tell_assumed({"": disclosed(source.assumed, int, lambda _: True, every=True)})
    unreadable = int(np.isnan(values).any(axis=1).sum())
    if unreadable:
        notes.append(f"{unreadable} rows have no prediction: their image is missing or cannot be read")
    return notes


def _class_of(model: ReturnedModel) -> Any:
    from v6_algorithm.learning.problems import problem_class

    return problem_class(model.experiment.problem.kind)


def _outputs(
    model: ReturnedModel, setup: Setup, tensors: wire.Packed, source: TableSource
) -> tuple[np.ndarray, pd.Index, Problem]:
    """Return (rows, numbers) float64 as metrics get them (NaN: no readable image), the rows' index, and the problem."""
    import torch

    from v6_algorithm.learning.problems import create_problem
    from v6_algorithm.learning.training.augmentation import measured
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.fitting import in_chunks
    from v6_algorithm.learning.training.loop import rows_at_once
    from v6_algorithm.learning.training.state import build_networks, load_state, spec_of
    from v6_algorithm.site import SiteContext
    from v6_algorithm.site.policy import Policy
    from v6_algorithm.site.work import Work

    experiment = model.experiment
    try:
        frame = source.read()
        missing = [name for name in _needed(model, setup) if name not in frame.columns]
        if missing:
            lacking = ", ".join(f"'{name}'" for name in missing[:_MOST_NAMED])
            more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
            what = f"column {lacking}, an input" if len(missing) == 1 else f"columns {lacking}{more}, inputs"
            there = named([str(name) for name in frame.columns])
            raise ExperimentError(f"the table lacks the {what} of the model; {there}")
        filled = frame.assign(**_any_target(model, setup)).reset_index(drop=True)
        request = wire.message(
            site=CENTRAL, round=0, attempt=1, experiment=experiment.for_sites(), sites=1, setup=setup.to_json()
        )
        policy = Policy(minimum_rows=1, minimum_part_rows=1)
        table_source = TableSource(frame=filled, base=source.folder, assumed=source.assumed)
        work = Work(request, SiteContext({CENTRAL: table_source}, policy, lasting=True))
        table = work.table(setup)
        problem = create_problem(experiment, setup)
        networks = build_networks(problem)
        load_state(networks, wire.unpack(tensors, spec_of(networks)))
        device = Device.choose(experiment.training)
        rows = work.rows(table, setup, 0, device)
        for network in networks.values():
            network.to(device.kind).eval()
        part, chunks = torch.arange(len(table.target)), []

        def add(chunk: torch.Tensor) -> None:
            inputs = measured(rows.inputs[chunk], experiment.training.augmentation)
            chunks.append(problem.prediction_of(problem.forward(networks, inputs), 0).double().cpu())

        with torch.inference_mode():
            if len(part):
                in_chunks(part, rows_at_once(problem, rows, part), add, whole=False)
            else:
                add(part)
    except (DataError, SiteError, WireError) as error:
        raise ExperimentError(f"the table: {error}") from None
    outputs = torch.cat(chunks).reshape(len(part), -1).numpy()
    if len(part) == len(frame):
        return outputs, frame.index, problem
    if table.images is None:
        raise ExperimentError(
            f"{len(frame) - len(part)} rows have empty cells, and the model was trained with data.missing "
            f"{experiment.data.missing.kind}: leave them out, or fill them"
        )
    whole = np.full((len(frame), outputs.shape[1]), np.nan)
    whole[table.position] = outputs
    return whole, frame.index, problem


def _needed(model: ReturnedModel, setup: Setup) -> list[str]:
    """Name the columns that the inputs are made of."""
    data = model.experiment.data
    if data.sequence is not None:
        return [data.sequence.column]
    if data.image is not None and data.image.column is not None:
        return [data.image.column]
    features = [name for name in setup.features if data.image is None]
    return [
        *(setup.pixels or features),
        *(data.indicators.get(name, name) for name in setup.categories),
        *setup.covariates,
    ]


def _any_target(model: ReturnedModel, setup: Setup) -> dict[str, Any]:
    """Return a valid value for each column that is learned: predictions do not depend on it, and no row is left out."""
    targets = _class_of(model).targets(model.experiment)
    weights = weights_column(model.experiment)
    return {target.column: _any_value(target, setup) for target in targets} | ({weights: 1} if weights else {})


def _any_value(target: TargetColumn, setup: Setup) -> Any:
    if target.kind == "duration":
        return 1.0
    if target.positive is not None:
        return parse_condition(target.positive)[1]
    if target.kind == "class":
        return setup.labels_of(target.column)[target.column][0]
    return 1 if target.above_zero else 0


def _named(values: np.ndarray, problem: Problem, setup: Setup, asked: Sequence[float] = ()) -> pd.DataFrame:
    """Give the numbers their names; see `predict`."""
    import pandas as pd

    kind, data = problem.experiment.problem.kind, problem.experiment.data
    if kind == "survival":
        times = asked or getattr(problem, "horizons", [])[: values.shape[1] - 1]
        return pd.DataFrame(values, columns=["log_risk", *(f"survival({time:g})" for time in times)])
    if kind == "multitask":
        parts, start = [], 0
        for name in data.targets or {}:
            labels = setup.task_classes.get(name)
            width = len(labels) if labels else 1
            part = _classes_or_number(values[:, start : start + width], labels)
            parts.append(part.add_prefix(f"{name}: "))
            start += width
        return pd.concat(parts, axis=1)
    return _classes_or_number(values, setup.classes)


def column_names(problem: Problem, setup: Setup, width: int) -> list[str]:
    """Name the numbers that a model gives of a row, as `predict` does; of classes their probabilities."""
    frame = _named(np.zeros((1, width)), problem, setup)
    return [str(name) for name in frame.columns if width == frame.shape[1] or not str(name).endswith("prediction")]


def _classes_or_number(values: np.ndarray, labels: Any) -> pd.DataFrame:
    import pandas as pd

    if not labels or values.shape[1] != len(labels):
        columns = ["prediction"] if values.shape[1] == 1 else [f"prediction_{i}" for i in range(values.shape[1])]
        return pd.DataFrame(values, columns=columns)
    frame = pd.DataFrame(values, columns=[f"p({label})" for label in labels])
    known = ~np.isnan(values).any(axis=1)
    likeliest = np.array(labels, dtype=object)[np.nan_to_num(values).argmax(axis=1)]
    frame["prediction"] = pd.Series(likeliest).where(pd.Series(known))
    return frame
