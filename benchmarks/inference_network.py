"""GLMs and Cox models of 20 covariates on real nodes in Docker: calls, seconds from `submit` to the files, and bytes.

    python benchmarks/inference_network.py                 # builds the images; three sites, a few minutes
    python benchmarks/inference_network.py --built --turns 2
    python benchmarks/inference_network.py --kinds empty poisson --processes

Real tables in three parts: scikit-learn's diabetes with ten products of its columns (logistic: above 140), and
lifelines' GBSG2 (breast cancer) with thirteen, each column scaled first. An empty algorithm's rounds are run in turn
with the fits, on the same network. Coefficients and their errors stand beside statsmodels and lifelines on the pooled
rows; `delong` tests two models, which this machine has trained, at the sites (`submit --test A --against B`), beside
`run`, which has the same files here. A call is one question to all sites, preparation and the test among them.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import table
from network import EMPTY, Network, server_python, submit, where
from v6config import Site

import v6_algorithm.api as v6

COVARIATES, ROUNDS = 20, 4
SITES = ("a", "b", "c")
GLMS = {"gaussian": "regression", "logistic": "classification", "poisson": "count"}
COXES = {"cox": "none", "cox by site": "site"}
KINDS = ["empty", *GLMS, *COXES, "delong"]
WAITING = {"participation": {"minimum": 3, "deadline_s": 300}}


def with_products(frame: pd.DataFrame, outcomes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return a table with its columns scaled and so many products that there are `COVARIATES`, and their names."""
    columns = [name for name in frame if name not in outcomes]
    inputs = ((frame[columns] - frame[columns].mean()) / frame[columns].std(ddof=0)).round(6)
    pairs = list(combinations(columns, 2))[: COVARIATES - len(columns)]
    products = {f"{a}_by_{b}": (inputs[a] * inputs[b]).round(6) for a, b in pairs}
    whole = pd.concat([inputs, pd.DataFrame(products), frame[outcomes]], axis="columns")
    return whole, [*columns, *products]


def diabetes() -> tuple[pd.DataFrame, list[str]]:
    """Return scikit-learn's table of 442 patients with the outcomes of the three GLMs, and the covariates' names."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame = frame.rename(columns={"target": "poisson"}).assign(gaussian=frame["target"])
    return with_products(frame.assign(logistic=(frame["gaussian"] > 140).astype(int)), list(GLMS))


def gbsg2() -> tuple[pd.DataFrame, list[str]]:
    """Return lifelines' table of 686 patients, and the covariates' names."""
    from lifelines.datasets import load_gbsg2

    frame = load_gbsg2().drop(columns="tgrade")
    frame = frame.assign(horTh=(frame["horTh"] == "yes") * 1.0, menostat=(frame["menostat"] == "Post") * 1.0)
    return with_products(frame, ["time", "cens"])


def parts(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Return a table in three parts, in its order."""
    return [frame.iloc[rows] for rows in np.array_split(np.arange(len(frame)), len(SITES))]


def apart(ours: Any, theirs: Any) -> float:
    """Return the largest relative difference."""
    return float(np.abs(np.asarray(ours, dtype=float) / np.asarray(theirs, dtype=float) - 1).max())


class Fits:
    """The fits, on one network whose sites have both tables."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network, self._folder, self._number = network, folder, 0
        self.glm, self.cox = diabetes(), gbsg2()
        self.rows: list[list[Any]] = []

    @staticmethod
    def write(folder: Path) -> dict[str, Site]:
        """Write the sites' tables; returns the sites."""
        for name, (frame, _) in (("glm", diabetes()), ("cox", gbsg2())):
            for site, part in zip(SITES, parts(frame), strict=True):
                part.to_csv(folder / f"{site}-{name}.csv", index=False)
        return {site: Site({name: folder / f"{site}-{name}.csv" for name in ("glm", "cox")}) for site in SITES}

    def run(self, kind: str) -> None:
        """Run one kind, and keep its line."""
        load = os.getloadavg()[0]
        if kind == "empty":
            sites = [self._network.organizations[name] for name in SITES]
            seconds = self._network.run(
                "master", image=EMPTY, databases=["glm"], sites=sites, rounds=ROUNDS, timeout_s=900
            )
            line = [f"{ROUNDS}", "", f"{sum(seconds):.1f}", f"{statistics.median(seconds):.2f}", "", "", ""]
        else:
            line = self._delong() if kind == "delong" else self._fit(kind)
        self.rows.append([kind, *line, f"{load:.1f}"])
        print(*self.rows[-1], sep=" | ", flush=True)

    def _submit(self, content: dict[str, Any], database: str, *more: str) -> tuple[float, Any]:
        self._number += 1
        folder = self._folder / f"fit-{self._number}"
        organizations = [word for name in SITES for word in ("--organization", name)]
        seconds = submit(self._network, folder, content, [*organizations, "--database", database, *more])
        return seconds, v6.load(folder / "out")

    def _fit(self, kind: str) -> list[Any]:
        frame, covariates = self.cox if kind in COXES else self.glm
        target = {"duration": "time", "event": "cens"} if kind in COXES else kind
        family = {"logistic": "binomial"}.get(kind, kind)
        model = {"kind": "cox", "strata": COXES[kind]} if kind in COXES else {"kind": "glm", "family": family}
        content = {
            "name": kind.replace(" ", "-"),
            "problem": "survival" if kind in COXES else GLMS[kind],
            "data": {"target": target, "features": covariates, "missing": "error"},
            "model": model,
            **WAITING,
        }
        seconds, result = self._submit(content, "cox" if kind in COXES else "glm")
        estimates, errors = self._pooled(kind, frame, covariates)
        coefficients = result.coefficients
        away = f"{apart(coefficients['estimate'], estimates):.0e}, {apart(coefficients['standard_error'], errors):.0e}"
        return [*self._calls(result, seconds, str(result.content["fit"]["rounds"])), away]

    def _calls(self, result: Any, seconds: float, rounds: str) -> list[Any]:
        calls = [call for call in result.content["timing"]["rounds"] if call["arrived_s"]]
        middle = statistics.median([call["seconds"] for call in calls])
        sent, received = (
            sum(sum(call[key].values()) for call in calls) / len(SITES) / 1e3
            for key in ("bytes_sent", "bytes_received")
        )
        return [str(len(calls)), rounds, f"{seconds:.1f}", f"{middle:.2f}", f"{sent:.0f}", f"{received:.0f}"]

    def _pooled(self, kind: str, frame: pd.DataFrame, covariates: list[str]) -> tuple[Any, Any]:
        """Return estimates and errors of the pooled rows."""
        if kind in COXES:
            from lifelines import CoxPHFitter

            rows = frame[[*covariates, "time", "cens"]]
            strata = {}
            if COXES[kind] == "site":
                site = np.concatenate([[name] * len(part) for name, part in zip(SITES, parts(frame), strict=True)])
                rows, strata = rows.assign(site=site), {"strata": ["site"]}
            fitted = CoxPHFitter().fit(rows, "time", "cens", fit_options={"precision": 1e-12}, **strata)
            return fitted.params_, fitted.standard_errors_
        import statsmodels.api as sm

        families = {"gaussian": sm.families.Gaussian, "logistic": sm.families.Binomial, "poisson": sm.families.Poisson}
        glm = sm.GLM(frame[kind].astype(float), sm.add_constant(frame[covariates]), family=families[kind]())
        fitted = glm.fit(tol=1e-14, maxiter=100)
        return fitted.params, fitted.bse

    def _delong(self) -> list[Any]:
        """Test two logistic models of ten and of two columns on the sites' rows, and again with the files here."""
        frame, covariates = self.glm
        here = dict(zip(SITES, parts(frame), strict=True))
        runs = []
        data = {"target": "logistic", "missing": "error"}
        for name, columns in (("ten", covariates[:10]), ("two", covariates[:2])):
            content: dict[str, Any] = {
                "data": {**data, "features": columns},
                "problem": "classification",
                "model": {"kind": "glm"},
            }
            runs.append(v6.run(content, here).save(self._folder / f"{name}-{self._number}"))
        words = ["--test", str(runs[0]), "--against", str(runs[1])]
        content = {"name": "delong", "problem": "classification", "data": data, **WAITING}
        seconds, result = self._submit(content, "glm", *words)
        keys = {key: content[key] for key in ("problem", "data")}
        ours, expected = (
            each.content["comparison"]["test"]["auroc"]
            for each in (result, v6.run(keys, here, test=runs[0], against=runs[1]))
        )
        away = (f"{apart(ours[key], expected[key]):.0e}" for key in ("difference", "standard_error"))
        return [*self._calls(result, seconds, ""), ", ".join(away)]


def main() -> None:
    """Bring the network up once, run the kinds in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--built", action="store_true", help="the images are there already")
    parser.add_argument("--processes", action="store_true", help="algorithms as processes, without Docker")
    chosen = parser.parse_args()
    options = where(chosen.processes, chosen.built)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network").mkdir()
        network = Network(folder / "network", server_python(), Fits.write(folder), **options)
        fits = Fits(network, folder)
        try:
            network.start()
            for _ in range(chosen.turns):
                for kind in chosen.kinds:
                    fits.run(kind)
        finally:
            network.stop()
            heads = [
                "fit",
                "calls",
                "rounds",
                "submit to files, s",
                "s a call, median",
                "kB to a site",
                "kB from a site",
            ]
            print(table([*heads, "largest relative difference: estimate, error", "load"], fits.rows))


if __name__ == "__main__":
    main()
