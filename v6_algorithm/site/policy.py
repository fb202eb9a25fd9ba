"""The node owner's rules, read from the node's own environment. No request can set or weaken them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from v6_algorithm.errors import PolicyError

MINIMUM_ROWS = "V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS"
MINIMUM_PART = "V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS_PER_PART"
MINIMUM_CELL = "V6_ALGORITHM_MINIMUM_CELL_SIZE"
MINIMUM_SITES = "V6_ALGORITHM_MINIMUM_ORGANIZATIONS"
ALLOWED_COLUMNS = "V6_ALGORITHM_ALLOWED_COLUMNS_REGEX"


@dataclass(frozen=True)
class Policy:
    """What this node allows.

    Attributes
    ----------
    minimum_rows
        Fewest rows with a target that may be learned from.
    minimum_sites
        Fewest sites that must be asked in the same round, so that a sum hides this site.
    minimum_part_rows
        Fewest rows in any part (train, validation, test) of any fold that is not empty, and fewest training rows that
        have a value in a column: sums over one row are that row.
    allowed_columns
        Regular expression that the whole name of every column used must match; None: any column.
    minimum_cell
        Fewest rows behind any count or statistic of a summary; smaller ones are not told.
    """

    minimum_rows: int = 10
    minimum_sites: int = 1
    allowed_columns: str | None = None
    minimum_part_rows: int = 3
    minimum_cell: int = 5

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Policy:
        """Read the policy; a rule that cannot be read refuses everything rather than nothing.

        Raises
        ------
        PolicyError
            Naming the variable whose value is not usable.
        """
        try:
            minimum_rows = int(environment.get(MINIMUM_ROWS, cls.minimum_rows))
            minimum_sites = int(environment.get(MINIMUM_SITES, cls.minimum_sites))
            minimum_part_rows = int(environment.get(MINIMUM_PART, cls.minimum_part_rows))
            minimum_cell = int(environment.get(MINIMUM_CELL, cls.minimum_cell))
        except ValueError:
            names = f"{MINIMUM_ROWS}, {MINIMUM_SITES}, {MINIMUM_PART} and {MINIMUM_CELL}"
            raise PolicyError(f"{names} of this node must be whole numbers") from None
        pattern = environment.get(ALLOWED_COLUMNS) or None
        try:
            re.compile(pattern or "")
        except re.error:
            raise PolicyError(f"{ALLOWED_COLUMNS} of this node is not a regular expression") from None
        return cls(minimum_rows, minimum_sites, pattern, minimum_part_rows, minimum_cell)

    def check_sites(self, sites: int) -> None:
        """Refuse a round with too few sites."""
        if sites < self.minimum_sites:
            raise PolicyError(f"this node takes part with at least {self.minimum_sites} sites, this run has {sites}")

    def check_rows(self, rows: int) -> None:
        """Refuse a table with too few rows."""
        if rows < self.minimum_rows:
            raise PolicyError(f"this node has fewer rows than its minimum of {self.minimum_rows}")

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

    def told(self, count: int) -> int | None:
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
