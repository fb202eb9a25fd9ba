"""What `simulation.py` compares: the workloads, the plain loop, v6_algorithm, pfl-research and Flower.

Each runs in a process of its own, with the packages of its own environment: `python simulation_peers.py WHO WORKLOAD`.
What all of them share stands first: data, network, the local epoch and the mark after each round.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WORKLOADS: dict[str, dict[str, Any]] = {
    "digits-10": {"sites": 10, "rounds": 20, "batch": 32, "optimizer": "sgd", "lr": 0.1},
    "genes-4": {"sites": 4, "rounds": 5, "batch": 64, "optimizer": "adam", "lr": 1e-3},
    "digits-100": {"sites": 100, "rounds": 10, "batch": 32, "optimizer": "sgd", "lr": 0.1},
    "images-5": {"sites": 5, "rounds": 5, "batch": 32, "optimizer": "adam", "lr": 1e-3},
}
# What v6_algorithm with several processes is called, before their number.
PROCESSES = "workers-"
# And the loop from first weights that are larger by this share.
AWAY = "loop-"
DATA, EVENTS = "SIMULATION_DATA", "SIMULATION_EVENTS"


# -- data, network, training: what all share ---------------------------------------------------------------------------


def make_rows(workload: str) -> tuple[np.ndarray, np.ndarray]:
    """Make inputs and labels; those of digits are scikit-learn's, the others noise with a signal."""
    generator = np.random.default_rng(20240)
    if workload.startswith("digits"):
        from sklearn.datasets import load_digits

        digits = load_digits()
        inputs, labels = (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int64)
    elif workload == "genes-4":
        labels = generator.integers(0, 6, 4000)
        inputs = generator.standard_normal((4000, 18420), dtype=np.float32)
        inputs += (generator.standard_normal((6, 18420), dtype=np.float32) * 0.045)[labels]
    else:
        labels = generator.integers(0, 7, 2000)
        blocks = generator.standard_normal((7, 3, 7, 7)).astype(np.float32).repeat(4, 2).repeat(4, 3)
        inputs = generator.standard_normal((2000, 3, 28, 28), dtype=np.float32) + 0.8 * blocks[labels]
    order = np.random.default_rng(7).permutation(len(inputs))
    return np.ascontiguousarray(inputs[order]), np.ascontiguousarray(labels[order]).astype(np.int64)


def prepare(folder: Path, workload: str) -> None:
    """Write each site's rows and the held-out ones, and the same as tables for v6_algorithm."""
    if (folder / workload / "seeds.json").exists():
        return
    import pandas as pd
    import yaml

    place, section = folder / workload, WORKLOADS[workload]
    place.mkdir(parents=True, exist_ok=True)
    inputs, labels = make_rows(workload)
    held = len(inputs) // 5
    np.savez(place / "held.npz", x=inputs[:held], y=labels[:held])
    shards = np.array_split(np.arange(held, len(inputs)), section["sites"])
    # v6_algorithm validates at the sites: the held-out rows are dealt to them.
    dealt = np.array_split(np.arange(held), section["sites"])
    sites = {}
    for number, (train, validate) in enumerate(zip(shards, dealt, strict=True)):
        np.savez(place / f"{number}.npz", x=inputs[train], y=labels[train])
        rows = np.concatenate([train, validate])
        values = inputs[rows].reshape(len(rows), -1)
        frame = pd.DataFrame(values, columns=[f"x{column:05d}" for column in range(values.shape[1])])
        part = ["train"] * len(train) + ["validation"] * len(validate)
        frame = frame.assign(y=labels[rows].astype(str), part=part)
        frame.to_parquet(place / f"{number}.parquet", index=False)
        sites[f"s{number:03d}"] = f"{number}.parquet"
    images = workload == "images-5"
    experiment = {
        "name": workload,
        "sites": sites,
        "data": {"target": "y", "scaling": "none", "split_column": "part"}
        | ({"image": {"shape": [3, 28, 28]}} if images else {}),
        "split": {"kind": "given"},
        "problem": "image_classification" if images else "classification",
        "model": {"kind": "cnn", "widths": [16, 32], "norm": "none", "head": [64]}
        if images
        else {"kind": "mlp", "hidden": [512 if workload == "genes-4" else 128], "norm": "none"},
        "rounds": section["rounds"],
        "training": {
            "local_epochs": 1,
            "batch_size": section["batch"],
            "optimizer": {"kind": section["optimizer"], "lr": section["lr"]},
        },
        "stopping": {"monitor": "loss", "patience": None},
        "output": {"model": "last"},
    }
    (place / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    # Comes last: where it is, all is.
    (place / "seeds.json").write_text(json.dumps(seeds(experiment)))


def seeds(content: dict[str, Any]) -> dict[str, Any]:
    """Return the seeds of v6_algorithm's first network, and of its batches by round and site."""
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.learning.training.learner import TrainingContext
    from v6_algorithm.seeding import derive

    seed = Experiment.parse(content).seed
    drawn = [
        [TrainingContext(seed, site, round, fold=0).derive("batches") for site in content["sites"]]
        for round in range(1, content["rounds"] + 1)
    ]
    return {"network": derive(seed, "initial weights"), "batches": drawn}


def seeds_of(workload: str) -> dict[str, Any]:
    """Read them."""
    content: dict[str, Any] = json.loads((Path(os.environ[DATA]) / workload / "seeds.json").read_text())
    return content


def network(workload: str) -> Any:
    """Build the workload's network, the one that v6_algorithm builds for it, with its first weights."""
    import torch
    from torch import nn

    torch.manual_seed(seeds_of(workload)["network"])
    if workload.startswith("digits"):
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    if workload == "genes-4":
        return nn.Sequential(nn.Linear(18420, 512), nn.ReLU(), nn.Linear(512, 6))
    blocks = []
    for before, after in ((3, 16), (16, 32)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 7))


def rows_of(workload: str, name: str) -> tuple[Any, Any]:
    """Read a site's rows, or the held-out ones (``held``), as tensors."""
    import torch

    content = np.load(Path(os.environ[DATA]) / workload / f"{name}.npz")
    return torch.from_numpy(content["x"]), torch.from_numpy(content["y"])


def batches(inputs: Any, labels: Any, size: int, seed: int) -> Any:
    """Yield shuffled batches, those that v6_algorithm draws."""
    import torch

    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    for rows in order.split(size):
        yield inputs[rows], labels[rows]


def optimiser(model: Any, workload: str) -> Any:
    """Return a fresh optimiser of the workload."""
    import torch

    section = WORKLOADS[workload]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[section["optimizer"]]
    return kind(model.parameters(), lr=section["lr"])


def train_locally(model: Any, workload: str, rows: tuple[Any, Any], seed: int) -> int:
    """Train one local epoch, with batches drawn by this seed; return the number of rows."""
    from torch.nn import functional

    model.train()
    steps = optimiser(model, workload)
    for inputs, labels in batches(*rows, WORKLOADS[workload]["batch"], seed):
        steps.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        steps.step()
    return len(rows[0])


def mark(round: int, accuracy: float | None) -> None:
    """Write down that a round is over."""
    with open(os.environ[EVENTS], "a", encoding="utf-8") as file:
        line = {"round": round, "time": time.time(), "cpu": time.process_time(), "accuracy": accuracy}
        file.write(json.dumps(line) + "\n")


def round_over(model: Any, workload: str, held: tuple[Any, Any], round: int) -> None:
    """Measure the new model on the held-out rows, and write that down."""
    import torch

    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in zip(held[0].split(256), held[1].split(256), strict=True)
        )
    mark(round, right / len(held[0]))


# -- who is compared ---------------------------------------------------------------------------------------------------


def loop(workload: str, away: float = 0.0) -> None:
    """Run the loop that a researcher writes by hand, from first weights that are larger by the share `away`."""
    model, section, drawn = network(workload), WORKLOADS[workload], seeds_of(workload)["batches"]
    sites = [rows_of(workload, str(number)) for number in range(section["sites"])]
    held = rows_of(workload, "held")
    state = {name: tensor * (1 + away) for name, tensor in model.state_dict().items()}
    for round in range(section["rounds"]):
        total: dict[str, Any] = {}
        count = 0
        for site, rows in enumerate(sites):
            model.load_state_dict(state)
            seen = train_locally(model, workload, rows, drawn[round][site])
            for name, tensor in model.state_dict().items():
                total[name] = tensor * seen if site == 0 else total[name].add_(tensor, alpha=seen)
            count += seen
        state = {name: tensor / count for name, tensor in total.items()}
        model.load_state_dict(state)
        round_over(model, workload, held, round)


def ours(workload: str, *options: str) -> None:
    """Run the command as it is typed, with a mark after each round."""
    from v6_algorithm.researcher.cli import main
    from v6_algorithm.researcher.cli.memory import import_libraries

    # As the command does before all else.
    import_libraries()
    from v6_algorithm.coordinator import master

    run, marked = master.run, set()

    def watched(federation: Any, experiment: Any, on_event: Any = None, **more: Any) -> Any:
        def listen(event: dict[str, Any]) -> None:
            on_event(event)
            if event["event"] == "round" and event["round"] not in marked:
                marked.add(event["round"])
                mark(event["round"] - 1, event["metrics"].get("validation_accuracy"))

        return run(federation, experiment, listen, **more)

    master.run = watched
    with tempfile.TemporaryDirectory() as out:
        file = Path(os.environ[DATA]) / workload / "experiment.yaml"
        sys.argv = ["v6-algorithm", "run", str(file), "--out", f"{out}/run", "-q", *options]
        try:
            main()
        finally:
            result = json.loads(Path(f"{out}/run/result.json").read_text())
            # Of the last round's model, which no further round validates.
            mark(-1, result["metrics"]["validation"]["pooled"]["accuracy"])


def pfl(workload: str) -> None:
    """Run pfl-research's simulated backend."""
    import dataclasses

    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel
    from torch import nn

    section, held, drawn = WORKLOADS[workload], rows_of(workload, "held"), seeds_of(workload)["batches"]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(workload)

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def loss(self, x: Any, y: Any, eval: bool = False) -> Any:
            self.train()
            return nn.functional.cross_entropy(self(x), y)

        def metrics(self, x: Any, y: Any, eval: bool = True) -> dict[str, Any]:
            return {}

    class Rows(Dataset):
        def __init__(self, site: int) -> None:
            super().__init__(rows_of(workload, str(site)), user_id=site)
            self.site, self.round = site, 0

        def iter(self, batch_size: int) -> Any:
            self.round += 1
            yield from batches(*self._raw_data, batch_size, drawn[self.round - 1][self.site])

    class Watch(TrainingProcessCallback):
        def after_central_iteration(self, metrics: Any, model: Any, *, central_iteration: int) -> Any:
            round_over(model.pytorch_model, workload, held, central_iteration)
            return False, Metrics()

    class Averaging(FederatedAveraging):
        """Without pfl's evaluation of each user, which nobody else does."""

        def get_next_central_contexts(self, *given: Any, **more: Any) -> Any:
            contexts, model, metrics = super().get_next_central_contexts(*given, **more)
            if contexts:
                contexts = tuple(dataclasses.replace(context, do_evaluation=False) for context in contexts)
            return contexts, model, metrics

    users = {site: Rows(site) for site in range(section["sites"])}
    sampler = get_user_sampler("minimize_reuse", list(users))
    data = FederatedDataset(users.__getitem__, sampler)
    net = Net()
    local = torch.optim.SGD if section["optimizer"] == "sgd" else torch.optim.Adam
    central = torch.optim.SGD(net.parameters(), 1.0)
    Averaging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=section["rounds"],
            evaluation_frequency=10**9,
            train_cohort_size=section["sites"],
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()]),
        model=PyTorchModel(model=net, local_optimizer_create=local, central_optimizer=central),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=section["lr"], local_num_epochs=1, local_batch_size=section["batch"]
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Watch()],
    )


def flower(workload: str) -> None:
    """Run Flower's simulation on Ray, one core an actor."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    section, client, server = WORKLOADS[workload], ClientApp(), ServerApp()
    drawn = seeds_of(workload)["batches"]

    @client.train()
    def train(message: Any, context: Any) -> Any:
        import torch

        torch.set_num_threads(1)
        model, site = network(workload), int(context.node_config["partition-id"])
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        round = int(message.content["config"]["server-round"]) - 1
        seen = train_locally(model, workload, rows_of(workload, str(site)), drawn[round][site])
        content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": seen})}
        return Message(content=RecordDict(content), reply_to=message)

    @server.main()
    def main(grid: Any, context: Any) -> None:
        model, held = network(workload), rows_of(workload, "held")

        def measure(round: int, arrays: Any) -> Any:
            if round:
                model.load_state_dict(arrays.to_torch_state_dict())
                round_over(model, workload, held, round - 1)
            return MetricRecord({"accuracy": 0.0})

        strategy = FedAvg(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=section["sites"],
            min_available_nodes=section["sites"],
        )
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.state_dict()),
            num_rounds=section["rounds"],
            train_config=ConfigRecord({}),
            evaluate_fn=measure,
        )

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=section["sites"],
        backend_name="ray",
        backend_config={
            "init_args": {"num_cpus": 2, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0},
        },
    )


if __name__ == "__main__":
    import torch

    who, workload_ = sys.argv[1:]
    if not who.startswith(PROCESSES):
        torch.set_num_threads(1)
    if who in ("v6_algorithm", "exact"):
        ours(workload_, *(["--exact"] if who == "exact" else []))
    elif who.startswith(PROCESSES):
        ours(workload_, "--workers", who.removeprefix(PROCESSES))
    elif who.startswith(AWAY):
        loop(workload_, float(who.removeprefix(AWAY)))
    else:
        {"loop": loop, "pfl": pfl, "flower": flower}[who](workload_)
