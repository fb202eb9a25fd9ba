"""Predictions with a hospital's recalibration: its mean risk is the share that was seen there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import app
from v6_algorithm.researcher.external.recalibrated import recalibrated, recalibration_of


def hospitals():
    generator = np.random.default_rng(0)
    frames = {}
    for number in range(2):
        dose = generator.normal(size=400)
        frames[f"h{number}"] = pd.DataFrame(
            {"dose": dose, "y": generator.binomial(1, 1 / (1 + np.exp(-(dose - 1 + 2 * number))))}
        )
    return frames


@pytest.fixture(scope="module")
def result():
    split = {"train": 0.5, "validation": 0.0, "test": 0.5}
    return v6.run({"data": {"target": "y"}, "model": "glm", "split": split}, hospitals())


def test_risks_of_a_site_add_up_to_what_was_seen_there(result):
    frame = hospitals()["h1"]
    before, after = result.predict(frame), result.predict(frame, recalibrate=result, at="h1")
    seen = frame["y"].mean()
    assert abs(before["p(1)"].mean() - seen) > 0.1
    # The fit is over the site's test rows, half of these.
    assert after["p(1)"].mean() == pytest.approx(seen, abs=0.05)
    fit = recalibration_of(result.content, "h1")
    logit = np.log(before["p(1)"] / before["p(0)"])
    assert np.log(after["p(1)"] / after["p(0)"]).to_list() == pytest.approx(
        (fit["intercept"] + fit["slope"] * logit).to_list()
    )
    assert after["prediction"].to_list() == (after["p(1)"] >= 0.5).astype(int).to_list()


def test_the_command_says_by_what_risks_are_moved(result, tmp_path):
    folder = result.save(tmp_path / "run")
    hospitals()["h1"].drop(columns="y").to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "out.csv"
    command = ["predict", str(folder), str(tmp_path / "new.csv"), "--out", str(out), "--force"]
    done = CliRunner().invoke(app, [*command, "--recalibrate", f"{folder}::h1"])
    assert done.exit_code == 0, done.output
    assert "slope" in done.output
    expected = result.predict(hospitals()["h1"], recalibrate=result, at="h1")
    assert pd.read_csv(out)["p(1)"].to_list() == pytest.approx(expected["p(1)"].to_list())
    hospitals()["h1"].to_csv(tmp_path / "known.csv", index=False)
    shown = CliRunner().invoke(
        app,
        ["evaluate", str(folder), "--data", str(tmp_path / "known.csv"), "--recalibrate", "--out", str(tmp_path / "e")],
    )
    assert "recalibration: logit risk = " in shown.output
    again = CliRunner().invoke(app, [*command, "--recalibrate", str(tmp_path / "e")])
    assert again.exit_code == 0, again.output
    wrong = CliRunner().invoke(app, [*command, "--recalibrate", f"{folder}::h7"])
    assert wrong.exit_code == 2
    assert "has no site 'h7'; it has: h0, h1" in " ".join(wrong.output.split())


def test_what_has_no_recalibration_is_said(result, tmp_path):
    with pytest.raises(ExperimentError, match="has no intercept and slope"):
        recalibration_of({"metrics": {}})
    with pytest.raises(ExperimentError, match="cannot be read"):
        recalibration_of(tmp_path / "nothing")
    (tmp_path / "text").write_text("no json")
    with pytest.raises(ExperimentError, match=r"is no result\.json"):
        recalibration_of(tmp_path / "text")
    with pytest.raises(ExperimentError, match="two classes"):
        recalibrated(pd.DataFrame({"prediction": [1.0]}), {"intercept": 0.0, "slope": 1.0})
