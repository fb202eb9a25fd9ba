"""An empirical audit of differential privacy: what an attacker who knows all but one unit can tell, against epsilon.

    OMP_NUM_THREADS=1 python -m tools.privacy_audit [--trials 2000] [--noise 1 0.5 0.25 0]

Whole runs are made of two federations that differ by one unit, a canary made to be seen: a row alone in its column, or
a site whose update is as long as the clip. The attacker reads the model that comes out. How well it tells the two apart
gives a lower bound of epsilon, which must be below the claimed one; `--noise` multiplies the noise behind the account's
back, and the audit has to notice. `tests/coordinator/test_privacy_audit.py` holds both.

References
----------
Jagielski, Ullman and Oprea, Auditing Differentially Private Machine Learning, NeurIPS 2020 (the bound); Nasr et al.,
Tight Auditing of Differentially Private Machine Learning, USENIX Security 2023 (an attacker that made the canary).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulate import local_federation
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.training.private_gradients import NoiseSource

DELTA = 1e-3
_ROWS, _COLUMNS = 12, ["x0", "x1", "canary"]


def lower_bound(inside: Sequence[float], outside: Sequence[float], delta: float, confidence: float = 0.95) -> float:
    """Return what epsilon is at least, with a confidence, from an attacker's scores.

    Parameters
    ----------
    inside, outside
        Scores of runs with and without the canary; high ones speak for it. The first half of each chooses the
        threshold, the second is counted, with exact intervals of Clopper and Pearson.
    """
    from scipy.stats import beta

    cut = len(inside) // 2
    first, second = (np.asarray(inside[:cut]), np.asarray(outside[:cut])), (inside[cut:], outside[cut:])
    # Where both kinds of error are of use: the larger of two bounds, so each gets half of what may go wrong.
    wrong, bounds = (1 - confidence) / 4, [0.0]
    for sign in (1, -1):
        score, other = (first[0], first[1]) if sign == 1 else (-first[1], -first[0])
        places = np.unique(np.concatenate([score, other]))
        rates = [((score >= place).mean(), (other >= place).mean()) for place in places]
        best = max(range(len(places)), key=lambda place: rates[place][0] / (rates[place][1] + 3 / max(cut, 1)))
        tested = (second[0], second[1]) if sign == 1 else (-np.asarray(second[1]), -np.asarray(second[0]))
        hits, false = (int((np.asarray(values) >= places[best]).sum()) for values in tested)
        number, others = len(tested[0]), len(tested[1])
        least = beta.ppf(wrong, hits, number - hits + 1) if hits else 0.0
        most = beta.ppf(1 - wrong, false + 1, others - false) if false < others else 1.0
        bounds.append(math.log((least - delta) / most) if least > delta else 0.0)
    return max(bounds)


def experiment(unit: str, epsilon: float) -> Experiment:
    """Return the experiment that is audited: two rounds of four steps with half of the rows, or of an update."""
    return Experiment.parse(
        {
            "data": {"target": "y", "features": _COLUMNS, "scaling": "none", "split_column": "part"},
            "split": "given",
            "model": "logistic",
            "rounds": 2,
            # So small that the canary is as new to the last step as to the first.
            "training": {"local_steps": 4, "batch_size": _ROWS // 2, "optimizer": {"kind": "sgd", "lr": 1e-3}}
            if unit == "sample"
            else {"optimizer": {"kind": "sgd", "lr": 10.0}},
            "participation": {"minimum": 1},
            "stopping": {"patience": None},
            "output": {"model": "last"},
            "privacy": {"differential_privacy": {"unit": unit, "epsilon": epsilon, "delta": DELTA, "clip": 0.01}},
        }
    )


def rows(canary: bool, unit: str) -> pd.DataFrame:
    """Return a site's rows; the canary is one training row more, or all of the site's weight on one column.

    The model that runs begin with is wrong about a canary, so that its gradient is long, and it stays wrong.
    """
    generator = np.random.default_rng(5)
    frame = pd.DataFrame({name: generator.normal(size=_ROWS + 8).round(3) for name in _COLUMNS[:2]})
    parts = ["train"] * _ROWS + ["validation"] * 4 + ["test"] * 4
    frame = frame.assign(canary=0.0, y=np.arange(len(frame)) % 2, part=parts)
    if not canary:
        return frame
    if unit == "site":
        return frame.assign(canary=np.where(frame["y"] == 1, -100.0, 100.0))
    loud = pd.DataFrame([{"x0": 0.0, "x1": 0.0, "canary": 100.0, "y": 0, "part": "train"}])
    return pd.concat([frame, loud], ignore_index=True)


def score(result: dict[str, Any]) -> float:
    """Return how far the model has learnt the canary: the weight of its column, against class 1."""
    return -float(wire.unpack(result["parameters"])["model.weight"][0, _COLUMNS.index("canary")])


@contextmanager
def broken_noise(factor: float) -> Iterator[None]:
    """Multiply all noise by a factor that no account knows of."""
    normal = NoiseSource.normal
    NoiseSource.normal = lambda self, like, sd: normal(self, like, factor * sd)  # type: ignore[method-assign]
    try:
        yield
    finally:
        NoiseSource.normal = normal  # type: ignore[method-assign]


def audit(unit: str, epsilon: float, trials: int, engine: Callable[..., Any] = local_federation) -> tuple[float, float]:
    """Return the lower bound of epsilon from so many runs of either kind, and the largest epsilon that one claimed."""
    asked, claimed = experiment(unit, epsilon), 0.0
    scores: dict[bool, list[float]] = {True: [], False: []}
    for canary in (True, False) * trials:
        result = run(engine(asked, {"site": TableSource(frame=rows(canary, unit))}), asked)
        claimed = max(claimed, result["differential_privacy"]["epsilon"])
        scores[canary].append(score(result))
    return lower_bound(scores[True], scores[False], DELTA), claimed


def main() -> None:
    """Print the table in docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 0.5, 0.25, 0.0])
    arguments = parser.parse_args()
    print("| unit | noise | claimed epsilon | measured, at least |\n|---|---|---|---|")
    for unit in ("sample", "site"):
        for factor in arguments.noise:
            with broken_noise(factor):
                measured, claimed = audit(unit, arguments.epsilon, arguments.trials)
            print(f"| {unit} | {factor:g} of what is booked | {claimed:.3g} | {measured:.2f} |", flush=True)


if __name__ == "__main__":
    main()
