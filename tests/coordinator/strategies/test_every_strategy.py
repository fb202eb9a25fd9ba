"""What every strategy promises, for all of them: a new one is covered by adding a row to the table."""

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import ROWS, SPEC, make, play, reply, state
from spying import lose

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment.strategy.kinds import ONE_GRADIENT, STRATEGIES

KINDS = {
    "fedavg": {},
    "fedavgm": {"lr": 0.7, "momentum": 0.8},
    "fedopt": {"server": {"kind": "adam", "lr": 0.1}},
    "fedadam": {"lr": 0.05},
    "fedyogi": {"lr": 0.05},
    "fedadagrad": {"lr": 0.05},
    "fedsgd": {},
    "dsgd": {"weighting": "uniform"},
    "cyclic": {},
    "fedprox": {"mu": 0.1, "adaptive": True},
    "moon": {"mu": 2.0, "tau": 0.3},
    "scaffold": {},
    "fednova": {},
    "feddyn": {"alpha": 0.5},
    "qfedavg": {"q": 2.0},
    "agnostic": {"lr": 0.3},
}
# Stages that kinds share, on top of FedAvg.
STAGES = {
    "weighting uniform": {"weighting": "uniform"},
    "weighting steps": {"weighting": "steps"},
    "clip": {"clip": 0.3},
    "median": {"combine": {"kind": "median", "malicious": 0}},
    "trimmed mean": {"combine": {"kind": "trimmed_mean", "malicious": 0}},
    "geometric median": {"combine": {"kind": "geometric_median", "malicious": 0}},
    "norm clipping": {"combine": {"kind": "norm_clipping", "malicious": 0, "radius": 0.3}},
    "centred clipping": {"combine": {"kind": "centred_clipping", "malicious": 0, "weighted": True}},
    "server adagrad": {"server": {"kind": "adagrad", "lr": 0.1}},
    "all stages": {
        "clip": 0.3,
        "combine": {"kind": "median", "malicious": 0},
        "server": {"kind": "sgd", "lr": 0.5, "momentum": 0.9},
    },
}
CASES = [pytest.param({"kind": kind, **options}, id=kind) for kind, options in KINDS.items()]
CASES += [pytest.param({"kind": "fedavg", **options}, id=name) for name, options in STAGES.items()]
every = pytest.mark.parametrize("case", CASES)
FLOATS = [name for name, item in SPEC.items() if item.kind != "counter"]


def replies_of(round: int, sites=ROWS, rows=ROWS):
    """One reply of each site; what it says depends on the site's name and the round."""
    return [
        reply(site, state(ord(site[0]) + 100 * round), rows[site], steps=2 + len(site) % 3, loss=len(site) / 10)
        for site in sites
    ]


def two_rounds(strategy, sites=ROWS, rows=ROWS):
    first = play(strategy, 1, replies_of(1, sites, rows), state(0))
    return play(strategy, 2, replies_of(2, sites, rows), first)


def assert_same(one, other, tolerance=1e-12):
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=tolerance)


def test_the_table_has_every_strategy():
    # Newton's step is of a GLM's sums; its tests are in test_glm.py.
    assert set(KINDS) == set(STRATEGIES) - {"newton"}


@pytest.mark.slow
@every
def test_identical_sites_are_as_one(case):
    """With sites that say the same, the step is that of one site with all the rows: the centralised step."""
    results = []
    for sites in ({"one": 40}, dict.fromkeys(("one", "two", "three"), 40)):
        strategy, model = make(case, rows=sites), state(0)
        for number in (1, 2, 3):
            model = play(strategy, number, [reply(site, state(number), 40) for site in sites], model)
        results.append(model)
    assert_same(*results, tolerance=1e-10)


@every
def test_order_of_sites_changes_nothing(case):
    if case["kind"] == "cyclic":
        pytest.skip("the order of the sites is what it is about")
    results = [
        two_rounds(make(case, rows={site: ROWS[site] for site in order}), order)
        for order in itertools.permutations(ROWS)
    ]
    for result in results[1:]:
        assert_same(result, results[0])


@every
def test_a_site_without_rows_changes_nothing(case):
    rows = {**ROWS, "delft": 0}
    assert_same(two_rounds(make(case, rows=rows), rows, rows), two_rounds(make(case)), tolerance=0)


@every
def test_sites_that_did_not_move_leave_the_model_where_it_is(case):
    # Of numbers that fit float32 the weighted mean is exact; of others Adam would make a step of the last bit.
    sent = {name: tensor.float().double() if name in FLOATS else tensor for name, tensor in state(0).items()}
    still = sent if case["kind"] not in ONE_GRADIENT else sent | {n: torch.zeros_like(sent[n]) for n in FLOATS[:2]}
    model = play(make(case), 1, [reply(site, still, rows) for site, rows in ROWS.items()], sent)
    assert_same(model, sent, tolerance=1e-15)


@every
def test_buffers_and_counters_never_meet_an_optimiser(case):
    """peers.md trap 4: momentum over BatchNorm's variances made them negative."""
    strategy, model = make(case), state(0)
    for number in range(1, 12):
        replies = replies_of(number)
        model = play(strategy, number, replies, model)
        variances = torch.stack([one.state["model.running_var"] for one in replies])
        assert (variances.min(0).values - 1e-12 <= model["model.running_var"]).all()
        assert (model["model.running_var"] <= variances.max(0).values + 1e-12).all()
        assert int(model["model.num_batches_tracked"]) in {int(o.state["model.num_batches_tracked"]) for o in replies}


@every
def test_a_strategy_goes_on_from_its_saved_state_to_the_bit(case):
    strategy = make(case)
    first = play(strategy, 1, replies_of(1), state(0))
    saved = wire.unpack(wire.pack(strategy.state_dict()))
    second = play(strategy, 2, replies_of(2), first)
    again = make(case)
    again.load_state_dict(saved)
    assert set(again.state_dict()) == set(saved)
    assert_same(play(again, 2, replies_of(2), first), second, tolerance=0)


@every
def test_a_round_that_made_no_model_leaves_no_trace(case):
    strategy, undisturbed = make(case), make(case)
    strategy.configure(1, list(ROWS), state(0))
    for one in replies_of(7):
        strategy.add(one)
    assert_same(two_rounds(strategy), two_rounds(undisturbed), tolerance=0)


@every
def test_the_first_model_is_learned_from_the_sites_where_only_they_have_it(case):
    told, asking = make(case), make(case)
    known = play(told, 1, replies_of(1), state(0))
    (turn, *_) = asking.turns(1, list(ROWS))
    messages = asking.configure(1, turn, None)
    assert all(message.get("start", False) == asking.wants_sent for message in messages.values())
    if case["kind"] == "cyclic":
        return
    for one in replies_of(1):
        asking.add(reply(one.site, one.state, one.rows, one.steps, one.loss, start=state(0)))
    assert_same(asking.aggregate(), known, tolerance=0)


@every
def test_messages_are_json(case):
    strategy = make(case)
    model = play(strategy, 1, replies_of(1), state(0))
    (turn, *_) = strategy.turns(2, list(ROWS))
    messages = strategy.configure(2, turn, model)
    written = {site: wire.with_texts({"strategy": message})["strategy"] for site, message in messages.items()}
    assert json.loads(wire.to_text(messages)) == written == json.loads(json.dumps(written))


def item_of(strategy, changes):
    asked = {"strategy": strategy.configure(1, ["berlin"], state(0))["berlin"]}
    extras = {"start_loss": 0.5} if asked["strategy"].get("start_loss") else {}
    content = {"rows": 20, "steps": 3, "loss": {"sum": 3.0, "rows": 20}, "parameters": wire.pack(state(1))}
    return (content | ({"strategy": extras} if extras else {}) | changes), asked


@every
def test_a_good_reply_is_read(case):
    strategy = make(case)
    item, asked = item_of(strategy, {})
    assert strategy.read("berlin", item, asked).rows == 20


@every
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"parameters": wire.pack(state(1) | {"model.bias": torch.full((2,), torch.nan).double()})}, "non-finite"),
        ({"parameters": wire.pack(state(1) | {"model.bias": torch.zeros(3).double()})}, "shape"),
        ({"parameters": wire.pack(state(1) | {"model.bias": torch.zeros(2)})}, "dtype"),
        ({"rows": 2.5}, "row counts"),
        ({"steps": 0}, "steps"),
        ({"steps": True}, "row counts"),
        ({"loss": {"sum": float("nan"), "rows": 3}}, "training loss"),
        ({"strategy": {"gift": 1}}, "other things for the strategy"),
        ({"strategy": []}, "other things for the strategy"),
    ],
)
def test_a_wrong_reply_is_refused_with_what_is_wrong(case, what, reason):
    strategy = make(case)
    item, asked = item_of(strategy, what)
    with pytest.raises(WireError, match=reason):
        strategy.read("berlin", item, asked)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.sampled_from(sorted(KINDS)), st.integers(0, 99))
def test_the_next_model_is_finite_and_has_the_models_shapes(counts, kind, seed):
    rows = {f"site-{number}": count for number, count in enumerate(counts)}
    strategy, model = make({"kind": kind, **KINDS[kind]}, rows=rows), state(seed)
    for number in (1, 2, 3):
        replies = [reply(site, state(seed + at), count) for at, (site, count) in enumerate(rows.items())]
        model = play(strategy, number, replies, model)
        wire.unpack(wire.pack(model), SPEC)


# Two runs each: every day those that keep or divide by something of their own, in CI all.
OFTEN = ("fedavg", "fedopt", "fedsgd", "cyclic", "moon", "scaffold", "fednova", "feddyn", "qfedavg", "agnostic")
OFTEN += ("median", "geometric median", "all stages")


@pytest.mark.parametrize(
    "case",
    [pytest.param(*case.values, id=case.id, marks=() if case.id in OFTEN else pytest.mark.slow) for case in CASES],
)
def test_a_site_that_sends_nan_is_dropped_as_if_it_were_lost(spied, make_experiment, case):
    training = {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}
    experiment = make_experiment(rounds=3, strategy=case, training=training, stopping={"patience": None})

    def nan(method, site, number, reply):
        if method == "RPC_train" and site == "berlin" and number == 2 and "parameters" in reply["folds"][0]:
            tensors = wire.unpack(reply["folds"][0]["parameters"])
            name = min(tensors)
            reply["folds"][0]["parameters"] = wire.pack({**tensors, name: torch.full_like(tensors[name], torch.nan)})
        return reply

    _, result = spied(experiment, nan)
    _, without = spied(experiment, lose("berlin", {2}))
    (missing,) = [
        e["missing"] for e in result["participation"] if e["call"] == "train" and e["round"] == 2 and e["missing"]
    ]
    assert "non-finite" in missing["berlin"]
    assert result["status"] == "completed"
    assert result["parameters"] == without["parameters"]
