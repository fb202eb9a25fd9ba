"""A task on a network in the trackers while it runs: `submit` and `watch`, at a server that shows the log bit by bit.

The log is what `master` writes in a run over vantage6's real `AlgorithmClient`, and the result is that run's.
"""

from __future__ import annotations

import contextlib
import io
import json
import types
from pathlib import Path

import pytest
from hospitals import command, tables, write
from loopback import LoopbackProxy

import v6_algorithm
from v6_algorithm.engines.vantage6 import runs
from v6_algorithm.researcher.cli import connection, following
from v6_algorithm.researcher.server import Collaboration, Organization
from v6_algorithm.researcher.task import Task

AT = ("--server", "http://localhost:1", "--username", "anna")
# What a wrapper adds to a log of `master`.
WRAPPER = ["info > wrapper for v6_algorithm", "info > Executing function"]


class Network:
    """A server with one task, which tells a few lines more of its log at every look, and then the result.

    Parameters
    ----------
    log
        All lines.
    result
        What `master` returned.
    looks
        How many lines of the log each look shows.
    """

    def __init__(self, log: list[str], result: dict, looks: list[int]) -> None:
        self.log, self.returned, self.looks = log, result, looks
        self.at_look: list = []  # called before each look with its number
        self.sent: list[str] = []
        self.status, self.count = "completed", 0
        self.result = types.SimpleNamespace(from_task=lambda id: {"data": [{"result": json.dumps(result)}]})
        self.organization = "hub"
        self.address = "http://localhost:1"

    def ask(self, endpoint: str, **_: object) -> dict:
        if endpoint == "task":
            return {"data": []}
        if self.count < len(self.looks):
            for listen in self.at_look:
                listen(self.count)
            shown, self.count = self.looks[self.count], self.count + 1
            return {"data": [{"status": "active", "log": "\n".join(self.log[:shown])}]}
        return {"data": [{"status": self.status, "log": "\n".join(self.log), "organization": {"id": 1}}]}

    def collaboration(self, name: str | None) -> Collaboration:
        return Collaboration(1, "heart", False, [Organization(1, "hub", True), Organization(2, "berlin", True)])

    def submit(self, *_: object, name: str, **__: object) -> Task:
        self.sent.append(name)
        return self.task(7)

    def task(self, number: int) -> Task:
        return Task(self, self.ask, number, "heart")


@pytest.fixture(scope="module")
def ran() -> tuple[list[str], dict]:
    """The log and the result of a run of three rounds at three sites."""
    organizations = {number: (name, frame) for number, (name, frame) in enumerate(tables().items(), start=3)}
    said = io.StringIO()
    with LoopbackProxy(organizations) as proxy, contextlib.redirect_stdout(said):
        result = v6_algorithm.master(
            proxy.client(),
            {
                "data": {"target": "y"},
                "rounds": 3,
                "model": {"kind": "mlp", "hidden": [4]},
                "stopping": {"patience": None},
                "participation": {"poll_s": 0.01},
            },
        )
    return [*WRAPPER, *said.getvalue().splitlines()], result


@pytest.fixture
def network(ran, monkeypatch) -> Network:
    """Show one line more at each look."""
    log, result = ran
    made = Network(log, result, list(range(len(log))))
    monkeypatch.setattr(connection, "log_in", lambda *_: made)
    monkeypatch.setattr(following, "POLL_S", 0)
    return made


def read_board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def is_the_result(folder: Path, result: dict) -> bool:
    """Say whether a board holds every number of the history, of all together and of each site, once."""
    for scope, history in {"pooled": result["history"], **result["site_history"]}.items():
        found = read_board(folder / scope)
        for name in set(history) - {"round"}:
            told = sorted(found.get(name.replace("_", "/", 1), []))
            wanted = [pair for pair in zip(history["round"], history[name], strict=True) if pair[1] is not None]
            assert [step for step, _ in told] == [step for step, _ in wanted], (scope, name)
            assert [value for _, value in told] == pytest.approx([value for _, value in wanted], rel=2e-6)
        assert len(found["test/auroc"]) == 1
    return True


@pytest.mark.parametrize("word", ["submit", "watch"])
def test_a_round_is_in_tensorboard_before_the_task_is_over(tmp_path, network, word):
    seen = {}

    def look(number):
        folder = tmp_path / "out" / "tensorboard"
        seen[number] = {path.name: read_board(path) for path in folder.iterdir()} if folder.exists() else {}

    network.at_look.append(look)
    what = (write(tmp_path), "--image", "v6") if word == "submit" else (7,)
    done = command(word, *what, *AT, "--out", tmp_path / "out", "--track", "tensorboard")
    assert done.exit_code == 0, done.output
    history, sites = network.returned["history"], network.returned["site_history"]
    # The look after the first round's line shows it, at once and with each site's own number.
    after = next(number for number, line in enumerate(network.log) if line.startswith("round 1/3"))
    assert seen[after - 1] == {}
    assert seen[after + 1]["pooled"] == {"train/loss": [(1, pytest.approx(history["train_loss"][0], rel=1e-5))]}
    for site, own in sites.items():
        assert seen[after + 1][site] == {"train/loss": [(1, pytest.approx(own["train_loss"][0], rel=1e-5))]}
    last = seen[len(network.looks) - 1]["pooled"]
    assert [step for step, _ in last["validation/auroc"]] == [1, 2, 3]
    assert "validation/f1" not in last
    assert is_the_result(tmp_path / "out" / "tensorboard", network.returned)


def test_watch_of_a_running_task_shows_the_rounds_before_at_once(tmp_path, network):
    second = next(number for number, line in enumerate(network.log) if line.startswith("round 2/3"))
    network.looks = [second + 1, second + 1]
    seen = []
    network.at_look.append(
        lambda number: seen.append(read_board(tmp_path / "out" / "tensorboard" / "berlin")) if number else None
    )
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--track", "tensorboard")
    assert done.exit_code == 0, done.output
    assert [step for step, _ in seen[0]["train/loss"]] == [1, 2]
    assert [step for step, _ in seen[0]["validation/loss"]] == [1]
    assert is_the_result(tmp_path / "out" / "tensorboard", network.returned)


def leave(after: str, network: Network) -> None:
    """Press Ctrl-C when the log has come to this line."""
    place = next(number for number, line in enumerate(network.log) if line.startswith(after))

    def press(number):
        if number > place + 1:
            raise KeyboardInterrupt

    network.at_look.append(press)


def test_ctrl_c_closes_the_tracker_and_watching_again_into_the_same_folder_tells_nothing_twice(tmp_path, network):
    leave("round 2/3", network)
    done = command("submit", write(tmp_path), "--image", "v6", *AT, "--out", tmp_path / "out", "--track", "tensorboard")
    assert done.exit_code == 130
    assert "task 7 goes on without you" in done.output
    assert [step for step, _ in read_board(tmp_path / "out" / "tensorboard" / "cairo")["train/loss"]] == [1, 2]
    network.at_look.clear()
    network.looks, network.count = [len(network.log) - 4], 0
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--track", "tensorboard")
    assert done.exit_code == 0, done.output
    assert is_the_result(tmp_path / "out" / "tensorboard", network.returned)


def test_a_task_that_fails_leaves_the_rounds_that_it_told(tmp_path, network):
    network.status = "crashed"
    network.log = [line for line in network.log if line != "tested"]
    network.looks = [3]
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--track", "tensorboard")
    assert done.exit_code == 3
    found = read_board(tmp_path / "out" / "tensorboard" / "pooled")
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3]
    # The error ends with what a reader understands.
    assert "its log ends with: round 3/3: model of round 3: validation loss" in done.output


def test_the_terminal_shows_the_lines_for_readers_only(tmp_path, network):
    done = command("watch", 7, *AT, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "round 1: berlin: train loss" in done.output
    assert "scores" not in done.output


def test_a_run_without_a_log_is_in_the_trackers_at_the_end(tmp_path, network):
    """Where the hub's node keeps its log to the hospital."""
    network.log, network.looks = [], [0, 0]
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--track", "tensorboard")
    assert done.exit_code == 0, done.output
    assert is_the_result(tmp_path / "out" / "tensorboard", network.returned)


@pytest.mark.slow
def test_wandb_itself_follows_a_task_offline(tmp_path, network, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--track", "wandb")
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))


# -- the line ------------------------------------------------------------------------------------------------------


def scores_lines(log: list[str]) -> list[str]:
    return [line for line in log if runs.tells_scores(line)]


def test_a_line_tells_what_the_history_will_tell_and_nothing_else(ran):
    log, result = ran
    histories = {"pooled": result["history"], **result["site_history"]}
    told = 0
    for line in scores_lines(log):
        event = runs.read_scores_line(line)
        assert event.keys() == {"event", "round", "validated_round", "scores"}
        for scope, scores in {"pooled": event["scores"]["pooled"], **event["scores"]["sites"]}.items():
            for name, value in scores.items():
                number = event["round"] if name.startswith("train") else event["validated_round"]
                assert value == float(f"{histories[scope][name][number - 1]:.6g}")
                told += 1
    assert told == 4 * (1 + 4 + 4 + 4)  # four scopes: round 1 has a training loss, a later one three metrics more


@pytest.mark.parametrize("change", [lambda line: line[:-20], lambda line: line + "x", lambda line: line[3:]])
def test_a_line_that_was_cut_or_changed_is_no_round(ran, change):
    assert runs.read_scores_line(change(scores_lines(ran[0])[1])) is None


@pytest.mark.parametrize(
    "content",
    [
        '"round":1}',
        '"round":1,"validated_round":0,"names":["train_loss"],"pooled":[1,2],"sites":{}}',
        '"round":1,"validated_round":0,"names":["train_loss"],"pooled":["high"],"sites":{}}',
        '"round":1,"validated_round":0,"names":["loss"],"pooled":[1],"sites":{}}',
        '"round":1,"validated_round":0,"names":["train_loss"],"pooled":[1],"sites":[]}',
        '"round":1,"validated_round":0,"names":[7],"pooled":[1],"sites":{}}',
    ],
)
def test_a_line_of_another_make_is_no_round(content):
    assert runs.read_scores_line("scores {" + content) is None


def test_a_line_of_two_hundred_sites_is_not_cut_by_docker():
    """Docker hands a line of more than 16 KiB on in pieces, each of which the server puts in a line of its own."""
    names = ["train_loss", *(f"validation_{name}" for name in ("loss", "auroc", "c_index", "accuracy"))]
    scores = dict.fromkeys(names, 0.123456789)
    sites = {f"hospital-{number:03}": scores for number in range(200)}
    event = {"round": 999, "validated_round": 998, "metrics": scores, "scores": {"pooled": scores, "sites": sites}}
    assert len(runs.scores_line(event)) < 16 * 1024
    assert len(runs.read_scores_line(runs.scores_line(event))["scores"]["sites"]) == 200
