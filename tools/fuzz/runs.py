"""Cases made of whole runs: requests that a run sent, replies that it got, results that it wrote."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tools.fuzz.spoiling import Right, spoil, spoil_text

CHANGES: tuple[dict[str, Any], ...] = (
    {"model": {"kind": "mlp", "hidden": [3], "norm": "batch"}, "split": {"kind": "kfold", "folds": 3}},
    {"data": {"target": "ill", "missing": "median", "scaling": "robust", "exclude": ["name"]},
     "evaluation": {"subgroups": ["name"]}},
    {"model": "glm"},
    {"problem": {"kind": "survival"}, "model": "cox",
     "data": {"target": {"duration": "months", "event": "ill"}, "exclude": ["name"]}},
    {"strategy": "scaffold", "training": {"optimizer": {"kind": "sgd", "lr": 0.1}}},
    {"strategy": {"kind": "fedavg", "compress": "int8"}, "personal": "fine_tune"},
    {"privacy": {"secure_aggregation": {"threshold": 2}}},
    {"privacy": {"secure_aggregation": {"threshold": 2}}, "strategy": "scaffold",
     "training": {"optimizer": {"kind": "sgd", "lr": 0.1}}},
    {"privacy": {"secure_aggregation": {"threshold": 2}}, "model": "glm"},
    {"privacy": {"differential_privacy": {"unit": "sample", "epsilon": 3, "delta": 0.001}}},
)  # fmt: skip


def _rows(rows: int, seed: int) -> Any:
    from v6_algorithm.researcher.doctor.attacks import made_up_rows

    frame = made_up_rows(rows, seed)
    return frame.assign(months=frame["pressure"].abs() + 1)


def request_cases() -> Any:
    """Requests of runs and descriptions, to nodes that trust and nodes that do not, first ones and later ones."""
    from v6_algorithm.coordinator.description.describe import describe
    from v6_algorithm.coordinator.master import run
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.engines.simulation.local import LocalFederation
    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.exchange import wire
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.site import SiteContext, handle
    from v6_algorithm.site.policy import Policy

    sources = {name: TableSource(frame=_rows(60, seed)) for seed, name in enumerate("abc")}
    asked: list[tuple[str, Right, dict[str, SiteContext]]] = []

    class Recorder:
        def __init__(self, federation: Any, contexts: dict[str, SiteContext]) -> None:
            self._federation, self._contexts = federation, contexts

        def __getattr__(self, name: str) -> Any:
            return getattr(self._federation, name)

        def call(self, method: str, requests: Mapping[str, Any], **options: Any) -> Any:
            if "a" in requests:
                text = wire.to_text(requests["a"])
                # Mostly of what is not the experiment, which the cases of files are about.
                for but in ("experiment", "experiment", None):
                    asked.append((method.removeprefix("RPC_"), Right(json.loads(text), but), self._contexts))
            return self._federation.call(method, requests, **options)

    for changes in CHANGES:
        base = {"data": {"target": "ill", "exclude": ["name"]}, "model": "logistic", "rounds": 2}
        experiment = Experiment.parse(base | changes)
        after: dict[str, SiteContext] = {}
        for preset in ("standard", "trusted"):
            contexts = {
                name: SiteContext({name: source}, Policy.of(preset), lasting=True) for name, source in sources.items()
            }
            with suppress(V6AlgorithmError):
                run(Recorder(LocalFederation(contexts), after), experiment)
            after[preset] = contexts["a"]
    contexts = {name: SiteContext({name: source}, lasting=True) for name, source in sources.items()}
    describe(Recorder(LocalFederation(contexts), {"trusted": contexts["a"]}), Experiment.parse(base))

    def context(after: dict[str, SiteContext], draw: random.Random) -> SiteContext:
        preset = draw.choice(["trusted", "standard"])
        if draw.randrange(2) or preset not in after:
            return SiteContext({"a": sources["a"]}, Policy.of(preset), lasting=True)
        seen = after[preset]
        # As the site is after that very run; what one case changes is not seen by the next.
        memory = {key: copy.deepcopy(kept) if type(kept) in (dict, list) else kept for key, kept in seen.memory.items()}
        return SiteContext(seen.sources, seen.policy, lasting=True, memory=memory)

    def case(draw: random.Random) -> None:
        method, request, after = draw.choice(asked)
        changed = request.spoiled(draw)
        if draw.randrange(8) == 0:
            method = draw.choice(["summary", "prepare", "train", "evaluate"])
        try:
            reply = handle(method, changed, context(after, draw), raise_bugs=True)
        except V6AlgorithmError:
            return
        wire.to_text(reply)
        if reply["status"] != "ok" and reply["kind"] == "bug":
            raise AssertionError(reply["message"])

    return case


def reply_cases() -> Any:
    """Whole runs in which one site's reply is wrong."""
    import pandas as pd

    from v6_algorithm.coordinator.master import run
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.engines.simulation.simulate import local_federation
    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.exchange.protocol import Arrival, Replies
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.doctor.attacks import made_up_rows

    tables = {name: TableSource(frame=pd.DataFrame(made_up_rows(24, seed))) for seed, name in enumerate("abc")}
    changes: list[dict[str, Any]] = [
        {}, {"data": {"target": "ill", "missing": "median", "scaling": "robust", "exclude": ["name"]}},
        {"strategy": "qfedavg"}, {"strategy": {"kind": "fedavg", "compress": "int8"}}, {"personal": "fine_tune"},
        {"problem": "regression", "model": "linear", "data": {"target": "age", "exclude": ["name"]}},
        {"model": "glm"}, {"strategy": "scaffold", "training": {"optimizer": {"kind": "sgd", "lr": 0.1}}},
        {"split": {"kind": "kfold", "folds": 3}},
    ]  # fmt: skip

    def case(draw: random.Random) -> None:
        base = {"data": {"target": "ill", "exclude": ["name"]}, "model": "logistic", "rounds": 2}
        experiment = Experiment.parse(base | draw.choice(changes))
        federation = local_federation(experiment, tables)
        wanted, skip = draw.choice(["RPC_prepare", "RPC_train", "RPC_evaluate"]), draw.randrange(3)

        class Tampered:
            def __getattr__(self, name: str) -> Any:
                return getattr(federation, name)

            def call(self, method: str, requests: Mapping[str, Any], **options: Any) -> Replies:
                inner = federation.call(method, requests, **options)

                def arrivals() -> Iterator[Arrival]:
                    nonlocal skip
                    for site, reply in inner:
                        if method == wanted and site == "b" and reply["status"] == "ok":
                            skip -= 1
                            head = {key: reply[key] for key in ("schema", "site", "round", "attempt", "status")}
                            if skip < 0:
                                body = {key: value for key, value in reply.items() if key not in head}
                                reply = head | spoil(body, draw) if draw.randrange(5) else spoil(dict(reply), draw)
                        yield Arrival(site, json.dumps(reply))
                    for site, missing in inner.missing.items():
                        yield Arrival(site, None, missing)

                return Replies(requests, arrivals(), {})

        with suppress(V6AlgorithmError):
            json.dumps(run(Tampered(), experiment), allow_nan=False)  # type: ignore[arg-type]

    return case


def result_cases() -> Any:
    """Files of results, read and made into a page."""
    from v6_algorithm.coordinator.master import run
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.engines.simulation.simulate import local_federation
    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.python.result import Result, compare, load

    tables = {name: TableSource(frame=_rows(40, seed)) for seed, name in enumerate("ab")}
    rights = []
    for changes in ({"model": "logistic"}, {"model": "glm"}, {"split": {"kind": "kfold", "folds": 3}}, *CHANGES[3:5]):
        base = {"data": {"target": "ill", "exclude": ["name"]}, "model": "logistic", "rounds": 2}
        experiment = Experiment.parse(base | changes)
        rights.append(Right(json.loads(json.dumps(run(local_federation(experiment, tables), experiment)))))
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "result.json"

    def case(draw: random.Random, keep: Any = folder) -> None:
        text = json.dumps(draw.choice(rights).spoiled(draw))
        file.write_text(spoil_text(text, draw) if draw.randrange(5) == 0 else text, errors="surrogatepass")
        try:
            result = load(file)
            what = draw.randrange(16)
            # A page costs twenty times what its parts do.
            if what == 0:
                result.report()
            elif what < 6:
                compare([result, result])
            else:
                for read in ("metrics", "history", "sites", "participation", "meta_analysis", "notes", "coefficients",
                             "model", "name"):  # fmt: skip
                    with suppress(V6AlgorithmError):
                        getattr(result, read)
                repr(result)
                if draw.randrange(4) == 0:
                    result.likelihood_ratio(Result(draw.choice(rights).copy()))
                    result.summary()
        except V6AlgorithmError:
            pass

    return case
