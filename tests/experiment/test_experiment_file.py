"""Reading an experiment from YAML, and changing it from the command line."""

from __future__ import annotations

import pytest

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment


@pytest.fixture
def load(tmp_path):
    def load(text, *overrides):
        path = tmp_path / "heart.yaml"
        path.write_text(text, encoding="utf-8")
        return Experiment.load(path, list(overrides))

    return load


SMALLEST = "data: {target: num}\n"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("rounds=3", "rounds", 3),
        ("data.target=outcome", "data.target", "outcome"),
        ("data.positive=> 0", "data.positive", "> 0"),
        ("data.positive=>5", "data.positive", ">5"),
        ("data.positive=!= no", "data.positive", "!= no"),
        ("data.positive=== yes", "data.positive", "== yes"),
        ("data.exclude=[a, b]", "data.exclude", ["a", "b"]),
        ("model.hidden=[8]", "model.hidden", [8]),
        ("training.optimizer.lr=0.01", "training.optimizer.lr", 0.01),
        ("training.optimizer.lr=1e-2", "training.optimizer.lr", 0.01),
        ("stopping.patience=null", "stopping.patience", None),
        ("split={kind: kfold, folds: 10}", "split.folds", 10),
        (" rounds =3", "rounds", 3),
    ],
)
def test_an_override_sets_one_key(load, override, path, value):
    found = load(SMALLEST, override).resolved()
    for key in path.split("."):
        found = found[key]
    assert found == value


def test_the_last_override_of_a_key_wins(load):
    assert load(SMALLEST, "rounds=3", "rounds=4").rounds == 4


def test_an_override_beside_a_short_form_keeps_it(load):
    training = load(SMALLEST + "training: {optimizer: sgd}\n", "training.optimizer.lr=0.1").training
    assert (training.optimizer.kind, training.optimizer.options()) == ("sgd", {"lr": 0.1})
    sites = load(SMALLEST + "sites: {va: va.db}\n", "sites.va.query=SELECT 1").sites
    assert (sites["va"].uri, sites["va"].query) == ("va.db", "SELECT 1")


def test_a_central_table_named_in_short_keeps_its_name_when_a_key_is_set_beside_it(load):
    central = load(SMALLEST + "central: mine.db\n", "central.query=SELECT 1").central
    assert (central.uri, central.query) == ("mine.db", "SELECT 1")


def test_an_override_leaves_the_rest_of_its_section_alone(load):
    data = load("data: {target: num, group: patient}\n", "data.scaling.scope=site").data
    assert (data.group, data.scaling.kind, data.scaling.scope) == ("patient", "standard", "site")


@pytest.mark.parametrize("override", ["rounds", "=3", "", "rounds: 3"])
def test_an_override_that_is_no_assignment_is_refused(load, override):
    with pytest.raises(ExperimentError, match=r"--set .*must be key.path=value"):
        load(SMALLEST, override)


def test_an_override_that_is_no_yaml_is_refused(load):
    with pytest.raises(ExperimentError, match=r"--set data.exclude=\[a: the value is not valid YAML"):
        load(SMALLEST, "data.exclude=[a")


def test_an_override_of_a_key_that_does_not_exist_is_refused_as_in_the_file(load):
    with pytest.raises(ExperimentError, match=r"unknown key 'epochs'.*allowed: local_epochs"):
        load(SMALLEST, "training.epochs=3")


def test_a_number_with_an_exponent_and_no_point_is_a_number(load):
    # YAML 1.1, which PyYAML reads, takes 1e-3 for text.
    assert load(SMALLEST + "training: {optimizer: {kind: adam, lr: 1e-3}}\n").training.optimizer.options()["lr"] == 1e-3


@pytest.mark.parametrize("text", ["-1e3", "2.5E+2", "1.e-2", ".5e1"])
def test_every_spelling_of_an_exponent_is_a_number(load, text):
    assert load(SMALLEST, f"data.missing={{kind: constant, value: {text}}}").data.missing.value == float(text)


def test_a_key_given_twice_is_refused_and_not_overwritten(load):
    with pytest.raises(ExperimentError, match=r"key 'training' is given twice.*line 3"):
        load(SMALLEST + "training: {batch_size: 8}\ntraining: {local_epochs: 2}\n")


def test_merge_keys_of_yaml_still_work(load):
    text = "data: &base {target: num, group: patient}\n"
    assert load(text, "data={target: outcome}").data.target == "outcome"
    loaded = load("sites:\n  a: &table {uri: a.db, query: SELECT 1}\n  b: {<<: *table, uri: b.db}\n" + SMALLEST)
    assert (loaded.sites["b"].uri, loaded.sites["b"].query) == ("b.db", "SELECT 1")


@pytest.mark.parametrize(
    "text",
    ["data: {target: num", "data: [", "\tdata: 3", "data: !!python/object:os.system {}", "a\0b"],
    ids=["brace", "bracket", "tab", "python", "nul"],
)
def test_what_is_not_yaml_is_refused_with_the_files_name(load, text):
    with pytest.raises(ExperimentError, match=r"heart.yaml: is not valid YAML"):
        load(text)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "heart.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ExperimentError, match="is not valid YAML"):
        Experiment.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ExperimentError, match=r"nowhere.yaml: cannot be read: No such file"):
        Experiment.load(tmp_path / "nowhere.yaml")


def test_an_empty_file_is_refused(load):
    with pytest.raises(ExperimentError, match=r"heart.yaml: must be a mapping"):
        load("")
    with pytest.raises(ExperimentError, match="is not a mapping"):
        load("", "rounds=3")


def test_a_refusal_begins_with_the_files_name(load):
    with pytest.raises(ExperimentError, match=r"^heart.yaml: rounds: "):
        load(SMALLEST + "rounds: 0\n")


def test_a_yaml_file_that_repeats_itself_without_end_is_refused(tmp_path):
    """Nine lists of nine aliases each are a billion entries; so deep a list would end Python's stack."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 12)}]" for n in range(1, 10)]
    for text in ("\n".join(lines), "[" * 100_000, "a: " + "[" * 40 + "]" * 40):
        (tmp_path / "bomb.yaml").write_text(text)
        with pytest.raises(ExperimentError, match=r"bomb.yaml: is not valid YAML: .*(deep|aliases)"):
            Experiment.load(tmp_path / "bomb.yaml")
