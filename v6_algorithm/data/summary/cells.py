"""Which counts may leave a site: a cell of fewer than the node's smallest number of rows is not told.

Used by the site. Hiding small cells alone is not enough, because totals are told too: what is hidden must not follow
from what is told and its total (complementary disclosure). Two rules see to that:

- labels: what is not told is one lump of at least two labels and enough rows, its labels unnamed;
- values: cells of neighbouring rows, see `data.quantiles`, cut where the values say and never where a request does,
  which could shift an edge by a little, again and again, until a count changes, and so find a value.

How many values a column has is told as it is, also when few are missing: it is what a mean was divided by, and can be
computed from one. Statistics are over all rows of the table, whatever the target, so that asking twice with another
target does not leave the rows without one as the difference. What is not prevented: the difference of two answers
about different labels of one column (`data.positive` of "> 70" and "> 71"); the node's owner has the allowed columns
and the log of tasks for that.
"""

from __future__ import annotations

from collections.abc import Mapping

Label = int | float | str


def tell_labels(counts: Mapping[Label, int], smallest: int) -> tuple[dict[Label, int], int]:
    """Split label counts into those that may be told, and the rows of all others together.

    Parameters
    ----------
    counts
        Rows of each label, all above zero.
    smallest
        Fewest rows of a cell that may be told.

    Returns
    -------
    dict
        Label to rows, the labels in their order.
    int
        Rows whose label is not told: none, or at least `smallest` rows of at least two labels. Where all labels
        together have fewer, these few, which is the number of rows and told anyway.
    """
    hidden = {label for label, rows in counts.items() if rows < smallest}
    # The next smallest goes with them until the rest says nothing about one label; ties in the labels' order.
    for label in sorted(counts, key=lambda label: counts[label]):
        if not hidden or (len(hidden) > 1 and sum(counts[label] for label in hidden) >= smallest):
            break
        hidden.add(label)
    shown = {label: rows for label, rows in counts.items() if label not in hidden}
    return shown, sum(counts[label] for label in hidden)
