"""`v6-algorithm submit`, `watch` and `cancel` with a real server and real nodes: what a researcher types and sees."""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from training import patients_experiment
from v6config import Site
from v6network import HUB, IMAGE, Network, key_pair
from v6process import wait_for

import v6_algorithm.api as v6
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

FILES = {
    "result.json", "history.csv", "metrics.csv", "metrics.json", "meta_analysis.csv", "model.safetensors",
    "report.html",
}  # fmt: skip
EXPERIMENT = patients_experiment(name="smoke")
PROGRAM = "from v6_algorithm.researcher.cli import main; main()"


class Researcher:
    """Someone with an experiment file in a folder, an account at a network's server, and a shell."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.environment = {
            **os.environ,
            "V6_SERVER": network.url,
            "V6_USERNAME": network.username,
            "V6_PASSWORD": network.password,
            "V6_IMAGE": IMAGE,
            "COLUMNS": "200",
        }

    def write(self, **changes) -> Path:
        file = self.folder / "experiment.yaml"
        file.write_text(yaml.safe_dump({**EXPERIMENT, **changes}))
        return file

    def type(self, *words: object, timeout_s: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        """Type a command and wait for it; its output is free of tracebacks."""
        done = subprocess.run(
            [self.network.interpreter, "-c", PROGRAM, *map(str, words)],
            env=self.environment | environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done

    def start(self, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, words)], env=self.environment, cwd=self.folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Of tests that a shell runs in the background, which lets them ignore Ctrl-C, commands do not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def tasks(self) -> list[int]:
        """Ids of the tasks that users sent, oldest first."""
        listed = self.network.client.task.list(per_page=250)["data"]
        return sorted(task["id"] for task in listed if not task["parent"])


@pytest.fixture
def researcher(three_sites, tmp_path):
    return Researcher(three_sites, tmp_path)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip()


def test_submit_ends_with_the_files_of_run_and_its_numbers(researcher):
    done = researcher.type("submit", researcher.write(), "--out", "out")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (researcher.folder / "out").iterdir()} == FILES
    result = json.loads((researcher.folder / "out" / "result.json").read_text())
    experiment = Experiment.parse(EXPERIMENT)
    sites = researcher.network.sites
    tables = {name: TableSource(str(sites[name].databases["default"])) for name in "abc"}
    here = run(local_federation(experiment, tables), experiment)
    assert {key: result[key] for key in ("metrics", "history", "parameters")} == {
        key: here[key] for key in ("metrics", "history", "parameters")
    }
    # What happened, while it happened: who takes part, each site's reply, each round; and the closing table.
    assert "prepared: 3 sites take part: a, b, c" in done.stdout
    assert re.search(r"^round 2: b: train loss 0\.\d+; validation loss 0\.\d+.* \(\d+\.\d s\)$", done.stdout, re.M)
    assert re.search(r"^round 1/2: train loss 0\.\d+$", done.stdout, re.M)
    assert "smoke: test" in done.stdout


def test_two_models_are_compared_at_the_sites_with_the_numbers_of_run(researcher):
    """`submit --test A --against B`: the task carries both files, and DeLong's test is that of the same rows here."""
    frames = {name: pd.read_csv(researcher.network.sites[name].databases["default"]) for name in "abc"}
    keys = {"name": "compared", "problem": "classification", "data": {"target": "outcome"}}
    runs = []
    for column in ("age", "dose"):
        trained = v6.run({**keys, "data": {"target": "outcome", "features": [column]}, "model": "glm"}, frames)
        runs.append(trained.save(researcher.folder / column))
    file = researcher.folder / "compared.yaml"
    file.write_text(yaml.safe_dump(keys))
    done = researcher.type("submit", file, "--test", runs[0], "--against", runs[1], "--out", "out")
    assert done.returncode == 0, done.stderr
    result = json.loads((researcher.folder / "out" / "result.json").read_text())
    here = v6.run(keys, frames, test=runs[0], against=runs[1]).content
    assert (result["status"], result["comparison"]) == ("tested", here["comparison"])
    assert result["metrics"] == here["metrics"]


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(researcher):
    before = researcher.tasks()
    done = researcher.type("submit", researcher.write(), "--dry-run", "--organization", "a", "--organization", "b")
    assert done.returncode == 0, done.stderr
    assert "sites          a (online), b (online)" in done.stdout
    assert "master         at hub (online)" in done.stdout
    assert "dry run: nothing was sent" in done.stdout
    assert researcher.tasks() == before
    assert not (researcher.folder / "runs").exists()


@pytest.mark.slow
def test_check_asks_every_node_what_would_go_wrong_and_trains_nothing(researcher):
    done = researcher.type("check", researcher.write(), "--out", "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((researcher.folder / "report.json").read_text())
    assert {site: told["rows"] for site, told in report["sites"].items() if "rows" in told} == {
        "a": 40,
        "b": 50,
        "c": 60,
    }
    # The hub has no table, and asks for the others.
    assert [finding["site"] for finding in report["findings"] if finding["effect"] != "warning"] == ["hub"]
    wrong = researcher.type(
        "check", researcher.write(data={"target": "outcom"}), "--organization", "a", "--organization", "b"
    )
    assert wrong.returncode == 2
    assert "outcom" in wrong.stdout


@pytest.mark.slow
def test_a_task_left_alone_is_watched_and_fetched_later_by_its_id(researcher):
    done = researcher.type(
        "submit", researcher.write(rounds=1), "--detach", "--organization", "a", "--organization", "c"
    )
    told = re.search(r"v6-algorithm watch (\d+) --server (\S+) --username researcher", done.stdout)
    assert told, done.stdout + done.stderr
    assert told[2] == researcher.network.url
    watched = researcher.type("watch", told[1], "--out", "watched")
    assert watched.returncode == 0, watched.stderr
    assert "round 1/1: " in watched.stdout
    fetched = researcher.type("watch", told[1], "--out", "fetched", "--quiet")
    assert (fetched.returncode, fetched.stdout) == (0, "")
    first, second = (
        json.loads((researcher.folder / name / "result.json").read_text()) for name in ("watched", "fetched")
    )
    assert first == second
    assert sorted(first["sites"]) == ["a", "c"]


@pytest.mark.slow
def test_ctrl_c_leaves_the_task_running_and_tells_how_to_come_back_or_cancel(researcher):
    before = researcher.tasks()
    process = researcher.start("submit", researcher.write(rounds=500, stopping={"patience": None}), "--out", "out")
    wait_for(lambda: researcher.tasks() != before, "the task to be sent", timeout_s=90)
    task = researcher.tasks()[-1]
    wait_for(lambda: set(researcher.network.statuses(task).values()) == {"active"}, "the task to start")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert f"task {task} goes on without you" in err
    assert "Traceback" not in err
    assert f"v6-algorithm watch {task} --server" in err
    assert researcher.network.statuses(task) == {HUB: "active"}
    assert not (researcher.folder / "out").exists()
    early = researcher.type("cancel", task)
    assert (early.returncode, early.stderr) == (0, "")
    wait_for(lambda: researcher.network.statuses(task) == {HUB: "killed by user"}, "the task to end")
    watched = researcher.type("watch", task)
    assert watched.returncode == 3
    assert f"error: task {task} failed at hub: the run was killed" in error_of(watched)
    again = researcher.type("cancel", task)
    assert (again.returncode, "already finished" in again.stderr) == (2, True)


WRONG = {
    "password": ((), {"V6_PASSWORD": "wrong"}, 2, "error: the server does not log in 'researcher': "),
    "no password": ((), {"V6_PASSWORD": ""}, 2, "there is no terminal to ask at; set V6_PASSWORD"),
    "no server": (("--server", "http://127.0.0.1:9"), {}, 3, "error: the server http://127.0.0.1:9 does not answer"),
    "no address": (("--server", "127.0.0.1"), {}, 2, "error: --server 127.0.0.1: must be an address such as https://"),
    "collaboration": (("--collaboration", "hart"), {}, 2, "error: collaboration 'hart' is not there, or you may not"),
    "organisation": (("--organization", "z"), {}, 2, "error: organisation 'z' is not in collaboration 'v6test-"),
    "hub": (("--hub", "z"), {}, 2, "; it has: a, b, c, hub"),
    "too few sites": (("--organization", "a"), {}, 2, "error: participation.minimum: 2 sites are needed, these take"),
    "label": (("--database", "my data"), {}, 2, "error: the task cannot be sent: Database labels should be made up of"),
    "mode": (("--set", "mode=centralised"), {}, 2, "error: mode: centralised pools the rows, which never leave a node"),
    "key": (("--set", "rouns=3"), {}, 2, "unknown key 'rouns' (did you mean 'rounds'?)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_a_line_before_anything_is_sent(researcher, case):
    options, environment, code, message = WRONG[case]
    before = researcher.tasks()
    done = researcher.type("submit", researcher.write(), *options, **environment)
    assert message in error_of(done)
    assert done.returncode == code
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert researcher.network.password not in done.stdout + done.stderr
    assert researcher.tasks() == before
    assert not (researcher.folder / "runs").exists()


def test_a_path_that_is_not_vantage6s_is_told(researcher):
    wrong = researcher.network.url.removesuffix("/api") + "/elsewhere"
    done = researcher.type("submit", researcher.write(), "--server", wrong)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert wrong in done.stderr


@pytest.mark.slow
def test_data_that_do_not_fit_end_a_task_with_masters_own_words(researcher):
    done = researcher.type("submit", researcher.write(data={"target": "outcom"}))
    assert done.returncode == 2
    assert re.search(r"^error: .*'outcom'", done.stderr, re.M), done.stderr
    assert not list((researcher.folder / "runs").glob("*"))


@pytest.mark.slow
def test_an_image_that_a_node_does_not_allow_is_told(researcher):
    done = researcher.type("submit", researcher.write(), "--image", "somebody/else:1")
    assert done.returncode == 3
    assert "failed at hub: the node's policy does not allow this image or user" in error_of(done)


@pytest.mark.slow
def test_an_offline_hub_is_told_and_a_task_may_wait_for_it(researcher):
    researcher.network.stop_node(HUB)
    try:
        before = researcher.tasks()
        done = researcher.type("submit", researcher.write())
        assert done.returncode == 3
        assert "error: the node of hub, which is to run `master`, is offline; choose another with --hub" in error_of(
            done
        )
        assert researcher.tasks() == before
        waiting = researcher.type("submit", researcher.write(), "--detach")
        assert waiting.returncode == 0, waiting.stderr
        task = researcher.tasks()[-1]
        assert researcher.network.statuses(task) == {HUB: "pending"}
        assert researcher.type("cancel", task).returncode == 0
    finally:
        researcher.network.start_node(HUB)


@pytest.mark.slow
def test_an_encrypted_collaboration_takes_the_key_of_the_organisation_and_no_other(make_network, three_sites, tmp_path):
    network = make_network({name: three_sites.sites[name] for name in "ab"}, encrypted=True)
    researcher = Researcher(network, tmp_path)
    without = researcher.type("submit", researcher.write())
    assert (without.returncode, "is encrypted; give --private-key FILE" in without.stderr) == (2, True)
    (tmp_path / "other.pem").write_bytes(key_pair("somebody else")[0])
    public_key = network.client.organization.get(network.organizations[HUB])["public_key"]
    other = researcher.type("submit", researcher.write(), "--private-key", "other.pem")
    assert (other.returncode, "is not the key of hub: the server has the public half of another" in other.stderr) == (
        2,
        True,
    )
    # vantage6's own client would have replaced the organisation's key.
    assert network.client.organization.get(network.organizations[HUB])["public_key"] == public_key
    own = ("--private-key", network.private_key(HUB))
    done = researcher.type("submit", researcher.write(rounds=1), *own, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "completed"
    task = researcher.tasks()[-1]
    unread = researcher.type("watch", task)
    assert (unread.returncode, f"the result of task {task} cannot be read" in unread.stderr) == (3, True), unread.stderr


def second_factor(secret: str) -> str:
    """The six digits of now; RFC 6238 with vantage6's defaults."""
    key, counter = base64.b32decode(secret), struct.pack(">Q", int(time.time()) // 30)
    digest = hmac.new(key, counter, "sha1").digest()
    (number,) = struct.unpack(">I", digest[digest[-1] & 15 :][:4])
    return f"{(number & 0x7FFFFFFF) % 10**6:06d}"


@pytest.mark.slow
def test_a_server_with_two_factor_authentication_is_told_its_code_from_the_environment(make_network, tmp_path):
    network = make_network({"a": Site(online=False)})
    network.stop_server()
    settings = network.folder / "server" / "server.yaml"
    settings.write_text(settings.read_text() + "two_factor_auth: true\n")
    network.start_server()
    researcher = Researcher(network, tmp_path)
    dry = ("submit", researcher.write(participation={"minimum": 1}), "--dry-run")
    first = researcher.type(*dry)
    assert first.returncode == 2
    assert "error: the server wants two-factor authentication; scan the code" in first.stderr
    # What is in the code that was shown.
    secret = re.search(r"authenticator app: ([A-Z2-7]+)", first.stdout)[1]
    without = researcher.type(*dry)
    assert (without.returncode, "the server asks for a two-factor code: Please include" in without.stderr) == (2, True)
    wrong = researcher.type(*dry, V6_MFA_CODE="000000")
    assert (wrong.returncode, "two-factor authentication code is incorrect" in wrong.stderr) == (2, True)
    right = researcher.type(*dry, V6_MFA_CODE=second_factor(secret))
    assert right.returncode == 0, right.stderr
