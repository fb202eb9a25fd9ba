"""v6_algorithm on MockNetwork of vantage6 5: each kind of problem gives what a run here gives."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import missing
from hq_network import ROOT, hq_python, run_script, tools_python
from PIL import Image
from problem_kinds import KINDS, QUICK, SAME, SITES, experiment_of, write_hospitals

from v6_algorithm.researcher.network.server_python import MissingError


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    return write_hospitals(tmp_path_factory.mktemp("hospitals"))


def on_mock(sites, arguments, tmp_path, *, method="master", extract=None):
    """Run on MockNetwork in a process of its own, whose folder is a temporary one, and return the result."""
    request = {"sites": sites, "arguments": arguments, "method": method, "extract": extract or {}}
    (result,) = run_script("mock_run.py", request, tmp_path)
    return result


def here(sites, experiment, tmp_path, *, method="master"):
    """Run with the local engine in the same Python, and return the result."""
    return run_script(
        "here_run.py", {"sites": sites, "arguments": {"experiment": experiment}, "method": method}, tmp_path
    )


def same(ours, theirs):
    assert theirs["status"] == ours["status"] == "completed"
    for key in SAME:
        assert theirs[key] == ours[key], key


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_problem_gives_the_numbers_of_a_run_here(algorithm_python_5, hospitals, tmp_path, kind):
    experiment = experiment_of(kind)
    sites = {name: [str(path), "csv"] for name, path in hospitals.items()}
    same(here(sites, experiment, tmp_path), on_mock(sites, {"experiment": experiment}, tmp_path))


def test_images_of_a_folder_give_the_numbers_of_a_run_here(algorithm_python_5, tmp_path):
    sites = {}
    for number, name in enumerate(SITES):
        folder = tmp_path / name
        folder.mkdir()
        generator, rows = np.random.default_rng(number), []
        for image in range(20):
            label = image % 2
            pixels = generator.integers(0, 120, (8, 8)) + 100 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{image}.png")
            rows.append({"file": f"{image}.png", "lesion": label})
        pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
        sites[name] = [str(folder), "folder"]
    experiment = {
        "problem": "image_classification",
        "data": {"target": "lesion", "image": {"column": "file", "size": [8, 8], "channels": 1}},
        "model": {"kind": "cnn", "widths": [4]},
        "rounds": 2,
    }
    same(here(sites, experiment, tmp_path), on_mock(sites, {"experiment": experiment}, tmp_path))


def test_a_table_written_with_semicolons_is_extracted_as_the_step_says(algorithm_python_5, hospitals, tmp_path):
    written, usual = {}, {name: [str(path), "csv"] for name, path in hospitals.items()}
    for name, path in hospitals.items():
        file = tmp_path / f"{name}-semicolon.csv"
        pd.read_csv(path).to_csv(file, index=False, sep=";", decimal=",")
        written[name] = [str(file), "csv"]
    experiment = {**QUICK, "data": {"target": "outcome"}}
    theirs = on_mock(written, {"experiment": experiment}, tmp_path, extract={"separator": ";", "decimal": ","})
    same(here(usual, experiment, tmp_path), theirs)


def test_a_second_run_in_the_same_folder_is_not_the_first_ones_result(algorithm_python_5, hospitals, tmp_path):
    """The mock's session folder is there still, and its first task has the same number."""
    sites = {name: [str(path), "csv"] for name, path in hospitals.items()}
    experiment = {**QUICK, "data": {"target": "outcome"}}
    first = on_mock(sites, {"experiment": experiment}, tmp_path)
    assert first["rounds_run"] == 2
    assert on_mock(sites, {"experiment": {**experiment, "rounds": 3}}, tmp_path)["rounds_run"] == 3
    fewer = {name: sites[name] for name in list(sites)[:2]}
    assert len(on_mock(fewer, {"experiment": experiment}, tmp_path)["sites"]) == 2


def test_describe_tells_what_it_tells_here(algorithm_python_5, hospitals, tmp_path):
    experiment = {"data": {"target": "outcome"}}
    sites = {name: [str(path), "csv"] for name, path in hospitals.items()}
    theirs = on_mock(sites, {"experiment": experiment}, tmp_path, method="describe")
    assert theirs["columns"] == here(sites, experiment, tmp_path, method="describe")["columns"]


@pytest.mark.parametrize("which", ["3.11, with torch", "3.13, without"])
def test_the_package_says_what_each_function_is_without_torch_or_pandas(algorithm_python_5, which):
    try:
        python = algorithm_python_5 if which.startswith("3.11") else tools_python()
    except MissingError as what:
        missing(str(what))
    names = ("master", "tune", "describe", "extract", "RPC_train", "RPC_evaluate")
    code = (
        "import sys, v6_algorithm as p;"
        "from vantage6.common.algorithm_function import get_vantage6_decorator_type as t;"
        f"print(*(t(getattr(p, n)).value for n in {names}));"
        "import v6_algorithm.engines.marks, v6_algorithm.engines.resident.courier;"
        "print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [python, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kinds, heavy = done.stdout.strip().splitlines()
    assert kinds.split() == [*["central_compute"] * 3, "data_extraction", *["federated_compute"] * 2]
    assert heavy == "[]"


def test_the_store_of_vantage6_5_takes_the_algorithm(algorithm_python_5):
    try:
        python = hq_python()
    except MissingError as what:
        missing(str(what))
    code = (
        "import json, sys; from vantage6.algorithm.store.resource.schema.input_schema import AlgorithmInputSchema;"
        "print(AlgorithmInputSchema().validate(json.load(open(sys.argv[1]))))"
    )
    done = subprocess.run([python, "-c", code, str(ROOT / "algorithm_store_5.json")], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1:] == ["{}"], done.stdout + done.stderr
