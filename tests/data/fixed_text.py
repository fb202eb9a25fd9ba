"""A kind of row in one file: text of fixed length, such as a peptide, as the integer code of each of its letters."""

from __future__ import annotations

import numpy as np

from v6_algorithm.data.rows.kind import Agreed, RowKind
from v6_algorithm.errors import DataError, ExperimentError, WireError
from v6_algorithm.experiment.base import Section


class FixedText(RowKind):
    """Rows that are one text each, all of one length; a letter's code is its place in the alphabet, from 1."""

    class Options(Section):
        """What stands beside ``kind: fixed_text``."""

        column: str
        alphabet: str = "ACDEFGHIKLMNPQRSTVWY"

    def columns(self):
        return {"rows.column": self.options.column}

    def describe(self, frame):
        lengths = set(self._texts(frame).str.len())
        if len(lengths) != 1:
            raise DataError(f"column '{self.options.column}' (data.rows) has texts of {len(lengths)} lengths, not one")
        return {"facts": {"length": int(lengths.pop())}}

    def check(self, schema):
        if type(schema["facts"]["length"]) is not int or not 0 < schema["facts"]["length"] < 10**4:
            raise WireError("the length of texts must be a whole number above 0")

    def agree(self, schemas, notes, problems):
        lengths = {site: schema["facts"]["length"] for site, schema in schemas.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{site} {length}" for site, length in lengths.items())
            raise ExperimentError(f"data.rows: the sites' texts differ in length: {told}")
        length = next(iter(lengths.values()))
        return Agreed([f"{self.options.column}[{place}]" for place in range(length)], facts={"length": length})

    def encode(self, frame, setup, dtype):
        code = {letter: number + 1 for number, letter in enumerate(self.options.alphabet)}
        letters = [list(text) for text in self._texts(frame)]
        if any(len(row) != setup.facts["length"] for row in letters):
            raise DataError(
                f"column '{self.options.column}' (data.rows) has texts of other lengths than at preparation"
            )
        return np.array([[code.get(letter, np.nan) for letter in row] for row in letters], dtype=dtype), np.empty(
            0, int
        )

    def misfits(self, schema, setup):
        same = schema["facts"] == setup.facts
        return [] if same else [f"its texts have {schema['facts']['length']} letters, not {setup.facts['length']}"]

    def _texts(self, frame):
        return frame[self.options.column].astype(str).str.strip()
