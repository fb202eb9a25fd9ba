"""`export` writes a run's model for those who do not have this package: ONNX, `torch.export`, and model.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.output import Force
from v6_algorithm.researcher.cli.terminal import Json, choice, explained, say, tell, writing


def export(
    result: Annotated[Path, typer.Argument(help="A run's folder, its result.json or its model.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where to write.", show_default=False)],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", **choice("onnx", "torch"), help="As often as needed.", show_default="both"),
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Write a run's model as ONNX and torch.export, and check that both give what it gives."""
    with explained(json_):
        from v6_algorithm.coordinator.evaluation.returned_model import ReturnedModel
        from v6_algorithm.errors import ExperimentError
        from v6_algorithm.researcher.export import FORMATS
        from v6_algorithm.researcher.export import export as export_model

        with writing(folder, "FOLDER"):
            there = (folder / "model.json").exists()
        if there and not force:
            raise ExperimentError(f"{folder}: has a model already; --force writes over it, or name another folder")
        with terminal.err.status("exporting …"):
            done = export_model(ReturnedModel.load(result), folder, formats or FORMATS)
        tell({"folder": str(folder), "files": [path.name for path in done.files], "difference": done.difference})
        names = ", ".join(path.name for path in done.files)
        say(f"wrote {names} to {folder}; largest difference from the model: {done.difference:.1e}")
