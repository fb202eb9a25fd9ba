"""A site's resident trainer and its couriers, as processes that share a folder: the same bits with it and without.

Each process is what a vantage6 container would be: the wrapper, the node's variables, an input and an output file.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.resident import courier, protocol, trainer
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.exchange import frames, wire
from v6_algorithm.exchange.frames import Frame
from v6_algorithm.exchange.in_file import TextFile
from v6_algorithm.exchange.protocol import Arrival, Replies, Site
from v6_algorithm.experiment import Experiment

ROOT = Path(__file__).parents[3]
WRAPPER = "from vantage6.algorithm.tools.wrap import wrap_algorithm; wrap_algorithm()"
COLD = "-u"  # a flag that changes nothing: output is in a file
HEAVY = ("torch", "pandas", "numpy", "sqlalchemy", "pydantic", "safetensors")
EXPERIMENT = {
    "data": {"target": "y"},
    "model": {"kind": "mlp", "hidden": [4], "norm": "batch"},
    "rounds": 2,
    "training": {"batch_size": 16},
    "participation": {"minimum": 1},
}


class Node:
    """One vantage6 node with a table: starts runs of the algorithm as processes with one job's folder.

    With flags of an interpreter they start cold, as trainers always do; else by `python`.
    """

    def __init__(self, folder: Path, python: Path | str = sys.executable, **variables: str) -> None:
        self.folder, self.python, self.variables = folder, python, variables
        self.started: list[subprocess.Popen[bytes]] = []
        (folder / "volume").mkdir(parents=True)
        generator = np.random.default_rng(3)
        table = pd.DataFrame(generator.normal(size=(60, 3)), columns=["a", "b", "c"])
        table["y"] = (table["a"] + generator.normal(size=60) > 0).astype(int)
        table.to_csv(folder / "table.csv", index=False)

    @property
    def place(self) -> str:
        return os.path.join(self.folder, "volume", "v6_algorithm-resident")

    def start(self, method: str, request: dict, *flags: str, **variables: str) -> tuple[subprocess.Popen[bytes], Path]:
        number = len(self.started)
        task = self.folder / f"task-{number}"
        task.mkdir()
        (task / "input").write_text(json.dumps({"method": method, "args": [], "kwargs": {"request": request}}))
        environment = {
            "PATH": os.environ["PATH"],
            # As of the process that couriers are forks of.
            **{name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ},
            "PKG_NAME": "v6_algorithm",
            "PYTHONPATH": str(ROOT),
            "INPUT_FILE": str(task / "input"),
            "OUTPUT_FILE": str(task / "output"),
            "TOKEN_FILE": str(task / "token"),
            "TEMPORARY_FOLDER": str(self.folder / "volume"),
            "USER_REQUESTED_DATABASE_LABELS": "default",
            "DEFAULT_DATABASE_URI": str(self.folder / "table.csv"),
            "DEFAULT_DATABASE_TYPE": "csv",
            "V6_ALGORITHM_POLICY": "trusted",
            **self.variables,
            **variables,
        }
        process = subprocess.Popen(
            [sys.executable if flags else self.python, *flags, "-c", WRAPPER],
            env=environment,
            stdout=(task / "log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        self.started.append(process)
        return process, task

    def run(self, method: str, request: dict, *flags: str, **variables: str) -> tuple[dict, str]:
        """Return what a run gives, and its log."""
        content, log = self.output(method, request, *flags, **variables)
        return json.loads(content), log

    def output(self, method: str, request: dict, *flags: str, **variables: str) -> tuple[bytes, str]:
        """Return what a run leaves in its output, and its log."""
        process, task = self.start(method, request, *flags, **variables)
        assert process.wait(timeout=120) == 0, (task / "log").read_text()
        return (task / "output").read_bytes(), (task / "log").read_text()

    def reside(self, idle_s: float = 60, **variables: str) -> tuple[subprocess.Popen[bytes], Path]:
        request = wire.message(site="a", round=0, attempt=1, idle_s=idle_s)
        process, task = self.start("RPC_reside", request, COLD, **variables)
        end = time.monotonic() + 60
        while process.poll() is None:
            assert time.monotonic() < end
            try:
                protocol.connect(self.place, 1).close()
                break
            except OSError:  # not yet, or what a dead one has left
                time.sleep(0.02)
        return process, task

    def end(self) -> dict:
        return self.run("RPC_reside", wire.message(site="a", round=0, attempt=1, end=True))[0]

    def stop(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def cold(tmp_path):
    """A node; its processes end with the test."""
    made = Node(tmp_path / "node")
    yield made
    made.stop()


@pytest.fixture
def node(cold, warm_python):
    """A node whose couriers need no seconds to start."""
    cold.python = warm_python.command
    return cold


class OneNode:
    """A federation of that node, for `master`."""

    def __init__(self, node: Node, *, framed: bool = False) -> None:
        self.node, self.framed = node, framed
        self.sizes: list[int] = []
        self.logs: list[str] = []

    def sites(self):
        return [Site("a", 1)]

    def overdue(self, site):
        return False

    def belated(self):
        return ()

    def call(self, method, requests, *, deadline_s):
        return Replies(requests, self._answers(method, requests), {})

    def _answers(self, method, requests):
        for site, request in requests.items():
            asked = {frames.ASKED: True} if self.framed and method == "RPC_train" else {}
            content, log = self.node.output(method, json.loads(wire.to_text(request)) | asked)
            self.logs.append(log)
            self.sizes.append(len(content))
            text = TextFile()
            text.write(content)
            assert frames.is_frame(text) == bool(asked)
            yield Arrival(site, text)


def columns_request() -> dict:
    """A question that is quickly answered."""
    experiment = Experiment.parse(EXPERIMENT)
    body = {"experiment": experiment.for_sites(), "sites": 1, "step": "schema"}
    return json.loads(wire.to_text(wire.message(site="a", round=0, attempt=1, **body)))


def without_timing(reply: dict) -> dict:
    return {key: value for key, value in reply.items() if key != "timing"}


def outcome(result: dict) -> dict:
    return {key: result[key] for key in ("history", "metrics", "parameters", "participation")}


@pytest.mark.slow
def test_a_run_by_the_resident_trainer_gives_the_bits_of_one_without(node, tmp_path):
    experiment = Experiment.parse(EXPERIMENT)
    node.reside()
    by_trainer = OneNode(node)
    first = run(by_trainer, experiment)
    assert all("(resident trainer)" in log for log in by_trainer.logs)
    assert node.end()["ended"] == "on request"
    other = Node(tmp_path / "other", node.python)
    by_couriers = OneNode(other)
    second = run(by_couriers, experiment)
    assert not any("resident trainer" in log for log in by_couriers.logs)
    here = run(local_federation(experiment, {"a": TableSource(str(other.folder / "table.csv"))}), experiment)
    assert outcome(first) == outcome(second) == outcome(here)
    phases = [set(call["phases"]["a"]) for call in first["timing"]["rounds"] if call["call"] == "train"]
    assert all({"import_s", "handover_s", "data_s", "train_s", "encode_s"} <= names for names in phases)


@pytest.mark.slow
def test_a_large_model_comes_as_it_is_to_the_same_bits(node, tmp_path):
    """With vantage6's own wrapper, by a trainer and without one."""
    experiment = Experiment.parse(EXPERIMENT | {"model": {"kind": "mlp", "hidden": [1000, 1000]}, "rounds": 1})
    node.reside()
    other = Node(tmp_path / "other", node.python)
    by_trainer, alone = OneNode(node, framed=True), OneNode(other, framed=True)
    as_json = OneNode(other)
    results = [run(federation, experiment) for federation in (by_trainer, alone, as_json)]
    assert outcome(results[0]) == outcome(results[1]) == outcome(results[2])
    assert all("(resident trainer)" in log for log in by_trainer.logs)
    assert max(by_trainer.sizes) < 0.751 * max(as_json.sizes)
    phases = [call["phases"]["a"] for call in results[0]["timing"]["rounds"] if call["call"] == "train"]
    assert all({"import_s", "handover_s", "train_s"} <= set(names) for names in phases)


@pytest.mark.slow
def test_a_courier_whose_trainer_is_killed_does_the_work_itself(node):
    process, _ = node.reside()
    asked, log = node.run("RPC_prepare", columns_request())
    assert "ok (resident trainer)" in log
    process.send_signal(signal.SIGKILL)
    process.wait()
    alone, log = node.run("RPC_prepare", columns_request())
    assert "ok (no resident trainer: ConnectionRefusedError)" in log
    assert without_timing(alone) == without_timing(asked)
    # What the dead one left is no hindrance for the next, which the node starts when it starts again.
    node.reside()
    assert "ok (resident trainer)" in node.run("RPC_prepare", columns_request())[1]


@pytest.mark.slow
def test_a_courier_imports_no_library(cold):
    """With vantage6's own wrapper; what that imports is vantage6's."""
    cold.reside()
    _, log = cold.run("RPC_prepare", columns_request(), "-X", "importtime")
    assert "ok (resident trainer)" in log
    imported = {line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")}
    assert "v6_algorithm.engines.resident.courier" in imported
    assert not [name for name in imported if name.split(".")[0] in HEAVY]
    engines = ("", ".marks", ".resident", ".resident.courier", ".resident.protocol")
    assert {name for name in imported if name.startswith("v6_algorithm.")} == {
        *(f"v6_algorithm.engines{rest}" for rest in engines), "v6_algorithm.exchange", "v6_algorithm.exchange.frames"
    }  # fmt: skip


@pytest.mark.slow
def test_a_second_trainer_steps_back_and_another_setting_of_the_node_is_not_served(node):
    node.reside()
    second, task = node.reside()
    assert second.wait(timeout=60) == 0
    assert json.loads((task / "output").read_text())["ended"] == "another one serves this job"
    refused, log = node.run("RPC_prepare", columns_request(), V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS="1000")
    assert "other settings of the node" in log
    assert refused["kind"] == "refused"
    off, log = node.run("RPC_prepare", columns_request(), V6_ALGORITHM_RESIDENT="false")
    assert off["status"] == "ok"
    assert "resident trainer" not in log


@pytest.mark.slow
def test_a_trainer_ends_on_the_word_and_when_nobody_asks(node):
    process, task = node.reside()
    assert stat.S_IMODE(os.stat(os.path.join(node.place, "socket")).st_mode) == 0o600
    assert node.end()["ended"] == "on request"
    assert process.wait(timeout=60) == 0
    assert not os.path.lexists(os.path.join(node.place, "socket"))
    assert node.end()["ended"] == "there was none"
    process, task = node.reside(idle_s=0.1)
    assert process.wait(timeout=60) == 0
    assert "nobody asked for 0.1 s" in (task / "log").read_text()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"V6_ALGORITHM_RESIDENT": "off"}, "V6_ALGORITHM_RESIDENT of this node is off"),
        ({"USER_REQUESTED_DATABASE_LABELS": "absent"}, "absent: this node has no database 'absent'"),
        ({"V6_ALGORITHM_POLICY": "standard"}, "V6_ALGORITHM_REQUEST_CHAIN"),
        ({"V6_ALGORITM_MINIMUM_ORGANIZATIONS": "3"}, "is no rule of this image"),
    ],
)
def test_a_node_that_does_not_want_one_or_has_no_data_has_none(cold, monkeypatch, variables, reason):
    """In this process: what is loaded before the answer is not looked at here."""
    environment = {"TEMPORARY_FOLDER": str(cold.folder / "volume"), "V6_ALGORITHM_POLICY": "trusted"}
    environment |= {"USER_REQUESTED_DATABASE_LABELS": "default", "DEFAULT_DATABASE_URI": str(cold.folder / "table.csv")}
    monkeypatch.setattr(os, "environ", environment | variables)
    assert reason in trainer.reside(None, wire.message(site="a", round=0, attempt=1, idle_s=1))["ended"]


# -- the protocol ------------------------------------------------------------------------------------------------------


def test_a_message_survives_the_way_and_what_is_none_is_refused():
    here, there = socket.socketpair()
    content = {"text": "äöü", "numbers": [0.1, 1e-300, 2**60, None]}
    with here, there:
        protocol.send(here, content)
        assert protocol.receive(there) == content
        for sent, reason in [
            ((2**40).to_bytes(8, "big"), "over the cap"),
            ((3).to_bytes(8, "big") + b"[1]", "no JSON object"),
            ((3).to_bytes(8, "big") + b"{a}", "not JSON"),
        ]:
            here.sendall(sent)
            with pytest.raises(protocol.ProtocolError, match=reason):
                protocol.receive(there)
        here.sendall((9).to_bytes(8, "big") + b"{")
        here.close()
        with pytest.raises(protocol.ProtocolError, match="closed before"):
            protocol.receive(there)


def test_settings_and_code_are_the_surroundings_and_a_runs_own_files_are_not():
    here = protocol.surroundings({"A": "1", "INPUT_FILE": "x"})
    assert here == protocol.surroundings({"A": "1", "INPUT_FILE": "y"})
    assert here != protocol.surroundings({"A": "2", "INPUT_FILE": "x"})


def test_a_trainer_that_answers_nonsense_is_as_good_as_none(tmp_path, monkeypatch):
    import threading

    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path))
    place = protocol.meeting_place(os.environ)
    held = protocol.lock(place)

    def answer(said):
        connection, _ = listener.accept()
        with connection:
            protocol.receive(connection)
            protocol.send(connection, said)

    with protocol.listen(place) as listener:
        good = {"reply": {"status": "ok", "schema": 1}}
        for said in (
            {"reply": "yes"},
            {"reply": {"status": "ok"}},
            {},
            good | {"parts": ["many"]},
            good | {"parts": [9]},
        ):
            thread = threading.Thread(target=answer, args=(said,))
            thread.start()
            frame = Frame(str(tmp_path / "output")) if "parts" in said else None
            reply, why = courier.ask("train", {"site": "a"}, frame)
            thread.join()
            assert reply is None
            assert "no resident trainer" in why
    os.close(held)


def test_a_trainer_that_cannot_reach_the_server_leaves_the_work_to_the_courier(cold, monkeypatch):
    """A container that outlived its node may be cut off where a new one is not; it must not answer with a refusal."""
    monkeypatch.setattr("v6_algorithm.engines.provenance._ATTEMPTS", 1)
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "standard")
    environment = {"TEMPORARY_FOLDER": str(cold.folder / "volume"), "HOST": "http://127.0.0.1", "PORT": "9"}
    sub = json.dumps({"task_id": 7, "image": "v6"})
    token = "." + base64.urlsafe_b64encode(json.dumps({"sub": sub}).encode()).decode().rstrip("=") + "."
    seen = protocol.surroundings(environment)
    with socket.socket() as nobody:
        message = {"protocol": protocol.PROTOCOL, "surroundings": seen, "method": "prepare", "token": token}
        said = trainer.Trainer(nobody, seen, environment)._answer({**message, "request": columns_request()})
    assert said == {"refused": "it cannot ask the server who sent the request"}


def test_the_longest_message_holds_the_largest_model_in_base64_and_the_rest():
    rest = protocol.LARGEST_MESSAGE - (wire.MAX_BYTES + 2) // 3 * 4
    assert 2**25 < rest < 2**27


def test_the_way_to_the_trainer_is_what_its_answer_took_less_its_work():
    assert courier._with_start({"timing": {"a": 1.0, "b": 0.5}}, None, 3.5)["timing"] == {
        "a": 1.0,
        "b": 0.5,
        "handover_s": 2.0,
    }
    assert courier._with_start({"timing": {"a": 4.0}}, 0.25, 3.5)["timing"] == {
        "a": 4.0,
        "handover_s": 0.0,
        "import_s": 0.25,
    }
    assert courier._with_start({"timing": {"a": 4.0}}, 0.25)["timing"] == {"a": 4.0, "import_s": 0.25}
    assert courier._with_start({"status": "error"}, 0.25, 1.0) == {"status": "error"}
