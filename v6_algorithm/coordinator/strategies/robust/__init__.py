"""Robust rules: aggregates that a few malicious or broken sites move only by a bounded amount.

Every rule is a pure function of the sites' updates, as flat vectors: a (sites, numbers) tensor, or a list of vectors
of any float dtype, of which the rules of one coordinate at a time convert a slice at a time. Sums and distances are
in float64, as is the result. `f` is the number of malicious sites that a rule is to bear.

The order of the sites changes nothing: to the bit for the rules that select or sort, to rounding for the others.

Parameters
----------
All rules share these, and document their own.

updates
    (sites, numbers) or that many vectors.
malicious
    f, the sites to bear; how many sites that needs is in `experiment.strategy.combine.MINIMUM`.
weights
    (sites,), none negative; equal ones if absent. Only of the rules that know weights.

Returns
-------
Tensor
    (numbers,), float64.

Raises
------
TooFewSitesError
    When there are too few sites for so many malicious ones.
ValueError
    When the weights are not weights.
"""

from v6_algorithm.coordinator.strategies.robust.clipping import centred_clipping, norm_clipping
from v6_algorithm.coordinator.strategies.robust.coordinates import coordinate_median, trimmed_mean
from v6_algorithm.coordinator.strategies.robust.geometric import geometric_median
from v6_algorithm.coordinator.strategies.robust.krum import bulyan, krum, multi_krum
from v6_algorithm.coordinator.strategies.robust.rules import create_rule

__all__ = [
    "bulyan",
    "centred_clipping",
    "coordinate_median",
    "create_rule",
    "geometric_median",
    "krum",
    "multi_krum",
    "norm_clipping",
    "trimmed_mean",
]
