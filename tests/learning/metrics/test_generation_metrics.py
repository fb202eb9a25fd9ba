"""FID and KID from sums: they are those of the pooled features, and say what they should."""

import base64
import json

import numpy as np
import pytest

from v6_algorithm.learning.metrics import GenerationMetrics, check_state, compute, explain, merge_states

D = 6


def features(rows, seed, shift=0.0, scale=1.0):
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(rows, D)) * scale + shift) @ np.random.default_rng(99).normal(size=(D, D))


def state_of(real, made, **options):
    collector = GenerationMetrics(real.shape[1], **options)
    # In two batches, as images come.
    collector.update(real[:7], made[:7])
    collector.update(real[7:], made[7:])
    return collector.state()


def measured(real, made):
    return compute(state_of(real, made))


def textbook_fid(real, made):
    """Heusel et al. (2017) with scipy's matrix root, as the usual implementations have it."""
    from scipy import linalg

    c_real, c_made = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    root = linalg.sqrtm(c_real @ c_made).real
    return ((real.mean(0) - made.mean(0)) ** 2).sum() + np.trace(c_real + c_made - 2 * root)


def textbook_kid(real, made):
    """Bińkowski et al. (2018), equation 4, by all pairs of rows."""
    m = len(real)
    (xx, yy, xy) = (((a @ b.T) / D + 1) ** 2 for a, b in ((real, real), (made, made), (real, made)))
    apart = m * (m - 1)
    return (xx.sum() - np.trace(xx)) / apart + (yy.sum() - np.trace(yy)) / apart - 2 * xy.mean()


def test_fid_is_the_textbooks():
    real, made = features(80, 0), features(80, 1, shift=0.3, scale=1.4)
    assert measured(real, made)["fid"] == pytest.approx(textbook_fid(real, made), rel=1e-9)


def test_kid_is_that_of_all_pairs_of_rows():
    real, made = features(80, 0), features(80, 1, shift=0.3, scale=1.4)
    assert measured(real, made)["kid"] == pytest.approx(textbook_kid(real, made), rel=1e-9)


def test_federated_fid_and_kid_equal_pooled_ones():
    real, made = features(100, 2), features(100, 3, shift=0.2)
    pooled = measured(real, made)
    cuts = [slice(0, 20), slice(20, 70), slice(70, 100)]
    states = [json.loads(json.dumps(state_of(real[cut], made[cut]))) for cut in cuts]
    for order in (states, states[::-1]):
        assert compute(merge_states(order)) == pytest.approx(pooled, rel=1e-9)


def test_fid_of_two_normal_distributions_is_the_formula_by_hand():
    """In one dimension (m1 - m2)^2 + (s1 - s2)^2; the rows have these means and standard deviations exactly."""
    unit = np.array([-1.0, 1.0] * 50)[:, None] * np.sqrt(99 / 100)
    assert measured(1 + 2 * unit, 4 + 5 * unit)["fid"] == pytest.approx(3**2 + 3**2, rel=1e-12)


def test_fid_of_a_set_and_itself_is_zero_and_kid_is_not_above_it():
    real = features(100, 0)
    assert measured(real, real)["fid"] == pytest.approx(0, abs=1e-7)
    assert measured(real, real)["kid"] <= 0


def test_kid_of_two_halves_of_one_distribution_is_zero_on_average():
    values = [measured(features(40, 2 * seed), features(40, 2 * seed + 1))["kid"] for seed in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_fid_does_not_depend_on_the_order_of_rows_nor_on_which_set_is_real():
    real, made = features(60, 0), features(60, 1, shift=1)
    shuffled = np.random.default_rng(0).permutation(60)
    for other in (measured(real[shuffled], made), measured(made, real)):
        assert other == pytest.approx(measured(real, made), rel=1e-9)


def test_fid_does_not_depend_on_a_rotation_of_the_features():
    real, made = features(60, 0), features(60, 1, shift=1)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(D, D)))[0]
    assert measured(real @ rotation, made @ rotation) == pytest.approx(measured(real, made), rel=1e-8)


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_a_mode_that_is_dropped_is_worse_the_more_it_is_dropped(name):
    modes = np.concatenate([features(200, 0), features(200, 1, shift=4)])
    values = [measured(modes, modes[np.arange(400) * (400 - drop) // 400])[name] for drop in (0, 60, 130, 200)]
    assert values == sorted(values)
    assert values[-1] > values[0] + 1


def test_features_that_do_not_vary_have_an_fid():
    constant = np.full((20, D), 0.3)
    assert measured(constant, constant)["fid"] == pytest.approx(0, abs=1e-9)
    assert measured(constant, constant + 1)["fid"] == pytest.approx(D, rel=1e-6)


def test_a_hospital_with_fewer_rows_than_features_tells_nothing_of_them():
    few = state_of(features(D - 1, 0), features(D - 1, 1))
    assert (few["n"], few["withheld"]) == (0, D - 1)
    assert not np.frombuffer(base64.b64decode(few["real"])).any()
    assert not np.frombuffer(base64.b64decode(few["made"])).any()
    assert compute(few) == {"n": 0, "fid": None, "kid": None}
    assert "5 rows are withheld" in explain(few)[0]


def test_a_node_may_ask_for_more_rows_than_there_are_features():
    rows = features(30, 0)
    assert state_of(rows, rows, least=31)["n"] == 0
    assert state_of(rows, rows, least=30)["n"] == 30
    assert state_of(rows[:5], rows[:5], least=3)["n"] == 0, "and never for fewer"


def test_what_one_hospital_withholds_is_left_out_of_all():
    real, made = features(50, 0), features(50, 1)
    merged = merge_states([state_of(real, made), state_of(real[:3], made[:3])])
    assert compute(merged) == pytest.approx(measured(real, made))
    assert merged["withheld"] == 3


def test_pairs_with_a_number_that_is_not_finite_are_counted_and_left_out():
    real, made = features(50, 0), features(50, 1)
    made[3, 2], real[8, 0] = np.nan, np.inf
    state = state_of(real, made)
    assert (state["n"], state["non_finite"]) == (48, 2)
    kept = np.delete(np.arange(50), [3, 8])
    assert compute(state) == pytest.approx(measured(real[kept], made[kept]), rel=1e-9)


def broken(**changes):
    state = state_of(features(20, 0), features(20, 1))
    return state | {name: change(state[name]) if callable(change) else change for name, change in changes.items()}


def rewritten(change):
    def rewrite(text):
        numbers = np.frombuffer(base64.b64decode(text), dtype="<f8").copy()
        change(numbers)
        return base64.b64encode(numbers.tobytes()).decode()

    return rewrite


def put(place, value):
    return rewritten(lambda numbers: numbers.__setitem__(place, value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": D - 1}, "n of the metric state must be 0, or dimensions or more"),
        ({"n": 0}, "must be 0, since n is 0"),
        ({"n": 2.0}, "n of the metric state must be an integer"),
        ({"withheld": -1}, "withheld"),
        ({"dimensions": 5}, "real of the metric state must be base64 of 21"),
        ({"dimensions": 10**6}, "at most"),
        ({"real": [1.0]}, "real of the metric state must be base64"),
        ({"made": lambda text: "*" * len(text)}, "made of the metric state must be base64"),
        ({"made": lambda text: text[:-4]}, "made of the metric state must be base64"),
        ({"real": put(0, np.nan)}, "finite"),
        ({"real": put(0, 1e200)}, "finite"),
        ({"made": put(D, -1.0)}, "no spread can be negative"),
        ({"made": put(0, 1e6)}, "no spread can be negative"),
        ({"real": put(-1, 0.0)}, "contradicts itself"),
        ({"extra": 1}, "1 unexpected keys"),
    ],
)
def test_a_state_that_no_site_can_have_made_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_state(broken(**changes))


def test_states_of_other_dimensions_are_not_merged():
    with pytest.raises(ValueError, match="differ in dimensions"):
        merge_states([state_of(np.ones((9, 2)), np.ones((9, 2))), state_of(np.ones((9, 3)), np.ones((9, 3)))])


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"one shape \(n, 6\)"):
        GenerationMetrics(D).update(np.ones((3, D)), np.ones((3, D + 1)))
