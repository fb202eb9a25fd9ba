"""How preparation asks the sites and takes their answers: a wrong one is dropped and named, unfit data end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange.protocol import Replies
from v6_algorithm.experiment.table_form import of_one_table

# Sends one RPC_prepare message to each of some sites: (sites, body of the message) -> replies.
Ask = Callable[[Sequence[str], dict[str, Any]], Replies]
Answer = TypeVar("Answer")


class Gather(Protocol):
    """`gather` with all but the question given."""

    def __call__(
        self, sites: Sequence[str], body: dict[str, Any], check: Callable[[Mapping[str, Any]], Answer]
    ) -> dict[str, Answer]:
        """Ask sites and check what they answer."""


def gather(
    ask: Ask,
    sites: Sequence[str],
    body: dict[str, Any],
    check: Callable[[Mapping[str, Any]], Answer],
    quorum: int,
    unfit: str = "stop",
) -> dict[str, Answer]:
    """Ask sites and check what they answer.

    Raises
    ------
    ExperimentError
        When a site's data do not fit the experiment; see `raise_data_errors`.
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
    raise_data_errors(replies, unfit)
    replies.require(quorum, "preparation")
    return answers


def raise_data_errors(replies: Replies, unfit: str = "stop") -> None:
    """End a run before it trains where data do not fit: a hospital must not drop out unseen over a column's name.

    `unfit` is `participation.unfit`: with ``leave_out`` the run ends only where nobody's data fit, for then it is the
    experiment that is wrong; who is left out is in the notes.
    """
    wrong = {site: missing for site, missing in replies.missing.items() if missing.kind in ("data", "request")}
    if wrong and (unfit == "stop" or not replies.answered):
        # Where nobody's fits, it is the experiment that says how tables are written.
        some_fit = len(replies.answered) > 0
        raise ExperimentError(
            "\n".join(
                f"site '{site}': {missing.reason}{of_one_table(missing.reason, site) if some_fit else ''}"
                for site, missing in sorted(wrong.items())
            )
        )
