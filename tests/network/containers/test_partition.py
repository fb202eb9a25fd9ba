"""A node whose line to the server is cut in the middle of a round, and mended some rounds later."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cable import Cable
from spying import Spy, lose
from test_container_failures import call, training_container
from training import TOLERANCE, asked, files, largest_difference, patients_experiment, slowest_call_s
from v6network import Run
from v6process import wait_for

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

pytestmark = pytest.mark.slow
LEAST_DEADLINE_S = 45
# A site that works is this much quicker than the deadline, however busy the machine is.
MARGIN = 4
# Enough for a node to come back in, however long it waits between its tries.
ROUNDS = 10


def experiment(**changes):
    content = {"rounds": ROUNDS, "resident": False, "stopping": {"patience": None}, "output": {"model": "last"}}
    return patients_experiment(**content | changes)


@pytest.fixture(scope="module")
def deadline_s(docker_network) -> int:
    return round(max(LEAST_DEADLINE_S, MARGIN * slowest_call_s(docker_network)))


@pytest.fixture(scope="module")
def cut_off(deadline_s) -> dict:
    """The experiment of the run; whoever fails is asked in each round all the same."""
    return experiment(participation={"minimum": 2, "deadline_s": deadline_s, "quarantine": None})


@pytest.fixture(scope="module")
def divided(docker_network, cut_off) -> Run:
    """A run in which b is cut off while its container of round 2 works, until round 3 is asked."""
    cable = Cable(docker_network.port)
    try:
        with docker_network.changed({"b": replace(docker_network.sites["b"], server_port=cable.port)}):
            task = docker_network.create("master", experiment=cut_off)
            training_container(docker_network, task, "b", round=2)
            cable.cut()
            wait_for(
                lambda: any(number == 3 for *_, number, _ in asked(docker_network, task)), "round 3", timeout_s=600
            )
            cable.mend()
            ended = docker_network.wait(task, timeout_s=1200)["hub"]
    finally:
        cable.close()
    assert ended.status == "completed", ended.log[-2000:]
    return ended


def rounds_without_b(ended: Run) -> list[int]:
    return [number for number in range(1, ROUNDS + 1) if "b" in call(ended, number)["missing"]]


def test_the_others_go_on_and_the_node_that_is_cut_off_is_named(divided, deadline_s):
    assert (divided.result["status"], divided.result["rounds_run"]) == ("completed", ROUNDS)
    assert call(divided, 1)["answered"] == ["a", "b", "c"]
    assert call(divided, 2)["answered"] == ["a", "c"]
    assert call(divided, 2)["missing"]["b"].startswith(f"late: no answer within {deadline_s} s")


def test_it_takes_part_again_once_the_line_is_mended(divided):
    assert ["a", "b", "c"] in [call(divided, number)["answered"] for number in range(3, ROUNDS + 1)]
    assert sorted(divided.result["sites"]) == ["a", "b", "c"]


def test_the_parameters_are_those_of_a_run_in_which_it_is_missing_in_the_same_rounds(divided, docker_network, cut_off):
    checked = Experiment.parse(cut_off)
    tables = {name: TableSource(str(path)) for name, path in files(docker_network, "abc").items()}
    here, whole = (
        run(Spy(local_federation(checked, tables), lose("b", rounds)), checked)
        for rounds in (rounds_without_b(divided), [])
    )
    assert largest_difference(here, divided.result) <= TOLERANCE
    assert largest_difference(whole, divided.result) > 100 * TOLERANCE
