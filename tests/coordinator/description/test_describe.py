"""A description of a federation is that of its pooled table, but for what a site keeps to itself."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hospitals import SECRET, command, tables, write
from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

import v6_algorithm
import v6_algorithm.api as v6
from v6_algorithm.coordinator.description.describe import describe
from v6_algorithm.data.preparation.setup import pack_arrays, unpack_arrays
from v6_algorithm.data.sources import TableSource
from v6_algorithm.data.summary.table import in_products
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.errors import FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.researcher.python.description import Description
from v6_algorithm.researcher.report.summary import write_summary
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site.policy import Policy

NUMBERS = ["age", "dose", "flag"]


def hospital(rows, seed, *, missing=0.2):
    """Return numbers with empty cells, a 0/1 column, a target, a category, and a remark nobody may see."""
    rng = np.random.default_rng(seed)
    age = rng.normal(50 + seed, 10, rows)
    frame = pd.DataFrame({"age": age, "dose": rng.lognormal(1, 1, rows) + age / 10, "flag": rng.integers(0, 2, rows)})
    frame = frame.astype(float).mask(rng.random((rows, 3)) < missing)
    return frame.assign(
        ward=rng.choice(["a", "b", "c"], rows),
        y=(age > 50).astype(int),
        remark=[f"{SECRET}-{row}" for row in range(rows)],
    )


FRAMES = {"amsterdam": hospital(120, 1), "berlin": hospital(80, 2), "cairo": hospital(60, 3)}
POOLED = pd.concat(FRAMES.values(), ignore_index=True)


def experiment(problem="classification", split="ratio", **data):
    content = {"data": {"target": "y", "categorical": ["ward"], **data}, "problem": problem, "split": split}
    return Experiment.parse(content)


def description(frames=FRAMES, policy=None, **data):
    policy = policy or Policy()
    contexts = {name: SiteContext({name: TableSource(frame=frame)}, policy) for name, frame in frames.items()}
    return describe(LocalFederation(contexts), experiment(**data))


@pytest.fixture(scope="module")
def summary():
    return description()


@pytest.mark.parametrize("name", NUMBERS)
def test_count_missing_mean_and_sd_are_those_of_the_pooled_table(summary, name):
    pooled, column = summary["columns"][name]["pooled"], POOLED[name]
    assert (pooled["n"], pooled["missing"]) == (column.count(), column.isna().sum())
    assert pooled["mean"] == pytest.approx(column.mean(), rel=1e-12)
    assert pooled["sd"] == pytest.approx(column.std(), rel=1e-12)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("site", FRAMES)
def test_the_numbers_of_a_site_are_its_own(summary, name, site):
    own, column = summary["columns"][name]["sites"][site], FRAMES[site][name]
    assert (own["n"], own["missing"]) == (column.count(), column.isna().sum())
    assert (own["mean"], own["sd"]) == pytest.approx((column.mean(), column.std()), rel=1e-12)


@pytest.mark.parametrize("name", ["age", "dose"])
def test_quantiles_are_near_the_pooled_ones_and_within_their_bounds(summary, name):
    column = POOLED[name].dropna()
    for q, found in summary["columns"][name]["pooled"]["quantiles"].items():
        true = column.quantile(float(q))
        # Of 60 rows, 5% are 3: the tails are known by their bounds only.
        assert not 0.1 < float(q) < 0.9 or found["value"] == pytest.approx(true, abs=0.15 * column.std())
        assert found["low"] is None or found["low"] <= true
        assert found["high"] is None or found["high"] >= true


def test_correlations_of_each_pair_are_those_of_the_pooled_rows_that_have_both(summary):
    """But for the rows whose values are there as in few others, which a note names."""
    seen = [in_products(frame[NUMBERS].to_numpy(dtype=float), 5) for frame in FRAMES.values()]
    kept = pd.concat(frame[rows] for frame, rows in zip(FRAMES.values(), seen, strict=True))[NUMBERS]
    assert summary["correlations"]["columns"] == NUMBERS
    np.testing.assert_allclose(summary["correlations"]["matrix"], kept.corr(), atol=1e-12)
    there = kept.notna().astype(int)
    np.testing.assert_array_equal(summary["correlations"]["n"], there.T @ there)
    assert len(kept) == len(POOLED) or any("correlations leave out rows" in note for note in summary["notes"])


def test_no_difference_of_two_sums_of_pairs_is_over_few_rows():
    """Every pattern of missing cells that is in a sum, and what is left out of a column, is a cell's rows or none."""
    generator = np.random.default_rng(5)
    for rows in (40, 90, 300):
        values = generator.normal(size=(rows, 4))
        values[generator.random((rows, 4)) < 0.15] = np.nan
        kept = in_products(values, 5)
        patterns, number = np.unique(~np.isnan(values), axis=0, return_inverse=True)
        number = number.reshape(-1)
        for pattern in range(len(patterns)):
            inside = kept[number == pattern]
            assert inside.all() or not inside.any()
            assert not inside.any() or inside.sum() >= max(5, 3 * patterns[pattern].sum())
        for column in values[~kept].T:
            assert (~np.isnan(column)).sum() == 0 or (~np.isnan(column)).sum() >= 5
    assert in_products(values, 1).all()


def test_correlations_are_a_file_with_their_numbers(summary, tmp_path):
    write_summary(summary, tmp_path)
    table = pd.read_csv(tmp_path / "correlations.csv")
    first = table.iloc[0]
    kept = scipy.stats.pearsonr(*POOLED[[first["column"], first["with"]]].dropna().to_numpy().T)
    if first["n"] == len(POOLED[[first["column"], first["with"]]].dropna()):
        assert first["p"] == pytest.approx(kept.pvalue, rel=1e-9)
        assert [first["low"], first["high"]] == pytest.approx(list(kept.confidence_interval()), rel=1e-9)
    assert len(table) == len(NUMBERS) * (len(NUMBERS) - 1) // 2
    pd.testing.assert_frame_equal(Description(summary).correlations, table)
    assert not len(Description({"correlations": None}).correlations)


@pytest.mark.parametrize("name", ["y", "ward"])
def test_label_counts_are_those_of_the_pooled_table(summary, name):
    counts = POOLED[name].value_counts()
    found = summary["labels"][name]
    assert dict(zip(found["labels"], found["pooled"]["counts"], strict=True)) == counts.to_dict()
    assert found["pooled"]["hidden"] == 0


def test_a_target_made_of_a_condition_is_counted_as_it_is_trained():
    found = description(target="age", positive="> 50")["labels"]["age"]
    assert found["labels"] == [0, 1]
    assert found["pooled"]["counts"][1] == (POOLED["age"] > 50).sum()
    assert found["pooled"]["missing"] == POOLED["age"].isna().sum()


def surviving():
    rng = np.random.default_rng(0)
    return {
        name: frame.assign(days=rng.exponential(300, len(frame)).round() + 1, died=rng.integers(0, 2, len(frame)))
        for name, frame in FRAMES.items()
    }


def test_of_a_survival_target_events_are_counted_and_durations_described():
    frames = surviving()
    days, died = (pd.concat(frame[name] for frame in frames.values()) for name in ("days", "died"))
    for features in (None, ["age"]):
        target = {"duration": "days", "event": "died"}
        summary = description(frames, target=target, features=features, problem="survival")
        assert summary["columns"]["days"]["pooled"]["mean"] == pytest.approx(days.mean(), rel=1e-12)
        assert "pooled" not in summary["columns"]["died"]
        assert summary["labels"]["died"]["role"] == "target"
        assert summary["labels"]["died"]["pooled"]["counts"] == [(died == 0).sum(), (died == 1).sum()]


def test_of_several_targets_classes_are_counted_and_numbers_described():
    summary = description(
        target=None,
        targets={"ward": "classification", "age": "regression"},
        categorical=[],
        features=["dose"],
        problem="multitask",
    )
    assert summary["labels"]["ward"]["role"] == "target"
    assert summary["labels"]["ward"]["labels"] == ["a", "b", "c"]
    assert summary["columns"]["age"]["pooled"]["mean"] == pytest.approx(POOLED["age"].mean(), rel=1e-12)


@pytest.mark.parametrize("columns", ["fold_1", ["fold_1", "fold_2"]])
def test_columns_of_the_split_are_not_described(columns):
    frames = {name: frame.assign(fold_1=1.0, fold_2=np.arange(len(frame))) for name, frame in FRAMES.items()}
    summary = description(frames, split_column=columns, split="given")
    described = {name for name, column in summary["columns"].items() if "pooled" in column}
    assert described == {*NUMBERS, "fold_1", "fold_2"} - {*([columns] if isinstance(columns, str) else columns)}


def test_every_description_is_over_all_rows_whatever_the_target():
    """Or two descriptions with different targets would differ by the rows without one."""
    frames = {name: frame.assign(y2=frame["y"].mask(frame.index < 7)) for name, frame in FRAMES.items()}
    first, second = (description(frames, target=target, features=["age"]) for target in ("y", "y2"))
    assert first["columns"]["age"] == second["columns"]["age"]


def test_text_is_not_told_and_identifiers_are_not_described(summary):
    assert SECRET not in json.dumps(summary)
    assert summary["columns"]["remark"] == {"kinds": dict.fromkeys(FRAMES, "text"), "hints": ["names"]}
    frames = {name: frame.assign(patient_id=range(len(frame))) for name, frame in FRAMES.items()}
    assert "pooled" not in description(frames)["columns"]["patient_id"]


def rare(name):
    """A frame in which a column tells about two rows."""
    frame = FRAMES["berlin"].copy()
    few = frame.index < 2
    frame["age"] = {
        "two values": frame["age"].where(few),
        "two ones among zeros": few.astype(float),
        "two that differ": np.where(few, frame.index + 3.5, 7.0),
        "two of three distinct values": np.where(few, 5.0, frame.index % 2),
    }[name]
    return frame


@pytest.mark.parametrize(
    "name", ["two values", "two ones among zeros", "two that differ", "two of three distinct values"]
)
def test_a_mean_that_would_tell_about_two_rows_is_not_told(name):
    summary = description({"amsterdam": FRAMES["amsterdam"], "berlin": rare(name)})
    assert summary["columns"]["age"]["sites"]["berlin"] == {"hidden": True}
    assert summary["columns"]["age"]["pooled"]["n"] == FRAMES["amsterdam"]["age"].count()
    assert summary["columns"]["age"]["pooled"]["missing"] == FRAMES["amsterdam"]["age"].isna().sum()


def test_rows_of_a_rare_label_are_in_the_lump():
    frames = {"amsterdam": FRAMES["amsterdam"], "berlin": FRAMES["berlin"].assign(ward=["z"] * 2 + ["a"] * 78)}
    found = description(frames)["labels"]["ward"]
    assert "z" not in found["labels"]
    assert found["sites"]["berlin"] == {"counts": [None, None, None], "hidden": 80, "missing": 0}
    assert found["pooled"]["hidden"] == 80


def test_the_nodes_cell_size_is_obeyed():
    assert description(policy=Policy(minimum_cell=1))["labels"]["ward"]["pooled"]["hidden"] == 0
    summary = description(policy=Policy(minimum_cell=55))
    assert all(row["hidden"] == len(FRAMES[site]) for site, row in summary["labels"]["ward"]["sites"].items())
    assert {site for site, own in summary["columns"]["age"]["sites"].items() if "hidden" in own} == {"cairo"}


def test_the_nodes_columns_are_obeyed():
    summary = description(policy=Policy(allowed_columns="age|y|ward"))
    assert list(summary["columns"]) == ["age", "ward", "y"]


def test_a_site_with_fewer_rows_than_its_minimum_is_named_and_left_out():
    summary = description({**FRAMES, "delhi": FRAMES["cairo"].head(9)})
    assert list(summary["sites"]) == list(FRAMES)
    assert summary["missing_sites"] == {"delhi": "refused: this node has fewer rows than its minimum of 10"}


def test_without_any_site_there_is_no_description():
    with pytest.raises(FederationError, match="description: 0 of 1 sites answered"):
        description({"delhi": FRAMES["cairo"].head(9)})


def test_products_of_columns_over_few_rows_stay_at_the_site():
    """As many rows as columns, and the products are the rows up to a rotation."""
    rng = np.random.default_rng(0)
    frames = {
        name: pd.DataFrame(rng.normal(size=(rows, 20)), columns=[f"x{i}" for i in range(20)]).assign(
            y=rng.integers(0, 2, rows)
        )
        for name, rows in (("large", 80), ("small", 40))
    }
    summary = description(frames, categorical=[])
    assert "correlations are without small: too few rows for so many columns" in summary["notes"]
    expected = frames["large"].filter(like="x").corr()
    np.testing.assert_allclose(summary["correlations"]["matrix"], expected, atol=1e-12)
    assert (np.array(summary["correlations"]["n"]) == 80).all()


def test_a_pair_of_columns_seen_together_in_few_rows_has_no_correlation():
    frame = FRAMES["amsterdam"].copy()
    frame["age"] = frame["age"].fillna(50).where(frame.index < 62)
    frame["dose"] = frame["dose"].fillna(3).where(frame.index >= 60)
    summary = description({"amsterdam": frame})
    assert summary["correlations"]["matrix"][0][1] is None
    assert summary["correlations"]["n"][0][1] == 0
    assert any(note.startswith("correlations leave out rows") for note in summary["notes"])


def test_columns_that_differ_between_sites_are_noted_not_refused():
    frames = {**FRAMES, "berlin": FRAMES["berlin"].drop(columns="dose"), "cairo": FRAMES["cairo"].assign(flag="x")}
    summary = description(frames)
    assert any(
        "'dose' is not the same everywhere: not there at berlin; numeric at" in note for note in summary["notes"]
    )
    assert any("'flag' is not the same everywhere" in note for note in summary["notes"])
    assert summary["columns"]["dose"]["pooled"]["missing"] == sum(
        frames[site]["dose"].isna().sum() for site in ("amsterdam", "cairo")
    )


def request(**step):
    return wire.message(site="berlin", round=0, attempt=1, experiment=experiment().for_sites(), sites=3, **step)


def context(**policy):
    return SiteContext({"berlin": TableSource(frame=FRAMES["berlin"])}, Policy(**policy))


@pytest.mark.parametrize("step", ["moments", "shape"])
def test_a_request_by_hand_cannot_name_a_forbidden_column(step):
    reply = handle("summary", request(step=step, features=["dose"]), context(allowed_columns="age|y|ward"))
    assert (reply["kind"], reply["message"]) == ("refused", "this node does not allow column 'dose'")


def test_a_request_by_hand_does_not_get_the_mean_of_a_rare_target():
    """Of a column of 0 and 1 it is the number of ones."""
    frame = FRAMES["berlin"].assign(y=[1, 1] + [0] * 78)
    reply = handle(
        "summary", request(step="moments", features=["y"]), SiteContext({"berlin": TableSource(frame=frame)})
    )
    assert reply["hidden"] == ["y"]
    assert unpack_arrays(reply["moments"])["count"].tolist() == [[0.0]]


@pytest.mark.parametrize("at", [20.0, 50.0, 61.1, 75.0])
def test_a_request_by_hand_chooses_where_to_cut_and_not_how(at):
    asked = {"mean": np.zeros(1), "sd": np.ones(1), "windows": np.array([[[at, at + 0.01]]])}
    reply = handle(
        "summary", request(step="shape", features=["age"], asked=pack_arrays(asked), products=False), context()
    )
    cells = unpack_arrays(reply["cells"])
    assert (cells["rows"] >= 5).all()
    assert cells["rows"].sum() == FRAMES["berlin"]["age"].notna().sum()


def test_a_median_is_not_moved_by_an_outlier_and_shown_with_its_bounds():
    """A grid over the range of the values had a median of 17.6 for 0.0245."""
    values = {
        "a": np.random.default_rng(0).exponential(0.035, 90),
        "b": np.random.default_rng(1).exponential(0.035, 60),
    }
    values["a"][0] = 1e6
    contexts = {
        name: SiteContext({name: TableSource(frame=pd.DataFrame({"crp": own, "y": 1}))}) for name, own in values.items()
    }
    column = describe(LocalFederation(contexts), experiment())["columns"]["crp"]
    true = np.median(np.concatenate(list(values.values())))
    median = column["pooled"]["quantiles"]["0.5"]
    assert median["low"] <= true <= median["high"]
    assert median["value"] == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda reply: reply.update(rows=-1),
        lambda reply: reply.update(labels={"y": {"counts": [[0, 3]], "hidden": 0, "missing": 0}}),
        lambda reply: reply.update(cells=pack_arrays({"number": np.zeros((2, 2))})),
        lambda reply: reply.update(moments="no"),
        lambda reply: reply.pop("columns", reply.pop("hidden", reply.pop("products", None))),
    ],
)
def test_a_site_whose_answer_is_wrong_is_named_and_in_no_number(monkeypatch, spoil):
    contexts = {name: SiteContext({name: TableSource(frame=frame)}) for name, frame in FRAMES.items()}

    def lying(method, request, context, **options):
        reply = handle(method, request, context, **options)
        if request["site"] == "cairo":
            spoil(reply)
        return json.loads(json.dumps(reply))

    monkeypatch.setattr("v6_algorithm.engines.simulation.local.handle", lying)
    summary = describe(LocalFederation(contexts), experiment())
    assert summary["missing_sites"]["cairo"].startswith("wrong: ")
    assert list(summary["sites"]) == ["amsterdam", "berlin"]
    honest = description({name: FRAMES[name] for name in ("amsterdam", "berlin")})
    assert summary["columns"]["age"]["pooled"]["mean"] == honest["columns"]["age"]["pooled"]["mean"]


def test_the_network_can_describe_as_the_command_line_does():
    frames = tables()
    client = MockAlgorithmClient(
        datasets=[[{"database": frame, "db_type": "csv"}] for frame in frames.values()], module="v6_algorithm"
    )
    content = {"data": {"target": "y"}}
    task = client.task.create(input_={"method": "describe", "kwargs": {"experiment": content}}, organizations=[0])
    (summary,) = client.wait_for_results(task["id"])
    contexts = {f"mock-{i}": SiteContext({f"mock-{i}": TableSource(frame=f)}) for i, f in enumerate(frames.values())}
    assert summary == json.loads(json.dumps(describe(LocalFederation(contexts), Experiment.parse(content))))
    assert v6_algorithm.describe(client, content) == summary


# -- the command ---------------------------------------------------------------------------------------------------


def test_describe_shows_the_federation_and_writes_both_files(tmp_path):
    done = command("describe", write(tmp_path), "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    for text in ("y (target)", "amsterdam", "by site: mean ± sd", "strongest correlations"):
        assert text in done.output
    assert SECRET not in done.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    with (tmp_path / "out" / "summary.csv").open() as file:
        rows = {tuple(list(row.values())[:4]): row["value"] for row in csv.DictReader(file)}
    assert float(rows["a", "pooled", "", "mean"]) == summary["columns"]["a"]["pooled"]["mean"]
    assert int(rows["a", "site", "cairo", "n"]) == 30
    assert int(rows["y", "pooled", "", "n 1"]) == 57


def test_describe_without_out_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert command("describe", file, "--set", "mode=centralised").exit_code == 0
    assert sorted(tmp_path.iterdir()) == before


def test_describe_tells_what_is_wrong_with_the_file(tmp_path):
    done = command("describe", write(tmp_path), "--set", "data.tagret=y")
    assert done.exit_code == 2


def test_columns_that_are_not_described_are_named_with_the_reason():
    rows = len(FRAMES["cairo"])
    traps = {
        "mrn": np.arange(rows) * 7 % rows, "crp": [f"{row},5" for row in range(rows)], "nothing": np.nan,
        "share": [f"{row} %" for row in range(rows)], "word": ["good", "bad"] * (rows // 2),
    }  # fmt: skip
    frames = {name: frame.head(rows).drop(columns="remark").assign(**traps) for name, frame in FRAMES.items()}
    notes = description(frames)["notes"]
    assert "left out as identifiers by their names: mrn; data.features uses them all the same" in notes
    assert 'left out, for they hold numbers with a decimal comma: crp; data.decimal: ","' in notes
    assert "left out, for they hold numbers with a percent sign: share; take the sign out there" in notes
    assert "left out, for they hold text: word; use them with data.categorical: [word]" in notes
    assert "left out, empty at every site that has them: nothing" in notes
    # What was asked for by name is no surprise.
    assert not [note for note in description(frames, features=["age"])["notes"] if note.startswith("left out")]


def test_columns_that_are_a_line_of_each_other_have_an_interval_and_p():
    """As scipy has them; whether r was 1 or a rounding below decided whether they were told."""
    a = np.random.default_rng(0).normal(size=60)
    frame = pd.DataFrame({"a": a, "twice": 2 * a, "less": -a, "shifted": 0.1 * a + 3, "y": (a > 0) * 1})
    found = v6.describe({"data": {"target": "y"}}, {"p": frame[:30], "q": frame[30:]}).correlations
    lines = found[(found["column"] != "y") & (found["with"] != "y")]
    assert len(lines) == 6
    assert lines["r"].abs().to_numpy() == pytest.approx(1)
    np.testing.assert_allclose(lines[["low", "high"]], np.column_stack([lines["r"]] * 2))
    assert lines["p"].to_numpy() == pytest.approx(0, abs=1e-100)
