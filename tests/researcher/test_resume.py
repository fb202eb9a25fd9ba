"""`v6-algorithm resume`: a run that was interrupted, ended or killed goes on, and comes to the same result."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from hospitals import command, read_result, write

from v6_algorithm.coordinator.rounds.training import Rounds
from v6_algorithm.errors import Terminated
from v6_algorithm.exchange.protocol import Replies


def comparable(folder):
    result = read_result(folder)
    return {key: value for key, value in result.items() if key not in ("timing", "software")}


def stop_in_round(monkeypatch, number, error):
    """Let something come in the middle of a round, once."""
    answers = Rounds._answers

    def stopped(self, asked, turn):
        replies = answers(self, asked, turn)
        if asked.number == number:
            monkeypatch.setattr(Rounds, "_answers", answers)
            raise error
        return replies

    monkeypatch.setattr(Rounds, "_answers", stopped)


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated()], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_that_was_asked_to_end_tells_how_to_go_on_and_goes_on(tmp_path, monkeypatch, error):
    file = write(tmp_path, rounds=4, strategy={"kind": "fedadam", "compress": [{"kind": "topk", "fraction": 0.5}]})
    assert command("run", file, "--out", tmp_path / "whole").exit_code == 0
    assert not list((tmp_path / "whole").glob("checkpoint*"))

    stop_in_round(monkeypatch, 3, error)
    folder = tmp_path / "cut short"
    result = command("run", file, "--out", folder)
    assert result.exit_code == 3
    assert f"note: to go on: v6-algorithm resume {folder}" in result.output
    kept = read_result(folder)
    assert (kept["status"], kept["rounds_run"]) == ("stopped", 2)
    assert kept["parameters"]
    # Who ends a process does not wait for an evaluation; who is at the keyboard may press again.
    assert bool(kept["metrics"]) == (not isinstance(error, Terminated))

    result = command("resume", folder)
    assert result.exit_code == 0, result.output
    assert "federated, 3 sites: goes on after round 2/4" in result.output
    assert comparable(folder) == comparable(tmp_path / "whole")
    assert not list(folder.glob("checkpoint*"))


def test_resume_says_what_it_cannot_go_on_from(tmp_path):
    file = write(tmp_path, rounds=1)
    assert "holds no checkpoint to go on from" in command("resume", tmp_path).output
    assert command("run", file, "--out", tmp_path / "done").exit_code == 0
    result = command("resume", tmp_path / "done")
    assert (result.exit_code, result.output.rstrip().endswith("to go on from; this run is done")) == (2, True)


def test_run_does_not_write_over_a_run_that_is_not_done(tmp_path, monkeypatch):
    file = write(tmp_path)
    stop_in_round(monkeypatch, 2, KeyboardInterrupt())
    command("run", file, "--out", tmp_path / "out")
    result = command("run", file, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert f"`v6-algorithm resume {tmp_path / 'out'}` goes on from it" in " ".join(result.output.split())


def test_run_does_not_write_over_a_run_that_is_done_unless_told(tmp_path):
    file = write(tmp_path, rounds=1)
    assert command("run", file, "--out", tmp_path / "out").exit_code == 0
    before = (tmp_path / "out" / "result.json").read_bytes()
    again = command("run", file, "--out", tmp_path / "out", "--set", "seed=1")
    assert again.exit_code == 2
    assert "has a result already (result.json); --force writes over it" in " ".join(again.output.split())
    assert (tmp_path / "out" / "result.json").read_bytes() == before
    assert command("run", file, "--out", tmp_path / "out", "--set", "seed=1", "--force").exit_code == 0
    assert (tmp_path / "out" / "result.json").read_bytes() != before


def test_data_that_do_not_fit_leave_no_checkpoint(tmp_path):
    result = command("run", write(tmp_path, data={"target": "nobody"}), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_federation_that_cannot_go_on_can_go_on_later(tmp_path, monkeypatch):
    """As when a hospital's folder was not mounted: what is done is not done again."""
    file = write(tmp_path, rounds=3, participation={"minimum": 3})
    assert command("run", file, "--out", tmp_path / "whole").exit_code == 0
    require = Replies.require

    def fails(self, quorum, what):
        if what == "round 2":
            monkeypatch.setattr(Replies, "require", require)
            quorum = 4
        require(self, quorum, what)

    monkeypatch.setattr(Replies, "require", fails)
    assert command("run", file, "--out", tmp_path / "out").exit_code == 3
    assert command("resume", tmp_path / "out").exit_code == 0
    assert comparable(tmp_path / "out") == comparable(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_goes_on_to_the_same_result(tmp_path, kill):
    file = write(tmp_path, rounds=60, stopping={"patience": None})
    assert command("run", file, "--out", tmp_path / "whole").exit_code == 0
    folder = tmp_path / "killed"
    code = "from v6_algorithm.researcher.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", file, "--out", folder],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "round 12/60" in line:
            break
    time.sleep(0.05)
    process.send_signal(kill)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if kill == signal.SIGKILL else 3), output
    if kill == signal.SIGTERM:
        assert f"to go on: v6-algorithm resume {folder}" in output
        assert read_result(folder)["status"] == "stopped"
    result = command("resume", folder)
    assert result.exit_code == 0, result.output
    assert comparable(folder) == comparable(tmp_path / "whole")


@pytest.mark.slow
def test_of_rounds_that_take_over_a_second_a_killed_process_loses_one_at_most(tmp_path):
    file, folder = write(tmp_path, rounds=6, stopping={"patience": None}), tmp_path / "killed"
    slow = """
import time
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.researcher.cli import main

call = LocalFederation.call

def slowly(self, method, *given, **named):
    time.sleep(1.2 * (method == "RPC_train"))
    return call(self, method, *given, **named)

LocalFederation.call = slowly
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", slow, "run", file, "--out", folder],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "round 4/6" in line:
            break
    process.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    result = command("resume", folder)
    assert result.exit_code == 0, result.output
    (done,) = re.findall(r"goes on after round (\d)/6", result.output)
    assert int(done) in (3, 4)
