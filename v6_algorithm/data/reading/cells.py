"""What a cell holds, by one definition for every source: which words are empty cells, and which texts are numbers.

`sources` brings each table that it has read through here, so that a file, a database and a dataframe with the same
cells are the same table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.data.reading.assumed import Assumed
from v6_algorithm.data.reading.texts import Texts, has_value, texts_of
from v6_algorithm.experiment.table_form import TableForm

if TYPE_CHECKING:
    import pandas as pd

# What pandas takes for an empty cell of a file, and the question mark of the UCI archives; spaces around them do not
# count, and a cell of spaces alone is empty. docs/experiments.md lists them.
EMPTY_WORDS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "?",
)  # fmt: skip
_PLAIN_SPACES = " \t\n\r\f\v"
# Of these words those that may be labels; and the labels of a column that are codes such as EU.
MAY_BE_LABELS, _CAPITALS = ("None", "NA", "N/A", "n/a"), re.compile(r"[A-Z]{1,4}")
# A number as programs write it; and the largest one of float32.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
FLOAT32_MAX = float(np.finfo(np.float32).max)
# Rounding by more than this share of a column's range is too coarse; or of that of a quarter of some of its rows, at
# least of a few of them.
_COARSEST = 1e-3
_LOOKED_AT, _TOGETHER = 200, 4


def uniform(frame: pd.DataFrame, form: TableForm, assumed: Assumed | None = None) -> pd.DataFrame:
    """Return the table with empty words empty, and with texts numbers where the form's marks make them numbers.

    How many cells of labels hold a word that counts as empty and may be a label, and which columns have decimal points
    where commas were said, is written into `assumed`.
    """
    import pandas as pd

    names, dtypes = frame.columns.tolist(), frame.dtypes.tolist()
    # Numbers and dates of numpy are as they are; a wide table is nothing else.
    places = [n for n, dtype in enumerate(dtypes) if not isinstance(dtype, np.dtype) or dtype.kind == "O"]
    unique = frame.columns.is_unique
    said: dict[str, dict[str, int]] = {}
    points: dict[str, int] = {}
    changed = {}
    for place in places:
        name = names[place]
        column = frame[name] if unique else frame.iloc[:, place]
        texts = texts_of(column)
        if assumed is not None and unique and name in form.codes:
            said[name] = _words_of_labels(column, texts, form)
        if isinstance(dtypes[place], pd.ArrowDtype):
            changed[name] = column = _without_arrow(column)
            texts = texts_of(column)
        if (without := cleaned(column, form, texts)) is not column:
            changed[name] = without
        if form.decimal == "," and texts is not None and (count := _points(texts_of(without))):
            points[str(name)] = count
    if assumed is not None:
        note_words(said, assumed)
        if points:
            assumed["decimal points"] = list(points), sum(points.values())
    if not changed or not unique:
        return frame
    return frame.assign(**{str(name): column for name, column in changed.items()})


def _words_of_labels(column: pd.Series, texts: Texts | None, form: TableForm) -> dict[str, int]:
    """Count the cells of a column of labels that hold words which count as empty; see `words_of_labels`."""
    if column.dtype != object and not str(column.dtype).startswith("str"):
        return {}
    counts = Counter(value for value in column.tolist() if isinstance(value, str)) if texts is None else texts.counts
    return words_of_labels(counts, form.kept, blank=not has_value(column).all())


def words_of_labels(counts: Mapping[str, int], kept: Collection[str], *, blank: bool = False) -> dict[str, int]:
    """Count the cells of each word that counts as empty, and may be a label, in a column of other words.

    NA is written by many programs for an empty cell. It may be a label (North America) beside codes of a few capital
    letters, or where other cells of the column are empty (`blank`).
    """
    rows: dict[str, int] = {}
    for value, count in counts.items():
        rows[value.strip()] = rows.get(value.strip(), 0) + count
    labels = [text for text in rows if text not in EMPTY_WORDS and not NUMBER.fullmatch(text)]
    if not labels:
        return {}
    may_be = set(MAY_BE_LABELS)
    if not (blank or rows.get("") or all(map(_CAPITALS.fullmatch, labels))):
        may_be.discard("NA")
    return {word: rows[word] for word in sorted(may_be & rows.keys() - {word.strip() for word in kept})}


def note_words(said: Mapping[str, Mapping[str, int]], assumed: Assumed) -> None:
    """Write down, for each word, the columns of labels in which cells hold it, and how many; (column: word: cells)."""
    for word in sorted({word for of_column in said.values() for word in of_column}):
        if f"word {word}" not in assumed:
            columns = [name for name, of_column in said.items() if word in of_column]
            assumed[f"word {word}"] = columns, sum(said[name][word] for name in columns)


def _points(texts: Texts | None) -> int:
    """Count the cells with a decimal point in a column of texts that are all numbers."""
    if texts is None or not texts.values or not texts.are_numbers:
        return 0
    return sum(count for text, count in texts.counts.items() if "." in text)


def columns_at(frame: pd.DataFrame, places: Sequence[int]) -> pd.DataFrame:
    """Return the columns at some places, without a copy where they stand side by side, as in most tables."""
    beside = len(places) > 0 and list(places) == list(range(places[0], places[0] + len(places)))
    return frame.iloc[:, places[0] : places[0] + len(places)] if beside else frame.take(list(places), axis=1)


def bare(text: str) -> str:
    """Return a text without spaces around it, and without the marks of byte order that joined files have in between."""
    return text.strip().strip("\ufeff\u200b").strip()


def cleaned(column: pd.Series, form: TableForm, texts: Texts | None = None) -> pd.Series:
    """Return a column with empty words empty and numbers read by the form's marks; itself where nothing changes.

    `texts` are the column's, where somebody has looked them up.
    """
    import pandas as pd

    if column.dtype == object or isinstance(column.dtype, (pd.StringDtype, pd.CategoricalDtype)):
        without = _clean(column, form, texts)
        return column if without is None else without
    return column


def _clean(column: pd.Series, form: TableForm, texts: Texts | None = None) -> pd.Series | None:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        if not (column.cat.categories.dtype == object or isinstance(column.cat.categories.dtype, pd.StringDtype)):
            return None
        column = column.astype(object)
    texts = texts or texts_of(column)
    if texts is not None:
        values: list[object] = [*texts.values, None]
        place = texts.code
    else:
        values = column.astype(object).tolist()
        place = np.arange(len(values))
    if any(isinstance(value, bytes) for value in values):
        # As databases and parquet keep text that is not said to be text.
        decoded = column.map(_decoded)
        if any(isinstance(value, bytes) for value in decoded):
            return None
        return decoded if (clean := _clean(decoded, form)) is None else clean
    kept = {word.strip() for word in form.kept}
    words = {word for word in EMPTY_WORDS if word not in kept}
    is_text = [isinstance(value, str) for value in values]
    if not any(is_text):
        return None
    # What is no text, such as an array, is not written out as one.
    stripped = [bare(value) if isinstance(value, str) else "" for value in values]
    padded = [
        isinstance(value, str) and text != value.strip(_PLAIN_SPACES)
        for text, value in zip(stripped, values, strict=True)
    ]
    empty = np.array([text in words and of_text for text, of_text in zip(stripped, is_text, strict=True)], dtype=bool)
    if form.decimal == "," or form.thousands is not None:
        of_texts = np.array(is_text, dtype=bool)
        filled = of_texts & ~empty
        numbers = _numbers_by_marks(np.array(stripped, dtype=object)[filled], form)
        if numbers is not None and of_texts[place][has_value(column)].all():
            result = np.full(len(values), np.nan)
            result[filled] = numbers
            return pd.Series(result[place], column.index, name=column.name)
    if any(padded):
        # What pandas does not take for space: one that does not break, a thin one, one of no width.
        cells = np.array(
            [text if of_text else value for text, of_text, value in zip(stripped, is_text, values, strict=True)],
            dtype=object,
        )
        column = pd.Series(cells[place], column.index, object, name=column.name)
        return column.mask(empty[place])
    return column.mask(empty[place]) if empty.any() else None


def _decoded(value: object) -> object:
    """Return bytes as the UTF-8 text that they are; itself what is none."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _numbers_by_marks(texts: np.ndarray, form: TableForm) -> np.ndarray | None:
    """Read texts as numbers with the form's decimal and thousands marks; None where one is none."""
    decimal, thousands = form.decimal or ".", form.thousands
    if thousands == " ":
        # A space that does not break is one, too.
        texts = np.array([re.sub("[\u00a0\u202f\u2009]", " ", text) for text in texts], dtype=object)
    groups = rf"\d{{1,3}}({re.escape(thousands)}\d{{3}})+|" if thousands else ""
    number = re.compile(rf"[+-]?({groups}\d+)?({re.escape(decimal)}\d*)?([eE][+-]?\d+)?")
    plain = []
    for text in texts:
        if not number.fullmatch(text) or not any(letter.isdigit() for letter in text):
            return None
        plain.append(float((text.replace(thousands, "") if thousands else text).replace(decimal, ".")))
    return np.array(plain) if plain else None


def _without_arrow(column: pd.Series) -> pd.Series:
    """Return a column of pyarrow's dtypes as numpy's: numbers with NaN where empty, or objects."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column.dtype):
        return column.astype(object).where(column.notna(), np.nan) if column.isna().any() else column.astype(bool)
    if pd.api.types.is_numeric_dtype(column.dtype):
        whole = pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any()
        numbers = column.to_numpy(dtype=np.int64) if whole else column.to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(numbers, column.index, name=column.name)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column.astype("datetime64[ns]")
    return column.astype(object).where(column.notna(), np.nan)


def blurred(numbers: np.ndarray, share: float = _COARSEST) -> np.ndarray:
    """Say of which columns, (columns,) bool of (rows, columns) float64, float32 makes neighbouring values one.

    `share` is how much of a column's range may be lost to rounding.
    """
    low, high = np.fmin.reduce(numbers, axis=0), np.fmax.reduce(numbers, axis=0)
    far = np.maximum(np.abs(low), np.abs(high))
    # Half the distance of two float32 numbers there, of the range that the column spans.
    coarse: np.ndarray = (low < high) & (far < FLOAT32_MAX) & (far * 2.0**-24 > share * (high - low))
    return coarse | _crowded(numbers[some_rows(len(numbers))], share)


def some_rows(rows: int) -> np.ndarray:
    """Number some rows of a table, that stand for all of them; not every second, as those of a kind may be."""
    if rows <= _LOOKED_AT:
        return np.arange(rows)
    # Multiples of the golden ratio are spread evenly, and in step with nothing.
    places: np.ndarray = np.arange(_LOOKED_AT) * (np.sqrt(5) - 1) / 2 % 1 * rows
    return np.sort(places.astype(np.int64))


def _crowded(numbers: np.ndarray, share: float) -> np.ndarray:
    """Say the same of a quarter of a column's rows that lie together, whatever the others are: a 0 for "not known"."""
    crowded = np.zeros(numbers.shape[1], dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.where(np.abs(numbers) < FLOAT32_MAX, numbers, np.nan)
        # Most columns of whole numbers lose nothing.
        columns = np.flatnonzero((np.isfinite(finite) & (finite.astype(np.float32) != finite)).any(axis=0))
    ordered = np.sort(finite[:, columns], axis=0)
    count = np.isfinite(ordered).sum(axis=0)
    first = np.arange(len(ordered))[:, None]
    last = first + np.maximum(count // 4, _TOGETHER)
    upper = np.take_along_axis(ordered, np.minimum(last, len(ordered) - 1), axis=0)
    width = np.where(last < count, upper - ordered, np.nan)
    far = np.maximum(np.abs(ordered), np.abs(upper))
    crowded[columns] = ((width > 0) & (far * 2.0**-24 > share * width)).any(axis=0)
    return crowded
