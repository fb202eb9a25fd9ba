"""Terms of a regression beside its columns: curves (splines) and products, as further inputs of the model.

`Setup` carries them, so every site makes the same columns; `TableData.inputs` calls `DesignTerms.columns` on filled and
scaled inputs. In units of the table's columns again, `DesignTerms.units` says what a coefficient is.

References
----------
Stone and Koo (1985), Additive splines in statistics (natural cubic splines by truncated powers, as in Harrell's rcs).
de Boor, A Practical Guide to Splines, 2001 (B-splines).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any

import numpy as np

from v6_algorithm.errors import ExperimentError, WireError

Array = np.ndarray
_KINDS = ("natural", "cubic")
# More columns than that are no regression any more; also what a request may make a site build.
MOST_COLUMNS = 2000


@dataclass(frozen=True)
class DesignTerms:
    """Curves and products.

    Attributes
    ----------
    splines
        Column to `kind` and number of knots.
    products
        Columns of each product, those of fewer columns first; with one of three its pairs are there too.
    knots
        Column to (folds, knots) float64 in its units, increasing; empty until they are agreed on.
    """

    splines: Mapping[str, tuple[str, int]]
    products: Sequence[tuple[str, ...]]
    knots: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, features: Sequence[str], categories: Mapping[str, Sequence[Any]]) -> DesignTerms | None:
        """Return the terms of a model's section, None where it has none; raises ExperimentError for unknown columns."""
        splines, wanted = getattr(model, "splines", {}), getattr(model, "interactions", [])
        if not splines and not wanted:
            return None
        offset = getattr(model, "offset", None)
        for column in splines:
            if column not in features or column == offset:
                raise ExperimentError(f"model.splines: '{column}' is no numeric feature that all sites have")
        for name in (name for asked in wanted for name in asked):
            if (name not in features and name not in categories) or name == offset:
                raise ExperimentError(f"model.interactions: '{name}' is no feature that all sites have")
        places = {name: place for place, name in enumerate([*features, *categories])}
        every = {
            tuple(sorted(part, key=places.__getitem__))
            for asked in wanted
            for size in range(2, len(asked) + 1)
            for part in combinations(asked, size)
        }
        order = sorted(every, key=lambda part: (len(part), [places[name] for name in part]))
        return cls({name: (spline.kind, spline.number) for name, spline in splines.items()}, order)

    def with_knots(self, knots: Mapping[str, Array]) -> DesignTerms:
        """Return the terms with the places of their knots."""
        return replace(self, knots=dict(knots))

    # -- names -------------------------------------------------------------------------------------------------------

    def curve_columns(self, column: str) -> list[str]:
        """Name the columns of a curve beside the straight line: age', age'' of a natural one, age:b1 of a cubic one."""
        kind, knots = self.splines[column]
        if kind == "natural":
            return [column + "'" * number for number in range(1, knots - 1)]
        return [f"{column}:b{number}" for number in range(1, knots + 1)]

    def factors(self, features: Sequence[str], categories: Mapping[str, Sequence[Any]]) -> list[tuple[str, ...]]:
        """Return the columns that each term's column is a product of, in order; a curve's column is one by itself."""
        curves = {name: self.curve_columns(name) for name in features if name in self.splines}
        of_column = {name: [name, *curves.get(name, [])] for name in features}
        of_column |= {name: [f"{name}={value}" for value in values] for name, values in categories.items()}
        made = [(name,) for names in curves.values() for name in names]
        return made + [factors for part in self.products for factors in product(*(of_column[name] for name in part))]

    def names(self, features: Sequence[str], categories: Mapping[str, Sequence[Any]]) -> list[str]:
        """Name the terms' columns."""
        return [" * ".join(factors) for factors in self.factors(features, categories)]

    def elimination(self, features: Sequence[str], categories: Mapping[str, Sequence[Any]]) -> list[int]:
        """Return the places of all inputs in the order in which a column is kept rather than a later one.

        The last first, and so of a category its first value is left out; but columns before what is made of them.
        """
        columns = len(features) + sum(len(values) for values in categories.values())
        sizes = [len(factors) for factors in self.factors(features, categories)]
        places = list(range(columns))[::-1]
        for size in sorted(set(sizes)):
            places += [columns + place for place in range(len(sizes))[::-1] if sizes[place] == size]
        return places

    # -- numbers -----------------------------------------------------------------------------------------------------

    def columns(self, inputs: Array, features: Sequence[str], categories: Mapping[str, Sequence[Any]], fold: int,
                shift: Array, scale: Array) -> Array:  # fmt: skip
        """Make the terms' columns.

        Parameters
        ----------
        inputs
            (rows, columns) float64: scaled features, then categories.
        features, categories
            What the columns are.
        fold
            Whose knots.
        shift, scale
            (features,) by which the features were scaled.

        Returns
        -------
        ndarray
            (rows, terms), scaled as the features are.
        """
        names = [*features, *(f"{name}={value}" for name, values in categories.items() for value in values)]
        base = dict(zip(names, inputs.T, strict=True))
        for name in features:
            if name in self.splines:
                place = list(features).index(name)
                knots = (self.knots[name][fold] - shift[place]) / scale[place]
                made = _BASES[self.splines[name][0]](base[name], knots)
                base |= dict(zip(self.curve_columns(name), made.T, strict=True))
        terms = self.factors(features, categories)
        made = np.empty((len(inputs), len(terms)), dtype=inputs.dtype)
        for place, factors in enumerate(terms):
            made[:, place] = base[factors[0]]
            for name in factors[1:]:
                made[:, place] *= base[name]
        return made

    def curve(self, column: str, x: Array, fold: int) -> Array:
        """Return the columns of a curve at some values, (values, columns), in units of the column as it is."""
        made: Array = _BASES[self.splines[column][0]](x, self.knots[column][fold])
        return made

    def units(self, features: Sequence[str], categories: Mapping[str, Sequence[Any]], shift: Array, scale: Array,
              ) -> Array:  # fmt: skip
        """Return the matrix that turns coefficients, the intercept first, into those of the columns as they are.

        A product of (a - s) / c is one of a's, less what belongs to the terms of fewer columns.
        """
        names = [*features, *(f"{name}={value}" for name, values in categories.items() for value in values)]
        terms = [(), *((name,) for name in names), *self.factors(features, categories)]
        place = {frozenset(factors): number for number, factors in enumerate(terms)}
        moved = {name: (0.0, 1.0) for factors in terms for name in factors}
        moved |= {name: (float(shift[number]), float(scale[number])) for number, name in enumerate(features)}
        for name in features:
            if self.splines.get(name, ("",))[0] == "natural":
                # (x - knot)³ over the squared distance of the outer knots is in units of x.
                moved |= dict.fromkeys(self.curve_columns(name), (0.0, moved[name][1]))
        matrix = np.zeros((len(terms), len(terms)))
        for number, factors in enumerate(terms):
            centred = [name for name in factors if moved[name][0]]
            divisor = float(np.prod([moved[name][1] for name in factors]))
            for size in range(len(centred) + 1):
                for gone in combinations(centred, size):
                    share = float(np.prod([-moved[name][0] for name in gone]))
                    matrix[place[frozenset(factors) - set(gone)], number] += share / divisor
        return matrix

    # -- on the wire -------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "splines": {name: list(spline) for name, spline in self.splines.items()},
            "products": [list(part) for part in self.products],
            "knots": {name: knots.tolist() for name, knots in self.knots.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], features: Sequence[str], categories: Mapping[str, Sequence[Any]],
                  ) -> DesignTerms:  # fmt: skip
        """Read the JSON form; raises WireError when it is malformed, or of columns that are no inputs."""
        splines = {str(name): (str(kind), int(number)) for name, (kind, number) in content["splines"].items()}
        products = [tuple(str(name) for name in part) for part in content["products"]]
        knots = {str(name): np.array(places, dtype=np.float64) for name, places in content["knots"].items()}
        terms = cls(splines, products, knots)
        known = {*features, *categories}
        if any(kind not in _KINDS or not 3 <= number <= 50 for kind, number in splines.values()):
            raise WireError("a spline's kind or knots are not known")
        if not set(splines) <= set(features) or not {name for part in products for name in part} <= known:
            raise WireError("the terms are of columns that are no inputs")
        if any(not 2 <= len(part) <= 3 or len(set(part)) < len(part) for part in products):
            raise WireError("a product is not of two or three columns")
        for name, places in knots.items():
            fits = places.ndim == 2 and places.shape[1] == splines.get(name, ("", 0))[1]
            if not fits or not np.isfinite(places).all() or (np.diff(places, axis=1) <= 0).any():
                raise WireError("knots must be increasing finite numbers")
        widths = {name: 1 + len(terms.curve_columns(name)) if name in splines else 1 for name in features}
        widths |= {name: len(values) for name, values in categories.items()}
        if sum(int(np.prod([widths[name] for name in part])) for part in products) > MOST_COLUMNS:
            raise WireError(f"the terms are more than {MOST_COLUMNS} columns")
        return terms


def natural_basis(x: Array, knots: Array) -> Array:
    """Return (rows, knots - 2) columns that with a straight line span the natural cubic splines of these knots.

    As Harrell's ``rcs``: cubed distances above the knots, over the squared distance of the outer ones.
    """
    last, before = knots[-1], knots[-2]
    above = np.maximum(x[:, None] - knots, 0.0) ** 3
    tail = ((last - knots[:-2]) * above[:, [-2]] - (before - knots[:-2]) * above[:, [-1]]) / (last - before)
    columns: Array = (above[:, :-2] - tail) / (last - knots[0]) ** 2
    return columns


def cubic_basis(x: Array, knots: Array) -> Array:
    """Return (rows, knots) columns that with a straight line span the cubic splines whose inner knots these are.

    B-splines between the outer knots, without the first two of them, which a constant and the line stand for; beyond
    the outer knots the curve goes on as the cubic that it is beside them.
    """
    ends = np.concatenate([[knots[0]] * 3, knots, [knots[-1]] * 3])
    spans = len(ends) - 1
    place = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2) + 3
    values = np.zeros((len(x), spans))
    values[np.arange(len(x)), place] = 1.0
    for degree in range(1, 4):
        following = np.zeros((len(x), spans - degree))
        for number in range(spans - degree):
            left, right = ends[number + degree] - ends[number], ends[number + degree + 1] - ends[number + 1]
            if left > 0:
                following[:, number] += (x - ends[number]) / left * values[:, number]
            if right > 0:
                following[:, number] += (ends[number + degree + 1] - x) / right * values[:, number + 1]
        values = following
    return values[:, 2:]


_BASES = {"natural": natural_basis, "cubic": cubic_basis}
