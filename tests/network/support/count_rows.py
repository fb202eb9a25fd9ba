"""A tiny algorithm, so that the network can be tested without v6_algorithm: each site counts its rows."""

import os
import time
from pathlib import Path

from vantage6.algorithm.client import AlgorithmClient

POLL_S = 0.2


def master(sites: list[int]) -> dict:
    """Ask each site with a subtask of its own; `{site: {"rows": n}}`, or `{site: status}` of one that failed."""
    token = Path(os.environ["TOKEN_FILE"]).read_text()
    client = AlgorithmClient(token, host=os.environ["HOST"], port=os.environ["PORT"], path=os.environ["API_PATH"])
    tasks = {site: client.task.create(input_={"method": "count"}, organizations=[site])["id"] for site in sites}
    answers = {}
    while tasks:
        time.sleep(POLL_S)
        for site, task in list(tasks.items()):
            status = (client.request(f"task/{task}/status") or {}).get("status")
            if status == "completed":
                answers[str(site)] = client.result.from_task(task)[0]
            elif status in (None, "pending", "initializing", "active"):
                continue
            else:
                answers[str(site)] = status
            del tasks[site]
    return answers


def count() -> dict:
    """Number of rows, calls of this job at this site so far, and what the node owner set."""
    calls = Path(os.environ["TEMPORARY_FOLDER"]) / "calls"
    calls.open("a").write("x")
    label = os.environ["USER_REQUESTED_DATABASE_LABELS"].split(",")[0].upper()
    lines = Path(os.environ[f"{label}_DATABASE_URI"]).read_text().splitlines()
    return {
        "rows": len(lines) - 1,
        "calls": calls.stat().st_size,
        "type": os.environ[f"{label}_DATABASE_TYPE"],
        "guard": os.environ.get("V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORDS"),
    }


def look(label: str) -> dict:
    """What a database is like from inside: where it is, what is in it, and whether it can be written to."""
    uri = Path(os.environ[f"{label.upper()}_DATABASE_URI"])
    folder = uri.is_dir()
    try:
        (uri / "written" if folder else uri).open("a").close()
        writable = True
    except OSError as error:
        writable = error.strerror
    return {
        "uri": str(uri),
        "type": os.environ[f"{label.upper()}_DATABASE_TYPE"],
        "content": {path.name: path.read_text() for path in sorted(uri.iterdir()) if path.suffix in (".csv", ".txt")}
        if folder
        else uri.read_text(),
        "writable": writable,
    }


def crash() -> None:
    raise ValueError("told to crash")


def sleep(seconds: float) -> dict:
    print("sleeping", flush=True)
    time.sleep(seconds)
    return {"slept": seconds}
