"""The command line: what it leaves in the folder, what it prints where, and its exit codes."""

from __future__ import annotations

import csv
import io
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import safetensors.torch
import yaml
from hospitals import ROWS, command, read_result, tables, write
from rich.console import Console

from tools.house import imported
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.cli import main, output
from v6_algorithm.researcher.cli import terminal as streams

ROOT = Path(__file__).parents[2]
FILES = {
    "meta_analysis.csv",
    "result.json",
    "history.csv",
    "metrics.csv",
    "metrics.json",
    "model.safetensors",
    "report.html",
}
# What DESIGN's contract names; what is more may be added, never renamed.
KEYS = {
    "schema", "experiment", "sites", "rounds_run", "best_round", "history", "metrics", "folds", "participation",
    "timing", "parameters",
}  # fmt: skip
SPLITS = {"ratio": {"kind": "ratio"}, "kfold": {"kind": "kfold", "folds": 3}}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in; `--quiet` of one test does not last to the next."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streams.out, "quiet", False)
    return tmp_path


def run(here, *options, name="out", files=None, **changes):
    result = command("run", write(here, files, **changes), "--out", here / name, "--force", *options)
    assert result.exit_code == 0, result.output
    return result, read_result(here / name)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 100 columns in place of standard output; returns what it shows."""
    screen = io.StringIO()
    monkeypatch.setattr(streams, "out", Console(file=screen, force_terminal=True, width=100, highlight=False))
    return lambda: re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


# -- what a run leaves ---------------------------------------------------------------------------------------------


def test_a_run_leaves_the_files_of_the_contract_and_no_others(here):
    run(here)
    assert {path.name for path in (here / "out").iterdir()} == FILES
    assert all(path.stat().st_size for path in (here / "out").iterdir())


@pytest.mark.parametrize("split", SPLITS)
def test_the_result_has_the_keys_of_the_contract_and_no_nan(here, split):
    _, result = run(here, split=SPLITS[split])
    assert result.keys() >= KEYS
    assert result["schema"] == 1
    assert result["rounds_run"] == 3
    assert set(result["sites"]) == set(ROWS)
    assert result["sites"]["berlin"]["n"].keys() >= {"train", "validation", "test"}
    assert result["history"].keys() >= {"round", "train_loss", "validation_loss"}
    assert result["metrics"]["validation"].keys() >= {"pooled", "sites"}
    assert result["metrics"]["test"].keys() >= {"pooled", "sites", "mean_over_sites"}
    for scope in (result["metrics"]["test"]["pooled"], result["metrics"]["test"]["sites"]["cairo"]):
        assert scope.keys() >= {"loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc", "auprc"}
    assert len(result["folds"]) == (3 if split == "kfold" else 0)
    assert all(entry.keys() >= {"round", "answered", "missing"} for entry in result["participation"])


def test_the_experiment_in_the_result_has_every_default_and_runs_again(here):
    _, first = run(here)
    (here / "again.yaml").write_text(yaml.safe_dump(first["experiment"]))
    assert first["experiment"]["strategy"]["kind"] == "fedavg"
    command("run", here / "again.yaml", "--out", here / "again")
    again = read_result(here / "again")
    for key in ("parameters", "metrics", "history"):
        assert again[key] == first[key]


def test_the_model_file_is_the_model_of_the_result(here):
    run(here)
    tensors = safetensors.torch.load_file(here / "out" / "model.safetensors")
    assert tensors["model.0.weight"].shape == (4, 3)


def test_history_has_a_line_a_round_and_metrics_the_numbers_of_the_result(here):
    _, result = run(here)
    with (here / "out" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["round"] for row in history] == ["1", "2", "3"]
    assert [float(row["train_loss"]) for row in history] == result["history"]["train_loss"]
    with (here / "out" / "metrics.csv").open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["part"], row["scope"], row["metric"]) == ("test", "pooled", "auroc")
        ]
    assert [float(row["value"]) for row in rows] == [result["metrics"]["test"]["pooled"]["auroc"]]


def test_without_out_results_go_to_a_new_folder_of_runs_named_after_the_experiment(here, monkeypatch):
    monkeypatch.setattr(output.time, "strftime", lambda form: "20261122-120000")
    file = write(here, name="my first/try")
    for _ in range(2):
        assert command("run", file, "--quiet").exit_code == 0
    folders = sorted(path.name for path in (here / "runs").iterdir())
    assert folders == ["my-first-try-20261122-120000", "my-first-try-20261122-120000-2"]


def test_files_of_sites_are_looked_for_beside_the_experiment_file(here):
    (here / "study").mkdir()
    assert command("run", write(here / "study"), "--out", here / "out").exit_code == 0


# -- options -------------------------------------------------------------------------------------------------------


def test_quiet_prints_nothing(here):
    result, _ = run(here, "--quiet")
    assert result.output == ""


def test_quiet_still_tells_errors(here):
    result = command("run", write(here, rouns=3), "--quiet")
    assert result.output.startswith("error: experiment.yaml: unknown key 'rouns'")


def test_set_changes_keys_of_the_file(here):
    _, result = run(here, "--set", "rounds=2", "--set", "model=logistic", "--set", "data.exclude=[c]")
    assert result["rounds_run"] == 2
    assert result["experiment"]["model"] == {"kind": "logistic"}
    assert result["preparation"]["features"] == ["a", "b"]


def test_baselines_are_added_with_the_same_rows(here):
    result, content = run(here, "--baselines")
    assert list(content["baselines"]) == ["centralised", "local"]
    wanted = {name: site["n"] for name, site in content["metrics"]["test"]["sites"].items()}
    for baseline in content["baselines"].values():
        assert {name: site["n"] for name, site in baseline["metrics"]["test"]["sites"].items()} == wanted
    for title in ("Federated", "Centralised", "Local"):
        assert title in result.output


def test_without_baselines_none_are_run(here):
    _, content = run(here)
    assert "baselines" not in content


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_the_mock_engine_gives_the_same_bits_as_the_local_one(here, split):
    changes = {"split": SPLITS[split], "model": {"kind": "mlp", "hidden": [4], "norm": "batch", "dropout": 0.3}}
    _, local = run(here, name="local", **changes)
    _, mock = run(here, "--engine", "mock", name="mock", **changes)
    for key in ("parameters", "metrics", "history", "folds", "sites", "best_round"):
        assert local[key] == mock[key], key


@pytest.mark.parametrize("mode", ["centralised", "local"])
def test_other_modes_run_from_the_same_file(here, mode):
    _, result = run(here, "--set", f"mode={mode}")
    assert set(result["metrics"]["test"]["sites"]) == set(ROWS)


def test_centralised_rows_need_the_local_engine(here):
    result = command("run", write(here, mode="centralised"), "--engine", "mock")
    assert result.exit_code == 2
    assert "mode: centralised needs --engine local" in result.output


def test_version_is_the_packages(here):
    result = command("--version")
    assert result.output == f"v6-algorithm {version('v6-algorithm')}\n"


def test_without_a_command_the_help_names_the_commands(here):
    result = command()
    for name in ("run", "validate", "Federated deep learning"):
        assert name in result.output


def test_an_interruption_before_training_is_told_without_a_traceback(here, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "load", interrupted)
    result = command("run", write(here))
    assert result.exit_code == 130
    assert result.output == "interrupted; what was written until then is kept\n"


def test_an_interruption_before_a_command_has_begun_shows_no_traceback(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("v6_algorithm.researcher.cli.commands.app", interrupted)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
    # Most of that time goes into reading the commands.
    first = set(imported(ROOT / "v6_algorithm/researcher/cli/__init__.py", ROOT, at_start_only=True))
    assert first <= {
        "__future__", "__future__.annotations", "sys", "typing", "typing.Any",
    }  # fmt: skip


def test_a_file_that_is_not_there_is_told_with_the_one_that_is_nearly_called_so(here):
    write(here)
    result = command("validate", here / "experimnt.yml")
    assert result.exit_code == 2
    assert f"(did you mean '{here / 'experiment.yaml'}'?)" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "experiment.yaml", "--policy", "strikt"], "--policy strikt: is not known; allowed: trusted, standard"),
        (["check", "experiment.yaml", "--policy", "strikt"], "--policy strikt: is not known; allowed: trusted, stand"),
        (["doctor", "--table", "berlin.csv"], "--table berlin.csv: goes with --policy"),
        (["resume", "nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_an_option_that_would_do_nothing_or_is_called_otherwise_is_refused_by_its_name(here, words, message):
    write(here)
    result = command(*words)
    assert result.exit_code == 2
    assert f"error: {message}" in result.output


def test_a_column_that_no_site_has_ends_a_description_as_it_ends_a_run(here):
    result = command("describe", write(here), "--by", "wrd")
    assert result.exit_code == 2
    assert "error: site 'berlin': column 'wrd' (evaluation.by) is not there" in result.output


# -- validate ------------------------------------------------------------------------------------------------------


def test_validate_says_what_the_model_will_see_and_trains_nothing(here):
    result = command("validate", write(here))
    assert result.exit_code == 0
    unused = (
        "note: left out, for they hold texts that never repeat, such as names of patients or samples: remark; "
        "data.categorical uses them all the same"
    )
    assert result.output == f"learned from: a, b, c\n{unused}\n{here / 'experiment.yaml'}: valid; 3 inputs, 2 classes\n"
    assert {path.suffix for path in here.iterdir()} == {".yaml", ".csv"}


def test_validate_tells_notes(here):
    berlin = tables()["berlin"].assign(y=1, patient_id=range(ROWS["berlin"]))
    result = command("validate", write(here, {"berlin": berlin}))
    assert result.exit_code == 0
    assert "note: left out as identifiers by their names: patient_id" in result.output
    assert "note: site 'berlin' has rows of one class only" in result.output


def test_validate_names_the_site_that_does_not_fit(here):
    result = command("validate", write(here, {"berlin": tables()["berlin"].drop(columns="y")}))
    assert result.exit_code == 2
    assert "error: site 'berlin': column 'y' (data.target) is not there" in result.output


def test_validate_without_sites_checks_the_experiment_alone(here):
    result = command("validate", write(here, sites=None))
    assert result.exit_code == 0
    assert "valid; it names no sites, so their data were not checked" in result.output


def test_validate_takes_overrides(here):
    result = command("validate", write(here), "--set", "rounds=none")
    assert result.exit_code == 2
    assert "rounds: must be a whole number" in result.output


# -- on a terminal -------------------------------------------------------------------------------------------------


def test_a_terminal_shows_progress_with_metrics_and_the_closing_table(here, terminal):
    run(here)
    shown = terminal()
    assert re.search(r"federated, 3 sites .* 3/3 0:00:\d\d validation loss 0\.\d{3}  auroc", shown)
    for row in ("pooled", "mean over sites", *ROWS, "AUROC"):
        assert row in shown
    assert (
        "result.json, history.csv, metrics.csv, metrics.json, report.html, meta_analysis.csv, model.safetensors to"
        in shown
    )


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_bar_stays_on_a_narrow_terminal(here, monkeypatch, width):
    screen = io.StringIO()
    monkeypatch.setattr(streams, "out", Console(file=screen, force_terminal=True, width=width, color_system=None))
    run(here)
    assert re.search(r"federated, 3 sites ━+ 3/3", screen.getvalue())


@pytest.mark.parametrize("mode", ["federated", "local"])
@pytest.mark.parametrize("shown_on", ["terminal", "file"])
def test_names_of_sites_are_printed_literally(here, request, mode, shown_on):
    """A site's name is someone else's text: '[/]' alone would end in an error of rich."""
    show = request.getfixturevalue("terminal") if shown_on == "terminal" else None
    names = ["[red]x", "[/]", "plain"]
    sites = dict(zip(names, ("amsterdam.csv", "berlin.csv", "cairo.csv"), strict=True))
    result, _ = run(here, sites=sites, mode=mode)
    shown = show() if show else result.output
    for name in names:
        assert name in shown
    if mode == "local":
        assert "local, [red]x" in shown


def test_names_of_missing_sites_are_printed_literally(here):
    files = {"berlin": tables()["berlin"].head(5)}
    result, _ = run(here, files=files, sites={"a": "amsterdam.csv", "[/]": "berlin.csv", "c": "cairo.csv"})
    assert "note: site '[/]' took no part: refused: " in result.output


def test_off_a_terminal_a_line_says_which_model_was_validated(here):
    result, content = run(here)
    lines = [line for line in result.output.splitlines() if line.startswith("federated, 3 sites: round ")]
    loss = content["history"]["validation_loss"][0]
    assert re.match(rf".* round 2/3  validation loss {loss:.3f} .*\(validation of the model of round 1\)$", lines[1])


def test_a_long_run_prints_about_ten_lines(here):
    result, _ = run(here, rounds=40, stopping={"patience": None}, model="logistic")
    assert 10 <= sum(": round " in line for line in result.output.splitlines()) <= 12
