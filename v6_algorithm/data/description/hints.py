"""Why a column is not used as it stands, or only in part: what its texts or its numbers look like, and what to write.

Nothing is changed here: `description` tells the coordinator, and that the researcher.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.description.mixed_columns import (
    counted,
    has_outlier,
    has_two_units,
    may_have_outlier,
    may_have_two_units,
    mixed_marks,
)
from v6_algorithm.data.description.unknown import (
    BELOW_ZERO,
    NINE,
    TOP_CODES,
    WORD_HINTS,
    has_codes,
    has_zeros,
    known_word,
    may_have_zeros,
)
from v6_algorithm.data.reading.cells import FLOAT32_MAX, NUMBER
from v6_algorithm.data.reading.texts import Texts, texts_of

if TYPE_CHECKING:
    import pandas as pd

# Text that is numbers of a laboratory, but not to a computer.
_LIMIT = re.compile(r"[<>≤≥]=?\s*[+-]?\d+([.,]\d+)?|\d+([.,]\d+)?\s*\+")
_PERCENT = re.compile(r"[+-]?\d+([.,]\d+)?\s*%")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+(\.\d{3})*,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_THOUSANDS_APOSTROPHE = re.compile(r"[+-]?\d{1,3}('\d{3})+([.,]\d+)?")
_THOUSANDS_DOT = re.compile(r"[+-]?\d{1,3}(\.\d{3}){2,}(,\d+)?")
_OTHER_MINUS = re.compile(r"[\u2212\u2012\u2013\ufe63\uff0d]\s*\d+([.,]\d+)?")
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})|\d{4}-W\d{2}(-\d)?|"
    r"\d{1,2}[ -][A-Za-z]{3}[ -]\d{2,4})"
    r"([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*(Z|[+-]\d{2}:?\d{2}|[AaPp][Mm])?)?|P(\d+[YMWD])+|\d{1,3}:\d{2}(:\d{2})?"
)
_THOUSANDS_SPACE = re.compile(r"[+-]?\d{1,3}([ \u00a0\u202f\u2009]\d{3})+([.,]\d+)?")
# By what `hint` calls them: numbers that the form's marks make readable, and what stands beside numbers.
_MARKED = {"thousands": _THOUSANDS, "thousands space": _THOUSANDS_SPACE, "decimal comma": _DECIMAL_COMMA}
_MARKED |= {"thousands apostrophe": _THOUSANDS_APOSTROPHE, "thousands dot": _THOUSANDS_DOT}
_PAIR = re.compile(r"\d{1,4}(\.\d+)?\s*[/:]\s*\d{1,4}(\.\d+)?")
# As accountants write numbers below 0.
_BRACKETS = re.compile(r"\(\s*\d+([.,]\d+)?\s*\)")
_QUOTED = re.compile(
    r"=?\s*[\"'\u2018-\u201f\u00ab\u00bb]\s*[+-]?\d+([.,]\d+)?\s*[\"'\u2018-\u201f\u00ab\u00bb]|[='\u2018\u2019]\s*[+-]?\d+([.,]\d+)?"
)
_DIGITS = re.compile(r"(?=.*[^\x00-\x7f])[+-]?\d+([.,\u066b\uff0e]\d+)?")
# Of Fortran and SAS, and of computers.
_NOTATION = re.compile(r"[+-]?\d+(\.\d*)?[dD][+-]?\d+|0x[0-9a-fA-F]+")
_BESIDE = {"percent": _PERCENT, "limits": _LIMIT, "minus": _OTHER_MINUS, "negatives": _BRACKETS}
# As laboratories mark what is out of range or was corrected.
_FLAGGED = re.compile(r"[*!\u2191\u2193]+\s*[+-]?\d+([.,]\d+)?|[+-]?\d+([.,]\d+)?\s*[*!\u2191\u2193]+")
# "120 ± 5", "1.2 x 10^3", "ca. 5 mg", "12,".
_MORE = re.compile(
    r"(~|\u2248|ca\.?|circa)\s*\d+([.,]\d+)?(\s*[^\d\s]\D*)?|"
    r"\d+([.,]\d+)?\s*(([±]|\+/-)\s*\d+([.,]\d+)?|[x×*]\s*10\s*(\^|\*\*)?\s*-?\d+|[.,;])"
)
_BESIDE |= {"more": _MORE, "flags": _FLAGGED, "quotes": _QUOTED, "digits": _DIGITS, "notation": _NOTATION}
# A unit stands behind its number, but for that of money: "subject12" is a name, and so is what begins with zeros.
_UNIT = re.compile(r"([€$£¥]|CHF|EUR|USD|GBP)?\s*[+-]?(?!0\d)\d+(?:[.,]\d{3})*(?:[.,]\d+)?\s*([^\d\s.,;:<>+-]\D*)?")
_DIGIT = re.compile(r"\d")
_IS_UNIT = re.compile(r"[^\W_]|[€$£°]")
# So many different numbers beside one unit are no stages such as T1 and T2.
_MEASURED = 10
# A column is meant as numbers when so many of its cells are; and as of several units when there are no more than these.
_MOSTLY = 0.8
_FEW_WORDS, _MOST_WORDS = 3, 0.5
_MOST_UNITS = 4
# So many numbers of either kind, and so different, show that some are written with a dot for thousands.
_FEWEST_DOTTED, _DOTTED_APART = 3, 10.0
_NEAR_THOUSAND = (800.0, 1.2)
# Days that Excel counts, days such as 20240131, seconds and milliseconds from 1970; and names of columns of dates.
_DATES_FROM = ((10_000, 60_000), (19_000_101, 21_001_231), (3e8, 3e9), (3e11, 3e12))
# The same of 2000 to 2040, the calendar's of 1900 on; and so many rows and different days of a column of another name.
_RECENT = ((36_526, 51_500), (19_000_101, 20_401_231), (9e8, 2.3e9), (9e11, 2.3e12))
_FEWEST_DATES, _DIFFERENT_DATES = 20, 5
_DATE_NAME = re.compile(
    r"(?i:\b|_)(?i:date|datum|dob|dat|birth|geb|geboorte\w*|geburts\w*|timestamp|created|updated|at)(?i:\b|_)|"
    r"[a-z]D(ate|at|atum)\b"
)
_AGE_NAME = re.compile(
    r"(?i)(.*[\s_.-])?(age|alter|leeftijd|edad|et[aà]|idade|wiek|ya[sş]|[aå]lder|v[eě]k|年齢|年龄)\d*([\s_.(\[-].*)?"
)
# Nobody is older; a date of birth of 1900, or Excel's first day, that stands for "not known" makes patients so old.
_OLDEST = (120, 130)
# Somebody of a table whose ages are in years, and of years of two digits: 2068 for 1968 is an age of -43.
_GROWN, _UNBORN = 40, -100
# Whole numbers that never repeat in so many rows count rows or patients.
_ROWS_THAT_COUNT = 100
# Of numbers that go up: above all years, and the most rows of each on average.
_ABOVE_YEARS, _VISITS = 2_200, 5
_ROWS_GIVEN_OUT, _LONG_NUMBER, _MOST_LONG = 40, 100_000, 0.8
# Standard deviation as a share of the range: 0.29 of numbers given out in turn, about 0.22 of so many measurements.
_EVENLY_SPREAD = 0.27
# The largest share of rows in which -1 beside 0 and 1 is most likely "not known".
_FEW_MINUS_ONES = 0.2
# Of concentrations: the largest is so many times the median, whose logarithm is in this part of the range.
_FAR_BELOW_LARGEST, _MIDDLE = 6.0, (0.3, 0.7)
# Of a few patients the number is not known.
_LEAST_KNOWN = 0.95

# What `hint` returns: why a column is not used as it stands, and what to write to use it.
HINTS = {
    "decimal comma": ("numbers with a decimal comma", 'data.decimal: ","'),
    "thousands": ("numbers with a thousands mark", 'data.thousands: ","'),
    "thousands space": ("numbers with a space for thousands", 'data.thousands: " "'),
    "thousands apostrophe": ("numbers with an apostrophe for thousands", 'data.thousands: "\'"'),
    "thousands dot": ("numbers with a dot for thousands", 'data.thousands: "." with data.decimal: ","'),
    "both marks": (
        "numbers with a decimal comma beside numbers with a decimal point",
        "write all with one mark there",
    ),
    "counted": (
        "numbers with a word behind, such as 3 episodes",
        "write the number alone there, or use them with data.categorical",
    ),
    "two units": (
        "numbers of two sizes with none in between, as of two units in one column",
        "are all in one unit? Convert them there, or leave the column out with data.exclude",
    ),
    "outlier": (
        "a number more than a million times as far from the middle as half of the others are, beside which all others "
        "are next to alike",
        "correct it there, or name it in data.missing_values",
    ),
    "minus one": (
        "-1 in a few rows beside 0 and 1, learned from as it is",
        "if it means that nothing is known, data.missing_values: {COLUMN: [-1]} makes those cells empty",
    ),
    "minus": ("numbers with another sign for minus than -", "write - there"),
    "units": ("numbers with a unit", "take the unit out there"),
    "several units": ("numbers with several units", "write them in one unit there, and without it"),
    "percent": ("numbers with a percent sign", "take the sign out there"),
    "limits": ("numbers beside limits such as < 1", "write a number there, or data.missing_values for the limits"),
    "words": ("numbers beside a few words", "name the words in data.missing_values"),
    "names": (
        "texts that never repeat, such as names of patients or samples",
        "data.categorical uses them all the same",
    ),
    "pairs": ("two numbers in a cell, such as 120/80", "write them in two columns there"),
    "arrays": ("arrays", "name it in data.image or data.sequence"),
    "dates": ("dates or times", "compute a number from them there"),
    "row numbers": (
        "whole numbers that never repeat or only go up, such as row or patient numbers",
        "name it in data.features",
    ),
    "codes": (
        "a number far from all others, such as -9 or 999, is learned from as it is",
        "if it means that nothing is known, name it in data.missing_values",
    ),
    "dots": (
        "some numbers have up to three decimals and are far smaller than the others, as where 1.234 is 1234",
        'if they are thousands, data.thousands: "." with data.decimal: ","',
    ),
    "zeros": (
        "zeros stand apart from all other numbers, and are learned from as they are",
        "if 0 means that nothing is known, data.missing_values: {COLUMN: [0]} makes those cells empty",
    ),
    "ages": (
        "ages above 120 or below 0 beside others, as of a birth in 1900 for one not known or of years of two digits",
        "correct them there, or name them in data.missing_values",
    ),
    "day numbers": (
        "dates as numbers, most likely: Excel's days (45292 is 2024-01-01), 20240101 or seconds from 1970",
        "compute a number from them there, or leave it out with data.exclude",
    ),
    "more": ("numbers with more beside them, such as ± 5, x10^3 or ca.", "write the number alone there"),
    "flags": ("numbers with a mark, such as * or !", "take the mark out there"),
    "quotes": ("numbers in quotation marks, or behind =", "take the marks out there"),
    "digits": ("numbers in the digits of another script", "write 0 to 9 there"),
    "notation": ("numbers in another notation, such as 1.5D+02 or 0x1A", "write 150 there"),
    "some dates": ("numbers or words beside dates, as Excel makes of cells such as 1-2", "write there what was meant"),
    "complex": ("complex numbers", "write the real part, or the magnitude, in a column of its own there"),
    "nested": ("structures or bytes", "write what is needed of them in columns of their own there"),
    "negatives": ("numbers of which those below 0 are in brackets, such as (1.2)", "write -1.2 there"),
    "repeats": (
        "says whose rows these are, by its name, and several are of one patient, which may be in training and test",
        "data.group: COLUMN keeps them together",
    ),
    "measured": ("numbers with fractions, which identify nobody, whatever the column is called", ""),
    "infinite": ("infinite numbers, or such as float32 cannot hold, which count as empty", ""),
    **WORD_HINTS,
}


def hint(column: pd.Series, kind: str, texts: Texts | None = None) -> str | None:
    """Say why a column is not used as it stands, or only in part: a key of `HINTS`; None where there is no reason.

    `kind` is what `description.column_kind` says of the column, and `texts` are its texts, where somebody has looked
    them up.
    """
    import pandas as pd

    if kind == "other":
        if isinstance(column.dropna().iloc[0], (list, tuple, np.ndarray)):
            return "arrays"
        if holds_complex(column):
            return "complex"
        dates = pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column)
        return "dates" if dates else None
    if kind not in ("numeric", "text"):
        return None
    texts = texts or texts_of(column)
    if kind == "numeric":
        return _hint_of_numbers(column, texts)
    if texts is None:
        known = column.dropna()
        if isinstance(known.iloc[0], (dict, set, frozenset, bytes)):
            return "nested"
        if isinstance(known.iloc[0], datetime.timedelta):
            return "dates"
        dated = [isinstance(value, (datetime.date, datetime.time)) for value in known.tolist()]
        if any(dated):
            return "dates" if sum(dated) / len(dated) >= _MOSTLY else "some dates"
    rows = _rows_of_texts(column, texts)
    every = sum(rows.values())
    rest = {cell: count for cell, count in rows.items() if not NUMBER.fullmatch(cell)}
    if (name := _one_form(rest, _MARKED | _BESIDE)) is not None:
        if name == "decimal comma" and any("." in cell for cell in rows):
            return "both marks" if mixed_marks(rows) else "thousands dot"
        return name
    if _one_form(rest, {"dates": _DATE}, _MOSTLY) is not None and sum(rest.values()) >= _MOSTLY * every:
        return "dates"
    # Numbers with marks beside something else: the marks can be declared, what else there is stands in the way.
    rest = {
        cell: count for cell, count in rest.items() if not any(pattern.fullmatch(cell) for pattern in _MARKED.values())
    }
    if (name := _one_form(rest, _BESIDE)) is not None:
        return name
    share = sum(rest.values()) / every if every else 0.0
    if share >= _MOSTLY and (name := _one_form(rest, _BESIDE, _MOSTLY)) is not None:
        return name
    if share > 1 - _MOSTLY and (name := _units(rest)) is not None and len(rows) > _MEASURED:
        return name
    if counted(rows):
        return "counted"
    if rest and _one_form(rest, {"pairs": _PAIR}, _MOSTLY) is not None and share >= _MOSTLY and len(rows) > _MEASURED:
        return "pairs"
    # A few words for "not measured" may be many rows.
    if 1 - share >= _MOSTLY or (len(rest) <= _FEW_WORDS and share <= _MOST_WORDS and len(rows) > _MEASURED):
        return known_word(rest) or "words"
    numbered = len(rows) > _MEASURED and all(_DIGIT.search(cell) for cell in rows)
    return "names" if len(rows) == every and (numbered or every >= _ROWS_THAT_COUNT) else None


def holds_complex(column: pd.Series) -> bool:
    """Say whether any cell is a complex number, whose imaginary part would be lost."""
    import pandas as pd

    dtype = column.dtype
    kind = getattr(dtype, "kind", "O")
    return kind == "c" or (
        pd.api.types.is_object_dtype(dtype) and any(isinstance(cell, complex) for cell in column.tolist())
    )


def _rows_of_texts(column: pd.Series, texts: Texts | None) -> dict[str, int]:
    """Count the rows of each text that cells hold, without spaces around it: there are few texts in many rows."""
    # Of several types: as keys 1 and True would be one.
    counted = Counter(str(value) for value in column.dropna().tolist()) if texts is None else texts.counts
    rows: dict[str, int] = {}
    for value, count in counted.items():
        cell = value.strip()
        rows[cell] = rows.get(cell, 0) + count
    return rows


def _units(cells: Iterable[str]) -> str | None:
    """Say whether all of these cells are numbers with units, of which there are few."""
    units = {"".join(match.groups("")) if (match := _UNIT.fullmatch(cell)) else "" for cell in cells}
    if len(units) > _MOST_UNITS or not all(map(_IS_UNIT.search, units)):
        return None
    return "units" if len(units) == 1 else "several units"


def without_hint(numbers: np.ndarray) -> np.ndarray:
    """Say of which columns of numbers, (columns,) bool of (rows, columns) float64, `hint` has nothing to say.

    Nothing of numbers that float32 holds, of which one has a fraction or comes twice; of others it has to look closer.
    """
    low, high = np.fmin.reduce(numbers, axis=0), np.fmax.reduce(numbers, axis=0)
    fractions = _with_fraction(numbers) | np.isnan(low)
    ordered = np.sort(numbers[:_ROWS_THAT_COUNT], axis=0)
    up = (low >= _ABOVE_YEARS) & (ordered == numbers[:_ROWS_THAT_COUNT]).all(axis=0)
    repeats = (ordered[1:] == ordered[:-1]).any(axis=0)
    coded = np.isin(low, BELOW_ZERO) | np.isin(high, TOP_CODES) | (high == NINE) | may_have_zeros(numbers, low, high)
    dotted = fractions & (high < 1000) & (high >= 100)
    some = numbers[:, dotted]
    dotted[dotted] = (some == np.floor(some)).sum(axis=0) >= _FEWEST_DOTTED
    days = np.logical_or.reduce([(low >= start) & (high < end) for start, end in _DATES_FROM])
    aged = (high > _GROWN) & (high <= _OLDEST[1])
    days |= aged & ((high > _OLDEST[0]) | ((low < 0) & (low >= _UNBORN)))
    large = np.maximum(np.abs(low), np.abs(high)) > FLOAT32_MAX
    plain: np.ndarray = (fractions | (repeats & ~up)) & ~large & ~coded & ~dotted & ~days
    plain &= ~may_have_two_units(numbers, low, high) & ~may_have_outlier(numbers, low, high)
    return plain


def _with_fraction(numbers: np.ndarray) -> np.ndarray:
    """Say of which columns, (columns,) bool of (rows, columns) float64, some number has a fraction."""
    # Mostly one of the first has.
    first, others = numbers[:_ROWS_THAT_COUNT], numbers[_ROWS_THAT_COUNT:]
    found: np.ndarray = (first > np.floor(first)).any(axis=0)
    if len(others) and not found.all():
        some = others[:, ~found]
        found[~found] = (some > np.floor(some)).any(axis=0)
    return found


def _one_form(rows: Mapping[str, int], patterns: Mapping[str, re.Pattern[str]], share: float = 1.0) -> str | None:
    """Return the first of these forms that such a share of rows has, given by text; None where there is none."""
    least = share * sum(rows.values())
    for name, pattern in patterns.items():
        if rows and sum(count for cell, count in rows.items() if pattern.fullmatch(cell)) >= least:
            return name
    return None


def _hint_of_numbers(column: pd.Series, texts: Texts | None) -> str | None:
    import pandas as pd

    if texts is None:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        numbers = texts.numbers
    known = numbers[~np.isnan(numbers)]
    if (np.abs(known) > FLOAT32_MAX).any():
        return "infinite"
    if has_codes(known):
        return "codes"
    if _has_dots(known):
        return "dots"
    if has_zeros(known):
        return "zeros"
    if has_two_units(known):
        return "two units"
    if has_outlier(known):
        return "outlier"
    if _has_few_minus_ones(known):
        return "minus one"
    if _are_day_numbers(column.name, known):
        return "day numbers"
    if _has_wrong_ages(column.name, known):
        return "ages"
    if len(known) < 10 or len(known) < _LEAST_KNOWN * len(column) or (known != np.floor(known)).any():
        return None
    if _go_up(known):
        return "row numbers"
    counts_on = bool((np.diff(known) == np.diff(np.flatnonzero(~np.isnan(numbers)))).all())
    # Long numbers, spread evenly as they are given out, show it sooner; volumes of organs crowd in the middle. Of those
    # below a million every tenth is shorter.
    given_out = known.min() >= 0 and (known >= _LONG_NUMBER).mean() >= _MOST_LONG
    given_out = given_out and known.std() >= _EVENLY_SPREAD * np.ptp(known)
    enough = len(known) >= (_ROWS_GIVEN_OUT if given_out else _ROWS_THAT_COUNT)
    never_repeat = enough and len(np.unique(known)) == len(known) and not _crowds_low(known)
    return "row numbers" if counts_on or never_repeat else None


def _go_up(known: np.ndarray) -> bool:
    """Say whether numbers above all years go up row by row, each in a few rows, as patients' with several visits."""
    if len(known) < _ROWS_THAT_COUNT or known.min() < _ABOVE_YEARS or (np.diff(known) < 0).any():
        return False
    return bool(len(np.unique(known)) * _VISITS >= len(known))


def _has_few_minus_ones(known: np.ndarray) -> bool:
    """Say whether -1 stands beside 0 and 1, in fewer rows than either and few of all: of changes 0 is between them."""
    if len(known) < _ROWS_GIVEN_OUT or not np.isin(known, (-1, 0, 1)).all():
        return False
    rows = [(known == value).sum() for value in (-1, 0, 1)]
    return bool(0 < rows[0] < min(rows[1:]) and rows[0] <= _FEW_MINUS_ONES * len(known))


def _crowds_low(known: np.ndarray) -> bool:
    """Say whether numbers that never repeat crowd far below the largest, as concentrations do (NT-proBNP).

    Their logarithms crowd in the middle then; those of numbers of patients, which are given out in turn or in several
    runs, do not.
    """
    if known.min() <= 0 or (np.diff(known) > 0).all():
        return False
    logs = np.log(known)
    middle = (np.median(logs) - logs.min()) / np.ptp(logs)
    return bool(np.median(known) * _FAR_BELOW_LARGEST < known.max() and _MIDDLE[0] < middle < _MIDDLE[1]) and bool(
        logs.std() < _EVENLY_SPREAD * np.ptp(logs)
    )


def _has_wrong_ages(name: object, known: np.ndarray) -> bool:
    """Say whether a column that is called an age, and is one, has some above 120 or below 0."""
    if not _AGE_NAME.fullmatch(str(name)) or not _GROWN < known.max() <= _OLDEST[1] or np.median(known) >= _OLDEST[0]:
        return False
    return bool(known.max() > _OLDEST[0] or known.min() < 0)


def _are_day_numbers(name: object, known: np.ndarray) -> bool:
    """Say whether a column holds Excel's days, 20240131, or seconds from 1970.

    Called a date, of 1927 to 2064; called otherwise, of more rows and fewer years.
    """
    if len(known) < 2 or (known != np.floor(known)).any():
        return False
    month, day = known // 100 % 100, known % 100
    calendar = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    called = _DATE_NAME.search(str(name)) is not None
    if not called and (len(known) < _FEWEST_DATES or len(np.unique(known)) < _DIFFERENT_DATES):
        return False
    ways = [(known >= low) & (known < high) for low, high in (_DATES_FROM if called else _RECENT)]
    return any(bool(way.all()) for way in (ways[0], ways[1] & calendar, *ways[2:]))


def _has_dots(known: np.ndarray) -> bool:
    """Say whether whole numbers up to 999 stand beside some of just three decimals, from 1 on: 1.234 for 1234."""
    whole = known == np.floor(known)
    dotted, plain = known[~whole], known[whole]
    if min(len(dotted), len(plain)) < _FEWEST_DOTTED or np.abs(known).max() >= 1000 or np.abs(dotted).min() < 1:
        return False
    thousandths = np.rint(dotted * 1000)
    if not np.allclose(dotted * 1000, thousandths, rtol=0, atol=1e-6):
        return False
    # Of decimals that are written to some digits the third is 0 where the number is large.
    third = (thousandths % 10 != 0).mean()
    apart = float(np.median(np.abs(plain))) > _DOTTED_APART * float(np.median(np.abs(dotted)))
    # Of thousands that end in 0 as well: they go on where the whole numbers end, at 1,000, of which 1 is one.
    hundreds, thousands = plain[plain >= 10], known[known < 10]
    tens = len(hundreds) + len(thousands) == len(known) and bool(
        hundreds.max(initial=0) >= _NEAR_THOUSAND[0] and thousands.min() <= _NEAR_THOUSAND[1]
    )
    return bool((third >= _MOSTLY or tens) and np.median(np.abs(plain)) >= 100 and apart)
