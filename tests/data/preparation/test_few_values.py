"""A column that one site hardly has costs it nothing: its scales come from the others, and the result says so."""

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment


def clinic(rows, seed, known=None):
    """A table whose column `rare` has a value in the first `known` training rows; in all by default."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(5, 2, size=(rows, 3)), columns=["a", "b", "rare"])
    frame["y"] = (frame["a"] + frame["b"] > 10).astype(int)
    frame["part"] = np.resize(["train", "train", "train", "test"], rows)
    training = np.flatnonzero(frame["part"] == "train")
    empty = np.setdiff1d(np.arange(rows), training[: rows if known is None else known])
    if known is not None:
        frame.loc[empty, "rare"] = np.nan
    return frame


def experiment(**data):
    return Experiment.parse(
        {
            "data": {"target": "y", "split_column": "part", **data},
            "split": "given",
            "model": "linear",
            "rounds": 2,
            "training": {"optimizer": {"kind": "sgd", "lr": 0.1}},
        }
    )


def sources(frames):
    return {name: TableSource(frame=frame) for name, frame in frames.items()}


@pytest.mark.parametrize("known", [1, 2])
@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust"])
def test_the_site_takes_part_with_the_others_numbers_and_a_note_names_it(run_locally, known, scaling):
    frames = {"one": clinic(60, 1), "two": clinic(50, 2), "three": clinic(40, 3, known=known)}
    result = run_locally(experiment(scaling=scaling), sources(frames))
    assert result["sites"]["three"]["n"]["train"] == 30
    note = "site 'three': too few training rows have a value in rare for statistics, which come from the other sites"
    assert note in result["notes"]
    emptied = frames | {"three": frames["three"].assign(rare=np.nan)}
    wanted = run_locally(experiment(scaling=scaling), sources(emptied))["preparation"]
    for name in ("fill", "shift", "scale"):
        np.testing.assert_array_equal(result["preparation"][name], wanted[name])


def test_its_values_are_scaled_like_any_other_in_training(run_locally):
    frames = {"one": clinic(60, 1), "two": clinic(50, 2), "three": clinic(40, 3, known=2)}
    other = frames["three"].assign(rare=frames["three"]["rare"] * 3)
    one, two = (run_locally(experiment(), sources(frames | {"three": three})) for three in (frames["three"], other))
    assert one["preparation"] == two["preparation"]
    assert one["parameters"] != two["parameters"]


def test_scaling_by_site_uses_them_at_home(run_locally):
    frames = {"one": clinic(60, 1), "two": clinic(50, 2), "three": clinic(40, 3, known=2)}
    result = run_locally(experiment(scaling={"kind": "standard", "scope": "site"}), sources(frames))
    assert result["status"] == "completed"
    assert any("site 'three': too few" in note for note in result["notes"])


def test_a_column_with_too_few_values_at_every_site_is_named(run_locally):
    frames = {name: clinic(40, seed, known=2) for seed, name in enumerate(("one", "two", "three"))}
    with pytest.raises(ExperimentError, match=r"no site has enough training rows .* of column rare; leave it"):
        run_locally(experiment(), sources(frames))
    assert run_locally(experiment(exclude=["rare"]), sources(frames))["status"] == "completed"


def test_a_site_that_hides_what_it_was_not_asked_about_is_left_out(spied):
    def tamper(method, site, number, reply):
        return reply | {"hidden": ["secret"]} if site == "three" and "hidden" in reply else reply

    frames = {name: clinic(40, seed) for seed, name in enumerate(("one", "two", "three"))}
    _, result = spied(experiment(), tamper, sites=sources(frames))
    reasons = [call["missing"].get("three") for call in result["participation"]]
    assert any(reason and "columns that it was not asked about" in reason for reason in reasons)
    assert not any("secret" in note for note in result["notes"])
