"""What each of the package's functions is, in the words by which vantage6 4 and 5, and their mocks, know it.

The tools' own decorators say the same, but import a second of libraries at every start.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any


class Step(StrEnum):
    """What a function is to vantage6 5, which runs none that does not say."""

    EXTRACTION = "data_extraction"
    CENTRAL = "central_compute"
    FEDERATED = "federated_compute"


def mark_central(*functions: Callable[..., Any]) -> None:
    """Mark functions that create subtasks: the mocks pass them their client."""
    for function in functions:
        vars(function).update(
            wrapped_in_algorithm_client_decorator=True,
            vantage6_algorithm_client_decorated=True,
            vantage6_decorator_step_type=Step.CENTRAL,
        )


def mark_federated(*functions: Callable[..., Any]) -> None:
    """Mark functions that work on a site's data: the mocks pass them theirs."""
    for function in functions:
        vars(function).update(
            wrapped_in_data_decorator=True,
            vantage6_dataframe_decorated=True,
            vantage6_decorator_step_type=Step.FEDERATED,
        )


def mark_of_version_4(*functions: Callable[..., Any]) -> None:
    """Mark functions for sites that need what a container of vantage6 5 has not, which is a token."""
    for function in functions:
        vars(function).update(wrapped_in_data_decorator=True)


def mark_extraction(*functions: Callable[..., Any]) -> None:
    """Mark functions that read a node's database into a session, which vantage6 4 has not."""
    for function in functions:
        vars(function).update(vantage6_decorator_step_type=Step.EXTRACTION)
