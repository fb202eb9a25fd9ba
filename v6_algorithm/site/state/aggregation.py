"""What a site keeps for secure aggregation while a run lasts: a secret, and what it has answered already.

Over which sites it opened which sum it keeps as long as its job: a run that is started again in it has other keys.
The secret is random and lies in the job's folder, or in the process where that lasts. Where the node has a secret of
its own (`V6_ALGORITHM_NODE_SECRET`), keys are derived from both: whoever reads the folder only has half.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Any

from v6_algorithm.data.cache import write_whole
from v6_algorithm.errors import SiteError, WireError
from v6_algorithm.exchange.secure_aggregation.keys import SiteKeys, digest, hkdf
from v6_algorithm.site.context import SiteContext


class AggregationState:
    """One run's secret and answers at one site.

    Parameters
    ----------
    context
        The site's surroundings.
    run, site
        Name of the run, and of the site in it.

    Raises
    ------
    SiteError
        Of kind ``request`` when there is no place that lasts from call to call.
    """

    def __init__(self, context: SiteContext, run: str, site: str) -> None:
        if context.state is None and not context.lasting:
            raise SiteError(
                "privacy.secure_aggregation: this site has no place that lasts from call to call; it needs a "
                "TEMPORARY_FOLDER, as vantage6's nodes have, or --engine local",
                "request",
            )
        self._context, self._run, self._site = context, run, site
        self._name = f"secure-aggregation-{digest([run, site])[:32]}.json"
        self._of_job = f"secure-aggregation-sums-{digest([site])[:32]}.json"

    def keys(self, *, begins: bool = False) -> SiteKeys:
        """Return the site's keys of the run; only where a run `begins` is a new secret made."""
        content = self._read(self._name)
        if content is None:
            if not begins:
                raise WireError("this site has no keys of this run: its folder was emptied, or the run is another")
            self._write(self._name, {"secret": secrets.token_hex(32), "answered": {}})
            content = self._read(self._name)
        if content is None:
            raise SiteError("privacy.secure_aggregation: this site's folder cannot be written", "request")
        of_node = (self._context.policy.node_secret or "").encode()
        secret = hkdf(bytes.fromhex(content["secret"]) + of_node, "run", self._run, self._site)
        return SiteKeys.derive(secret, self._run, self._site)

    def answer_once(self, question: str, content: str) -> None:
        """Note that a question is answered; raises WireError if it was before, with other content."""
        state = self._read(self._name)
        if state is None:
            raise WireError("this site has no keys of this run: its folder was emptied, or the run is another")
        before = state["answered"].get(question)
        if before is not None and before != content:
            raise WireError(f"{question} was answered already, to another request; a second answer would tell more")
        if before is None:
            state["answered"][question] = content
            self._write(self._name, state)
            if (self._read(self._name) or {}).get("answered", {}).get(question) != content:
                raise SiteError("privacy.secure_aggregation: this site's folder cannot be written", "request")

    def answered(self, question: str) -> str | None:
        """Return what `answer_once` noted of a question."""
        found: str | None = (self._read(self._name) or {"answered": {}})["answered"].get(question)
        return found

    def open_once(self, numbers: str, sites: Collection[str]) -> None:
        """Note over which sites the sum of some numbers is opened in this job, in whichever run of it.

        Raises
        ------
        WireError
            If it was before, over others: the difference of the two sums would tell a site's numbers.
        """
        opened = self._read(self._of_job) or {}
        before = opened.get(numbers)
        if before is not None and before != sorted(sites):
            raise WireError(
                f"the sum of these numbers was opened already in this task, over {', '.join(before)}; over other sites "
                "it stays closed, for the difference would tell the numbers of one"
            )
        if before is None:
            self._write(self._of_job, opened | {numbers: sorted(sites)})
            if (self._read(self._of_job) or {}).get(numbers) != sorted(sites):
                raise SiteError("privacy.secure_aggregation: this site's folder cannot be written", "request")

    def _read(self, name: str) -> dict[str, Any] | None:
        if self._context.state is None:
            kept: dict[str, Any] | None = self._context.memory.get(name)
            return kept
        try:
            content: dict[str, Any] = json.loads((self._context.state / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        if self._context.state is None:
            self._context.memory[name] = content
            return
        # mkstemp, which this uses, makes files that only their owner reads.
        write_whole(self._context.state, name, lambda path: _write_text(path, json.dumps(content)))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
