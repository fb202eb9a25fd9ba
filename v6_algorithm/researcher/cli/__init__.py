"""The command line, a file for each group of commands: they parse, call and print. The console script is `main`."""

from __future__ import annotations

from typing import Annotated

import typer

from v6_algorithm.researcher.cli import (
    approve,
    check,
    describe,
    doctor,
    evaluate,
    export,
    generate,
    image,
    init,
    network,
    package,
    partition,
    predict,
    report,
    resume,
    run,
    splits,
    submit,
    terminal,
    tune,
)

app = typer.Typer(
    name="v6-algorithm",
    help="Federated deep learning for biomedical data.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        terminal.out.print(f"v6-algorithm {installed('v6-algorithm')}")
        raise typer.Exit


app.command()(init.init)
app.command()(run.run)
app.command()(resume.resume)
app.command()(run.validate)
app.command()(check.check)
app.command()(tune.tune)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(export.export)
app.command()(report.report)
app.command()(describe.describe)
app.command()(partition.partition)
app.command()(splits.split_columns)
app.command()(generate.generate)
app.command()(package.package)
app.command()(submit.submit)
app.command()(submit.watch)
app.command()(submit.cancel)
app.command()(approve.approve)
app.command()(doctor.doctor)
app.add_typer(image.app, name="image")
app.add_typer(network.app, name="network")


def main() -> None:
    """Run the command line; the console script `v6-algorithm`."""
    app()
