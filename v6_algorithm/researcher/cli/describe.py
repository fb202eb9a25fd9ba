"""`describe` shows what the sites' tables hold, as far as they may tell, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.output import Force, refuse_done
from v6_algorithm.researcher.cli.run import File, Set, load_experiment
from v6_algorithm.researcher.cli.terminal import Json, explained, say, tell, writing


def describe(
    file: File,
    set_: Set = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write summary.json and summary.csv there.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|site", help="Also compare groups: Table 1, and survival curves (evaluation.by)."),
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Describe the tables of an experiment's sites: counts, means, quantiles, labels, correlations; Table 1 by group.

    With --by and a survival target also Kaplan-Meier curves and log-rank tests.
    """
    with explained(json_):
        from v6_algorithm.coordinator.description.describe import describe as describe_sites
        from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
        from v6_algorithm.researcher.report.summary import summary_tables, write_summary

        refuse_done(out_dir, force, "summary.json")
        # A centralised run pools the tables; a description is of each.
        overrides = [*(set_ or []), *([f"evaluation.by={by}"] if by else [])]
        experiment = load_experiment(file, overrides).model_copy(update={"mode": "federated"})
        tables = tables_of(experiment, file.parent, experiment_file=file)
        summary = describe_sites(local_federation(experiment, tables), experiment)
        tell(summary)
        for table in summary_tables(summary):
            terminal.out.print(table)
        for note in summary["notes"]:
            say(f"note: {note}")
        for site, reason in summary["missing_sites"].items():
            say(f"note: site '{site}' is not in this: {reason}")
        if out_dir is not None:
            with writing(out_dir):
                paths = write_summary(summary, out_dir)
            say(f"wrote {', '.join(path.name for path in paths)} to {out_dir}")
