"""dinunet's split files, as columns of the table."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hospitals import command, read_result, tables, write

from v6_algorithm.data.split_files import add_split_columns
from v6_algorithm.errors import ExperimentError

FRAME = pd.DataFrame({"file": ["s1.txt", "s2.txt", "s3.txt", "s4.txt"], "x": [1, 2, 3, 4]})


def split(folder, name="SPLIT_0", **parts):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(parts))
    return path


def test_each_file_becomes_a_column_of_its_name(tmp_path):
    files = [
        split(tmp_path, train=["s1.txt", "s3.txt"], validation=["s2.txt"], test=["s4.txt"]),
        split(tmp_path, "SPLIT_1", train=["s4.txt"], validation=[], test=["s1.txt"]),
    ]
    made = add_split_columns(FRAME, files, "file")
    assert made["SPLIT_0"].tolist() == ["train", "validation", "train", "test"]
    assert made["SPLIT_1"].tolist() == ["test", "unused", "unused", "train"]
    assert made[["file", "x"]].equals(FRAME)


def test_without_a_key_the_entries_are_row_numbers(tmp_path):
    made = add_split_columns(FRAME, [split(tmp_path, train=[0, 2], test=[3])])
    assert made["SPLIT_0"].tolist() == ["train", "unused", "train", "test"]


@pytest.mark.parametrize(
    ("parts", "key", "message"),
    [
        ({"train": ["s9.txt"]}, "file", "1 entries of 'train' are no rows of the table"),
        ({"train": [4]}, None, "1 entries of 'train' are no rows"),
        ({"train": [-1]}, None, "1 entries of 'train' are no rows"),
        ({"train": [0], "test": [0]}, None, "a row is named twice"),
        ({"train": [0, 0]}, None, "a row is named twice"),
        ({"training": [0]}, None, "must hold lists called train, validation, test"),
        ({"train": 0}, None, "must hold lists"),
        ({}, None, "must hold lists"),
        ({"train": ["s1.txt"]}, "name", "--key name: the table has no such column"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_without_its_entries(tmp_path, parts, key, message):
    with pytest.raises(ExperimentError, match=message) as error:
        add_split_columns(FRAME, [split(tmp_path, **parts)], key)
    assert "s9" not in str(error.value)


def test_a_key_that_names_two_rows_is_refused(tmp_path):
    with pytest.raises(ExperimentError, match="holds a value twice"):
        add_split_columns(FRAME.assign(file="s1.txt"), [split(tmp_path, train=["s1.txt"])], "file")


def test_a_column_that_is_there_is_not_overwritten(tmp_path):
    with pytest.raises(ExperimentError, match="has a column 'x' already"):
        add_split_columns(FRAME, [split(tmp_path, "x", train=[0])])


def test_a_run_uses_the_split_files_of_its_sites(tmp_path):
    for name, table in tables().items():
        table = table.assign(subject=[f"{name}-{row}.txt" for row in range(len(table))])
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        files = []
        for fold in range(2):
            place = np.arange(len(table)) % 5
            parts = {"train": place > 1, "validation": place == fold, "test": place == 1 - fold}
            lists = {part: table["subject"][rows].tolist() for part, rows in parts.items()}
            files.append(split(tmp_path, f"SPLIT_{fold}", **lists))
        done = command(
            "split-columns",
            tmp_path / f"{name}.csv",
            *files,
            "--key",
            "subject",
            "--out",
            tmp_path / f"{name}.csv",
            "--force",
        )
        assert done.exit_code == 0, done.output
        assert "split_column: [SPLIT_0, SPLIT_1]" in done.output
    texts = {name: (tmp_path / f"{name}.csv").read_text() for name in tables()}
    file = write(tmp_path, texts, data={"target": "y", "split_column": ["SPLIT_0", "SPLIT_1"]}, split="given", rounds=1)
    done = command("run", file, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    result = read_result(tmp_path / "out")
    assert [fold["sites"]["cairo"]["n"]["test"] for fold in result["folds"]] == [6, 6]


def test_a_file_that_is_not_there_is_told_in_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    done = command("split-columns", tmp_path / "a.csv", tmp_path / "gone.json", "--out", tmp_path / "b.csv")
    assert done.exit_code == 2
    assert "gone.json: cannot be read" in done.output.replace("\n", "")
