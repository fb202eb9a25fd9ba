"""The node owner's rules as `doctor --policy` shows them: what is in force, and what is wrong in the environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from v6_algorithm.errors import PolicyError
from v6_algorithm.researcher.doctor.attacks import ATTACKS, IN_ROUNDS, IN_UPDATES, attempt, made_up_rows, rows_of
from v6_algorithm.researcher.doctor.finding import Finding, note, ok, problem
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD, PRESET, RULES


def _shown(kind: str, value: Any) -> str:
    """Write a rule's value for a reader; of a pattern, path or secret is known only whether there is one."""
    if kind in ("pattern", "path", "secret"):
        return "set" if value else "not set"
    if value is None:
        return "no limit"
    if kind in ("words", "lines"):
        return f"{value} listed"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else f"{value}"


def rules(environment: Mapping[str, str] = os.environ, table: Path | None = None) -> Iterator[Finding]:
    """Yield a finding for each rule in force and each attack; problems where a rule cannot be read, for then none is.

    Attacks are tried on made-up rows, or on numeric columns of a table; nothing of it is shown.
    """
    try:
        policy = Policy.from_environment(environment)
    except PolicyError as error:
        for line in str(error).split("; V6_") if "; V6_" in str(error) else [str(error)]:
            text = line if line.startswith("V") else f"V6_{line}"
            yield problem(text, "correct the node's algorithm_env; until then it refuses every task", name="rule")
        return
    given = "by the environment" if PRESET in environment else "for none is named"
    yield replace(ok(f"{PRESET} is {policy.preset}, {given}", preset=policy.preset), name="preset")
    for rule in RULES:
        value = policy.in_force()[rule.field]
        shown = _shown(rule.kind, value)
        source = " (set here)" if rule.variable in environment else ""
        yield ok(f"{rule.variable} = {shown}{source}: {rule.means}", rule=rule.field, value=value)
    try:
        policy.check_ledger()
    except PolicyError as error:
        fix = f"mount a folder that lasts and set {BY_FIELD['ledger_folder'].variable}; below, attacks as if it were"
        yield replace(problem(f"nothing is answered: {error}", fix), name="ledger")
        policy = replace(policy, ledger_folder="as if")
    if policy.ledger_folder not in (None, "as if"):
        yield replace(_written_to(Path(policy.ledger_folder)), name="ledger folder")
    if policy.refuse_differences and policy.ledger_folder is None:
        yield replace(
            ok(
                f"{BY_FIELD['refuse_differences'].variable} holds over tasks in the volume that a node of vantage6 4 "
                "mounts as /mnt/data, over those of a session under vantage6 5, and within one task elsewhere; budgets "
                f"of sums and epsilon begin anew with each task ({BY_FIELD['ledger_folder'].variable} lets them last)"
            ),
            name="ledger",
        )
    frame = made_up_rows() if table is None else rows_of(table)
    for name in ATTACKS:
        rows, refusal = attempt(name, policy, frame)
        if rows:
            finding = f"{name}: {rows} of {len(frame)} rows came out"
            yield replace(note(finding, _held_off_by(name), attack=name, rows=rows), name="attack")
        else:
            finding = f"{name}: nothing came out; {refusal or 'what was answered tells no row'}"
            yield replace(ok(finding, attack=name, rows=0), name="attack")


def _held_off_by(attack: str) -> str:
    """Say what holds an attack off that read rows."""
    if attack == IN_ROUNDS:
        return f"{BY_FIELD['round_metrics'].variable}: false holds it off; best round and early stopping go without"
    if attack == IN_UPDATES:
        return f"differential privacy alone holds it off ({BY_FIELD['maximum_epsilon'].variable})"
    return f"{PRESET}: standard holds it off"


def _written_to(folder: Path) -> Finding:
    """Try whether the ledger can be kept in a folder; what is tried is taken away again."""
    variable = BY_FIELD["ledger_folder"].variable
    place = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    # A database's folder is mounted at /mnt/LABEL: at the host, and in a container without it, there is none.
    if folder.parts[:2] == ("/", "mnt") and place in (Path("/"), Path("/mnt")):
        return note(
            f"{variable} = {folder} is not on this machine, so nobody tried to write to it",
            "run this in a container of the image with the folder mounted there, as the node does: docker run --rm "
            f"-v A FOLDER OF THE HOST:{folder} -e {variable}={folder} -e {PRESET}=… IMAGE v6-algorithm doctor --policy",
        )
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return problem(
            f"{variable} = {folder} cannot be written to ({type(error).__name__}); nothing is answered until it can",
            "mount it without `mount_mode: ro`, and let the containers' user write to it",
        )
    return ok(f"{variable} = {folder} can be written to")
