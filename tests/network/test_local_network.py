"""`v6-algorithm network`: a server and nodes from an experiment's sites; `submit --local` trains and tests there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hospitals import command, read_result, write

from v6_algorithm.researcher import network


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that name the folder."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text:
            lines.append(text)
    return lines


@pytest.mark.slow
def test_an_experiment_trains_and_its_model_is_tested_on_a_local_network(tmp_path, monkeypatch, vantage6_python):
    monkeypatch.setenv("V6_SERVER_PYTHON", vantage6_python)
    folder = tmp_path / "network"
    monkeypatch.setenv("V6_LOCAL_NETWORK", str(folder))
    monkeypatch.delenv("V6_PASSWORD", raising=False)
    file = write(tmp_path, rounds=2, data={"target": "y", "exclude": ["remark"]})
    started = command("network", "start", file)
    assert started.exit_code == 0, started.output
    try:
        password = (folder / "password").read_text()
        assert folder.stat().st_mode & 0o077 == 0
        for secret in ("password", "server.yaml", "entities.yaml", "network.json", "hub/local-hub.yaml"):
            assert (folder / secret).stat().st_mode & 0o077 == 0, secret
        lines = processes_of(folder)
        assert len(lines) >= 5
        assert not [line for line in lines if password in line]
        again = command("network", "start", file)
        assert again.exit_code == 2
        assert "a local network runs in" in again.output
        trained = command("submit", file, "--local", "--out", tmp_path / "out")
        assert trained.exit_code == 0, trained.output
        assert read_result(tmp_path / "out")["sites"].keys() == {"amsterdam", "berlin", "cairo"}
        tested = command("submit", file, "--local", "--test", tmp_path / "out", "--out", tmp_path / "test")
        assert tested.exit_code == 0, tested.output
        result = read_result(tmp_path / "test")
        assert result["status"] == "tested"
        assert result["metrics"]["test"]["pooled"]["n"] == 114
        assert result["sites"]["berlin"]["policy"]["preset"] == "standard"
    finally:
        os.environ.pop("V6_PASSWORD", None)
        stopped = command("network", "stop")
    assert stopped.exit_code == 0, stopped.output
    assert not folder.exists()
    assert processes_of(folder) == []


def test_what_cannot_be_a_local_node_is_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("V6_LOCAL_NETWORK", str(tmp_path / "network"))
    monkeypatch.setattr(network, "server_python", lambda: "python")
    monkeypatch.setattr(network, "_spawn", lambda *_: pytest.fail("something was started"))
    hub = write(tmp_path, {"hub": (tmp_path / "missing").name})
    assert "'hub' is the name of the organisation that runs master" in command("network", "start", hub).output
    sql = write(tmp_path, sites={"a": {"uri": "postgresql://there/x", "query": "select 1"}, "b": "berlin.csv"})
    assert "cannot be a local node's database; allowed: .csv, .parquet" in command("network", "start", sql).output
    wrong = command("network", "start", sql, "--policy", "lax")
    assert "--policy lax: is not known; allowed: trusted, standard, strict" in wrong.output


def test_without_a_network_local_says_how_to_start_one_and_submit_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("V6_LOCAL_NETWORK", str(tmp_path / "none"))
    for name in ("V6_SERVER", "V6_USERNAME", "V6_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    file = write(tmp_path)
    refused = command("submit", file, "--local")
    assert refused.exit_code == 2
    assert "start one: v6-algorithm network start FILE" in refused.output
    missing = command("submit", file, "--server", "https://example.org")
    assert missing.exit_code == 2
    assert "--username, --image: missing; or --local" in missing.output
