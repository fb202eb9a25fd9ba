"""Cutting one site's rows into train, validation and test, or into folds: stratified, grouped, from the seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from v6_algorithm.data.rounding import rounded
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import PARTS, Given, KFold, LeaveOneSiteOut, Ratio, Tested

Array = np.ndarray
_PART_NAMES = {
    "train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2, "testing": 2,
    "unused": 3,
}  # fmt: skip
# Fewer rows of a class than this in some part, and a row more or less, rounded alike at every site, is a large share.
_FEW = 2.0

# Shares are fractions with at most this denominator, where dealing repeats itself; and so often it has to.
_LONGEST_PERIOD, _LEAST_PERIODS = 1000, 32


@dataclass(frozen=True)
class Fold:
    """Row numbers of the three parts, each an ascending (n,) int64 array."""

    train: Array
    validation: Array
    test: Array

    def __getitem__(self, part: str) -> Array:
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]


def make_folds(
    split: Ratio | KFold | LeaveOneSiteOut | Given | Tested,
    rows: int,
    generator: np.random.Generator,
    *,
    labels: Array | None = None,
    groups: Array | None = None,
    given: Sequence[Sequence[object]] = (),
    hospital: str = "",
    hospitals: Sequence[str] = (),
) -> list[Fold]:
    """Cut `rows` rows.

    Parameters
    ----------
    split
        The experiment's `split` section.
    rows
        Number of rows.
    generator
        The only source of randomness.
    labels
        (rows,) int class of each row, for stratification; None: not stratified.
    groups
        (rows,) int group of each row; no group is in two parts.
    given
        For ``given``: the columns, each with (rows,) part names or fold numbers.
    hospital, hospitals
        For ``leave_one_site_out``: whose rows these are, and all that are tested in turn.

    Returns
    -------
    list of Fold
        One for ``ratio`` and ``tested``, `folds` x `repeats` for ``kfold``, one a hospital for ``leave_one_site_out``,
        one a column (or `folds`) for ``given``. Only in the last two, and of ``tested``, may no row train.

    Raises
    ------
    DataError
        When there are too few rows or groups, a part name is unknown, or no row is left to train on.
    """
    if isinstance(split, Tested):
        return [_fold(np.full(rows, PARTS.index("test")))]
    if isinstance(split, Given):
        folds = [fold for column in given for fold in _given(split, column)]
    else:
        strata = labels if split.stratify and labels is not None else np.zeros(rows, dtype=np.int64)
        shares = _shares(split)
        units = rows if groups is None else len(np.unique(groups))
        needed = len(shares) if isinstance(split, KFold) else 1
        if units < needed:
            raise DataError(f"a {split.kind} split needs {needed} or more {'rows' if groups is None else 'groups'}")

        def deal() -> Array:
            if groups is None:
                return _spread_rare(_deal(strata, shares, generator), strata, shares, generator)
            return _deal_groups(strata, groups, shares, generator)

        if isinstance(split, KFold):
            folds = [fold for _ in range(split.repeats) for fold in _rotate(deal(), split.folds)]
        elif isinstance(split, LeaveOneSiteOut):
            at_home, away = _fold(np.full(rows, PARTS.index("test"))), _fold(deal())
            folds = [at_home if name == hospital else away for name in hospitals]
        else:
            folds = [_fold(deal())]
    for fold in folds:
        if not len(fold.train) and isinstance(split, (Ratio, KFold)):
            raise DataError("no row is left in the training part")
        if groups is not None:
            _check_groups(fold, groups)
    return folds


def empty_folds(
    split: Ratio | KFold | LeaveOneSiteOut | Given | Tested, *, columns: int = 0, hospitals: Sequence[str] = ()
) -> list[Fold]:
    """Return as many folds as `make_folds` does, of no rows: of a site that has synthetic ones only."""
    if isinstance(split, KFold):
        number = split.folds * split.repeats
    elif isinstance(split, Given):
        number = columns * (split.folds or 1)
    else:
        number = len(hospitals) if isinstance(split, LeaveOneSiteOut) else 1
    return [_fold(np.empty(0, dtype=np.int64))] * number


def draw_rows(limit: int, rows: int, generator: np.random.Generator, labels: Array | None = None) -> Array:
    """Draw `limit` of `rows` rows, each class its share where there are `labels`; ascending row numbers."""
    if limit >= rows:
        return np.arange(rows)
    strata = np.zeros(rows, dtype=np.int64) if labels is None else labels
    shares = np.array([limit, rows - limit]) / rows
    return np.flatnonzero(_spread_rare(_deal(strata, shares, generator), strata, shares, generator) == 0)


def _shares(split: Ratio | KFold | LeaveOneSiteOut) -> Array:
    if isinstance(split, KFold):
        return np.full(split.folds, 1 / split.folds)
    if isinstance(split, LeaveOneSiteOut):
        return np.array([1 - split.validation, split.validation])
    return np.array([split.train, split.validation, split.test])


def _rotate(part: Array, k: int) -> list[Fold]:
    """Make k folds of k parts: part i is tested, the next one validates."""
    return [_fold(np.where(part == i, 2, np.where(part == (i + 1) % k, 1, 0))) for i in range(k)]


def _fold(part: Array) -> Fold:
    return Fold(*(np.flatnonzero(part == number) for number in range(len(PARTS))))


# As a cell without a value is written.
_EMPTY = ("", "none", "nan", "<na>", "nat")


def _given(split: Given, column: Sequence[object]) -> list[Fold]:
    if split.folds is None:
        numbers = [_PART_NAMES.get(str(name).strip().lower()) for name in column]
        if any(str(name).strip().lower() in _EMPTY for name in column):
            raise DataError("data.split_column is empty in some rows: write unused where a row is in no part")
        if None in numbers:
            raise DataError(f"data.split_column holds other values than its allowed ones: {', '.join(_PART_NAMES)}")
        return [_fold(np.asarray(numbers))]
    try:
        part = np.asarray([float(str(number)) for number in column])
    except ValueError:
        part = np.array([np.nan])
    if not np.isin(part, np.arange(split.folds)).all():
        raise DataError(f"data.split_column must hold the number of each row's fold, 0 to {split.folds - 1}")
    return _rotate(part.astype(np.int64), split.folds)


def _deal(strata: Array, shares: Array, generator: np.random.Generator) -> Array:
    """Deal rows like cards: sorted by class, shuffled within it, always to the part that is furthest behind.

    Every part gets its share of the rows, and of each class, to within about one row.
    """
    order = _by_class(strata, generator)
    part = np.empty(len(strata), dtype=np.int64)
    # Which of the equally entitled parts comes first is drawn, or the first would always get the larger share.
    entitled = generator.permutation(len(shares))
    part[order] = _turns(len(strata), shares, entitled)
    return part


def _by_class(strata: Array, generator: np.random.Generator) -> Array:
    """Return row numbers sorted by class and shuffled within it: ``lexsort((permutation, strata))``."""
    drawn = generator.permutation(len(strata))
    shuffled = np.empty_like(drawn)
    shuffled[drawn] = np.arange(len(drawn))
    # Of 16 bits numpy sorts by their digits, in a twentieth of the time.
    few = len(strata) > 0 and strata.min() >= 0 and strata.max() < 2**16
    order: Array = shuffled[np.argsort((strata.astype(np.uint16) if few else strata)[shuffled], kind="stable")]
    return order


def _turns(rows: int, shares: Array, entitled: Array) -> Array:
    """Return the part of each row in the order of dealing: the one furthest behind, of several the first entitled."""
    if np.ptp(shares) == 0:
        # Whoever has as many as the others is behind by the same, to the last bit: they take turns.
        return np.resize(entitled, rows)
    period = math.lcm(*(Fraction(share).limit_denominator(_LONGEST_PERIOD).denominator for share in shares.tolist()))
    if rows > _LEAST_PERIODS * period and (turns := _turns_of_periods(rows, shares, entitled, period)) is not None:
        return turns
    # Python's floats, faster one by one: they are added up as numpy's are.
    parts = [(part, float(shares[part])) for part in entitled.tolist()]
    dealt = [0.0] * len(shares)
    turns_in_order = []
    for number in range(1, rows + 1):
        furthest = -math.inf
        for part, share in parts:
            behind = share * number - dealt[part]
            if behind > furthest:
                furthest, chosen = behind, part
        turns_in_order.append(chosen)
        dealt[chosen] += 1
    return np.array(turns_in_order, dtype=np.int64)


def _turns_of_periods(rows: int, shares: Array, entitled: Array, period: int) -> Array | None:
    """Return what the loop of `_turns` does, all periods at once; None where it does not begin anew after each.

    After a period, 20 rows for shares of .7, .15 and .15, nobody is behind, so that each period can be dealt by itself.
    That every one ends where the next begins is looked at, and then the turns are the loop's, to the last tie.
    """
    starts = np.arange(-(-rows // period) + 1) * float(period)
    of_entitled = shares[entitled][:, None]
    begun = np.round(of_entitled * starts)
    dealt, places = begun[:, :-1].copy(), np.arange(len(starts) - 1)
    turns = np.empty((len(places), period), dtype=np.int64)
    for step in range(period):
        # The first of those that are furthest behind, as in the loop.
        chosen = (of_entitled * (starts[:-1] + (step + 1)) - dealt).argmax(axis=0)
        dealt[chosen, places] += 1
        turns[:, step] = entitled[chosen]
    return turns.reshape(-1)[:rows] if (dealt == begun[:, 1:]).all() else None


def _spread_rare(part: Array, strata: Array, shares: Array, generator: np.random.Generator) -> Array:
    """Deal the rows of a table with rare classes anew, so that over many sites each part gets its share of them.

    Dealing rounds, and always the same way: of one positive row at each of twenty hospitals none would ever be tested.
    Where some part can expect fewer than `_FEW` rows of a class, counts by class and part are rounded at random.
    Equal shares, as of folds, are drawn already.
    """
    wanted = shares[shares > 0]
    of_row = _numbered(strata)
    rows = np.bincount(of_row)
    if np.ptp(wanted) == 0 or (rows * wanted.min() >= _FEW).all():
        return part
    drawn = _drawn(of_row, rounded(np.outer(rows, shares), generator), generator)
    # Of a row or two the first is for training.
    return drawn if shares[0] == 0 or (drawn == 0).any() else part


def _drawn(of_row: Array, counts: Array, generator: np.random.Generator) -> Array:
    """Return the part of each row, drawn so that each part gets its `counts`, (classes, parts), of every class."""
    part = np.empty(len(of_row), dtype=np.int64)
    for number, of_class in enumerate(counts):
        rows = np.flatnonzero(of_row == number)
        part[generator.permutation(rows)] = np.repeat(np.arange(len(of_class)), of_class)
    return part


def _numbered(strata: Array) -> Array:
    """Number the classes that occur from 0, in their order: ``unique(strata, return_inverse=True)[1]``."""
    low, high = int(strata.min()), int(strata.max())
    if high - low > len(strata):
        return np.unique(strata, return_inverse=True)[1]
    number = np.cumsum(np.bincount(strata - low) > 0) - 1
    numbered: Array = number[strata - low]
    return numbered


def _deal_groups(strata: Array, groups: Array, shares: Array, generator: np.random.Generator) -> Array:
    """Deal whole groups, the largest first, each to the part it brings nearest to its share of rows and classes."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    classes = np.unique(strata, return_inverse=True)[1]
    table = np.zeros((len(sizes), classes.max() + 1))
    np.add.at(table, (group, classes), 1)
    # The rows count like a class of their own: groups of one class would all start filling the first part.
    table = np.column_stack([table, sizes])
    wanted = shares[:, None] * table.sum(axis=0)
    dealt = np.zeros_like(wanted)
    part_of_group = _spread_rare_groups(table, sizes, shares, generator)
    for chosen in range(len(shares)):
        dealt[chosen] = table[part_of_group == chosen].sum(axis=0)
    for number in np.lexsort((generator.permutation(len(sizes)), -sizes)):
        if part_of_group[number] >= 0:
            continue
        # How much the squared distance to the wanted counts falls. A part without a share never comes first: what is
        # not dealt yet is wanted by the others together.
        gain = ((wanted - dealt) ** 2 - (wanted - dealt - table[number]) ** 2).sum(axis=1)
        chosen = int(np.argmax(gain))
        part_of_group[number] = chosen
        dealt[chosen] += table[number]
    return part_of_group[group]


def _spread_rare_groups(table: Array, sizes: Array, shares: Array, generator: np.random.Generator) -> Array:
    """Return the part of each group that is drawn, (groups,), -1 of the others, which are dealt.

    Drawn are those with rows of a class that few groups have, as in `_spread_rare`: the part that they would fit best
    is the same one at every site. A group that no part has room for is dealt where it does least harm.

    Parameters
    ----------
    table
        (groups, classes + 1) rows of each class, and in the last column of all.
    """
    part = np.full(len(sizes), -1, dtype=np.int64)
    wanted = shares[shares > 0]
    groups = (table[:, :-1] > 0).sum(axis=0)
    few = np.flatnonzero(groups * wanted.min() < _FEW)
    if np.ptp(wanted) == 0 or not len(few):
        return part
    # Of several rare classes in a group the rarest counts.
    few = few[np.argsort(groups[few], kind="stable")]
    drawn = np.flatnonzero((table[:, few] > 0).any(axis=1) & (sizes <= wanted.min() * sizes.sum()))
    if len(drawn):
        of_group = np.unique((table[drawn][:, few] > 0).argmax(axis=1), return_inverse=True)[1]
        counts = rounded(np.outer(np.bincount(of_group), shares), generator)
        part[drawn] = _drawn(of_group, counts, generator)
    return part


def _check_groups(fold: Fold, groups: Array) -> None:
    members = [set(groups[fold[part]].tolist()) for part in PARTS]
    if (members[0] & members[1]) | (members[0] & members[2]) | (members[1] & members[2]):
        raise DataError("data.group: a group has rows in two parts of the given split; each must be in one part")
