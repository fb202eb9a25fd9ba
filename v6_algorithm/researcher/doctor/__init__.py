"""The self test: can this machine, or this container, run v6_algorithm, and what is it made of.

`v6-algorithm doctor` prints the findings; `v6-algorithm image test` runs it in a fresh container. No finding holds
the value of an environment variable other than a folder's path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from v6_algorithm.errors import V6AlgorithmError
from v6_algorithm.researcher.doctor import environment, hardware, software, trial
from v6_algorithm.researcher.doctor.finding import Finding, named, problem

__all__ = ["SCHEMA", "Finding", "examine", "summary"]

SCHEMA = 1
_CHECKS: dict[str, Callable[[], Finding | Iterable[Finding]]] = {
    "python": software.python,
    "package": software.package,
    "torch": software.torch,
    "libraries": software.libraries,
    "vantage6": software.vantage6,
    "readers": software.readers,
    "functions": software.functions,
    "plug-ins": software.plug_ins,
    "gpu": hardware.gpu,
    "cpu": hardware.cpu,
    "memory": hardware.memory,
    "shared memory": hardware.shared_memory,
    "folders": environment.folders,
    "variables": environment.variables,
    "guards": environment.guards,
    "training": trial.training,
}


def examine() -> Iterator[Finding]:
    """Yield what the checks found, as they find it; a check that fails in a way nobody thought of is a problem."""
    for name, check in _CHECKS.items():
        try:
            yield from named(name, check())
        except V6AlgorithmError as error:
            yield problem(str(error), "report it", name=name)
        except Exception as error:
            # Type only: the message is someone else's, and may quote a variable.
            yield problem(
                f"the check ended in {type(error).__name__}", "try what it names by hand, or report it", name=name
            )


def summary(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return the findings as JSON, for an operator's script.

    Returns
    -------
    dict
        ``schema``, ``usable`` (no finding is a problem), ``versions`` (package to version, None when it is not
        installed), ``findings`` (each with ``name``, ``status`` ok, note or problem, ``message``, ``advice`` and
        ``details``).
    """
    findings = list(findings)
    return {
        "schema": SCHEMA,
        "usable": all(finding.status != "problem" for finding in findings),
        "versions": software.versions(),
        "findings": [finding.to_json() for finding in findings],
    }
