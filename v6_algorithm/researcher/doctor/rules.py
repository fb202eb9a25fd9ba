"""The node owner's rules as `doctor --policy` shows them: what is in force, and what is wrong in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from v6_algorithm.errors import PolicyError
from v6_algorithm.researcher.doctor.finding import Finding, ok, problem
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import PRESET, RULES


def rules(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield a finding for each rule in force; one problem for all that cannot be read, for then no rule is."""
    try:
        policy = Policy.from_environment(environment)
    except PolicyError as error:
        for line in str(error).split("; V6_") if "; V6_" in str(error) else [str(error)]:
            text = line if line.startswith("V") else f"V6_{line}"
            yield problem(text, "correct the node's algorithm_env; until then it refuses every task", name="rule")
        return
    given = "by the environment" if PRESET in environment else "for none is named"
    yield ok(f"{PRESET} is {policy.preset}, {given}", name="preset", preset=policy.preset)
    for rule in RULES:
        value = policy.in_force()[rule.field]
        shown = "no limit" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
        source = " (set here)" if rule.variable in environment else ""
        yield ok(f"{rule.variable} = {shown}{source}: {rule.means}", name="rule", rule=rule.field, value=value)
