"""dvc.yaml: its stages are commands that work and leave the files that it names; DVC is not needed to see that."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hospitals import command

from v6_algorithm.experiment import Experiment

ROOT = Path(__file__).parents[2]
PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES = ["centralised_train", "federated_train", "centralised_test", "federated_test"]


def filled(value: Any) -> Any:
    """Put the values of params.yaml in the places that DVC would."""
    if isinstance(value, dict):
        return {filled(key): filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item) for item in value]

    def look_up(found: re.Match[str]) -> str:
        at: Any = PARAMETERS
        for key in found[1].split("."):
            at = at[key]
        return str(at)

    return re.sub(r"\$\{([\w.]+)\}", look_up, value) if isinstance(value, str) else value


PIPELINE = filled(yaml.safe_load((ROOT / "dvc.yaml").read_text()))["stages"]


def leaves(stage: dict[str, Any]) -> set[str]:
    return {
        name
        for key in ("outs", "metrics", "plots")
        for entry in stage[key]
        for name in ([entry] if isinstance(entry, str) else entry)
    }


def test_the_stages_are_hrcs():
    assert list(PIPELINE) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_a_command_whose_settings_the_experiment_takes(name):
    words = shlex.split(PIPELINE[name]["cmd"])
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    experiment = Experiment.load(ROOT / words[2], overrides)
    part = PARAMETERS["train" if name.endswith("train") else "test"]
    assert words[:2] == ["v6-algorithm", "run"]
    assert experiment.mode == name.split("_")[0]
    assert experiment.rounds == part["rounds"]
    assert words[words.index("--out") + 1] == f"dvc/{name}"
    assert {Path(path).parent for path in leaves(PIPELINE[name])} == {Path("dvc", name)}


@pytest.mark.parametrize("name", ["centralised_test", "federated_test"])
def test_a_small_twin_leaves_what_its_stage_names(name, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "mock", tmp_path / "mock")
    monkeypatch.chdir(tmp_path)
    done = command(*shlex.split(PIPELINE[name]["cmd"])[1:])
    assert done.exit_code == 0, done.output
    assert all((tmp_path / path).stat().st_size for path in leaves(PIPELINE[name]))
    metrics = json.loads((tmp_path / "dvc" / name / "metrics.json").read_text())
    assert metrics["rounds_run"] == PARAMETERS["test"]["rounds"]
    assert 0.5 < metrics["test"]["pooled"]["auroc"] <= 1


def test_metrics_are_tracked_by_git_and_models_by_dvc():
    for stage in PIPELINE.values():
        assert all(
            options["cache"] is False
            for key in ("metrics", "plots")
            for entry in stage[key]
            for options in entry.values()
        )
        assert {Path(path).name for path in stage["outs"]} == {"result.json", "model.safetensors"}


def test_dvc_is_not_a_dependency():
    assert "dvc" not in (ROOT / "pyproject.toml").read_text()
