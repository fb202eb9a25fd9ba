"""A table of 18,000 columns of numbers: what is done for each of them is done once, and only where there is cause."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.data.preparation import statistics
from v6_algorithm.data.preparation.columns import agree, tell_numbers
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.experiment import Data

GENES = [f"gene {number}" for number in range(50)]


class Asked(dict):
    """Remembers which names somebody asked for."""

    def __init__(self, *given):
        super().__init__(*given)
        self.names = []

    def get(self, name, default=None):
        self.names.append(name)
        return super().get(name, default)


def test_only_columns_with_a_hint_are_asked_for_their_hint():
    hints = {"a": Asked({"gene 3": "codes"}), "b": Asked()}
    (note,) = tell_numbers(hints, GENES)
    assert "'gene 3' at a" in note
    assert set(hints["a"].names) == set(hints["b"].names) == {"gene 3"}


def test_columns_of_numbers_at_all_sites_are_not_asked_about_site_by_site():
    columns = {site: Asked(dict.fromkeys([*GENES, "patient_id"], "numeric") | {"y": "text"}) for site in "ab"}
    columns["b"]["gene 7"] = "empty"
    schemas = {
        site: {"columns": of_site, "hints": {}, "labels": ["no", "yes"], "categories": {}}
        for site, of_site in columns.items()
    }
    assert agree(Data(target="y"), schemas, classification=True).features == GENES
    asked = columns["a"].names
    assert asked.count("gene 7") > asked.count("gene 8")


@pytest.mark.parametrize("with_range", [False, True])
def test_empty_cells_are_looked_for_only_where_a_sum_shows_them(monkeypatch, with_range):
    values = np.random.default_rng(3).standard_normal((40, 6)).astype(np.float32)
    looked_at, isnan = [], np.isnan

    def spied(array):
        looked_at.append(np.shape(array))
        return isnan(array)

    monkeypatch.setattr(statistics.np, "isnan", spied)
    full = Moments.of([values], with_range=with_range)
    assert (40, 6) not in looked_at
    some = values.copy()
    some[:5, 2] = np.nan
    some[:, 4] = np.nan
    holed = Moments.of([some], with_range=with_range)
    assert (40, 6) in looked_at
    known = values[5:, 2].astype(float)
    assert holed.count.tolist() == [[40, 40, 35, 40, 0, 40]]
    assert holed.mean[0, [2, 4]] == pytest.approx([known.mean(), 0])
    assert holed.squares[0, [2, 4]] == pytest.approx([known.var() * 35, 0])
    if with_range:
        assert holed.low[0, [2, 4]].tolist() == [known.min(), 0]
        assert holed.high[0, [2, 4]].tolist() == [known.max(), 0]
    others = [0, 1, 3, 5]
    for name in ("count", "mean", "squares", "low", "high"):
        np.testing.assert_array_equal(getattr(holed, name)[:, others], getattr(full, name)[:, others])
