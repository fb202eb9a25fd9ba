"""A node as an attacker sees it: a table, rules, and answers to requests written by hand. `attacks` attacks it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.experiment import Experiment

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.data.preparation import Setup
    from v6_algorithm.site.policy import Policy

SITE = "hospital"
FEATURES = ["age", "dose", "pressure", "marker"]
_EXACT = 1e-3


class Refused(Exception):
    """The node did not answer; its message says which rule held."""


@dataclass
class Hospital:
    """A node as an attacker sees it, with the true rows beside it for counting what came out.

    Attributes
    ----------
    frame
        Its table: the columns of `features`, `target` with classes 0 and 1, and `text`, a text a row.
    policy
        Its rules. What they approve of, they approve: the question is what the other rules do.
    folder
        Where it remembers, for a task.
    node_folder
        Where it remembers from task to task, as on a vantage6 node; None: nowhere.
    """

    frame: pd.DataFrame
    features: list[str]
    target: str
    text: str
    policy: Policy
    folder: Path
    node_folder: Path | None = None

    @property
    def values(self) -> np.ndarray:
        """(rows, features) what an attacker wants."""
        values: np.ndarray = self.frame[self.features].to_numpy(dtype=np.float64)
        return values

    def ask(self, method: str, experiment: Experiment, round: int = 0, **body: Any) -> dict[str, Any]:
        """Send one request by hand; raises Refused when it is not answered."""
        from v6_algorithm.data.sources import TableSource
        from v6_algorithm.exchange import wire
        from v6_algorithm.experiment.approval import fingerprint
        from v6_algorithm.site import SiteContext, handle

        policy = self.policy
        if policy.approved_experiments is not None:
            policy = replace(policy, approved_experiments=(fingerprint(experiment),))
        context = SiteContext(
            {SITE: TableSource(frame=self.frame)}, policy, state=self.folder, node_folder=self.node_folder
        )
        body |= {"experiment": experiment.for_sites(), "sites": 3}
        reply = handle(method, wire.message(site=SITE, round=round, attempt=1, **body), context)
        if reply["status"] != "ok":
            raise Refused(f"{reply['kind']}: {reply['message']}")
        return reply

    def prepare(self, experiment: Experiment, setup: Setup) -> dict[str, Any]:
        """Go through the preparation as a training run does, and return its statistics."""
        self.ask("prepare", experiment, step="schema")
        return self.ask("prepare", experiment, step="statistics", setup=setup.to_json())

    def setup(self, folds: int) -> Setup:
        """Return columns and classes, and a preparation that leaves the numbers as they are."""
        from v6_algorithm.data.preparation import Preparation, Setup

        zero = np.zeros((folds, len(self.features)))
        return Setup(list(self.features), {}, [0, 1], preparation=Preparation(zero, zero, zero + 1))

    def experiment(self, **changes: Any) -> Experiment:
        """Return an experiment on the table's numbers as they are."""
        data = {"target": self.target, "features": self.features, "scaling": "none"}
        return Experiment.parse({"data": data, "model": "logistic", "rounds": 20} | changes)

    def in_another_job(self, number: int) -> Hospital:
        """Return the same node as another task meets it, in a folder of that task's own."""
        return replace(self, folder=self.folder / f"job-{number}")

    def recovered(self, guesses: np.ndarray, near: float = _EXACT) -> int:
        """Count the rows that are among some guesses, (guesses, features), to a share of each column's spread."""
        values = self.values
        if not len(guesses):
            return 0
        scale = values.std(axis=0) * near
        order = np.argsort(guesses[:, 0])
        ordered = guesses[order]
        low = np.searchsorted(ordered[:, 0], values[:, 0] - scale[0])
        high = np.searchsorted(ordered[:, 0], values[:, 0] + scale[0])
        blocks = [ordered[start:end] for start, end in zip(low, high, strict=True)]
        return sum(
            bool((np.abs(block - row) <= scale).all(axis=1).any()) for block, row in zip(blocks, values, strict=True)
        )


def initial(experiment: Experiment, setup: Setup) -> dict[str, Any]:
    """Return the model that every site draws from the seed, as the asker can draw it too."""
    from v6_algorithm.learning.problems import create_problem
    from v6_algorithm.learning.training.state import build_networks, state_of

    return {
        name: tensor.clone() for name, tensor in state_of(build_networks(create_problem(experiment, setup))).items()
    }
