"""What a site tells before a run is sent: its software, its machine, and whether its owner's rules let it train.

`v6-algorithm check` asks, through the guard as any other request. Nothing here is a number of the table.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from v6_algorithm.learning.training.device import Device
from v6_algorithm.site.work import Work

PACKAGES = ("v6-algorithm", "torch", "numpy", "pandas", "safetensors")
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# Version 1 of cgroups writes "no limit" as a number near 2^63.
_NO_LIMIT = 2**60


def preflight(work: Work) -> dict[str, Any]:
    """Tell software and machine; with a setup, hold the size of a training against the owner's rules as well.

    Raises
    ------
    PolicyError
        When the node would refuse to train: said now, and not in the first round.
    SiteError
        When the device that the experiment demands is not here.
    """
    if work.request.get("setup") is not None:
        _try_rules(work)
    device = Device.choose(work.experiment.training)
    return {
        "software": software(),
        "machine": {
            "device": device.name,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            "memory_bytes": memory_bytes(),
            "disk_bytes": _disk_bytes(work.context.state),
            "lasting": work.context.state is not None or work.context.lasting,
        },
    }


def software() -> dict[str, str]:
    """Return the versions on which results depend."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def memory_bytes() -> int | None:
    """Return the memory that this process may still take, in bytes; None where the system does not tell."""
    known = []
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            known.append(int(line.split()[1]) * 1024)
    for path in _CGROUP_LIMITS:
        text = _text(path).strip()
        if text.isdigit() and int(text) < _NO_LIMIT:
            known.append(int(text))
    return min(known, default=None)


def _try_rules(work: Work) -> None:
    """Ask the guard what it would be asked in the first round, for each fold that has training rows here."""
    from v6_algorithm.learning.problems import create_problem

    setup = work.setup()
    table = work.table(setup)
    problem = create_problem(work.experiment, setup)
    for fold in table.folds:
        if rows := len(fold.train):
            work.guard.check_training(rows, {})
            work.guard.check_information(problem.sums_of_squares, rows)


def _disk_bytes(state: Path | None) -> int | None:
    try:
        return shutil.disk_usage(state if state is not None and state.exists() else gettempdir()).free
    except OSError:
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
