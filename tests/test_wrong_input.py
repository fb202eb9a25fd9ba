"""Wrong input: one clear message, the right exit code, no traceback, and never a value from the data.

Every hospital's table here has a column of secrets, and `explained` looks for them in all that a run leaves.
"""

from __future__ import annotations

from importlib import import_module

import pytest
from hospitals import COULD_NOT_GO_ON, FINE, SECRET, WRONG_EXPERIMENT, command, explained, read_result, tables, write

BERLIN = tables()["berlin"]
SECRET_CELL = [SECRET, *BERLIN["a"][1:]]


def run(tmp_path, *options, files=None, **changes):
    return command("run", write(tmp_path, files, **changes), "--out", tmp_path / "out", *options)


# -- the experiment is wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"rouns": 3}, ["experiment.yaml: unknown key 'rouns' (did you mean 'rounds'?); allowed: name, seed, mode"]),
        ({"training": {"lr": 1}}, ["experiment.yaml: training: unknown key 'lr'", "allowed: local_epochs"]),
        ({"rounds": 0}, ["experiment.yaml: rounds: must be greater than or equal to 1 (given: 0)"]),
        ({"mode": "central"}, ["mode: must be 'federated', 'centralised' or 'local' (given: 'central')"]),
        (
            {"model": "mpl"},
            ["experiment.yaml: model.kind: unknown value 'mpl'; allowed: linear, logistic, mlp"],
        ),
        ({"data": {}}, ["experiment.yaml: data.target: is required"]),
        ({"sites": None}, ["sites: is required to run here"]),
        ({"sites": {}}, ["experiment.yaml: sites: no site is named"]),
        ({"participation": {"minimum": 9}}, ["participation.minimum: 9 sites are needed, the federation has 3"]),
        ({"stopping": {"monitor": "r2"}}, ["stopping.monitor is 'r2', which problem classification does not measure"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(tmp_path, changes, parts):
    explained(run(tmp_path, **changes), WRONG_EXPERIMENT, *parts)
    assert not (tmp_path / "out").exists(), "nothing was started, so nothing is left"


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("rounds", "--set rounds: must be key.path=value, such as training.optimizer.lr=0.01"),
        ("=3", "--set =3: must be key.path=value"),
        ("rounds=[1", "--set rounds=[1: the value is not valid YAML"),
        ("rounds=many", "rounds: must be a whole number"),
        ("training.optimizer.lrr=1", "training.optimizer: unknown option 'lrr' (did you mean 'lr'?) of Adam; allowed:"),
        ("trainin.batch_size=4", "unknown key 'trainin' (did you mean 'training'?)"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, part):
    explained(run(tmp_path, "--set", override), WRONG_EXPERIMENT, part)


def test_a_file_that_is_not_yaml_is_named_with_the_line(tmp_path):
    file = write(tmp_path)
    file.write_text("data:\n  target: [y\nrounds: 3\n")
    explained(command("run", file), WRONG_EXPERIMENT, f"{file}: is not valid YAML", "line 3")


def test_a_list_is_no_experiment(tmp_path):
    file = write(tmp_path)
    file.write_text("- data\n")
    explained(command("run", file), WRONG_EXPERIMENT, "experiment.yaml: must be a mapping of keys to values")


@pytest.mark.parametrize(("name", "why"), [("nowhere.yaml", "cannot be read: "), (".", "is a folder; ")])
def test_an_experiment_file_that_cannot_be_read_is_named(tmp_path, name, why):
    explained(command("run", tmp_path / name), WRONG_EXPERIMENT, f"{tmp_path / name}: {why}")


def test_an_unknown_engine_is_named_with_the_known_ones(tmp_path):
    explained(
        run(tmp_path, "--engine", "docker"),
        WRONG_EXPERIMENT,
        "--engine docker: is not known; allowed: local, wire, mock, ray",
    )


@pytest.mark.parametrize("where", ["taken", "taken/below", "/proc/below"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path, where, monkeypatch):
    monkeypatch.setattr(import_module("v6_algorithm.coordinator.master"), "run", None)
    (tmp_path / "taken").write_text("a file")
    result = command("run", write(tmp_path), "--out", tmp_path / where)
    explained(result, WRONG_EXPERIMENT, f"--out {tmp_path / where}: cannot be written: ")


# -- a file of a site is wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["local", "mock"])
@pytest.mark.parametrize(
    ("berlin", "changes", "parts"),
    [
        pytest.param(
            BERLIN.drop(columns="y"),
            {},
            ["column 'y' (data.target) is not there; it has: a, b, c, remark"],
            id="no target column",
        ),
        pytest.param(BERLIN.assign(y=None), {}, ["column 'y' (data.target) is empty"], id="empty target"),
        pytest.param(
            BERLIN.assign(a=SECRET_CELL),
            {},
            ["column 'a' holds numbers beside a few words, at site 'amsterdam' it holds numbers", "data.exclude"],
            id="text among numbers",
        ),
        pytest.param(
            BERLIN.assign(a=SECRET_CELL),
            {"data": {"target": "y", "features": ["a", "b"]}},
            ["column 'a' holds text where numbers are expected"],
            id="text in a named feature",
        ),
        pytest.param(
            BERLIN.drop(columns="b"),
            {"data": {"target": "y", "features": ["a", "b"]}},
            ["column 'b' (data.features) is not there; it has: a, c, y, remark"],
            id="no feature column",
        ),
        pytest.param(
            BERLIN.assign(y=SECRET),
            {"problem": "regression"},
            ["column 'y' (data.target) holds text; regression needs numbers"],
            id="text as a regression's target",
        ),
        pytest.param(
            BERLIN.assign(y=SECRET),
            {"data": {"target": "y", "positive": "> 0"}},
            ["column 'y' (data.target) holds text, data.positive is '> 0'"],
            id="text compared with a number",
        ),
        pytest.param(
            BERLIN.assign(part=SECRET),
            {"data": {"target": "y", "split_column": "part"}, "split": {"kind": "given"}},
            ["data.split_column"],
            id="unknown parts",
        ),
        pytest.param(
            BERLIN.assign(a=[None, *BERLIN["a"][1:]]),
            {"data": {"target": "y", "missing": "error"}},
            ["column 'a' has empty cells, and data.missing is error"],
            id="empty cells",
        ),
        pytest.param("", {}, ["the file berlin.csv is empty"], id="empty file"),
        pytest.param("a,b,c,y,remark\n", {}, ["it has column names but no rows"], id="only a header"),
        pytest.param('a,b\n1,2\n"' + SECRET + ",1,2,3\n", {}, ["berlin.csv cannot be read as csv"], id="broken csv"),
    ],
)
def test_a_table_that_does_not_fit_is_named_with_its_site(tmp_path, engine, berlin, changes, parts):
    files = {name: frame.assign(part="train") for name, frame in tables().items()}
    result = run(tmp_path, "--engine", engine, files={**files, "berlin": berlin}, **changes)
    explained(result, WRONG_EXPERIMENT, "site 'berlin': ", *parts)
    assert not (tmp_path / "out").exists(), "nothing was started, so nothing is left"


def test_a_file_without_a_header_does_not_give_away_its_first_row(tmp_path):
    result = run(tmp_path, files={"berlin": BERLIN.to_csv(index=False, header=False)})
    explained(result, WRONG_EXPERIMENT, "site 'berlin': ")


def test_all_sites_that_do_not_fit_are_named_at_once(tmp_path):
    files = {name: frame.drop(columns="y") for name, frame in tables().items() if name != "cairo"}
    result = run(tmp_path, files=files)
    assert result.exit_code == WRONG_EXPERIMENT
    assert [line.split(":")[1] for line in result.output.splitlines()] == [" site 'amsterdam'", " site 'berlin'"]


def test_all_missing_files_are_named_with_the_place_looked_in(tmp_path):
    file = write(tmp_path)
    for name in ("amsterdam", "cairo"):
        (tmp_path / f"{name}.csv").unlink()
    result = command("run", file)
    assert result.exit_code == WRONG_EXPERIMENT
    assert result.output.splitlines() == [
        f"error: sites.{name}: there is no file {name}.csv (looked in {tmp_path})" for name in ("amsterdam", "cairo")
    ]


def test_a_database_with_a_password_is_never_quoted(tmp_path):
    ward = {"uri": f"postgresql://doctor:{SECRET}@127.0.0.1:1/ward", "query": "select 1"}
    result = run(tmp_path, sites={"amsterdam": "amsterdam.csv", "berlin": ward})
    explained(result, WRONG_EXPERIMENT, "site 'berlin': the database cannot be read as sql")


def test_more_folds_than_rows_at_one_site_is_named(tmp_path):
    result = run(tmp_path, files={"berlin": BERLIN.head(16)}, split={"kind": "kfold", "folds": 20})
    explained(result, WRONG_EXPERIMENT, "site 'berlin': a kfold split needs 20 or more rows")


# -- no error, but told --------------------------------------------------------------------------------------------


def test_a_class_at_one_site_only_is_a_note(tmp_path):
    berlin = BERLIN.assign(y=[2] * 12 + BERLIN["y"].tolist()[12:])
    result = run(tmp_path, files={"berlin": berlin})
    explained(result, FINE, "note: class 3 of 3 is seen at one site only: berlin", folder=tmp_path / "out")


def test_a_site_with_one_class_is_a_note(tmp_path):
    result = run(tmp_path, files={"berlin": BERLIN.assign(y=1)})
    explained(result, FINE, "note: site 'berlin' has rows of one class only", folder=tmp_path / "out")
    assert read_result(tmp_path / "out")["metrics"]["test"]["sites"]["berlin"]["auroc"] is None


def test_rows_without_a_target_are_left_out_with_a_note(tmp_path):
    result = run(tmp_path, files={"berlin": BERLIN.assign(y=[None, *BERLIN["y"][1:]])})
    explained(result, FINE, "note: site 'berlin': some rows have no target, and are left out", folder=tmp_path / "out")


def test_identifiers_that_group_rows_stay_at_the_site(tmp_path):
    result = run(tmp_path, data={"target": "y", "group": "remark"})
    assert explained(result, FINE, folder=tmp_path / "out")


# -- what a node's owner allows ------------------------------------------------------------------------------------


def test_a_site_with_too_few_rows_is_left_out_and_named_while_there_is_a_quorum(tmp_path):
    result = run(tmp_path, files={"berlin": BERLIN.head(9)})
    reason = "refused: this node has fewer rows than its minimum of 10"
    explained(result, FINE, f"note: site 'berlin' took no part: {reason}", folder=tmp_path / "out")
    content = read_result(tmp_path / "out")
    assert list(content["sites"]) == ["amsterdam", "cairo"]
    assert content["participation"][0]["missing"] == {"berlin": reason}


def test_baselines_are_of_the_sites_that_took_part(tmp_path):
    result = run(tmp_path, "--baselines", files={"berlin": BERLIN.head(9)})
    explained(result, FINE, "note: site 'berlin' took no part", folder=tmp_path / "out")
    for baseline in read_result(tmp_path / "out")["baselines"].values():
        assert list(baseline["metrics"]["test"]["sites"]) == ["amsterdam", "cairo"]


def test_a_site_with_too_few_rows_ends_the_run_where_it_is_needed(tmp_path):
    result = run(tmp_path, files={"berlin": BERLIN.head(9)}, participation={"minimum": 3})
    explained(
        result,
        COULD_NOT_GO_ON,
        "2 of 3 sites answered, 3 are needed (participation.minimum)",
        "berlin: refused: this node has fewer rows than its minimum of 10",
    )
    assert not (tmp_path / "out").exists()


def test_the_minimum_of_rows_is_the_node_owners(tmp_path, monkeypatch):
    monkeypatch.setenv("V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS", "31")
    result = run(tmp_path)
    explained(result, FINE, "note: site 'cairo' took no part: refused: this node has fewer rows than its minimum of 31")


@pytest.mark.parametrize("engine", ["local", "mock"])
def test_a_column_that_the_policy_forbids_is_named(tmp_path, monkeypatch, engine):
    monkeypatch.setenv("V6_ALGORITHM_ALLOWED_COLUMNS_REGEX", "[abc]")
    result = run(tmp_path, "--engine", engine)
    explained(result, COULD_NOT_GO_ON, "berlin: refused: this node does not allow column 'y'")


def test_a_forbidden_column_that_nobody_asked_for_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("V6_ALGORITHM_ALLOWED_COLUMNS_REGEX", "[aby]")
    explained(run(tmp_path), FINE, folder=tmp_path / "out")
    assert read_result(tmp_path / "out")["preparation"]["features"] == ["a", "b"]


@pytest.mark.parametrize("engine", ["local", "mock"])
@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS", "ten", "must be whole numbers"),
        ("V6_ALGORITHM_MINIMUM_ORGANIZATIONS", "2.5", "must be whole numbers"),
        ("V6_ALGORITHM_ALLOWED_COLUMNS_REGEX", "(", "is not a regular expression"),
    ],
)
def test_a_policy_that_cannot_be_read_allows_nothing(tmp_path, monkeypatch, engine, variable, value, part):
    monkeypatch.setenv(variable, value)
    explained(run(tmp_path, "--engine", engine), WRONG_EXPERIMENT, variable, part)


# -- training that diverges ----------------------------------------------------------------------------------------

DIVERGING = {"problem": "regression", "model": "linear", "training": {"optimizer": {"kind": "sgd", "lr": 1e30}}}


def test_training_that_diverges_at_once_is_named_with_the_learning_rate(tmp_path):
    training = {**DIVERGING["training"], "local_epochs": 50}
    result = run(tmp_path, **{**DIVERGING, "training": training})
    explained(
        result,
        COULD_NOT_GO_ON,
        "round 1: 0 of 3 sites answered, 2 are needed",
        "berlin: diverged: training diverged in round 1: the loss or the model is not finite; "
        "lower training.optimizer.lr (given: 1e+30)",
    )


def test_training_that_diverges_later_keeps_what_was_done(tmp_path):
    result = run(tmp_path, **DIVERGING)
    explained(
        result,
        COULD_NOT_GO_ON,
        "stopped early, what was done is kept: round 2: 0 of 3 sites answered",
        "berlin: diverged: training diverged in round 2",
        folder=tmp_path / "out",
    )
    content = read_result(tmp_path / "out")
    assert (content["status"], content["rounds_run"]) == ("stopped", 1)
    assert (tmp_path / "out" / "model.safetensors").exists()
