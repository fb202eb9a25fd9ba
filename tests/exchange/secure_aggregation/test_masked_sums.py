"""Secure aggregation by itself: masks cancel to the bit, whoever drops out, and open nothing else."""

from __future__ import annotations

import itertools
import math
import random
import secrets
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.errors import ExperimentError, SiteError, WireError
from v6_algorithm.exchange.secure_aggregation import fixed_point, protocol, shamir
from v6_algorithm.exchange.secure_aggregation.keys import SiteKeys, check_participants, digest
from v6_algorithm.exchange.secure_aggregation.ring import Shape, Vector, mask

RUN = "0123456789abcdef"
CLIP = 1.0


def keys_of(sites: int) -> list[SiteKeys]:
    return [SiteKeys.derive(secrets.token_bytes(32), RUN, f"site {number:02d}") for number in range(sites)]


def call_of(keys: list[SiteKeys], threshold: int, number: int = 1, asked: str = "round 1") -> protocol.Call:
    return protocol.Call(RUN, number, tuple(key.public(RUN) for key in keys), threshold, digest([asked]))


def vector_of(values: np.ndarray, numbers: list[float], sites: int, bits: int | None = None) -> Vector:
    bits, words = fixed_point.words_for(bits, sites)
    updates, _ = fixed_point.encode_updates(values, CLIP, bits, words)
    return Vector(updates, fixed_point.encode_sums(numbers, sites))


def copy_of(vector: Vector) -> Vector:
    return Vector(vector.updates.copy(), vector.sums.copy())


def total_of(vectors: list[Vector]) -> Vector:
    total = Vector.zeros(vectors[0].shape)
    for vector in vectors:
        total.add(vector)
    return total


def opened(call, keys, vectors, arrived, answering):
    """Run a call in which only some sites' numbers arrive, and only some of those open the sum."""
    masked = {keys[i].site: protocol.mask_vector(copy_of(vectors[i]), call, keys[i]) for i in arrived}
    names = sorted(masked)
    answers = {
        keys[i].site: protocol.open_letters(
            call, keys[i], names, {name: masked[name].letters[keys[i].site] for name in names}
        )
        for i in answering
    }
    return protocol.unmask(call, masked, answers, vectors[0].shape)


@pytest.mark.parametrize("sites", range(3, 21))
def test_the_masked_sum_is_the_plain_sum_to_the_step(sites):
    rng = np.random.default_rng(sites)
    keys, threshold = keys_of(sites), sites // 2 + 1
    values = [rng.normal(0, 0.2, 50) for _ in range(sites)]
    numbers = [[float(rng.normal(0, 1e6)), int(rng.integers(0, 10**9))] for _ in range(sites)]
    vectors = [vector_of(v, n, sites) for v, n in zip(values, numbers, strict=True)]
    everyone = range(sites)
    total = opened(call_of(keys, threshold), keys, vectors, everyone, list(everyone)[-threshold:])
    bits, _ = fixed_point.words_for(None, sites)
    step = CLIP / (2 ** (bits - 1) - 1)
    plain = np.sum([np.clip(v, -CLIP, CLIP) for v in values], axis=0)
    assert np.abs(fixed_point.decode_updates(total.updates, CLIP, bits) - plain).max() <= sites * step
    exact = fixed_point.decode_sums(total.sums)
    assert float(exact[0]) == math.fsum(n[0] for n in numbers)
    assert exact[1] == sum(n[1] for n in numbers)


@pytest.mark.slow
def test_every_set_of_drop_outs_of_five_sites_sums_to_the_bit_or_is_refused():
    """All 3^5 ways: a site gives no numbers, gives numbers and then no shares, or stays."""
    keys, threshold = keys_of(5), 3
    rng = np.random.default_rng(0)
    vectors = [vector_of(rng.normal(0, 0.3, 3), [i, i / 3], 5) for i in range(5)]
    call = call_of(keys, threshold)
    summed = refused = 0
    for fates in itertools.product(("gone", "silent", "there"), repeat=5):
        arrived = [i for i in range(5) if fates[i] != "gone"]
        answering = [i for i in range(5) if fates[i] == "there"]
        if len(answering) < threshold:
            with pytest.raises(WireError, match="threshold is 3"):
                opened(call, keys, vectors, arrived, answering)
            refused += 1
            continue
        total, plain = opened(call, keys, vectors, arrived, answering), total_of([vectors[i] for i in arrived])
        assert np.array_equal(total.updates, plain.updates)
        assert np.array_equal(total.sums, plain.sums)
        summed += 1
    assert (summed, refused) == (51, 192)


def _check_set(call, keys, vectors, everyone, arrived):
    """Open the sum over some of the sites' masked replies, which are the same whoever else arrives."""
    names = [keys[i].site for i in arrived]
    letters = {name: everyone[name].letters for name in names}
    answers = {
        keys[i].site: protocol.open_letters(call, keys[i], names, {name: letters[name][keys[i].site] for name in names})
        for i in list(arrived)[: call.threshold]
    }
    total = protocol.unmask(call, {name: everyone[name] for name in names}, answers, vectors[0].shape)
    plain = total_of([vectors[i] for i in arrived])
    assert np.array_equal(total.updates, plain.updates), arrived
    assert np.array_equal(total.sums, plain.sums), arrived


@pytest.mark.slow
@pytest.mark.parametrize("sites", range(3, 21))
def test_every_set_of_drop_outs_above_the_threshold_sums_to_the_bit(sites):
    """All sets of 3 to 12 sites; of more, for every number of drop-outs a dozen draws: 70 to 110 sets."""
    keys, threshold, draw = keys_of(sites), sites // 2 + 1, random.Random(sites)
    vectors = [vector_of(np.full(3, i / sites), [i, i / 3], sites) for i in range(sites)]
    call = call_of(keys, threshold)
    everyone = {
        key.site: protocol.mask_vector(copy_of(vector), call, key) for key, vector in zip(keys, vectors, strict=True)
    }
    checked = 0
    for size in range(threshold, sites + 1):
        whole = itertools.combinations(range(sites), size)
        some = {tuple(sorted(draw.sample(range(sites), size))) for _ in range(12)}
        for arrived in whole if sites <= 12 else sorted(some):
            _check_set(call, keys, vectors, everyone, arrived)
            checked += 1
    assert checked >= (sum(math.comb(sites, size) for size in range(threshold, sites + 1)) if sites <= 12 else 60)


def test_one_masked_update_is_uniform_and_uncorrelated_with_what_it_hides():
    keys = keys_of(3)
    plain = np.linspace(-0.9, 0.9, 200_000)
    hidden = protocol.mask_vector(vector_of(plain, [1.0] * 1000, 3), call_of(keys, 2), keys[1]).vector
    assert abs(np.corrcoef(hidden.updates[:, 0].astype(np.float64), plain)[0, 1]) < 0.015
    for words in (hidden.updates.ravel(), hidden.sums.ravel()):
        seen = np.bincount(words.view(np.uint8), minlength=256)
        chi_square = ((seen - seen.mean()) ** 2 / seen.mean()).sum()
        # 255 degrees of freedom: beyond 400 by chance once in 10^8.
        assert chi_square < 400


def test_the_same_numbers_hidden_twice_look_different():
    keys = keys_of(3)
    vector, call = vector_of(np.zeros(1000), [], 3), call_of(keys, 2)
    first, second = (protocol.mask_vector(copy_of(vector), call, keys[0]).vector.updates for _ in range(2))
    assert (first == second).mean() < 0.01


def test_a_site_that_was_asked_something_else_spoils_the_sum_rather_than_showing_itself():
    """A hub that gives one site another model gets noise: every mask hangs on what was asked."""
    keys = keys_of(3)
    vectors = [vector_of(np.zeros(100), [1], 3) for _ in keys]
    split = {0: call_of(keys, 2), 1: call_of(keys, 2), 2: call_of(keys, 2, asked="another model")}
    masked = {keys[i].site: protocol.mask_vector(copy_of(vectors[i]), split[i], keys[i]) for i in range(3)}
    with pytest.raises(WireError, match="'site 02' do not open: they are of another call"):
        protocol.open_letters(
            split[0], keys[0], sorted(masked), {name: masked[name].letters[keys[0].site] for name in masked}
        )


def test_letters_of_an_earlier_call_are_refused():
    keys = keys_of(3)
    first, second = call_of(keys, 2, number=1), call_of(keys, 2, number=2)
    masked = {key.site: protocol.mask_vector(vector_of(np.zeros(2), [], 3), first, key) for key in keys}
    letters = {name: masked[name].letters[keys[0].site] for name in masked}
    protocol.open_letters(first, keys[0], sorted(masked), letters)
    with pytest.raises(WireError, match="of another call, another list of participants, or another key"):
        protocol.open_letters(second, keys[0], sorted(masked), letters)


def test_a_letter_to_another_site_does_not_open():
    keys = keys_of(3)
    call = call_of(keys, 2)
    masked = {key.site: protocol.mask_vector(vector_of(np.zeros(2), [], 3), call, key) for key in keys}
    with pytest.raises(WireError, match="do not open"):
        protocol.open_letters(
            call, keys[0], sorted(masked), {name: masked[name].letters[keys[1].site] for name in masked}
        )


def test_what_opens_a_sum_is_never_both_seeds_of_one_site():
    """Told are a site's own seed where its numbers arrived, and of those that did not only the seeds of pairs."""
    keys = keys_of(4)
    call = call_of(keys, 3)
    masked = {key.site: protocol.mask_vector(vector_of(np.zeros(2), [], 4), call, key) for key in keys}
    arrived = [key.site for key in keys[:3]]
    told = protocol.open_letters(call, keys[0], arrived, {name: masked[name].letters[keys[0].site] for name in arrived})
    assert {site: sorted(shares) for site, shares in told.items()} == {
        site: sorted([site, keys[3].site]) for site in arrived
    }


def test_a_late_reply_stays_hidden_after_the_sum_was_opened_without_it():
    """With all that was told about the others and the pairs, the late site's own mask is still on its numbers."""
    keys = keys_of(3)
    call, plain = call_of(keys, 2), vector_of(np.zeros(20_000), [], 3)
    vectors = [copy_of(plain) for _ in keys]
    opened(call, keys, vectors, [0, 1], [0, 1])
    late = protocol.mask_vector(copy_of(plain), call, keys[2]).vector
    for peer in (0, 1):  # the hub has put these seeds together
        pair = mask(keys[peer].pair_seed(call.by_name[keys[2].site], call.context), late.shape)
        late.add(pair)  # "site 02" comes last of each pair, and subtracts
    seen = np.bincount(late.updates.ravel().view(np.uint8), minlength=256)
    assert ((seen - seen.mean()) ** 2 / seen.mean()).sum() < 400


def test_wrong_shares_are_named_and_right_ones_used_where_there_are_enough():
    keys = keys_of(4)
    call = call_of(keys, 3)
    vectors = [vector_of(np.zeros(2), [i], 4) for i in range(4)]
    masked = {keys[i].site: protocol.mask_vector(copy_of(vectors[i]), call, keys[i]) for i in range(4)}
    answers = {
        key.site: protocol.open_letters(
            call, key, sorted(masked), {name: masked[name].letters[key.site] for name in masked}
        )
        for key in keys
    }
    answers[keys[0].site] = {site: dict.fromkeys(shares, "abc") for site, shares in answers[keys[0].site].items()}
    total = protocol.unmask(call, masked, answers, vectors[0].shape)
    assert np.array_equal(total.sums, total_of(vectors).sums)
    del answers[keys[3].site]
    with pytest.raises(WireError, match="the mask of site 'site 00' do not fit its seal"):
        protocol.unmask(call, masked, answers, vectors[0].shape)


@pytest.mark.parametrize(("sites", "threshold"), [(4, 2), (3, 1), (3, 4), (20, 10)])
def test_a_threshold_that_two_halves_could_reach_is_refused(sites, threshold):
    with pytest.raises(WireError, match="must be more than half"):
        call_of(keys_of(sites), threshold)


def test_lists_of_participants_that_hide_a_site_are_refused_by_name():
    keys = keys_of(3)
    people = [key.public(RUN) for key in keys]
    check_participants(people, RUN, people[1], None)
    for wrong, message in (
        ([people[0], people[2]], "no entry for site 'site 01'"),
        ([people[0], replace(people[1], mask=keys_of(1)[0].public(RUN).mask), people[2]], "other keys than its own"),
        ([people[1], people[0], people[2]], "each site once, in order"),
        ([people[0], people[1], replace(people[2], mask=people[0].mask)], "a key of site 'site 00' is listed twice"),
    ):
        with pytest.raises(WireError, match=message):
            check_participants(wrong, RUN, people[1], None)


def test_with_a_secret_that_the_nodes_share_a_swapped_key_is_refused_by_name():
    shared = b"known to the nodes only"
    keys = keys_of(3)
    people = [key.public(RUN, shared) for key in keys]
    check_participants(people, RUN, people[0], shared)
    forged = keys_of(3)[2].public(RUN, b"what a hub guesses")
    with pytest.raises(WireError, match="the keys of site 'site 02' do not bear the seal"):
        check_participants([*people[:2], forged], RUN, people[0], shared)


@given(st.binary(min_size=32, max_size=32), st.integers(2, 12), st.data())
@settings(max_examples=25, deadline=None)
def test_a_threshold_of_shares_gives_the_secret_back(secret, sites, data):
    threshold = data.draw(st.integers(1, sites))
    shares = shamir.split(secret, range(1, sites + 1), threshold)
    few = data.draw(st.permutations(sorted(shares)))[:threshold]
    assert shamir.combine({point: shares[point] for point in few}) == secret


NUMBERS = st.one_of(st.integers(-(10**15), 10**15), st.floats(-1e20, 1e20, allow_nan=False), st.fractions(-1000, 1000))


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_exact_sums_differ_by_less_than_their_places(rows):
    total = Vector.zeros(Shape(0, 1, len(rows)))
    for column in range(3):
        total.add(Vector(np.zeros((0, 1), np.uint32), fixed_point.encode_sums([row[column] for row in rows], 3)))
    for row, found in zip(rows, fixed_point.decode_sums(total.sums), strict=True):
        assert abs(found - sum(map(Fraction, row))) <= Fraction(3, 2**fixed_point.PLACES)


@given(st.integers(2, 200), st.integers(8, 52), st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_no_sum_of_updates_overflows(sites, bits, clip):
    try:
        bits, words = fixed_point.words_for(bits, sites)
    except ExperimentError:
        return
    encoded, clipped = fixed_point.encode_updates(np.array([2 * clip, -2 * clip, clip, 0.0]), clip, bits, words)
    total = Vector.zeros(Shape(4, words, 0))
    for _ in range(sites):
        total.add(Vector(encoded, np.zeros((0, 6), np.uint32)))
    found = fixed_point.decode_updates(total.updates, clip, bits)
    assert clipped == 2
    assert np.allclose(found, sites * clip * np.array([1, -1, 1, 0]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e40])
def test_a_number_that_would_spoil_the_sum_is_refused_at_the_site(number):
    with pytest.raises(SiteError, match=r"not finite|overflow"):
        fixed_point.encode_sums([number], 3)


def test_more_bits_than_the_sum_has_room_for_are_refused():
    with pytest.raises(ExperimentError, match=r"bits: 53 bits of 20 sites overflow; allowed: up to 52"):
        fixed_point.words_for(53, 20)


@given(st.integers(0, 2**192 - 1), st.integers(0, 2**192 - 1))
@settings(max_examples=50, deadline=None)
def test_long_numbers_add_and_subtract_modulo_their_width(a, b):
    def one(number: int) -> Vector:
        return Vector.from_bytes(number.to_bytes(24, "little"), Shape(0, 1, 1))

    total = one(a)
    total.add(one(b))
    assert int.from_bytes(total.sums.tobytes(), "little") == (a + b) % 2**192
    total.subtract(one(a))
    total.subtract(one(b))
    assert not total.sums.any()
