"""What the researcher is told of the sites' files: what their readers took for granted, with the way to say otherwise.

`negotiate` and the description of tables make their notes here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from v6_algorithm.data.reading.assumed import KINDS, Told
from v6_algorithm.data.rows.kind import listed, some


def tell_assumed(by_site: Mapping[str, Sequence[Told]]) -> list[str]:
    """Return a note for each thing that was assumed, which names the sites at which it was; "" is no name."""
    sites: dict[tuple[str, tuple[str, ...]], dict[str, int | None]] = {}
    for site, told in by_site.items():
        for name, details, count in told:
            sites.setdefault((name, tuple(details)), {})[site] = count
    notes = []
    for (name, details), counts in sites.items():
        known = [count for count in counts.values() if count is not None]
        # Sheets of books are not added up.
        count = None if len(known) < len(counts) else sum(known) if KINDS[name].rows else max(known)
        where = (
            f"sites {listed(counts)}: " if len(counts) > 1 else "".join(f"site '{site}': " for site in counts if site)
        )
        shown = f": {listed(details)}" if details else ""
        remedy = f"; {KINDS[name].remedy}" if KINDS[name].remedy else ""
        notes.append(f"{where}{KINDS[name].text.format(count=some(count))}{shown}{remedy}")
    return notes
