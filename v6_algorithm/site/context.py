"""A site's surroundings: its data, its owner's rules, its folder, its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v6_algorithm.data.sources import TableSource
from v6_algorithm.site.policy import Policy


@dataclass
class SiteContext:
    """One site's surroundings.

    Attributes
    ----------
    sources
        Where the data are, by member hospital: one member named like the site, except in a centralised run.
    policy
        The node owner's rules.
    state
        Folder that survives between rounds, or None.
    node_folder
        Folder of the node that outlives its jobs, or None: there it remembers of which rows it told.
    rounds_folder
        Folder for tensors that are kept from round to round, where there is no `state`; without one they are in
        `memory`, and lost with the process.
    memory
        What a process that serves several rounds may keep between them.
    lasting
        Whether it does serve them all, so that `memory` lasts as long as the run.
    shared
        What the sites of one process may keep together: what follows from the experiment and the agreement alone,
        nothing of a site's data.
    by_reference
        Whether the asker is this process too, and takes tensors as they are.
    """

    sources: Mapping[str, TableSource]
    policy: Policy = field(default_factory=Policy)
    state: Path | None = None
    node_folder: Path | None = None
    rounds_folder: Path | None = None
    memory: dict[Any, Any] = field(default_factory=dict)
    lasting: bool = False
    shared: dict[Any, Any] = field(default_factory=dict)
    by_reference: bool = False
