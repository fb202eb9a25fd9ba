"""Sites over several workers: the numbers of one process, and what happens when a worker dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest
from hospitals import make_table
from test_ways import EXACT, FAST, SAME, near

from v6_algorithm.coordinator.checkpoint import Checkpoints
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
from v6_algorithm.engines.simulation.workers import WorkerFederation, WorkerSites, deal
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext


class Here:
    """Workers in this process: what passes is what passes between processes."""

    def __init__(self, groups, way):
        self.workers = [WorkerSites(group, way, 1) for group in groups]
        self.inbox, self.closed, self.bytes = deque(), False, 0

    def send(self, worker, parcel):
        self.bytes += sum(map(len, parcel))
        self.inbox.extend((worker, answer) for answer in self.workers[worker].answer(parcel))

    def receive(self):
        return self.inbox.popleft()

    def close(self):
        self.closed = True


def dealt(tables, workers, way, crew=Here):
    contexts = {name: SiteContext({name: table}) for name, table in tables.items()}
    groups = deal(contexts, workers)
    return WorkerFederation(crew(groups, way), groups, way, {"engine": "local", "threads": 1})


@pytest.fixture
def four(tables):
    return {**tables, "delft": TableSource(frame=make_table(50, 4))}


def with_slow(cases, everyday):
    return [
        pytest.param(changes, id=name, marks=[] if name in everyday else [pytest.mark.slow])
        for name, changes in cases.items()
    ]


@pytest.mark.parametrize("changes", with_slow(EXACT, {"scaffold", "private layers"}))
def test_workers_give_the_bits_of_one_process_where_sites_train_one_by_one(four, make_experiment, changes):
    experiment = make_experiment(**{"rounds": 3, **changes})
    expected = run(local_federation(experiment, four, way="exact"), experiment)
    given = run(dealt(four, 2, "exact"), experiment)
    assert [given[key] for key in SAME] == [expected[key] for key in SAME]


@pytest.mark.parametrize("changes", with_slow(FAST, {"folds", "scaffold"}))
def test_sites_that_train_together_within_workers_are_near_those_of_one_process(four, make_experiment, changes):
    experiment = make_experiment(**{"rounds": 3, **changes})
    expected = run(local_federation(experiment, four, way="fast"), experiment)
    given = run(dealt(four, 2, "fast"), experiment)
    assert given["engine"]["together"] is True
    compared = ("history", "site_history", "metrics", "sites")
    near({key: given[key] for key in compared}, {key: expected[key] for key in compared})


def test_a_model_and_the_experiment_are_sent_to_a_worker_once(make_experiment):
    experiment = make_experiment(rounds=4, model={"kind": "mlp", "hidden": [400]})
    sizes = []
    for sites in (4, 8):
        tables = {f"site{number}": TableSource(frame=make_table(30, number)) for number in range(sites)}
        federation = dealt(tables, 2, "fast")
        result = run(federation, experiment)
        sizes.append(federation._crew.bytes)
    # Twice the sites are twice the names, not twice the models.
    assert sizes[1] < 1.1 * sizes[0]
    assert sizes[0] > 2 * 3 * len(result["parameters"]) // 4


@pytest.mark.slow
def test_processes_give_the_bits_of_one(four, make_experiment):
    experiment = make_experiment(rounds=3)
    expected = run(local_federation(experiment, four, way="exact"), experiment)
    federation = local_federation(experiment, four, way="exact", workers=2)
    given = run(federation, experiment)
    assert [given[key] for key in SAME] == [expected[key] for key in SAME]
    assert given["engine"] == {"engine": "local", "way": "exact", "workers": 2, "threads": 1}
    processes = list(federation._crew._processes)
    federation.close()
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_worker_that_is_killed_is_named_and_its_sites_count_as_crashed(four, make_experiment):
    experiment = make_experiment(rounds=4, participation={"minimum": 1})
    federation = local_federation(experiment, four, workers=2)
    process = federation._crew.ids[1]

    def kill(event):
        if event["event"] == "round" and event["round"] == 1:
            os.kill(process, signal.SIGKILL)

    started = time.monotonic()
    result = run(federation, experiment, kill)
    federation.close()
    assert result["status"] == "completed"
    assert time.monotonic() - started < 60
    missing = result["participation"][-1]["missing"]
    lost = {site for site, worker in federation._worker_of.items() if worker == 1}
    assert set(missing) == lost
    assert all(
        reason.startswith(f"crashed: worker 2 of 2 (process {process}) was ended by SIGKILL")
        for reason in missing.values()
    )
    assert result["engine"]["workers_lost"] == [next(iter(missing.values())).removeprefix("crashed: ")]


def test_what_is_wrong_with_a_number_of_workers_is_said(tables, make_experiment):
    experiment = make_experiment()
    with pytest.raises(ExperimentError, match=r"^workers: 0 is not allowed; allowed: whole numbers from 1$"):
        local_federation(experiment, tables, workers=0)
    with pytest.raises(ExperimentError, match=r"workers: 4 is not allowed: there are 3 sites, .* allowed: 1 to 3"):
        local_federation(experiment, tables, workers=4)
    with pytest.raises(ExperimentError, match=r"mode centralised has one site"):
        local_federation(make_experiment(mode="centralised"), tables, workers=2)


def test_the_largest_sites_are_dealt_first():
    rows = {"a": 10, "b": 70, "c": 20, "d": 50, "e": 40}
    contexts = {name: SiteContext({name: TableSource(frame=make_table(n, 1))}) for name, n in rows.items()}
    assert [list(group) for group in deal(contexts, 2)] == [["a", "b", "c"], ["d", "e"]]


def test_a_fault_in_a_worker_is_raised_with_its_traceback(four, make_experiment):
    class Broken(Here):
        def __init__(self, groups, way):
            super().__init__(groups, way)
            self.workers[1]._federation.answers = lambda *given: 1 / 0

    with pytest.raises(RuntimeError, match="ZeroDivisionError") as raised:
        run(dealt(four, 2, "exact", Broken), make_experiment())
    assert "in a worker" in raised.value.__notes__[0]


@pytest.mark.slow
def test_a_run_whose_worker_died_goes_on_from_its_checkpoint_to_the_same_bits(four, make_experiment, tmp_path):
    experiment = make_experiment(rounds=4, participation={"minimum": 4})
    expected = run(local_federation(experiment, four, way="exact"), experiment)
    federation = local_federation(experiment, four, way="exact", workers=2)

    def kill(event):
        if event["event"] == "round" and event["round"] == 2:
            os.kill(federation._crew.ids[0], signal.SIGKILL)

    checkpoints = Checkpoints(tmp_path / "state")
    stopped = run(federation, experiment, kill, checkpoints=checkpoints)
    federation.close()
    assert stopped["status"] == "stopped"
    assert "crashed: worker 1 of 2" in stopped["stopped_because"]
    again = local_federation(experiment, four, way="exact", workers=3)
    given = run(again, experiment, checkpoints=checkpoints)
    again.close()
    assert given["parameters"] == expected["parameters"]
    assert given["history"] == expected["history"]


def of_a_mark(mark):
    """Return the processes that have a mark in their environment."""
    marked = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                marked.append(int(process.name))
    return marked


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_worker_behind_and_goes_on_to_the_same_bits(four, tmp_path, number):
    for name, source in four.items():
        source.frame.to_csv(tmp_path / f"{name}.csv", index=False)
    content = {
        "name": "ended", "data": {"target": "y"}, "rounds": 100, "model": {"kind": "mlp", "hidden": [8]},
        "sites": {name: f"{name}.csv" for name in four}, "strategy": {"kind": "fedavg", "private": "norm"},
        "training": {"optimizer": {"kind": "adam", "lr": 0.02}, "batch_size": 8},
    }  # fmt: skip
    content["model"]["norm"] = "batch"
    (tmp_path / "experiment.yaml").write_text(json.dumps(content))
    mark = f"workers-{os.getpid()}-{number}"
    environment = os.environ | {"V6_TEST_MARK": mark}
    command = [sys.executable, "-m", "v6_algorithm"]
    line = [*command, "run", "experiment.yaml", "--exact", "--workers", "2", "--out", "ended"]
    ended = subprocess.Popen(line, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, cwd=tmp_path)
    end = time.monotonic() + 60
    while not list((tmp_path / "ended").glob("checkpoint*.safetensors*")) and time.monotonic() < end:
        time.sleep(0.05)
    if number == signal.SIGINT:
        # As a terminal does: to all of them.
        os.killpg(ended.pid, number)
    else:
        ended.send_signal(number)
    ended.wait(60)
    end = time.monotonic() + 10
    while of_a_mark(mark) and time.monotonic() < end:
        time.sleep(0.1)
    assert of_a_mark(mark) == []
    if number != signal.SIGTERM:
        return
    subprocess.run([*command, "resume", str(tmp_path / "ended"), "-q"], env=environment, check=True)
    resumed = json.loads((tmp_path / "ended" / "result.json").read_text())
    experiment = Experiment.load(tmp_path / "experiment.yaml")
    whole = run(local_federation(experiment, tables_of(experiment, tmp_path), way="exact"), experiment)
    assert resumed["history"] == whole["history"]
    assert resumed["engine"]["workers"] == 2


@pytest.mark.slow
def test_a_terminal_that_is_closed_leaves_the_result_so_far_of_workers_too(four, tmp_path):
    for name, source in four.items():
        source.frame.to_csv(tmp_path / f"{name}.csv", index=False)
    content = {
        "data": {"target": "y"}, "rounds": 2000, "stopping": {"patience": None},
        "sites": {name: f"{name}.csv" for name in four},
    }  # fmt: skip
    (tmp_path / "experiment.yaml").write_text(json.dumps(content))
    line = [sys.executable, "-u", "-m", "v6_algorithm", "run", "experiment.yaml", "--workers", "2", "--out", "ended"]
    ended = subprocess.Popen(line, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             cwd=tmp_path)  # fmt: skip
    assert ended.stdout is not None
    for told in ended.stdout:
        if "round 200/2000" in told:
            break
    # To all of them, as a terminal does.
    os.killpg(ended.pid, signal.SIGHUP)
    output = ended.stdout.read()
    assert ended.wait(60) == 3, output
    stopped = json.loads((tmp_path / "ended" / "result.json").read_text())
    assert "SIGHUP" in stopped["stopped_because"], output
    assert "workers_lost" not in stopped["engine"], output
