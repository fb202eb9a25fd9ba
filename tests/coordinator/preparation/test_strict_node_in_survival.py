"""A strict node among ordinary ones in survival runs: all keep the unit's bins of time, and it refuses moved ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.preparation.times import log_times, middle_of
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.approval import fingerprint
from v6_algorithm.site import SiteContext
from v6_algorithm.site.policy import Policy

NAMES = ("amsterdam", "berlin", "cairo")
STRICT = "cairo"


def patients(seed: int, rows: int = 160) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    columns = generator.normal(size=(rows, 2))
    death, leaves = generator.exponential(400 * np.exp(-0.7 * columns[:, 0])), generator.uniform(50, 1500, rows)
    frame = pd.DataFrame(columns, columns=["a", "b"])
    return frame.assign(days=np.ceil(np.minimum(death, leaves)), died=(death <= leaves).astype(int))


FRAMES = {name: patients(seed) for seed, name in enumerate(NAMES)}


def experiment(method: str) -> Experiment:
    return Experiment.parse(
        {
            "data": {"target": {"duration": "days", "event": "died"}, "features": ["a", "b"]},
            "problem": {"kind": "survival", "method": method},
            "model": {"kind": "mlp", "hidden": [4]},
            "rounds": 2,
            "participation": {"unfit": "leave_out", "minimum": 2},
            "training": {"batch_size": 32},
        }
    )


class Moving:
    """A federation whose requests carry a middle of event times, as of a coordinator that moves the bins."""

    def __init__(self, federation: Any, middle: float | None, sites: tuple[str, ...]) -> None:
        self.federation, self.middle, self.moved = federation, middle, sites

    def __getattr__(self, name: str) -> Any:
        return getattr(self.federation, name)

    def call(self, method: str, requests: Any, *, deadline_s: float) -> Any:
        for site in self.moved if self.middle is not None else ():
            if site in requests and requests[site].get("setup"):
                requests[site]["setup"] = {**requests[site]["setup"], "middle": self.middle}
        return self.federation.call(method, requests, deadline_s=deadline_s)


def strict_policy(folder: Any, content: Experiment) -> Policy:
    return Policy.of("strict", ledger_folder=str(folder / "ledger"), approved_experiments=(fingerprint(content),))


def go(method: str, folder: Any, middle: float | None = None, sites: tuple[str, ...] = NAMES) -> dict[str, Any]:
    content = experiment(method)
    contexts = {
        name: SiteContext(
            {name: TableSource(frame=frame)},
            strict_policy(folder, content) if name == STRICT else Policy.of("trusted"),
            state=folder / name,
            lasting=True,
        )
        for name, frame in FRAMES.items()
    }
    result: dict[str, Any] = run(Moving(LocalFederation(contexts), middle, sites), content)
    return result


@pytest.mark.parametrize("method", ["cox", "discrete_time"])
def test_beside_a_strict_node_all_sites_take_part_to_the_end(method, tmp_path):
    result = go(method, tmp_path)
    assert result["status"] == "completed"
    assert all(not call["missing"] and call["answered"] == list(NAMES) for call in result["participation"])
    assert 0 < result["metrics"]["test"]["pooled"]["c_index"] < 1


@pytest.mark.parametrize("method", ["cox", "discrete_time"])
def test_a_strict_node_refuses_bins_that_are_moved_and_the_others_go_on(method, tmp_path):
    times = np.concatenate([frame["days"][frame["died"] == 1] for frame in FRAMES.values()])
    result = go(method, tmp_path, middle_of([log_times(times)]))
    because = "refused: this node counts event times in bins that stand still, and the request moves them"
    assert f"site '{STRICT}' took no part: {because}" in result["notes"]
    assert any(call["missing"] == {STRICT: because} for call in result["participation"])
    assert result["participation"][-1]["answered"] == ["amsterdam", "berlin"]
