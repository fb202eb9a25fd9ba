"""`doctor`: the self test of this machine, or of a container."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.cli import terminal
from v6_algorithm.researcher.cli.terminal import explained

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    policy: Annotated[
        bool,
        typer.Option("--policy", help="Show the node's rules in force here instead, and which attacks they hold off."),
    ] = False,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --policy: try attacks on this table, not on made-up rows.")
    ] = None,
    server_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Look at a vantage6 server's configuration instead: is it fit for long runs?"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for scripts.")] = False,
) -> None:
    """Check this machine, or this container: versions, GPU, memory, folders, file readers, a small experiment.

    Exit code 0: it can be used; 3: a problem stands in the way.
    """
    with explained():
        from v6_algorithm.researcher.doctor import examine, summary
        from v6_algorithm.researcher.doctor.attacks import rows_of
        from v6_algorithm.researcher.doctor.finding import named
        from v6_algorithm.researcher.doctor.rules import rules
        from v6_algorithm.researcher.doctor.server import server

        if table is not None and not policy:
            raise ExperimentError(f"--table {table}: goes with --policy, whose attacks are tried on it")
        if table is not None:
            rows_of(table)
        if policy and server_config is not None:
            raise ExperimentError("--policy and --server-config look at two machines; give one of them")
        looked_at = named("rule", rules(table=table)) if policy else examine()
        if server_config is not None:
            looked_at = named("server", server(server_config))
        findings = []
        for finding in looked_at:
            findings.append(finding)
            if not as_json:
                style, advice = _STYLES[finding.status], finding.advice and f"\n{'':24}{finding.advice}"
                line = f"[{style}]{finding.status:<8}[/] {finding.name:<14} {escape(finding.message + advice)}"
                terminal.out.print(line, soft_wrap=True)
        report = summary(findings)
        if as_json:
            import json

            terminal.print_raw(json.dumps(report, indent=2) + "\n")
        problems = sum(finding.status == "problem" for finding in findings)
        if problems:
            if not as_json:
                terminal.out.print(f"not usable: {problems} problem{'' if problems == 1 else 's'}")
            raise typer.Exit(3)
        if not as_json:
            terminal.out.print("usable")
