"""FedAvg as vantage6's tutorials write an algorithm: decorators, one subtask for all, lists of numbers, stock waiting.

For benchmarks/network.py, which compares a round of it with a round of ours: the same network, rows and batches.
"""

import time
from itertools import pairwise

import pandas as pd
import torch
from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import algorithm_client, data


@algorithm_client
def master(client: AlgorithmClient, sites: list[int], rounds: int, hidden: list[int], features: int) -> list[float]:
    """Average the sites' networks, weighted by rows; returns each round's seconds."""
    torch.manual_seed(0)
    weights = [tensor.tolist() for tensor in network(features, hidden).state_dict().values()]
    seconds = []
    for number in range(rounds):
        start = time.perf_counter()
        task = client.task.create(
            input_={"method": "part", "kwargs": {"weights": weights, "hidden": hidden}},
            organizations=sites,
            name=f"plain {number}",
        )
        results = client.wait_for_results(task_id=task["id"])
        total = sum(result["rows"] for result in results)
        weights = [
            sum(torch.tensor(result["weights"][index]) * (result["rows"] / total) for result in results).tolist()
            for index in range(len(weights))
        ]
        seconds.append(time.perf_counter() - start)
    return seconds


@data(1)
def part(frame: pd.DataFrame, weights: list, hidden: list[int]) -> dict:
    """Train one epoch on this site's rows."""
    inputs = torch.tensor(frame.drop(columns="outcome").to_numpy(), dtype=torch.float32)
    inputs = (inputs - inputs.mean(dim=0)) / inputs.std(dim=0)
    target = torch.tensor(frame["outcome"].to_numpy())
    model = network(inputs.shape[1], hidden)
    model.load_state_dict(
        {name: torch.tensor(values) for name, values in zip(model.state_dict(), weights, strict=True)}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for batch in torch.randperm(len(target)).split(32):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[batch]), target[batch]).backward()
        optimizer.step()
    return {"weights": [tensor.tolist() for tensor in model.state_dict().values()], "rows": len(target)}


def network(features: int, hidden: list[int]) -> torch.nn.Sequential:
    """Return a network with two outputs."""
    widths = [features, *hidden]
    layers = [
        layer for before, after in pairwise(widths) for layer in (torch.nn.Linear(before, after), torch.nn.ReLU())
    ]
    return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 2))
