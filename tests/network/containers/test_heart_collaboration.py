"""The collaboration that config/ describes, as it stands there: three hospitals on Docker, encrypted, data mounted
read-only, all of the template's guards. Real heart patients by hospital where the files are, else breast cancer."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml
from conftest import in_containers
from figures import DIFFERENCE, ENCRYPTED
from training import TOLERANCE, files, largest_difference, rows_of, train, train_here
from v6config import Site, template
from v6network import SELF_TEST_IMAGE

from v6_algorithm.data.builtin import load_builtin

ROOT = Path(__file__).parents[3]
HEART = ROOT.parent / "shared" / "data" / "heart_disease"
HOSPITALS = ["cleveland", "hungarian", "va"]
SCAN = "not really a scan"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def experiment() -> dict:
    """What mock/heart.yaml asks for, in fewer rounds; for breast cancer the same with its own columns."""
    content = yaml.safe_load((ROOT / "mock" / "heart.yaml").read_text())
    del content["sites"]
    content |= {"rounds": 5, "participation": {"minimum": 3, "deadline_s": 300}}
    if not HEART.exists():
        content["data"] = {"target": "target", "features": ["mean radius", "mean texture", "mean smoothness"]}
    return content


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, Path]:
    if HEART.exists():
        return {name: HEART / f"{name}.csv" for name in HOSPITALS}
    folder, frame = tmp_path_factory.mktemp("breast_cancer"), load_builtin("breast_cancer")
    for number, name in enumerate(HOSPITALS):
        frame[number::3].to_csv(folder / f"{name}.csv", index=False)
    return {name: folder / f"{name}.csv" for name in HOSPITALS}


@pytest.fixture(scope="module")
def collaboration(self_test_image, make_network, tables, experiment, tmp_path_factory):
    # Compared with `run`, whose own files are trusted; under standard each node draws folds that nobody else knows.
    guards = template("node_configuration.yaml")["algorithm_env"] | {"V6_ALGORITHM_POLICY": "trusted"}
    if not HEART.exists():
        data = experiment["data"]
        guards["V6_ALGORITHM_ALLOWED_COLUMNS_REGEX"] = "|".join([*data["features"], data["target"]])
    sites = {}
    for name, path in tables.items():
        images = tmp_path_factory.mktemp("images")
        (images / "scan.txt").write_text(SCAN)
        # A copy in a folder of ours: a read-only mount of the file itself must not be what protects it.
        shutil.copy(path, images.with_suffix(".csv"))
        sites[name] = Site({"default": images.with_suffix(".csv"), "images": images}, guards)
    return make_network(sites, encrypted=True, **in_containers())


@pytest.fixture(scope="module")
def result(collaboration, experiment):
    return train(collaboration, experiment)


def test_master_gives_the_parameters_of_a_local_run(collaboration, experiment, result, figures):
    here = train_here(files(collaboration, HOSPITALS), experiment)
    assert result["status"] == "completed"
    assert result["rounds_run"] == here["rounds_run"] == experiment["rounds"]
    assert rows_of(result) == rows_of(here)
    assert sorted(result["sites"]) == HOSPITALS
    difference = largest_difference(here, result)
    assert difference <= TOLERANCE
    for name, value in here["metrics"]["test"]["pooled"].items():
        assert result["metrics"]["test"]["pooled"][name] == pytest.approx(value, abs=TOLERANCE), name
    figures.note(DIFFERENCE, ENCRYPTED, f"{difference:.0e}")
    figures.note_rounds(ENCRYPTED, result)


def test_every_site_answered_every_round(result):
    for call in result["participation"][1:]:
        assert (call["answered"], call["missing"]) == (HOSPITALS, {})


def test_the_server_can_read_neither_requests_nor_results(collaboration, result):
    with sqlite3.connect(collaboration.folder / "server" / "server.sqlite") as database:
        runs = database.execute("SELECT input, result FROM run").fetchall()
    # A trainer that is about to end has no result yet.
    stored = [text for run in runs for text in run if text is not None]
    assert len(stored) > 2 * len(HOSPITALS) * result["rounds_run"]
    # vantage6's form of an encrypted text: the key, the initial vector and the message, each in base64.
    assert all(text.count("$") == 2 for text in stored)


def test_a_folder_is_there_to_read_and_not_to_write(collaboration):
    seen = collaboration.run("look", label="images", at=["va"], databases=["images"], image=SELF_TEST_IMAGE)
    expected = {"uri": "/mnt/images", "type": "folder", "content": {"scan.txt": SCAN}}
    assert seen == expected | {"writable": "Read-only file system"}
    assert [path.name for path in collaboration.sites["va"].databases["images"].iterdir()] == ["scan.txt"]


def test_a_table_is_there_to_read_and_not_to_write(collaboration):
    path = collaboration.sites["va"].databases["default"]
    seen = collaboration.run("look", label="default", at=["va"], image=SELF_TEST_IMAGE)
    expected = {"uri": "/mnt/default.csv", "type": "csv", "content": path.read_text()}
    assert seen == expected | {"writable": "Read-only file system"}


def test_a_column_outside_the_guards_of_the_template_is_refused(collaboration, experiment):
    if not HEART.exists():
        pytest.skip("the template's columns are the heart files'")
    data = {**experiment["data"], "features": ["age", "slope"]}
    with pytest.raises(RuntimeError, match="slope") as refused:
        train(collaboration, {**experiment, "data": data})
    assert json.dumps(str(refused.value)).count("refused") >= len(HOSPITALS)
