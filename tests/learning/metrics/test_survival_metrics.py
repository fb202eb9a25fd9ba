"""The C-index and the Brier score from the sites' sums are those of the pooled rows."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.learning.metrics import SurvivalMetrics, check_state, compute, explain, merge_states
from v6_algorithm.learning.metrics.survival.collector import SCORE_BINS, scores_at
from v6_algorithm.learning.metrics.survival.concordance import exact_pairs
from v6_algorithm.site.guard.coarse import coarse_state


def hospital(rows, seed, *, spread=1.0, ties=None, site=0.0):
    """Return times, events and scores of patients whose score says something about their time."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(site, spread, rows)
    time = 500 * rng.weibull(1.3, rows) * np.exp(-risk)
    censored = rng.exponential(900, rows)
    event, time = time <= censored, np.minimum(time, censored)
    if ties:
        time = np.ceil(time / ties) * ties
    return time, event, risk + rng.normal(0, spread / 2, rows)


def edges_of(sites, parts=16):
    times = np.concatenate([time[event] for time, event, _ in sites])
    return np.unique(np.quantile(times, np.arange(1, parts) / parts)).tolist()


def state_of(site, edges, horizons=(), survival=None, batches=1):
    time, event, score = site
    metrics = SurvivalMetrics(edges, horizons)
    prediction = np.column_stack([score, *([] if survival is None else [survival])])
    for rows in np.array_split(np.arange(len(time)), batches):
        metrics.update(prediction[rows], np.column_stack([time, event])[rows], np.full(len(rows), 0.5))
    return metrics.state()


def pooled(sites):
    return tuple(np.concatenate(columns) for columns in zip(*sites, strict=True))


def all_pairs(time, event, score):
    return exact_pairs(time, event, score, np.zeros(len(time), dtype=int))


def harrell(time, event, score):
    pairs = all_pairs(time, event, score)
    return pairs.twice_concordant / 2 / pairs.comparable


# -- C-index -------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), rows=st.integers(5, 80), ties=st.sampled_from([None, 100]))
def test_exact_pairs_are_those_of_lifelines(seed, rows, ties):
    utils = pytest.importorskip("lifelines.utils")
    time, event, score = hospital(rows, seed, ties=ties)
    score = np.round(score, 1)
    if all_pairs(time, event, score).comparable:
        wanted = utils.concordance_index(time, -score, event)
        assert harrell(time, event, score) == pytest.approx(wanted, abs=1e-12)


def test_pairs_count_as_harrell_has_them():
    """Same time: an event is before a censored row, and two events cannot be compared."""
    time, event = np.array([1.0, 1.0, 1.0, 2.0]), np.array([True, True, False, False])
    assert all_pairs(time, event, np.array([3.0, 2.0, 1.0, 2.0])) == (7, 4, 0, 4)


@pytest.mark.parametrize("ties", [None, 7, 30])
@pytest.mark.parametrize("seed", range(5))
def test_federated_c_index_equals_pooled_within_0_005(seed, ties):
    """Four sites of 100 rows or more, also with times in weeks or months and sites whose risks differ."""
    sites = [hospital(100 + 50 * k, 10 * seed + k, ties=ties, site=0.3 * k) for k in range(4)]
    edges = edges_of(sites)
    found = compute(merge_states([state_of(site, edges) for site in sites]))
    assert found["c_index"] == pytest.approx(harrell(*pooled(sites)), abs=0.005)
    assert 0 < found["c_index_resolution"] < 0.1


@given(seed=st.integers(0, 2**32), rows=st.lists(st.integers(2, 60), min_size=2, max_size=4))
@settings(max_examples=30)
def test_what_the_bins_cost_is_bounded_by_the_reported_resolution(seed, rows):
    sites = [hospital(n, seed + k) for k, n in enumerate(rows)]
    time, event, score = pooled(sites)
    if not event.any() or not all_pairs(time, event, score).comparable:
        return
    found = compute(merge_states([state_of(site, edges_of(sites)) for site in sites]))
    if found["c_index"] is not None:
        # Half of the open pairs, once for whether they are in order and once for whether they count.
        assert abs(found["c_index"] - harrell(time, event, score)) <= found["c_index_resolution"] + 1e-9


@given(
    seed=st.integers(0, 2**32), rows=st.lists(st.integers(2, 60), min_size=2, max_size=4),
    smallest=st.sampled_from([2, 5, 10]), joining=st.integers(1, 4), parts=st.sampled_from([2, 4, 16]),
)  # fmt: skip
@settings(max_examples=40)
def test_the_resolution_holds_where_sites_join_cells(seed, rows, smallest, joining, parts):
    """Whatever the cells, how many sites join theirs, and however states are merged; see `joined_cells`."""
    sites = [hospital(n, seed + k, site=0.5 * k) for k, n in enumerate(rows)]
    time, event, score = pooled(sites)
    if not event.any() or not all_pairs(time, event, score).comparable:
        return
    states = [state_of(site, edges_of(sites, parts)) for site in sites]
    states = [coarse_state(state, smallest) if k < joining else state for k, state in enumerate(states)]
    for merged in (merge_states(states), merge_states([merge_states(states[:1]), merge_states(states[1:])])):
        found = compute(merged)
        if found["c_index"] is not None:
            assert abs(found["c_index"] - harrell(time, event, score)) <= found["c_index_resolution"] + 1e-9


def test_joined_cells_widen_the_resolution_and_not_the_interval_by_as_much():
    sites = [hospital(100, k) for k in range(3)]
    edges = edges_of(sites)
    plain = compute(merge_states([state_of(site, edges) for site in sites]))
    told = compute(merge_states([coarse_state(state_of(site, edges), 5) for site in sites]))
    assert told["c_index_resolution"] > 3 * plain["c_index_resolution"]
    width, before = (found["c_index_high"] - found["c_index_low"] for found in (told, plain))
    assert width < before + 0.1 < before + told["c_index_resolution"]


@given(seed=st.integers(0, 2**32), ties=st.sampled_from([None, 100]))
@settings(max_examples=20)
def test_the_c_index_of_one_site_is_exact(seed, ties):
    site = hospital(40, seed, ties=ties)
    found = compute(state_of(site, edges_of([site], 4)))
    if all_pairs(*site).comparable:
        assert found["c_index"] == found["c_index_within"] == pytest.approx(harrell(*site), abs=1e-12)
        assert found["c_index_resolution"] == 0


def test_c_index_within_counts_the_sites_own_pairs_only():
    sites = [hospital(60, 1), hospital(90, 2, site=3.0)]
    pairs = [all_pairs(*site) for site in sites]
    wanted = sum(own.twice_concordant for own in pairs) / 2 / sum(own.comparable for own in pairs)
    assert compute(merge_states([state_of(site, edges_of(sites)) for site in sites]))["c_index_within"] == wanted


def test_risks_that_hardly_differ_beside_one_far_out_are_ranked_all_the_same():
    """A model that has barely learned, and a patient with an outlier: all others once fell into three bins."""
    sites = [(time, event, 0.02 * score) for time, event, score in (hospital(150, 1), hospital(150, 2))]
    sites[0][2][0] = 9.0
    edges = edges_of(sites)
    state = merge_states([state_of(site, edges) for site in sites])
    assert compute(state)["c_index"] == pytest.approx(harrell(*pooled(sites)), abs=0.005)


def test_a_c_index_that_bins_leave_open_is_told():
    sites = [(time, event, score * 1e-5) for time, event, score in (hospital(100, 1), hospital(100, 2))]
    (note,) = explain(merge_states([state_of(site, edges_of(sites)) for site in sites]))
    assert note.startswith("c_index: binned, within 0.")


def test_places_of_bins_and_their_scores_go_together():
    places = np.arange(SCORE_BINS)
    assert SurvivalMetrics._scores(scores_at(places + 0.5)).tolist() == places.tolist()
    assert scores_at([0, SCORE_BINS / 2, SCORE_BINS]) == pytest.approx([-64, 0, 64])


def test_scores_beyond_the_bins_are_told_by_the_resolution():
    far = [(time, event, score + 500) for time, event, score in (hospital(100, 1), hospital(100, 2))]
    near = [hospital(100, 1), hospital(100, 2)]
    lost, found = (compute(merge_states([state_of(site, edges_of(sites)) for site in sites])) for sites in (far, near))
    assert lost["c_index_resolution"] > 0.2 > found["c_index_resolution"]
    assert lost["c_index_within"] == found["c_index_within"]


# -- Brier score ---------------------------------------------------------------------------------------------------

HORIZONS = np.linspace(50, 900, 18)


def curves(site):
    """Return survival at the horizons of a Weibull model with the score as log-risk."""
    return np.exp(-np.outer(np.exp(1.3 * site[2]), (HORIZONS / 500) ** 1.3))


def graf(time, event, survival):
    """The integrated Brier score with G by Kaplan-Meier at every time, the definition."""

    def uncensored(at, *, before):
        value = 1.0
        for moment in np.unique(time[~event]):
            if moment < at or (moment == at and not before):
                at_risk = (time >= moment).sum() - (event & (time == moment)).sum()
                value *= 1 - (~event & (time == moment)).sum() / at_risk
        return value

    weight = np.array([uncensored(moment, before=True) for moment in time])
    scores = []
    for column, horizon in enumerate(HORIZONS):
        died, alive = event & (time <= horizon), time > horizon
        total = (survival[died, column] ** 2 / weight[died]).sum()
        total += ((1 - survival[alive, column]) ** 2).sum() / uncensored(horizon, before=False)
        scores.append(total / len(time))
    return np.trapezoid(scores, HORIZONS) / (HORIZONS[-1] - HORIZONS[0])


@pytest.mark.parametrize("seed", range(4))
def test_federated_brier_score_equals_the_pooled_one_by_definition_within_0_01(seed):
    sites = [hospital(60 + 40 * k, 10 * seed + k, site=0.2 * k) for k in range(3)]
    states = [state_of(site, [100.0], HORIZONS, curves(site)) for site in sites]
    together = pooled(sites)
    found = compute(merge_states(states))["brier"]
    assert found == pytest.approx(graf(*together[:2], curves(together)), abs=0.01)
    # And the pooled rows through the same sums: the same number.
    assert found == compute(state_of(together, [100.0], HORIZONS, curves(together)))["brier"]


def test_without_censoring_the_brier_score_is_a_mean_of_squares():
    time, _, score = hospital(50, 3)
    site = (time, np.ones(50, dtype=bool), score)
    wanted = ((curves(site) - (time[:, None] > HORIZONS)) ** 2).mean(axis=0)
    wanted = np.trapezoid(wanted, HORIZONS) / (HORIZONS[-1] - HORIZONS[0])
    assert compute(state_of(site, [], HORIZONS, curves(site)))["brier"] == pytest.approx(wanted, abs=1 / 2048)


def test_a_problem_without_survival_curves_has_no_brier_score():
    assert "brier" not in compute(state_of(hospital(20, 1), [100.0]))


# -- states --------------------------------------------------------------------------------------------------------


def example():
    site = hospital(40, 1)
    return state_of(site, [50.0, 200.0], HORIZONS[:3], curves(site)[:, :3])


@given(seed=st.integers(0, 2**32), batches=st.integers(1, 5))
@settings(max_examples=20)
def test_batches_and_json_do_not_change_a_state(seed, batches):
    site = hospital(30, seed)
    whole = state_of(site, [50.0, 200.0])
    assert state_of(site, [50.0, 200.0], batches=batches) == json.loads(json.dumps(whole))
    check_state(whole)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_merged_states_are_states_in_any_order(seed):
    states = [state_of(hospital(n, seed + n), [50.0, 200.0]) for n in (5, 9, 17)]
    merged = merge_states(states)
    check_state(merged)
    assert merged == merge_states(states[::-1])
    assert compute(merged) == compute(merge_states([merge_states(states[:2]), states[2]]))


def test_no_rows_are_a_state_too():
    empty = SurvivalMetrics([100.0], [50.0]).state()
    assert compute(empty) == {
        "n": 0, "loss": None, "c_index": None, "c_index_within": None, "c_index_resolution": None, "brier": None,
        "c_index_low": None, "c_index_high": None,
    }  # fmt: skip
    assert explain(empty) == ["no rows"]
    site = hospital(20, 1)
    one = state_of(site, [100.0], [50.0], np.full((20, 1), 0.5))
    assert compute(merge_states([one, empty])) == compute(one)


def test_a_part_without_events_has_no_c_index_and_says_so():
    time, _, score = hospital(20, 1)
    state = state_of((time, np.zeros(20, dtype=bool), score), [100.0])
    assert compute(state)["c_index"] is None
    assert explain(state) == ["c_index: no event was seen before another row's time, so no pair can be compared"]


def test_rows_that_are_not_finite_are_counted_and_left_out():
    time, event, score = hospital(20, 1)
    broken = state_of((time, event, np.where(np.arange(20) < 3, np.nan, score)), [100.0])
    assert (broken["n"], broken["non_finite"]) == (17, 3)
    whole = state_of((time[3:], event[3:], score[3:]), [100.0])
    assert compute(broken) == compute(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("cells"), "lacks cells"),
        (lambda state: state.update(n=41), "must add up to n"),
        (lambda state: state.update(n=2**40), "at most"),
        (lambda state: state["edges"].reverse(), "must increase"),
        (lambda state: state["cells"].reverse(), "in order"),
        (lambda state: state["cells"][0].__setitem__(1, SCORE_BINS), "bins that there are"),
        (lambda state: state["exact"].__setitem__(0, 10**6), "contradict"),
        (lambda state: state["exact"].__setitem__(1, 10**7), "the same pairs"),
        (lambda state: state["binned"].__setitem__(3, 10**6), "among the pairs"),
        (lambda state: state["leaving"][0].__setitem__(0, 500), "the same rows"),
        (lambda state: state["early"][0].__setitem__(0, 10**9), "early"),
        (lambda state: state["late"].__setitem__(0, 10**9), "late"),
        (lambda state: state.update(loss=float("nan")), "loss"),
    ],
)
def test_a_state_that_cannot_be_is_refused(change, message):
    state = copy.deepcopy(example())
    check_state(state)
    change(state)
    with pytest.raises(ValueError, match=message):
        check_state(state)


def test_states_cut_at_other_times_are_not_merged():
    site = hospital(20, 1)
    with pytest.raises(ValueError, match="differ in edges"):
        merge_states([state_of(site, [100.0]), state_of(site, [200.0])])
