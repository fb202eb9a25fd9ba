"""The image as nodes run it: algorithms in containers. Slower than networks of processes, so these tests are few."""

from __future__ import annotations

import json

import pytest
from docker_cli import BASE_IMAGE, docker, image_size
from v6network import SELF_TEST_IMAGE

MOST_ADDED_BYTES = 1.15e9  # by the image to its base, torch being three quarters of it


def inspect(image: str) -> dict:
    return json.loads(docker("image", "inspect", image))[0]


@pytest.mark.slow
def test_the_image_adds_at_most_what_was_promised_to_its_base(algorithm_image):
    assert image_size(algorithm_image) - image_size(BASE_IMAGE) <= MOST_ADDED_BYTES


@pytest.mark.slow
def test_the_image_keeps_no_wheel_no_cache_and_no_certificate_setting(algorithm_image):
    search = [
        "find",
        "/",
        "-xdev",
        "(",
        "-name",
        "torch*.whl",
        "-o",
        "-path",
        "/root/.cache",
        "-o",
        "-path",
        "/src",
        ")",
    ]
    assert docker("run", "--rm", algorithm_image, *search) == ""
    names = {entry.partition("=")[0] for entry in inspect(algorithm_image)["Config"]["Env"]}
    assert not {name for name in names if "CERT" in name or name.startswith("PIP_")}


@pytest.mark.slow
def test_containers_reach_each_other_through_their_nodes(docker_network):
    sites = {docker_network.organizations[name]: name for name in "abc"}
    answers = docker_network.run("master", sites=list(sites), image=SELF_TEST_IMAGE, timeout_s=180)
    assert {sites[int(site)]: answer["rows"] for site, answer in answers.items()} == {"a": 40, "b": 50, "c": 60}
    assert {answer["calls"] for answer in answers.values()} == {1}


@pytest.mark.slow
def test_a_crashed_container_is_told_with_its_log(docker_network):
    runs = docker_network.wait(docker_network.create("crash", at=["a"], image=SELF_TEST_IMAGE), timeout_s=120)
    assert (runs["a"].status, "told to crash" in runs["a"].log) == ("crashed", True)
