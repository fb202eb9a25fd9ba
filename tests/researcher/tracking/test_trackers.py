"""A run in TensorBoard and in W&B: every number once, at its round, by site; and only where it was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from hospitals import ROWS, command, read_result, write

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.cli import connection
from v6_algorithm.researcher.task import Look
from v6_algorithm.researcher.tracking import POOLED, Tracking, open_tracking

EXPERIMENT = Experiment.parse({"name": "study", "sites": {"a": "secret/a.csv"}, "data": {"target": "y"}}).resolved()


class Notebook:
    """A tracker that remembers."""

    def __init__(self):
        self.lines, self.best = [], None

    def log(self, scope, part, metric, value, round):
        self.lines.append((scope, part, metric, round, value))

    def flush(self):
        pass

    def about(self, experiment):
        pass

    def close(self, best):
        self.best = best


@pytest.fixture
def tracked(tables, make_experiment, run_locally):
    """Return a function that runs an experiment with a notebook; gives both."""

    def go(**changes):
        notebook = Notebook()
        tracking = Tracking([notebook])
        result = run_locally(make_experiment(**changes), tables, on_event=tracking.on_event)
        tracking.finish(result)
        tracking.close()
        return notebook, result

    return go


def values(notebook, scope, part, metric):
    return [(line[3], line[4]) for line in notebook.lines if line[:3] == (scope, part, metric)]


@pytest.mark.parametrize("changes", [{}, {"split": {"kind": "kfold", "folds": 3}}, {"mode": "local"}])
def test_every_number_is_written_once(tracked, changes):
    notebook, _ = tracked(**changes)
    keys = [line[:4] for line in notebook.lines]
    assert len(set(keys)) == len(keys)
    assert {"train", "validation", "test"} == {line[1] for line in notebook.lines}


def test_each_rounds_numbers_are_those_of_its_history(tracked):
    """A round trains one model and validates the one before: the events come a round later than what they tell."""
    notebook, result = tracked()
    for name in ("train_loss", "validation_loss", "validation_auroc"):
        expected = list(zip(result["history"]["round"], result["history"][name], strict=True))
        assert values(notebook, POOLED, *name.split("_")) == expected


def test_every_site_has_its_own_curve(tracked):
    notebook, result = tracked()
    for site in ("amsterdam", "berlin", "cairo"):
        assert [round for round, _ in values(notebook, site, "train", "loss")] == [1, 2, 3, 4]
        assert [round for round, _ in values(notebook, site, "validation", "auroc")] == [1, 2, 3, 4]
    rows = {site: counts["n"] for site, counts in result["sites"].items()}
    weighted = sum(
        dict(values(notebook, site, "validation", "accuracy"))[4] * n["validation"] for site, n in rows.items()
    )
    pooled = dict(values(notebook, POOLED, "validation", "accuracy"))[4]
    assert pooled == pytest.approx(weighted / sum(n["validation"] for n in rows.values()))


def test_the_test_is_written_at_the_round_of_the_kept_model(tracked):
    notebook, result = tracked()
    for scope, scores in {POOLED: result["metrics"]["test"]["pooled"], **result["metrics"]["test"]["sites"]}.items():
        assert values(notebook, scope, "test", "auroc") == [(result["best_round"], scores["auroc"])]


# Folds that stop early leave the mean of the later rounds; in mode local it is known only in the end.
LAYOUTS = [
    {},
    {"split": {"kind": "kfold", "folds": 3}, "rounds": 8, "stopping": {"patience": 1, "min_delta": 0.05}},
    {"mode": "local", "stopping": {"patience": 1}},
]


@pytest.mark.parametrize("changes", LAYOUTS, ids=["one split", "folds", "local"])
def test_what_was_seen_live_is_the_result(tracked, changes):
    notebook, result = tracked(**changes)
    later = Notebook()
    tracking = Tracking([later])
    tracking.finish(result)
    tracking.close()
    assert sorted(later.lines) == sorted(notebook.lines)
    assert later.best == notebook.best
    assert later.best["auroc"] == max(result["history"]["validation_auroc"])


def test_the_result_keeps_what_each_site_measured(tables, make_experiment, run_locally):
    result = run_locally(make_experiment(), tables)
    history = result["site_history"]["berlin"]
    assert history["round"] == [1, 2, 3, 4]
    assert {len(column) for column in history.values()} == {4}
    assert history.keys() >= {"train_loss", "validation_loss", "validation_auroc"}


# -- which and where -----------------------------------------------------------------------------------------------


def test_an_unknown_tracker_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ExperimentError, match="--track mlflow: is not known; allowed: tensorboard, wandb"):
        open_tracking(["mlflow"], tmp_path, EXPERIMENT).__enter__()


@pytest.mark.parametrize(
    ("kind", "module", "extra"), [("tensorboard", "board", "tracking"), ("wandb", "wandb", "wandb")]
)
def test_a_tracker_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch, kind, module, extra):
    monkeypatch.setitem(sys.modules, f"v6_algorithm.researcher.tracking.{module}", None)
    with pytest.raises(
        ExperimentError, match=rf"--track {kind}: is not installed: pip install 'v6-algorithm\[{extra}\]'"
    ):
        open_tracking([kind], tmp_path, EXPERIMENT).__enter__()


@pytest.mark.slow
def test_a_run_without_trackers_imports_none(tmp_path):
    file = write(tmp_path)
    code = f"""
import sys
from v6_algorithm.researcher.cli import app
app(["run", {str(file)!r}, "--out", {str(tmp_path / "out")!r}, "--quiet"], standalone_mode=False)
print([name for name in ("tensorboard", "wandb", "pyinstrument", "torch.utils.tensorboard") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"
    assert not (tmp_path / "out" / "tensorboard").exists()


def test_track_is_refused_before_anything_is_trained(tmp_path):
    done = command("run", write(tmp_path), "--out", tmp_path / "out", "--track", "excel")
    assert done.exit_code == 2
    assert "--track excel" in done.output
    assert not (tmp_path / "out").exists()


# -- TensorBoard ---------------------------------------------------------------------------------------------------


def read_board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_each_site_and_all_together_by_round(tmp_path):
    """As PyFed's event files, by client and round, did; and validation too, which they had not."""
    pytest.importorskip("tensorboard")
    done = command("run", write(tmp_path), "--out", tmp_path / "out", "--track", "tensorboard")
    assert done.exit_code == 0, done.output
    folder, result = tmp_path / "out" / "tensorboard", read_result(tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {*ROWS, "pooled"}
    for scope, history in {"pooled": result["history"], **result["site_history"]}.items():
        found = read_board(folder / scope)
        for tag, name in (("train/loss", "train_loss"), ("validation/auroc", "validation_auroc")):
            assert [step for step, _ in found[tag]] == history["round"]
            assert [value for _, value in found[tag]] == pytest.approx(history[name], rel=1e-6)
        assert "test/auroc" in found


def test_a_sites_name_is_no_path(tmp_path):
    pytest.importorskip("tensorboard")
    with open_tracking(["tensorboard"], tmp_path / "out", EXPERIMENT) as tracking:
        tracking.on_event(
            {"event": "round", "round": 1, "validated_round": 0,
             "scores": {"pooled": {}, "sites": {"../../evil": {"train_loss": 1.0}, "..": {"train_loss": 2.0}}}}
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(list((tmp_path / "out" / "tensorboard").rglob("events*"))) == 2


# -- Weights & Biases ----------------------------------------------------------------------------------------------


@pytest.fixture
def stub(monkeypatch):
    """Stand in for wandb; gives what `init` was called with and what was logged."""
    seen = {"logged": [], "summary": {}, "finished": False, "metrics": [], "config": {}}

    class Run:
        summary = seen["summary"]
        config = types.SimpleNamespace(update=lambda settings, allow_val_change: seen["config"].update(settings))

        def log(self, row):
            seen["logged"].append(row)

        def define_metric(self, *arguments, **options):
            seen["metrics"].append((arguments, options))

        def finish(self):
            seen["finished"] = True

    module = types.ModuleType("wandb")
    module.Error = type("Error", (Exception,), {})
    module.init = lambda **options: seen.update(init=options) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delitem(sys.modules, "v6_algorithm.researcher.tracking.wandb", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    seen["module"] = module
    yield seen
    sys.modules.pop("v6_algorithm.researcher.tracking.wandb", None)


def test_wandb_gets_the_keys_that_dermatologys_users_know(tmp_path, stub):
    done = command("run", write(tmp_path), "--out", tmp_path / "out", "--track", "wandb")
    assert done.exit_code == 0, done.output
    keys = {key for row in stub["logged"] for key in row}
    assert keys >= {
        f"berlin/{name}" for name in ("training_loss", "Validation AUC Score", "Validation Acc", "Validation Loss")
    }
    assert keys >= {"Server/loss", "Server/accuracy", "Server/auc", "Server/test_f1", "cairo/validation_f1", "round"}
    result = read_result(tmp_path / "out")
    assert stub["summary"] == {"best_auc_score": max(result["history"]["validation_auroc"])}
    assert [row["Server/auc"] for row in stub["logged"] if "Server/auc" in row] == result["history"]["validation_auroc"]
    assert stub["finished"]


def test_wandb_counts_in_rounds_for_validation_comes_later_than_training(tmp_path, stub):
    with open_tracking(["wandb"], tmp_path, EXPERIMENT):
        pass
    assert stub["metrics"] == [(("*",), {"step_metric": "round"})]


def test_dermatology_bug_no_account_is_hard_coded(tmp_path, stub, monkeypatch):
    """server_advanced_mp.py always logged to its authors' account."""
    with open_tracking(["wandb"], tmp_path, EXPERIMENT):
        pass
    assert "entity" not in stub["init"]
    assert stub["init"]["project"] == "v6-algorithm"
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    with open_tracking(["wandb"], tmp_path, EXPERIMENT):
        pass
    assert stub["init"]["project"] == "ours"


def test_wandb_is_not_told_where_the_data_are(tmp_path, stub):
    with open_tracking(["wandb"], tmp_path, EXPERIMENT):
        pass
    assert stub["init"]["config"]["data"]["target"] == "y"
    assert "secret" not in str(stub["init"]["config"])


def test_wandb_without_an_account_says_how_to_stay_offline(tmp_path, stub):
    def refuse(**_):
        raise stub["module"].Error("no API key")

    stub["module"].init = refuse
    with pytest.raises(ExperimentError, match="--track wandb: no API key; offline: set WANDB_MODE=offline"):
        open_tracking(["wandb"], tmp_path, EXPERIMENT).__enter__()


def test_a_run_that_fails_closes_its_trackers(tmp_path, stub):
    with pytest.raises(RuntimeError), open_tracking(["wandb"], tmp_path, EXPERIMENT):
        raise RuntimeError
    assert stub["finished"]


@pytest.mark.slow
def test_wandb_itself_takes_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = command("run", write(tmp_path), "--out", tmp_path / "out", "--track", "wandb")
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))


# -- a run on a network --------------------------------------------------------------------------------------------


@pytest.fixture
def network(monkeypatch, tables, make_experiment, run_locally):
    """Stand in for a server whose task 7 has ended; gives its result."""
    result = run_locally(make_experiment(), tables)
    ended = types.SimpleNamespace(
        id=7,
        name="heart",
        image="",
        look=lambda: Look("completed", [], None, {}),
        result=lambda: json.loads(json.dumps(result)),
    )
    monkeypatch.setattr(connection, "log_in", lambda *_: types.SimpleNamespace(task=lambda id: ended))
    return result


AT = ("--server", "http://localhost:1", "--username", "anna")


def test_a_network_run_is_in_tensorboard_once_its_result_is_there(tmp_path, network):
    pytest.importorskip("tensorboard")
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--track", "tensorboard")
    assert done.exit_code == 0, done.output
    assert read_result(tmp_path / "out")["history"] == network["history"]
    found = read_board(tmp_path / "out" / "tensorboard" / "berlin")
    assert [value for _, value in found["train/loss"]] == pytest.approx(network["site_history"]["berlin"]["train_loss"])


def test_a_stopped_network_run_is_shown_too_and_still_ends_with_3(tmp_path, network, stub):
    network |= {"status": "stopped", "stopped_because": "too few sites"}
    done = command("watch", 7, *AT, "--out", tmp_path / "out", "--track", "wandb")
    assert done.exit_code == 3
    assert [row["Server/auc"] for row in stub["logged"] if "Server/auc" in row] == network["history"][
        "validation_auroc"
    ]
    assert stub["init"]["name"] == "heart"
    # Which experiment it was is known with the result.
    assert stub["config"]["data"]["target"] == "y"
    assert "sites" not in stub["config"]
    assert stub["finished"]


@pytest.mark.parametrize("word", ["submit", "watch"])
def test_a_tracker_that_is_not_known_is_refused_before_the_log_in(tmp_path, monkeypatch, word):
    monkeypatch.setattr(connection, "log_in", lambda *_: pytest.fail("logged in"))
    what = (write(tmp_path), "--image", "registry/v6") if word == "submit" else (7,)
    done = command(word, *what, *AT, "--track", "excel")
    assert done.exit_code == 2
    assert "--track excel: is not known" in done.output


def test_a_run_that_nobody_waits_for_cannot_be_tracked(tmp_path):
    done = command("submit", write(tmp_path), "--image", "v6", *AT, "--detach", "--track", "tensorboard")
    assert done.exit_code == 2
    assert "give it to `watch`" in done.output


def test_the_learning_rate_of_a_scheduler_is_tracked_by_round(tracked):
    training = {"optimizer": {"kind": "sgd", "lr": 0.4}, "scheduler": {"kind": "steplr", "step_size": 2, "gamma": 0.5}}
    notebook, _ = tracked(rounds=4, training=training)
    assert values(notebook, POOLED, "train", "lr") == [(1, 0.4), (2, 0.4), (3, 0.2), (4, 0.2)]


def test_a_tracker_on_a_full_disk_costs_no_run_and_is_told_once():
    class Full(Notebook):
        def flush(self):
            raise OSError(28, "No space left on device")

    told, notebook = [], Notebook()
    tracking = Tracking([Full(), notebook], told.append)
    event = {"event": "round", "round": 1, "validated_round": 0, "scores": {"pooled": {"train_loss": 0.5}, "sites": {}}}
    tracking.on_event(event)
    tracking.on_event({**event, "round": 2})
    assert told == ["--track: no more is written there: No space left on device"]
    assert [line[3:] for line in notebook.lines] == [(1, 0.5), (2, 0.5)]
