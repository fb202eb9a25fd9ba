"""The kept model measured on groups of rows, as far as they are large enough to be told.

A group of fewer rows than the node's smallest cell is withheld, and so are as many others of its column that what is
withheld cannot be had as the difference of all rows and the groups that are told; see `summary.cells`. All folds
decide together and are added up, so that no fold tells what another one withholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.summary.cells import Label, tell_labels
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import PARTS
from v6_algorithm.learning.metrics import merge_states
from v6_algorithm.site.work import Work

if TYPE_CHECKING:
    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.problems.base import Networks, Problem
    from v6_algorithm.learning.training.device import Device
    from v6_algorithm.learning.training.loop import Rows

# Part, member hospital, column and group to a metric state.
States = dict[str, dict[str, dict[str, dict[str, Any]]]]


class GroupStates:
    """The groups of one request.

    Parameters
    ----------
    work
        The request.
    table
        The site's rows.

    Raises
    ------
    WireError
        When the request asks for some folds of a part only, which told from another request's would be single folds.
    """

    def __init__(self, work: Work, table: TableData) -> None:
        self._table = table
        self._columns = work.experiment.evaluation.columns
        self._smallest = max(work.policy.minimum_cell, work.policy.minimum_part_rows)
        asked: dict[str, list[int]] = {}
        for item in work.request["folds"]:
            for part in item.get("subgroups", []):
                if part not in PARTS[1:]:
                    raise WireError(f"subgroups are of {' and '.join(PARTS[1:])} rows")
                asked.setdefault(part, []).append(int(item["fold"]))
        for part, folds in asked.items():
            with_rows = [number for number, fold in enumerate(table.folds) if len(fold[part])]
            if folds != with_rows:
                raise WireError(f"subgroups are told over all folds that have {part} rows together, each once")
        self._told = {part: self._tell(part, folds) for part, folds in asked.items()}
        self._states: dict[str, dict[str, dict[str, dict[str, list[Any]]]]] = {
            part: {
                name: {column: {group: [] for group in shown.get((name, column), [])} for column in self._columns}
                for name in table.members
            }
            for part, shown in self._told.items()
        }

    def measure(
        self, problem: Problem, networks: Networks, rows: Rows, item: Mapping[str, Any], device: Device
    ) -> None:
        """Measure one fold's model on the groups of the parts that its item names."""
        import torch

        from v6_algorithm.learning.training import loop

        table, fold = self._table, int(item["fold"])
        for part in item.get("subgroups", []):
            numbers = table.folds[fold][part]
            for (name, column), groups in self._told[part].items():
                of_member = numbers[table.member[numbers] == table.members.index(name)]
                place = self._columns.index(column)
                for group in groups:
                    code = table.group_names[place].index(group)
                    group_rows = torch.from_numpy(of_member[table.groups[of_member, place] == code])
                    state = loop.evaluate(problem, networks, rows, group_rows, table.members, fold=fold, device=device)
                    self._states[part][name][column][group].append(state[name])

    def to_json(self) -> States:
        """Return the states over all folds."""
        return {
            part: {
                name: {
                    column: {group: merge_states(states) for group, states in groups.items()}
                    for column, groups in columns.items()
                }
                for name, columns in members.items()
            }
            for part, members in self._states.items()
        }

    def _tell(self, part: str, folds: list[int]) -> dict[tuple[str, str], list[str]]:
        """Return the groups of each member and column that are told, as their rows in all folds together allow."""
        table, shown = self._table, {}
        rows = np.unique(np.concatenate([table.folds[fold][part] for fold in folds])) if folds else np.empty(0, int)
        for number, name in enumerate(table.members):
            member_rows = rows[table.member[rows] == number]
            for place, column in enumerate(self._columns):
                codes, counts = np.unique(table.groups[member_rows, place], return_counts=True)
                names: list[Label] = [table.group_names[place][code] for code in codes]
                enough, _ = tell_labels(dict(zip(names, counts.tolist(), strict=True)), self._smallest)
                shown[name, column] = [str(group) for group in enough]
        return shown
