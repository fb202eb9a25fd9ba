"""The calls before the first round: a wrong reply is dropped by name, data that do not fit end the run."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.preparation.negotiate import agree_on_columns, plan
from v6_algorithm.data.preparation.setup import pack_arrays, unpack_arrays
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Replies
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site.policy import Policy


def ward(rows=30, seed=0, **columns):
    rng = np.random.default_rng(seed)
    made = {"age": rng.normal(60, 9, rows), "chol": rng.normal(240, 40, rows), "num": np.arange(rows) % 2}
    return pd.DataFrame(made | columns)


class Sites:
    """Sites that answer with `handle`, and what a test does to their replies on the way."""

    def __init__(self, frames, spoil=None, policy=None, **experiment):
        self.experiment = Experiment.parse({"data": {"target": "num"}} | experiment)
        self.frames, self.spoil = frames, spoil or (lambda site, step, reply: reply)
        self.policy = policy or Policy()
        self.missing = {}

    def ask(self, sites, body):
        common = {"experiment": self.experiment.for_sites(), "sites": len(sites)}
        requests = {site: wire.message(site=site, round=0, attempt=1, **common, **body) for site in sites}
        replies = Replies(requests, self._arrivals(requests), {})
        self.missing = replies.missing
        return replies

    def _arrivals(self, requests):
        for site, request in requests.items():
            context = SiteContext({site: TableSource(frame=self.frames[site])}, self.policy)
            reply = handle("prepare", json.loads(wire.to_text(request)), context, raise_bugs=True)
            yield Arrival(site, json.dumps(self.spoil(site, request["step"], reply)))

    def plan(self, quorum=2):
        sites, agreement = agree_on_columns(self.ask, self.experiment, list(self.frames), quorum)
        return plan(self.ask, self.experiment, agreement, sites, quorum)


def frames(**changes):
    return {"a": ward(seed=1), "b": ward(40, seed=2), "c": ward(50, seed=3)} | changes


def spoil_site_b(step, **changes):
    def spoil(site, asked, reply):
        return reply | changes if (site, asked) == ("b", step) else reply

    return spoil


def test_all_sites_take_part():
    made = Sites(frames()).plan()
    assert made.sites == ["a", "b", "c"]
    assert made.setup.features == ["age", "chol"]
    assert made.counts == [
        {"a": {"train": 18, "validation": 6, "test": 6}, "b": {"train": 24, "validation": 8, "test": 8},
         "c": {"train": 30, "validation": 10, "test": 10}},
    ]  # fmt: skip


@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust"])
def test_the_plan_scales_as_the_pooled_table_would(scaling):
    federated = Sites(frames(), data={"target": "num", "scaling": scaling}).plan().setup.preparation
    one = Sites({"a": ward()}, data={"target": "num", "scaling": scaling}).plan(quorum=1).setup.preparation
    assert federated.scale.shape == one.scale.shape == (1, 2)
    assert (federated.scale > 1).all()


def test_every_fold_has_its_own_preparation():
    made = Sites(frames(), split={"kind": "kfold", "folds": 3}).plan()
    assert len(made.counts) == 3
    assert len(np.unique(made.setup.preparation.shift[:, 0])) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"members": None},
        {"members": {"b": {}}},
        {"members": {"b": {"columns": {}, "labels": [[1]], "categories": {}, "rows": 1, "rows_without_target": 0}}},
        {"members": {"b": {"columns": {}, "labels": [], "categories": {}, "rows": "1", "rows_without_target": 0}}},
    ],
    ids=["none", "empty", "labels", "rows"],
)
def test_a_malformed_schema_is_dropped_by_name(changes):
    sites = Sites(frames(), spoil_site_b("schema", **changes))
    taking_part, _ = agree_on_columns(sites.ask, sites.experiment, list(sites.frames), 2)
    assert taking_part == ["a", "c"]
    assert sites.missing["b"].kind == "wrong"


def other_moments(**changes):
    """Moments of the right shape with some arrays replaced."""
    shape = (1, 2)
    arrays = {"rows": np.full(1, 9.0), "count": np.full(shape, 9.0)} | {
        name: np.zeros(shape) for name in ("mean", "squares", "low", "high")
    }
    return pack_arrays(arrays | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": None},
        {"counts": []},
        {"counts": [{"b": {"train": -1, "validation": 0, "test": 0}}]},
        {"counts": [{"b": {"train": "many", "validation": 0, "test": 0}}]},
        {"moments": "AAAA"},
        {"moments": None},
        {"moments": other_moments(mean=np.full((1, 2), np.nan))},
        {"moments": other_moments(mean=np.zeros((1, 3)))},
        {"moments": other_moments(count=np.full((1, 2), 10.0))},
        {"class_counts": [[1, 2, 3]]},
        {"class_counts": [[-1, 2]]},
        {"class_counts": [["x", 2]]},
        {"counts": [{"b": {"train": 1, "validation": 0, "test": 0}}] * 2},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_malformed_statistics_are_dropped_by_name_and_enter_no_sum(changes):
    sites = Sites(frames(), spoil_site_b("statistics", **changes))
    made = sites.plan()
    assert made.sites == ["a", "c"]
    expected = Sites({"a": frames()["a"], "c": frames()["c"]}).plan()
    for name, array in expected.setup.preparation.arrays().items():
        np.testing.assert_array_equal(getattr(made.setup.preparation, name), array)


def test_a_site_that_starts_from_other_weights_ends_the_run():
    with pytest.raises(ExperimentError, match=r"do not start from the same weights.*b deadbeef"):
        Sites(frames(), spoil_site_b("statistics", start="deadbeef")).plan()


def test_malformed_cells_are_dropped_by_name():
    def spoil(site, step, reply):
        if (site, step) != ("b", "quantiles"):
            return reply
        cells = unpack_arrays(reply["cells"])
        return reply | {"cells": pack_arrays(cells | {"rows": -cells["rows"]})}

    sites = Sites(frames(), spoil, data={"target": "num", "scaling": "robust"})
    sites.plan()
    assert sites.missing["b"].kind == "wrong"


def test_too_few_usable_replies_end_the_run_naming_who_is_missing():
    with pytest.raises(FederationError, match=r"2 of 3 sites answered, 3 are needed[\s\S]*b: wrong: "):
        Sites(frames(), spoil_site_b("schema", members=None)).plan(quorum=3)


def test_every_site_whose_data_do_not_fit_is_named_before_anything_is_trained():
    with pytest.raises(ExperimentError) as refused:
        Sites(frames(a=ward().drop(columns="num"), c=ward(num=None))).plan()
    assert str(refused.value) == (
        "site 'a': column 'num' (data.target) is not there; it has: age, chol\n"
        "site 'c': column 'num' (data.target) is empty"
    )


def test_rows_without_a_target_are_said():
    num = [None, *np.arange(29) % 2]
    sites = Sites(frames(b=ward(num=num)))
    _, agreement = agree_on_columns(sites.ask, sites.experiment, list(sites.frames), 2)
    assert agreement.notes == ["site 'b': some rows have no target, and are left out"]


def test_columns_that_the_nodes_owner_keeps_back_are_not_even_named():
    policy = Policy(allowed_columns="age|num|outcome")
    made = Sites(frames(), policy=policy).plan()
    assert made.setup.features == ["age"]
    with pytest.raises(ExperimentError, match="'outcome'") as refused:
        Sites(frames(), policy=policy, data={"target": "outcome"}).plan()
    assert "chol" not in str(refused.value)


def test_balanced_weights_are_of_all_sites_together():
    loss = {"kind": "cross_entropy", "class_weights": "balanced"}
    skewed = frames(a=ward(30, num=[0] * 20 + [1] * 10))
    made = Sites(skewed, training={"loss": loss}).plan()
    # Training rows of class 0: 12 + 12 + 15; of class 1: 6 + 12 + 15.
    assert made.setup.class_weights == [[pytest.approx(72 / 78), pytest.approx(72 / 66)]]


def test_weights_for_another_number_of_classes_are_refused():
    loss = {"kind": "cross_entropy", "class_weights": [1, 2, 3]}
    with pytest.raises(ExperimentError, match="3 weights are given, the sites have 2 classes"):
        Sites(frames(), training={"loss": loss}).plan()


def test_a_site_whose_rows_are_all_of_one_group_is_named_before_its_empty_parts_surprise():
    tables = frames(a=ward(patient="IP"), b=ward(patient=range(30)), c=ward(patient=range(30)))
    notes = Sites(tables, data={"target": "num", "features": ["age"], "group": "patient"}).plan().notes
    (told,) = [note for note in notes if "no row is for" in note]
    assert told.startswith("site 'a': no row is for validation or test: data.group 'patient' keeps groups whole")


def test_a_site_of_synthetic_rows_only_is_not_said_to_lack_groups():
    tables = frames(a=ward(made=1), b=ward(made=0), c=ward(made=0))
    tables["b"]["patient"] = tables["c"]["patient"] = range(30)
    data = {"target": "num", "features": ["age"], "group": "patient", "synthetic": "made"}
    assert not [note for note in Sites(tables, data=data).plan().notes if "no row is for" in note]
