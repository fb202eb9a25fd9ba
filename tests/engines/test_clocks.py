"""A machine whose clock is set back or forth by hours in mid-run loses nobody: deadlines and pauses are by clocks that
only go forward."""

import ast
import itertools
import time
from pathlib import Path

import pytest
from loopback import LoopbackProxy, numbered

import v6_algorithm
from v6_algorithm.engines import entry

EXPERIMENT = {
    "data": {"target": "y"},
    "model": {"kind": "mlp", "hidden": [4]},
    "rounds": 3,
    "participation": {"poll_s": 0.01, "deadline_s": 30, "minimum": 3},
    "resident": False,
}
HOURS = 3600.0
# Where the time of day is written down, and nobody waits by it.
ALLOWED = ("coordinator/result/assemble.py", "researcher/image/build.py")


@pytest.mark.slow
@pytest.mark.parametrize("jumps", [(0, 6), (5, -5, 48, -48)])
@pytest.mark.parametrize("pipeline", [0, 1])
def test_a_wall_clock_that_jumps_in_mid_run_changes_nothing(tables, monkeypatch, tmp_path, jumps, pipeline):
    organizations = numbered(tables)
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    experiment = EXPERIMENT | {"pipeline": pipeline}
    results = []
    for jumping in (False, True):
        monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / f"job-{jumping}"))
        with LoopbackProxy(organizations) as proxy, monkeypatch.context() as patched:
            if jumping:
                clock, hours = time.time, itertools.cycle(jumps)
                # Each look finds another time of day.
                patched.setattr(time, "time", lambda: clock() + HOURS * next(hours))  # noqa: B023
            results.append(entry.run_master(proxy.client(), None, experiment))
    for key in ("history", "parameters", "metrics", "participation"):
        assert results[0][key] == results[1][key], key
    assert all(not entry["missing"] for entry in results[1]["participation"])


@pytest.mark.slow
def test_nobody_waits_by_a_clock_that_can_be_set():
    """The time of day is for names of folders, of files and of reports."""
    package = Path(v6_algorithm.__file__).parent
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "time.time",
                "datetime.now",
                "datetime.utcnow",
            ):
                assert path.relative_to(package).as_posix() in ALLOWED
