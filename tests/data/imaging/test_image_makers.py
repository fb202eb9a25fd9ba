"""Synthetic lesions and volumes: what tells the classes apart in them, and what does not."""

from __future__ import annotations

import csv
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

MOCK = Path(__file__).parents[3] / "mock"
sys.path.insert(0, str(MOCK))
Image = pytest.importorskip("PIL.Image")
make_lesions, make_volumes = import_module("make_lesions"), import_module("make_volumes")

Rule = make_lesions.Rule


def pixels(folder, rows):
    return np.stack([np.asarray(Image.open(folder / row["file"])) for row in rows])


def read(folder, name):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesions")
    make_lesions.make(folder, 700, size=32)
    rows = read(folder, "lesions.csv")
    return rows, pixels(folder, rows)


def auroc(features, labels, tested):
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features[~tested], labels[~tested])
    return roc_auc_score(labels[tested], model.decision_function(features[tested]))


def melanomas(rows):
    """Labels, and a third of the patients to test on."""
    people = np.unique([row["patient"] for row in rows])
    tested = np.random.default_rng(0).permutation(people)[: len(people) // 3]
    return np.array([row["label"] == "melanoma" for row in rows]), np.isin([row["patient"] for row in rows], tested)


def test_the_table_has_the_columns_and_every_file_is_there(lesions):
    rows, images = lesions
    assert list(rows[0])[:7] == ["file", "label", "patient", "sex", "age", "skin_type", "scanner"]
    assert images.shape == (700, 32, 32, 3)
    assert {row["label"] for row in rows} == {"benign", "melanoma"}
    assert {row["scanner"] for row in rows} == {"scanner-0", "scanner-1", "scanner-2"}
    assert {row["skin_type"] for row in rows} == set("123456")


def test_patients_have_several_images_of_one_skin_and_scanner(lesions):
    rows, _ = lesions
    facts = {}
    for row in rows:
        facts.setdefault(row["patient"], []).append(tuple(row[name] for name in ("sex", "age", "skin_type", "scanner")))
    assert all(len(set(own)) == 1 for own in facts.values())
    assert np.mean([len(own) > 1 for own in facts.values()]) > 0.3


def test_mean_colour_and_covariates_do_not_tell_a_melanoma(lesions):
    rows, images = lesions
    labels, tested = melanomas(rows)
    assert auroc(images.mean(axis=(1, 2)), labels, tested) < 0.75
    about = [[float(row["age"]), row["sex"] == "male", float(row["skin_type"])] for row in rows]
    assert auroc(np.array(about), labels, tested) < 0.75


@pytest.mark.slow
def test_a_small_cnn_tells_a_melanoma(tmp_path):
    make_lesions.make(tmp_path, 1500, size=32)
    rows = read(tmp_path, "lesions.csv")
    labels, tested = melanomas(rows)
    inputs = torch.tensor(pixels(tmp_path, rows)).permute(0, 3, 1, 2).float() / 255
    inputs = (inputs - inputs.mean((0, 2, 3), keepdim=True)) / inputs.std((0, 2, 3), keepdim=True)
    torch.manual_seed(0)
    layers = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))
    optimiser = torch.optim.Adam(network.parameters(), 0.002)
    wanted, train = torch.tensor(labels).float(), torch.tensor(np.flatnonzero(~tested))
    for _ in range(14):
        for batch in train[torch.randperm(len(train))].split(32):
            optimiser.zero_grad()
            turned = torch.rot90(inputs[batch], int(torch.randint(4, ())), (2, 3))
            nn.functional.binary_cross_entropy_with_logits(network(turned)[:, 0], wanted[batch]).backward()
            optimiser.step()
    with torch.no_grad():
        score = network(inputs[torch.tensor(tested)])[:, 0]
    assert roc_auc_score(labels[tested], score) > 0.8


def test_the_same_seed_gives_the_same_images_and_another_seed_others(tmp_path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        make_lesions.make(tmp_path / name, 4, size=32, seed=seed)
    files = {name: [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in ("one", "again")}
    assert files["one"] == files["again"]
    assert (tmp_path / "one" / "lesion-000000.png").read_bytes() not in [
        path.read_bytes() for path in (tmp_path / "other").iterdir()
    ]


def test_artefacts_are_as_frequent_as_the_last_rule_that_fits_says(tmp_path):
    rules = [
        Rule.parse(text) for text in ("ruler=0", "ruler:melanoma=1", "frame:scanner-1=1", "hair:scanner-0:benign=1")
    ]
    rows = make_lesions.make(tmp_path, 120, size=32, rules=rules)
    assert all(row["ruler"] == (row["label"] == "melanoma") for row in rows)
    assert all(row["frame"] for row in rows if row["scanner"] == "scanner-1")
    assert all(row["hair"] for row in rows if (row["scanner"], row["label"]) == ("scanner-0", "benign"))
    assert not all(row["hair"] for row in rows)


@pytest.mark.parametrize("wrong", ["stamp=0.1", "ruler", "ruler=2", "ruler:benign=many"])
def test_a_rule_that_cannot_be_read_is_refused(wrong):
    with pytest.raises(ValueError):
        Rule.parse(wrong)


def test_an_artefact_lies_over_the_same_lesion(tmp_path):
    for name, chance in (("without", 0), ("with", 1)):
        rules = [Rule(artefact, (), 0.0) for artefact in make_lesions.ARTEFACTS] + [Rule("frame", (), chance)]
        make_lesions.make(tmp_path / name, 3, size=48, rules=rules)
    without, framed = (pixels(tmp_path / name, read(tmp_path / name, "lesions.csv")) for name in ("without", "with"))
    np.testing.assert_allclose(framed[:, 20:28, 20:28].astype(int), without[:, 20:28, 20:28], atol=1)
    assert (framed[:, 0, 0] < 60).all()


def test_a_duplicate_is_nearly_its_original_and_of_the_same_patient(tmp_path):
    clean = [Rule(artefact, (), 0.0) for artefact in make_lesions.ARTEFACTS]
    rows = {row["file"]: row for row in make_lesions.make(tmp_path, 60, size=32, duplicates=0.3, rules=clean)}
    pairs = [(row, rows[row["duplicate_of"]]) for row in rows.values() if row["duplicate_of"]]
    assert 8 < len(pairs) < 30
    assert len(rows) == 60 + len(pairs)
    originals = pixels(tmp_path, [original for _, original in pairs]).reshape(len(pairs), -1).astype(float)
    copies = pixels(tmp_path, [copy for copy, _ in pairs]).reshape(len(pairs), -1).astype(float)
    assert all(copy["patient"] == original["patient"] for copy, original in pairs)
    assert not (originals == copies).all(axis=1).any()
    likeness = np.corrcoef(copies, originals)[: len(pairs), len(pairs) :]
    assert (likeness.argmax(axis=1) == np.arange(len(pairs))).mean() > 0.9


def test_scanners_differ_from_the_first_as_much_as_asked(tmp_path):
    images = {}
    for shift in (0.0, 0.5, 1.0):
        rows = make_lesions.make(tmp_path / str(shift), 40, size=32, shift=shift)
        images[shift] = pixels(tmp_path / str(shift), rows).astype(float)
    first = np.array([row["scanner"] == "scanner-0" for row in rows])
    away = {shift: np.abs(images[shift] - images[0.0]).mean(axis=(1, 2, 3)) for shift in (0.5, 1.0)}
    assert not away[1.0][first].any()
    assert away[0.5][~first].min() > 0
    assert away[1.0][~first].mean() > 1.5 * away[0.5][~first].mean()


def test_a_volume_differs_in_its_region_and_nowhere_else(tmp_path):
    make_volumes.make(tmp_path, 120, shape=(24, 28, 24))
    rows = read(tmp_path, "volumes.csv")
    volumes = np.stack([np.load(tmp_path / row["file"]) for row in rows])
    assert volumes.shape == (120, 24, 28, 24)
    assert volumes.dtype == np.float32
    patients = np.array([row["label"] == "patient" for row in rows])
    region = make_volumes.anatomy((24, 28, 24))[1]
    whole = volumes.mean(axis=(1, 2, 3))
    inside = (volumes * region).sum(axis=(1, 2, 3)) / whole
    assert roc_auc_score(patients, -inside) > 0.85
    assert 0.3 < roc_auc_score(patients, whole) < 0.7
    assert np.quantile(volumes[:, 0, 0, 0], 0.95) < 0.05, "outside the head is cut by the threshold of 0.05"


def test_nifti_volumes_are_the_npy_ones(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for form in ("npy", "nii.gz"):
        make_volumes.make(tmp_path, 1, shape=(12, 14, 12), form=form)
    image = nibabel.load(tmp_path / "volume-00000.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), np.load(tmp_path / "volume-00000.npy"))


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("make_lesions.py", ["--images", "3", "--size", "32", "--artefact", "frame=1", "--duplicates", "1"]),
        ("make_volumes.py", ["--volumes", "2", "--size", "8", "10", "8"]),
    ],
)
def test_the_commands_write_a_table(tmp_path, script, options):
    done = subprocess.run([sys.executable, MOCK / script, tmp_path, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (table,) = tmp_path.glob("*.csv")
    assert len(read(tmp_path, table.name)) == {"make_lesions.py": 6, "make_volumes.py": 2}[script]
