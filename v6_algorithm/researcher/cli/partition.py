"""`partition` cuts one table into simulated hospitals: files, node configurations, an experiment, and who got what."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.output import Force, refuse_done, results_folder
from v6_algorithm.researcher.cli.terminal import Json, choice, explained, say, tell

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.experiment.table_form import TableForm

_KINDS = (
    "iid", "balanced", "unbalanced", "sizes", "size_skew", "dirichlet", "inner_dirichlet", "pathological", "shards",
    "per_class", "counts", "natural", "grouped", "continuous", "slices",
)  # fmt: skip
Separator = Annotated[
    str | None, typer.Option(metavar="CHAR", help="Of a csv: what separates cells.", show_default="comma")
]
Encoding = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a csv: such as latin-1 or utf-16.", show_default="utf-8")
]
# Beside the package in a checkout; an installed package has no config/ folder.
_TEMPLATE = Path(__file__).parents[3] / "config" / "node_configuration.yaml"


def partition(
    file: Annotated[str, typer.Argument(help="csv, parquet, excel, or builtin:NAME.", show_default=False)],
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the sites' files go.")],
    kind: Annotated[
        str | None,
        typer.Option(
            **{**choice(*_KINDS), "metavar": "KIND"}, help=f"How to cut: {', '.join(_KINDS)}.", show_default="iid"
        ),
    ] = None,
    sites: Annotated[
        int | None, typer.Option(help="Number of sites.", show_default="none: required by most kinds")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that the kind looks at.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another key of the kind, such as alpha=0.1 or sizes=[5,3,2]."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="YAML file with these keys, as `sites.partition` of an experiment.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to learn.")] = None,
    positive: Annotated[str | None, typer.Option(metavar="CONDITION", help="Makes the target 0/1: '> 0'.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Rows of one value, such as a patient, stay at one site.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same sites, here and in `run`.")] = 0,
    node_template: Annotated[
        Path | None, typer.Option(help="Node configuration to fill in.", show_default="config/node_configuration.yaml")
    ] = None,
    separator: Separator = None,
    decimal: Annotated[
        str | None, typer.Option(metavar="CHAR", help="Of a csv: the decimal mark.", show_default="point")
    ] = None,
    encoding: Encoding = None,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Cut one table into simulated hospitals."""
    with explained(json_):
        from v6_algorithm import seeding
        from v6_algorithm.data.partition import files, tables
        from v6_algorithm.experiment import parse_partition

        refuse_done(out_dir, force, "experiment.yaml")
        form = read_form(separator, encoding, decimal)
        source = _source(file, form)
        given = {"kind": kind, "sites": sites, "by": by}
        given = {key: value for key, value in given.items() if value is not None}
        content = _section(plan, given, set_)
        try:
            section = parse_partition(content)
        except ExperimentError as error:
            raise ExperimentError(_of_options(str(error), given, content.get("kind", "iid"))) from None
        data = {"target": target, "positive": positive, "group": group}
        data = {key: value for key, value in data.items() if value is not None}
        needed = tables.columns_of(section, target=target, group=group)
        frame = _read(source, needed)
        for name in data.keys() & {"target", "group"}:
            if data[name] not in frame.columns:
                raise ExperimentError(f"--{name} {data[name]}: there is no such column in {file}")
        generator = seeding.numpy_generator(seed, "partition")
        parts = tables.cut_table(section, frame, generator, target=target, positive=positive, group=group)
        again = _again()
        title = f"{Path(file).name}: {section.kind}, {len(parts.names)} sites"
        summary = parts.summary(len(frame)) | {"title": title, "again": again}
        with results_folder(out_dir) as folder:
            ending = ".parquet" if source.kind == "parquet" and source.frame is None else ".csv"
            names = files.file_names(parts.names, ending)
            files.write_tables(source, parts, names, folder)
            if parts.part is not None:
                data["split_column"] = tables.PART_COLUMN
            # Tables are written in UTF-8.
            data |= {
                key: mark for key, mark in (("separator", form.separator), ("decimal", decimal)) if mark is not None
            }
            (folder / "experiment.yaml").write_text(files.experiment_text(names, again, data), encoding="utf-8")
            nodes = _write_nodes(node_template, names, source, folder)
            _report(summary, folder)
        tell({"folder": str(out_dir), "tables": names, "summary": summary})
        say(f"wrote {len(names)} tables, experiment.yaml, partition.html{nodes} to {folder}")


def read_form(separator: str | None, encoding: str | None, decimal: str | None = None) -> TableForm:
    """Read how a csv is written from options, which have the rules of an experiment's keys."""
    from pydantic import TypeAdapter, ValidationError

    from v6_algorithm.experiment import table_form

    separator = "\t" if separator in ("\\t", "tab") else separator
    given: list[tuple[str, str | None, Any]] = [
        ("separator", separator, table_form.Separator),
        ("encoding", encoding, table_form.Encoding),
        ("decimal", decimal, table_form.Decimal),
    ]
    for name, value, rule in given:
        try:
            TypeAdapter(rule).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ExperimentError(f"--{name} {value}: {message}") from None
    return table_form.TableForm(separator=separator, encoding=encoding, decimal=decimal)


def _section(plan: Path | None, given: dict[str, Any], overrides: list[str] | None) -> dict[str, Any]:
    from v6_algorithm.experiment.reading import apply_overrides, read_file

    content = {} if plan is None else read_file(plan)
    if not isinstance(content, dict):
        raise ExperimentError(f"{plan}: must be a mapping of keys to values, such as `kind: iid`")
    content |= given
    apply_overrides(content, overrides or [])
    return content


def _of_options(message: str, given: dict[str, Any], kind: str) -> str:
    """Write what is wrong with a partition's keys as of the command's options, whose names whoever typed them knows."""
    lines = re.sub(r"^partition\.(kind|sites|by):", r"--\1:", message, flags=re.M)
    lines = re.sub(r"^--sites: is required$", f"--sites: is required with kind {kind}", lines, flags=re.M)
    for key in given:
        lines = re.sub(rf"^partition: unknown key '{key}'", f"--{key}: does not go with kind {kind}", lines, flags=re.M)
    return lines


def _source(file: str, form: TableForm) -> TableSource:
    from v6_algorithm.data.builtin import load_builtin
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.experiment.reading import meant

    if file.startswith("builtin:"):
        try:
            return TableSource(frame=load_builtin(file.removeprefix("builtin:")))
        except ExperimentError as error:
            raise ExperimentError(str(error).removeprefix("sites.source: ")) from None
    if Path(file).is_dir():
        raise ExperimentError(
            f"{file} is a folder; give the table in it, and in the experiment `images: {file}` beside each `uri`"
        )
    if not Path(file).is_file():
        raise ExperimentError(f"there is no file {file}{meant(Path(file))}")
    source = TableSource(file, form=form)
    if source.kind == "sql":
        raise ExperimentError(f"{file} is a database; export the table as csv or parquet")
    return source


def _read(source: TableSource, columns: list[str]) -> pd.DataFrame:
    """Read what the partition looks at, or where it looks at nothing the whole table, for its number of rows."""
    from v6_algorithm.errors import DataError

    try:
        if not columns:
            return source.read()
        return source.read(set(columns).__contains__)
    except DataError as error:
        raise ExperimentError(str(error)) from None


def _again() -> str:
    return shlex.join(["v6-algorithm", *sys.argv[1:]])


def _write_nodes(given: Path | None, names: dict[str, str], source: TableSource, folder: Path) -> str:
    """Write a node configuration for each site; without a template there are none, and it is said."""
    from v6_algorithm.data.partition import files

    if given is None and not _TEMPLATE.exists():
        say("note: no node configurations: give a file to fill in with --node-template")
        return ""
    template = files.read_template(given or _TEMPLATE)
    columns = files.column_names(folder / next(iter(names.values())), source.form.separator or ",")
    (folder / "nodes").mkdir(exist_ok=True)
    for site, name in names.items():
        text = files.node_text(template, site, (folder / name).resolve(), Path(name).suffix[1:], columns)
        (folder / "nodes" / f"{Path(name).stem}.yaml").write_text(text, encoding="utf-8")
    return ", nodes/*.yaml"


def _report(summary: dict[str, Any], folder: Path) -> None:
    from v6_algorithm.researcher.report.partition import partition_page, partition_table

    (folder / "partition.html").write_text(partition_page(summary), encoding="utf-8")
    terminal.out.print(partition_table(summary))
    if summary["left_out"]:
        say(f"{summary['left_out']:,} of {summary['rows']:,} rows are at no site")
