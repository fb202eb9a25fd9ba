"""Where the time goes: by site and phase in every result, by function where the experiment asks for it."""

from __future__ import annotations

import sys

import pytest
from hospitals import ROWS, command, read_result, write

import v6_algorithm


@pytest.fixture
def result(tables, make_experiment, run_locally):
    return run_locally(make_experiment(), tables)


def test_the_result_tells_seconds_by_site_and_phase(result):
    assert set(result["timing"]["sites"]) == {"amsterdam", "berlin", "cairo"}
    for phases in result["timing"]["sites"].values():
        assert set(phases) == {"prepare_s", "data_s", "train_s", "evaluate_s", "encode_s", "other_s"}
        assert all(seconds >= 0 for seconds in phases.values())


def test_the_phases_of_a_call_are_the_sites_seconds(result):
    for call in result["timing"]["rounds"]:
        for site, phases in call["phases"].items():
            assert sum(phases.values()) == pytest.approx(call["site_s"][site], abs=1e-5)
    calls = [call["call"] for call in result["timing"]["rounds"]]
    assert {"prepare", "train", "evaluate"} == set(calls)


def test_the_phases_add_up_over_all_calls(result):
    for site, total in result["timing"]["sites"].items():
        calls = [call["phases"][site] for call in result["timing"]["rounds"]]
        assert total["train_s"] == pytest.approx(sum(phases.get("train_s", 0) for phases in calls), abs=1e-3)


def test_a_profiled_run_leaves_its_reports_and_the_same_model(tmp_path):
    pytest.importorskip("pyinstrument")
    file = write(tmp_path)
    done = command("run", file, "--out", tmp_path / "profiled", "--set", "output.profile=true")
    assert done.exit_code == 0, done.output
    assert "_round" in (tmp_path / "profiled" / "profile.txt").read_text()
    assert "<html" in (tmp_path / "profiled" / "profile.html").read_text().lower()
    command("run", file, "--out", tmp_path / "plain")
    assert not (tmp_path / "plain" / "profile.html").exists()
    assert read_result(tmp_path / "profiled")["parameters"] == read_result(tmp_path / "plain")["parameters"]


def test_without_pyinstrument_a_profile_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyinstrument", None)
    done = command("run", write(tmp_path), "--out", tmp_path / "out", "--set", "output.profile=true")
    assert done.exit_code == 2
    assert "pip install 'v6-algorithm[profiling]'" in done.output
    assert not (tmp_path / "out").exists()


def test_on_the_network_the_same_file_runs_and_is_told_that_it_is_not_profiled(tables):
    from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

    client = MockAlgorithmClient(
        datasets=[[{"database": source.frame}] for source in tables.values()], module="v6_algorithm"
    )
    result = v6_algorithm.master(client, {"data": {"target": "y"}, "rounds": 1, "output": {"profile": True}})
    assert "output.profile: only a run on the researcher's machine is profiled" in result["notes"]
    assert len(ROWS) == len(result["sites"])
