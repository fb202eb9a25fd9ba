"""The node owner's rules: read from the node alone, and refusing when they cannot be read."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.data.preparation.combat import Combat
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import PolicyError
from v6_algorithm.exchange import wire
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site.policy import ALLOWED_COLUMNS, MINIMUM_CELL, MINIMUM_PART, MINIMUM_ROWS, MINIMUM_SITES, Policy
from v6_algorithm.site.rules import PRESET, RULES


def test_without_rules_a_node_is_standard():
    assert Policy.from_environment({}) == Policy.of("standard")
    assert Policy.from_environment({}, default="trusted") == Policy()


def test_trusted_is_what_an_empty_policy_is():
    assert Policy.of("trusted") == Policy(minimum_rows=10, minimum_sites=1, allowed_columns=None)


def test_the_rules_are_read_from_the_nodes_environment(monkeypatch):
    rules = {MINIMUM_ROWS: "50", MINIMUM_SITES: "3", ALLOWED_COLUMNS: "age|num", MINIMUM_PART: "7", MINIMUM_CELL: "11"}
    tightened = Policy.of(
        "standard", minimum_rows=50, minimum_sites=3, allowed_columns="age|num", minimum_part_rows=7, minimum_cell=11
    )
    assert Policy.from_environment(rules) == tightened
    for name, value in rules.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(PRESET)
    assert Policy.from_environment() == tightened


@pytest.mark.parametrize("name", [MINIMUM_ROWS, MINIMUM_SITES, MINIMUM_PART, MINIMUM_CELL])
@pytest.mark.parametrize("value", ["ten", "1.5", "10 rows", "1e3", "nan", "-1", "+5", "1_000", "\u0663", "9" * 30])
def test_a_number_that_cannot_be_read_refuses_everything(name, value):
    with pytest.raises(PolicyError, match=f"{name} of this node must be whole numbers"):
        Policy.from_environment({name: value})


@pytest.mark.parametrize("value", ["", " ", "\n"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.field)
def test_a_blank_rule_refuses_everything(rule, value):
    with pytest.raises(PolicyError, match=f"{rule.variable} of this node is blank"):
        Policy.from_environment({rule.variable: value})


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.kind in ("whole", "number")], ids=lambda r: r.field)
def test_a_number_out_of_range_refuses_everything(rule):
    for number in [int(rule.range[1]) + 1, *([0] if rule.range[0] > 0 else [])]:
        with pytest.raises(PolicyError, match=rule.variable):
            Policy.from_environment({rule.variable: str(number)})


@pytest.mark.parametrize(
    "name",
    [
        "V6_ALGORITHM_MINIMUM_CELLSIZE", "V6_ALGORITHM_POLICIES", "V6_ALGORITM_POLICY", "v6_algorithm_policy",
        "V6_ALGORITHM_MINIMUM_NUMBER_OF_RECORD", "V6_ALGORITHM_ANYTHING", "V6_ALGORTIHM_MINIMUM_CELL_SIZE",
    ],
)  # fmt: skip
def test_a_misspelt_rule_refuses_everything(name):
    with pytest.raises(PolicyError, match=f"{name} of this node is no rule"):
        Policy.from_environment({name: "20"})


def test_other_variables_are_nobodys_business():
    others = {"VERSION": "1", "PATH": "/bin", "V6_ALGORITHM_WEIGHTS": "/w", "VANTAGE6_HOME": "x", "VIRTUAL_ENV": "y"}
    assert Policy.from_environment(others) == Policy.of("standard")


@pytest.mark.parametrize("preset", ["", "Strict!", "none", "trusted standard"])
def test_a_preset_that_there_is_not_refuses_everything(preset):
    with pytest.raises(PolicyError, match="V6_ALGORITHM_POLICY of this node is"):
        Policy.from_environment({PRESET: preset})


@pytest.mark.parametrize("preset", ["standard", "strict"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.field)
def test_a_single_rule_never_loosens_a_preset(rule, preset):
    value = getattr(Policy.of(preset), rule.field)
    looser = {"more": "1", "less": f"{rule.range[1]:.12g}", "on": "false", "off": "true"}.get(rule.tighter or "")
    if looser is None or value in (None, 1) or value == rule.read(looser):
        return
    with pytest.raises(PolicyError, match=f"{rule.variable} of this node is .*, which protects less than {preset}"):
        Policy.from_environment({PRESET: preset, rule.variable: looser})
    assert Policy.from_environment({PRESET: "trusted", rule.variable: looser})


def test_every_thing_that_is_wrong_is_named_at_once():
    with pytest.raises(PolicyError) as refused:
        Policy.from_environment({MINIMUM_ROWS: "", MINIMUM_SITES: "many", "V6_ALGORITHM_NONE": "1"})
    assert all(name in str(refused.value) for name in (MINIMUM_ROWS, MINIMUM_SITES, "V6_ALGORITHM_NONE"))


def test_no_secret_pattern_or_path_is_told():
    secret, rules = "ab" * 32, {"V6_ALGORITHM_LEDGER_FOLDER": "/secret/place", ALLOWED_COLUMNS: "hidden_.*"}
    told = Policy.from_environment({**rules, "V6_ALGORITHM_FOLDS_SECRET": secret}).in_force()
    assert not any(text in str(told) for text in (secret, "/secret", "hidden_"))
    assert (told["preset"], told["folds_secret"], told["minimum_cell"]) == ("standard", True, 5)


@pytest.mark.parametrize("pattern", ["(", "[a-", "*", "(?P<x"])
def test_a_pattern_that_cannot_be_read_refuses_everything(pattern):
    with pytest.raises(PolicyError, match=f"{ALLOWED_COLUMNS} of this node is not a regular expression"):
        Policy.from_environment({ALLOWED_COLUMNS: pattern})


@pytest.mark.parametrize(("rows", "allowed"), [(0, False), (9, False), (10, True), (11, True)])
def test_too_few_rows_are_refused(rows, allowed):
    if allowed:
        Policy(minimum_rows=10).check_rows(rows)
    else:
        with pytest.raises(PolicyError, match="fewer rows than its minimum of 10"):
            Policy(minimum_rows=10).check_rows(rows)


def test_how_many_rows_a_small_site_has_is_not_told():
    with pytest.raises(PolicyError) as refused:
        Policy(minimum_rows=10).check_rows(7)
    assert "7" not in str(refused.value)


def test_too_few_sites_are_refused():
    Policy(minimum_sites=3).check_sites(3)
    with pytest.raises(PolicyError, match="at least 3 sites, this run has 2"):
        Policy(minimum_sites=3).check_sites(2)


@pytest.mark.parametrize(
    ("column", "allowed"),
    [
        ("age", True),
        ("lab_na", True),
        ("lab_", True),
        ("Age", False),
        ("age2", False),
        ("my_lab_na", False),
        ("", False),
    ],
)
def test_the_whole_name_of_a_column_must_match(column, allowed):
    policy = Policy(allowed_columns="age|lab_.*")
    assert policy.allows(column) == allowed
    if allowed:
        policy.check_columns(["age", column])
    else:
        with pytest.raises(PolicyError, match=f"does not allow column '{column}'"):
            policy.check_columns(["age", column])


def test_a_newline_does_not_get_a_column_past_the_pattern():
    assert not Policy(allowed_columns="age").allows("age\n")


def test_without_a_pattern_every_column_is_allowed():
    Policy.from_environment({}).check_columns(["age", "any thing", ""])


def test_a_refusal_is_of_its_own_kind():
    assert PolicyError("no").kind == "refused"


@pytest.mark.parametrize("split", [{"train": 0.05, "validation": 0, "test": 0.95}, {"train": 0.95, "validation": 0.05}])
@pytest.mark.parametrize("step", ["statistics", "quantiles"])
def test_a_split_that_would_tell_single_rows_is_refused(tables, make_experiment, split, step):
    """Sums over a part of one row are that row: means in the statistics, score and label in the metrics."""
    experiment = make_experiment(split={"kind": "ratio", "test": 0, **split})
    request = wire.message(
        site="cairo", round=0, attempt=1, step=step, sites=3, experiment=experiment.for_sites(),
        setup=Setup(["a", "b"], {}, [0, 1]).to_json(),
    )  # fmt: skip
    reply = handle("prepare", request, SiteContext({"cairo": tables["cairo"]}))
    assert (reply["status"], reply["kind"]) == ("error", "refused")
    assert "rows here than this node's minimum of 3 a part" in reply["message"]


def asked_of_a_rare_column(tables, make_experiment, values, step, setup=None, **data):
    """The reply of a site in whose table so many rows have a value in column `rare`."""
    frame = tables["cairo"].frame.assign(rare=np.nan)
    frame.loc[frame.index[:values], "rare"] = 4711.0
    setup = setup or Setup(["a", "rare"], {}, [0, 1])
    request = wire.message(
        site="cairo", round=0, attempt=1, step=step, sites=3, setup=setup.to_json(),
        experiment=make_experiment(
            split={"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}, data={"target": "y", **data}
        ).for_sites(),
    )  # fmt: skip
    return handle("prepare", request, SiteContext({"cairo": TableSource(frame=frame)}))


@pytest.mark.parametrize(("values", "told"), [(0, False), (1, False), (2, False), (3, True)])
@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust"])
def test_a_column_with_hardly_any_value_counts_as_empty(tables, make_experiment, values, told, scaling):
    """The mean of one value is that value, however many rows there are without one."""
    reply = asked_of_a_rare_column(tables, make_experiment, values, "statistics", scaling=scaling)
    moments = wire.unpack(reply["moments"])
    assert reply["hidden"] == (["rare"] if values in (1, 2) else [])
    assert all(bool(moments[name][0, 1]) == told for name in ("count", "mean"))
    assert bool(moments["high"][0, 1]) == (told and scaling == "minmax")
    assert moments["squares"][0, 1] == 0
    cells = wire.unpack(asked_of_a_rare_column(tables, make_experiment, values, "quantiles", scaling=scaling)["cells"])
    usual = int(cells["number"][0])
    assert cells["rows"][:usual].sum() == 30
    assert cells["rows"][usual:].sum() == (values if told else 0)


def test_a_column_with_hardly_any_value_in_one_fold_counts_as_empty_in_all(tables, make_experiment):
    """Of two folds that share rows, the sums of one less those of the other are those of few."""
    frame = tables["cairo"].frame.assign(rare=np.nan, usual=0.0, one="train", two="train")
    frame.loc[frame.index[:4], "rare"] = 4711.0
    frame.loc[frame.index[1:4], "two"] = "test"
    request = wire.message(
        site="cairo", round=0, attempt=1, step="statistics", sites=3,
        setup=Setup(["rare", "usual"], {}, [0, 1]).to_json(),
        experiment=make_experiment(data={"target": "y", "split_column": ["one", "two"]}, split="given").for_sites(),
    )  # fmt: skip
    reply = handle("prepare", request, SiteContext({"cairo": TableSource(frame=frame)}))
    assert reply["hidden"] == ["rare"]
    assert wire.unpack(reply["moments"])["count"].tolist() == [[0, 30], [0, 27]]


@pytest.mark.parametrize("values", [1, 2])
@pytest.mark.parametrize("step", ["statistics", "harmonisation", "moments", "quantiles"])
def test_harmonisation_of_a_column_with_hardly_any_value_is_refused(tables, make_experiment, values, step):
    """Its sums are over filled cells, and what they are filled with is known."""
    zero = np.zeros((1, 2))
    setup = Setup(
        ["a", "rare"], {}, [0, 1], preparation=Preparation(zero, zero, zero + 1),
        combat=Combat(np.zeros((1, 0, 2)), zero, zero + 1),
    )  # fmt: skip
    reply = asked_of_a_rare_column(tables, make_experiment, values, step, setup, harmonisation="combat")
    assert (reply["status"], reply.get("kind")) == ("error", "refused")
    assert reply["message"] == (
        "fewer training rows here have a value in column 'rare' than this node's minimum of 3 a part"
    )
    # And so it is where the experiment, written by hand, does not say that the setup is of a harmonisation.
    if step != "statistics":
        assert asked_of_a_rare_column(tables, make_experiment, values, step, setup)["kind"] == "refused"


def test_a_column_hidden_in_the_setup_is_refused_too(tables, make_experiment):
    """A request written by hand may name columns in the setup that its experiment does not."""
    for setup in (Setup(["a", "b"], {}, [0, 1]), Setup(["a"], {"b": [1, 2]}, [0, 1])):
        request = wire.message(
            site="cairo", round=0, attempt=1, step="statistics", sites=3, setup=setup.to_json(),
            experiment=make_experiment().for_sites(),
        )  # fmt: skip
        reply = handle("prepare", request, SiteContext({"cairo": tables["cairo"]}, Policy(allowed_columns="[ay]")))
        assert (reply["kind"], reply["message"]) == ("refused", "this node does not allow column 'b'")
