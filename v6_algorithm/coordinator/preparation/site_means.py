"""What the training rows of each site are like, for the report: values and means of each column, as sites told them.

Nothing more is asked for: these are the moments that scaling is made of, under the site's own rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from v6_algorithm.data.preparation.statistics import Moments

# Of a table of thousands of columns these would be most of the result.
MOST_COLUMNS = 200


def site_means(moments: Mapping[str, Moments], features: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return by site the training rows of the first fold, and of each column its values, mean and sd, to four digits.

    Columns of which a site tells nothing, since too few rows have a value, have n 0 and no mean.
    """
    if len(features) > MOST_COLUMNS:
        return {}
    described = {}
    for site, of_site in sorted(moments.items()):
        numbers = zip(features, of_site.count[0], of_site.mean[0], of_site.deviation[0], strict=True)
        described[site] = {
            "rows": int(of_site.rows[0]),
            "columns": {
                name: {
                    "n": int(n),
                    "mean": float(f"{mean:.4g}") if n else None,
                    "sd": float(f"{deviation:.4g}") if n else None,
                }
                for name, n, mean, deviation in numbers
            },
        }
    return described
