"""`package` writes the plug-in package of a network or problem in a file of yours, and its image's Dockerfile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell


def package(
    what: Annotated[
        str, typer.Argument(metavar="FILE.py:NAME", help="A class or function in a file.", show_default=False)
    ],
    path: Annotated[Path, typer.Argument(help="The folder to write.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What experiments call it.", show_default="made of the class's")
    ] = None,
    json_: Json = False,
) -> None:
    """Write the package of an own network or problem, which hospitals run in an image made FROM ours."""
    with explained(json_):
        from v6_algorithm.researcher.python.package import write_package

        written = write_package(_load(what), path, name=name)
        tell(
            {"folder": str(written.path), "name": written.name, "keys": written.keys, "requires": written.requirements}
        )
        for requirement in written.requirements:
            say(f"note: our image has no {requirement.partition('==')[0]}; its image installs {requirement}")
        say(f"wrote {written.path}; in an experiment:")
        for line in written.keys.splitlines():
            say(f"  {line}")
        say(f"next: pip install {written.path}, then run or validate; for hospitals: docker build, see its Dockerfile")


def _load(what: str) -> Any:
    """Run the file and return what it calls NAME."""
    from v6_algorithm.errors import ExperimentError
    from v6_algorithm.researcher.python.package import load_file

    file, colon, name = what.rpartition(":")
    path = Path(file)
    if not colon or path.suffix != ".py" or not path.is_file():
        raise ExperimentError(
            f"{what}: must be FILE.py:NAME, a Python file that is there and a class or function in it"
        )
    # Under a name that no installed package has, so that what it defines is known for the file's own.
    module = load_file(path, f"_v6_file_{path.stem}")
    if not hasattr(module, name):
        raise ExperimentError(f"{what}: {file} defines no '{name}'")
    return getattr(module, name)
