"""Write algorithm_store_5.json, what a store of vantage6 5 is told, from algorithm_store.json.

Run as `python -m tools.store_for_vantage6_5`.

vantage6's own `v6 algorithm generate-store-json` gives the same functions and steps; names, texts, types and charts are
those that vantage6 4 shows. The functions for resident trainers are left out, for they are no step of version 5.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE, TARGET = ROOT / "algorithm_store.json", ROOT / "algorithm_store_5.json"
VERSION = "5.0.3"
STEPS = {"central": "central_compute", "federated": "federated_compute"}
ONLY_4 = ("RPC_reside", "RPC_publish")
DATAFRAME = {"name": "table", "description": "A dataframe of the session, made by `extract`"}
TEXTS = {
    "query": "Of a SQL database; only a query that the node's owner has listed runs.",
    "sheet_name": "Of an Excel file; else its first sheet.",
    "files": "A folder whose files' names are its table: the template of the names, as in data.image.files.",
    "column": "The column that those names become, as in data.image.column.",
    "separator": "What separates the cells of a CSV file, if not a comma.",
    "decimal": "The decimal mark, if not a point.",
    "thousands": "The mark between thousands, if there is one.",
    "encoding": "Of a CSV file, if not utf-8.",
}


def store() -> dict[str, Any]:
    """Return the content of the file."""
    content = json.loads(SOURCE.read_text(encoding="utf-8"))
    functions = [_step(function) for function in content["functions"] if function["name"] not in ONLY_4]
    return {**content, "vantage6_version": VERSION, "functions": [_extract(), *functions]}


def _step(function: dict[str, Any]) -> dict[str, Any]:
    step = {key: value for key, value in function.items() if key != "type"}
    return {**step, "step_type": STEPS[function["type"]], "databases": [DATAFRAME]}


def _extract() -> dict[str, Any]:
    arguments = [
        {
            "name": name,
            "display_name": name.replace("_", " ").capitalize(),
            "description": text,
            "type": "string",
            "has_default_value": True,
            "default_value": None,
        }
        for name, text in TEXTS.items()
    ]
    return {
        "name": "extract",
        "display_name": "Read a table or a folder of images",
        "description": "Read the database of each node into a dataframe of the session, as it is written.",
        "standalone": True,
        "step_type": "data_extraction",
        "databases": [{"name": "table", "description": "csv, parquet, excel, npz or SQL, or a folder with a table"}],
        "arguments": arguments,
        "ui_visualizations": [],
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(store(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
