"""How preparation asks the sites and takes their answers: a wrong one is dropped and named, unfit data end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange.protocol import Replies

# Sends one RPC_prepare message to each of some sites: (sites, body of the message) -> replies.
Ask = Callable[[Sequence[str], dict[str, Any]], Replies]
Answer = TypeVar("Answer")


def gather(
    ask: Ask,
    sites: Sequence[str],
    body: dict[str, Any],
    check: Callable[[Mapping[str, Any]], Answer],
    quorum: int,
) -> dict[str, Answer]:
    """Ask sites and check what they answer.

    Raises
    ------
    ExperimentError
        When a site's data do not fit the experiment.
    FederationError
        When fewer than `quorum` sites give a usable answer.
    """
    replies = ask(sites, body)
    answers: dict[str, Answer] = {}
    for site, reply in replies:
        try:
            answers[site] = check(reply)
        except (KeyError, TypeError, AttributeError, ValueError, WireError) as error:
            replies.reject(site, str(error) if isinstance(error, WireError) else "its statistics are malformed")
    raise_data_errors(replies)
    replies.require(quorum, "preparation")
    return answers


def raise_data_errors(replies: Replies) -> None:
    """Data that do not fit end the run before it trains: a hospital must not drop out unseen over a column's name."""
    wrong = {site: missing for site, missing in replies.missing.items() if missing.kind in ("data", "request")}
    if wrong:
        raise ExperimentError("\n".join(f"site '{site}': {missing.reason}" for site, missing in sorted(wrong.items())))
