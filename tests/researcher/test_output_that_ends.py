"""A terminal, pipe or disk behind standard output that takes no more does not take a run's result with it."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys

import pytest
from hospitals import command, read_result, write

from v6_algorithm.coordinator.stopping import ends_when_asked
from v6_algorithm.coordinator.tuning import Tuning
from v6_algorithm.errors import Terminated
from v6_algorithm.researcher import cli
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.report import closing_table

CODE = "from v6_algorithm.researcher.cli import main; main()"


class Ends(io.StringIO):
    """Takes some text, then fails."""

    encoding = "utf-8"

    def __init__(self, number: int, most: int) -> None:
        super().__init__()
        self.number, self.most = number, most

    def write(self, text: str) -> int:
        if len(self.getvalue()) + len(text) > self.most:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.fixture
def prints_to(monkeypatch):
    """Run the command line on streams that a test brings; return its exit code."""

    def of(stdout, *arguments):
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        monkeypatch.setattr(sys, "argv", ["v6-algorithm", *map(str, arguments)])
        monkeypatch.setattr(terminal._output, "lost", None)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, sys.stderr.getvalue()

    return of


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("most", [0, 100])
def test_a_run_goes_on_and_its_files_are_written(tmp_path, prints_to, number, most):
    code, errors = prints_to(Ends(number, most), "run", write(tmp_path, rounds=2), "--out", tmp_path / "out")
    assert code == 1
    assert read_result(tmp_path / "out")["status"] == "completed"
    assert "note: 2 rounds in" in errors
    assert f"{tmp_path / 'out'}" in errors.replace("\n", "")
    assert ("standard output: cannot be written: " in errors) == (number != errno.EPIPE)


def test_a_process_without_standard_output_writes_its_files(tmp_path, prints_to):
    code, errors = prints_to(None, "run", write(tmp_path, rounds=2), "--out", tmp_path / "out")
    assert code == 0
    assert read_result(tmp_path / "out")["status"] == "completed"
    assert "note: 2 rounds in" in errors
    code, errors = prints_to(None, "validate", write(tmp_path), "--json")
    assert code == 1
    assert "standard output: cannot be written: Bad file descriptor" in errors


def test_json_that_was_lost_is_no_success(tmp_path, prints_to):
    assert prints_to(Ends(errno.ENOSPC, 0), "validate", write(tmp_path), "--json")[0] == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_an_encoding_has_not_is_written_as_python_writes_it(tmp_path, prints_to, encoding):
    file = write(tmp_path, rounds=1, name="Zürich Ωμέγα")
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert prints_to(stdout, "run", file, "--out", tmp_path / "out")[0] == 0
    stdout.flush()
    shown = stdout.buffer.getvalue().decode(encoding)
    assert "Zürich Ωμέγα".encode(encoding, "backslashreplace").decode(encoding) in shown
    # JSON has its own way, so that what reads it gets the same text.
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert prints_to(stdout, "run", file, "--out", tmp_path / "again", "--json")[0] == 0
    stdout.flush()
    assert "Zürich Ωμέγα" in terminal.json.loads(stdout.buffer.getvalue().decode(encoding))["name"]


@pytest.mark.parametrize(("width", "metrics"), [(30, 1), (50, 2), (80, 5), (200, 5)])
def test_a_narrow_terminal_gets_fewer_metrics_and_whole_numbers(width, metrics):
    names = ["auroc", "auprc", "accuracy", "f1", "brier", "ece"]
    result = {"metrics": {"test": {"pooled": dict.fromkeys(names, 0.8765)}}, "name": "heart"}
    table = closing_table(result, width)
    assert len(table.columns) == 2 + metrics
    assert (table.caption is None) == (metrics == 5)
    console = terminal.Console(file=io.StringIO(), width=width)
    console.print(table)
    assert console.file.getvalue().count("0.876") == metrics


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_comes_as_an_exception_once(number):
    before = signal.getsignal(number)
    with pytest.raises(Terminated), ends_when_asked():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends_when_asked():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated()], ids=["Ctrl-C", "SIGTERM"])
def test_settings_that_were_tried_before_an_interruption_are_kept(tmp_path, monkeypatch, error):
    tried = Tuning._try

    def stops(self, trial, *rest):
        if trial.number == 3:
            raise error
        tried(self, trial, *rest)

    monkeypatch.setattr(Tuning, "_try", stops)
    file = write(tmp_path, rounds=1)
    result = command("tune", file, "--try", "training.batch_size=4,8,16", "--out", tmp_path / "out")
    assert result.exit_code == 3
    lines = (tmp_path / "out" / "tuning.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "4"], ["2", "8"]]
    assert "tuning.csv has those tried" in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.parametrize("to", ["closed pipe", "/dev/full"])
def test_processes_end_so_too(tmp_path, to):
    arguments = [sys.executable, "-c", CODE, "run", write(tmp_path, rounds=3), "--out", tmp_path / "out"]
    if to == "/dev/full":
        with open(to, "w") as full:
            done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        code, errors = done.returncode, done.stderr
    else:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        errors, code = process.stderr.read(), process.wait()
    assert code == 1
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert read_result(tmp_path / "out")["status"] == "completed"


@pytest.mark.slow
def test_a_closed_terminal_leaves_the_result_so_far(tmp_path):
    file = write(tmp_path, rounds=2000, stopping={"patience": None})
    arguments = [sys.executable, "-u", "-c", CODE, "run", file, "--out", tmp_path / "out"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if "round 200/2000" in line:
            break
    process.send_signal(signal.SIGHUP)
    process.stdout.close()
    assert process.wait(timeout=60) == 3
    result = read_result(tmp_path / "out")
    assert result["status"] == "stopped"
    assert "SIGHUP" in result["stopped_because"]
    assert result["parameters"]
