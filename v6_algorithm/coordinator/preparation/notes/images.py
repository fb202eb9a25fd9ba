"""What the researcher is told of the sites' images before training: copies, and values that do not go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.rows.kind import some

# Scanners differ by a factor of a few; bytes and shares of one by 255, Hounsfield units and bytes by about 10.
_MOST_APART = 10.0
# Pixels that are 0 or more, at whatever scale, do not have means so many standard deviations apart (the wider site's);
# Hounsfield units and the same plus 1024, or black and white exchanged, have.
_MOST_SHIFTED = 1.75
# Of means in standard deviations: values around 0, such as -1 to 1, and such as begin at 0.
_AROUND_ZERO, _FROM_ZERO = 0.1, 0.75


def tell_values(moments: Mapping[str, Moments]) -> list[str]:
    """Say so where the sites' pixels are of different size, such as 0 to 1 from PNG here and 0 to 255 from npy there.

    Of each site it is the root mean square of the first fold's training images, over all channels.
    """
    sizes, middles = {}, {}
    for site, site_moments in moments.items():
        count = np.maximum(site_moments.count[0], 1)
        size = float(np.sqrt(np.mean(site_moments.mean[0] ** 2 + site_moments.squares[0] / count)))
        if size > 0:
            sizes[site], middles[site] = size, float(np.mean(site_moments.mean[0]))
    if len(sizes) < 2:
        return []
    if max(sizes.values()) < _MOST_APART * min(sizes.values()):
        return _tell_shifts(sizes, middles)
    ranked = sorted(sizes, key=lambda site: sizes[site])
    listing = ", ".join(f"{site} {sizes[site]:.3g}" for site in ranked)
    return [
        f"the sites' images differ {sizes[ranked[-1]] / sizes[ranked[0]]:.0f}-fold in the size of their values (root "
        f"mean square: {listing}); PNG and JPEG files are 0 to 1, arrays as stored; the model sees them so, until "
        "they are stored alike"
    ]


def tell_ends(images: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say the same of a description, by the mean lowest and highest values of each site's images."""
    ends = {
        site: max(abs(image["low"]), abs(image["high"]))
        for site, image in images.items()
        if image["low"] is not None and image["high"] is not None
    }
    ends = {site: end for site, end in ends.items() if end > 0}
    if len(ends) < 2 or max(ends.values()) < _MOST_APART * min(ends.values()):
        return []
    listing = ", ".join(f"{site} {images[site]['low']:.3g} to {images[site]['high']:.3g}" for site in sorted(ends))
    return [
        f"the sites' images differ {max(ends.values()) / min(ends.values()):.0f}-fold in their values (mean lowest to "
        f"mean highest: {listing}); PNG and JPEG files are 0 to 1, arrays as stored: store them alike, or give "
        "data.image.range"
    ]


def _tell_shifts(sizes: Mapping[str, float], middles: Mapping[str, float]) -> list[str]:
    """Say so where values of about one size lie elsewhere, from root mean squares and means of the sites."""
    spreads = {site: float(np.sqrt(max(size**2 - middles[site] ** 2, 0.0))) for site, size in sizes.items()}
    apart = max(middles.values()) - min(middles.values())
    places = [middles[site] / spread if spread else np.inf for site, spread in spreads.items()]
    centred = min(map(abs, places)) < _AROUND_ZERO and max(places) > _FROM_ZERO
    if apart <= _MOST_SHIFTED * max(spreads.values()) and not centred:
        return []
    listing = ", ".join(f"{site} {middles[site]:.3g} ± {spreads[site]:.3g}" for site in sorted(sizes))
    return [
        f"the sites' images differ in where their values lie (mean ± standard deviation: {listing}), such as "
        "Hounsfield units here and the same plus 1024 there, black and white exchanged, or -1 to 1 beside 0 to 1; the "
        "model sees them so, until they are stored alike"
    ]


def tell_copies(copies: Mapping[str, Mapping[str, int | None]]) -> list[str]:
    """Say of each site how many images are copies of others; where a given split parts them, that it does."""
    notes = []
    for site, seen in copies.items():
        if seen["apart"] != 0:
            notes.append(
                f"site '{site}': {some(seen['apart'])} images have an exact copy in another part of the given split, "
                "so that what is tested was trained on"
            )
        elif seen["rows"] != 0:
            notes.append(
                f"site '{site}': {some(seen['rows'])} images are exact copies of others; copies stay in one part, "
                "and with them all images of their groups"
            )
    return notes
