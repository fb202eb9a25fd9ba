"""What a site tells of its table beside columns and labels, by which the researcher sees that something is amiss.

`preparing` puts it into the answer to the first question of a run; docs/what-leaves-the-hospital.md lists it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.description.table_columns import TableColumns
from v6_algorithm.site.guard.order import digest

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.site.work import Work

# Of so many rows one value is no accident.
_FEWEST_ALIKE = 10


def table_facts(work: Work, columns: TableColumns, schema: dict[str, Any], *, sizes: bool) -> dict[str, Any]:
    """Return entries of a site's schema: columns that tell the target, columns of codes, copies of rows.

    Of classes and codes of fewer rows than the node's smallest cell nothing is told. With `sizes` also how large the
    numbers are that are learned, of images and series too.
    """
    from v6_algorithm.data.description.describe import MOST_HINTED, codes_of
    from v6_algorithm.data.description.leaks import telling_columns
    from v6_algorithm.data.description.repeats import row_hashes
    from v6_algorithm.data.targets import known_rows

    frame = columns.frame
    facts: dict[str, Any] = {}
    if schema["synthetic"]:
        return facts
    if sizes and (told := _target_sizes(work, frame)):
        facts["target_sizes"] = told
    if not work.kind.tables or frame.shape[1] > MOST_HINTED:
        return facts
    smallest = max(work.policy.minimum_cell, work.policy.minimum_label_rows)
    numeric = [name for name, kind in schema["columns"].items() if kind == "numeric"]
    if leaks := telling_columns(frame, numeric, work.experiment.data.categorical, work.targets, smallest, columns):
        facts["leaks"] = leaks
    if codes := codes_of(frame, smallest, columns):
        facts["codes"] = codes
    hides = work.experiment.privacy.secure_aggregation is not None
    # Of rows without a target nothing is learned.
    known = known_rows(frame, work.targets)
    learned = columns if known.all() else TableColumns(frame.loc[known])
    hashes = row_hashes(learned.frame, schema["columns"], schema["hints"], learned)
    if hashes is not None:
        if (repeated := hashes.repeated()) and work.experiment.data.group is None:
            facts["repeated"] = None if hides else work.policy.disclosed(repeated)
        if work.policy.patient_hashes and not hides:
            key = work.policy.aggregation_secret or digest(work.experiment.for_sites())
            facts["table"] = hashes.of_table(key.encode())
    return facts


def _target_sizes(work: Work, frame: pd.DataFrame) -> dict[str, tuple[int, float | None, int]]:
    """Return by column how large the numbers are that are learned: rows that are not 0, and of these two more.

    The mean binary logarithm of their size, or None where all rows with a number have the same; and 1 or -1 where all
    have this sign, else 0.
    """
    from v6_algorithm.data.targets import encoded_target

    told: dict[str, tuple[int, float | None, int]] = {}
    for target in work.targets:
        if target.kind not in ("number", "count"):
            continue
        _, values = encoded_target(frame[target.column], target)
        sizes, sign = np.abs(values[values != 0]), int(values.min(initial=1) >= 0) - int(values.max(initial=-1) <= 0)
        if len(values) >= max(work.policy.minimum_cell, _FEWEST_ALIKE) and (values == values[0]).all():
            told[target.column] = (len(sizes), None, sign)
        elif len(sizes) >= max(work.policy.minimum_cell, 1) and target.kind == "number":
            told[target.column] = (len(sizes), float(np.log2(sizes).mean()), sign)
    return told
