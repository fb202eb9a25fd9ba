"""Where a column counts as constant, a time as too far off, a spelling as another: the limits of the preparation."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm import seeding
from v6_algorithm.data.preparation import Setup, imputation, times
from v6_algorithm.data.preparation.additive import moments_from_sums, moments_to_sums
from v6_algorithm.data.preparation.columns import unknown_coded
from v6_algorithm.data.preparation.combat import Combat, Sums, empirical_bayes
from v6_algorithm.data.preparation.setup import pack_arrays, unpack_arrays
from v6_algorithm.data.preparation.spelling import folded, spelled_differently
from v6_algorithm.data.preparation.statistics import Moments, check_arrays, loose_quantiles, merge_moments
from v6_algorithm.data.quantiles import Cells, quantiles
from v6_algorithm.errors import DataError, WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER
from v6_algorithm.experiment import Experiment

# -- ComBat ------------------------------------------------------------------------------------------------------------


def sums_of(alpha, sigma, rows=4.0):
    """Sums without covariates, of features with these means and spreads."""
    alpha, sigma = np.array(alpha), np.array(sigma)
    none = np.zeros((1, 0)), np.zeros((1, 0, 0)), np.zeros((1, 0, len(alpha)))
    return Sums(np.ones(1), np.array([rows]), none[0], rows * alpha[None], *none[1:], rows * sigma[None] ** 2)


def test_a_feature_is_constant_where_its_spread_is_a_rounding_of_its_mean():
    sums = sums_of([1e3, -1e3, 1e3, 0.0, 0.0], [0.9e-9, 1.1e-9, 5.0, 0.0, 1e-20])
    combat = Combat.fit(sums, untouched=np.zeros(5, dtype=bool))
    assert combat.sigma[0] == pytest.approx([0, 1.1e-9, 5.0, 0, 1e-20])
    assert combat.alpha[0].tolist() == [1e3, -1e3, 1e3, 0, 0]
    left = Combat.fit(sums, untouched=np.array([False, True, False, False, False]))
    assert left.sigma[0] == pytest.approx([0, 0, 5.0, 0, 1e-20])


@pytest.mark.parametrize("seed", range(4))
def test_location_and_scale_solve_both_equations_of_empirical_bayes(seed):
    """Johnson, Li and Rabinovic's: each posterior mean, given the other; a constant feature counts with variance 1."""
    generator = np.random.default_rng(seed)
    scaled = generator.normal(generator.normal(size=6), generator.uniform(0.3, 3, 6), (9, 6))
    scaled[:, 2] = 0.75
    gamma, delta = empirical_bayes(scaled)
    location, variance = scaled.mean(axis=0), scaled.var(axis=0, ddof=1)
    variance[2] = 1.0
    tau, spread, mean = location.var(ddof=1), variance.var(ddof=1), variance.mean()
    shape, rate = mean**2 / spread + 2, mean**3 / spread + mean
    wanted = (9 * tau * location + delta**2 * location.mean()) / (9 * tau + delta**2)
    assert gamma == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    wanted = (rate + ((scaled - gamma) ** 2).sum(axis=0) / 2) / (9 / 2 + shape - 1)
    assert delta**2 == pytest.approx(wanted, rel=1e-3)


def test_a_single_feature_or_none_is_left_as_it_is_and_two_rows_are_enough():
    zero = np.zeros((1, 0, 2))
    values = np.random.default_rng(0).normal(size=(5, 2))
    one = Combat(zero, np.zeros((1, 2)), np.array([[1.0, 0.0]]))
    assert one.adjust(values, np.empty((5, 0)), 0, np.arange(5)).tolist() == values.tolist()
    both = Combat(zero, np.zeros((1, 2)), np.ones((1, 2)))
    assert both.adjust(values[:0], np.empty((0, 0)), 0, np.arange(0)).shape == (0, 2)
    assert np.isfinite(both.adjust(values, np.empty((5, 0)), 0, np.array([1, 3]))).all()
    with pytest.raises(DataError, match="at least 2 training rows"):
        both.adjust(values, np.empty((5, 0)), 0, np.array([1]))


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True), ({"yy": [[0.0, 4.0]]}, True), ({"yy": [[-1e-300, 4.0]]}, False), ({"hospitals": [4.0]}, True),
        ({"hospitals": [4.5]}, False), ({"hospitals": [0.0], "rows": [0.0]}, True), ({"hospitals": [-1.0]}, False),
    ],
)  # fmt: skip
def test_sums_of_a_harmonisation_may_be_as_small_as_rows_are(change, right):
    arrays = sums_of([1.0, 2.0], [0.0, 1.0]).arrays() | {key: np.array(value) for key, value in change.items()}
    if right:
        assert Sums.check(arrays, 1, 2, 0).rows.tolist() == arrays["rows"].tolist()
    else:
        with pytest.raises(WireError, match="contradict"):
            Sums.check(arrays, 1, 2, 0)


# -- statistics ----------------------------------------------------------------------------------------------------


def test_statistics_are_squares_of_the_largest_number_at_most():
    largest = float(LARGEST_NUMBER) ** 2
    for value, right in ((largest, True), (-largest, True), (np.nextafter(largest, np.inf), False), (np.nan, False)):
        arrays = {"x": np.array([1.0, value])}
        if right:
            check_arrays(arrays, {"x": (2,)})
        else:
            with pytest.raises(WireError, match="statistic 'x' must be"):
                check_arrays(arrays, {"x": (2,)})
    for shape in ((1,), (3,), (2, 1)):
        with pytest.raises(WireError, match="statistic 'x' must be"):
            check_arrays({"x": np.ones(2)}, {"x": shape})
    with pytest.raises(WireError, match="the statistics must be x"):
        check_arrays({"y": np.ones(2)}, {"x": (2,)})


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.0, 2.0), (1.0, 2.0)])
def test_a_range_is_no_sum(low, high):
    one = np.ones((1, 1))
    moments = Moments(np.ones(1), one, one, one, one * low, one * high)
    with pytest.raises(WireError, match="no sums"):
        moments_to_sums(pack_arrays(moments.arrays()))


def test_the_one_value_of_all_sites_is_their_mean():
    nothing = Moments(np.ones(1), *(np.zeros((1, 1)) for _ in range(5)))
    one = Moments(np.ones(1), np.ones((1, 1)), np.full((1, 1), 7.0), np.zeros((1, 1)), *[np.full((1, 1), 7.0)] * 2)
    for parts in ([nothing, one], [one, nothing]):
        merged = merge_moments(parts)
        assert (merged.count.item(), merged.mean.item(), merged.squares.item()) == (1, 7, 0)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=4), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_moments_come_back_from_their_exact_sums(sites):
    parts = [moments_to_sums(pack_arrays(Moments.of([np.array(site)[:, None]], with_range=False).arrays()))
             for site in sites]  # fmt: skip
    added = {
        name: [[sum((part[name][0][0] for part in parts), Fraction(0))]] if name != "rows"
        else [sum(part[name][0] for part in parts)]
        for name in parts[0]
    }  # fmt: skip
    found, values = unpack_arrays(moments_from_sums(added)), np.array([cell for site in sites for cell in site])
    assert (found["rows"].tolist(), found["count"].tolist()) == ([len(values)], [[len(values)]])
    if len(values):
        assert found["mean"][0, 0] == pytest.approx(values.mean(), abs=1e-9)
        assert found["squares"][0, 0] == pytest.approx(((values - values.mean()) ** 2).sum(), abs=1e-6)


def test_doubt_about_quartiles_is_a_share_of_what_lies_between_them():
    """Far from 0: the spread is a difference, and no sum."""
    data = Experiment.parse({"data": {"target": "y", "scaling": "robust"}, "model": "linear"}).data
    values = 1000 + np.random.default_rng(0).normal(0, 5, (60, 1))
    cells = Cells.of(values.T, 4, None)
    (found,) = loose_quantiles(data, Moments.of([values], with_range=False), [cells])
    estimates = quantiles([cells.columns()[0]], (0.25, 0.5, 0.75))
    spread = estimates[2].value - estimates[0].value
    assert 1 < spread < 20
    assert found == pytest.approx(max(estimate.doubt for estimate in estimates) / spread)
    assert 0 < found < 1


# -- columns and spellings -------------------------------------------------------------------------------------------


def test_codes_of_columns_that_no_site_has_are_named():
    data = Experiment.parse({"data": {"target": "y", "missing_values": {"a": [9], "b": [9]}}, "model": "linear"}).data
    assert unknown_coded(data, ["a", "c"]) == ["no site has a column 'b'"]
    assert unknown_coded(data, ["a", "b"]) == []
    plain = Experiment.parse({"data": {"target": "y", "missing_values": [9]}, "model": "linear"}).data
    assert unknown_coded(plain, []) == []


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("'yes'", "yes"), ("\u201cYes\u201d", "yes"), ("'a", "'a"), ("''", "''"), ("'", "'"), ("'x'", "x"),
        ("yes.", "yes"), ("...", "..."), ("y_e_s", "yes"), ("A \u2013 B", "a-b"), ("\u0441\u0430", "ca"),
        ("\u0434\u0430", "\u0434\u0430"), (3, 3), ("_", "_"), ("x'y", "x'y"),
    ],
)  # fmt: skip
def test_a_label_is_read_without_its_quotes_marks_and_underscores(label, wanted):
    assert folded(label) == wanted


@pytest.mark.parametrize(
    ("sets", "differ"),
    [
        ({"a": [0, 1], "b": [0, 1]}, False),
        ({"a": [0, 1], "b": [0, 1, 2]}, False), ({"a": [0, 1], "b": [1, 3]}, False),
        ({"a": [0, 1], "b": [1]}, False), ({"a": [5, 6], "b": [6, 7]}, True), ({"a": [0], "b": [1]}, False),
        ({"a": ["x"], "b": [1]}, True), ({"a": ["x", 1], "b": [1]}, False), ({"a": [], "b": ["x"]}, False),
        ({"a": ["x", "y"], "b": ["y", "z"]}, False), ({"a": [0, 1], "b": [1, 2], "c": [0, 1, 2]}, False),
    ],
)  # fmt: skip
def test_sets_of_labels_are_other_codes_where_nothing_or_one_of_two_is_common(sets, differ):
    assert bool(spelled_differently("x", sets, allowed=False)) is differ
    assert spelled_differently("x", sets, allowed=True) == []


@pytest.mark.parametrize("more", [0, 1])
def test_sites_are_named_up_to_twelve(more):
    sites = [f"s{number}" for number in range(12 + more)]
    (told,) = spelled_differently("x", {site: ["Yes"] for site in sites} | {"other": ["yes"]}, allowed=True)
    named = ", ".join(f"'{site}'" for site in sites[:12]) + (", …" if more else "")
    assert told == (
        f"x: the same label is spelled differently: 'Yes' at {named}, 'yes' at 'other'; spell it alike there"
    )


# -- times -----------------------------------------------------------------------------------------------------------


def test_times_of_0_have_no_logarithm():
    assert times.log_times(np.array([0.0, 2.0, 8.0, 0.0])) == (2, 2.0)
    assert times.log_times(np.zeros(3)) == (0, 0.0)
    assert times.middle_of([(2, 3.0), (6, 1.0), (0, 0.0)]) == 1.5
    assert times.middle_of([(2, 3.0), None]) == times.middle_of([]) == times.middle_of([(0, 0.0)]) == 0.0


def test_times_are_counted_from_the_first_bin_to_the_last_and_at_most_half_may_be_beyond():
    first, last = 2.0**-64, 2.0**64
    counts = times.count_times(np.array([first, last, 1.0, 0.0]))
    assert np.flatnonzero(counts).tolist() == [0, 1024, 2048]
    assert len(counts) == 2049
    # Half of them beyond, which are in the outer bins.
    counts = times.count_times(np.array([first / 2, last * 2, 1.0, 1.0]))
    assert counts[[0, 1024, -1]].tolist() == [1, 2, 1]
    for few in (np.array([first / 2, last * 2, 1.0]), np.array([first / 2]), np.array([last * 2, 0.0, 0.0])):
        with pytest.raises(DataError, match="write them in another unit"):
            times.count_times(few)
    assert times.count_times(np.zeros(4)).sum() == 0
    # The outermost bins themselves are not beyond.
    for edge, place in ((first, 0), (last, -1)):
        assert times.count_times(np.array([edge, edge, 1.0]))[place] == 2


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40), st.integers(2, 8), st.sampled_from([0.0, 3.3]))
@settings(max_examples=40, deadline=None)
def test_cuts_part_the_times_about_equally(drawn, parts, middle):
    """Each cut is right to a sixteenth of a doubling; behind each there are events."""
    given_ = np.sort(drawn)
    cuts = times.cut(times.count_times(given_, middle), parts, middle)
    assert len(cuts) <= parts - 1
    assert cuts == sorted(set(cuts))
    step = 2 ** (1 / 16)
    for part in range(1, parts):
        exact = given_[int(np.ceil(len(given_) * part / parts)) - 1]
        # One cut is at the end of its bin, unless it is the last event's.
        assert any(exact <= cut * (1 + 1e-9) and cut < exact * step * (1 + 1e-9) for cut in cuts) or (
            given_[-1] < exact * step * (1 + 1e-9)
        )
    assert all(cut < given_[-1] for cut in cuts)


def watching(rows):
    """Ends, events, entries and patients of rows (patient, entry, end, event)."""
    patient, entry, end, event = (np.array(column) for column in zip(*rows, strict=True))
    return end.astype(float), event.astype(bool), entry.astype(float), patient


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.booleans()), min_size=1, max_size=14)


@given(ROWS, st.integers(1, 2), st.integers(1, 4))
@settings(max_examples=25)
def test_rows_of_a_patient_each_are_moved_by_themselves(drawn, events, rows):
    entry, time = (np.array([float(each[0]) for each in drawn]), np.array([float(each[0] + each[1]) for each in drawn]))
    event = np.array([dead for *_, dead in drawn])
    ends = times.coarse_times(time, event, events, rows)
    wanted = ends.tolist(), times.coarse_entries(entry, ends, rows).tolist()
    for patient in (None, np.arange(len(drawn))[::-1]):
        found = times.coarse_watching(time, event, entry, patient, events, rows)
        assert tuple(each.tolist() for each in found) == wanted


@given(ROWS, st.lists(st.integers(0, 2), min_size=14, max_size=14), st.integers(1, 2), st.integers(1, 4))
@settings(max_examples=40)
def test_a_patient_who_is_watched_on_leaves_and_joins_as_one_row_would(drawn, cuts, events, rows):
    """Rows are cut where nothing happens: the first joins and the last leaves as before, between them time goes on."""
    whole = [(number, begin, begin + long, dead) for number, (begin, long, dead) in enumerate(drawn)]
    parts = []
    for (number, begin, end, dead), cut in zip(whole, cuts, strict=False):
        inside = np.linspace(begin, end, cut + 2).tolist()
        parts += [(number, a, b, dead and b == end) for a, b in pairwise(inside)]
    shuffled = np.random.default_rng(len(parts)).permutation(len(parts))
    ends, starts = times.coarse_watching(*watching([parts[place] for place in shuffled]), events, rows)
    wanted = times.coarse_watching(*watching(whole), events, rows)
    grid = {0.0, *np.unique(wanted[0]).tolist()}
    for number in range(len(whole)):
        of = sorted((parts[place][1], place) for place in range(len(parts)) if parts[place][0] == number)
        where = [int(np.flatnonzero(shuffled == place)[0]) for _, place in of]
        assert (starts[where[0]], ends[where[-1]]) == (wanted[1][number], wanted[0][number])
        for before, after in pairwise(where):
            # No gap between two rows of one patient, and no time that others do not leave at.
            assert ends[before] == starts[after]
            assert ends[before] in grid
            assert ends[before] >= starts[where[0]]
            exact = parts[shuffled[before]][2]
            open_ = [time for time in grid if wanted[1][number] <= time < wanted[0][number]]
            near = min(max(sorted(open_, key=lambda time: (abs(time - exact), time))[0], wanted[1][number]), max(open_))
            assert ends[before] == near


def test_a_gap_or_an_event_ends_what_is_watched_as_one():
    """An event, a gap, or another patient between two rows: each leaves and joins by itself."""
    rows = [(0, 0, 2, 1), (0, 2, 5, 0), (1, 0, 3, 0), (1, 4, 6, 1), (2, 0, 5, 1), (3, 5, 9, 1)]
    time, event, entry, patient = watching(rows)
    apart = times.coarse_watching(time, event, entry, np.arange(6), 1, 1)
    found = times.coarse_watching(time, event, entry, patient, 1, 1)
    assert [each.tolist() for each in found] == [each.tolist() for each in apart]


# -- setup -----------------------------------------------------------------------------------------------------------


def test_baselines_of_hospitals_whose_events_suffice_are_readable():
    hazards = {"a": np.array([[0.0, 0.5]]), "b": np.array([[-1.0, -1.0]]), "c": np.array([[0.1, 0.2]])}
    setup = Setup(["x"], {}, None, baseline=np.array([[0.1, 0.4]]), baselines=hazards)
    assert setup.readable()["baseline"]["sites"] == {"a": [0.0, 0.5], "c": [0.1, 0.2]}
    assert setup.for_hospitals(["b"]).readable()["baseline"].get("sites") is None


@pytest.mark.parametrize(("middle", "right"), [(1100, True), (-1100, True), (1100.5, False), (float("nan"), False)])
def test_the_middle_of_the_times_is_one_that_float64_has(middle, right):
    content = Setup(["x"], {}, None).to_json() | {"middle": middle}
    if right:
        assert Setup.from_json(content).middle == middle
    else:
        with pytest.raises(WireError, match="malformed"):
            Setup.from_json(content)


def test_columns_of_a_setup_are_counted_and_named():
    setup = Setup(["x", "z"], {"c": ["u", "v", "w"]}, None)
    assert setup.imputed_width(2) == 1 + 2 + 3 + 2
    assert setup.design_columns(["x", "c"]) == ["x", "c=v", "c=w"]


def test_an_empty_number_is_that_of_one_of_the_five_rows_whose_predictions_are_nearest():
    generator = np.random.default_rng(5)
    scaled, outcome = generator.normal(size=(30, 2)), generator.normal(size=(30, 1))
    donors = generator.random(30) < 0.8
    empty = np.arange(30) % 4 == 0
    scaled[empty, 1] = np.nan
    blocks = imputation.blocks_of(["b"], ["a", "b"], {})
    made = imputation.Imputation.empty(["b"], 3, 1, 4, blocks)
    made = made.followed_by(np.array([[[0.2, 1.0, 0.0, -0.5]]]), np.array([[[0.3]]]))
    found = made.complete(scaled, np.zeros((30, 0)), outcome, blocks, 0, ["site"], donors)
    predicted = 0.2 + scaled[:, 0] - 0.5 * outcome[:, 0]
    lend = np.flatnonzero(~empty & donors)
    drawn = seeding.numpy_generator(3, "imputation", "site", 0, 0, 0).integers(0, 5, empty.sum())
    for row, pick in zip(np.flatnonzero(empty), drawn, strict=True):
        nearest = lend[np.argsort(np.abs(predicted[lend] - predicted[row]))]
        assert found[row, 1] == scaled[nearest[pick], 1]
    assert (found[~empty] == scaled[~empty]).all()


def test_the_hazard_of_rows_that_begin_later_is_of_ends_and_events():
    """A target of three columns: the third is when a row begins."""
    target = np.array([[1.0, 1, 0.5], [2.0, 1, 0.0], [2.0, 0, 1.0], [3.0, 1, 0.0]])
    found = imputation.outcome_of(target, np.arange(4), np.zeros(4, dtype=int))
    assert found[:, 0].tolist() == [1, 1, 0, 1]
    assert found[:, 1] == pytest.approx([1 / 4, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3, 1 / 4 + 1 / 3 + 1])
