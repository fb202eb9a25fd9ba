"""Every way the package says no, and the exit code that goes with it.

Messages name the thing, the value the researcher gave and what is allowed. They never hold values from the data:
what a site raises travels to the researcher as text.
"""

from __future__ import annotations


class V6AlgorithmError(Exception):
    """Base of all errors that are explained rather than traced."""

    exit_code = 1


class ExperimentError(V6AlgorithmError):
    """The experiment, a file it names, or the data at a site does not fit; nothing was trained."""

    exit_code = 2


class ServerError(V6AlgorithmError):
    """A vantage6 server cannot do what was asked: address, log-in, a name or a task is wrong; nothing was started."""

    exit_code = 2


class SecondFactorError(ServerError):
    """The server wants a code of two-factor authentication."""


class FederationError(V6AlgorithmError):
    """The federation could not go on: too few sites answered. What was computed so far is kept."""

    exit_code = 3


class TooFewSitesError(FederationError):
    """A robust rule has fewer sites' updates than it needs for the number of malicious ones it is to bear."""


class UnreachableError(FederationError):
    """A server did not answer now; it may a moment later."""


class CheckpointError(V6AlgorithmError):
    """There is no checkpoint to go on from, it cannot be read, or it is of another experiment."""

    exit_code = 2


class ImageError(V6AlgorithmError):
    """The algorithm's image could not be built, tried or pushed: no Docker engine answers, or it says no."""

    exit_code = 3


class WireError(V6AlgorithmError):
    """A message does not follow the payload format, or its tensors are not the ones expected."""


class SiteError(V6AlgorithmError):
    """A site cannot answer a request; the reason travels back in its reply.

    Parameters
    ----------
    message
        What is wrong and what is allowed, without data values.
    kind
        ``data`` (the site's table does not fit the experiment), ``refused`` (the node's policy forbids it),
        ``absent`` (the node has no such database), ``diverged`` (training left the finite numbers) or ``bug``.
    """

    kind = "bug"

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        if kind is not None:
            self.kind = kind


class DataError(SiteError):
    """The site's data do not fit the experiment."""

    kind = "data"
    # At the desk, where a file of the researcher's is read.
    exit_code = 2


class PolicyError(SiteError):
    """The node's owner does not allow this request."""

    kind = "refused"
    exit_code = 2


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM, or SIGHUP of a closed terminal): whoever did will not wait long."""
