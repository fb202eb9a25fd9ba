"""`evaluate` measures the model of a run on a table at hand: of later patients, another hospital, a public set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.central import open_table
from v6_algorithm.researcher.cli.output import Force, refuse_done, results_folder, write_results
from v6_algorithm.researcher.cli.run import Quiet
from v6_algorithm.researcher.cli.terminal import Json, complain, explained, say, tell

Result = Annotated[
    Path, typer.Argument(metavar="RESULT", help="A run's folder, result.json or model file.", show_default=False)
]


def evaluate(
    result: Result,
    data: Annotated[
        str, typer.Option(metavar="URI", help="A table, a folder with one and its images, or a database with --query.")
    ],
    query: Annotated[str | None, typer.Option(metavar="SQL", help="For SQL databases.")] = None,
    sheet: Annotated[str | None, typer.Option(metavar="NAME", help="For Excel files.")] = None,
    subgroup: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN[:CUT,CUT]", help="Also by the values of a column, or bands of its numbers, as age:40,60."
        ),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write metrics and a report there.")
    ] = None,
    recalibrate: Annotated[
        bool,
        typer.Option(
            "--recalibrate", help="Also show intercept and slope of two classes, for predict --recalibrate DIR."
        ),
    ] = False,
    force: Force = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model that a run returned on all rows of a table of yours."""
    terminal.out.quiet = quiet
    with explained(json_):
        from v6_algorithm.experiment import Experiment, Source
        from v6_algorithm.researcher.external import CENTRAL, ReturnedModel
        from v6_algorithm.researcher.report import central_table, gap_lines

        refuse_done(out_dir, force)
        groups = [_subgroup(text) for text in subgroup or []]
        with terminal.err.status("loading …"):
            model = ReturnedModel.load(result)
            if groups:
                content = model.experiment.resolved()
                content["evaluation"]["subgroups"] = groups
                model = model.with_evaluation(Experiment.parse(content, "--subgroup", checked=True).evaluation)
            source = Source(uri=data, query=query, sheet_name=sheet)
            table = open_table(source, Path.cwd(), "--data", model.experiment)
        with terminal.err.status("measuring …"):
            measured = table.measure(model)
        report: dict[str, Any] = {
            "schema": 1,
            "name": model.experiment.name,
            "status": "evaluated",
            "model": str(result),
            "experiment": model.experiment.resolved() | {"central": source.model_dump(mode="json")},
            "metrics": {},
            "notes": [],
        }
        measured.add_to(report)
        terminal.out.print(central_table(report, terminal.out.width))
        for line in gap_lines(report, CENTRAL):
            say(line)
        for note in report["notes"]:
            # There are no other rows here to tell these from.
            say(f"note: {note.removeprefix('central: ')}")
        fit = None
        if recalibrate:
            from v6_algorithm.researcher.external.recalibrated import recalibration_of

            fit = recalibration_of(report)
            say(f"recalibration: logit risk = {fit['intercept']:.3f} + {fit['slope']:.3f} × the model's")
        tell({"name": report["name"], "model": str(result), "metrics": report["metrics"], "recalibration": fit,
              "notes": report["notes"], "folder": str(out_dir) if out_dir else None})  # fmt: skip
        if out_dir is not None:
            with results_folder(out_dir) as folder:
                paths, refused = write_results(report, folder)
            say(f"wrote {', '.join(path.relative_to(out_dir).as_posix() for path in paths) or 'nothing'} to {out_dir}")
            if refused is not None:
                complain(refused)
                raise typer.Exit(3)


def _subgroup(text: str) -> dict[str, Any]:
    """Read ``sex`` or ``age:40,60``."""
    column, separator, cuts = text.partition(":")
    if not separator:
        return {"column": column}
    try:
        return {"column": column, "bands": [float(cut) for cut in cuts.split(",")]}
    except ValueError:
        from v6_algorithm.errors import ExperimentError

        raise ExperimentError(f"--subgroup {text}: must be COLUMN, or COLUMN:CUT,CUT such as age:40,60") from None
