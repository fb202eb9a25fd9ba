"""Folders of images in containers, mounted read-only: beside a table, with one in it, and named by class."""

from __future__ import annotations

import pytest
from conftest import in_containers
from figures import CONTAINERS, DIFFERENCE
from image_folders import CUT_SHORT, DATABASES, EXPERIMENT, IMAGES, train_folders_here, write_sites
from training import TOLERANCE, largest_difference, rows_of, train
from v6network import SELF_TEST_IMAGE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    pytest.importorskip("PIL")
    return write_sites(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def collaboration(self_test_image, make_network, sites):
    return make_network(sites, **in_containers())


@pytest.fixture(scope="module")
def result(collaboration):
    return train(collaboration, EXPERIMENT, databases=DATABASES)


def test_images_in_three_kinds_of_folders_give_the_parameters_of_a_local_run(result, sites, figures):
    here = train_folders_here(sites)
    assert result["status"] == "completed"
    assert result["rounds_run"] == here["rounds_run"] == EXPERIMENT["rounds"]
    assert rows_of(result) == rows_of(here)
    assert sorted(result["sites"]) == ["a", "b", "c"]
    difference = largest_difference(here, result)
    assert difference <= TOLERANCE
    figures.note(DIFFERENCE, CONTAINERS, f"{difference:.0e}")
    figures.note_rounds(CONTAINERS, result)


def test_an_image_that_was_cut_short_is_told_by_its_place_and_the_run_goes_on(result):
    told = (
        "site 'b': 1 images are missing or cannot be read, and are left out "
        f"(1: cut short, damaged, or no image of its kind): row {CUT_SHORT}"
    )
    assert told in result["notes"]
    assert result["sites"]["b"]["n"]["rows"] == IMAGES - 1
    assert ".png" not in str({key: value for key, value in result.items() if key != "experiment"})


def test_a_hub_without_images_takes_no_part(result):
    assert any("site 'hub' took no part: absent" in note for note in result["notes"])


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_folder_of_images_is_there_to_read_and_not_to_write(collaboration, name):
    seen = collaboration.run("look", label="images", at=[name], databases=["images"], image=SELF_TEST_IMAGE)
    assert (seen["uri"], seen["type"], seen["writable"]) == ("/mnt/images", "folder", "Read-only file system")
