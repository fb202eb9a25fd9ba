"""GPU, processors and memory, and what the container's limits leave of them."""

from __future__ import annotations

import math
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from v6_algorithm.researcher.doctor.finding import Finding, note, ok, problem, size

_CGROUP = Path("/sys/fs/cgroup")
_DRIVER = Path("/proc/driver/nvidia/version")
# Python, torch, pandas and a small experiment take half of it.
_LITTLE_MEMORY_BYTES = 1e9
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (its size is asked, nothing is written)
_SHARED_MEMORY_BYTES = 64 * 2**20  # what Docker gives


def gpu() -> Finding:
    """Check that what is visible of NVIDIA's can be computed on."""
    import torch

    driver = _driver()
    built_for = torch.version.cuda
    if built_for is None:
        if driver:
            return note(
                f"one is visible (driver {driver}), but this torch is the CPU build",
                "for the GPU, use the image whose tag ends in -cuda",
                driver=driver,
            )
        return ok("none visible, and this torch is the CPU build", devices=[])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        if driver is None:
            return note(
                f"none visible; this torch could use one (CUDA {built_for})",
                "at a node: algorithm_device_requests: {gpu: true}; by hand: docker run --gpus all …",
                devices=[],
            )
        why = f": {str(caught[0].message).splitlines()[0]}" if caught else ""
        return problem(
            f"driver {driver} is there, but CUDA {built_for} cannot use it{why}",
            "update NVIDIA's driver, or build the image with torch for an older CUDA (--torch-index)",
            driver=driver,
        )
    devices: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        try:
            works = float(torch.ones(8, device=f"cuda:{number}").sum()) == 8
        except RuntimeError:  # most often: this torch has no code for a chip this old or this new
            works = False
        devices.append({"name": properties.name, "memory_bytes": properties.total_memory, "works": works})
    text = ", ".join(f"{device['name']} ({size(device['memory_bytes'])})" for device in devices)
    text += f"; driver {driver or 'unknown'}, CUDA {built_for}"
    if not all(device["works"] for device in devices):
        bad = ", ".join(device["name"] for device in devices if not device["works"])
        return problem(
            f"{text}; cannot compute on {bad}",
            "build the image with a torch that supports this GPU (--torch-index)",
            driver=driver,
            devices=devices,
        )
    return ok(text, driver=driver, devices=devices)


def cpu() -> Finding:
    """Compare torch's threads with the cores this process may use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_cores()
    usable = min(cores, math.ceil(quota)) if quota else cores
    threads = torch.get_num_threads()
    text = f"{cores} core{'' if cores == 1 else 's'}" + (f", limited to {quota:g}" if quota else "")
    text += f"; torch uses {threads} thread{'' if threads == 1 else 's'}"
    details = {"cores": cores, "limit": quota, "threads": threads}
    if threads > usable:
        advice = f"threads without a core wait for each other: set OMP_NUM_THREADS={usable} (at a node: algorithm_env)"
        return note(text, advice, **details)
    return ok(text, **details)


def memory() -> Finding:
    """Tell how much memory this process may take."""
    total, limit = _meminfo("MemTotal"), _memory_limit_bytes()
    bytes_ = min(value for value in (total, limit, math.inf) if value is not None)
    details = {"total_bytes": total, "limit_bytes": limit}
    if bytes_ == math.inf:
        return ok("not known on this system", **details)
    text = f"{size(bytes_)}{' (the limit of this container)' if limit == bytes_ else ''}"
    if bytes_ < _LITTLE_MEMORY_BYTES:
        return note(text, "v6_algorithm itself needs about half a gigabyte: allow 2 GB or more", **details)
    return ok(text, **details)


def shared_memory() -> Finding:
    """Tell the size of /dev/shm, by which torch's loader processes hand over batches."""
    try:
        total = shutil.disk_usage(_SHARED_MEMORY).total
    except OSError:
        return ok(f"{_SHARED_MEMORY} is not there; nothing here needs it", bytes=0)
    text = f"{_SHARED_MEMORY} has {size(total)}"
    if total < _SHARED_MEMORY_BYTES:
        return note(text, "Docker's usual is 64 MB: docker run --shm-size=64m", bytes=total)
    return ok(text, bytes=total)


# -- what the system says ------------------------------------------------------------------------------------------


def _driver() -> str | None:
    """Return the version of NVIDIA's kernel driver, ``unknown`` when only its devices are visible, None without."""
    try:
        (version,) = re.findall(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _DRIVER.read_text())
    except (OSError, ValueError):
        # Under WSL the driver is Windows' own.
        visible = any(Path("/dev").glob("nvidia[0-9]*")) or shutil.which("nvidia-smi")
        return "unknown" if visible else None
    return str(version)


def _quota_cores() -> float | None:
    """Return the cores' worth of time that the container may take; None without a limit."""
    unified = _words(_CGROUP / "cpu.max")
    if unified:
        quota, period = unified[0], unified[-1]
    else:
        quota, period = ("".join(_words(_CGROUP / "cpu" / name)) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _memory_limit_bytes() -> int | None:
    """Return the container's limit; None without one."""
    for path in (_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes"):
        (text, *_) = [*_words(path), "max"]
        # Version 1 writes "no limit" as a number near 2^63.
        if text.isdigit() and int(text) < 2**60:
            return int(text)
    return None


def _meminfo(name: str) -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0]) * 1024
    return None


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
