"""The robust rules by the names that an experiment gives them, as the pipeline's combiner calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from v6_algorithm.coordinator.strategies.averaging import Rule, State
from v6_algorithm.coordinator.strategies.robust.clipping import centred_clipping, norm_clipping
from v6_algorithm.coordinator.strategies.robust.coordinates import coordinate_median, trimmed_mean
from v6_algorithm.coordinator.strategies.robust.geometric import geometric_median
from v6_algorithm.coordinator.strategies.robust.krum import bulyan, krum, multi_krum
from v6_algorithm.experiment.strategy.combine import Combine

_GROUP = "combine"


def needs_origin(section: Combine) -> bool:
    """Say whether a rule is about updates: it shortens them; the others give the same about any origin."""
    return section.kind in ("norm_clipping", "centred_clipping")


def create_rule(section: Combine, kept: dict[str, State]) -> Rule:
    """Make the rule that an experiment asks for.

    Parameters
    ----------
    section
        Kind and options.
    kept
        Groups of tensors that last from round to round; centred clipping keeps its centre there, the last round's
        mean update.
    """
    rules: dict[str, Callable[[Sequence[Tensor], Tensor | None], Tensor]] = {
        "median": lambda rows, weights: coordinate_median(rows, section.malicious),
        "trimmed_mean": lambda rows, weights: trimmed_mean(rows, section.malicious),
        "geometric_median": lambda rows, weights: geometric_median(rows, weights, section.malicious),
        "krum": lambda rows, weights: krum(rows, section.malicious),
        "multi_krum": lambda rows, weights: multi_krum(rows, section.malicious, keep=section.keep),
        "bulyan": lambda rows, weights: bulyan(rows, section.malicious),
        "norm_clipping": lambda rows, weights: norm_clipping(rows, section.radius, weights, section.malicious),
        "centred_clipping": lambda rows, weights: _about_the_last(section, kept, rows, weights),
    }
    rule = rules[section.kind]
    return lambda rows, weights: rule(rows, weights if section.weighted else None)


def _about_the_last(section: Combine, kept: dict[str, State], rows: Sequence[Tensor], weights: Tensor | None) -> Tensor:
    centre = kept.get(_GROUP, {}).get("centre")
    clipped = centred_clipping(rows, section.radius, centre, weights, section.malicious, iterations=section.iterations)
    kept[_GROUP] = {"centre": clipped}
    return clipped
