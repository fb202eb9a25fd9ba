"""Text files whose bytes are not as they should be: marks of byte order in between, line ends of all kinds, quotes."""

from __future__ import annotations

import pandas as pd
import pytest

from v6_algorithm.data.description.describe import column_kinds
from v6_algorithm.data.description.hints import hint
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import DataError

HEADER = "age,crp,sex,y"
LINES = [f"{60 + row},{row / 4},{'mf'[row % 2]},{row % 2}" for row in range(12)]
FRAME = pd.DataFrame([line.split(",") for line in LINES], columns=HEADER.split(",")).astype(
    {"age": int, "crp": float, "y": int}
)


def read(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    return TableSource(str(tmp_path / "t.csv")).read()


@pytest.mark.parametrize(
    "text",
    [
        "\r\n".join([HEADER, *LINES]),
        "\r".join([HEADER, *LINES, ""]),
        "\n".join([HEADER, *LINES[:5]]) + "\r\n" + "\r".join(LINES[5:]) + "\r\n",
        "\ufeff\ufeff" + "\n".join([HEADER, *LINES]),
        "\ufeff" + "\n".join([HEADER, *LINES[:6]]) + "\n\ufeff" + "\n".join(LINES[6:]) + "\n",
        "\n\n" + "\n".join([HEADER, *LINES]) + "\n\n",
        "\n".join('"' + line.replace(",", '","') + '"' for line in [HEADER, *LINES]),
    ],
    ids=["dos", "mac", "mixed", "two marks", "a mark in between", "blank lines", "quoted"],
)
def test_lines_are_read_whatever_ends_or_marks_them(tmp_path, text):
    frame = read(tmp_path, text)
    pd.testing.assert_frame_equal(frame.astype(FRAME.dtypes), FRAME, check_dtype=False)
    assert column_kinds(frame) == {"age": "numeric", "crp": "numeric", "sex": "text", "y": "numeric"}


@pytest.mark.parametrize("cell", range(4))
@pytest.mark.parametrize("apart", [1, 2, 3])
def test_a_quote_that_closes_in_another_line_is_refused_in_any_column(tmp_path, cell, apart):
    """Of two lines one was lost, and with it a patient."""
    lines = [line.split(",") for line in LINES]
    lines[4][cell] = '"' + lines[4][cell]
    lines[4 + apart][cell] += '"'
    with pytest.raises(
        DataError, match=r"does a quote open in one line that closes in another|cells, (fewer|more) than"
    ):
        read(tmp_path, "\n".join([HEADER, *map(",".join, lines)]) + "\n")


def test_a_remark_of_several_lines_is_a_cell(tmp_path):
    lines = [f'{line},"first, second\nthird"' for line in LINES]
    assert len(read(tmp_path, "\n".join([f"{HEADER},remark", *lines]))) == 12


def test_lines_that_are_quoted_as_a_whole_are_told(tmp_path):
    with pytest.raises(DataError, match="each line is in quotation marks as a whole"):
        read(tmp_path, "\n".join(f'"{line}"' for line in [HEADER, *LINES]))


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["'60'", "'61.5'"], "quotes"), (['="60"', '="7"'], "quotes"), (["\u201c60\u201d", "61"], "quotes"),
        (["=60", "=61"], "quotes"), (["\uff16\uff10", "\uff17"], "digits"), (["\u0666\u0660.\u0665"], "digits"),
        (["60D+00", "6.5d-1"], "notation"), (["0x3c", "0x1A"], "notation"), (["'m'", "'f'"], None),
        (["D12", "E3"], None),
    ],
)  # fmt: skip
def test_numbers_that_a_computer_does_not_take_for_numbers_are_named(cells, reason):
    assert hint(pd.Series(cells * 6), "text") == reason
