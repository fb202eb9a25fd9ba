"""Curves, products and imputed cells, each against its formula written the other way round."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from v6_algorithm import seeding
from v6_algorithm.data.preparation import imputation, statistics
from v6_algorithm.data.preparation.additive import moments_from_sums, moments_to_sums
from v6_algorithm.data.preparation.setup import unpack_arrays
from v6_algorithm.data.preparation.statistics import (
    Moments,
    Preparation,
    loose_quantiles,
    site_scaling,
    unit_where_constant,
)
from v6_algorithm.data.preparation.terms import MOST_COLUMNS, DesignTerms, cubic_basis, natural_basis
from v6_algorithm.data.quantiles import Cells, quantiles
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import Experiment

# -- curves ----------------------------------------------------------------------------------------------------------

KNOTS = np.array([-1.0, 0.0, 0.5, 2.0])


def test_a_cubic_curve_is_made_of_b_splines_between_the_outer_knots():
    x = np.linspace(-1, 2, 31)
    ends = np.concatenate([[-1.0] * 3, KNOTS, [2.0] * 3])
    every = BSpline.design_matrix(np.clip(x, -1, 2 - 1e-12), ends, 3).toarray()
    assert cubic_basis(x, KNOTS) == pytest.approx(every[:, 2:], abs=1e-9)
    # Beyond the outer knots it goes on as the cubic beside them.
    outside = np.array([-3.0, 4.0])
    curves = [BSpline(ends, np.eye(6)[number], 3, extrapolate=True)(outside) for number in range(2, 6)]
    assert cubic_basis(outside, KNOTS) == pytest.approx(np.column_stack(curves))


def test_a_natural_curve_is_a_line_outside_and_has_harrells_units():
    x = np.linspace(-1, 2, 31)
    made = natural_basis(x, KNOTS)
    above = np.maximum(x[:, None] - KNOTS, 0) ** 3
    for place in range(2):
        knot = KNOTS[place]
        wanted = above[:, place] - above[:, 2] * (2.0 - knot) / 1.5 + above[:, 3] * (0.5 - knot) / 1.5
        assert made[:, place] == pytest.approx(wanted / 9)
    assert np.diff(natural_basis(np.arange(3.0, 9.0), KNOTS), 2, axis=0) == pytest.approx(0, abs=1e-9)
    assert natural_basis(np.array([-5.0, -1.0]), KNOTS).tolist() == [[0, 0], [0, 0]]


TERMS = {
    "splines": {"a": ["natural", 4]}, "products": [["a", "b"], ["b", "c"]], "knots": {"a": [[-1.0, 0.0, 0.5, 2.0]]},
}  # fmt: skip


def read(**changes):
    return DesignTerms.from_json(TERMS | changes, ["a", "b"], {"c": ["x", "y"]})


def test_the_columns_of_terms_are_named_and_made_as_they_are_written():
    terms = read()
    features, categories = ["a", "b"], {"c": ["x", "y"]}
    assert terms.names(features, categories) == [
        "a'", "a''", "a * b", "a' * b", "a'' * b", "b * c=x", "b * c=y",
    ]  # fmt: skip
    assert DesignTerms({"a": ("cubic", 3)}, []).curve_columns("a") == ["a:b1", "a:b2", "a:b3"]
    generator = np.random.default_rng(0)
    inputs = np.column_stack([generator.normal(size=(6, 2)), np.eye(2)[[0, 1, 1, 0, 1, 0]]])
    shift, scale = np.array([0.3, 9.0]), np.array([2.0, 4.0])
    made = terms.columns(inputs, features, categories, 0, shift, scale)
    curve = natural_basis(inputs[:, 0], (KNOTS - 0.3) / 2)
    a, b, x, y = inputs.T
    assert made == pytest.approx(np.column_stack([curve, a * b, curve * b[:, None], b * x, b * y]))
    # The last columns first, and what is made of others after them.
    assert terms.elimination(features, categories) == [3, 2, 1, 0, 5, 4, 10, 9, 8, 7, 6]
    # Coefficients of scaled columns, made ones of the columns as they are.
    beta = generator.normal(size=12)
    raw = np.column_stack([inputs[:, :2] * scale + shift, inputs[:, 2:]])
    unscaled = terms.columns(raw, features, categories, 0, np.zeros(2), np.ones(2))
    design, other = (np.column_stack([np.ones(6), *pair]) for pair in ((inputs, made), (raw, unscaled)))
    assert design @ beta == pytest.approx(other @ (terms.units(features, categories, shift, scale) @ beta))


@pytest.mark.parametrize(
    "changes",
    [
        {"splines": {"a": ["wavy", 4]}}, {"splines": {"a": ["natural", 2]}, "knots": {}},
        {"splines": {"a": ["natural", 51]}, "knots": {}}, {"splines": {"c": ["natural", 4]}},
        {"products": [["a", "z"]]}, {"products": [["a"]]}, {"products": [["a", "a"]]},
        {"products": [["a", "b", "c", "b"]]},
        {"knots": {"a": [[-1.0, 0.0, 2.0]]}}, {"knots": {"a": [-1.0, 0.0, 0.5, 2.0]}},
        {"knots": {"a": [[-1.0, 0.0, 0.0, 2.0]]}}, {"knots": {"a": [[-1.0, 0.0, np.inf, 2.0]]}},
        {"knots": {"b": [[-1.0, 0.0, 0.5, 2.0]]}},
    ],
)  # fmt: skip
def test_terms_that_are_none_are_refused(changes):
    with pytest.raises(WireError):
        read(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"splines": {"a": ["cubic", 3]}, "knots": {"a": [[0.0, 1.0, 2.0]]}},
        {"splines": {"a": ["cubic", 50]}, "knots": {}}, {"products": [["a", "b", "c"]]}, {"knots": {}},
    ],
)  # fmt: skip
def test_terms_of_just_as_much_as_there_may_be_are_read(changes):
    read(**changes)


# -- imputation ------------------------------------------------------------------------------------------------------


def test_a_cell_is_one_of_the_five_nearest_predictions_each_as_likely():
    generator = np.random.default_rng(0)
    for count in (5, 6, 11, 60):
        known, values, wanted = generator.normal(size=count), np.arange(count) * 1.0, generator.normal(size=40) * 2
        drawn = np.random.default_rng(3).integers(0, 5, 40)
        nearest = [values[np.argsort(np.abs(known - at))[pick]] for at, pick in zip(wanted, drawn, strict=True)]
        assert imputation._matched(known, values, wanted, np.random.default_rng(3)).tolist() == nearest


def test_a_category_is_that_of_one_of_the_five_nearest_rows(monkeypatch):
    monkeypatch.setattr(imputation, "_BLOCK_ROWS", 7)
    generator = np.random.default_rng(0)
    known, wanted = generator.normal(size=(40, 3)), generator.normal(size=(20, 3))
    for most in (2000, 12):
        monkeypatch.setattr(imputation, "_MOST_CANDIDATES", most)
        same = np.random.default_rng(3)
        candidates, drawn = same.permutation(40)[:most], same.integers(0, 5, 20)
        distance = np.linalg.norm(known[candidates][None] - wanted[:, None], axis=2)
        nearest = [candidates[np.argsort(away)[pick]] for away, pick in zip(distance, drawn, strict=True)]
        assert imputation._nearest(known, wanted, np.random.default_rng(3)).tolist() == nearest


def design(rows=50):
    generator = np.random.default_rng(1)
    inputs = np.column_stack([generator.normal(size=(rows, 2)), np.eye(3)[generator.integers(0, 3, rows)]])
    return np.column_stack([np.ones(rows), inputs, generator.normal(size=rows), np.zeros(rows)])


def test_a_regression_is_drawn_around_least_squares_with_the_residuals_of_the_rows():
    given = design()
    sums = given.T @ given
    coefficients, deviation = imputation.draw_regression(sums, 1, np.random.default_rng(2))
    x, y = given[:, [0, 2, 3, 4, 5, 6]], given[:, 1]
    squares = x.T @ x
    inverse = np.linalg.inv(squares + 1e-5 * np.diag(np.diag(squares)))
    best = inverse @ x.T @ y
    same = np.random.default_rng(2)
    spread = np.sqrt(((y - x @ best) ** 2).sum() / same.chisquare(50 - 6))
    values, vectors = np.linalg.eigh(inverse)
    noise = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
    assert deviation == pytest.approx(spread)
    # The root is that of the sum of both: the first factor alone has the signs of its vectors.
    drawn = best + deviation * (imputation._root(inverse) @ same.normal(size=6))
    assert coefficients[[0, 2, 3, 4, 5, 6]] == pytest.approx(drawn)
    assert coefficients[[1, 7]].tolist() == [0, 0]
    root = imputation._root(inverse)
    assert root @ root.T == pytest.approx(inverse) == noise @ noise


def test_values_of_a_category_are_drawn_together_and_add_up():
    given, block = design(), np.array([3, 4, 5])
    coefficients, spread = imputation.draw_category(given.T @ given, block, np.random.default_rng(2))
    assert coefficients.sum(axis=0) == pytest.approx([1, *[0] * 7])
    assert spread.sum(axis=0) == pytest.approx(0, abs=1e-12)
    assert not coefficients[:, [3, 4, 5, 7]].any()
    x, y = given[:, [0, 1, 2, 6]], given[:, [3, 4]]
    squares = x.T @ x
    inverse = np.linalg.inv(squares + 1e-5 * np.diag(np.diag(squares)))
    best, same = inverse @ x.T @ y, np.random.default_rng(2)
    triangle = np.tril(same.normal(size=(2, 2)), -1) + np.diag(np.sqrt([same.chisquare(46), same.chisquare(45)]))
    rest = (y - x @ best).T @ (y - x @ best)
    root = imputation._root(rest) @ np.linalg.inv(triangle).T
    assert spread[:2, :2] == pytest.approx(root)
    drawn = best + imputation._root(inverse) @ same.normal(size=(4, 2)) @ root.T
    assert coefficients[:2][:, [0, 1, 2, 6]] == pytest.approx(drawn.T)
    # A column of small numbers counts as much as the same in another unit.
    unit = np.array([1, 1e-4, 1, 1, 1, 1, 1, 1])
    small, _ = imputation.draw_category((given * unit).T @ (given * unit), block, np.random.default_rng(2))
    assert small[0, 1] != 0
    # A category of one value is that value, and of no other columns each row has the last.
    one, nothing = imputation.draw_category(given.T @ given, np.array([3]), np.random.default_rng(2))
    assert (one[0].tolist(), nothing.tolist()) == ([1, *[0] * 7], [[0]])


def test_products_are_of_the_rows_in_which_a_column_has_a_value():
    generator = np.random.default_rng(0)
    completed, outcome = generator.normal(size=(9, 2)), generator.normal(size=(9, 1))
    known = generator.random((9, 2)) < 0.6
    given = np.column_stack([np.ones(9), completed, outcome])
    for column, found in enumerate(imputation.products(completed, outcome, known)):
        assert found == pytest.approx(
            sum(np.outer(row, row) for row, there in zip(given, known[:, column], strict=True) if there)
        )


def test_the_outcome_of_survival_is_the_event_and_the_hazard_of_the_hospitals_training_rows():
    generator = np.random.default_rng(0)
    time, event = generator.integers(1, 6, 30) * 1.0, generator.integers(0, 2, 30)
    member, train = generator.integers(0, 2, 30), np.flatnonzero(generator.random(30) < 0.7)
    found = imputation.outcome_of(np.column_stack([time, event]), train, member)
    for row in range(30):
        mine = [number for number in train if member[number] == member[row]]
        hazard = sum(
            sum(time[n] == at and event[n] for n in mine) / sum(time[n] >= at for n in mine)
            for at in {time[n] for n in mine if event[n]} if at <= time[row]
        )  # fmt: skip
        assert found[row] == pytest.approx([event[row], hazard])
    assert imputation.outcome_of(np.array([1, 0]), train, member).tolist() == [[1], [0]]


def test_places_of_columns_are_those_of_a_design_with_an_intercept():
    found = imputation.blocks_of(["d", "b", "c"], ["a", "b"], {"c": [1, 2, 3], "d": [1, 2]})
    assert [block.tolist() for block in found] == [[6, 7], [2], [3, 4, 5]]


def test_each_value_of_a_category_that_nobody_lends_has_a_regression_of_its_own():
    blocks = [np.array([1, 2])]
    made = imputation.Imputation.empty(["c"], 3, 1, 4, blocks).followed_by(
        np.array([[[0.2, 0, 0, 1], [0.8, 0, 0, -1]]]), np.zeros((1, 2, 2))
    )
    outcome = np.array([[0.1], [0.3]])
    cells = made.complete(np.zeros((2, 0)), np.full((2, 2), np.nan), outcome, blocks, 0, [], np.ones(2, dtype=bool))
    assert cells == pytest.approx(np.array([[0.3, 0.7], [0.5, 0.5]]))


def test_where_hardly_anybody_has_a_value_it_is_drawn_from_the_regression():
    """Two of three rows have none, so the third lends nothing."""
    made = imputation.Imputation.empty(["a"], 3, 2, 4)
    before = made.complete(np.array([[np.nan], [2.0], [np.nan]]), np.zeros((3, 1)), np.ones((3, 1)), [np.array([1])], 1,
                           ["site"], np.ones(3, dtype=bool))  # fmt: skip
    assert before.tolist() == [[0, 0], [2, 0], [0, 0]]
    made = made.followed_by(np.full((2, 1, 4), [0.5, 0.0, 1.0, 2.0]), np.full((2, 1, 1), 0.25))
    scaled, others, outcome = (
        np.array([[np.nan], [2.0], [np.nan]]),
        np.array([[1.0], [0], [0]]),
        np.array([[1.0], [2], [3]]),
    )
    found = made.complete(scaled, others, outcome, [np.array([1])], 1, ["site"], np.ones(3, dtype=bool))
    drawn = seeding.numpy_generator(3, "imputation", "site", 1, 0, 0).normal(size=2)
    assert found[[0, 2], 0] == pytest.approx(np.array([0.5 + 1 + 2, 0.5 + 6]) + 0.25 * drawn)
    assert found[1].tolist() == [2, 0]
    # A category of which nothing is known is in equal shares before the first sweep.
    blocks, others = [np.array([2, 3])], np.array([[np.nan, np.nan], [0.0, 1.0]])
    shares = imputation.Imputation.empty(["c"], 3, 1, 5, blocks)
    cells = shares.complete(np.zeros((2, 1)), others, np.ones((2, 1)), blocks, 0, [], np.ones(2, dtype=bool))
    assert cells.tolist() == [[0, 0.5, 0.5], [0, 0, 1]]
    # Also of a category that has one value.
    blocks, others = [np.array([2])], np.array([[np.nan], [1.0]])
    single = imputation.Imputation.empty(["c"], 3, 1, 4, blocks)
    cells = single.complete(np.zeros((2, 1)), others, np.ones((2, 1)), blocks, 0, [], np.ones(2, dtype=bool))
    assert cells.tolist() == [[0, 1], [0, 1]]


def test_of_few_rows_the_spread_is_drawn_with_one_degree_of_freedom():
    given, block = design(6), np.array([3, 4, 5])
    x, y = given[:, [0, 1, 2, 6]], given[:, [3, 4]]
    squares = x.T @ x
    best = np.linalg.inv(squares + 1e-5 * np.diag(np.diag(squares))) @ x.T @ y
    same = np.random.default_rng(2)
    triangle = np.tril(same.normal(size=(2, 2)), -1) + np.diag(np.sqrt([same.chisquare(2), same.chisquare(1)]))
    _, spread = imputation.draw_category(given.T @ given, block, np.random.default_rng(2))
    rest = (y - x @ best).T @ (y - x @ best)
    assert spread[:2, :2] == pytest.approx(imputation._root(rest) @ np.linalg.inv(triangle).T, rel=1e-5)
    given = given[:4]
    _, spread = imputation.draw_category(given.T @ given, block, np.random.default_rng(2))
    same = np.random.default_rng(2)
    triangle = np.tril(same.normal(size=(2, 2)), -1) + np.diag(np.sqrt([same.chisquare(1), same.chisquare(1)]))
    x, y = given[:, [0, 1, 2, 6]], given[:, [3, 4]]
    squares = x.T @ x
    best = np.linalg.inv(squares + 1e-5 * np.diag(np.diag(squares))) @ x.T @ y
    rest = (y - x @ best).T @ (y - x @ best)
    assert spread[:2, :2] == pytest.approx(imputation._root(rest) @ np.linalg.inv(triangle).T, rel=1e-3)


def message(sweeps=1, imputations=2, columns=("a", "c"), width=6, most=3, places=4):
    shape = sweeps, imputations, places
    return {"columns": list(columns), "seed": 3}, {
        "coefficients": np.zeros((*shape, width)), "deviations": np.zeros((*shape, most)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True), ({"width": 7}, True), ({"width": 5}, False), ({"width": 8}, False), ({"most": 2}, False),
        ({"places": 3}, False), ({"sweeps": 50}, True), ({"sweeps": 51}, False), ({"imputations": 100}, True),
        ({"imputations": 101}, False), ({"sweeps": 0}, True), ({"columns": ("a", "z")}, False),
        ({"columns": ("a", "a"), "most": 1, "places": 2}, False), ({"columns": (), "places": 0, "most": 1}, False),
    ],
)  # fmt: skip
def test_regressions_of_a_message_fit_the_columns(changes, right):
    content, arrays = message(**changes)

    # 1, two features less the category's place, three values, one outcome.
    def check():
        return imputation.Imputation.check(content, arrays, ["a"], {"c": [1, 2, 3]})

    if right:
        assert check().imputations == changes.get("imputations", 2)
        arrays["deviations"] = arrays["deviations"] + (np.inf if arrays["deviations"].size else 0)
        if arrays["deviations"].size:
            with pytest.raises(WireError, match="finite"):
                check()
    else:
        with pytest.raises(WireError):
            check()


# -- scales ----------------------------------------------------------------------------------------------------------


def test_rows_are_filled_and_scaled_the_same_in_any_block(monkeypatch):
    values = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, 6.0]])
    prepared = Preparation(np.array([[9.0, 8.0]]), np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]]))
    wanted = [[0.0, 1.5], [1.0, 0.5], [4.0, 1.0]]
    for cells in (1, 3, 4, 10**6):
        monkeypatch.setattr(statistics, "_BLOCK_CELLS", cells)
        assert prepared.apply(values, 0).tolist() == wanted
        out = np.empty((3, 2))
        assert prepared.apply(values, 0, out) is out
        assert out.tolist() == wanted
    assert Preparation(*np.zeros((3, 1, 0))).apply(np.empty((3, 0)), 0).shape == (3, 0)


@pytest.mark.parametrize(("kind", "shift", "scale"), [("standard", 2, 0.8**0.5), ("minmax", 1, 2), ("robust", 2, 2)])
def test_a_site_scales_with_its_filled_rows(kind, shift, scale):
    values = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0], [1.0, 5.0], [3.0, 5.0]])
    fill = np.array([[2.0, 0.0]])
    found = site_scaling(kind, [values], Preparation(fill, fill, fill))
    assert found.fill is fill
    assert found.shift[0] == pytest.approx([shift, 5])
    assert found.scale[0] == pytest.approx([scale, 1])


def test_a_spread_of_a_billionth_of_a_thousandth_is_that_of_a_constant():
    spread = np.array([1.1e-12, 0.9e-12, 1e-20, 0.0, 1e-313, 1e-311])
    centre = np.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    assert unit_where_constant(spread, centre).tolist() == [1.1e-12, 1.0, 1e-20, 1.0, 1.0, 1e-311]


@pytest.mark.parametrize("scaling", ["standard", "robust"])
def test_a_quantile_that_is_not_certain_is_told_as_a_share_of_the_spread(scaling):
    """Eight rows in two cells of four: what is inside a cell is not known."""
    missing = {"kind": "median"} if scaling == "standard" else {"kind": "mean"}
    data = Experiment.parse({"data": {"target": "y", "scaling": scaling, "missing": missing}, "model": "linear"}).data
    values = np.array(
        [[0.0, 7.0], [1.0, 7.0], [2.0, 7.0], [3.0, 7.0], [10.0, 7.0], [11.0, 7.0], [12.0, 7.0], [13.0, 7.0]]
    )
    moments = Moments.of([values], with_range=False)
    cells = Cells.of(values.T, 4, None)
    (first, second) = loose_quantiles(data, moments, [cells])
    shares = (0.25, 0.5, 0.75) if scaling == "robust" else (0.5,)
    found = [quantiles([column], shares) for column in cells.columns()]
    spread = found[0][-1].value - found[0][0].value if scaling == "robust" else values[:, 0].std()
    assert first == pytest.approx(max(estimate.doubt for estimate in found[0]) / spread)
    assert second == pytest.approx(max(estimate.doubt for estimate in found[1]))
    none = Moments.of([values[:0]], with_range=False), [Cells.of(values[:0].T, 4, None)]
    assert loose_quantiles(data, *none).tolist() == [0, 0]


def test_sums_of_a_column_that_nobody_has_are_those_of_nothing():
    from fractions import Fraction

    sums = {
        "rows": [4],
        "count": [[0, 2]],
        "total": [[Fraction(0), Fraction(6)]],
        "squares": [[Fraction(0), Fraction(20)]],
    }
    found = unpack_arrays(moments_from_sums(sums))
    assert (found["mean"].tolist(), found["squares"].tolist()) == ([[0, 3]], [[0, 2]])
    assert (found["rows"].tolist(), found["count"].tolist()) == ([4], [[0, 2]])
    # What is left of rounding is no spread.
    less = sums | {"squares": [[Fraction(0), Fraction(17)]]}
    assert unpack_arrays(moments_from_sums(less))["squares"].tolist() == [[0, 0]]
    assert moments_from_sums(None) is None
    none = {"rows": [4, 5], "count": [[], []], "total": [[], []], "squares": [[], []]}
    assert unpack_arrays(moments_from_sums(none))["mean"].shape == (2, 0)
    assert moments_to_sums(None) is None


def test_a_spread_at_the_limit_of_rounding_is_that_of_a_constant():
    assert unit_where_constant(np.array([1e-12]), np.array([1.0])).tolist() == [1.0]


def test_a_long_table_is_cut_into_blocks_of_few_columns():
    cells = statistics._BLOCK_CELLS
    assert statistics.column_blocks(np.broadcast_to(0.0, (cells // 2, 3))) == [slice(0, 2), slice(2, 4)]
    assert statistics.column_blocks(np.broadcast_to(0.0, (cells, 0))) == [slice(0, 1)]


def test_the_columns_of_a_curve_count_in_its_products():
    values = list(range(MOST_COLUMNS // 3 + 1))
    with pytest.raises(WireError, match="the terms are more than"):
        DesignTerms.from_json(TERMS | {"products": [["a", "c"]]}, ["a", "b"], {"c": values})
