"""What the network can call, and how those functions find client, data and policy: as vantage6 3, 4 and its mock do."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from hospitals import SECRET, tables
from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

import v6_algorithm
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines import entry
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.engines.vantage6 import v4
from v6_algorithm.errors import ExperimentError, FederationError, PolicyError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment

EXPERIMENT = {
    "data": {"target": "y"},
    "model": {"kind": "mlp", "hidden": [4]},
    "rounds": 1,
    "training": {"optimizer": {"kind": "adam", "lr": 0.05}, "batch_size": 16},
}
NAMES = {"0": "amsterdam", "1": "berlin", "2": "cairo"}
# The same experiment as plain arguments.
PLAIN = {
    "target": "y",
    "hidden": [4],
    "rounds": 1,
    "optimizer": "adam",
    "learning_rate": 0.05,
    "batch_size": 16,
}
# What a form sends of the fields that nobody filled in.
EMPTY = {"features": [], "exclude": [], "positive": "", "seed": None, "folds": None, "organizations": []}
METHODS = ["RPC_prepare", "RPC_train", "RPC_evaluate"]


def request(**changes):
    """A request for the columns of berlin's table."""
    experiment = Experiment.parse(EXPERIMENT).for_sites()
    message = wire.message(site="berlin", round=0, attempt=1, experiment=experiment, sites=3, step="schema")
    return {**message, **changes}


@pytest.fixture(scope="module")
def expected():
    """The result of the local engine, which every way of calling `master` must give."""
    experiment = Experiment.parse(EXPERIMENT)
    return run(
        local_federation(experiment, {name: TableSource(frame=frame) for name, frame in tables().items()}), experiment
    )


@pytest.fixture(scope="module")
def requests():
    """Method to the last request that a run sent to berlin."""
    experiment = Experiment.parse(EXPERIMENT)
    federation = local_federation(experiment, {name: TableSource(frame=frame) for name, frame in tables().items()})
    sent, call = {}, federation.call

    def listen(method, requests, *, deadline_s):
        sent[method] = requests["berlin"]
        return call(method, requests, deadline_s=deadline_s)

    federation.call = listen
    run(federation, experiment)
    return sent


@pytest.fixture
def client():
    return MockAlgorithmClient(
        datasets=[[{"database": frame, "db_type": "csv"}] for frame in tables().values()], module="v6_algorithm"
    )


@pytest.fixture
def node(tmp_path, monkeypatch):
    """The environment of a run's container, as the wrapper leaves it: decoded."""
    tables()["berlin"].to_csv(tmp_path / "ward.csv", index=False)
    monkeypatch.setenv("USER_REQUESTED_DATABASE_LABELS", "ward")
    monkeypatch.setenv("WARD_DATABASE_URI", str(tmp_path / "ward.csv"))
    monkeypatch.setenv("WARD_DATABASE_TYPE", "csv")
    monkeypatch.setenv("OTHER_DATABASE_URI", str(tmp_path / "forbidden.csv"))
    monkeypatch.setenv("OTHER_DATABASE_TYPE", "csv")
    # No server is here that could say who asks; see test_provenance.
    monkeypatch.setenv("V6_ALGORITHM_POLICY", "trusted")
    return tmp_path


# -- what can be called --------------------------------------------------------------------------------------------


def test_the_package_exposes_eleven_functions_and_imports_no_libraries():
    """vantage6.md section 1: the wrapper calls whatever name of the package the task gives, underscores included."""
    code = """
import json, sys, v6_algorithm
names = [name for name, value in vars(v6_algorithm).items() if callable(value)]
print(json.dumps([sorted(names), [name for name in ("torch", "pandas", "numpy", "vantage6") if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    names = [f"RPC_{name}" for name in ("evaluate", "prepare", "publish", "reside", "summary", "train")]
    assert json.loads(done.stdout) == [[*names, "check", "describe", "extract", "master", "tune"], []]


def test_after_a_run_master_is_still_the_function_and_no_other_name_has_become_callable(expected):
    """The first import of the submodule `master` would otherwise put the module in the function's place."""
    assert expected["status"] == "completed"
    names = [name for name, value in vars(v6_algorithm).items() if callable(value)]
    assert sorted(names) == [
        "RPC_evaluate",
        "RPC_prepare",
        "RPC_publish",
        "RPC_reside",
        "RPC_summary",
        "RPC_train",
        "check",
        "describe",
        "extract",
        "master",
        "tune",
    ]


# -- master --------------------------------------------------------------------------------------------------------

CALLS = {
    "v3: client in front": lambda client: v6_algorithm.master(client, EXPERIMENT, names=NAMES),
    "client and experiment by name": lambda client: v6_algorithm.master(
        client=client, experiment=EXPERIMENT, names=NAMES
    ),
    "v4: args, client from the container": lambda client: v6_algorithm.master(EXPERIMENT, names=NAMES),
    "v4: kwargs, client from the container": lambda client: v6_algorithm.master(experiment=EXPERIMENT, names=NAMES),
    "v3: client and table in front": lambda client: v6_algorithm.master(
        client, tables()["berlin"], EXPERIMENT, names=NAMES
    ),
    "v3: client and several tables": lambda client: v6_algorithm.master(
        client, list(tables().values()), experiment=EXPERIMENT, names=NAMES
    ),
    "v3: client in front, no table": lambda client: v6_algorithm.master(client, None, EXPERIMENT, names=NAMES),
    "v3: client in front, plain": lambda client: v6_algorithm.master(client, **PLAIN, names=NAMES),
    "v3: client and table in front, plain": lambda client: v6_algorithm.master(
        client, tables()["berlin"], **PLAIN, names=NAMES
    ),
    "v4: plain, client from the container": lambda client: v6_algorithm.master(**PLAIN, **EMPTY, names=NAMES),
    "v4: plain over an experiment": lambda client: v6_algorithm.master(
        experiment={**EXPERIMENT, "rounds": 5, "training": {"batch_size": 4}}, **PLAIN, **EMPTY, names=NAMES
    ),
    "mock: plain": lambda client: v6_algorithm.master(**PLAIN, **EMPTY, names=NAMES, mock_client=client),
    "mock: args": lambda client: v6_algorithm.master(EXPERIMENT, names=NAMES, mock_client=client),
    "mock: kwargs": lambda client: v6_algorithm.master(experiment=EXPERIMENT, names=NAMES, mock_client=client),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_master_gives_one_result_however_it_is_called(client, monkeypatch, expected, call):
    monkeypatch.setattr(v4, "container_client", lambda: client)
    result = call(client)
    for key in ("parameters", "metrics", "history", "sites"):
        assert result[key] == expected[key], key


@pytest.mark.parametrize(
    "task_input",
    [{"args": [EXPERIMENT]}, {"kwargs": {"experiment": EXPERIMENT}}, {"kwargs": PLAIN | EMPTY}],
    ids=["args", "kwargs", "plain"],
)
def test_master_as_a_task_of_the_mock_client(client, task_input):
    task = client.task.create(input_={"method": "master", **task_input}, organizations=[0])
    (result,) = client.wait_for_results(task["id"])
    assert result["status"] == "completed"
    assert list(result["sites"]) == ["mock-0", "mock-1", "mock-2"]


def test_master_runs_on_the_organisations_that_are_asked_for(client):
    result = v6_algorithm.master(client, EXPERIMENT, organizations=[0, "mock-2"])
    assert list(result["sites"]) == ["mock-0", "mock-2"]


def test_an_organisation_that_is_not_there_is_named_with_those_that_are(client):
    with pytest.raises(FederationError, match=r"organisation 7 is not in the collaboration; it has: 0 \(mock-0\), 1"):
        v6_algorithm.master(client, EXPERIMENT, organizations=[7])


def test_master_writes_progress_to_the_log(client, capsys):
    v6_algorithm.master(client, {**EXPERIMENT, "rounds": 2}, names=NAMES)
    told = capsys.readouterr().out.splitlines()
    lines = [line for line in told if not line.startswith("scores {")]
    # Those for programs come before their round's, three a run of two rounds.
    assert [told[place + 1] for place, line in enumerate(told) if line not in lines] == [lines[4], *lines[8:10]]
    assert lines[0] == "prepared: 3 sites take part: amsterdam, berlin, cairo"
    sites = [f"round 1: {name}: train loss 0." for name in ("amsterdam", "berlin", "cairo")]
    assert [line.startswith(site) for line, site in zip(lines[1:4], sites, strict=True)] == [True] * 3
    assert lines[4].startswith("round 1/2: train loss 0.")
    assert lines[5].startswith("round 2: amsterdam: train loss 0.")
    assert "; validation loss 0." in lines[5]
    assert "; model of round 1: validation loss 0." in lines[8]
    assert lines[9].startswith("round 2/2: model of round 2: validation loss 0.")
    assert lines[10:] == ["tested"]


def test_centralised_is_refused_since_rows_never_leave_a_node(client):
    with pytest.raises(ExperimentError, match="mode: centralised pools the rows, which never leave a node; allowed"):
        v6_algorithm.master(client, {**EXPERIMENT, "mode": "centralised"})


def test_a_missing_experiment_is_named(client):
    with pytest.raises(ExperimentError, match="experiment: is required"):
        v6_algorithm.master(client)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: v6_algorithm.master(client, EXPERIMENT, EXPERIMENT),
        lambda client: v6_algorithm.master(client, EXPERIMENT, experiment=EXPERIMENT),
        lambda client: v6_algorithm.master(EXPERIMENT, experiment=EXPERIMENT),
    ],
)
def test_an_experiment_that_is_given_twice_is_refused(client, call):
    with pytest.raises(ExperimentError, match="experiment: is given twice"):
        call(client)


def test_what_stands_in_the_experiments_place_is_told_what_it_must_be(client):
    with pytest.raises(ExperimentError, match="experiment: must be a mapping of keys to values"):
        v6_algorithm.master(client, "heart.yaml", rounds=3)


def test_what_stands_in_the_clients_place_is_told_what_it_must_be():
    with pytest.raises(ExperimentError, match="client: a str is none; allowed: vantage6 4's AlgorithmClient"):
        v6_algorithm.master("heart.yaml")


def test_a_wrong_plain_argument_fails_before_any_site_is_asked(client, monkeypatch):
    monkeypatch.setattr(entry, "run_site", None)
    with pytest.raises(ExperimentError, match=r"^experiment: rounds: must be .* 1 \(given: 0\)$"):
        v6_algorithm.master(client, **{**PLAIN, "rounds": 0})


def test_a_wrong_experiment_fails_before_any_site_is_asked(client, monkeypatch):
    monkeypatch.setattr(entry, "run_site", None)
    with pytest.raises(ExperimentError, match="unknown key 'rouns'"):
        v6_algorithm.master(client, {**EXPERIMENT, "rouns": 3})


def test_names_that_are_not_by_organisation_id_are_refused(client):
    with pytest.raises(ExperimentError, match="names: must be organisation id to name, not 'berlin'"):
        v6_algorithm.master(client, EXPERIMENT, names={"berlin": "1"})


def test_without_a_client_outside_a_container_master_says_what_to_do(monkeypatch):
    monkeypatch.delenv("TOKEN_FILE", raising=False)
    with pytest.raises(ExperimentError, match="to run here: v6-algorithm run"):
        v6_algorithm.master(experiment=EXPERIMENT)


# -- the functions at a site ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_site_answers_the_same_wherever_its_table_comes_from(node, requests, method):
    function, message, frame = getattr(v6_algorithm, method), requests[method], pd.read_csv(node / "ward.csv")
    replies = [
        function(frame, message),
        function(frame, request=message),
        function(data=frame, request=message),
        function(message, mock_data=[frame]),
        function(request=message, mock_data=[frame]),
        function(message),
        function(request=message),
    ]
    for reply in replies:
        reply.pop("timing", None)
        assert reply["status"] == "ok"
        assert reply == replies[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_reply_is_json_without_nan_and_without_text_from_the_table(node, requests, method):
    reply = getattr(v6_algorithm, method)(request=requests[method])
    assert SECRET not in json.dumps(reply, allow_nan=False)


def test_a_site_logs_what_it_answered(node, capsys):
    v6_algorithm.RPC_prepare(request=request())
    assert capsys.readouterr().out == "prepare round 0: ok\n"


@pytest.mark.parametrize("strategy", ["agnostic", {"kind": "agnostic", "lr": 0.1}])
def test_a_site_logs_that_one_site_may_carry_all_weight(node, capsys, strategy):
    asked = request()
    asked["experiment"] = {**asked["experiment"], "strategy": strategy}
    v6_algorithm.RPC_prepare(request=asked)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "prepare round 0: ok"
    assert second.startswith("strategy agnostic weighs sites by how bad the model is there: one may come to carry all")


def test_only_the_database_that_was_asked_for_is_read(node):
    reply = v6_algorithm.RPC_prepare(request=request())
    assert reply["members"]["berlin"]["rows"] == 36


@pytest.mark.parametrize("labels", [None, "", "ward,other"])
def test_a_task_must_ask_for_one_database(node, monkeypatch, labels):
    if labels is None:
        monkeypatch.delenv("USER_REQUESTED_DATABASE_LABELS")
    else:
        monkeypatch.setenv("USER_REQUESTED_DATABASE_LABELS", labels)
    reply = v6_algorithm.RPC_prepare(request=request())
    assert (reply["status"], reply["kind"]) == ("error", "data")
    assert ("are two tables here" if labels == "ward,other" else "the task must ask for one") in reply["message"]
    assert {key: reply[key] for key in ("site", "round", "attempt")} == {"site": "berlin", "round": 0, "attempt": 1}


def test_a_node_without_the_database_says_so(node, monkeypatch):
    monkeypatch.setenv("USER_REQUESTED_DATABASE_LABELS", "images")
    reply = v6_algorithm.RPC_prepare(request=request())
    assert reply["message"] == "this node has no database 'images'"


def test_a_site_that_gets_no_request_says_who_writes_them(node):
    with pytest.raises(ExperimentError, match="request: is required; task `master`"):
        v6_algorithm.RPC_train()


# -- policy --------------------------------------------------------------------------------------------------------

# Ways a request might try: none of them is read.
OVERRULING = {
    "policy": {"minimum_rows": 1, "minimum_sites": 1, "allowed_columns": ".*"},
    "minimum_rows": 1,
    "minimum_sites": 1,
    "allowed_columns": ".*",
    "V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS": "1",
    "environment": {"V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS": "1", "V6_ALGORITHM_ALLOWED_COLUMNS_REGEX": ".*"},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS", "37", "this node has fewer rows than its minimum of 37"),
        ("V6_ALGORITHM_MINIMUM_ORGANIZATIONS", "4", "this node takes part with at least 4 sites, this run has 3"),
        ("V6_ALGORITHM_ALLOWED_COLUMNS_REGEX", "[abc]", "this node does not allow column 'y'"),
        ("V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS", "many", "must be whole numbers"),
    ],
)
def test_no_request_overrules_the_nodes_policy(node, monkeypatch, requests, method, variable, value, reason):
    monkeypatch.setenv(variable, value)
    for message in (requests[method], {**requests[method], **OVERRULING}):
        reply = getattr(v6_algorithm, method)(request=message)
        assert (reply["status"], reply["kind"]) == ("error", "refused")
        assert reason in reply["message"]
        assert reply.keys() == {"schema", "site", "round", "attempt", "status", "kind", "message"}


@pytest.mark.parametrize("method", ["RPC_train", "RPC_evaluate"])
def test_a_setup_cannot_smuggle_in_a_forbidden_feature(node, monkeypatch, requests, method):
    """The experiment names no features: the columns are the ones of the setup, which the request carries."""
    monkeypatch.setenv("V6_ALGORITHM_ALLOWED_COLUMNS_REGEX", "[aby]")
    reply = getattr(v6_algorithm, method)(request=requests[method])
    assert (reply["kind"], reply["message"]) == ("refused", "this node does not allow column 'c'")


# -- in vantage6's own wrapper -------------------------------------------------------------------------------------


def as_the_node_encodes(value):
    return base64.b32encode(value.encode()).decode().replace("=", "!")


def in_wrapper(folder, task_input, **environment):
    """Run `wrap_algorithm` as a container does; returns the process and the text of its output file."""
    (folder / "input").write_text(json.dumps(task_input))
    (folder / "output").touch()
    encoded = {"INPUT_FILE": str(folder / "input"), "OUTPUT_FILE": str(folder / "output"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", "from vantage6.algorithm.tools.wrap import wrap_algorithm; wrap_algorithm()"],
        env={
            "V6_ALGORITHM_POLICY": as_the_node_encodes("trusted"),
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PKG_NAME": "v6_algorithm",
            **{name: as_the_node_encodes(value) for name, value in encoded.items()},
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, (folder / "output").read_text()


@pytest.mark.slow
def test_the_wrapper_reads_the_nodes_table_and_writes_the_reply(tmp_path):
    tables()["berlin"].to_csv(tmp_path / "ward.csv", index=False)
    done, output = in_wrapper(
        tmp_path,
        {"method": "RPC_prepare", "args": [], "kwargs": {"request": request()}},
        USER_REQUESTED_DATABASE_LABELS="ward",
        WARD_DATABASE_URI=str(tmp_path / "ward.csv"),
        WARD_DATABASE_TYPE="csv",
        TEMPORARY_FOLDER=str(tmp_path / "tmp"),
    )
    assert done.returncode == 0, done.stderr
    reply = json.loads(output)
    assert reply["status"] == "ok"
    assert reply["members"]["berlin"]["columns"] == {
        **dict.fromkeys(["a", "b", "c", "y"], "numeric"),
        "remark": "text",
    }
    assert SECRET not in output + done.stdout + done.stderr


@pytest.mark.slow
def test_a_refusal_is_a_reply_and_not_a_crash(tmp_path):
    tables()["berlin"].assign(a=SECRET).drop(columns="y").to_csv(tmp_path / "ward.csv", index=False)
    done, output = in_wrapper(
        tmp_path,
        {"method": "RPC_prepare", "args": [request()]},
        USER_REQUESTED_DATABASE_LABELS="ward",
        WARD_DATABASE_URI=str(tmp_path / "ward.csv"),
        WARD_DATABASE_TYPE="csv",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(output)["message"].startswith("column 'y' (data.target) is not there")
    assert "Traceback" not in done.stderr
    assert SECRET not in output + done.stdout + done.stderr


@pytest.mark.slow
def test_a_wrong_value_in_a_form_ends_the_log_with_one_line_that_names_it(tmp_path):
    done, output = in_wrapper(tmp_path, {"method": "master", "kwargs": {**PLAIN, **EMPTY, "rounds": 0}})
    assert (done.returncode, output) == (1, "")
    told = [line for line in (done.stdout + done.stderr).splitlines() if "rounds: must be" in line]
    assert told[-1].endswith("experiment: rounds: must be greater than or equal to 1 (given: 0)")


def test_what_a_round_leaves_in_the_servers_database_is_told_of_large_models_alone(capsys):
    prepared = {"event": "prepared", "sites": ["a", "b", "c"], "rounds": 2}
    entry._say({**prepared, "model_bytes": 40_000})
    assert "database" not in capsys.readouterr().out
    entry._say({**prepared, "model_bytes": 37_500_000})
    assert "each round leaves up to 400 MB in the server's database: a model of 37.5 MB" in capsys.readouterr().out


def test_a_request_beside_a_mapping_of_data_stays_the_request(monkeypatch):
    def refuse(*_):
        raise PolicyError("not this table")

    monkeypatch.setattr(entry, "guarded_source", refuse)
    found = entry.run_site("prepare", {"site": "other"}, {"site": "asked", "round": 7, "attempt": 2}, None)
    assert (found["kind"], found["site"], found["round"]) == ("refused", "asked", 7)
