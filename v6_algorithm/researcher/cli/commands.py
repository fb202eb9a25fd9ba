"""All commands of the command line, in the order of its help, each with an example."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

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


def _paragraphs(command: Callable[..., Any]) -> str:
    """Return a command's help with each paragraph in one line, to be wrapped at the terminal's width."""
    return "\n\n".join(" ".join(text.split()) for text in inspect.cleandoc(command.__doc__ or "").split("\n\n"))


for _command, _example in (
    (init.init, "init hospital1.csv hospital2.csv --target outcome"),
    (run.run, "run heart.yaml --set rounds=40 --baselines --out runs/heart"),
    (resume.resume, "resume runs/heart"),
    (run.validate, "validate heart.yaml"),
    (check.check, "check heart.yaml --out checks.json"),
    (tune.tune, "tune heart.yaml --set training.batch_size=16 --out runs/tuned"),
    (evaluate.evaluate, "evaluate runs/heart --data later.csv --out runs/later"),
    (predict.predict, "predict runs/heart new_patients.csv --keep patient --out predictions.csv"),
    (export.export, "export runs/heart heart-model --format onnx"),
    (report.report, "report runs/heart-a runs/heart-b --out comparison.html"),
    (describe.describe, "describe heart.yaml --by sex --out runs/description"),
    (partition.partition, "partition patients.csv --by hospital --out hospitals"),
    (splits.split_columns, "split-columns patients.csv SPLIT_0.json SPLIT_1.json --key subject --out given.csv"),
    (generate.generate, "generate runs/gan --class melanoma --n 64 --out synthetic"),
    (package.package, "package networks.py:Attention plug-in --name attention"),
    (submit.submit, "submit heart.yaml --server https://vantage6.example.org/api --username ada --image IMAGE"),
    (submit.watch, "watch 12 --server https://vantage6.example.org/api --username ada"),
    (submit.cancel, "cancel 12 --server https://vantage6.example.org/api --username ada"),
    (approve.approve, "approve heart.yaml --show"),
    (doctor.doctor, "doctor --policy --table hospital.csv"),
):
    app.command(help=_paragraphs(_command), epilog=f"Example: v6-algorithm {_example}")(_command)
app.add_typer(image.app, name="image")
app.add_typer(network.app, name="network")
