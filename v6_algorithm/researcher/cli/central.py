"""The researcher's own table beside a run: opened before it, so that a mistake is told early, and measured after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import terminal

if TYPE_CHECKING:
    from v6_algorithm.experiment import Experiment, Source
    from v6_algorithm.researcher.external import CentralTable


def open_central(experiment: Experiment, folder: Path) -> CentralTable | None:
    """Open the table that an experiment's `central` names, and see that it has the columns that are named too.

    Raises
    ------
    ExperimentError
        When it is not there, cannot be read or has not.
    """
    if experiment.central is None:
        return None
    table = open_table(experiment.central, folder, experiment=experiment)
    with terminal.err.status("reading central …"):
        table.check(experiment)
    return table


def open_table(
    source: Source, folder: Path, where: str = "central", experiment: Experiment | None = None
) -> CentralTable:
    """Find a table relative to a folder; raises ExperimentError when it is not there."""
    from v6_algorithm.researcher.external import CentralTable

    return CentralTable.open(source, folder, where, experiment)


def measure_central(result: dict[str, Any], table: CentralTable | None, source: Source | None) -> list[str]:
    """Measure the models of a result, and of its baselines, and add that to it.

    Returns
    -------
    list of str
        Why it could not be done; the rest of the result is kept.
    """
    if table is None or source is None:
        return []
    from v6_algorithm.researcher.external import ReturnedModel

    result["experiment"]["central"] = source.model_dump(mode="json")
    baselines = {name: baseline.pop("parameters", None) for name, baseline in result.get("baselines", {}).items()}
    unfinished = []
    try:
        with terminal.err.status("measuring on central …"):
            table.measure(ReturnedModel.of(_model_of(result), "the returned model")).add_to(result)
            for name, parameters in baselines.items():
                if parameters is not None:
                    model = ReturnedModel.of(parameters, f"the model of baseline {name}")
                    result["baselines"][name]["metrics"]["central"] = table.measure(model).metrics
    except ExperimentError as error:
        lines = str(error).splitlines()
        unfinished = [line if line.startswith("central: ") else f"central: {line}" for line in lines]
    except KeyboardInterrupt:
        unfinished = ["central: interrupted from the keyboard"]
    except Exception as error:  # Whatever it is, a night's training is not lost over it.
        unfinished = [f"central: could not be measured ({type(error).__name__}); `v6-algorithm evaluate` tries again"]
    result["notes"] += unfinished
    return unfinished


def _model_of(result: Mapping[str, Any]) -> str:
    if not isinstance(result.get("parameters"), str):
        raise ExperimentError("there is no model to measure")
    return str(result["parameters"])
