"""What a site answers while data are prepared: which fields there are, and which counts are told."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.preparation.setup import unpack_arrays
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, handle, preparing
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.secure_aggregation import hide_schema


def schema_of(frame, content, **rules):
    experiment = Experiment.parse(content).for_sites()
    asked = wire.message(site="a", round=0, attempt=1, sites=3, step="schema", experiment=experiment, setup=None)
    context = SiteContext({"a": TableSource(frame=frame)}, Policy(**rules))
    reply = handle("prepare", json.loads(json.dumps(asked)), context)
    assert reply["status"] == "ok", reply
    return reply["members"]["a"]


@pytest.mark.parametrize(("zeros", "told"), [(0, "absent"), (4, None), (5, 5), (7, 7)])
def test_rows_with_a_time_of_0_are_told_of_a_cell_and_more(zeros, told):
    generator = np.random.default_rng(0)
    time = generator.exponential(2.0, 40) + 0.01
    time[:zeros] = 0
    frame = pd.DataFrame({"x": generator.normal(size=40), "t": time, "e": np.arange(40) % 2})
    content = {"data": {"target": {"duration": "t", "event": "e"}}, "problem": "survival", "model": "cox"}
    schema = schema_of(frame, content, minimum_cell=5)
    assert schema.get("at_zero", "absent") == told
    seen = time[(time > 0) & (frame["e"] == 1)]
    count, mean = schema["log_times"]
    assert (count, mean) == (len(seen), pytest.approx(np.log2(seen).mean()))


@pytest.mark.parametrize(("kept", "told"), [(40, None), (25, 15)])
def test_rows_that_a_filter_leaves_out_are_counted(kept, told):
    frame = pd.DataFrame({"x": np.arange(40.0), "y": np.arange(40) % 2, "age": np.arange(40)})
    content = {"data": {"target": "y", "features": ["x"], "where": {"age": f"< {kept}"}}, "model": "logistic"}
    schema = schema_of(frame, content)
    assert (schema.get("left_out"), schema["rows"]) == (told, kept)


def test_numbers_of_rows_are_hidden_behind_whether_there_are_any():
    schema = {"rows": 40, "rows_without_target": 0, "columns": {"a": "numeric"}}
    assert hide_schema(schema) == {"rows": 1, "rows_without_target": 0, "columns": {"a": "numeric"}}
    assert hide_schema(schema | {"at_zero": 7})["at_zero"] is None


@pytest.mark.parametrize(("copies", "apart", "told"), [(0, 3, (0, 0)), (4, 2, (None, None)), (6, 5, (6, 5))])
def test_copies_of_images_are_told_of_a_cell_and_more(monkeypatch, copies, apart, told):
    monkeypatch.setattr("v6_algorithm.data.imaging.copies.count_apart", lambda folds, identities, member: apart)
    work = SimpleNamespace(policy=Policy(minimum_cell=5))
    stacks = [SimpleNamespace(copies=[1] * (copies // 2)), SimpleNamespace(copies=[1] * (copies - copies // 2))]
    images = SimpleNamespace(stacks=stacks, identities=None)
    found = preparing._copies(work, SimpleNamespace(images=images, folds=[], member=None))
    assert (found["rows"], found["apart"]) == told
    assert preparing._copies(work, SimpleNamespace(images=None)) is None


@pytest.mark.parametrize(("rows", "least", "bears", "counted"), [
    (0, 1, True, False), (1, 1, True, True), (1, 2, True, False), (2, 2, True, True), (9, 2, False, False),
])  # fmt: skip
def test_products_of_a_column_are_told_where_enough_rows_have_a_value(monkeypatch, rows, least, bears, counted):
    known = np.zeros((12, 2), dtype=bool)
    known[:rows, 0], known[:, 1] = True, True
    asked = []
    table = SimpleNamespace(
        folds=[SimpleNamespace(train=np.arange(12))], target=np.zeros(12), known_cells=lambda setup: known,
        products=lambda setup, given: asked.append(given) or np.zeros((2, 3, 3)),
    )  # fmt: skip
    setup = SimpleNamespace(imputation=SimpleNamespace(imputations=1), imputed_width=lambda outcomes: 2 + outcomes)
    guard = SimpleNamespace(
        check_imputation=lambda: None, check_information=lambda width, rows: asked.append((width, rows)),
        bears=lambda width, given: given == 12 or bears,
    )  # fmt: skip
    missing = SimpleNamespace(kind="impute")
    work = SimpleNamespace(
        setup=lambda: setup, table=lambda given: table, guard=guard, policy=Policy(minimum_part_rows=least),
        experiment=SimpleNamespace(data=SimpleNamespace(missing=missing)),
    )  # fmt: skip
    monkeypatch.setattr(
        "v6_algorithm.learning.problems.create_problem",
        lambda experiment, setup: SimpleNamespace(check_rows=lambda table: None),
    )
    assert unpack_arrays(preparing._imputation(work)["products"])["products"].shape == (2, 3, 3)
    assert asked == [(3, 12), [counted, True]]
    for change in ("kind", "none", "tables"):
        if change == "kind":
            missing.kind = "mean"
        elif change == "none":
            missing.kind, setup.imputation = "impute", None
        else:
            setup.imputation = SimpleNamespace(imputations=3)
        with pytest.raises(WireError, match="an imputation is asked for that the experiment does not want"):
            preparing._imputation(work)


@pytest.mark.parametrize(("at_sites", "private", "built"), [(False, None, 1), (True, None, 2), (False, {}, 2)])
def test_sites_of_one_process_share_first_networks_but_where_each_has_its_own(monkeypatch, at_sites, private, built):
    made = []
    monkeypatch.setattr("v6_algorithm.learning.training.state.build_networks", lambda problem: made.append(1))
    monkeypatch.setattr("v6_algorithm.learning.training.state.state_of", lambda networks: {})
    privacy = SimpleNamespace(differential_privacy=private)
    experiment, shared = SimpleNamespace(start=SimpleNamespace(at_sites=at_sites), privacy=privacy), {}
    guard = SimpleNamespace(check_model=lambda problem: None, check_networks=lambda networks, squares: None)
    work = SimpleNamespace(experiment=experiment, context=SimpleNamespace(shared=shared), guard=guard)
    setup, problem = object(), SimpleNamespace(sums_of_squares=None)
    first, second = (preparing._initial(work, setup, problem)[1] for _ in range(2))
    assert first == second
    assert len(made) == built
