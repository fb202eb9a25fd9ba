"""One run over vantage6 5's own MockNetwork: mock_run.py REQUEST.json ANSWER.json, with vantage6 5's Python.

The request has each site's database and type, the arguments of `extract` and `master`, and the central method.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vantage6.algorithm.mock.network import MockNetwork


def main(request: Path, answer: Path) -> None:
    content = json.loads(request.read_text())
    sites = [{"default": {"database": uri, "db_type": kind}} for uri, kind in content["sites"].values()]
    client = MockNetwork("v6_algorithm", sites).user_client
    # The mock wants the name to be the label.
    frame = client.dataframe.create(
        label="default", name="default", method="extract", arguments=content.get("extract", {})
    )
    names = {str(number): name for number, name in enumerate(content["sites"], start=1)}
    task = client.task.create(
        method=content["method"],
        organizations=[1],
        arguments={"names": names, **content["arguments"]},
        databases=[{"type": "dataframe", "dataframe_id": frame["id"]}],
    )
    answer.write_text(json.dumps(client.wait_for_results(task["id"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
