"""The node owner's rules, read from the node's own environment. No request can set or weaken them.

`V6_ALGORITHM_POLICY` names a preset, and single rules tighten it; `rules` lists them. A variable that is misspelt,
blank, out of range or looser than the preset refuses everything, for its owner meant something by it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import PolicyError
from v6_algorithm.site.rules import BY_FIELD, BY_VARIABLE, NO_RULES, PREFIX, PRESET, PRESETS, RULES

if TYPE_CHECKING:
    import numpy as np

MINIMUM_ROWS = BY_FIELD["minimum_rows"].variable
MINIMUM_PART = BY_FIELD["minimum_part_rows"].variable
MINIMUM_CELL = BY_FIELD["minimum_cell"].variable
MINIMUM_SITES = BY_FIELD["minimum_sites"].variable
ALLOWED_COLUMNS = BY_FIELD["allowed_columns"].variable
# How alike a name must be to a rule's to be taken for a misspelt one.
_ALIKE = 0.85


@dataclass(frozen=True)
class Policy:
    """What this node allows; the defaults are those of ``trusted``. `rules.RULES` says what each field means."""

    minimum_rows: int = 10
    minimum_sites: int = 1
    allowed_columns: str | None = None
    minimum_part_rows: int = 3
    minimum_cell: int = 5
    preset: str = "trusted"
    minimum_label_rows: int = 1
    allowed_queries: tuple[str, ...] | None = None
    approved_experiments: tuple[str, ...] | None = None
    request_chain: bool = False
    request_order: bool = False
    researcher_weights: bool = True
    secret_folds: bool = False
    maximum_share_of_sums: float | None = None
    refuse_differences: bool = False
    require_ledger: bool = False
    minimum_batch: int = 1
    minimum_update_rows: int = 1
    refuse_isolated_rows: bool = False
    coarse_histograms: bool = False
    round_metrics: bool = True
    patient_hashes: bool = True
    secure_aggregation_sites: int | None = None
    maximum_epsilon: float | None = None
    maximum_delta: float = 0.001
    maximum_rounds: int = 10_000
    maximum_experiments: int = 10_000
    maximum_folds: int = 1_000
    maximum_row_passes: int = 10**10
    maximum_width: int = 65_536
    maximum_layers: int = 256
    maximum_parameters: int = 10**9
    maximum_pixels: int = 2**30
    maximum_cells: int = 10**10
    maximum_seconds: int | None = None
    resident: bool = True
    ledger_folder: str | None = None
    model_folder: str | None = None
    folds_secret: str | None = None
    node_secret: str | None = None
    aggregation_secret: str | None = None

    @classmethod
    def of(cls, preset: str, **rules: Any) -> Policy:
        """Return a preset with some rules of its own, unchecked; raises PolicyError for a name that is none."""
        if preset not in PRESETS:
            raise PolicyError(f"{PRESET} of this node is {preset[:40]!r}; allowed: {', '.join(PRESETS)}")
        place = PRESETS.index(preset)
        return cls(preset=preset, **({rule.field: rule.values[place] for rule in RULES} | rules))

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        default: str = "standard",
        unavailable: Collection[str] = (),
    ) -> Policy:
        """Read the policy; a rule that cannot be read refuses everything rather than nothing.

        Parameters
        ----------
        environment
            The container's.
        default
            The preset where `V6_ALGORITHM_POLICY` names none.
        unavailable
            Switches that this infrastructure cannot hold: off in every preset, and refused where the owner sets one.

        Raises
        ------
        PolicyError
            Naming each variable that is unknown, blank, out of range, or looser than the preset.
        """
        wrong: list[str] = []
        given: dict[str, Any] = {}
        preset = str(environment.get(PRESET, default)).strip().lower()
        try:
            base = cls.of(preset)
        except PolicyError as error:
            raise PolicyError(str(error)) from None
        for name in sorted(environment):
            rule = BY_VARIABLE.get(name)
            if rule is None:
                wrong += _misspelt(name)
                continue
            try:
                value = rule.read(environment[name])
            except PolicyError as error:
                wrong.append(str(error))
                continue
            if preset != "trusted" and rule.loosens(value, of_preset := getattr(base, rule.field)):
                wrong.append(
                    f"{name} of this node is {value}, which protects less than {preset} ({_shown(of_preset)}); "
                    f"tighten it, or set {PRESET}: trusted"
                )
            if rule.field in unavailable and value:
                wrong.append(f"{name} of this node cannot be held under this version of vantage6; leave the line out")
            given[rule.field] = value
        if wrong:
            raise PolicyError("; ".join(wrong))
        return cls.of(preset, **dict.fromkeys(unavailable, False) | given)

    def in_force(self) -> dict[str, Any]:
        """Return the rules as replies carry them: of a list its length, of a path or secret if there is one."""
        in_force: dict[str, Any] = {"preset": self.preset}
        for rule in RULES:
            value = getattr(self, rule.field)
            if rule.kind in ("words", "lines"):
                value = None if value is None else len(value)
            elif rule.kind in ("path", "secret", "pattern"):
                value = value is not None
            in_force[rule.field] = round(value, 6) if isinstance(value, float) else value
        return in_force

    def check_ledger(self) -> None:
        """Refuse to answer where the owner wants a ledger that lasts over tasks, and there is none."""
        if self.require_ledger and self.ledger_folder is None:
            folder = BY_FIELD["ledger_folder"].variable
            raise PolicyError(
                f"this node answers only with a ledger that lasts over tasks ({BY_FIELD['require_ledger'].variable}), "
                f"and {folder} is not set; its owner adds a database {{label: ledger, type: folder, uri: A FOLDER OF "
                f"THE HOST}} to the node's configuration, and {folder}: /mnt/ledger to its algorithm_env"
            )

    def check_sites(self, sites: int) -> None:
        """Refuse a round with too few sites."""
        if sites < self.minimum_sites:
            raise PolicyError(f"this node takes part with at least {self.minimum_sites} sites, this run has {sites}")

    def check_rows(self, rows: int) -> None:
        """Refuse a table with too few rows."""
        if rows < self.minimum_rows:
            raise PolicyError(f"this node has fewer rows than its minimum of {self.minimum_rows}")

    def check_left_out(self, rows: int, by: str = "data.where") -> None:
        """Refuse to leave out so few rows that two answers, with them and without, would tell of them.

        `by` is the key, or the keys, of the experiment that leave them out.
        """
        if rows < self.minimum_rows:
            raise PolicyError(
                f"{by} leaves out fewer rows here than this node's minimum of {self.minimum_rows}, and the "
                "difference to all rows would tell of them"
            )

    def check_weights(self, weights: np.ndarray) -> None:
        """Refuse weights of training rows, (rows,), that make sums ones over a few rows, or leave a few out."""
        if not len(weights):
            return
        zero = int((weights == 0).sum())
        if 0 < zero < self.minimum_part_rows:
            raise PolicyError(
                f"model.weights: fewer rows here have weight 0 than this node's minimum of {self.minimum_part_rows} a "
                "part, and the difference to all rows would tell of them"
            )
        square = float((weights**2).sum())
        # Kish's effective sample size.
        if not square or float(weights.sum()) ** 2 / square < self.minimum_part_rows:
            raise PolicyError(
                "model.weights: the weights here make the sums ones over fewer rows than this node's minimum of "
                f"{self.minimum_part_rows} a part"
            )

    def check_part(self, part: str, rows: int) -> None:
        """Refuse a part of the split that holds few rows; an empty part tells nothing."""
        if self.too_few(rows):
            raise PolicyError(
                f"the split leaves fewer {part} rows here than this node's minimum of {self.minimum_part_rows} a part"
            )

    def check_values(self, column: str, rows: int) -> None:
        """Refuse statistics of a column that few training rows have a value in: the mean of one value is that value."""
        if self.too_few(rows):
            raise PolicyError(
                f"fewer training rows here have a value in column '{column}' than this node's minimum of "
                f"{self.minimum_part_rows} a part"
            )

    def too_few(self, rows: int) -> bool:
        """Say whether sums over these rows would tell about single ones; over none they tell nothing."""
        return 0 < rows < self.minimum_part_rows

    def disclosed(self, count: int) -> int | None:
        """Return a count, or None where it is of fewer than a cell has, and not of nothing."""
        return count if count == 0 or count >= self.minimum_cell else None

    def allows(self, column: str) -> bool:
        """Say whether a column may be used, or even named."""
        return self.allowed_columns is None or re.fullmatch(self.allowed_columns, column) is not None

    def check_columns(self, columns: Iterable[str]) -> None:
        """Refuse a column that is not allowed."""
        for column in columns:
            if not self.allows(column):
                raise PolicyError(f"this node does not allow column '{column}'")


def _misspelt(name: str) -> list[str]:
    """Complain of a variable that is no rule and looks like one; the name only, never the value."""
    if name in NO_RULES or name == PRESET:
        return []
    known = [PRESET, *BY_VARIABLE]
    alike = difflib.get_close_matches(name.upper(), known, 1, _ALIKE) if name.upper().startswith("V") else []
    if not alike and not name.upper().startswith(PREFIX):
        return []
    near = alike or difflib.get_close_matches(name.upper(), known, 1, 0.6)
    hint = f"; did its owner mean {near[0]}?" if near else ""
    return [f"{name[:80]} of this node is no rule of this image{hint}"]


def _shown(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value
