"""What the researcher is told of cells that are empty in training rows, and whether any is filled in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.rows.kind import listed

# Of a column of which fewer rows have a value, most of what is learned from is filled in.
_HARDLY = 1 / 3


def tell_sparse(
    features: Sequence[str],
    moments: Mapping[str, Moments],
    rows: Mapping[str, Sequence[Mapping[str, int]]],
    hidden: Mapping[str, Collection[str]],
) -> list[str]:
    """Name the columns of which less than a third of a site's training rows (of the first fold) have a value.

    `rows` are the site's rows of each part in each fold. `hidden` columns, of which a site has so few values that it
    tells no statistics, have a note of their own.
    """
    notes = []
    for site, of_site in moments.items():
        count, trained = of_site.count[0], rows[site][0]["train"]
        sparse = (count > 0) & (count < _HARDLY * trained)
        if names := [features[place] for place in sparse.nonzero()[0].tolist() if features[place] not in hidden[site]]:
            notes.append(
                f"site '{site}': less than a third of its training rows have a value in {listed(names)}; the others "
                "are filled in"
            )
    return notes


def has_empty_cells(moments: Mapping[str, Moments], rows: Mapping[str, Sequence[Mapping[str, int]]]) -> bool:
    """Say whether any cell of the training rows is empty, or may be where a site tells no statistics of a column."""
    return any(
        bool((of_site.count[fold] < parts["train"]).any())
        for site, of_site in moments.items()
        for fold, parts in enumerate(rows[site])
    )
