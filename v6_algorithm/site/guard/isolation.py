"""Whether a trained update gives a single row away: the node tries to read its own update before it goes.

The gradient of a linear layer that sees rows is, unit by unit, a weighted sum of the rows that the unit sees, and its
bias' gradient the sum of the same weights. A unit that sees one row gives it away as their ratio; so do two units, or
two rounds of one, that differ in one row. Weights can be made so that they do ("trap weights"), and a wide layer of
random ones sometimes does by itself where a round is one step over all rows. The guard calls it; nothing is kept but
what was sent.

References
----------
.. [1] Fowl et al. (2022), Robbing the Fed: directly obtaining private data in federated learning with modified models.
.. [2] Boenisch et al. (2023), When the curious abandon honesty: federated learning is not private (trap weights).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
# A row is read if all its numbers are, to this share of each column's standard deviation; or closer, where so many
# candidates would come as near to a row by chance.
_NEAR, _NEAREST = 2e-2, 1e-4
# So many matches by chance are allowed for in one update: in 1,000 rounds one of ten sites misses one by mistake.
_BY_CHANCE = 1e-4
# All pairs of so many units; of more, those that follow each other in some order.
_ALL_PAIRS, _NEIGHBOURS = 256, 4
# Columns by which candidates are looked up before all columns are compared.
_LOOKED_UP = 6
_DECOYS = 4


def isolated_rows(
    rows: Array, units: Array, outgoing: Array | None = None, earlier: Array | None = None, *, pairs: bool = True
) -> int:
    """Count the rows that the update of a layer gives away.

    Parameters
    ----------
    rows
        (rows, inputs) what the layer sees.
    units
        (units, inputs + 1) by how much training moved each unit's weights and, last, its bias.
    outgoing
        (units,) weights by which the next layer adds the units up, where there is one output.
    earlier
        (earlier units, inputs + 1) the same as `units` of earlier rounds.
    pairs
        Whether to look at differences of two units.

    Returns
    -------
    int
        Rows that a single unit, or the difference of two, gives to 2 % of each column's standard deviation,
        beyond what would match by chance.
    """
    spread = rows.std(axis=0)
    varying = np.flatnonzero(spread > 1e-9 * (np.abs(rows).max(axis=0, initial=0) + 1))
    if not len(varying) or len(rows) < 2:
        return 0
    units = units.astype(np.float64)
    candidates = units
    if pairs:
        candidates = _candidates(units, outgoing, None if earlier is None else earlier.astype(np.float64))
    scale = np.abs(units[:, -1]).max(initial=0)
    usable = np.isfinite(candidates).all(axis=1) & (np.abs(candidates[:, -1]) > 1e-9 * scale)
    if not scale or not usable.any():
        return 0
    guesses = candidates[usable][:, varying] / candidates[usable][:, -1:] / spread[varying]
    true = rows[:, varying].astype(np.float64) / spread[varying]
    # Far from every row there is nothing to compare.
    inside = ((guesses > true.min(axis=0) - 1) & (guesses < true.max(axis=0) + 1)).all(axis=1)
    return _beyond_chance(true, guesses[inside]) if inside.any() else 0


def _candidates(units: Array, outgoing: Array | None, earlier: Array | None) -> Array:
    """Return the sums over few rows that an asker could try: each unit, and differences of two."""
    views = [units]
    if outgoing is not None and (np.abs(outgoing) > 0).all():
        views.append(units / outgoing[:, None])
    candidates = [units]
    count = len(units)
    for view in views:
        if count <= _ALL_PAIRS:
            first, second = np.triu_indices(count, 1)
            candidates.append(view[first] - view[second])
        else:
            for order in (np.arange(count), np.argsort(view[:, -1]), np.argsort(view[:, 0])):
                candidates += [view[order[step:]] - view[order[:-step]] for step in range(1, _NEIGHBOURS + 1)]
    if earlier is not None and len(earlier):
        candidates.append((units[:, None] - earlier[None]).reshape(-1, units.shape[1]))
    return np.concatenate(candidates)


def _beyond_chance(rows: Array, guesses: Array) -> int:
    """Count rows near a guess, as near as decoys, which lie beside the rows, hardly ever are."""
    columns = rows.shape[1]
    generator = np.random.default_rng(0)
    near = _NEAR
    while True:
        # Matches grow with the distance to the power of the number of columns, so chance is seen from further off.
        factor = min(max(2.0, 1e4 ** (1 / columns)), 0.3 / near)
        matched = 0
        for _ in range(_DECOYS):
            shifts = generator.uniform(3, 6, rows.shape) * generator.choice([-1, 1], rows.shape) * near * factor
            matched += int(_matches(rows + shifts, guesses, near * factor).sum())
        chance = matched / _DECOYS / factor ** min(columns, 30)
        if chance <= _BY_CHANCE or near <= _NEAREST:
            break
        near = max(near / 3, _NEAREST)
    count = int((_matches(rows, guesses, near) > 0).sum())
    return count if count > (3 * chance + 5 * np.sqrt(chance) + 3 if chance > _BY_CHANCE else 0) else 0


def _matches(rows: Array, guesses: Array, near: float) -> Array:
    """Count the guesses that come near to each row in every column: (rows,)."""
    order = np.argsort([-len(np.unique(column)) for column in rows.T], kind="stable")[:_LOOKED_UP]
    # Cells as wide as the distance: what is near lies in the same one or in one beside it.
    first = order[0]
    sorted_guesses = guesses[np.argsort(guesses[:, first], kind="stable")]
    low = np.searchsorted(sorted_guesses[:, first], rows[:, first] - near)
    high = np.searchsorted(sorted_guesses[:, first], rows[:, first] + near)
    matches = np.zeros(len(rows), dtype=np.int64)
    for number, (start, end) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        block = sorted_guesses[start:end]
        for column in order[1:]:
            if not len(block):
                break
            block = block[np.abs(block[:, column] - rows[number, column]) <= near]
        if len(block):
            matches[number] = (np.abs(block - rows[number]) <= near).all(axis=1).sum()
    return matches
