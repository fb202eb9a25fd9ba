"""An empirical audit of differential privacy: what an attacker tells from what sites send, against what is claimed.

    OMP_NUM_THREADS=1 python -m tools.privacy_audit [--runs 4] [--noise 1 0.95 0.9 0.8 0.5 0] [--power]

The attacker made canaries, knows all else, and sees every update: a step a round, so that none is hidden in a sum. Half
of the canaries are there, each alone in its column and clipped in full, and as many columns have none; so one run gives
hundreds of updates with and without one. How well these are told apart bounds mu of Gaussian differential privacy from
below, which must not be above the mu that noise, rate and steps claim. `--noise` multiplies the noise behind the
account's back, `--power` says what the audit notices; `tests/coordinator/test_privacy_audit.py` holds both.

References
----------
Nasr et al., Tight Auditing of Differentially Private Machine Learning, USENIX Security 2023 (all updates seen, a bound
of mu from both kinds of error); Steinke, Nasr and Jagielski, Privacy Auditing with One (1) Training Run, NeurIPS 2023
(many canaries in one run); Dong, Roth and Su, Gaussian Differential Privacy, JRSS B 2022 (composition, subsampling).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Replies
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.privacy.accountant import Steps, noise_for
from v6_algorithm.learning.training.private_gradients import NoiseSource
from v6_algorithm.researcher.doctor.hospital import initial

DELTA = 1e-3
# So large a loss that one update tells much: the mechanism is the same, and a bound is the closer.
EPSILON, ROUNDS = 60.0, 20
_PLAIN_ROWS, _CONFIDENCE, _CLIP, _LR = 12, 0.95, 0.01, 1e-2
_NORMAL = NormalDist()


@dataclass
class Seen:
    """What an attacker saw: in the direction of a canary that was there, and of one that was not, in units of clip."""

    inside: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Audited:
    """What an audit found.

    Attributes
    ----------
    claimed, measured
        mu of one update, by noise and clip; and what it is at least, with 95 % confidence.
    epsilon, epsilon_measured
        What the run claimed for all updates; and what it is at least, where the sampling rate is 1.
    updates
        How many were seen with a canary, and as many without.
    """

    claimed: float
    measured: float
    epsilon: float
    epsilon_measured: float | None
    updates: int

    @property
    def notices(self) -> bool:
        """Whether more was told than was claimed."""
        return self.measured > self.claimed


def least_mu(missed: int, inside: int, false: int, outside: int, rate: float = 1.0) -> float:
    """Return what mu is at least, from an attacker's errors, with exact intervals of Clopper and Pearson.

    With a sampling rate q the trade-off of a step is (1 - q) (1 - a) + q Phi(Phi^-1(1 - a) - mu), a the rate of false
    alarms: the canary is not in the batch, or it is.

    Parameters
    ----------
    missed, inside
        Of so many updates with the canary, those taken for ones without.
    false, outside
        Of so many without, those taken for ones with.
    """
    from scipy.stats import beta

    # Both kinds of error have to be within their bounds: each gets half of what may go wrong.
    wrong = (1 - _CONFIDENCE) / 2
    most_missed = beta.ppf(1 - wrong, missed + 1, inside - missed) if missed < inside else 1.0
    most_false = beta.ppf(1 - wrong, false + 1, outside - false) if false < outside else 1.0
    most_missed = (most_missed - (1 - rate) * (1 - most_false)) / rate
    if most_missed >= 1 or most_false >= 1:
        return 0.0
    if most_missed <= 0:
        # No mu explains it: in more batches than the rate says.
        return math.inf
    return max(0.0, -_NORMAL.inv_cdf(most_false) - _NORMAL.inv_cdf(most_missed))


def epsilon_of(mu: float, delta: float) -> float:
    """Return epsilon of mu-Gaussian differential privacy; Balle and Wang, ICML 2018, theorem 8."""
    if mu == 0:
        return 0.0

    def told(epsilon: float) -> float:
        below = _NORMAL.cdf(-epsilon / mu - mu / 2)
        return _NORMAL.cdf(-epsilon / mu + mu / 2) - (math.exp(epsilon) * below if below else 0.0)

    low, high = 0.0, mu * mu / 2 + 40 * mu
    if told(0.0) <= delta:
        return 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if told(middle) > delta else (low, middle)
    return low


class Watched:
    """A federation of which the attacker reads every update that passes: `learn` gets site, received and sent model."""

    def __init__(self, federation: Any, learn: Callable[[str, Mapping[str, Any], Mapping[str, Any]], None]) -> None:
        self._federation, self._learn = federation, learn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._federation, name)

    def call(self, method: str, requests: Mapping[str, dict[str, Any]], *, deadline_s: float) -> Replies:
        """Ask, and look at what comes back; see `Federation.call`."""
        inner = self._federation.call(method, requests, deadline_s=deadline_s)

        def arrivals() -> Iterator[Arrival]:
            for site, reply in inner:
                received = requests[site]["folds"][0]["parameters"] if method == "RPC_train" else None
                if received is not None:
                    self._learn(site, wire.unpack(received), wire.unpack(reply["folds"][0]["parameters"]))
                yield Arrival(site, wire.to_text(reply))
            for site, missing in inner.missing.items():
                yield Arrival(site, None, missing)

        return Replies(requests, arrivals(), {})


def experiment(unit: str, canaries: int, rate: float) -> Experiment:
    """Return the experiment that is audited: a step of DP-SGD a round, or an update of a site."""
    rows = _PLAIN_ROWS + canaries // 2
    names = ["plain", *(f"canary{number}" for number in range(canaries))]
    # Steps so small that a canary is as new to the last as to the first; a site's update is cut in any case.
    training = {"local_steps": 1, "batch_size": None if rate == 1 else round(rows * rate), "local_epochs": None}
    training |= {"optimizer": {"kind": "sgd", "lr": _LR if unit == "sample" else 10.0}}
    if unit == "site":
        training = {"optimizer": training["optimizer"]}
    return Experiment.parse(
        {
            "data": {"target": "y", "features": names, "scaling": "none", "split_column": "part"},
            "split": "given",
            "model": "logistic",
            "rounds": ROUNDS,
            "training": training,
            "strategy": {"weighting": "uniform"},
            "participation": {"minimum": 1},
            "stopping": {"patience": None},
            "output": {"model": "last"},
            "privacy": {"differential_privacy": {"unit": unit, "epsilon": EPSILON, "delta": DELTA, "clip": _CLIP}},
        }
    )


def signs(asked: Experiment, canaries: int) -> np.ndarray:
    """Return (canaries,) 1 or -1, which way the model that runs begin with is wrong about each; the seed tells it."""
    zero = np.zeros((1, canaries + 1))
    setup = Setup(list(asked.data.features or []), {}, [0, 1], preparation=Preparation(zero, zero, zero + 1))
    weight = initial(asked, setup)["model.weight"].numpy()[:, 1:]
    return np.where((weight[0] if len(weight) == 1 else weight[1] - weight[0]) >= 0, 1.0, -1.0)


def tables(unit: str, sign: np.ndarray) -> dict[str, pd.DataFrame]:
    """Return the sites' rows: one site whose every other canary is a row, or as many sites as canaries.

    A canary's gradient is long, for the model is wrong about it, and stays wrong; nothing else moves its column.
    """
    canaries = len(sign)
    names = [f"canary{number}" for number in range(canaries)]
    parts = ["train"] * _PLAIN_ROWS + ["validation"] * 4 + ["test"] * 4
    generator = np.random.default_rng(5)
    plain = pd.DataFrame({"plain": generator.normal(size=len(parts)).round(3), "part": parts})
    plain = plain.assign(y=np.arange(len(parts)) % 2, **dict.fromkeys(names, 0.0))
    if unit == "site":
        frames = {}
        for number, name in enumerate(names):
            # Another order of labels at each site: a mock's sites share a folder, and of equal rows one account.
            labels = np.concatenate([generator.permutation(plain["y"][:_PLAIN_ROWS]), plain["y"][_PLAIN_ROWS:]])
            wrong = sign[number] * np.where(labels == 1, -100.0, 100.0)
            frames[name] = plain.assign(y=labels, **({name: wrong} if number % 2 == 0 else {}))
        return frames
    loud = pd.DataFrame(np.diag(100.0 * sign)[::2], columns=names).assign(plain=0.0, part="train", y=0)
    return {"site": pd.concat([plain, loud], ignore_index=True)}


@contextmanager
def broken_noise(factor: float) -> Iterator[None]:
    """Multiply all noise by a factor that no account knows of."""
    normal = NoiseSource.normal
    NoiseSource.normal = lambda self, like, sd: normal(self, like, factor * sd)  # type: ignore[method-assign]
    try:
        yield
    finally:
        NoiseSource.normal = normal  # type: ignore[method-assign]


def audit(
    unit: str, *, canaries: int, runs: int = 1, rate: float = 1.0, engine: Callable[..., Any] = local_federation
) -> Audited:
    """Run a federation, watch what passes, and bound what it tells of a canary.

    Parameters
    ----------
    unit
        ``sample`` or ``site``.
    canaries
        How many columns have one or might have; half of them have.
    rate
        Of Poisson sampling; 1 for sites.
    """
    asked, seen = experiment(unit, canaries, rate), Seen()
    sign = signs(asked, canaries)
    frames = tables(unit, sign)
    rows = _PLAIN_ROWS + canaries // 2
    scale = _CLIP if unit == "site" else _LR * _CLIP / (rows * rate)

    def learn(site: str, received: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        moved = -(sent["model.weight"].double() - received["model.weight"].double())[:, 1:].numpy() / scale
        # Two classes have one logit, or two that a gradient moves apart.
        along = moved[0] if len(moved) == 1 else (moved[1] - moved[0]) / math.sqrt(2)
        for number in [int(site.removeprefix("canary"))] if unit == "site" else range(canaries):
            (seen.outside if number % 2 else seen.inside).append(float(sign[number] * along[number]))

    epsilon = 0.0
    for _ in range(runs):
        federation = engine(asked, {name: TableSource(frame=frame) for name, frame in frames.items()})
        result = run(Watched(federation, learn), asked)
        epsilon = max(epsilon, result["differential_privacy"]["epsilon"])
    # Half way between a canary's part of an update and none, which the attacker knows before.
    missed, false = sum(value < 0.5 for value in seen.inside), sum(value >= 0.5 for value in seen.outside)
    measured = least_mu(missed, len(seen.inside), false, len(seen.outside), rate)
    noise = noise_for([Steps(rate, 1.0, ROUNDS)], EPSILON, DELTA)
    whole = epsilon_of(measured * math.sqrt(ROUNDS), DELTA) if rate == 1 else None
    return Audited(1 / noise, measured, epsilon, whole, len(seen.inside))


def noticed(claimed: float, updates: int, rate: float = 1.0, chance: float = 0.95) -> float:
    """Return the largest share of the noise, in hundredths, whose audit is above the claim in `chance` of all audits.

    Errors of either kind are binomial; both are taken at a quantile that they exceed in half of what is left.
    """
    from scipy.stats import binom

    for hundredth in range(99, 0, -1):
        mu = claimed / (hundredth / 100)
        false = _NORMAL.cdf(-mu / 2)
        missed = (1 - rate) * (1 - false) + rate * false
        most = [int(binom.ppf((1 + chance) / 2, updates, error)) for error in (missed, false)]
        if least_mu(most[0], updates, most[1], updates, rate) > claimed:
            return hundredth / 100
    return 0.0


# Unit, sampling rate, canaries of a run.
_KINDS: Sequence[tuple[str, float, int]] = (("sample", 1.0, 64), ("sample", 0.5, 64), ("site", 1.0, 24))


def main() -> None:
    """Print the tables in docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 0.95, 0.9, 0.8, 0.5, 0.0])
    parser.add_argument("--power", action="store_true", help="compute what is noticed with how many runs; run nothing")
    arguments = parser.parse_args()
    if arguments.power:
        print("| unit | rate | runs | updates | noticed in 95 % of audits: noise below |\n|---|---|---|---|---|")
        for unit, rate, canaries in _KINDS:
            claimed = 1 / noise_for([Steps(rate, 1.0, ROUNDS)], EPSILON, DELTA)
            for runs in (1, 4, 16, 64):
                updates = runs * (ROUNDS - 1) * canaries // 2
                print(f"| {unit} | {rate:g} | {runs} | {updates} | {noticed(claimed, updates, rate):.2f} of it |")
        return
    print("| unit | rate | noise | mu claimed | mu, at least | epsilon claimed | epsilon, at least | noticed |")
    print("|---|---|---|---|---|---|---|---|")
    for unit, rate, canaries in _KINDS:
        for factor in arguments.noise:
            with broken_noise(factor):
                found = audit(unit, canaries=canaries, runs=arguments.runs, rate=rate)
            whole = "" if found.epsilon_measured is None else f"{found.epsilon_measured:.1f}"
            print(
                f"| {unit} | {rate:g} | {factor:g} of what is booked | {found.claimed:.3f} | {found.measured:.3f} "
                f"| {found.epsilon:.1f} | {whole} | {'yes' if found.notices else 'no'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
