"""Layouts of hospitals beside tables: pairs of npy files, arrays of any axes, and FreeSurfer's tables of a subject."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from hospitals import command, read_result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from v6_algorithm.data.sources import TableSource, source_in
from v6_algorithm.errors import DataError
from v6_algorithm.experiment.table_form import TableForm

ASEG = """# Title Segmentation Statistics
# Measure BrainSeg, BrainSegVol, Brain Segmentation Volume, {brain}, mm^3
# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, 1500000.5, mm^3
# NTableCols 10
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange
  1   4      7000     {left}  Left-Lateral-Ventricle            36.0     13.0     7.0    86.0    79.0
  2  17      4000     {hippocampus}  Left-Hippocampus                  69.0     10.0    27.0   112.0    85.0
"""
APARC = """# Table of FreeSurfer cortical parcellation anatomical statistics
# hemi {hemi}
# Measure Cortex, MeanThickness, Mean Thickness, 2.5, mm
# ColHeaders StructName NumVert SurfArea GrayVol ThickAvg ThickStd MeanCurv GausCurv FoldInd CurvInd
bankssts                                  1550   1043   2500  2.516 0.498     0.112     0.025       13     1.6
"""


def aseg(number):
    return ASEG.format(brain=1_200_000 + 2 * number, left=7000.5 + number, hippocampus=4000.25 - number)


def read(path, **form):
    return TableSource(str(path), form=TableForm(**form)).read()


# -- arrays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "targets", "columns"),
    [
        ("X.npy", "y.npy", ["X_0", "X_1", "y"]),
        ("x.npy", "y.npy", ["x_0", "x_1", "y"]),
        ("X_train.npy", "y_train.npy", ["X_0", "X_1", "y"]),
        ("data.npy", "labels.npy", ["data_0", "data_1", "labels"]),
        ("features-site1.npy", "target-site1.npy", ["features_0", "features_1", "target"]),
        ("X.NPY", "y.NPY", ["X_0", "X_1", "y"]),
    ],
)
@pytest.mark.parametrize("by", ["folder", "file"])
def test_npy_files_in_pairs_are_one_table(tmp_path, inputs, targets, columns, by):
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6) % 2
    np.save((tmp_path / inputs).open("wb"), x)
    np.save((tmp_path / targets).open("wb"), y[:, None])
    (tmp_path / ".hidden.npy").write_bytes(b"")
    frame = (source_in(tmp_path) if by == "folder" else TableSource(str(tmp_path / inputs))).read()
    assert list(frame.columns) == columns
    np.testing.assert_array_equal(frame.to_numpy(), np.column_stack([x, y]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["<f8", ">f8", "<f4", "<f2", "u1", "<i8", ">i2", "bool"]),
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=4),
    rows=st.integers(1, 5),
    order=st.sampled_from("CF"),
)
def test_every_number_of_an_array_is_in_its_row_and_no_other(tmp_path, dtype, shape, rows, order):
    array = np.asarray(
        np.arange(rows * int(np.prod(shape, dtype=int))).reshape(rows, *shape) % 7, dtype=dtype, order=order
    )
    np.savez(tmp_path / "t.npz", a=array, y=np.arange(rows))
    frame = read(tmp_path / "t.npz")
    cells = frame.drop(columns="y")
    for row in range(rows):
        numbers = np.concatenate([np.ravel(cell) for cell in cells.iloc[row].tolist()])
        np.testing.assert_array_equal(numbers.astype(float), np.ravel(array[row]).astype(float))
    whole = read(tmp_path / "t.npz", whole=("a",))
    assert list(whole.columns) == ["a", "y"]


def test_fields_of_a_record_array_are_columns(tmp_path):
    rows = np.array([(61.5, 1, "icu"), (48.0, 0, "ward")], dtype=[("age", "f8"), ("died", "i4"), ("place", "U4")])
    np.savez(tmp_path / "t.npz", rows=rows)
    assert read(tmp_path / "t.npz").to_dict("list") == {"age": [61.5, 48.0], "died": [1, 0], "place": ["icu", "ward"]}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"X.npy": np.zeros((3, 2))}, "the folder .* has 0 tables .*or X.npy and y.npy"),
        ({"X.npy": np.zeros((3, 2)), "y.npy": np.zeros(4)}, "different numbers of rows"),
        ({"X.npy": np.zeros((3, 2)), "y.npy": np.array([1, "a", None], object)}, "holds Python objects"),
        ({"X.npy": np.zeros((3, 2)), "y.npy": np.zeros(3, complex)}, "complex numbers"),
        ({"X.npy": np.float64(3), "y.npy": np.zeros(3)}, "different numbers of rows"),
        ({"X_a.npy": np.zeros((3, 2)), "y_b.npy": np.zeros(3)}, "has 0 tables"),
        ({n: np.zeros(3) for n in ("X_a.npy", "y_a.npy", "X_b.npy", "y_b.npy")}, "has 2 pairs of npy files"),
        ({"subject1.npy": np.zeros((3, 2)), "subject2.npy": np.zeros((3, 2))}, "has 0 tables"),
    ],
)
def test_arrays_that_make_no_table_are_refused_by_name(tmp_path, files, message):
    for name, array in files.items():
        np.save(tmp_path / name, array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        source_in(tmp_path).read()


@pytest.mark.parametrize("ending", ["npz", "NPZ"])
def test_a_lone_npz_is_its_folders_table(tmp_path, ending):
    np.savez((tmp_path / f"t.{ending}").open("wb"), X=np.arange(6.0).reshape(3, 2), y=np.arange(3))
    (tmp_path / ".hidden.npz").write_bytes(b"")
    assert list(source_in(tmp_path).read().columns) == ["X_0", "X_1", "y"]


def test_npz_files_beside_a_table_are_its_rows_and_others_are_asked_for_by_name(tmp_path):
    for name in ("sub-1", "sub-2"):
        np.savez(tmp_path / f"{name}.npz", np.zeros(3))
    with pytest.raises(DataError, match=r"has 2 tables .*name the table in place of the folder"):
        source_in(tmp_path)
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-1\t50\n")
    assert source_in(tmp_path).uri.endswith("participants.tsv")
    (tmp_path / "participants.tsv").unlink()
    np.save(tmp_path / "X.npy", np.zeros((3, 2)))
    np.save(tmp_path / "y.npy", np.zeros(3))
    with pytest.raises(DataError, match="pairs of npy files and npz files; name the file that is the table"):
        source_in(tmp_path)


@pytest.mark.parametrize("dtype", ["u1", "f4", "?"])
def test_a_single_one_in_each_row_of_the_target_is_its_class(tmp_path, dtype):
    classes = np.array([2, 0, 1, 2])
    np.savez(tmp_path / "t.npz", X=np.zeros((4, 2)), y=np.eye(3, dtype=dtype)[classes])
    frame = read(tmp_path / "t.npz", codes=("y",))
    assert list(frame.columns) == ["X_0", "X_1", "y"]
    assert frame["y"].tolist() == classes.tolist()
    # Who learns y_0 and y_1 by themselves gets them.
    assert list(read(tmp_path / "t.npz", codes=("y_0",)).columns)[2:] == ["y_0", "y_1", "y_2"]


@pytest.mark.parametrize("rows", [[[1, 1], [0, 1]], [[0, 0], [0, 1]], [[0.5, 0.5], [0, 1]], [[1, 2], [1, 0]]])
def test_labels_that_are_not_of_one_class_each_stay_columns(tmp_path, rows):
    np.savez(tmp_path / "t.npz", X=np.zeros((2, 2)), y=np.array(rows))
    assert list(read(tmp_path / "t.npz", codes=("y",)).columns)[2:] == ["y_0", "y_1"]


@pytest.mark.parametrize("name", ["{part}_{of}", "{of}_{part}", "{of}-{part}"])
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_arrays_of_parts_are_one_table_that_says_which(tmp_path, name, kind):
    lengths = {"train": 4, "val": 2, "test": 3}
    arrays = {}
    for part, rows in lengths.items():
        arrays[name.format(part=part, of="images")] = np.full((rows, 2, 2), rows, dtype="u1")
        arrays[name.format(part=part, of="labels")] = np.full((rows, 1), rows)
    if kind == "npz":
        np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    else:
        for called, array in arrays.items():
            np.save(tmp_path / f"{called}.npy", array)
    frame = source_in(tmp_path).read()
    assert list(frame.columns) == ["images", "labels", "split"]
    assert frame.groupby("split").size().to_dict() == {"train": 4, "validation": 2, "test": 3}
    assert frame["labels"].tolist() == [cell[0, 0] for cell in frame["images"]]
    words = {4: "train", 2: "validation", 3: "test"}
    assert frame["split"].tolist() == [words[rows] for rows in frame["labels"]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_x": (3,), "test_x": (2,), "ids": (4,)}, "different numbers of rows"),
        ({"train_x": (3,), "train_y": (3,), "test_x": (2,)}, "different numbers of rows"),
        ({"train_x": (3,), "train_y": (2,), "test_x": (2,), "test_y": (2,)}, "different numbers of rows"),
        ({"train_x": (3, 4), "test_x": (2, 5)}, "other lengths of a row"),
    ],
)
def test_parts_that_do_not_match_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "t.npz", **{name: np.zeros(shape) for name, shape in arrays.items()})
    with pytest.raises(DataError, match=message):
        read(tmp_path / "t.npz")


def test_an_array_without_its_targets_is_refused_with_the_name_that_they_go_by(tmp_path):
    np.save(tmp_path / "X_north.npy", np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"X_north\.npy has no other array beside it: its targets go in y_north\.npy"):
        read(tmp_path / "X_north.npy")


def test_a_pair_that_changed_is_another_table(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((3, 2)))
    np.save(tmp_path / "y.npy", np.zeros(3))
    before = source_in(tmp_path).fingerprint
    np.save(tmp_path / "y.npy", np.zeros(3, dtype="f4"))
    assert before != source_in(tmp_path).fingerprint != None  # noqa: E711


@pytest.mark.parametrize(("kind", "shape"), [("image", (12, 12)), ("image", (3, 12, 12)), ("volume", (8, 8, 8))])
@pytest.mark.parametrize("layout", ["npz", "pair"])
def test_arrays_of_images_and_volumes_train(tmp_path, layout, kind, shape):
    sites = {}
    for name in ("a", "b"):
        generator = np.random.default_rng(ord(name))
        images, y = generator.integers(0, 99, (40, *shape)).astype(np.uint8), np.arange(40) % 2
        images[y == 1] += 60
        sites[name] = f"{name}.npz" if layout == "npz" else name
        if layout == "npz":
            np.savez(tmp_path / f"{name}.npz", images=images, y=y)
        else:
            (tmp_path / name).mkdir()
            np.save(tmp_path / name / "images.npy", images)
            np.save(tmp_path / name / "y.npy", y)
    image = {"column": "images"} | ({"dimensions": 3} if kind == "volume" else {})
    model = {"kind": "cnn", "widths": [2]}
    content = {"sites": sites, "data": {"target": "y", "image": image}, "problem": f"{kind}_classification"}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content | {"model": model, "rounds": 1}))
    done = command("run", tmp_path / "e.yaml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert read_result(tmp_path / "out")["preparation"]["image_shape"] == [
        *([1] if len(shape) == 2 or kind == "volume" else []),
        *shape,
    ]


# -- FreeSurfer ----------------------------------------------------------------------------------------------------


@pytest.fixture
def subjects(tmp_path):
    """Return a function that writes subjects in a layout, and the column of their names."""

    def write(layout, count=4, folder=tmp_path):
        names = []
        folder.mkdir(exist_ok=True)
        for number in range(count):
            name = f"sub-{number:02d}"
            if layout == "folders":
                stats = folder / name / "stats"
                stats.mkdir(parents=True)
                (stats / "aseg.stats").write_text(aseg(number))
                for hemi in ("lh", "rh"):
                    (stats / f"{hemi}.aparc.stats").write_text(APARC.format(hemi=hemi))
            elif layout == "stats":
                (folder / f"{name}.stats").write_text(aseg(number))
            else:
                lines = [("BrainSegVol", 1_200_000 + 2 * number), ("Left-Hippocampus", 4000.25 - number)]
                top = f"Measure:volume\t{name}\n" if layout == "dinunet" else ""
                mark = "," if layout == "csv" else "\t"
                text = top + "".join(f"{measure}{mark}{value}\n" for measure, value in lines)
                (folder / (f"{name}_aseg_stats.txt" if layout == "dinunet" else f"{name}.{layout}")).write_text(text)
            names.append(name)
        return names

    return write


@pytest.mark.parametrize("layout", ["folders", "stats", "dinunet", "csv", "tsv"])
def test_tables_of_a_subject_become_columns_beside_the_covariates(tmp_path, subjects, layout):
    pd.DataFrame({"id": subjects(layout), "age": [50, 60, 70, 80]}).to_csv(tmp_path / "t.csv", index=False)
    frame = read(tmp_path / "t.csv", measures="id")
    assert frame["Left-Hippocampus"].tolist() == [4000.25, 3999.25, 3998.25, 3997.25]
    assert frame["BrainSegVol"].tolist() == [1_200_000, 1_200_002, 1_200_004, 1_200_006]
    assert frame["age"].tolist() == [50, 60, 70, 80]
    if layout == "folders":
        assert frame.loc[0, ["lh_bankssts_area", "rh_bankssts_volume", "lh_bankssts_thickness"]].tolist() == [
            1043,
            2500,
            2.516,
        ]
        assert (frame["eTIV"] == 1500000.5).all()
    assert list(TableSource(str(tmp_path / "t.csv"), form=TableForm(measures="id")).read({"age"}.__contains__)) == [
        "age"
    ]


@pytest.mark.parametrize("ids", [["a1", "a2", "a3"], [100307, 100408, 101107]])
@pytest.mark.parametrize("ending", ["_aparc.txt", ".thickness.csv", "-lh.stats.txt"])
def test_what_all_cells_leave_out_of_their_files_names_may_be_anything(tmp_path, ids, ending):
    for number, name in enumerate(ids):
        (tmp_path / f"{name}{ending}").write_text(f"lh_cuneus\t{number}.5\n")
        (tmp_path / f"{name}_x{ending}").write_text("lh_cuneus\t99\n") if number > 1 else None
    pd.DataFrame({"id": ids}).to_csv(tmp_path / "t.csv", index=False)
    assert read(tmp_path / "t.csv", measures="id")["lh_cuneus"].tolist() == [0.5, 1.5, 2.5]
    (tmp_path / f"{ids[1]}{ending}").unlink()
    with pytest.raises(DataError, match=r"has 1 cells .*: row 2;"):
        read(tmp_path / "t.csv", measures="id")


def test_two_tables_of_each_subject_are_told_by_their_endings(tmp_path):
    for name in ("a1", "a2"):
        for ending in ("_aparc.txt", "_aseg.txt"):
            (tmp_path / f"{name}{ending}").write_text("x\t1\n")
    pd.DataFrame({"id": ["a1", "a2"]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"more than one table each: _aparc\.txt, _aseg\.txt; write the one"):
        read(tmp_path / "t.csv", measures="id")


def test_a_structure_that_one_subject_lacks_is_empty_there(tmp_path, subjects):
    names = subjects("stats")
    lines = aseg(1).splitlines()
    (tmp_path / "sub-01.stats").write_text("\n".join(lines[:-1]) + "\n")
    pd.DataFrame({"id": names}).to_csv(tmp_path / "t.csv", index=False)
    assert read(tmp_path / "t.csv", measures="id")["Left-Hippocampus"].isna().tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("cell", "content"),
    [
        ("gone.stats", None),
        ("../out.stats", None),
        ("", None),
        ("cut.stats", aseg(0)[:-40]),
        ("words.txt", "a\tb\nc\td\n"),
        ("twice.txt", "a\t1\na\t2\n"),
        ("empty.txt", ""),
        ("bytes.txt", b"\xff\xfe\x00\x01"),
        ("wide.txt", "a\t1\t2\nb\t3\t4\nc\t1\t1\n"),
        ("zero.stats", "# ColHeaders Index\n"),
    ],
)
def test_a_subject_without_a_table_is_told_by_its_row(tmp_path, subjects, cell, content):
    folder = tmp_path / "in"
    names = subjects("stats", folder=folder)
    (tmp_path / "out.stats").write_text(aseg(7))
    if content is not None:
        (folder / cell).write_bytes(content if isinstance(content, bytes) else content.encode())
    pd.DataFrame({"id": [*names[:2], cell, names[3]], "age": 4711}).to_csv(folder / "t.csv", index=False)
    with pytest.raises(DataError, match=r"column 'id' \(data.measures\) has 1 cells .*: row 3; allowed") as refused:
        read(folder / "t.csv", measures="id")
    assert "sub-" not in str(refused.value)


def test_measures_train_within_the_nodes_columns_and_change_with_their_files(tmp_path, subjects, monkeypatch):
    for site in ("a", "b"):
        folder = tmp_path / site
        names = subjects("dinunet", 36, folder)
        frame = pd.DataFrame({"freesurferfile": [f"{name}_aseg_stats.txt" for name in names], "y": np.arange(36) % 2})
        frame.to_csv(folder / "covariates.csv", index=False)
    content = {
        "sites": {"a": "a/covariates.csv", "b": "b"},
        "data": {"target": "y", "measures": "freesurferfile"},
        "problem": "classification",
        "model": "logistic",
        "rounds": 1,
    }
    # Beside the measures' files a folder has one table.
    (tmp_path / "e.yaml").write_text(json.dumps(content))
    done = command("run", tmp_path / "e.yaml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert read_result(tmp_path / "out")["preparation"]["features"] == ["BrainSegVol", "Left-Hippocampus"]
    source = TableSource(str(tmp_path / "a" / "covariates.csv"), form=TableForm(measures="freesurferfile"))
    before = source.fingerprint
    (tmp_path / "a" / "sub-03_aseg_stats.txt").write_text("BrainSegVol\t1\n")
    assert source.fingerprint != before
    monkeypatch.setenv("V6_ALGORITHM_ALLOWED_COLUMNS_REGEX", "freesurferfile|y|BrainSegVol")
    done = command("run", tmp_path / "e.yaml", "--engine", "mock", "--out", tmp_path / "allowed")
    assert done.exit_code == 0, done.output
    assert read_result(tmp_path / "allowed")["preparation"]["features"] == ["BrainSegVol"]
