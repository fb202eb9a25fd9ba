"""The researcher's own table, on which a model that a run returned is measured here, by the code that sites run.

`cli` opens it before a run, so that a table that does not fit is told before anything is trained, and measures the
model when it has come back. Nothing of this table goes to `master` or to a site, and no site's rows come here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v6_algorithm.coordinator.evaluation.returned_model import CENTRAL, WITHOUT, ReturnedModel, misfits
from v6_algorithm.coordinator.evaluation.subgroups import gap, in_order
from v6_algorithm.coordinator.result.averages import mean_and_spread, mean_of, scores
from v6_algorithm.coordinator.result.diagnostics import diagnostics
from v6_algorithm.data.preparation import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import own_policy, source_of
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment, LeaveOneSiteOut, Source
from v6_algorithm.learning.metrics import compute, explain
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site.policy import Policy

__all__ = ["CENTRAL", "CentralTable", "Measurement", "ReturnedModel"]


@dataclass(frozen=True)
class Measurement:
    """What a table tells of the models of one file.

    Attributes
    ----------
    metrics
        As a part of the result's `metrics`: `pooled` and `sites`. Of several models `pooled` is their mean; of folds
        there are `mean_over_folds` and `sd_over_folds` too, and where each site trained alone `sites` has the metrics
        of each site's model.
    by_model
        Metrics by the model's name.
    subgroups, gap
        By column and group, and by column; of several models the mean of theirs.
    diagnostics
        See `running.diagnostics`; empty of several models, whose scores are not of one scale.
    notes
        Sentences for the researcher.
    """

    metrics: dict[str, Any]
    by_model: dict[str, dict[str, Any]]
    subgroups: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    gap: dict[str, dict[str, float]] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_to(self, result: dict[str, Any]) -> None:
        """Put it into a result of `master`, as the part ``central``."""
        result["metrics"][CENTRAL] = self.metrics
        if self.subgroups:
            result.setdefault("subgroups", {})[CENTRAL] = self.subgroups
            result.setdefault("gap", {})[CENTRAL] = self.gap
        for name, content in self.diagnostics.items():
            result.setdefault(name, {})[CENTRAL] = content
        for fold in result.get("folds", []):
            name = "/".join([*([fold["site"]] if "site" in fold else []), f"fold-{fold['fold']}"])
            if name in self.by_model:
                fold["metrics"][CENTRAL] = {"pooled": self.by_model[name], "sites": {CENTRAL: self.by_model[name]}}
        result["notes"] += self.notes


class CentralTable:
    """A table of the researcher's.

    It is read once, and its images as well, however many models are measured with it.

    Parameters
    ----------
    source
        Where it is.
    where
        What messages call it: the key, option or argument that it was given by.
    """

    def __init__(self, source: TableSource, where: str = CENTRAL) -> None:
        self._where = where
        # Whose rows they are has them all before him; but a report may be shown to others, so small groups stay out.
        policy = Policy(minimum_rows=1, minimum_part_rows=1, minimum_cell=own_policy().minimum_cell)
        self._context = SiteContext({CENTRAL: source}, policy, lasting=True)

    @classmethod
    def open(
        cls, source: Source, folder: Path, where: str = CENTRAL, experiment: Experiment | None = None
    ) -> CentralTable:
        """Find a table, as `federation.simulate.source_of` does; raises ExperimentError when it is not there."""
        return cls(source_of(where, source, folder, experiment), where)

    def check(self, experiment: Experiment) -> None:
        """See that the table can be read and has the columns that an experiment names.

        Raises
        ------
        ExperimentError
            When it cannot or has not; what the sites are yet to agree on is checked by `measure`.
        """
        data = experiment.data.model_copy(update=WITHOUT)
        whole = {"data": data, "mode": "federated", "split": LeaveOneSiteOut(kind="leave_one_site_out")}
        self._describe(experiment.model_copy(update=whole))

    def measure(self, model: ReturnedModel) -> Measurement:
        """Measure all models of a file on all rows.

        Raises
        ------
        ExperimentError
            When the table has other columns, classes or images than the model needs.
        """
        model.check_measurable()
        schema = self._describe(model.experiment)
        notes = _check_fits(schema, model.experiment, next(iter(model.setups.values())), self._where)
        states, groups = {}, {}
        for name, setup in model.setups.items():
            reply = self._ask(
                "evaluate",
                model.experiment,
                setup=setup.to_json(),
                folds=[
                    {
                        "fold": 0,
                        "parameters": model.tensors[name],
                        "evaluate": ["test"],
                        "subgroups": ["test"] if model.experiment.evaluation.subgroups else [],
                    }
                ],
            )
            states[name] = reply["folds"][0]["metrics"]["test"][CENTRAL]
            groups[name] = reply.get("subgroups", {}).get("test", {}).get(CENTRAL, {})
            for key in [key for key in self._context.memory if isinstance(key, tuple) and key[0] == "rows"]:
                del self._context.memory[key]  # prepared for this model, and as large as the table
        notes += [f"{CENTRAL}: {sentence}" for sentence in dict.fromkeys(explain(next(iter(states.values()))))]
        by_model = {name: compute(state) for name, state in states.items()}
        subgroups = _groups_of(groups, model.experiment)
        (first, *others) = model.setups.values()
        return Measurement(
            _scopes(by_model, by_site=model.by_site),
            by_model,
            subgroups,
            {column: gap(by_group) for column, by_group in subgroups.items()},
            {} if others else diagnostics({CENTRAL: next(iter(states.values()))}, model.experiment, first),
            notes,
        )

    def _describe(self, experiment: Experiment) -> dict[str, Any]:
        schema: dict[str, Any] = self._ask("prepare", experiment, step="schema")["members"][CENTRAL]
        return schema

    def _ask(self, method: str, experiment: Experiment, **body: Any) -> dict[str, Any]:
        """Let this table answer as a site does, but that a bug shows its traceback."""
        body = {"experiment": experiment.in_the_clear.for_sites(), "sites": 1} | body
        request = wire.message(site=CENTRAL, round=0, attempt=1, **body)
        reply = handle(method, request, self._context, raise_bugs=True)
        if reply["status"] != "ok":
            raise ExperimentError(f"{self._where}: {reply['message']}")
        return reply


def _check_fits(schema: Mapping[str, Any], experiment: Experiment, setup: Setup, where: str) -> list[str]:
    """Refuse a table that the model cannot be measured on; return what is to be said of one that it can."""
    problems, _ = misfits(schema, experiment, setup, where)
    if problems:
        raise ExperimentError("\n".join(problems))
    # A report calls the table so.
    return misfits(schema, experiment, setup, CENTRAL)[1]


def _scopes(by_model: Mapping[str, dict[str, Any]], *, by_site: bool) -> dict[str, Any]:
    """Return the metrics by scope; see `Measurement`."""
    if list(by_model) == [""]:
        return {"pooled": by_model[""], "sites": {CENTRAL: by_model[""]}}
    whole = {name: scores(metrics) for name, metrics in by_model.items()}
    folds: dict[str, list[dict[str, Any]]] = {}
    sites: dict[str, list[dict[str, Any]]] = {}
    for name, metrics in whole.items():
        site, _, fold = name.rpartition("/") if name.rpartition("/")[2].startswith("fold-") else (name, "", "")
        sites.setdefault(site if by_site else CENTRAL, []).append(metrics)
        folds.setdefault(fold, []).append(metrics)
    rows = {"n": next(iter(by_model.values()))["n"]}
    scopes: dict[str, Any] = {
        "pooled": rows | mean_of(whole.values()),
        "sites": {name: rows | mean_of(parts) for name, parts in sorted(sites.items())},
    }
    if by_site:
        scopes["mean_over_sites"] = mean_of([scores(parts) for parts in scopes["sites"].values()])
    return scopes | (mean_and_spread([mean_of(parts) for parts in folds.values()]) if len(folds) > 1 else {})


def _groups_of(
    by_model: Mapping[str, Mapping[str, Mapping[str, Any]]], experiment: Experiment
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return metrics by column and group: which groups there are is the table's, and so the same for all models."""
    models = list(by_model.values())
    by_column: dict[str, dict[str, dict[str, Any]]] = {}
    for subgroup in experiment.evaluation.subgroups:
        by_column[subgroup.column] = {}
        for group in in_order(models[0][subgroup.column], subgroup.band_names):
            measured = [compute(model[subgroup.column][group]) for model in models]
            mean = measured[0] if len(measured) == 1 else mean_of([scores(metrics) for metrics in measured])
            by_column[subgroup.column][group] = {"n": measured[0]["n"]} | mean
    return by_column
