"""SQL at a node: no query of a researcher's runs unless the owner's list has it. `engines` calls it for each source."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import PolicyError
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD


def query_hash(query: str) -> str:
    """Return the SHA-256 of a query without the spaces around it, 64 hexadecimal digits."""
    return hashlib.sha256(query.strip().encode("utf-8", "surrogatepass")).hexdigest()


def guarded_source(policy: Policy, source: TableSource) -> TableSource:
    """Return a source whose query this node runs, and which reads allowed columns only, whatever a query calls them.

    A query may name a column anything, so rules on the columns of its result say nothing of the table's. SQLite tells
    which columns a query reads; of other databases nobody does, so there the owner's list is needed.

    Raises
    ------
    PolicyError
        For a query that the node's list does not have.
    """
    if source.kind != "sql" or not source.query:
        return source
    allowed = policy.allowed_queries
    listed = allowed is not None and (
        source.query.strip() in allowed or query_hash(source.query) in {name.lower() for name in allowed}
    )
    variable = BY_FIELD["allowed_queries"].variable
    if allowed is not None and not listed:
        raise PolicyError(
            f"this node runs only SQL queries that its owner lists; this one, of hash "
            f"{query_hash(source.query)}, is none of {len(allowed)} ({variable})"
        )
    if policy.allowed_columns is None:
        return source
    if source.is_sqlite:
        return replace(source, readable=policy.allows)
    if not listed:
        raise PolicyError(
            f"this node has rules on columns, and of this database nobody can say which ones a query reads; "
            f"its owner has to list the query ({variable})"
        )
    return source
