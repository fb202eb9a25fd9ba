"""The ready federations of `mock/`: they fit the package as it is, and the demo learns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hospitals import command, read_result, table

from v6_algorithm.engines.simulation.simulate import source_of
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, Source

MOCK = Path(__file__).parents[2] / "mock"
EXPERIMENTS = sorted(MOCK.glob("*.yaml"))
HEART_HEADER = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,target"


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_is_valid_and_says_how_to_run_it(file):
    assert Experiment.load(file).sites is not None
    opening = file.read_text().split("name:")[0]
    assert f"v6-algorithm run mock/{file.name}" in opening


def test_the_federations_that_the_readme_names_are_there():
    assert {"breast_cancer", "digits", "heart", "lesions", "sequences", "survival"} <= {
        file.stem for file in EXPERIMENTS
    }


@pytest.mark.parametrize("name", ["breast_cancer", "digits", "sequences", "survival"])
def test_a_federation_of_bundled_data_fits_its_data(name):
    result = command("validate", MOCK / f"{name}.yaml")
    assert result.exit_code == 0, result.output


def test_heart_without_its_files_says_where_they_come_from(tmp_path):
    file = tmp_path / "heart.yaml"
    file.write_text((MOCK / "heart.yaml").read_text())
    for name in ("run", "validate"):
        result = command(name, file)
        assert result.exit_code == 2
        for site in ("cleveland", "hungarian", "switzerland", "va"):
            assert f"error: sites.{site}: there is no file heart/{site}.csv (looked in {tmp_path})" in result.output
        assert f"{file} begins with:" in result.output
        assert "https://archive.ics.uci.edu/dataset/45/heart+disease" in result.output
        assert HEART_HEADER in result.output


def test_heart_fits_files_made_as_it_says(tmp_path):
    """Question marks, empty columns and a target of 0 to 4, as in the UCI files."""
    (tmp_path / "heart").mkdir()
    for seed, site in enumerate(("cleveland", "hungarian", "switzerland", "va")):
        values = table(40, seed)
        frame = values[["a", "b", "c"]].reindex(columns=range(HEART_HEADER.count(",") + 1), fill_value=1.5)
        frame.columns = HEART_HEADER.split(",")
        frame = frame.astype(object)
        frame["age"], frame["target"], frame["cp"] = values["a"], values["y"] * (seed + 1), [1, 2, 3, "?"] * 10
        frame.loc[::3, "chol"] = "?"
        if site == "switzerland":
            frame["fbs"] = "?"
        frame.to_csv(tmp_path / "heart" / f"{site}.csv", index=False)
    file = tmp_path / "heart.yaml"
    file.write_text((MOCK / "heart.yaml").read_text())
    result = command("run", file, "--set", "rounds=2", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert read_result(tmp_path / "out")["preparation"]["classes"] == [0, 1]


@pytest.mark.slow
def test_the_demo_reaches_the_auroc_that_the_readme_promises(tmp_path):
    result = command("run", MOCK / "breast_cancer.yaml", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert read_result(tmp_path / "out")["metrics"]["test"]["pooled"]["auroc"] >= 0.99


@pytest.mark.slow
def test_the_mock_client_script_runs_and_prints_the_auroc(tmp_path):
    script = [sys.executable, str(MOCK / "mock_client.py")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"pooled .*AUROC (\d\.\d{3})", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) >= 0.98


@pytest.mark.parametrize("uri", ["https://x.org/a.csv", "s3://bucket/a.parquet", "HTTP://x.org/a", "gs://b/a.csv"])
def test_an_address_that_is_no_database_is_refused_by_its_scheme(tmp_path, uri):
    with pytest.raises(ExperimentError, match=f"sites.a: {uri.partition(':')[0].lower()} addresses are not read"):
        source_of("sites.a", Source(uri=uri), tmp_path)
