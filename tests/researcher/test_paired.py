"""Two runs over the same folds are compared fold by fold; runs over other rows are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import app


@pytest.fixture(scope="module")
def runs():
    generator = np.random.default_rng(0)
    frames = {}
    for number in range(2):
        a, b = generator.normal(size=(2, 500))
        chance = 1 / (1 + np.exp(-(a + 1.5 * b)))
        frames[f"h{number}"] = pd.DataFrame({"a": a, "b": b, "y": generator.binomial(1, chance)})

    def run(features, **keys):
        section = {
            "data": {"target": "y", "features": features},
            "model": "glm",
            "split": {"kind": "kfold", "stratify": False},
        }
        return v6.run(section | keys, frames)

    return run(["a"]), run(["a", "b"]), run(["a", "b"], seed=7)


def test_differences_are_over_folds_with_the_corrected_t(runs):
    small, large, _ = runs
    table = v6.paired(small, large)
    values = [[fold["metrics"]["test"]["pooled"]["auroc"] for fold in run.content["folds"]] for run in (small, large)]
    differences = np.subtract(*values[::-1])
    line = table.loc["auroc"]
    assert line["difference"] == pytest.approx(differences.mean())
    # Of five folds one tests and three train, to a row.
    error = np.sqrt((1 / 5 + 200 / 600) * differences.var(ddof=1))
    assert line["p"] == pytest.approx(2 * stats.t.sf(differences.mean() / error, 4), rel=0.02)
    assert line["low"] == pytest.approx(differences.mean() - stats.t.ppf(0.975, 4) * error, rel=0.02)
    assert 0 < line["low"] < line["difference"] < line["high"]
    assert v6.paired(large, large)["p"].to_list() == [1.0] * len(table)


def test_other_folds_are_refused(runs):
    _, large, other = runs
    with pytest.raises(ExperimentError, match="differ in seed"):
        v6.paired(large, other)


def test_the_command_shows_them(runs, tmp_path):
    folders = [str(run.save(tmp_path / str(number))) for number, run in enumerate(runs)]
    shown = CliRunner().invoke(app, ["report", *folders[:2], "--paired"])
    assert shown.exit_code == 0, shown.output
    assert "second less first" in shown.output
    refused = CliRunner().invoke(app, ["report", *folders, "--paired"])
    assert refused.exit_code == 2
