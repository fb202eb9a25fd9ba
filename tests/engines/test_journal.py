"""`master`'s container dies, is run again or is followed by another task: it goes on, to the same bits.

The loopback proxy is the node's: subtasks that were created live on in it, as they do on a real network.
"""

from __future__ import annotations

import itertools

import pytest
from loopback import LoopbackProxy, numbered

from v6_algorithm.engines import entry
from v6_algorithm.engines.vantage6 import subtasks
from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire

EXPERIMENT = {
    "data": {"target": "y"},
    "model": {"kind": "mlp", "hidden": [4]},
    "rounds": 3,
    "training": {"optimizer": {"kind": "adam", "lr": 0.05}, "batch_size": 16},
    "strategy": {"kind": "fedadam", "compress": [{"kind": "topk", "fraction": 0.5}]},
    "participation": {"poll_s": 0.01},
    # Subtasks are counted here.
    "resident": False,
}


class Killed(BaseException):
    """What SIGKILL is to the container."""


@pytest.fixture(scope="module")
def undisturbed():
    """What comes of the run when nothing happens: filled by the first test that needs it."""
    return {}


@pytest.fixture
def network(tables, monkeypatch, tmp_path):
    """Return a function that starts a network of three nodes, the hub's among them."""
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "trusted")
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    organizations = numbered(tables)
    folders = itertools.count()

    def start(**options):
        # A job's volume: what its containers leave there outlives them.
        monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / f"job-{next(folders)}"))
        return LoopbackProxy(organizations, **options)

    return start


def container(proxy, *, killed_at=None, **arguments):
    """Run `master` as a container does; `killed_at` is the subtask before whose creation it is killed."""
    client = proxy.client()
    create, number = client.task.create, itertools.count(len(proxy.tasks) + 1)

    def counting(**options):
        if next(number) == killed_at:
            raise Killed
        return create(**options)

    client.task.create = counting
    return entry.run_master(client, None, arguments.pop("experiment", EXPERIMENT), **arguments)


def run_undisturbed(network, kept):
    """The result of the run and how many subtasks it made, of one run for the whole module."""
    if not kept:
        with network() as proxy:
            kept["result"], kept["created"] = container(proxy), len(proxy.tasks)
    return kept["result"], kept["created"]


def comparable(result):
    keys = ("history", "metrics", "sites", "parameters", "best_round", "participation", "rounds_run", "status")
    return {key: result[key] for key in keys}


@pytest.mark.slow
def test_a_container_that_is_run_again_goes_on_wherever_it_was_killed(network, undisturbed, capsys):
    whole, created = run_undisturbed(network, undisturbed)
    assert created == 18  # of three sites: columns, statistics, three rounds, evaluation
    # Before the first subtask, within the preparation, within each round, and within the evaluation.
    for killed_at in (1, 5, 8, 12, 17):
        with network() as proxy:
            with pytest.raises(Killed):
                container(proxy, killed_at=killed_at)
            again = container(proxy)
            assert comparable(again) == comparable(whole), killed_at
            assert len(proxy.tasks) == created, "nobody is asked twice"
    assert "goes on after round 1/3" in capsys.readouterr().out


@pytest.mark.slow
def test_rounds_that_overlap_are_taken_over_by_the_container_that_is_run_again(network):
    experiment = EXPERIMENT | {
        "pipeline": 1,
        "rounds": 4,
        "strategy": {"kind": "fedadam"},
        "stopping": {"patience": None},
    }
    with network() as proxy:
        whole, created = container(proxy, experiment=experiment), len(proxy.tasks)
    # Within the subtasks of round 3, which is asked for while round 2 is under way; of round 4; and in the evaluation.
    for killed_at in (14, 17, 20):
        with network() as proxy:
            with pytest.raises(Killed):
                container(proxy, killed_at=killed_at, experiment=experiment)
            again = container(proxy, experiment=experiment)
            assert comparable(again) == comparable(whole), killed_at
            assert len(proxy.tasks) == created, "nobody is asked twice"


@pytest.mark.slow
def test_a_container_that_was_done_returns_what_it_had(network):
    """As when the hub's node was killed, `master` ended meanwhile, and its result was never collected."""
    with network() as proxy:
        whole, created = container(proxy), len(proxy.tasks)
        requests = dict(proxy.requests)
        assert container(proxy) == whole
        assert len(proxy.tasks) == created
        # Only the organisations were listed.
        assert {key for key in proxy.requests if proxy.requests[key] != requests.get(key)} == {"organization"}


@pytest.mark.slow
def test_another_task_takes_what_the_sites_answered_to_the_first(network):
    with network() as proxy:
        whole, created = container(proxy), len(proxy.tasks)
    with network() as proxy:
        with pytest.raises(Killed):
            container(proxy, killed_at=14)
        answered = len(proxy.tasks)
        proxy.parent = 2000
        second = network()  # another job has another volume, empty
        assert not second.tasks
        again = container(proxy, resume=1000)
        assert comparable(again) == comparable(whole)
        assert len(proxy.tasks) == created
        assert {task["parent"] for task in list(proxy.tasks.values())[answered:]} == {2000}


@pytest.mark.slow
def test_a_site_that_failed_in_the_first_task_is_missing_in_the_second(network):
    """Else all that came after it would be another run."""
    lost = {"outcome": lambda site, call: "crashed" if (site, call) == (4, 3) else None}
    with network(**lost) as proxy:
        whole, created = container(proxy), len(proxy.tasks)
        proxy.parent = 2000
        network()
        again = container(proxy, resume=[1000])
        assert comparable(again) == comparable(whole)
        assert len(proxy.tasks) == created
    first = next(entry for entry in again["participation"] if entry["round"] == 1)
    assert list(first["missing"]) == ["berlin"]


@pytest.mark.slow
def test_subtasks_that_another_organisation_has_created_are_not_taken(network):
    """A node's key is enough to post a subtask in the name of a task: its answer could be anything."""
    with network() as proxy:
        with pytest.raises(Killed):
            container(proxy, killed_at=9)
        for task in proxy.tasks.values():
            task["init_org"] = {"id": 2}
        container(proxy)
        # All of round 1, but nothing of the preparation: that is in the checkpoint.
        assert len(proxy.tasks) == 8 + 12


@pytest.mark.slow
def test_another_image_whose_defaults_differ_begins_anew(network, capsys):
    with network() as proxy:
        with pytest.raises(Killed):
            container(proxy, killed_at=12)
        result = container(proxy, experiment=EXPERIMENT | {"seed": 1})
    assert result["rounds_run"] == 3
    assert "is of another experiment; the run begins anew" in capsys.readouterr().out


def test_earlier_tasks_must_be_ids(network):
    with network() as proxy, pytest.raises(ExperimentError, match="resume: must be ids of tasks"):
        container(proxy, resume=["1000"])


# -- what fails on the way ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("what", ["create", "created", "status", "result"])
@pytest.mark.parametrize("trouble", ["page", "message"])
def test_a_server_that_is_restarted_costs_nobody_a_round(network, undisturbed, what, trouble):
    """A page of the web server's, or the proxy's message, in place of each third answer."""
    whole, created = run_undisturbed(network, undisturbed)
    with network() as proxy:
        proxy.trouble = lambda path, number: trouble if path == what and number % 3 == 0 else None
        result = container(proxy)
        assert comparable(result) == comparable(whole)
        assert not any(entry["missing"] for entry in result["participation"])
        assert len(proxy.tasks) == created, "of a subtask whose creation was not confirmed there is no second"


def ask_berlin(proxy, deadline_s):
    federation = Vantage6Federation(proxy.client(), poll_s=0.05)
    replies = federation.call(
        "RPC_prepare",
        {"berlin": wire.message(site="berlin", round=0, attempt=1, experiment={}, sites=1)},
        deadline_s=deadline_s,
    )
    list(replies)
    return replies


@pytest.mark.slow
def test_a_server_that_is_away_is_not_taken_for_the_site(network, monkeypatch):
    monkeypatch.setattr(subtasks, "OUTAGE_S", 0.2)
    with network() as proxy:
        proxy.trouble = lambda path, number: "page" if path == "create" else None
        missing = ask_berlin(proxy, 0.2).missing["berlin"]
        assert (missing.kind, missing.reason) == (
            "unreachable",
            "no subtask was created within 0.2 s: the server does not answer (JSONDecodeError)",
        )
        proxy.trouble = lambda path, number: "page" if path == "status" else None
        missing = ask_berlin(proxy, 0.2).missing["berlin"]
        assert missing.kind == "unreachable"
        assert "the server does not say how its run is" in missing.reason
        proxy.trouble = lambda path, number: "message" if path == "result" else None
        missing = ask_berlin(proxy, 5).missing["berlin"]
        assert (missing.kind, missing.reason[:29]) == ("unreachable", "its result cannot be fetched ")


def test_an_answer_that_is_there_at_the_deadline_is_taken(network):
    """The server is silent while the deadline passes, and has the answer when it is back."""
    with network() as proxy:
        proxy.trouble = lambda path, number: "page" if path == "status" and number < 8 else None
        assert ask_berlin(proxy, 0.1).missing["berlin"].kind != "late"


@pytest.mark.slow
def test_a_task_of_the_same_number_does_not_get_the_result_of_another_experiment(network, capsys):
    """As of a server that was set up anew, whose nodes kept their folders."""
    with network() as proxy:
        first = container(proxy)
    with LoopbackProxy(proxy.organizations) as anew:
        again = container(anew)
        assert comparable(again) == comparable(first)
        assert not anew.tasks, "the same experiment was done"
        other = container(anew, experiment={**EXPERIMENT, "rounds": 1})
    assert "a task of this number left the result of another experiment here" in capsys.readouterr().out
    assert other["rounds_run"] == 1
    assert anew.tasks
