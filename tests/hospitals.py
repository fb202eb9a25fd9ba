"""Hospitals as files: an experiment with its tables in a folder, and the command line run on it in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from click.testing import Result
from typer.testing import CliRunner

from v6_algorithm.researcher.cli import app, terminal

# Stands in the hospitals' files, and must stand nowhere else.
SECRET = "SECRET-4711"
ROWS = {"amsterdam": 48, "berlin": 36, "cairo": 30}
# Exit codes, as DESIGN has them.
WRONG_EXPERIMENT, COULD_NOT_GO_ON, FINE = 2, 3, 0


def table(rows: int, seed: int) -> pd.DataFrame:
    """Return three numeric columns, a `y` of 0 and 1 that depends on two of them, and a remark nobody may see."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(size=(rows, 3)), columns=["a", "b", "c"])
    signal = frame["a"] - frame["b"]
    return frame.assign(y=(signal > signal.median()).astype(int), remark=[f"{SECRET}-{row}" for row in range(rows)])


def tables() -> dict[str, pd.DataFrame]:
    """Return the tables of three hospitals of different size."""
    return {name: table(rows, seed) for seed, (name, rows) in enumerate(ROWS.items())}


def write(folder: Path, files: dict[str, pd.DataFrame | str] | None = None, **changes: Any) -> Path:
    """Write an experiment file with some keys changed, and beside it the tables, or texts, of its sites."""
    files = {**tables(), **(files or {})}
    for name, content in files.items():
        text = content if isinstance(content, str) else content.to_csv(index=False)
        (folder / f"{name}.csv").write_text(text)
    experiment = {
        "name": "test",
        "sites": {name: f"{name}.csv" for name in files},
        "data": {"target": "y"},
        "model": {"kind": "mlp", "hidden": [4]},
        "rounds": 3,
        "training": {"optimizer": {"kind": "adam", "lr": 0.05}, "batch_size": 16},
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment | changes))
    return file


def command(*arguments: object) -> Result:
    """Run `v6-algorithm` with these arguments; what is not explained, a bug, is raised."""
    terminal.out.quiet = False  # an earlier command may have had --quiet
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def explained(result: Result, code: int, *parts: str, folder: Path | None = None) -> list[Path]:
    """Check the exit code, that all `parts` are told, each in one line, and that nothing is told that must not be."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    lines = result.output.splitlines()
    for part in parts:
        assert any(part in line for line in lines), f"'{part}' is not in\n{result.output}"
    if code != FINE:
        assert sum(line.startswith("error: ") for line in lines) == 1, f"not one message:\n{result.output}"
    written = [path for path in folder.rglob("*") if path.is_file()] if folder is not None and folder.exists() else []
    for text in [result.output, *(path.read_bytes().decode("latin-1") for path in written)]:
        assert SECRET not in text
    return written


def read_result(folder: Path) -> dict[str, Any]:
    """Read result.json; a NaN or Infinity literal in it is refused."""
    content: dict[str, Any] = json.loads((folder / "result.json").read_text(), parse_constant=_refuse)
    return content


def _refuse(literal: str) -> None:
    raise AssertionError(f"result.json holds {literal}")


def make_table(rows: int, seed: int, *, classes: int = 2, shift: float = 0.0) -> pd.DataFrame:
    """Return four numeric columns and a `y` that depends on two of them: a class, or a number for `classes=0`."""
    generator = np.random.default_rng(seed)
    values = generator.normal(shift, 1 + seed % 3, size=(rows, 4))
    signal = values[:, 0] - values[:, 1] + generator.normal(0, 0.3, rows)
    frame = pd.DataFrame(values, columns=["a", "b", "c", "d"])
    if classes:
        frame["y"] = np.digitize(signal, np.quantile(signal, np.arange(1, classes) / classes))
    else:
        frame["y"] = signal
    return frame
