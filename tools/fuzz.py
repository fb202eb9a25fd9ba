"""Fuzzing: wrong bytes, files, requests, replies and results, made from right ones; none may end without a name.

    python -m tools.fuzz --cases 100000 --seed 1 [--kinds wire,yaml,requests,replies,results]

A case is a right message or file of which a part is replaced, moved, cut or repeated. It may be accepted, or end in one
of the package's own errors, or in a reply that names what is wrong; any other exception, and a reply of kind "bug", is
printed with the case's number, from which `--only NUMBER` makes it again. CI runs a few thousand; `replies` are whole
runs of a federation, one in 2,000 cases.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import string
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

KINDS = ("wire", "yaml", "requests", "replies", "results")
# How often each kind is tried: by what a case of it costs.
_SHARES = {"wire": 0.5, "yaml": 0.4, "requests": 0.0595, "replies": 0.0005, "results": 0.04}
WEIRD: list[Any] = [
    10**400, -(10**400), 1e308, -1e308, 10**18, 2**63, 0, -1, 1, 0.5, True, False, None, "", "01", "=1", "\x1b\x00",
    "\ud800", "x" * 5000, "../../etc/passwd", "data.target", "> 0", [], {}, [[]], [None], {"": None}, {"kind": "x"},
    [1, "a"], 1e-320, "nan", "1e999", "é\u202e",
]  # fmt: skip
Case = Callable[[random.Random], None]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of nested mappings and lists, of long lists the first thirty."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(children)[:30]:
        yield from places(child, (*path, key))


def spoil(value: Any, draw: random.Random) -> Any:
    """Return a copy of nested mappings and lists with one to three parts replaced, removed, renamed or swapped."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        paths = list(places(value))
        if not paths:
            return draw.choice(WEIRD)
        *path, last = draw.choice(paths)
        place = value
        for key in path:
            place = place[key]
        what = draw.randrange(6)
        if what == 0 and isinstance(place, dict):
            place[draw.choice(["x", "", "kind", "folds", 0])] = place.pop(last)
        elif what == 1 and isinstance(place, list):
            place.extend(copy.deepcopy(place[:3]))
        elif what == 2:
            del place[last]
        elif what == 3:
            *other, name = draw.choice(paths)
            source = value
            try:
                for key in other:
                    source = source[key]
                place[last] = copy.deepcopy(source[name])
            except (KeyError, IndexError, TypeError):
                place[last] = draw.choice(WEIRD)
        elif what == 4 and isinstance(place[last], str):
            place[last] = spoil_text(place[last], draw)
        else:
            place[last] = copy.deepcopy(draw.choice(WEIRD))
    return value


def spoil_text(text: str, draw: random.Random) -> str:
    """Return a text with some of it replaced, removed, repeated or put in."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice((0, 1, 1, 4, 40)))
        put = draw.choice(["", text[start:end] * 2, draw.choice(string.printable), "\x00", "[", "{", ": ", "- ", "&a ",
                           "*a", "é", "9" * 30, "\t", "!!python/object:os.system ", "<<: "])  # fmt: skip
        text = text[:start] + put + text[end:]
    return text


def wire_cases() -> Case:
    """Texts of tensors, replies, sums and metric states."""
    import numpy as np
    import torch

    from v6_algorithm.data.preparation.setup import Setup, pack_arrays, unpack_arrays
    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.exchange import wire
    from v6_algorithm.learning.metrics import ClassificationMetrics, SurvivalMetrics, compute, explain, merge_states

    generator = np.random.default_rng(0)
    packed = wire.pack({"model.weight": torch.randn(2, 3), "model.count": torch.arange(3)})
    spec = {
        "model.weight": wire.TensorSpec((2, 3), "float32", "parameter"),
        "model.count": wire.TensorSpec((3,), "int64", "buffer"),
    }
    request = wire.message(site="a", round=1, attempt=1)
    classes, survival = ClassificationMetrics(2), SurvivalMetrics([1.0, 2.0], [1.0, 2.0])
    probability = generator.random(30)
    classes.update(np.stack([1 - probability, probability], 1), generator.integers(0, 2, 30), generator.random(30))
    survival.update(generator.random((30, 3)), np.stack([generator.random(30) * 3, generator.integers(0, 2, 30)], 1),
                    generator.random(30))  # fmt: skip
    states = [json.loads(json.dumps(metrics.state())) for metrics in (classes, survival)]
    reply = wire.message(site="a", round=1, attempt=1, status="ok", folds=[{"fold": 0, "parameters": str(packed)}])
    setup = json.loads(json.dumps(Setup(["a", "b"], {"c": ["x", "y"]}, [0, 1]).to_json()))
    arrays = str(pack_arrays({"mean": np.zeros((1, 3))}))

    def one(draw: random.Random) -> None:
        what = draw.randrange(7)
        try:
            if what == 0:
                wire.unpack(spoil_text(str(packed), draw), draw.choice([None, spec]))
            elif what == 1:
                text = draw.choice([spoil_text(json.dumps(reply), draw), json.dumps(spoil(reply, draw))])
                wire.read_reply(text, request)
            elif what == 2:
                state = draw.choice(states)
                try:
                    changed = spoil(state, draw)
                    merged = merge_states([state, changed])
                except ValueError:  # what `reply_checks` takes for a wrong reply
                    return
                compute(merged)
                explain(merged)
            elif what == 3:
                wire.spec_from_json(spoil({name: item.to_json() for name, item in spec.items()}, draw))
            elif what == 4:
                unpack_arrays(spoil_text(arrays, draw))
            elif what == 5:
                Setup.from_json(spoil(setup, draw))
            else:
                wire.unpack(draw.choice(WEIRD))
        except V6AlgorithmError:
            pass

    return one


YAML = """
name: heart
seed: 0
sites: {source: "builtin:breast_cancer", partition: {kind: dirichlet, sites: 3, alpha: 0.5}}
data: {target: num, positive: "> 0", exclude: [a], categorical: [b, c], group: patient, scaling: standard,
       missing: mean, where: {age: ">= 18"}, missing_values: {chol: [0]}, image: {column: file, size: [1, 8, 8]}}
problem: {kind: classification}
model: {kind: mlp, hidden: [64, 32], norm: layer, dropout: 0.1}
split: {kind: kfold, folds: 5, repeats: 2, stratify: true}
rounds: 20
training: {local_epochs: 1, batch_size: 32, optimizer: {kind: adam, lr: 1e-3}, scheduler: {kind: step, step_size: 5},
           freeze: {layers: ["0.*"], rounds: 2}, augmentation: [{kind: mixup}]}
strategy: {kind: fedavg, weighting: samples, compress: {stages: [int8]}}
stopping: {monitor: loss, patience: 5}
participation: {fraction: 1.0, minimum: 2, deadline_s: 3600, maximum_share: 0.5}
privacy: {secure_aggregation: {threshold: 2}}
evaluation: {subgroups: [sex], threshold: 0.5}
tune: {kind: random, trials: 3, space: {training.optimizer.lr: [0.1, 0.01]}}
output: {model: best}
"""


def yaml_cases() -> Case:
    """Experiment files, as text and as content, and what `--set` changes in them."""
    import yaml

    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.experiment.reading import read_file

    content = yaml.safe_load(YAML)
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "experiment.yaml"
    pairs = (("classification", "logistic"), ("regression", {"kind": "glm"}), ("survival", "cox"), ("gan", None))
    files = [{"data": {"target": "y"}, "problem": kind, "model": model} for kind, model in pairs]

    def one(draw: random.Random, keep: Any = folder) -> None:
        try:
            if draw.randrange(2):
                file.write_text(spoil_text(YAML, draw), encoding="utf-8", errors="surrogatepass")
                overrides = [spoil_text("training.optimizer.lr=0.1", draw)] if draw.randrange(3) == 0 else []
                given = read_file(file, overrides)
            else:
                given = draw.choice([content, *files])
                # Only some of its sections, so that others are not refused first.
                names = [name for name in given if name == "data" or draw.randrange(3)]
                given = spoil({name: given[name] for name in names}, draw)
            Experiment.parse(given)
        except V6AlgorithmError:
            pass

    return one


def request_cases() -> Case:
    """Requests of a run, to nodes that trust and nodes that do not."""
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.exchange import wire
    from v6_algorithm.researcher.doctor.attacks import FEATURES, made_up_rows
    from v6_algorithm.researcher.doctor.hospital import SITE, Hospital
    from v6_algorithm.site import SiteContext, handle
    from v6_algorithm.site.policy import Policy

    frame = made_up_rows(40)
    folder = tempfile.TemporaryDirectory()
    asked: list[tuple[str, dict[str, Any]]] = []

    class Recorder(Hospital):
        def ask(self, method: str, experiment: Any, round: int = 0, **body: Any) -> dict[str, Any]:
            body |= {"experiment": experiment.for_sites(), "sites": 3}
            request = wire.message(site=SITE, round=round, attempt=1, **body)
            asked.append((method, json.loads(json.dumps(request))))
            return handle(method, request, context("trusted"))

    def context(preset: str, state: Path | None = None) -> SiteContext:
        return SiteContext({SITE: TableSource(frame=frame)}, Policy.of(preset), state=state, lasting=True)

    node = Recorder(frame, FEATURES, "ill", "name", Policy.of("trusted"), Path())
    for model in ({"kind": "mlp", "hidden": [3]}, "logistic", {"kind": "glm"}):
        experiment, setup = node.experiment(model=model), node.setup(1)
        node.prepare(experiment, setup)
        packed = node.ask("train", experiment, 1, setup=setup.to_json(), folds=[
            {"fold": 0, "parameters": None, "evaluate": [], "train": True}])["folds"][0]["parameters"]  # fmt: skip
        parts = ["train"] if model == {"kind": "glm"} else ["validation", "test"]
        items = [{"fold": 0, "parameters": str(packed), "evaluate": parts, "train": False}]
        node.ask("train", experiment, 2, setup=setup.to_json(), folds=[items[0] | {"evaluate": [], "train": True}])
        node.ask("evaluate", experiment, 2, setup=setup.to_json(), folds=items)
    node.ask("summary", experiment, step="columns")
    node.ask("summary", experiment, step="moments", features=list(FEATURES))

    def one(draw: random.Random, keep: Any = folder) -> None:
        method, request = draw.choice(asked)
        changed = json.loads(json.dumps(spoil(request, draw)))
        if draw.randrange(4) == 0:
            method = draw.choice(["summary", "prepare", "train", "evaluate"])
        try:
            reply = handle(method, changed, context(draw.choice(["trusted", "standard"])), raise_bugs=True)
        except V6AlgorithmError:
            return
        json.dumps(reply, allow_nan=False)
        if reply["status"] != "ok" and reply["kind"] == "bug":
            raise AssertionError(reply["message"])

    return one


def reply_cases() -> Case:
    """Whole runs in which one site's reply is wrong."""
    import pandas as pd

    from v6_algorithm.coordinator.master import run
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.engines.simulate import local_federation
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

    def one(draw: random.Random) -> None:
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

    return one


def result_cases() -> Case:
    """Files of results, read and made into a page."""
    from v6_algorithm.coordinator.master import run
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.engines.simulate import local_federation
    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.researcher.doctor.attacks import made_up_rows
    from v6_algorithm.researcher.python.result import compare, load

    experiment = Experiment.parse({"data": {"target": "ill", "exclude": ["name"]}, "model": "logistic", "rounds": 2})
    tables = {name: TableSource(frame=made_up_rows(40, seed)) for seed, name in enumerate("ab")}
    content = json.loads(json.dumps(run(local_federation(experiment, tables), experiment)))
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "result.json"

    def one(draw: random.Random, keep: Any = folder) -> None:
        text = json.dumps(spoil(content, draw))
        file.write_text(spoil_text(text, draw) if draw.randrange(5) == 0 else text, errors="surrogatepass")
        try:
            result = load(file)
            what = draw.randrange(8)
            if what == 0:
                result.report()
            elif what < 4:
                compare([result, result])
            else:
                for part in (result.metrics, result.history, result.sites, result.participation):
                    len(part)
                repr(result)
        except V6AlgorithmError:
            pass

    return one


_MAKERS: dict[str, Callable[[], Case]] = {
    "wire": wire_cases, "yaml": yaml_cases, "requests": request_cases, "replies": reply_cases, "results": result_cases,
}  # fmt: skip


def fuzz(
    cases: int, seed: int = 0, kinds: tuple[str, ...] = KINDS, *, only: int | None = None, seconds: float = float("inf")
) -> tuple[Counter[str], dict[str, tuple[str, int, str]]]:
    """Try cases; return how many of each kind, and for each place of a fault its kind, first case and traceback."""
    makers = {kind: _MAKERS[kind]() for kind in kinds}
    done: Counter[str] = Counter()
    faults: dict[str, tuple[str, int, str]] = {}
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    for number in range(cases) if only is None else [only]:
        if time.monotonic() > until:
            break
        draw = random.Random(f"{seed} {number}")  # noqa: S311
        kind = draw.choices(kinds, [_SHARES[kind] for kind in kinds])[0]
        done[kind] += 1
        try:
            makers[kind](draw)
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "v6_algorithm" in frame.filename]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "tools.fuzz"
            name = f"{kind}: {type(error).__name__} in {place}"
            seen[name] += 1
            faults.setdefault(name, (kind, number, traceback.format_exc()))
    for name, count in seen.most_common():
        faults[f"{name}, {count} times"] = faults.pop(name)
    return done, faults


def main() -> int:
    """Run, print what ended without a name, and return 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    parser.add_argument("--only", type=int, help="one case by its number")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    given = parser.parse_args()
    kinds = tuple(given.kinds.split(","))
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds {', '.join(sorted(unknown))}: allowed: {', '.join(KINDS)}")
    warnings.simplefilter("ignore")
    start = time.monotonic()
    done, faults = fuzz(given.cases, given.seed, kinds, only=given.only, seconds=given.seconds)
    for name, (_, number, trace) in faults.items():
        print(f"UNNAMED {name}, first in case {number}\n{trace}")
    counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(done.items()))
    print(f"{sum(done.values()):,} cases ({counts}) in {time.monotonic() - start:.0f} s: {len(faults)} unnamed places")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
