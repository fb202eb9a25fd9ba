"""One call under masks: `mask_vector` and `open_letters` at the sites, `unmask` where the sum is made.

A site adds to its numbers a mask of its own (from a fresh seed b) and, for each other participant, a mask that only the
two know: the one whose name comes first adds it, the other subtracts it. b and the seeds of the pairs are shared among
all participants (Shamir), sealed, and travel with the masked numbers; so a site that gave numbers has also given all
that is needed to open the sum. Afterwards each site tells its shares of b for those whose numbers arrived, and of the
pairs' seeds with those whose numbers did not; never both of one site in a call.

Seeds are of one call: what is told of a site that drops out opens nothing of the calls before or after.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from v6_algorithm.errors import WireError
from v6_algorithm.exchange.secure_aggregation.keys import Participant, SiteKeys, digest
from v6_algorithm.exchange.secure_aggregation.ring import Shape, Vector, mask
from v6_algorithm.exchange.secure_aggregation.shamir import SHARE_BYTES, combine, split

# How many sets of shares are tried before a wrong one is called so.
_MOST_TRIES = 200


@dataclass(frozen=True)
class Call:
    """One call of a run, as every participant has to see it.

    Attributes
    ----------
    run
        Random name of the run.
    number
        Of the call, from 1.
    participants
        All sites of the run, in order of name.
    threshold
        How many of them open a sum.
    asked
        SHA-256 of what they were asked; a site that was asked something else adds masks that do not cancel.
    """

    run: str
    number: int
    participants: tuple[Participant, ...]
    threshold: int
    asked: str

    @cached_property
    def context(self) -> str:
        """SHA-256 of all of it: every seed and every letter of the call is bound to it."""
        people = [participant.to_json() for participant in self.participants]
        return digest([self.run, self.number, people, self.threshold, self.asked])

    def __post_init__(self) -> None:
        if not len(self.participants) < 2 * self.threshold <= 2 * len(self.participants):
            raise WireError(
                f"a threshold of {self.threshold} of {len(self.participants)} sites does not do: it must be more than "
                "half of them, or two halves could open two sums, and at most all of them"
            )

    @cached_property
    def points(self) -> dict[str, int]:
        """Each site's number in the sharing of secrets, from 1."""
        return {participant.site: number for number, participant in enumerate(self.participants, 1)}

    @cached_property
    def by_name(self) -> dict[str, Participant]:
        """The participants by name."""
        return {participant.site: participant for participant in self.participants}

    def others(self, site: str) -> list[str]:
        """Return the other participants, in order: that of the pairs' seeds in a letter."""
        return [participant.site for participant in self.participants if participant.site != site]


@dataclass(frozen=True)
class Masked:
    """What one site sends: its masked numbers, a sealed letter to each participant, and a seal of each seed."""

    vector: Vector
    letters: dict[str, str]
    seals: list[str]


def mask_vector(vector: Vector, call: Call, keys: SiteKeys) -> Masked:
    """Hide a site's numbers in a call; `vector` is changed in place."""
    self_seed, shape = secrets.token_bytes(32), vector.shape
    peers = call.others(keys.site)
    seeds = [self_seed, *(keys.pair_seed(call.by_name[peer], call.context) for peer in peers)]
    vector.add(mask(self_seed, shape))
    for peer, seed in zip(peers, seeds[1:], strict=True):
        _apply(vector, mask(seed, shape), adds=keys.site < peer)
    shares = [split(seed, call.points.values(), call.threshold) for seed in seeds]
    letters = {
        peer.site: keys.seal(
            peer,
            b"".join(share[call.points[peer.site]].to_bytes(SHARE_BYTES, "big") for share in shares),
            call.context,
        )
        for peer in call.participants
    }
    return Masked(vector, letters, [_seal(seed, call) for seed in seeds])


def open_letters(
    call: Call, keys: SiteKeys, arrived: Collection[str], letters: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Return this site's shares that open the sum over the sites that `arrived`, from their letters to it.

    Returns
    -------
    dict
        For each of them, by name: under its own name the share of its own seed, and under the name of each site that
        did not arrive the share of the seed of the two; hexadecimal.

    Raises
    ------
    WireError
        When they are fewer than the threshold, this site or a letter is not among them, or a letter does not open.
    """
    for site in arrived:
        if site not in call.by_name:
            raise WireError(f"site '{site}' is not in the participants' list")
    if len(set(arrived)) < call.threshold:
        raise WireError(f"a sum over {len(set(arrived))} sites is not opened, the threshold is {call.threshold}")
    if keys.site not in arrived:
        raise WireError("a site whose numbers are not in the sum does not open it")
    if set(letters) != set(arrived):
        raise WireError("there must be one letter of each site whose numbers are in the sum")
    gone = set(call.by_name) - set(arrived)
    shares: dict[str, dict[str, str]] = {}
    for site in sorted(arrived):
        content = keys.unseal(call.by_name[site], letters[site], call.context)
        order = [site, *call.others(site)]
        if len(content) != SHARE_BYTES * len(order):
            raise WireError(f"the sealed shares of site '{site}' are {len(content)} bytes, not one for each seed")
        shares[site] = {
            name: content[SHARE_BYTES * place : SHARE_BYTES * (place + 1)].hex()
            for place, name in enumerate(order)
            if name == site or name in gone
        }
    return shares


def unmask(
    call: Call, masked: Mapping[str, Masked], answers: Mapping[str, Mapping[str, Mapping[str, str]]], shape: Shape
) -> Vector:
    """Return the sum over the sites of `masked`, from what sites answered to `open_letters`.

    Raises
    ------
    WireError
        When fewer than the threshold answered, or their shares are not of the seeds that were sealed.
    """
    arrived = sorted(masked)
    if len(answers) < call.threshold:
        raise WireError(f"{len(answers)} sites told their shares, the threshold is {call.threshold}")
    total = Vector.zeros(shape)
    for site in arrived:
        total.add(masked[site].vector)
    for site in arrived:
        order = [site, *call.others(site)]
        for place, name in enumerate(order):
            if name in masked and name != site:
                continue
            seed = _seed(call, site, name, masked[site].seals[place], answers)
            _apply(total, mask(seed, shape), adds=name != site and name < site)
    return total


def _seed(call: Call, site: str, name: str, seal: str, answers: Mapping[str, Mapping[str, Mapping[str, str]]]) -> bytes:
    """Put a seed together from shares; where some are wrong, from others that fit its seal."""
    shares: dict[int, int] = {}
    for answering, answer in sorted(answers.items()):
        try:
            shares[call.points[answering]] = int(answer[site][name], 16)
        except (KeyError, TypeError, ValueError):
            continue
    tries: Sequence[tuple[int, ...]] = []
    if len(shares) >= call.threshold:
        tries = [few for _, few in zip(range(_MOST_TRIES), combinations(shares, call.threshold), strict=False)]
    for few in tries:
        try:
            seed = combine({point: shares[point] for point in few})
        except ValueError:
            continue
        if _seal(seed, call) == seal:
            return seed
    raise WireError(f"the shares that sites told of the mask of site '{site}' do not fit its seal")


def _seal(seed: bytes, call: Call) -> str:
    """Commit to a seed, so that a wrong share is seen."""
    return hashlib.sha256(b"seed" + seed + call.context.encode()).hexdigest()


def _apply(vector: Vector, noise: Vector, *, adds: bool) -> None:
    if adds:
        vector.add(noise)
    else:
        vector.subtract(noise)
