"""Labels and categories that the sites spell differently, which would become classes of their own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from v6_algorithm.data.preparation.agreement import Label
from v6_algorithm.errors import DataError

_SHOWN = 12
# Of more labels a site may well lack some.
_FEW = 4
# Numbers of more digits are no codes.
_LONGEST = 20
# Cyrillic letters, as code points for they look like these, that a keyboard puts in place of Latin ones.
_ALIKE = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455", "abekmhopctyxijs"
)
# Letters that Unicode does not take apart.
_STROKES = str.maketrans("łøđıðħ", "lodidh")
_MONTHS = (
    "jan|feb|m[aä]r|mrz|mrt|mar[sz]|a[pvb]r|a[vb]ril?|ma[yijg]|mei|jui?[nl]|juin|juil|giu|lug|aug|ago|ao[uû]t?|se[pt]t?|"
    "o[ckt]t|out|nov|d[eé][czs]|dic|gen|ene|styc|sty|lut|kwi|cze|lip|sie|wrz|pa[zź]|lis|gru"
)
# As Excel writes a cell such as 1-3 that it takes for a date.
_EXCEL_DATE = re.compile(rf"\d{{1,2}}[-. /]({_MONTHS})\.?([-. /]\d{{2,4}})?|({_MONTHS})\.?[-. /]\d{{1,2}}", re.I)
_RANGE = re.compile(r"\d{1,2}\s*[-/.\u2013]\s*\d{1,2}")
_QUOTES = frozenset("\"'`\u00b4\u2018\u2019\u201c\u201d\u00ab\u00bb")


def spelled_differently(what: str, by_site: Mapping[str, Sequence[Label]], *, allowed: bool) -> list[str]:
    """Say why the sites' sets of labels cannot be one; nothing where they can.

    Labels that are equal but for case, spaces or Unicode form are never two. Sets of two labels or more that have none
    in common, or pairs of numbers such as 1/2 beside 0/1, are most likely other codes for the same; `allowed` says that
    they are not.

    Parameters
    ----------
    what
        The column, as messages begin with.
    by_site
        The labels that each site has.
    allowed
        Whether sets may be different.
    """
    spellings: dict[Label, dict[Label, list[str]]] = {}
    for site, labels in by_site.items():
        for label in labels:
            spellings.setdefault(folded(label), {}).setdefault(label, []).append(site)
    twice = [variants for variants in spellings.values() if len(variants) > 1]
    if twice:
        shown = "; ".join(
            ", ".join(f"'{label}' at {_some(sites)}" for label, sites in variants.items())
            for variants in twice[:_SHOWN]
        )
        return [f"{what}: the same label is spelled differently: {shown}; spell it alike there"]
    if allowed:
        return []
    if padded := _with_zeros_in_front(by_site):
        shown = "; ".join(
            f"{label} at {_some([site])}, {other} at {_some([second])}" for label, site, other, second in padded
        )
        return [
            f"{what}: sites write one code with and without zeros in front: {shown}; write it alike there, or say that "
            "they are different with data.different_labels: allow"
        ]
    if marked := _but_for_marks(by_site):
        shown = "; ".join(f"'{label}' and '{other}'" for label, other in marked[:_SHOWN])
        return [
            f"{what}: labels differ only in accents, or in how accents were read (data.encoding): {shown}; spell them "
            "alike there, or say that they are different with data.different_labels: allow"
        ]
    sets = {site: {folded(label) for label in labels} for site, labels in by_site.items()}
    several = {site: labels for site, labels in sets.items() if len(labels) > 1}
    # Thousands of sites have a few different sets.
    distinct = {frozenset(labels) for labels in several.values()}
    disjoint = any(not (first & second) for first in distinct for second in distinct)
    pairs = len(distinct) > 1 and all(map(_is_yes_and_no, distinct))
    numbers = {any(not isinstance(label, str) for label in labels) for labels in sets.values() if labels}
    if disjoint or pairs or (len(numbers) > 1 and not set.intersection(*sets.values())):
        shown = "; ".join(f"{site}: {_listed(labels)}" for site, labels in by_site.items())
        return [
            f"{what}: the sites have different labels, most likely codes for the same: {shown}; code them alike there, "
            "or say that they are different with data.different_labels: allow"
        ]
    return []


def _but_for_marks(by_site: Mapping[str, Sequence[Label]]) -> list[tuple[str, str]]:
    """Return pairs of labels of which one is the other without its accents, or read in a wrong encoding."""
    first: dict[str, str] = {}
    pairs: dict[tuple[str, str], None] = {}
    # Of thousands of sites the labels are the same.
    for label in dict.fromkeys(one for labels in by_site.values() for one in labels):
        if isinstance(label, str) and (other := first.setdefault(_unmarked(label), label)) != label:
            pairs[other, label] = None
    return list(pairs)


def _unmarked(label: str) -> str:
    """Return a label folded, without accents where letters a to z are left, and read as UTF-8 where it was not."""
    for encoding in ("cp1252", "latin-1"):
        try:
            label = label.encode(encoding).decode("utf-8")
            break
        except UnicodeError:
            continue
    plain = str(folded(label))
    letters = unicodedata.normalize("NFKD", plain.translate(_STROKES))
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return bare if bare.isascii() else plain


def check_written(labels: Iterable[Label], asked: Collection[Label], what: str, key: str) -> None:
    """Raise DataError where a label is one of those that conditions ask for, but for case, spaces or Unicode form.

    It would meet none of them, in silence. What is asked for in several spellings is meant so.

    Parameters
    ----------
    labels
        Those of a column at one site.
    asked
        What conditions compare it with.
    what, key
        The column, and where the conditions stand, as messages name them.
    """
    texts = {folded(one): one for one in asked if isinstance(one, str)}
    for label in labels:
        if isinstance(label, str) and label not in asked and (one := texts.get(folded(label))) is not None:
            raise DataError(
                f"{what} holds '{one}' ({key}) spelled differently, in case, spaces or marks, and such rows would not "
                "meet the condition; spell it alike there"
            )


def check_comparable(labels: Collection[Label], wanted: Label, what: str, key: str) -> None:
    """Raise DataError where a number is asked for and a column holds only words, or a word and it holds only numbers.

    No row would meet the condition, in silence; codes such as 3a, which are neither, may be rare.

    Parameters
    ----------
    labels
        Those of a column at one site.
    wanted
        What a condition compares it with.
    what, key
        The column, and where the condition stands, as messages name them.
    """
    words = [isinstance(label, str) for label in labels]
    if not words:
        return
    if not isinstance(wanted, str) and all(words) and not any(map(_has_digit, labels)):
        raise DataError(
            f"{what} holds words, and {key} asks for the number {wanted}; ask for a word, or code it alike there"
        )
    if isinstance(wanted, str) and not any(words) and not _has_digit(wanted):
        raise DataError(
            f"{what} holds numbers, and {key} asks for '{wanted}'; ask for a number, or code it alike there"
        )


def _has_digit(label: Label) -> bool:
    return any(letter.isdigit() for letter in str(label))


def may_be_one(what: str, by_site: Mapping[str, Sequence[Label]]) -> list[str]:
    """Return a note where two sites each have a word that the other lacks, of few in all: M and V here, M and F there.

    Words are not named: one may be of few rows.
    """
    every = {label for labels in by_site.values() for label in labels}
    zeros = {label.lstrip("0") or "0" for label in every if isinstance(label, str) and label.isdigit()}
    if zeros & {str(label) for label in every if not isinstance(label, str)}:
        return [
            f"{what}: some numbers stand there with zeros in front and without, such as 01 and 1: are they one "
            "label? They are learned as two"
        ]
    texts = [label for label in every if isinstance(label, str)]
    if any(map(_EXCEL_DATE.fullmatch, texts)) and any(map(_RANGE.fullmatch, texts)):
        return [
            f"{what}: dates such as 1-Mar stand beside ranges such as 1-3, of which Excel makes such dates: are they "
            "one label? They are learned as two"
        ]
    several = {site: frozenset(labels) for site, labels in by_site.items() if len(labels) > 1}
    words = frozenset(label for labels in several.values() for label in labels)
    # A lone number among words may be one of their letters: 0 and O.
    if len(words) > _FEW or sum(not isinstance(label, str) for label in words) > 1:
        return []
    first: dict[frozenset[Label], str] = {}
    for site, labels in several.items():
        first.setdefault(labels, site)
    for one, of_one in first.items():
        for other, of_other in first.items():
            if one - other and other - one and len(one) == len(other):
                return [
                    f"{what}: sites '{of_one}' and '{of_other}' each have a label that the other lacks: is it one "
                    "label, written differently? They are learned as two"
                ]
    return []


def folded(label: Label) -> Label:
    """Return a label without what spelling changes: case, spaces, Unicode form, dashes, what is not seen at all.

    Nor do underscores, quotation marks around it, or a mark at its end count; a label that reads as Latin letters, some
    of them Cyrillic, is that.
    """
    if not isinstance(label, str):
        return label
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    letters = ("-" if unicodedata.category(letter) == "Pd" or letter == "\u2212" else letter for letter in folded)
    seen = "".join(letter for letter in letters if not letter.isspace() and unicodedata.category(letter) != "Cf")
    plain = seen.replace("_", "")
    if len(plain) > 2 and {plain[0], plain[-1]} <= _QUOTES:
        plain = plain[1:-1]
    plain = plain.rstrip(".,;:!") or seen
    alike = plain.translate(_ALIKE)
    # A word of another alphabet stays itself: only what would be read as Latin is.
    return alike if alike.isascii() else plain


def _with_zeros_in_front(by_site: Mapping[str, Sequence[Label]]) -> list[tuple[Label, str, Label, str]]:
    """Return codes that a site writes with zeros in front, and that another, which has none such, writes without."""
    padded: dict[int, tuple[Label, str]] = {}
    plain: dict[int, tuple[Label, str]] = {}
    for site, labels in by_site.items():
        digits = [text for label in labels if (text := str(label)).isascii() and text.isdigit()]
        zeros = any(text != str(int(text)) for text in digits)
        for text in digits:
            (padded if zeros else plain).setdefault(int(text), (text, site))
    codes = [code for code in padded if code in plain and padded[code][0] != plain[code][0]]
    return [(*plain[code], *padded[code]) for code in codes[:_SHOWN]]


def _is_yes_and_no(labels: frozenset[Label]) -> bool:
    """Say whether these are codes of no and yes: two whole numbers that follow each other, or -1 and 1."""
    numbers = sorted(label for label in labels if isinstance(label, int))
    return len(labels) == len(numbers) == 2 and (numbers[1] - numbers[0] == 1 or numbers == [-1, 1])


def _some(sites: Sequence[str]) -> str:
    return ", ".join(f"'{site}'" for site in sites[:_SHOWN]) + (", …" if len(sites) > _SHOWN else "")


def _listed(labels: Sequence[Label]) -> str:
    return ", ".join(map(str, labels[:_SHOWN])) + (", …" if len(labels) > _SHOWN else "")
