"""The node owner's rules as `doctor --policy` shows them: what is in force, and what is wrong in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from v6_algorithm.errors import PolicyError
from v6_algorithm.researcher.doctor.attacks import ATTACKS, TWO_TASKS, attempt, made_up_rows, rows_of
from v6_algorithm.researcher.doctor.finding import Finding, note, ok, problem
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD, PRESET, RULES


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
        shown = "no limit" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
        source = " (set here)" if rule.variable in environment else ""
        yield ok(f"{rule.variable} = {shown}{source}: {rule.means}", rule=rule.field, value=value)
    try:
        policy.check_ledger()
    except PolicyError as error:
        fix = f"mount a folder that lasts and set {BY_FIELD['ledger_folder'].variable}; below, attacks as if it were"
        yield replace(problem(f"nothing is answered: {error}", fix), name="ledger")
        policy = replace(policy, ledger_folder="as if")
    if policy.refuse_differences and policy.ledger_folder is None:
        yield replace(
            note(
                f"{BY_FIELD['refuse_differences'].variable} holds within one task only: two tasks that differ by one "
                "patient tell that patient, and this node would not notice",
                f"mount a folder into the node's containers, and name it in {BY_FIELD['ledger_folder'].variable}",
            ),
            name="ledger",
        )
    frame = made_up_rows() if table is None else rows_of(table)
    for name in ATTACKS:
        rows, refusal = attempt(name, policy, frame)
        if rows:
            finding = f"{name}: {rows} of {len(frame)} rows came out"
            last = name == TWO_TASKS and policy.refuse_differences
            fix = f"{BY_FIELD['ledger_folder'].variable}: a folder that lasts" if last else f"{PRESET}: standard"
            yield replace(note(finding, f"{fix} holds it off", attack=name, rows=rows), name="attack")
        else:
            finding = f"{name}: nothing came out; {refusal or 'what was answered tells no row'}"
            yield replace(ok(finding, attack=name, rows=0), name="attack")
