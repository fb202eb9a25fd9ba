"""Whether a patient's rows stand at two hospitals: keyed hashes of `data.group` that the coordinator can compare.

`site.preparing` makes them where the node's owner allows it. A hash of a number that anybody can count through hides
little from whoever knows the key: that is the experiment's fingerprint, or a secret that only the nodes share.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from typing import TYPE_CHECKING

from v6_algorithm.data.targets import canonical

if TYPE_CHECKING:
    import pandas as pd

# 64 bits: of a million patients, two have the same hash in one of 40 million runs.
_DIGITS = 16


def hash_groups(column: pd.Series, key: bytes) -> list[str]:
    """Return a hash of each group, sorted, 16 hexadecimal digits each; rows without a group have none.

    Case, spaces, Unicode form and what is not seen make no other patient; leading zeros do.
    """
    names = {_plain(value) for value in canonical(column.dropna())}
    return sorted(
        hmac.new(key, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:_DIGITS] for name in names
    )


def _plain(value: object) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", str(value)).casefold())
    return "".join(letter for letter in folded if not letter.isspace() and unicodedata.category(letter) != "Cf")
