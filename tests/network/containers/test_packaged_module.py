"""A notebook's network with its own loss and metric on the Docker network: `package`, `docker build`, `submit`."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from docker_cli import docker, image_size
from figures import CONTAINERS
from training import TOLERANCE, files, largest_difference
from v6network import IMAGE, PACKAGED_IMAGE

import v6_algorithm.api as v6
from v6_algorithm.experiment import plugins


# What stands in a researcher's notebook.
class Gated(torch.nn.Module):
    """Columns weigh each other before they are added up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gate, self.value = torch.nn.Linear(inputs, 8), torch.nn.Linear(inputs, 8)
        self.last = torch.nn.Linear(8, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.sigmoid(self.gate(x)) * self.value(x))


def brier(output, target):
    return (torch.sigmoid(output[:, 0]) - target) ** 2


def hit(prediction, target):
    return prediction.argmax(axis=1) == target


PARTS = {"loss": brier, "metrics": {"hit": hit}}
# All rows in one batch: how a node under `standard`, which deals by a secret of its own, sorts them does not count.
KEYS = {"seed": 3, "rounds": 3, "training": {"batch_size": 1000}, "split": {"train": 1, "validation": 0, "test": 0}}


@pytest.mark.slow
def test_a_notebooks_module_trains_in_the_image_that_package_writes(docker_network, tmp_path, monkeypatch, figures):
    """Built as its Dockerfile says, without a registry; trained to the parameters of the run in the notebook."""
    tables = files(docker_network, "abc")
    here = v6.run({**KEYS, "data": {"target": "outcome"}}, tables, model=Gated, **PARTS)

    folder = v6.package(Gated, tmp_path / "plug-in", **PARTS)
    image = ["--build-arg", f"IMAGE={IMAGE}", "--tag", PACKAGED_IMAGE]
    start = time.monotonic()
    docker("build", *image, str(folder))
    build_s = time.monotonic() - start
    # At the desk, as its README says, so that `submit` knows the name.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path / "desk"), str(folder)], check=True, timeout=120)
    monkeypatch.syspath_prepend(str(tmp_path / "desk"))
    plugins._load.cache_clear()
    try:
        named = {"model": {"kind": "module", "name": "gated"}, "problem": {"kind": "gated"}}
        there = v6.submit(
            {**KEYS, **named, "data": {"target": "outcome"}, "stopping": {"monitor": "loss"}},
            server=docker_network.url,
            username=docker_network.username,
            password=docker_network.password,
            image=PACKAGED_IMAGE,
            organizations=["a", "b", "c"],
            poll_s=0.5,
        )
    finally:
        plugins._load.cache_clear()
    assert (there.content["status"], there.content["rounds_run"]) == ("completed", 3)
    assert sorted(there.content["sites"]) == ["a", "b", "c"]
    difference = largest_difference(here.content, there.content)
    assert difference <= TOLERANCE
    added = (image_size(PACKAGED_IMAGE) - image_size(IMAGE)) / 1e6
    figures.remarks.append(
        f"packaged module: image built in {build_s:.1f} s, {added:.2f} MB on top of ours; parameters of 3 rounds in "
        f"{CONTAINERS} differ from the notebook's by at most {difference:.0e}"
    )
