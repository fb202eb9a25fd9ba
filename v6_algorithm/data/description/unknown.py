"""What a table may hold in place of "not known": codes such as -9, zeros where nothing is 0, words such as na.

`hints.hint` asks here, for hints only: nobody but a hospital can say what they mean, and nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

# By which tables say that a number is not known, since a cell had to have one. Of others in the column it is as far.
_CODES = np.array(
    [digit * repeated for digit in (7, 8, 9) for repeated in (11, 111, 1111, 11111)]
    + [555, 5555, *(nines + last for nines in (990, 9990, 99990) for last in (6, 7, 8))],
    dtype=np.float64,
)
# Castor's codes for what is missing are -95 to -99.
NEGATIVE_CODES = -np.concatenate([[9.0, 95.0, 96.0, 97.0, 98.0], _CODES])
# Of UK Biobank, ADNI and panels, where all other numbers are well above.
_SMALL_CODES, _ABOVE_SMALL_CODES = -np.arange(1.0, 11.0), 10.0
# The smallest number of a column with codes, where that is below 0: one of them, or a lone -1.
BELOW_ZERO = np.array([*NEGATIVE_CODES, *_SMALL_CODES])
# As where a field has so many digits and no more.
CODES = np.concatenate([_CODES, [99.9, 999.9, 9999.9, 99.99, 999.99, 9999.99]])
# In several rows these are codes, too.
TOP_CODES = np.concatenate([CODES, [9.9, 9.99, 9.999, 8.88, 88.8, 88.88, 888.8]])
_FAR_CODE, _ROWS_BESIDE_CODES = 4.0, 10
_FAR_BELOW = NEGATIVE_CODES[NEGATIVE_CODES <= -95]
# Of stages, and the fewest rows that have such a code.
_LAST_STAGE, _FEWEST_NINES = 4, 3
NINE = 9.0
# A lone -1 beside numbers such as 0 and 1 is one of them; beside an age it is none.
_BEYOND_ONE = 10.0
# Of counts, the largest share of rows that have answers below 0, and the most of these there are.
_MOST_ANSWERS, _MOST_KINDS = 0.3, 3
# Zeros are at most this share of a column whose other numbers are so many and so different, none near 0.
_MOST_ZEROS, _FEWEST_OTHERS, _FEWEST_DIFFERENT, _NEAR_ZERO = 0.4, 20, 12, 0.2
# Below so small a share of them others may be wrong.
_LOWEST = 0.02
# Beside letters of two sexes, or of yes and no, in several languages, these say it.
_UNKNOWN_LETTERS = frozenset("uUxX?")
_PAIRS = frozenset(map(frozenset, ("FM", "MV", "MW", "KM", "HM", "EK", "NY", "JN", "NS", "NO", "NT")))
# Shorter ones may be the names of classes.
_LONG_WORD = 6
# Words by which hospitals and laboratories say so, and programs of other languages; none that may be a category.
WORDS = (
    "na", "n.a.", "n.b.", "nb", "nd", "n.d.", "ND", "NB", "N.A.", "N.B.", "N.D.", "Na", "-", "--", ".", "..", "*", "x",
    "missing", "Missing", "MISSING", "unknown", "Unknown", "UNKNOWN", "UNK", "unk", "onbekend", "Onbekend", "ONBEKEND",
    "unbekannt", "Unbekannt", "k.A.", "k. A.", "inconnu", "Inconnu", "NC", "NP", "non fait", "not done", "Not done",
    "NOT DONE", "pending", "Pending", "hemolyzed", "haemolysed", "NASK", "ASKU", "NI", "INV", "NAV",
    "n.v.t.", "nvt", "NVT", "niet bekend", "nicht bestimmt", "k.a.", "#NULL!", "#NV", "#WERT!", "#DIV/0!", "#VALUE!",
    "keine Angabe", "keine Angaben", "nicht bekannt", "nicht erhoben", "nicht gemessen", "weiß nicht", "weiss nicht",
    "geen antwoord", "geen opgave", "niet ingevuld", "niet gemeten", "niet gedaan", "weet niet", "non renseigné",
    "non renseignée", "non connu", "ne sait pas", "not known", "not recorded", "not reported", "not available",
    "not stated", "not specified", "not measured", "unspecified", "no data", "don't know", "prefer not to say",
    "prefer not to answer", "missing data", "n.r.", "nicht durchgeführt", "nicht angegeben", "onbekend/weet niet",
    "#REF!", "\\N", "#NAME?", "#NUM!", "#N/B", "#WAARDE!", "#BEZUG!", "#ZAHL!", "._",
    *(f"##USER_MISSING_{code}##" for code in (95, 96, 97, 98, 99)),
    *(f".{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
)  # fmt: skip
WORD_HINTS = {
    f"word {word}": (f"numbers beside the word '{word}'", f'data.missing_values: ["{word}"] makes those cells empty')
    for word in WORDS
}


# The same of categories, behind a code or with more said, in the languages of hospitals.
_UNKNOWN = re.compile(
    r"(-?\d+\s*[-.:=)]\s*)?("
    r"(not known|unknown|don.?t know|do not know|prefer not).*|refused( to answer)?|"
    r"not (stated|recorded|available|specified)|"
    r"unbekannt.*|wei(ß|ss) nicht|onbekend.*|weet niet.*|"
    r"desconocid[oa]s?|sin (datos?|informaci[oó]n)|no consta|no sabe.*|ns/nc|"
    r"desconhecid[oa]|ignorad[oa]|n[aã]o (sabe|informado).*|sem informa[cç][aã]o|"
    r"inconnu(e|\(e\))?s?|non (pr[eé]cis[eé]e?|renseign[eé]e?)|ne sait pas|"
    r"sconosciut[oa]|ignoto|non (noto|nota|disponibile|rilevato)|"
    r"brak( danych| informacji)?|nieznan[yaei]|nie wiadomo|nezn[aá]m[eéyý]|ismeretlen|necunoscut[aă]?|"
    r"ok[aä]nd[at]?|vet (ej|inte|ikke)|uppgift saknas|uoplyst|uk[je]+nt|ukendt|ved ikke|tuntematon|ei tiedossa|"
    r"bilinmiyor|bilinmeyen|belirsiz|άγνωστο|неизвестн[оыа]й?|нет данных|не указан[оа]?|"
    r"不明|不详|未知|未詳|無回答|未回答|모름|미상|알 ?수 ?없음)",
    re.I,
)


def _says_unknown(label: str) -> bool:
    return _UNKNOWN.fullmatch(label.strip()) is not None


def unknown_labels(labels: Sequence[int | float | str]) -> list[int | float | str]:
    """Return those of three labels or more that most likely say "not known": 9 beside 0 and 1, or unknown."""
    numbers = [label for label in labels if not isinstance(label, str)]
    found: list[int | float | str] = []
    for label in labels:
        if isinstance(label, str):
            beside = frozenset(str(other).upper() for other in labels if other != label)
            said = (
                (label in _UNKNOWN_LETTERS and beside in _PAIRS)
                or _says_unknown(label)
                or label.casefold() in {word.casefold() for word in WORDS if len(word) >= _LONG_WORD}
            )
        else:
            others = [number for number in numbers if number != label]
            far = bool(others) and min(others) >= 0 and label > 2 * max(others)
            below = bool(others) and min(others) >= 0 and label in NEGATIVE_CODES
            said = below or (far and label in (7, 8, 9, *CODES))
        found += [label] if said else []
    return found if len(labels) - len(found) >= 2 else []


def known_word(cells: Collection[str]) -> str | None:
    """Return the key of `WORD_HINTS` where these cells are all one of these words."""
    one = next(iter(cells), "")
    return f"word {one}" if set(cells) == {one} and one in WORDS else None


def has_codes(known: np.ndarray) -> bool:
    """Say whether a column has codes for "not known": below 0 where no other is, or far above all others."""
    if _has_nines(known) or _has_repeated_top(known) or _has_answers_below_zero(known):
        return True
    if _has_minus_ones_beside_amounts(known):
        return True
    others = known[~np.isin(known, CODES) & ~np.isin(known, NEGATIVE_CODES)]
    if len(others) >= _ROWS_BESIDE_CODES and known.min() in _FAR_BELOW and others.min() < 0:
        # Of numbers on both sides of 0, such as a base excess.
        return bool(known.min() < -_FAR_CODE * np.abs(others).max())
    large = others[~np.isin(others, _SMALL_CODES)]
    if len(large) and large.min() > _ABOVE_SMALL_CODES:
        others = large
    if len(others) and others.max() >= _BEYOND_ONE and (others[others != -1] > 0).all():
        others = others[others != -1]
    if len(others) < _ROWS_BESIDE_CODES or len(others) == len(known) or others.min() < 0:
        return False
    # A column of zeros and ones, or of stages, has them, too; one of a single value says nothing.
    if len(np.unique(others)) < 2:
        return False
    return bool(known.min() < 0 or known.max() > _FAR_CODE * others.max())


def _has_nines(known: np.ndarray) -> bool:
    """Say whether a few stages, such as 0 to 4, have 7, 8 or 9 beside them in several rows, and nothing between."""
    stages = known[known <= _LAST_STAGE]
    if known.min() < 0 or len(known) - len(stages) < _FEWEST_NINES or len(stages) < _ROWS_BESIDE_CODES:
        return False
    only = np.isin(known, [*range(_LAST_STAGE + 1), 7, 8, 9]).all() and 9 in known
    return bool(only) and len(np.unique(stages)) > 1


def _has_repeated_top(known: np.ndarray) -> bool:
    """Say whether the largest number is a code, such as 99.9, in several rows, and far above all others."""
    top = known.max()
    others = known[known != top]
    if top not in TOP_CODES or len(known) - len(others) < _FEWEST_NINES:
        return False
    if len(np.unique(others)) < _FEWEST_DIFFERENT:
        return False
    span = float(np.ptp(others))
    return bool(others.min() >= 0 and span > 0 and top - others.max() > span)


def _has_minus_ones_beside_amounts(known: np.ndarray) -> bool:
    """Say whether -1 stands in several rows beside amounts above 0, most with a fraction, such as a lactate."""
    minus, others = (known == -1).sum(), known[known != -1]
    if minus < _FEWEST_NINES or len(others) < _FEWEST_OTHERS or others.min() <= 0:
        return False
    return bool((others != np.floor(others)).mean() > _MOST_ZEROS)


def _has_answers_below_zero(known: np.ndarray) -> bool:
    """Say whether counts have answers such as -1 and -3 beside them, which are no counts: not all from -1 down."""
    if (known != np.floor(known)).any() or known.max() < _BEYOND_ONE:
        return False
    answers, counts = known[known < 0], known[known >= 0]
    held = np.unique(answers)
    most = _MOST_ANSWERS * len(known)
    if not 1 < len(held) <= _MOST_KINDS or len(answers) > most or len(np.unique(counts)) < _ROWS_BESIDE_CODES:
        return False
    return bool(np.isin(held, _SMALL_CODES).all() and np.ptp(held) >= len(held))


def has_zeros(known: np.ndarray) -> bool:
    """Say whether zeros stand apart from a column's other numbers, which lie well above: a cholesterol of 0.

    Not of counts and amounts, whose other numbers begin near 0: all but a few of these must be above half of their
    median, and none near 0.
    """
    zero = known == 0
    others = known[~zero]
    if not zero.any() or zero.mean() > _MOST_ZEROS or len(others) < _FEWEST_OTHERS or others.min() <= 0:
        return False
    low, median = np.quantile(others, [_LOWEST, 0.5])
    apart = low > median / 2 and others.min() > _NEAR_ZERO * median
    return bool(apart and len(np.unique(others)) >= _FEWEST_DIFFERENT)


def may_have_zeros(numbers: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Say of which columns, (columns,) bool of (rows, columns) with their ends, `has_zeros` has to look closer."""
    may = (low == 0) & (high > 0)
    if not may.any():
        return may
    columns = np.flatnonzero(may)
    some = numbers[:, columns]
    least = np.where(some > 0, some, np.inf).min(axis=0)
    few = (some == 0).sum(axis=0) <= _MOST_ZEROS * np.maximum((~np.isnan(some)).sum(axis=0), 1)
    enough = (some > 0).sum(axis=0) >= _FEWEST_OTHERS
    may[columns] = few & enough & (least < high[columns])
    return may
