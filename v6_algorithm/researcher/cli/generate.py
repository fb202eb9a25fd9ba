"""`generate` makes images with the model of a finished run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.output import results_folder, unused_folder
from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell, writing


def generate(
    result: Annotated[
        Path, typer.Argument(help="A run's folder, result.json or model.safetensors.", show_default=False)
    ],
    class_: Annotated[
        str | None, typer.Option("--class", help="What the images show.", show_default="all, as often as in training")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many images.")] = 64,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where they go.", show_default="runs/NAME-generated-TIME"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same images.")] = 0,
    json_: Json = False,
) -> None:
    """Make images with a model of problem gan: PNG files, and a table of them that a site of an experiment can be."""
    with explained(json_):
        with terminal.err.status("loading …"):
            from v6_algorithm.researcher.generate import TABLE, read_generator, write_images

            if out_dir is not None and (out_dir / TABLE).exists():
                raise ExperimentError(
                    f"--out {out_dir}: has synthetic images already, which new ones would take the place of; name "
                    "another folder, or leave --class out for images of all classes"
                )
            trained = read_generator(result)
        labels = trained.labels(class_, n)
        place = out_dir or unused_folder(f"{trained.experiment.name}-generated")
        with results_folder(place) as folder, writing(folder):
            table = write_images(trained, labels, seed, folder)
        of = Counter(trained.classes[label] for label in labels) if trained.classes else {}
        shown = f": {', '.join(f'{count} {name}' for name, count in of.items())}" if of else ""
        tell({"folder": str(folder), "table": table.name, "images": n, "classes": dict(of)})
        say(f"wrote {n} images{shown}, and {table.name}, to {folder}")
