"""The image for vantage6 5: tried as a node would, and `master` over three nodes whose jobs are containers of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import patients
from docker_cli import docker
from figures import CONTAINERS
from hq_network import ROOT, run_script
from training import patients_experiment

pytestmark = pytest.mark.slow


def test_its_doctor_finds_it_usable_and_extraction_and_training_steps_run(algorithm_image_5):
    command = [sys.executable, "-m", "v6_algorithm", "image", "test", "--tag", algorithm_image_5]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RPC_prepare through vantage6's wrapper: 30 rows, 3 columns" in done.stdout
    assert f"{algorithm_image_5}: works" in done.stdout


def test_its_labels_say_of_which_vantage6_it_is(algorithm_image_5):
    (image,) = json.loads(docker("image", "inspect", algorithm_image_5))
    assert image["Config"]["Labels"]["vantage6.version"].startswith("5.")


def test_master_over_nodes_with_containers_gives_the_bits_of_a_local_run(
    algorithm_image_5, hq_network, figures, tmp_path_factory, tmp_path
):
    sites = patients(tmp_path_factory.mktemp("patients"))
    environment = {"V6_ALGORITHM_POLICY": "trusted", "OMP_NUM_THREADS": "1"}
    tables = {name: [str(site.databases["default"]), "csv"] for name, site in sites.items()}
    network = hq_network(
        {name: {"databases": {"default": table}, "environment": environment} for name, table in tables.items()},
        algorithm_image_5,
    )
    made = network.do("extract", name="patients", label="default")
    assert set(made["runs"].values()) == {"completed"}, made["log"][-3000:]
    experiment = patients_experiment(participation={"minimum": 3, "deadline_s": 600})
    names = {str(number): name for name, number in network.about["organizations"].items()}
    over = network.do(
        "task", method="master", arguments={"experiment": experiment, "names": names}, dataframe=made["dataframe"],
        action="central_compute", sites=["a"],
    )  # fmt: skip
    assert over["runs"] == {"a": "completed"}, over["log"][-3000:]
    (result,) = over["results"]
    ours = run_script(
        "here_run.py", {"sites": tables, "arguments": {"experiment": experiment}, "method": "master"}, tmp_path
    )
    for key in ("rounds_run", "best_round", "sites", "history", "metrics", "parameters"):
        assert result[key] == ours[key], key
    figures.note(f"vantage6 5: {result['rounds_run']} rounds (s)", CONTAINERS, f"{over['seconds']:.0f}")
