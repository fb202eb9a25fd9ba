"""`output: {profile: true}`: where the time of a run on this machine goes, function by function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli.terminal import say


@contextmanager
def profiled(wanted: bool, folder: Path) -> Iterator[None]:
    """Profile what runs inside with pyinstrument, and leave profile.html and profile.txt in `folder`."""
    if not wanted:
        yield
        return
    try:
        from pyinstrument import Profiler
    except ImportError:
        raise ExperimentError(
            "output.profile: pyinstrument is not installed: pip install 'v6-algorithm[profiling]'"
        ) from None
    profiler = Profiler()
    profiler.start()
    try:
        yield
    finally:
        profiler.stop()
        (folder / "profile.html").write_text(profiler.output_html(), encoding="utf-8")
        (folder / "profile.txt").write_text(profiler.output_text(unicode=True), encoding="utf-8")
        say(f"wrote profile.html and profile.txt to {folder}")
