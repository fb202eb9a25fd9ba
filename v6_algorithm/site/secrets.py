"""The secrets of a node's configuration, which `engines` reads and `aggregation_state` makes keys of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from v6_algorithm.errors import PolicyError

NODE_VARIABLE = "V6_ALGORITHM_NODE_SECRET"
SHARED_VARIABLE = "V6_ALGORITHM_AGGREGATION_SECRET"
_LEAST_CHARACTERS = 32


@dataclass(frozen=True)
class NodeSecrets:
    """The secrets of a node's configuration.

    Attributes
    ----------
    own
        Of this node only; empty if it has none.
    shared
        Of all nodes of the collaboration, by which they know each other's keys; empty if they share none.
    """

    own: bytes = b""
    shared: bytes = b""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> NodeSecrets:
        """Read them; raises PolicyError, which names the variable, for one that can be guessed."""
        for name in (NODE_VARIABLE, SHARED_VARIABLE):
            given = environment.get(name)
            if given is not None and len(given.strip()) < _LEAST_CHARACTERS:
                raise PolicyError(f"{name} of this node must have at least {_LEAST_CHARACTERS} characters")
        return cls(*(environment.get(name, "").strip().encode() for name in (NODE_VARIABLE, SHARED_VARIABLE)))
