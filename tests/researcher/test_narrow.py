"""Tables in a terminal that is narrower than they are: nothing is cut."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from v6_algorithm.researcher.cli.narrow import pieces

NUMBERS = [f"{number:.4f}" for number in range(100_000, 100_009)]


def shown(table: Table, width: int) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width)
    for piece in pieces(console, table):
        console.print(piece)
    return file.getvalue()


def wide_table() -> Table:
    table = Table(title="all sites", caption="of training rows")
    table.add_column("column")
    for name in range(len(NUMBERS)):
        table.add_column(f"q{name}", justify="right")
    table.add_row("erythrocytes", *NUMBERS)
    table.add_row("age", *NUMBERS)
    return table


@pytest.mark.parametrize("width", [36, 40, 80, 100, 120, 200])
def test_no_number_of_a_table_is_cut_in_a_narrow_terminal(width: int) -> None:
    text = shown(wide_table(), width)
    assert "…" not in text
    for number in NUMBERS:
        assert text.count(number) == 2
    assert text.count("all sites") == text.count("of training rows") == 1
    assert max(map(len, text.splitlines())) <= width
    assert text.count("erythrocytes") >= (2 if width < 100 else 1)  # each piece names its rows


def test_a_column_of_sentences_is_wrapped_and_stays_beside_its_row() -> None:
    table = Table()
    table.add_column("site")
    table.add_column("what", overflow="fold")
    table.add_row("north", "a sentence of words that is longer than the terminal is wide, by far")
    text = shown(table, 40)
    assert text.count("north") == text.count("site") == 1
    assert "far" in text
    assert max(map(len, text.splitlines())) == 40  # the sentence has what the other column leaves


def test_a_title_wider_than_its_table_is_one_line() -> None:
    table = Table(title="cleveland.csv: iid, 3 sites")
    table.add_column("n")
    table.add_row("1")
    assert shown(table, 80).splitlines()[0] == "cleveland.csv: iid, 3 sites"
