"""Planted duplicates: neither a patient nor an exact copy of an image is in two parts, whatever the split.

aidotse/decentralizedAI_dermatology tests on patients that it trained on: its active client draws from all images.
"""

from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.imaging.copies import CopyFinder, count_apart, identities, with_copies_together
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.splits import Fold
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import PARTS, Experiment

SITES = ("one", "two", "three")
ROWS, COPIES = 48, 8


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Three hospitals' lesions: second photographs of a patient, and exact copies under another patient's name."""
    pytest.importorskip("PIL")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[3] / "mock"))
        make = import_module("make_lesions").make
    sites = {}
    for seed, name in enumerate(SITES):
        folder = tmp_path_factory.mktemp(name)
        frame = pd.DataFrame(make(folder, ROWS, size=32, seed=seed, duplicates=0.2))
        generator = np.random.default_rng(seed)
        for number, row in enumerate(generator.permutation(len(frame))[:COPIES]):
            copy = frame.iloc[row].to_dict() | {"file": f"copy-{number}.png", "patient": f"other-{number // 2}"}
            (folder / copy["file"]).write_bytes((folder / frame.file[row]).read_bytes())
            frame = pd.concat([frame, pd.DataFrame([copy])], ignore_index=True)
        frame = frame.sample(frac=1, random_state=seed, ignore_index=True)
        frame = frame.assign(part=np.array(["train", "validation", "test"])[generator.integers(0, 3, len(frame))])
        frame.to_csv(folder / "lesions.csv", index=False)
        sites[name] = (folder, frame)
    return sites


def trained(hospitals, **changes):
    """Run an experiment; return its result and every site's table with the split that was made of it."""
    content = Experiment.parse(
        {
            "data": {"target": "label", "group": "patient", "image": "file", **changes.pop("data", {})},
            "problem": "image_classification",
            "model": {"kind": "cnn", "widths": [2]},
            "rounds": 1,
            **changes,
        }
    )
    tables = {}
    answer = local.handle

    def listen(method, request, context, **options):
        reply = answer(method, request, context, **options)
        for value in context.memory.values():
            if hasattr(value, "folds"):
                tables[request["site"]] = value
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", listen)
        sources = {name: TableSource(str(folder / "lesions.csv")) for name, (folder, _) in hospitals.items()}
        return run(local_federation(content, sources), content), tables


def shared(hospitals, tables, what):
    """Values of `what` of a row, of any site and fold, that stand in more than one part."""
    found = set()
    for name, (folder, frame) in hospitals.items():
        values = [what(folder, row) for row in frame.to_dict("records")]
        for fold in tables[name].folds:
            parts = [{values[place] for place in tables[name].position[fold[part]]} for part in PARTS]
            found |= (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
    return found


def content_of(folder, row):
    return (folder / row["file"]).read_bytes()


def patient_of(folder, row):
    return row["patient"]


SPLITS = [
    {"kind": "ratio"},
    {"kind": "ratio", "stratify": False},
    {"kind": "kfold", "folds": 3, "repeats": 2},
    {"kind": "leave_one_site_out"},
]


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS, ids=lambda split: "-".join(map(str, split.values())))
@pytest.mark.parametrize("group", ["patient", None])
def test_neither_a_patient_nor_a_copy_is_in_two_parts(hospitals, split, group):
    result, tables = trained(hospitals, split=split, data={"group": group})
    assert set(tables) == set(SITES)
    # Of a hospital that is left out all rows are tested; else at least two parts have some.
    assert all(
        len(fold.test) == len(table.position) or (len(fold.train) and len(fold.validation))
        for table in tables.values()
        for fold in table.folds
    )
    assert not shared(hospitals, tables, content_of)
    if group is not None:
        assert not shared(hospitals, tables, patient_of)
    assert f"site 'one': {COPIES} images are exact copies of others; copies stay in one part" in str(result["notes"])


@pytest.mark.slow
def test_the_planted_copies_would_leak_if_nobody_looked(hospitals, monkeypatch):
    """So that the tests above can fail."""
    monkeypatch.setattr("v6_algorithm.data.encoding.with_copies_together", lambda groups, images: groups)
    _, tables = trained(hospitals)
    assert shared(hospitals, tables, content_of)
    assert not shared(hospitals, tables, patient_of)


@pytest.mark.slow
def test_a_given_split_is_kept_and_its_copies_in_several_parts_are_counted(hospitals):
    split = {"split": {"kind": "given"}, "data": {"group": None, "split_column": "part"}}
    result, tables = trained(hospitals, **split)
    for name, (folder, frame) in hospitals.items():
        for part in PARTS:
            places = tables[name].position[tables[name].folds[0][part]]
            assert set(frame.part[places]) == {part}
        parts = frame.groupby([content_of(folder, row) for row in frame.to_dict("records")])["part"]
        apart = int((parts.transform("nunique") > 1).sum())
        assert apart >= 5
        assert f"site '{name}': {apart} images have an exact copy in another part of the given split" in str(
            result["notes"]
        )


def test_few_copies_are_not_counted_out(tmp_path):
    from v6_algorithm.coordinator.preparation.notes.images import tell_copies
    from v6_algorithm.site.policy import Policy

    told = [Policy().disclosed(count) for count in (0, 1, 4, 5)]
    assert told == [0, None, None, 5]
    (note,) = tell_copies({"one": {"rows": None, "apart": 0}, "two": {"rows": 0, "apart": 0}})
    assert note.startswith("site 'one': some images are exact copies")


# -- the parts of it -----------------------------------------------------------------------------------------------

GROUPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40)


@given(GROUPS)
@settings(max_examples=100)
def test_joined_groups_are_the_connected_ones(rows):
    groups, images = (np.array(column) for column in zip(*rows, strict=True))
    found = with_copies_together(groups, images)
    # By hand: what is reached from a row by steps to rows of its group or with its image.
    for row in range(len(rows)):
        reached = np.zeros(len(rows), dtype=bool)
        reached[row] = True
        while (wider := np.isin(groups, groups[reached]) | np.isin(images, images[reached])).sum() > reached.sum():
            reached = wider
        np.testing.assert_array_equal(found == found[row], reached)


def test_without_copies_the_split_is_what_it_was():
    groups = np.array([3, 1, 3])
    assert with_copies_together(groups, np.array([0, 1, 2])) is groups
    assert with_copies_together(None, np.array([0, 1, 2])) is None


def test_images_of_one_colour_are_no_copies_and_others_are_at_any_distance():
    finder, picture = CopyFinder(), np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    for row, values in enumerate([picture, np.zeros_like(picture), picture + 1, np.zeros_like(picture), picture]):
        finder.see(row, values)
    assert finder.pairs.tolist() == [[4, 0]]


def test_copies_are_found_by_place_when_rows_were_left_out():
    pairs = np.array([[4, 0], [5, 0], [7, 6]])
    assert with_copies_together(None, identities(pairs, np.array([1, 4, 5, 7]))).tolist()[1:3] == [1, 1]


def test_copies_apart_are_counted_in_the_worst_fold_and_within_a_hospital():
    images, member = np.array([0, 0, 1, 0]), np.array([0, 0, 0, 1])
    none = np.empty(0, np.int64)
    together = Fold(np.array([0, 1]), np.array([2]), np.array([3]))
    apart = Fold(np.array([0, 2]), none, np.array([1, 3]))
    assert count_apart([together], images, member) == 0
    assert count_apart([together, apart], images, member) == 2
