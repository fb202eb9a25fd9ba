"""Folders of images at real nodes that run algorithms as processes; containers/ has the same in containers."""

import pytest
from image_folders import CUT_SHORT, DATABASES, EXPERIMENT, train_folders_here, write_sites
from training import TOLERANCE, largest_difference, rows_of, train

pytestmark = pytest.mark.slow


def test_images_in_three_kinds_of_folders_give_the_parameters_of_a_local_run(make_network, tmp_path):
    pytest.importorskip("PIL")
    sites = write_sites(tmp_path)
    result = train(make_network(sites), EXPERIMENT, databases=DATABASES)
    here = train_folders_here(sites)
    assert rows_of(result) == rows_of(here)
    assert largest_difference(here, result) <= TOLERANCE
    assert f"of its kind): row {CUT_SHORT}" in str(result["notes"])
