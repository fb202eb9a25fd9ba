"""The fingerprint of a table: of a node with a secret only, the same for every experiment, and nobody's else to try."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.report import page
from v6_algorithm.site.policy import Policy

KEYED = Policy(node_secret="ab" * 32)
EXPERIMENT = {"data": {"target": "y", "features": ["a", "b"]}, "model": "logistic", "rounds": 1}


@pytest.fixture
def files(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("north", "south"):
        frame = pd.DataFrame(draw.normal(size=(60, 2)), columns=["a", "b"])
        frame.assign(y=(frame["a"] > 0).astype(int)).to_csv(tmp_path / f"{name}.csv", index=False)
    return {name: tmp_path / f"{name}.csv" for name in ("north", "south")}


def fingerprints(files, policy=KEYED, **changes):
    experiment = Experiment.parse(EXPERIMENT | changes)
    sources = {name: TableSource(uri=str(path)) for name, path in files.items()}
    result = run(local_federation(experiment, sources, policy), experiment)
    return {name: site.get("fingerprint") for name, site in result["sites"].items()}, result


def test_it_is_the_same_whatever_rows_and_columns_an_experiment_asks_for(files):
    """One that changed with `where` would tell whether any row meets a condition."""
    first, _ = fingerprints(files)
    other, _ = fingerprints(files, data={"target": "y", "features": ["a"], "where": {"b": "< 0.2"}}, seed=3)
    assert first == other
    assert len(set(first.values())) == 2


def test_it_changes_with_one_cell(files):
    before, _ = fingerprints(files)
    text = files["north"].read_text(encoding="utf-8")
    files["north"].write_text(text[:-2] + ("1" if text[-2] == "0" else "0") + "\n", encoding="utf-8")
    after, _ = fingerprints(files)
    assert before["north"] != after["north"]
    assert before["south"] == after["south"]


def test_without_a_secret_none_is_told_and_the_report_says_so(files):
    told, result = fingerprints(files, Policy())
    assert set(told.values()) == {None}
    assert "not told by north, south" in page.render(result)


def test_the_report_names_it(files):
    told, result = fingerprints(files)
    assert f"north: {told['north']}" in page.render(result)


def test_who_has_the_table_but_not_the_secret_cannot_make_it(files):
    told, _ = fingerprints(files)
    content = files["north"].read_bytes()
    assert told["north"] != hashlib.sha256(content).hexdigest()[:16]
    assert told["north"] != TableSource(uri=str(files["north"])).keyed_fingerprint(b"another")


def test_what_is_no_file_has_none(files):
    assert TableSource(frame=pd.DataFrame({"a": [1]})).keyed_fingerprint(b"key") is None
    assert TableSource(uri="sqlite:///x.sqlite", query="select 1").keyed_fingerprint(b"key") is None
