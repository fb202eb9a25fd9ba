"""Where files go, what is not written over, and the last thing a run says: shared by the commands that write."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.terminal import complain, say, tell, writing
from v6_algorithm.researcher.cli.unfinished import refuse_unfinished

# Columns that the terminal names.
_SHOWN_INPUTS = 30


@contextmanager
def results_folder(path: Path) -> Iterator[Path]:
    """Make the folder for the results, and see before anything is trained that files can be written there."""
    with writing(path):
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    try:
        yield path
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()  # the first has files unless the run failed


Force = Annotated[bool, typer.Option("--force", help="Write over what is there already.")]


def refuse_done(path: Path | None, force: bool, name: str = "result.json") -> None:
    """Keep a command from writing over what an earlier one left in a folder, which has the file `name` then.

    Called before anything is asked or trained; raises ExperimentError where there is one and nobody said --force, and
    where nothing can be written.
    """
    if path is None:
        return
    refuse_read_only(path)
    if force:
        return
    with writing(path):
        refuse_unfinished(path)
        done = (path / name).exists()
    if done:
        raise ExperimentError(
            f"--out {path}: has a result already ({name}); --force writes over it, or name another folder"
        )


def refuse_file(path: Path | None, force: bool, option: str = "--out") -> None:
    """Keep a command from writing over a file; raises ExperimentError where it is there and nobody said --force.

    And where no file can be written, before anything is asked or trained.
    """
    if path is None:
        return
    refuse_read_only(path, option)
    if force:
        return
    with writing(path, option):
        there = path.exists()
    if there:
        raise ExperimentError(f"{option} {path}: is there already; --force writes over it, or name another file")


def refuse_read_only(path: Path, option: str = "--out") -> None:
    """Raise ExperimentError where a file or folder cannot be made, or written to, by what its folder allows."""
    with writing(path, option):
        there = next((folder for folder in (path, *path.parents) if folder.exists()), None)
    if there is not None and not os.access(there, os.W_OK):
        raise ExperimentError(f"{option} {path}: cannot be written: {there} may not be written to")


def unused_folder(name: str) -> Path:
    """Return a new folder name: runs that start within one second must not overwrite each other."""
    path = first = Path("runs") / f"{_slug(name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def finish(
    result: dict[str, Any], unfinished: list[str], folder: Path, make_room: Callable[[], None] | None = None
) -> None:
    """Write the files, show the closing table, and end with exit code 3 when something was left undone.

    Where the disk is full, `make_room` is called, and the files are written again.
    """
    from v6_algorithm.researcher.report import (
        closing_table,
        coefficients_table,
        comparison_lines,
        dinunet,
        gap_lines,
        recalibration_lines,
    )

    result["notes"] += dinunet.notes(result)
    paths, refused = write_results(result, folder)
    if refused is not None and make_room is not None:
        make_room()
        paths, refused = write_results(result, folder)
    if refused is not None and not terminal.asks_for_json():
        # Nobody else has the numbers now.
        terminal.out.quiet = False
    # Of thousands of sites a table that nobody sees takes seconds.
    if result["metrics"] and not terminal.out.quiet:
        closing = closing_table(result, terminal.out.width)
        # Beside names and numbers of rows: those of a generator whose images are too few to be told of have none.
        if len(closing.columns) > 2:
            terminal.out.print(closing)
        else:
            say("no metric is known; the notes say why")
    if (of_terms := coefficients_table(result)) is not None:
        terminal.out.print(of_terms)
    for part in ("test", "central"):
        for line in gap_lines(result, part):
            say(line)
    prepared = result.get("preparation") or {}
    if prepared.get("image_shape") is None:
        say_inputs([*prepared.get("features", []), *prepared.get("categories", {})], result["notes"])
    for note in result["notes"]:
        say(f"note: {note}")
    for line in [*recalibration_lines(result), *comparison_lines(result)]:
        say(line)
    tell(_document(result, unfinished, folder, paths, refused))
    rounds, seconds = result["rounds_run"], result["timing"]["total_s"]
    done = (
        "tested, nothing was trained,"
        if result["status"] == "tested"
        else f"{rounds} round{'' if rounds == 1 else 's'}"
    )
    names = ", ".join(path.relative_to(folder).as_posix() for path in paths) or "nothing"
    done = f"{done} in {seconds:.1f} s; wrote {names} to {folder}"
    say(done)
    if terminal.is_lost():
        complain(done, kind="note")
    if result["status"] == "stopped":
        complain(f"stopped early, what was done is kept: {result['stopped_because']}")
    for reason in unfinished:
        complain(f"the rest is kept, but {reason}")
    if refused is not None:
        complain(refused)
    if result["status"] == "stopped" or unfinished or refused is not None:
        raise typer.Exit(3)


def _document(
    result: dict[str, Any], unfinished: list[str], folder: Path, paths: list[Path], refused: str | None
) -> dict[str, Any]:
    """Return what --json prints of a run: how it ended, its metrics as in metrics.json, and where the rest is."""
    from v6_algorithm.researcher.report.artifacts import headlines

    return {
        "name": result.get("name"),
        "status": result["status"],
        "stopped_because": result.get("stopped_because"),
        "seconds": result["timing"]["total_s"],
        "metrics": headlines(result),
        "notes": result["notes"],
        "unfinished": unfinished + ([refused] if refused is not None else []),
        "folder": str(folder),
        "files": [path.relative_to(folder).as_posix() for path in paths],
    }


def write_results(result: dict[str, Any], folder: Path) -> tuple[list[Path], str | None]:
    """Write a result's files, or those that fit on a full disk; return them, and what is to be said of the others."""
    from v6_algorithm.researcher.report import PartlyWrittenError, write_artifacts

    try:
        return write_artifacts(result, folder), None
    except PartlyWrittenError as error:
        names = ", ".join(
            path.relative_to(folder).as_posix() + (" with the model in it" if path in error.written else "")
            for path in error.failed
        )
        return error.written, f"--out {folder}: {error.strerror}: not written: {names}"
    except OSError as error:
        return [], f"--out {folder}: nothing could be written: {error.strerror}"


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


def say_inputs(columns: Sequence[str], notes: Sequence[str]) -> None:
    """Name the columns that are learned from, where others are left out."""
    if columns and any(note.startswith("left out") for note in notes):
        more = f", … {len(columns) - _SHOWN_INPUTS} more" if len(columns) > _SHOWN_INPUTS else ""
        say(f"learned from: {', '.join(columns[:_SHOWN_INPUTS])}{more}")
