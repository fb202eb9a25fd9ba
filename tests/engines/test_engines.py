"""One run on three engines: the local one, vantage6's mock client, and its real AlgorithmClient over HTTP."""

import base64
import io
import json

import pytest
from loopback import LoopbackProxy, numbered

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines import entry
from v6_algorithm.engines.simulation.simulate import mock_federation
from v6_algorithm.engines.vantage6.v4 import Vantage6Federation
from v6_algorithm.exchange import frames, in_file, wire

SPLITS = [{"kind": "ratio"}, {"kind": "kfold", "folds": 3}, {"kind": "leave_one_site_out"}]


def comparable(result):
    return {key: result[key] for key in ("history", "metrics", "folds", "sites", "parameters", "best_round", "notes")}


def over_http(experiment, tables, **options):
    organizations = numbered(tables)
    with LoopbackProxy(organizations, **options) as proxy:
        return run(Vantage6Federation(proxy.client(), poll_s=0.01), experiment)


@pytest.mark.parametrize(
    "split",
    [SPLITS[0], *(pytest.param(split, marks=pytest.mark.slow) for split in SPLITS[1:])],
    ids=[split["kind"] for split in SPLITS],
)
def test_all_engines_give_the_same_bits(tables, make_experiment, run_locally, split):
    experiment = make_experiment(split=split, model={"kind": "mlp", "hidden": [8], "norm": "batch", "dropout": 0.2})
    local = comparable(run_locally(experiment, tables))
    mock = comparable(run(mock_federation(experiment, tables), experiment))
    real = comparable(over_http(experiment, tables))
    assert local == mock
    assert local == real


@pytest.mark.parametrize("kind", ["scaffold", "cyclic", "qfedavg", "fedsgd"])
@pytest.mark.slow
def test_all_engines_give_the_same_bits_with_every_kind_of_message(tables, make_experiment, run_locally, kind):
    training = {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}
    experiment = make_experiment(strategy=kind, training=training, split="leave_one_site_out")
    local = comparable(run_locally(experiment, tables))
    assert local == comparable(run(mock_federation(experiment, tables), experiment))
    assert local == comparable(over_http(experiment, tables))


def test_the_same_seed_gives_the_same_result_and_another_seed_another(tables, make_experiment, run_locally):
    one, again, other = (run_locally(make_experiment(seed=seed), tables)["parameters"] for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_order_of_sites_in_the_file_changes_nothing(tables, make_experiment, run_locally):
    backwards = dict(reversed(tables.items()))
    one, two = (comparable(run_locally(make_experiment(), sites)) for sites in (tables, backwards))
    assert one == two


@pytest.mark.slow
def test_a_proxy_that_fails_in_passing_loses_nothing(tables, make_experiment, run_locally):
    """vantage6.md section 3: the stock client reads one failed poll as 'finished', and returns no results."""
    experiment = make_experiment()
    assert comparable(over_http(experiment, tables, flaky=2)) == comparable(run_locally(experiment, tables))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("crashed", "crashed: the algorithm container crashed; its log ends with: error > disk full"),
        ("not allowed", "refused: the node's policy does not allow"),
        ("non-existing Docker image", "could not get the image"),
        ("not created", "unreachable: no subtask was created: Container-token is not valid"),
    ],
)
def test_a_run_that_fails_at_one_site_is_named_and_the_others_go_on(tables, make_experiment, status, reason):
    # A subtask that is not created is tried again, twice.
    calls = range(4, 7 if status == "not created" else 5)
    result = over_http(
        make_experiment(), tables, outcome=lambda site, call: status if site == 4 and call in calls else None
    )
    assert result["status"] == "completed"
    second = next(entry for entry in result["participation"] if entry["round"] == 2)
    assert second["answered"] == ["amsterdam", "cairo"]
    assert reason in second["missing"]["berlin"]


@pytest.mark.slow
def test_a_site_that_does_not_answer_is_late_and_says_how_it_was_last_seen(tables, make_experiment):
    result = over_http(
        make_experiment(rounds=1, participation={"deadline_s": 0.3}),
        tables,
        outcome=lambda organization, call: "pending" if organization == 5 else None,
    )
    assert {"round": 0, "call": "prepare", "answered": ["amsterdam", "berlin"]}.items() <= result["participation"][
        0
    ].items()
    reason = result["participation"][0]["missing"]["cairo"]
    assert reason == "late: no answer within 0.3 s (its run is pending; its node seems to be offline)"


def test_a_late_site_is_overdue_until_its_run_has_ended(tables):
    organizations = numbered(tables)
    with LoopbackProxy(organizations, outcome=lambda organization, call: "pending") as proxy:
        federation = Vantage6Federation(proxy.client(), poll_s=0.05)
        request = wire.message(site="cairo", round=1, attempt=1)
        replies = federation.call("RPC_train", {"cairo": request}, deadline_s=0.1)
        assert not list(replies)
        assert replies.missing["cairo"].kind == "late"
        assert federation.overdue("cairo")
        assert not federation.overdue("berlin")
        assert not federation.belated()
        (task,) = proxy.tasks.values()
        task |= {"status": "completed", "result": base64.b64encode(b'{"round": 1}').decode()}
        assert not federation.overdue("cairo")
        (belated,) = federation.belated()
        assert (belated.site, belated.method, belated.request) == ("cairo", "RPC_train", request)
        assert json.loads(belated.text) == {"round": 1}
        assert not federation.belated()


def test_requests_and_replies_are_json_without_nan_on_the_local_engine(tables, make_experiment, run_locally):
    result = run_locally(make_experiment(), tables)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_organisations_can_be_named_or_numbered(tables):
    organizations = numbered(tables)
    with LoopbackProxy(organizations) as proxy:
        federation = Vantage6Federation(proxy.client(), organizations=[3, "cairo"], names={3: "x-ray"})
        assert [(site.name, site.id) for site in federation.sites()] == [("cairo", 5), ("x-ray", 3)]


@pytest.mark.slow
def test_a_large_result_comes_through_a_file_to_the_same_bits_and_a_full_disk_costs_no_round(
    tables, make_experiment, monkeypatch, tmp_path
):
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    organizations = numbered(tables)
    experiment = make_experiment(rounds=2, participation={"poll_s": 0.01}, resident=False)
    results_of, looked, in_files = {}, [], {}
    tensors = in_file.LongString.tensors

    def counted(self, most):
        looked.append(most)
        return tensors(self, most)

    def full(self, piece):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(in_file.LongString, "tensors", counted)
    for what in ("text", "file", "full disk"):
        monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / what))
        (tmp_path / what).mkdir()
        with LoopbackProxy(organizations) as proxy, monkeypatch.context() as patched:
            if what != "text":
                # All but the shortest strings are long.
                patched.setattr(in_file, "LONG", 64)
                patched.setattr(in_file, "_PIECE", 96)
            if what == "full disk":
                patched.setattr(in_file.TextFile, "write", full)
            before = len(looked)
            results_of[what] = entry.run_master(proxy.client(), None, experiment.for_task())
            in_files[what] = len(looked) - before
    # Of two rounds.
    assert in_files == {"text": 0, "file": 2 * len(tables), "full disk": 0}
    for key in ("history", "parameters", "metrics", "participation"):
        assert results_of["file"][key] == results_of["full disk"][key] == results_of["text"][key], key


@pytest.mark.slow
def test_a_large_model_comes_back_as_it_is_where_results_are_not_encrypted(
    tables, make_experiment, monkeypatch, tmp_path
):
    """Round by round to the same bits; a hub whose disk is full holds what comes."""
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    organizations = numbered(tables)
    experiment = make_experiment(rounds=2, participation={"poll_s": 0.01}, resident=False)
    monkeypatch.setattr(frames, "LEAST_CHARACTERS", 64)
    given, as_they_are = {}, {}
    write = in_file.TextFile.write

    def full(self, piece):
        if not isinstance(self.file, io.BytesIO) and piece.startswith(frames.MARK):
            raise OSError(28, "No space left on device")
        write(self, piece)

    for what in ("encrypted", "in the clear", "full disk"):
        with LoopbackProxy(organizations) as proxy, monkeypatch.context() as patched:
            proxy.encrypted = what == "encrypted"
            if what == "full disk":
                patched.setattr(in_file, "LONG", 64)
                patched.setattr(in_file.TextFile, "write", full)
            given[what] = entry.run_master(proxy.client(), None, experiment.for_task())
            outputs = {task["name"]: base64.b64decode(task["result"]) for task in proxy.tasks.values()}
            as_they_are[what] = sorted(name for name, content in outputs.items() if frames.is_frame(content))
    assert as_they_are["encrypted"] == []
    assert len(as_they_are["in the clear"]) == 2 * len(tables)
    assert all(name.startswith("RPC_train") for name in as_they_are["in the clear"])
    assert as_they_are["full disk"] == as_they_are["in the clear"]
    for key in ("history", "parameters", "metrics", "participation"):
        assert given["encrypted"][key] == given["in the clear"][key] == given["full disk"][key], key
    received = [
        {call["round"]: sum(call["bytes_received"].values()) for call in result["timing"]["rounds"]}
        for result in (given["in the clear"], given["encrypted"])
    ]
    assert received[0][1] < received[1][1]
