"""Two tables with every trap of published tables at once: each step of mending is one clear line, and the end is right.

What `run` says is followed word by word, as a reader would; the last run's model is that of the same numbers written
plainly.
"""

from __future__ import annotations

import numpy as np
import pytest
from hospitals import command, read_result

ROWS = {"amsterdam": 120, "berlin": 140}
# Follow-up visits, of rows that are there already; `data.where` leaves them out.
AGAIN = 30


def rows_of(place, name, rows):
    """One hospital's values, before anybody wrote them into a file."""
    generator = np.random.default_rng(place)
    age, hb = generator.normal(60, 10, rows).round(1), generator.normal(13, 2, rows).round(1)
    # A laboratory that counts from a hundred million; float32 has steps of 8 there.
    offset = 1e8 + generator.normal(0, 1, rows).round(3)
    crp = generator.exponential(5, rows).round(2)
    crp[:4] = np.nan
    ill = (age - 60) / 10 + (hb - 13) / 4 + (offset - 1e8) + generator.normal(0, 1, rows) > 0
    sex, smoker = generator.choice(["f", "m"], rows), generator.choice(["none", "light", "heavy"], rows)
    flag = np.where(np.arange(rows) % 9 == 0, np.nan, np.arange(rows) % 2)
    columns = {"age": age, "crp": crp, "hb": hb, "offset": offset, "sex": sex, "smoker": smoker, "flag": flag}
    columns["treated"] = generator.random(rows) < 0.4
    return {**columns, "ill": np.where(ill, "yes", "no")}


def comma(value, empty=""):
    return empty if value != value else str(value).replace(".", ",")


def write_plainly(folder, place, name, rows):
    values = rows_of(place, name, rows) | {"visit": ["BL"] * rows}
    lines = [",".join(values)]
    lines += [",".join("" if cell != cell else str(cell) for cell in row) for row in zip(*values.values(), strict=True)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def write_with_traps(folder, place, name, rows, *, mended=()):
    values = rows_of(place, name, rows)
    spell = (
        {"labels": str.lower, "categories": str.lower} if place == 0 else {"labels": str.title, "categories": str.upper}
    )
    spell |= dict.fromkeys(mended, str.lower)
    lines = [";mrn;age;crp;saturation;hb;offset;sex;smoker;ward;flag;treated;visit;ill"]
    if place == 1 and "units" not in mended:
        lines.append(";;years;mg/l;%;g/dl;;;;;;;;")
    for number in range(rows + AGAIN):
        row = number % rows
        cells = {key: column[row] for key, column in values.items()}
        written = [
            number, 70000 + 7 * row + 1000 * place, comma(cells["age"]), comma(cells["crp"], "<0,1"),
            f"{90 + row % 10}%", comma(cells["hb"]), comma(cells["offset"]), spell["categories"](cells["sex"]),
            cells["smoker"], "" if place == 0 else row % 3, comma(cells["flag"], "?"), str(cells["treated"]).upper(),
            "BL" if number < rows else "FU", spell["labels"](cells["ill"]),
        ]  # fmt: skip
        lines.append(";".join(map(str, written)))
    if place == 1 and "lines" not in mended:
        lines[18] += ";9"
    if "totals" not in mended and place == 0:
        lines.append("Totaal;;60,1;;;;;;;;;;;")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    # A hospital with fewer patients than its node tells of.
    write_plainly(tmp_path, 2, "cairo", 4)
    (tmp_path / "e.yaml").write_text(
        "name: traps\nsites: {amsterdam: {uri: amsterdam.csv}, berlin: {uri: berlin.csv},\n"
        "  cairo: {uri: cairo.csv, separator: ',', decimal: .}}\n"
        "data: {target: ill}\nrounds: 5\nmodel: {kind: logistic}\ntraining: {optimizer: {kind: adam, lr: 0.05}}\n"
    )
    return tmp_path


def train(folder, *settings):
    options = [part for setting in settings for part in ("--set", setting)]
    return command("run", folder / "e.yaml", "--exact", "--force", "--out", folder / "out", *options)


def refused(folder, *settings):
    done = train(folder, *settings)
    assert done.exit_code == 2, done.output
    assert all(line.startswith("error: ") for line in done.output.splitlines()), done.output
    return done.output


@pytest.mark.slow
def test_each_trap_is_one_clear_line_and_the_mended_tables_give_the_plain_ones_model(folder):
    def write(*mended):
        for place, (name, rows) in enumerate(ROWS.items()):
            write_with_traps(folder, place, name, rows, mended=mended)

    write()
    assert 'is it data.separator: ";", with data.decimal: ","?' in refused(folder)
    settings = ['data.separator=";"']
    assert "line 19 has 15 cells, more than the 14 of the header" in refused(folder, *settings)
    write("lines")
    assert "amsterdam.csv: the last line holds a word such as total or mean" in refused(folder, *settings)
    write("lines", "totals")
    assert "berlin.csv: the first line below the header holds words in" in refused(folder, *settings)
    write("lines", "totals", "units")
    assert "column 'ill': the same label is spelled differently: 'no' at 'amsterdam', 'No' at 'berlin'" in refused(
        folder, *settings
    )
    write("lines", "totals", "units", "labels")

    said = train(folder, *settings).output
    assert "left out as identifiers by their names: Unnamed: 0, mrn" in said
    assert "learned from: ward, treated" in said
    assert 'numbers with a decimal comma: age, hb, offset, flag; data.decimal: ","' in said
    assert "numbers beside limits such as < 1: crp; write a number there, or data.missing_values for the limits" in said
    assert "numbers with a percent sign: saturation" in said
    assert "use them with data.categorical: [sex, smoker, visit]" in said
    assert "site 'amsterdam': no row has a value in ward; every value there is filled in from other sites" in said
    assert "auprc are of class 'yes'" in said

    settings += [
        'data.decimal=","',
        'data.missing_values=["<0,1"]',
        "data.categorical=[sex,smoker]",
        "data.exclude=[ward]",
        "data.where={visit: '== BL'}",
    ]
    assert "column 'sex': the same label is spelled differently: 'f' at 'amsterdam', 'F' at 'berlin'" in refused(
        folder, *settings
    )
    write("lines", "totals", "units", "labels", "categories")
    said = train(folder, *settings)
    assert said.exit_code == 0, said.output
    assert "2 of 3 sites, without cairo" in said.output
    assert f"site 'berlin': {AGAIN} rows do not meet data.where, and are left out" in said.output
    with_traps = read_result(folder / "out")

    for place, (name, rows) in enumerate(ROWS.items()):
        write_plainly(folder, place, name, rows)
    assert train(folder, "data.categorical=[sex,smoker]").exit_code == 0
    plain = read_result(folder / "out")
    assert with_traps["history"] == plain["history"]
    assert with_traps["metrics"] == plain["metrics"]
    assert plain["metrics"]["test"]["pooled"]["auroc"] > 0.7
