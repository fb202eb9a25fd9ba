"""An algorithm that does nothing, round after round: what vantage6 itself costs. For benchmarks/network.py.

It can send and return as many characters as a model has, so that what vantage6 asks for these is in its rounds too.
"""

import json
import time

from vantage6.algorithm.client import AlgorithmClient

POLL_S = 0.1


def master(sites: list[int], rounds: int, sent: int = 0, returned: int = 0) -> list[float]:
    """Ask all sites with one subtask a round, look at it ten times a second; returns each round's seconds."""
    import os
    from pathlib import Path

    token = Path(os.environ["TOKEN_FILE"]).read_text().strip()
    client = AlgorithmClient(token=token, host=os.environ["HOST"], port=os.environ["PORT"], path=os.environ["API_PATH"])
    seconds = []
    for number in range(rounds):
        start = time.perf_counter()
        arguments = {"text": "A" * sent, "returned": returned} if sent or returned else {}
        task = client.task.create(
            input_={"method": "part", "kwargs": arguments}, organizations=sites, name=f"empty {number}"
        )
        while client.request(f"task/{task['id']}/status").get("status") in ("pending", "initializing", "active"):
            time.sleep(POLL_S)
        results = client.result.from_task(task["id"])
        assert [len(json.dumps(result)) >= returned for result in results] == [True] * len(sites)
        seconds.append(time.perf_counter() - start)
    return seconds


def part(text: str = "", returned: int = 0) -> dict:
    """Do nothing with what was sent, and return so many characters."""
    return {"text": "A" * returned} if returned else {}
