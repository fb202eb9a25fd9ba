"""The folder that survives between rounds at one site, and the encoded table kept in it.

On a node it is `TEMPORARY_FOLDER`, shared by the runs of one job. Losing it costs time, never correctness: what is
not there, or does not read back whole, is made again from the source.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from v6_algorithm.data.splits import Fold
from v6_algorithm.data.table import TableData
from v6_algorithm.experiment import PARTS


def cache_key(*parts: Any) -> str:
    """Hash everything that the encoded table depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def load_cached(folder: Path, key: str) -> TableData | None:
    """Read the table kept under `key`, or None."""
    import safetensors.numpy

    path = folder / f"table-{key}.safetensors"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            members = json.loads((file.metadata() or {})["members"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        folds = [
            Fold(*(arrays[f"fold.{number}.{part}"] for part in PARTS))
            for number in range(sum(name.endswith(".train") for name in arrays))
        ]
        table = {name: arrays[name] for name in ("values", "one_hot", "target", "member", "covariates")}
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None
    return TableData(**table, members=members, folds=folds)


def keep(folder: Path, key: str, data: TableData) -> None:
    """Keep a table under `key`; a full or read-only disk is no error, the next round just reads the source again."""
    import safetensors.numpy

    arrays = {"values": data.values, "one_hot": data.one_hot, "target": data.target, "member": data.member}
    arrays["covariates"] = data.covariates
    for number, fold in enumerate(data.folds):
        arrays |= {f"fold.{number}.{part}": fold[part] for part in PARTS}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".table-")
        os.close(handle)
        # Runs of one job may be writing at the same time: the rename makes one of them win, whole.
        safetensors.numpy.save_file(arrays, temporary, metadata={"members": json.dumps(data.members)})
        os.replace(temporary, folder / f"table-{key}.safetensors")
    except (OSError, safetensors.SafetensorError):
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
