"""`predict` uses the model of a run on new rows: no outcome column is needed, and none leaves this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.output import Force, refuse_file
from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell, writing


def predict(
    result: Annotated[Path, typer.Argument(help="A run's folder, its result.json or its model.", show_default=False)],
    data: Annotated[
        str, typer.Argument(metavar="URI", help="A table, or a folder with one and its images.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write, CSV.", show_default="standard output")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column to copy beside the predictions, such as an id.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose model or Cox baseline hazard, where sites have their own.")
    ] = None,
    time: Annotated[
        list[float] | None,
        typer.Option(
            metavar="TIME",
            help="Of survival: the times to predict for, as in --time 365 --time 730.",
            show_default="the model's horizons",
        ),
    ] = None,
    layers: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="What stayed at a hospital (V6_ALGORITHM_MODEL_FOLDER), one a fold.",
            show_default="those in a run's folder, of --site or where the model is not whole without",
        ),
    ] = None,
    recalibrate: Annotated[
        str | None,
        typer.Option(
            metavar="RESULT[::SITE]",
            help="Move the risks of two classes by intercept and slope of a result (a run with test rows, run --test, "
            "evaluate --out), of all its rows or of a site's.",
        ),
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Predict for new rows with the preparation that the model was trained with."""
    with explained(json_):
        from v6_algorithm.engines.simulation.simulate import source_of
        from v6_algorithm.errors import ExperimentError
        from v6_algorithm.experiment import Source
        from v6_algorithm.researcher.external.local_layers import model_for
        from v6_algorithm.researcher.external.predict import predict as predict_rows
        from v6_algorithm.researcher.external.recalibrated import recalibrated, recalibration_of
        from v6_algorithm.researcher.report.artifacts import write_file

        refuse_file(out, force)
        with terminal.err.status("predicting …"):
            model = model_for(result, layers or [], site)
            source = source_of("URI", Source(uri=data), Path.cwd(), model.experiment)
            predictions = predict_rows(model, source, site, time or [])
            notes = predictions.attrs["notes"]
            if recalibrate is not None:
                file, _, whose = recalibrate.partition("::")
                fit = recalibration_of(file, whose or None)
                predictions = recalibrated(predictions, fit)
                notes.append(
                    f"risks are recalibrated: intercept {fit['intercept']:.3f}, slope {fit['slope']:.3f} (of logits)"
                )
            if keep:
                table = source.read()
                for name in keep:
                    if name not in table.columns:
                        raise ExperimentError(f"--keep {name}: the table has no such column")
                predictions = table[list(keep)].join(predictions)
        for note in notes:
            terminal.err.print(f"note: {escape(note)}", soft_wrap=True)
        tell({"notes": notes, "predictions": predictions.to_dict(orient="records"), "file": str(out) if out else None})
        text = predictions.to_csv(index=False)
        if out is None and json_:
            return
        if out is None:
            terminal.print_raw(text)
            return
        with writing(out):
            write_file(out, text)
        say(f"wrote {len(predictions)} predictions to {out}")
