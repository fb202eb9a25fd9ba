"""What a round costs beyond the training in it: a 9.4-million-parameter network at four sites, local engine.

    python benchmarks/round_overhead.py           # CPU seconds a round, interleaved, as ratios to the bare loop
    python benchmarks/round_overhead.py --memory  # peak memory over the number of sites

Three ways to do the same four local trainings, taken in turns in one process:
- bare: the training loop alone, plain torch, one site after another; nothing is sent or averaged;
- v6_algorithm: a round of `run`: requests and replies through JSON text, checked, averaged;
- lists: what vantage6's documentation leads to: parameters as JSON lists, averaged at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import torch
from common import table
from torch import nn

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

FEATURES, HIDDEN = 1024, [2200, 2200, 1024]
BATCH, LR = 32, 0.01


def frames(sites: int, rows: int) -> dict[str, pd.DataFrame]:
    """Make each site a table of noise with a faint signal; its content does not matter for the cost."""
    generator = np.random.default_rng(0)
    names = [f"x{number}" for number in range(FEATURES)]
    made = {}
    for site in range(sites):
        values = generator.standard_normal((rows, FEATURES), dtype=np.float32)
        frame = pd.DataFrame(values, columns=names)
        made[f"site{site}"] = frame.assign(target=(values[:, 0] > 0).astype(int))
    return made


def experiment(rounds: int) -> Experiment:
    """Return the experiment: one local epoch of Adam, all rows train."""
    return Experiment.parse(
        {
            "data": {"target": "target", "scaling": "none"},
            "model": {"kind": "mlp", "hidden": HIDDEN, "norm": "none"},
            "split": {"kind": "ratio", "train": 1, "validation": 0, "test": 0},
            "rounds": rounds,
            "training": {"batch_size": BATCH, "optimizer": {"kind": "adam", "lr": LR}},
        }
    )


def network() -> nn.Module:
    """Build the same network with plain torch."""
    widths = [FEATURES, *HIDDEN]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))


def bare_round(model: nn.Module, tensors: list[tuple[torch.Tensor, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    """Train on each site in turn from the same start."""
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = []
    for inputs, target in tensors:
        model.load_state_dict(start)
        _train(model, inputs, target)
        states.append(model.state_dict())
    return states


def list_round(model: nn.Module, tensors: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Train on each site in turn, with parameters as JSON lists both ways, and average the lists' tensors."""
    sent = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    replies = []
    for inputs, target in tensors:
        received = json.loads(json.dumps(sent))
        model.load_state_dict({name: torch.tensor(values) for name, values in received.items()})
        _train(model, inputs, target)
        reply = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
        replies.append(json.loads(json.dumps(reply)))
    model.load_state_dict({name: torch.stack([torch.tensor(r[name]) for r in replies]).mean(dim=0) for name in sent})


def _train(model: nn.Module, inputs: torch.Tensor, target: torch.Tensor) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    model.train()
    for batch in torch.split(torch.randperm(len(inputs)), BATCH):
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs[batch])[:, 0], target[batch])
        loss.backward()
        optimiser.step()


def our_rounds(made: dict[str, pd.DataFrame], rounds: int) -> list[tuple[float, float]]:
    """Return (CPU, wall) seconds of each round of one run, without its preparation."""
    marks: list[tuple[float, float]] = []

    def mark(event: dict) -> None:
        if event["event"] in ("prepared", "round"):
            marks.append((time.process_time(), time.perf_counter()))

    this = experiment(rounds)
    run(local_federation(this, {name: TableSource(frame=frame) for name, frame in made.items()}), this, mark)
    return [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(marks)]


def timed(action, *arguments) -> tuple[float, float]:
    """Return (CPU, wall) seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    action(*arguments)
    return time.process_time() - cpu, time.perf_counter() - wall


def costs(rows: int, turns: int, with_lists: bool) -> None:
    """Measure the three in turns and print ratios of medians."""
    made = frames(4, rows)
    tensors = [
        (torch.from_numpy(frame.iloc[:, :-1].to_numpy()), torch.from_numpy(frame["target"].to_numpy(np.float32)))
        for frame in made.values()
    ]
    model = network()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, 4 sites of {rows} rows, batch {BATCH}, Adam")
    bare_round(model, tensors)
    taken: dict[str, list[tuple[float, float]]] = {"bare": [], "v6_algorithm": [], "lists": []}
    for turn in range(turns):
        taken["bare"].append(timed(bare_round, model, tensors))
        # The first round of a run sends no parameters down; the second is a round like all others.
        taken["v6_algorithm"].append(our_rounds(made, 2)[1])
        if with_lists and turn == 0:
            taken["lists"].append(timed(list_round, model, tensors))
    base = [statistics.median(column) for column in zip(*taken["bare"], strict=True)]
    lines = []
    for name, values in taken.items():
        if values:
            cpu, wall = (statistics.median(column) for column in zip(*values, strict=True))
            lines.append([name, f"{cpu:.1f}", f"{cpu / base[0]:.2f}", f"{wall:.1f}", f"{wall / base[1]:.2f}"])
    print(table(["a round by", "CPU s", "ratio", "wall s", "ratio"], lines))


def memory() -> None:
    """Print the peak memory of runs with ever more sites, each in a process of its own."""
    lines = []
    for sites in (2, 4, 8, 16):
        found = subprocess.run(
            [sys.executable, __file__, "--peak", str(sites)], capture_output=True, text=True, check=True
        )
        lines.append([sites, found.stdout.strip()])
    print(table(["sites (64 rows each)", "peak MB"], lines))


def peak(sites: int) -> None:
    """Print this process's peak memory after two rounds."""
    our_rounds(frames(sites, 64), 2)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000, help="rows a site")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-lists", action="store_true", help="leave out the JSON lists, which take a minute")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(arguments.peak)
    elif arguments.memory:
        memory()
    else:
        costs(arguments.rows, arguments.turns, not arguments.no_lists)


if __name__ == "__main__":
    main()
