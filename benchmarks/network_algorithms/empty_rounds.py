"""An algorithm that does nothing, round after round: what vantage6 itself costs. For benchmarks/network.py."""

import time

from vantage6.algorithm.client import AlgorithmClient

POLL_S = 0.1


def master(sites: list[int], rounds: int) -> list[float]:
    """Ask all sites with one subtask a round, look at it ten times a second; returns each round's seconds."""
    import os
    from pathlib import Path

    token = Path(os.environ["TOKEN_FILE"]).read_text().strip()
    client = AlgorithmClient(token=token, host=os.environ["HOST"], port=os.environ["PORT"], path=os.environ["API_PATH"])
    seconds = []
    for number in range(rounds):
        start = time.perf_counter()
        task = client.task.create(input_={"method": "part"}, organizations=sites, name=f"empty {number}")
        while client.request(f"task/{task['id']}/status").get("status") in ("pending", "initializing", "active"):
            time.sleep(POLL_S)
        assert client.result.from_task(task["id"]) == [{}] * len(sites)
        seconds.append(time.perf_counter() - start)
    return seconds


def part() -> dict:
    """Do nothing."""
    return {}
