"""Keys of `model: {kind: glm | cox}` about its terms: products of columns, curves, and the rows' weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from v6_algorithm.experiment.base import Section, refuse

# Shares of the rows below a knot, by their number (Harrell, Regression Modeling Strategies, 2015, section 2.4.6).
KNOT_SHARES = {
    3: (0.1, 0.5, 0.9),
    4: (0.05, 0.35, 0.65, 0.95),
    5: (0.05, 0.275, 0.5, 0.725, 0.95),
    6: (0.05, 0.23, 0.41, 0.59, 0.77, 0.95),
    7: (0.025, 0.1833, 0.3417, 0.5, 0.6583, 0.8167, 0.975),
}
# Columns of one product, and products of a model.
_MOST_FACTORS, _MOST_PRODUCTS = 3, 200
# Of one curve; more would follow single rows.
_MOST_KNOTS = 20


class Spline(Section):
    """A smooth curve of one column, in place of a straight line."""

    kind: Literal["natural", "cubic"] = Field(
        "natural", description="natural: straight beyond the outer knots (restricted); cubic: a B-spline's curve"
    )
    knots: int | list[float] = Field(
        4, description="how many, at quantiles of all sites' rows (3 to 7), or where they are"
    )

    @model_validator(mode="after")
    def _placed(self) -> Spline:
        if isinstance(self.knots, int):
            if self.knots not in KNOT_SHARES:
                raise refuse(f"knots: {self.knots} is not 3 to 7; or give the places of the knots as a list")
        elif not 3 <= len(self.knots) <= _MOST_KNOTS or any(
            a >= b for a, b in zip(self.knots, self.knots[1:], strict=False)
        ):
            raise refuse(f"knots: a list of places is 3 to {_MOST_KNOTS} increasing numbers")
        return self

    @property
    def number(self) -> int:
        """How many knots there are."""
        return self.knots if isinstance(self.knots, int) else len(self.knots)


def _spline(value: Any) -> Any:
    return {"knots": value} if isinstance(value, (int, list)) and not isinstance(value, bool) else value


def _product(value: Any) -> Any:
    return [name.strip() for name in value.split(" * ")] if isinstance(value, str) else value


Splines = dict[str, Annotated[Spline, BeforeValidator(_spline)]]
Product = Annotated[list[str], BeforeValidator(_product)]


class Weights(Section):
    """A column of the rows' weights, which is no feature."""

    column: str = Field(min_length=1)
    kind: Literal["frequency", "analytic"] = Field(
        description="frequency: a row stands for so many alike, whole numbers; analytic: its variance is 1 / weight"
    )


class Penalty(Section):
    """Shrinks the coefficients of scaled inputs; those of weak inputs become 0, but for kind ridge."""

    kind: Literal["lasso", "elastic_net", "ridge"]
    mixing: float | None = Field(
        None, gt=0, lt=1, description="of elastic_net: the share of absolute values; null: 0.5"
    )
    strength: float | None = Field(
        None, gt=0, description="a row's, as glmnet's lambda and scikit-learn's alpha; null: by cross-validation"
    )
    folds: int = Field(5, ge=3, le=10, description="parts of each site's rows that are left out in turn")
    strengths: int = Field(20, ge=5, le=100, description="how many are tried")
    choose: Literal["minimum", "one_standard_error"] = Field(
        "minimum", description="least deviance of rows left out, or the strongest within a standard error of it"
    )

    @model_validator(mode="after")
    def _mixed(self) -> Penalty:
        if self.mixing is not None and self.kind != "elastic_net":
            raise refuse(f"mixing is of kind elastic_net, not {self.kind}")
        return self

    @property
    def share(self) -> float:
        """Of the penalty that is of absolute values."""
        return {"lasso": 1.0, "ridge": 0.0}.get(self.kind, 0.5 if self.mixing is None else self.mixing)

    @property
    def fits(self) -> int:
        """Fits whose sums travel together while the strength is looked for; 0: it is given."""
        return 0 if self.strength is not None else self.strengths * (self.folds + 1)


class Terms(Section):
    """Terms beside the features and categories, which all are in the model by themselves."""

    interactions: list[Product] = Field(
        default_factory=list, description="products of two or three columns: [[age, sex]] or ['age * sex']"
    )
    splines: Splines = Field(default_factory=dict, description="columns that enter as curves: {age: 4}")

    @model_validator(mode="after")
    def _make_sense(self) -> Terms:
        if len(self.interactions) > _MOST_PRODUCTS:
            raise refuse(f"interactions: {len(self.interactions)} products; allowed: {_MOST_PRODUCTS} at most")
        seen = set()
        for product in self.interactions:
            name = " * ".join(product)
            if not 2 <= len(product) <= _MOST_FACTORS:
                raise refuse(f"interactions: '{name}' must be of 2 or {_MOST_FACTORS} columns, such as [age, sex]")
            if len(set(product)) < len(product):
                raise refuse(f"interactions: '{name}' names a column twice; for a curve of one column see splines")
            if frozenset(product) in seen:
                raise refuse(f"interactions: '{name}' is given twice")
            seen.add(frozenset(product))
        return self


def weights_column(experiment: Any) -> str | None:
    """Return the column of the rows' weights, of a model that has one."""
    weights: Weights | None = getattr(experiment.model, "weights", None)
    return None if weights is None else weights.column


def check_terms(model: Any, data: Any) -> None:
    """Refuse terms of columns that an experiment does not use as they are asked for."""
    if data.features is None:
        return
    for product in model.interactions:
        for column in product:
            if column not in data.features and column not in data.categorical:
                raise refuse(f"model.interactions: '{column}' is neither in data.features nor in data.categorical")
    for column in model.splines:
        if column not in data.features or column in data.categorical:
            raise refuse(f"model.splines: '{column}' is no numeric column of data.features")
