"""Fresh inputs of C7 to C11: which round is best, dealing, agnostic weights, statistics of networks, and words."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from paper_outcomes import Kind, Outcome, apart

import v6_algorithm.api as v6
from v6_algorithm.experiment import Experiment

LAYERS = {1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d, 3: torch.nn.BatchNorm3d}


def rounds(generator: np.random.Generator) -> Iterator[Outcome]:
    """A site with hard rows misses calls: best round, early stop and rates are those of all sites' validation."""
    for number in range(120):
        patience, plateau = int(generator.integers(2, 6)), int(generator.integers(0, 3))
        monitor = ("loss", "mae", "mse")[number % 3]
        # How far off the sites are in each round; all get better or worse alike.
        trend = np.abs(np.cumsum(generator.normal(-0.1, 0.3, 25)) + 5)
        hard, misses = generator.uniform(20, 60), generator.random(25) < generator.choice([0.2, 0.5, 0.8])
        found = played(trend, hard, misses, monitor, patience, plateau)
        wanted = played(trend, hard, np.zeros(25, dtype=bool), monitor, patience, plateau)
        yield f"{monitor}, {misses.sum()} of 25 calls missed", "" if found == wanted else f"{found}, all: {wanted}"


def played(
    trend: np.ndarray, hard: float, misses: np.ndarray, monitor: str, patience: int, plateau: int
) -> tuple[int | None, int, list[float | None]]:
    """Return the best round, the last one, and the rates, of two sites of which the second misses calls."""
    from v6_algorithm.coordinator.rounds.folds import FoldProgress
    from v6_algorithm.learning.metrics import RegressionMetrics

    scheduler = {"kind": "reducelronplateau", "patience": plateau, "threshold": 0.01, "threshold_mode": "abs"}
    content = {
        "data": {"target": "y"},
        "problem": "regression",
        "training": {"optimizer": {"kind": "sgd", "lr": 1.0}, "scheduler": scheduler},
        "stopping": {"monitor": monitor, "patience": patience},
    }
    fold, rates = FoldProgress(0, Experiment.parse(content)), []
    for number, value in enumerate(trend, start=1):
        rates.append(fold.rate(number))
        fold.advance(number, f"model {number}", 0.0)
        states = {}
        for site, offset, there in (("easy", 0.0, True), ("hard", hard, not misses[number - 1])):
            if there:
                metrics = RegressionMetrics()
                # Of mean squares too the sites differ by a constant.
                error = np.full(10, np.sqrt(value + offset) if monitor == "mse" else value + offset)
                metrics.update(error, np.zeros(10), error)
                states[site] = metrics.state()
        fold.score(states)
        if fold.finished:
            break
    return fold.best_round, fold.rounds_done, rates


def dealing(generator: np.random.Generator) -> Iterator[Outcome]:
    """Over 400 seeds each part has the share of a rare class that it should, with and without patients."""
    from v6_algorithm.data.splits import make_folds
    from v6_algorithm.experiment import Ratio

    for _ in range(24):
        train = float(generator.choice([0.5, 0.6, 0.7, 0.8]))
        shares = np.array([train, (1 - train) / 2, (1 - train) / 2])
        rows, rare = int(generator.integers(9, 70)), int(generator.integers(1, 4))
        labels = (np.arange(rows) < rare).astype(int)
        split = Ratio(train=shares[0], validation=shares[1], test=shares[2])
        for name, groups in (("rows", None), ("patients of two rows", np.arange(rows) // 2)):
            dealt = np.zeros(3)
            for seed in range(400):
                fold = make_folds(split, rows, np.random.default_rng(seed), labels=labels, groups=groups)[0]
                dealt += [labels[fold[part]].sum() for part in ("train", "validation", "test")]
            # Rows of one patient are dealt together.
            independent = 400 * (rare if groups is None else 1)
            error = np.sqrt(shares * (1 - shares) / independent)
            off = np.abs(dealt / dealt.sum() - shares) / error
            yield f"{rare} of {rows} {name}, {shares.round(2)}", "" if off.max() < 4.5 else f"{dealt / dealt.sum()}"


def agnostic(generator: np.random.Generator) -> Iterator[Outcome]:
    """Weights are the projected ascent's, whatever the unit of the loss; and runs with few sites a round end."""
    from v6_algorithm.coordinator.strategies import create_strategy
    from v6_algorithm.coordinator.strategies.reply import Reply
    from v6_algorithm.exchange.wire import TensorSpec

    rows = {"a": 10, "b": 30, "c": 25, "d": 5}
    for number in range(40):
        lr, unit = float(generator.choice([0.01, 0.3, 2.0])), float(generator.choice([1e-9, 1.0, 1e3, 1e12]))
        content = {"data": {"target": "y"}, "strategy": {"kind": "agnostic", "lr": lr}}
        strategy = create_strategy(Experiment.parse(content), {"w": TensorSpec((1,), "float64")}, rows)
        weights, first, model = np.full(4, 0.25), 0.0, 1.0
        for turn in range(1, 6):
            there = sorted(generator.choice(4, int(generator.integers(1, 5)), replace=False).tolist())
            losses, models = generator.exponential(1, 4), generator.normal(size=4)
            first = first or losses[there].mean()
            wanted = (weights[there] @ models[there]) / weights[there].sum() if weights[there].sum() else None
            wanted = models[there].mean() if wanted is None else wanted
            strategy.configure(turn, [list(rows)[place] for place in there], {"w": torch.tensor([model]).double()})
            for place in there:
                state = {"w": torch.tensor([models[place]], dtype=torch.float64)}
                loss = float(losses[place] * unit)
                strategy.add(Reply(list(rows)[place], state, 10, 1, 0.5, start_loss=loss))
            model = float(strategy.aggregate()["w"])
            weights[there] += lr * losses[there] / first
            weights = on_simplex(weights)
            if abs(model - wanted) > 1e-6:
                break
        yield f"weights {number}, lr {lr}, unit {unit:g}", apart(model, wanted, 1e-6)
    yield from agnostic_runs(generator)


def on_simplex(point: np.ndarray) -> np.ndarray:
    """Return the nearest point whose parts are from 0 and add up to 1."""
    low, high = point.min() - 1, point.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - low, 0)


def agnostic_runs(generator: np.random.Generator) -> Iterator[Outcome]:
    """Yield whether runs with two fifths of the sites a round end, and are the same in any unit of the target."""
    sites = {}
    for number, rows in enumerate((60, 40, 30, 80, 50)):
        x = generator.normal(number / 3, 1, (rows, 3))
        noisy = x[:, 0] + generator.normal(0, 0.5 + number, rows)
        sites[f"h{number}"] = pd.DataFrame(x, columns=list("abc")).assign(y=noisy, ill=(noisy > 0.5) * 1)
    kinds = [("classification", "ill", loss) for loss in ("cross_entropy", "focal")]
    kinds += [("regression", "y", loss) for loss in ("mse", "mae", "huber")]
    for problem, target, loss in kinds:
        found = {}
        for unit in (1.0, 1e3, 1e-4) if problem == "regression" else (1.0,):
            content = {
                "data": {"target": target, "features": list("abc"), "target_scaling": "standard"},
                "problem": problem,
                "model": "linear",
                "rounds": 6,
                "participation": {"fraction": 0.4},
                "strategy": "agnostic",
                "training": {"loss": {"kind": "huber", "delta": unit} if loss == "huber" else loss},
            }
            if problem == "classification":
                del content["data"]["target_scaling"]
            scaled = {site: rows.assign(y=rows["y"] * unit) for site, rows in sites.items()}
            result = v6.run(content, scaled).content
            pooled = result["metrics"]["test"]["pooled"]
            found[unit] = pooled["r2" if problem == "regression" else "auroc"]
            ended = result["rounds_run"] == 6 and found[unit] is not None
            yield f"{problem}, {loss}, unit {unit:g}", apart(found[unit], found[1.0], 1e-4) if ended else "did not end"


def statistics(generator: np.random.Generator) -> Iterator[Outcome]:
    """A new network's BatchNorm has the moving averages of the pooled rows; unseen categories count as none."""
    for number in range(36):
        dimensions = number % 3 + 1
        momentum = float(generator.choice([0.05, 0.1, 0.5]))
        batches, count = int(generator.integers(1, 4)), int(generator.integers(2, 6))
        shape = (2, *[2] * dimensions) if dimensions > 1 else (2,)
        tables = [
            torch.tensor(generator.normal(generator.normal(0, 3), 1, (int(rows), *shape)))
            for rows in generator.integers(2, 60, count)
        ]
        layer = LAYERS[dimensions](2, momentum=momentum, dtype=torch.float64)
        yield (
            f"{dimensions}d, {count} sites, {batches} batches, momentum {momentum}",
            normalised(tables, layer, batches),
        )
    yield from categories(generator)


def normalised(tables: list[torch.Tensor], layer: Any, batches: int) -> str:
    """Play rounds of FedAvg in which each site sees its rows `batches` times; compare with the pooled recursion."""
    from v6_algorithm.coordinator.strategies import create_strategy
    from v6_algorithm.coordinator.strategies.reply import Reply
    from v6_algorithm.learning.training.state import load_state, spec_of, state_of

    networks = {"bn": layer}
    rows = {f"site-{number}": len(table) for number, table in enumerate(tables)}
    strategy = create_strategy(Experiment.parse({"data": {"target": "y"}}), spec_of(networks), rows)
    shares = np.array(list(rows.values())) / sum(rows.values())
    means = np.array([table.transpose(0, 1).flatten(1).mean(dim=1).numpy() for table in tables])
    variances = np.array([table.transpose(0, 1).flatten(1).var(dim=1).numpy() for table in tables])
    pooled = shares @ means, shares @ variances + shares @ (means - shares @ means) ** 2
    wanted = np.zeros(2), np.ones(2)
    start = {name: tensor.clone() for name, tensor in state_of(networks).items()}
    model = None
    for number in range(1, 8):
        replies = []
        for site, table in zip(rows, tables, strict=True):
            load_state(networks, {name: tensor.clone() for name, tensor in (model or start).items()})
            layer.train()
            for _ in range(batches):
                layer(table)
            trained = {name: tensor.clone() for name, tensor in state_of(networks).items()}
            replies.append(Reply(site, trained, rows[site], batches, 0.5))
        strategy.configure(number, list(rows), model)
        for reply in replies:
            strategy.add(reply)
        model = strategy.aggregate()
        new = 1 - (1 - layer.momentum) ** batches
        wanted = tuple((1 - new) * old + new * now for old, now in zip(wanted, pooled, strict=True))
    assert model is not None
    found = model["bn.running_mean"].numpy(), model["bn.running_var"].numpy()
    return apart(found[0], wanted[0], 1e-6) or apart(found[1], wanted[1], 1e-6)


def categories(generator: np.random.Generator) -> Iterator[Outcome]:
    """A category of test rows only is to a model what one is that nobody has seen; one of a single site is known."""
    for model in ("linear", {"kind": "mlp", "hidden": [6]}):
        for seed in range(4):
            sites = {}
            for name in ("north", "south"):
                frame = pd.DataFrame({"age": generator.normal(50, 9, 80), "ward": generator.choice(["a", "b"], 80)})
                frame["part"] = np.resize(["train", "train", "validation", "test"], 80)
                frame["ill"] = (frame["age"] + 9 * generator.normal(size=80) > 50) * 1
                sites[name] = frame
            sites["north"].loc[sites["north"]["part"] == "test", "ward"] = "tested"
            sites["south"].loc[::4, "ward"] = "southern"
            sites["south"].loc[::4, "ill"] = 1
            content = {
                "seed": seed,
                "data": {"target": "ill", "features": ["age"], "categorical": ["ward"], "split_column": "part"},
                "split": "given",
                "model": model,
                "rounds": 15,
                "training": {"optimizer": {"kind": "adam", "lr": 0.1}},
            }
            result = v6.run(content, sites)
            wards = ["tested", "nobody's", "southern", "a"]
            risk = result.predict(pd.DataFrame({"age": [50.0] * 4, "ward": wards}))["p(1)"].to_numpy()
            kind = model if isinstance(model, str) else "mlp"
            yield f"{kind}, seed {seed}, of test rows only", apart(risk[0], risk[1], 0)
            known = abs(risk[2] - risk[1]) > 1e-6
            yield f"{kind}, seed {seed}, of one site", "" if known else "has no effect"


def words(generator: np.random.Generator) -> Iterator[Outcome]:
    """What history and report say of a run is so: the best round, what was kept, stages that there were."""
    sites = {}
    for number, rows in enumerate((90, 60, 45)):
        x = generator.normal(size=(rows, 3))
        ill = (generator.random(rows) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(int)
        sites[f"h{number}"] = pd.DataFrame(x, columns=list("abc")).assign(ill=ill, dose=x[:, 1] + 0.1 * x[:, 2])
    without = {"kind": "ratio", "train": 0.8, "validation": 0, "test": 0.2}
    runs: dict[str, dict[str, Any]] = {
        "best": {}, "last": {"output": {"model": "last"}}, "ema": {"output": {"model": "ema"}},
        "swa": {"output": {"model": "swa"}}, "no validation": {"split": without},
        "monitored AUROC": {"stopping": {"monitor": "auroc", "patience": 2}}, "centralised": {"mode": "centralised"},
        "local": {"mode": "local"}, "three folds": {"split": {"kind": "kfold", "folds": 3}},
        "three folds, ema": {"split": {"kind": "kfold", "folds": 3}, "output": {"model": "ema"}},
        "few sites a round": {"participation": {"fraction": 0.5}},
        "secure aggregation": {"privacy": {"secure_aggregation": {"threshold": 0.67}}},
    }  # fmt: skip
    for name, changes in runs.items():
        content = {
            "data": {"target": "ill", "features": list("abc")},
            "model": "linear",
            "rounds": 7,
            "training": {"optimizer": {"kind": "adam", "lr": 0.4}, "batch_size": 8},
            **changes,
        }
        yield name, said_of(v6.run(content, sites))


def said_of(result: Any) -> str:
    """Return what the report of a classification says and is not so."""
    content, experiment = result.content, result.content["experiment"]
    with tempfile.TemporaryDirectory() as folder:
        result.save(folder)
        page = re.sub(r"<(style|script).*?</\1>", "", (Path(folder) / "report.html").read_text(), flags=re.DOTALL)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).split(" kind: ")[0]
    monitor, kept = experiment["stopping"]["monitor"], experiment["output"]["model"]
    known = [value for value in content["history"].get(f"validation_{monitor}", []) if value is not None]
    said = re.search(r"best round (\d+) by validation", text)
    # Alone each site has a best round of its own.
    judged = kept == "best" and known and not content.get("folds") and experiment["mode"] != "local"
    if bool(said) != bool(judged):
        return "a best round is named" if said else "the best round is not named"
    if said and len(known) == content["rounds_run"] and not experiment["participation"]["fraction"] < 1:
        best = np.argmax(known) if monitor == "auroc" else np.argmin(known)
        if best + 1 != int(said[1]):
            return f"round {said[1]} is called best, {best + 1} is"
    if re.search(r"best: round|is the best\.", text) and not judged:
        return "a round is marked as the best"
    if f"average over rounds ({kept}) kept" not in text and kept in ("ema", "swa") and not content.get("folds"):
        return "the average is not named"
    absent = [note for note in content["notes"] if re.search("c_index|survival|were filled", note)]
    return f"a note of what was not: {absent[0]}" if absent else ""


KINDS: dict[str, Kind] = {
    "rounds": ("C7", "the same rounds without missed calls: best round, early stop, torch's plateau", rounds),
    "dealing": ("C8", "expected shares over 400 seeds", dealing),
    "agnostic": ("C9", "projected ascent by hand; five losses, units of the target", agnostic),
    "statistics": (
        "C10",
        "BatchNorm's recursion over pooled rows, 1-D to 3-D; categories nobody trained on",
        statistics,
    ),
    "words": ("C11", "history, notes and report of twelve settings", words),
}
