"""What is taken for granted of a site's files is told: at the sites, in notes, and in descriptions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.coordinator.preparation.notes.assumed import tell_assumed
from v6_algorithm.data.imaging.stack import find_images
from v6_algorithm.data.reading.assumed import KINDS, check_assumed, disclosed, without_counts
from v6_algorithm.data.reading.measures import find_measures
from v6_algorithm.data.sources import TableSource, source_in
from v6_algorithm.errors import WireError
from v6_algorithm.experiment.table_form import TableForm


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def all_may_be_told(assumed, smallest=1):
    return disclosed(assumed, lambda count: count if count >= smallest else None, lambda _: True, every=True)


@pytest.mark.parametrize(
    ("files", "cells", "assumed"),
    [
        (["a.png", "b.png"], ["a.png", "b.png"], {}),
        (["a.png", "b.jpg"], ["a", "b"], {"image suffix": ([".jpg", ".png"], 2)}),
        (["a_T1w.nii.gz", "b_T1w.nii.gz"], ["a", "b"], {"image ending": (["_T1w.nii.gz"], 2)}),
        (["in/a.png", "in/b.png"], ["a.png", "b.png"], {"image below": ([], 2)}),
        (["in/a.png", "in/b.png"], ["a", "gone"], {"image below": ([], 1), "image suffix": ([".png"], 1)}),
        (["a.JPG", "b.jpg"], ["a.jpg", "b.jpg"], {"image spelling": ([], 1)}),
        (["s/a.JPG", "b.jpg"], ["s\\a.jpg", "b.jpg"], {"image spelling": ([], 1)}),
        (["a/anat/T1.nii", "b/T1.nii"], ["a", "b/"], {"image folder": ([], 2)}),
        (["1377.png"], [1377], {"image suffix": ([".png"], 1)}),
        (["a.png"], ["a.png", "gone.png", None], {}),
        (["IM0001"], ["IM0001"], {}),
    ],
)
def test_what_a_cell_does_not_say_of_its_image_is_written_down(tmp_path, files, cells, assumed):
    touch(tmp_path, *files)
    found = {}
    images = find_images(pd.Series(cells), tmp_path, found)
    assert found == assumed
    assert images == find_images(pd.Series(cells), tmp_path)


@pytest.mark.parametrize(
    ("files", "assumed"),
    [
        (["1.stats", "2.stats"], {"measures suffix": ([".stats"], 2)}),
        (["1.txt", "2_aseg_stats.txt"], {"measures suffix": ([".txt", "_aseg_stats.txt"], 2)}),
        (["1_aparc.txt", "2_aparc.txt"], {"measures ending": (["_aparc.txt"], 2)}),
        (["1", "2"], {}),
    ],
)
def test_what_a_cell_does_not_say_of_its_measures_is_written_down(tmp_path, files, assumed):
    touch(tmp_path, *files)
    found = {}
    assert None not in find_measures(pd.Series(["1", "2"]), tmp_path, found)
    assert found == assumed


def test_the_one_sheet_that_is_a_table_is_named(tmp_path):
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        pd.DataFrame({"remark": ["x"]}).to_excel(book, sheet_name="Info", index=False)
        pd.DataFrame({"a": [1, 2], "y": [0, 1]}).to_excel(book, sheet_name="Labs", index=False)
    source = TableSource(str(tmp_path / "t.xlsx"))
    assert list(source.read().columns) == ["a", "y"]
    assert source.assumed == {"sheet": (["Labs"], 2)}
    named = TableSource(str(tmp_path / "t.xlsx"), sheet_name="Labs")
    named.read()
    assert named.assumed == {}


def test_labels_that_say_none_are_counted_in_text_files_too(tmp_path):
    (tmp_path / "t.csv").write_text("smoker,crp,y\nNone,None,1\nformer,2,0\n None,3,1\ncurrent,4,None\n")
    source = TableSource(str(tmp_path / "t.csv"), form=TableForm(codes=("smoker", "y")))
    assert source.read()["smoker"].isna().tolist() == [True, False, True, False]
    # Of numbers it is a missing one, as in y.
    assert source.assumed == {"word None": (["smoker"], 2)}
    frame = pd.DataFrame({"smoker": ["None", "former"] * 2, "crp": ["None", "1"] * 2})
    source = TableSource(frame=frame, form=TableForm(codes=("smoker", "crp")))
    source.read()
    assert source.assumed == {"word None": (["smoker"], 2)}


def test_row_names_of_a_parquet_file_are_told(tmp_path):
    frame = pd.DataFrame({"pid": [7, 8], "a": [1.0, 2.0], "y": [0, 1]})
    frame.set_index("pid").to_parquet(tmp_path / "t.parquet")
    source = TableSource(str(tmp_path / "t.parquet"))
    assert list(source.read().columns) == ["a", "y"]
    assert source.assumed == {"row names": (["pid"], 1)}
    for plain in (frame, frame.loc[[1, 0]]):
        plain.to_parquet(tmp_path / "t.parquet")
        source = TableSource(str(tmp_path / "t.parquet"))
        source.read()
        assert source.assumed == {}
    assert disclosed({"row names": (["pid"], 1)}, int, lambda name: name != "pid", every=False) == []


def test_what_arrays_do_not_say_of_themselves_is_told(tmp_path):
    np.savez(tmp_path / "t.npz", X=np.zeros((4, 2)), y=np.eye(4)[:, :2] + np.eye(4)[:, 2:])
    source = TableSource(str(tmp_path / "t.npz"), form=TableForm(codes=("y",)))
    assert source.read()["y"].tolist() == [0, 1, 0, 1]
    assert source.assumed == {"one-hot": (["y"], 1)}
    np.savez(tmp_path / "p.npz", x_train=np.zeros((4, 2)), y_train=[0, 1] * 2, x_test=np.zeros((2, 2)), y_test=[0, 1])
    source = TableSource(str(tmp_path / "p.npz"))
    source.read()
    assert source.assumed == {"parts": (["train", "test"], 2)}


def test_files_of_a_folder_that_are_not_read_are_counted(tmp_path):
    for name in ("X.npy", "y.npy", "X_extra.npy"):
        np.save(tmp_path / name, np.zeros((4,)))
    source = source_in(tmp_path)
    source.read()
    assert source.assumed == {"other arrays": ([], 1)}
    (tmp_path / "t.csv").write_text("a,y\n1,0\n")
    (tmp_path / "old.tsv").write_text("a\ty\n1\t0\n")
    assert source_in(tmp_path).assumed == {"other tables": ([".csv"], 2)}


def test_a_node_tells_no_more_of_what_it_assumed_than_its_rules_let_it():
    assumed = {"sheet": (["Labs"], 3), "image ending": (["_Jansen.png"], 4), "image suffix": ([".png"], 4)}
    assert all_may_be_told(assumed) == [
        ["image ending", ["_Jansen.png"], 4],
        ["image suffix", [".png"], 4],
        ["sheet", ["Labs"], 3],
    ]
    # Of fewer rows than a cell what follows in their names could be a patient's.
    few = disclosed(assumed, lambda count: count if count > 9 else None, lambda _: True, every=False)
    assert few == [["image ending", [], None], ["image suffix", [".png"], None], ["sheet", [], 3]]
    assert [item[2] for item in without_counts(all_may_be_told(assumed))] == [None, None, 3]


def test_cells_of_columns_that_a_node_hides_are_not_counted_with_those_of_others():
    assumed = {"excel errors": (["age", "hiv"], 7)}
    told = [disclosed(assumed, int, allows, every=False) for allows in (bool, lambda name: name == "age", "".__eq__)]
    assert told == [[["excel errors", ["age", "hiv"], 7]], [["excel errors", ["age"], None]], []]
    many = {"excel errors": ([f"c{number}" for number in range(11)], 11)}
    assert len(disclosed(many, int, bool, every=True)[0][1]) == 10


@pytest.mark.parametrize(
    "told",
    [
        [["nonsense", [], 1]],
        [["sheet", ["a\nb"], 1]],
        [["sheet", ["x" * 300], 1]],
        [["sheet", [1], 1]],
        [["sheet", ["a"] * 99, 1]],
        [["sheet", [], -1]],
        [["sheet", [], 1.5]],
        {"sheet": 1},
    ],
)
def test_what_no_site_would_tell_is_refused(told):
    with pytest.raises(WireError):
        check_assumed(told)


def test_one_note_names_all_sites_of_what_was_assumed():
    ending = lambda count: [["image ending", ["_T1w.nii.gz"], count]]  # noqa: E731
    (note,) = tell_assumed({"p": ending(40), "q": ending(2), "r": []})
    assert note.startswith("sites p, q: 42 names in data.image are read with what follows")
    assert note.endswith(": _T1w.nii.gz")
    assert "site 'p': some names" in tell_assumed({"p": [["image ending", [], None]]})[0]
    assert tell_assumed({"p": [["sheet", ["A"], 3]], "q": [["sheet", ["B"], 3]]})[1].startswith(
        "site 'q': of the Excel"
    )
    assert tell_assumed({"p": [], "q": []}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_note_says_how_many(kind):
    assert "7" in tell_assumed({"p": [[kind, [], 7]]})[0]


def test_a_run_and_a_description_tell_what_was_assumed(tmp_path):
    generator = np.random.default_rng(0)
    for site in ("p", "q"):
        (tmp_path / site).mkdir()
        ids = [f"{site}{row}" for row in range(30)]
        for name, values in zip(ids, generator.normal(size=(30, 2)), strict=True):
            lines = f"Left-Hippocampus\t{values[0]}\nRight-Hippocampus\t{values[1]}\n"
            (tmp_path / site / f"{name}_aparc.txt").write_text(lines)
        pd.DataFrame({"file": ids, "y": [0, 1] * 15}).to_csv(tmp_path / site / "t.csv", index=False)
    experiment = {"data": {"target": "y", "measures": "file"}, "rounds": 1}
    sites = {site: str(tmp_path / site / "t.csv") for site in ("p", "q")}
    said = "sites p, q: 60 names in data.measures are read with what follows them in the names of the files: _aparc.txt"
    assert said in v6.run(experiment, sites).notes
    assert said in v6.describe(experiment, sites).notes
    assert TableSource(sites["p"], form=TableForm(measures="file")) == TableSource(
        sites["p"], form=TableForm(measures="file")
    )
