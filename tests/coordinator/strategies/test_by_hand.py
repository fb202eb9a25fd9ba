"""Each strategy's step against its formula, on one number in float64."""

import math

import pytest
import torch
from playing import SCALAR, make, play, reply, scalar

from v6_algorithm.coordinator.strategies import create_strategy
from v6_algorithm.coordinator.strategies.fairness import project
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment

TWO = {"a": 10, "b": 30}


def value(model) -> float:
    return float(model["w"])


def rounds(strategy, *models, sent=1.0, rows=TWO, **more):
    """Play rounds in which the sites send these numbers; give the model after each."""
    found = []
    for number, numbers in enumerate(models, start=1):
        extras = {name: values[number - 1] for name, values in more.items()}
        replies = [
            reply(site, scalar(one), rows[site], **{name: by_site[at] for name, by_site in extras.items()})
            for at, (site, one) in enumerate(zip(rows, numbers, strict=True))
        ]
        sent = value(play(strategy, number, replies, scalar(sent)))
        found.append(sent)
    return found


def test_weighting_by_rows_by_steps_and_uniform():
    wanted = {"samples": (10 * 2 + 30 * 4) / 40, "uniform": 3, "steps": (7 * 2 + 3 * 4) / 10}
    for weighting, mean in wanted.items():
        strategy = make({"kind": "fedavg", "weighting": weighting}, SCALAR, TWO)
        assert rounds(strategy, (2, 4), steps=[(7, 3)]) == [pytest.approx(mean, abs=1e-15)]


def test_median_of_odd_and_even_numbers_of_sites():
    for numbers, wanted in (((9, 1, 2), 2), ((9, 1, 2, 4), 3)):
        rows = {f"site-{at}": 5 + at for at in range(len(numbers))}
        assert rounds(
            make({"kind": "fedavg", "combine": {"kind": "median", "malicious": 0}}, SCALAR, rows), numbers, rows=rows
        ) == [wanted]


def test_clip_scales_a_long_update_and_leaves_a_short_one():
    strategy = make({"kind": "fedavg", "clip": 0.5, "weighting": "uniform"}, SCALAR, TWO)
    assert rounds(strategy, (1 - 3, 1.25)) == [pytest.approx((0.5 + 1.25) / 2, abs=1e-15)]


def test_clip_of_an_update_of_zero_divides_by_nothing():
    """peers.md trap 7: clipping_norm / input_norm on a zero update."""
    assert rounds(make({"kind": "fedavg", "clip": 0.5}, SCALAR, TWO), (1, 1)) == [1]


def test_a_server_of_sgd_with_nesterov_is_dilocos_outer_step():
    """v = 0.9 v + g, x = x - 0.7 (g + 0.9 v), with the gradient g = what was sent less the mean that came back."""
    server = {"kind": "sgd", "lr": 0.7, "momentum": 0.9, "nesterov": True}
    strategy = make({"kind": "fedavg", "weighting": "uniform", "server": server}, SCALAR, TWO)
    first = 1 - 0.7 * (1 + 0.9) * (1 - 3)
    v = 0.9 * (1 - 3) + (first - 2)
    second = first - 0.7 * ((first - 2) + 0.9 * v)
    assert rounds(strategy, (2, 4), (1, 3)) == [pytest.approx(first, abs=1e-14), pytest.approx(second, abs=1e-14)]


def test_fedavgm_is_momentum_on_the_mean_update():
    strategy = make({"kind": "fedavgm", "lr": 0.5, "momentum": 0.9}, SCALAR, TWO)
    found = rounds(strategy, (2, 4), (5, 5))
    v = 3.5 - 1
    first = 1 + 0.5 * v
    v = 0.9 * v + (5 - first)
    assert found == [pytest.approx(first, abs=1e-14), pytest.approx(first + 0.5 * v, abs=1e-14)]


def test_fedopt_with_sgd_of_rate_one_is_fedavg():
    plain = rounds(make("fedavg", SCALAR, TWO), (2, 4), (5, 6))
    assert rounds(make({"kind": "fedopt", "server": {"kind": "sgd", "lr": 1}}, SCALAR, TWO), (2, 4), (5, 6)) == (
        pytest.approx(plain, abs=1e-14)
    )


def test_fedopt_is_the_torch_optimiser_on_the_negated_mean_update():
    found = rounds(make({"kind": "fedopt", "server": {"kind": "adam", "lr": 0.3}}, SCALAR, TWO), (2, 4), (5, 6), (0, 1))
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimiser, wanted = torch.optim.Adam([parameter], lr=0.3), []
    for one, other in ((2, 4), (5, 6), (0, 1)):
        parameter.grad = parameter.detach() - (10 * one + 30 * other) / 40
        optimiser.step()
        wanted.append(parameter.item())
    assert found == pytest.approx(wanted, abs=1e-13)


@pytest.mark.parametrize("kind", ["fedadam", "fedyogi", "fedadagrad"])
def test_adaptive_servers_follow_the_papers_algorithm_without_bias_correction(kind):
    lr, beta1, beta2, tau = 0.3, 0.8, 0.95, 0.01
    strategy = make({"kind": kind, "lr": lr, "beta1": beta1, "beta2": beta2, "tau": tau}, SCALAR, TWO)
    means = [(10 * one + 30 * other) / 40 for one, other in ((2, 4), (5, 6), (0, 1))]
    x, m, v, wanted = 1.0, 0.0, tau**2, []
    for mean in means:
        delta = mean - x
        m = beta1 * m + (1 - beta1) * delta
        if kind == "fedadam":
            v = beta2 * v + (1 - beta2) * delta**2
        elif kind == "fedyogi":
            v = v - (1 - beta2) * delta**2 * math.copysign(1, v - delta**2)
        else:
            v = v + delta**2
        x += lr * m / (math.sqrt(v) + tau)
        wanted.append(x)
    assert rounds(strategy, (2, 4), (5, 6), (0, 1)) == pytest.approx(wanted, abs=1e-13)


def test_fedsgd_steps_with_the_mean_gradient():
    strategy = make("fedsgd", SCALAR, TWO, training={"optimizer": {"kind": "sgd", "lr": 0.2, "momentum": 0.5}})
    first = 1 - 0.2 * (10 * 3 + 30 * 1) / 40
    buffer = 0.5 * 1.5 + (10 * -1 + 30 * 2) / 40
    assert rounds(strategy, (3, 1), (-1, 2)) == pytest.approx([first, first - 0.2 * buffer], abs=1e-14)


def test_fedsgds_learning_rate_follows_the_scheduler():
    training = {"optimizer": {"kind": "sgd", "lr": 0.2}, "scheduler": {"kind": "exponentiallr", "gamma": 0.5}}
    strategy = make("fedsgd", SCALAR, TWO, training=training)
    assert rounds(strategy, (1, 1), (1, 1), (1, 1)) == pytest.approx([0.8, 0.7, 0.65], abs=1e-14)


def test_fednova_divides_updates_by_their_steps():
    strategy = make("fednova", SCALAR, TWO)
    p, q = 0.25, 0.75
    wanted = 1 + (p * 2 + q * 8) * (p * (3 - 1) / 2 + q * (5 - 1) / 8)
    assert rounds(strategy, (3, 5), steps=[(2, 8)]) == [pytest.approx(wanted, abs=1e-14)]


def test_fednova_with_equal_steps_is_fedavg():
    for training in ({}, {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}}):
        assert rounds(make("fednova", SCALAR, TWO, training=training), (3, 5)) == pytest.approx(
            rounds(make("fedavg", SCALAR, TWO), (3, 5)), abs=1e-14
        )


def test_fednova_counts_how_long_momentum_carries_a_gradient():
    beta = 0.9
    strategy = make("fednova", SCALAR, TWO, training={"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": beta}})
    # By hand: the distance that SGD with momentum goes along a gradient of 1 with a rate of 1.
    reach = {}
    for steps in (2, 8):
        buffer = at = 0.0
        for _ in range(steps):
            buffer = beta * buffer + 1
            at += buffer
        reach[steps] = at
    p, q = 0.25, 0.75
    wanted = 1 + (p * reach[2] + q * reach[8]) * (p * 2 / reach[2] + q * 4 / reach[8])
    assert rounds(strategy, (3, 5), steps=[(2, 8)]) == [pytest.approx(wanted, abs=1e-13)]


def correction(message) -> float:
    return float(wire.unpack(message["correction"])["w"]) if "correction" in message else 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_scaffold_variates_start_at_zero_and_are_the_mean_gradients_of_the_last_round(momentum):
    """peers.md trap 9: variates that start as the model, and a formula that ignores momentum."""
    training = {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": momentum}}
    strategy = make("scaffold", SCALAR, TWO, training=training)

    def walk(at, gradient, steps=4):
        buffer = 0.0
        for _ in range(steps):
            buffer = momentum * buffer + gradient
            at -= 0.1 * buffer
        return at

    gradients, sent = {"a": 3.0, "b": -1.0}, 1.0
    mean = 0.25 * 3.0 - 0.75
    corrections = {"a": 0.0, "b": 0.0}
    for number in (1, 2, 3):
        messages = strategy.configure(number, list(TWO), scalar(sent))
        assert {site: correction(message) for site, message in messages.items()} == pytest.approx(
            corrections, abs=1e-12
        )
        for site, rows in TWO.items():
            end = walk(sent, gradients[site] + corrections[site])
            strategy.add(reply(site, scalar(end), rows))
        sent = value(strategy.aggregate())
        # The gradients do not change, so neither do the variates after the first round.
        corrections = {site: mean - gradients[site] for site in TWO}


def test_scaffold_keeps_the_variate_of_a_site_that_is_away():
    strategy = make("scaffold", SCALAR, TWO)
    strategy.configure(1, list(TWO), scalar(1))
    strategy.add(reply("a", scalar(1 - 0.4 * 3), 10))
    strategy.add(reply("b", scalar(1 + 0.4), 30))
    strategy.aggregate()
    strategy.configure(2, ["b"], scalar(1))
    # b's gradient is 2.75 now, and it is sent c less its own variate, of which there are those of the round before.
    sent = 0.25 * 3 + 0.75 * -1 - -1
    strategy.add(reply("b", scalar(1 - 0.4 * (2.75 + sent)), 30))
    strategy.aggregate()
    messages = strategy.configure(3, list(TWO), scalar(1))
    mean = 0.25 * 3 + 0.75 * 2.75
    assert correction(messages["a"]) == pytest.approx(mean - 3, abs=1e-12)
    assert correction(messages["b"]) == pytest.approx(mean - 2.75, abs=1e-12)


def test_feddyn_follows_the_papers_recursion():
    alpha = 0.5
    strategy = make({"kind": "feddyn", "alpha": alpha, "weighting": "uniform"}, SCALAR, TWO)
    sent, terms, h = 1.0, {"a": 0.0, "b": 0.0}, 0.0
    for number, models in enumerate(({"a": 2.0, "b": 4.0}, {"a": 0.0, "b": 3.0}), start=1):
        messages = strategy.configure(number, list(TWO), scalar(sent))
        for site in TWO:
            assert messages[site]["mu"] == alpha
            assert -correction(messages[site]) == pytest.approx(terms[site], abs=1e-14)
            strategy.add(reply(site, scalar(models[site]), TWO[site]))
            terms[site] -= alpha * (models[site] - sent)
        h -= alpha * sum(model - sent for model in models.values()) / 2
        sent = sum(models.values()) / 2 - h / alpha
        assert value(strategy.aggregate()) == pytest.approx(sent, abs=1e-13)


def test_qfedavg_follows_the_papers_step():
    q, large = 2.0, 4.0
    strategy = make({"kind": "qfedavg", "q": q, "lipschitz": large}, SCALAR, TWO)
    # Losses before training are 0.1 above those while training, in `reply`.
    losses, deltas = (0.6, 0.9), [large * (1 - 2), large * (1 - 5)]
    up = sum(loss**q * delta for loss, delta in zip(losses, deltas, strict=True))
    down = sum(q * loss ** (q - 1) * delta**2 + large * loss**q for loss, delta in zip(losses, deltas, strict=True))
    assert rounds(strategy, (2, 5), loss=[(0.5, 0.8)]) == [pytest.approx(1 - up / down, abs=1e-14)]


def test_qfedavg_with_q_zero_is_the_plain_mean():
    assert rounds(make({"kind": "qfedavg", "q": 0}, SCALAR, TWO), (2, 5)) == [pytest.approx(3.5, abs=1e-14)]


def test_agnostic_weights_climb_with_the_losses():
    strategy = make({"kind": "agnostic", "lr": 0.5}, SCALAR, TWO)
    found = rounds(strategy, (2, 4), (2, 4), loss=[(0.1, 0.7), (0.3, 0.3)])
    # From (1/2, 1/2): plus 0.5 * (0.2, 0.8) / 0.5, projected: half of the difference of 0.6 each.
    assert found == pytest.approx([3, 0.2 * 2 + 0.8 * 4], abs=1e-14)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_agnostic_weights_do_not_depend_on_the_unit_of_the_loss(unit):
    strategy = make({"kind": "agnostic", "lr": 0.3}, SCALAR, TWO)
    losses = [tuple(unit * one - 0.1 for one in pair) for pair in ((0.5, 0.8), (0.4, 0.9), (0.3, 0.3))]
    found = rounds(strategy, (2, 4), (2, 4), (2, 4), loss=losses)
    assert found == pytest.approx([3, *rounds_of_agnostic_in_unit_one()], rel=1e-9)


def rounds_of_agnostic_in_unit_one():
    """0.3 * the losses over the first mean of 0.65, from (1/2, 1/2)."""
    weights, models = [0.5, 0.5], []
    for one, other in ((0.5, 0.8), (0.4, 0.9)):
        shift = 0.3 * (other - one) / 0.65 / 2
        weights = [weights[0] - shift, weights[1] + shift]
        models.append(2 * weights[0] + 4 * weights[1])
    return models


def test_agnostic_keeps_its_unit_of_the_loss_when_a_site_joins():
    """Taken anew from losses that had fallen, it made the same difference move the weights ten times as far."""
    moved = []
    for joins in (False, True):
        strategy = make({"kind": "agnostic", "lr": 0.1}, SCALAR, TWO)
        first = rounds(strategy, (2, 4), loss=[(0.9, 1.1)])
        if joins:
            strategy.admit(dict.fromkeys(TWO, 1))
        before = strategy._weights.tolist()
        rounds(strategy, (2, 4), loss=[(0.0, 0.1)])
        moved.append(strategy._weights.tolist()[1] - before[1])
        assert first == [3]
    # 0.1 * (0.2 - 0.1) / 1.1, halved by the projection.
    assert moved == pytest.approx([0.1 * 0.1 / 1.1 / 2] * 2)


def test_agnostic_goes_on_where_none_of_a_rounds_sites_has_weight():
    rows = {"a": 10, "b": 30, "c": 20}
    strategy = make({"kind": "agnostic", "lr": 5.0}, SCALAR, rows)
    play(
        strategy,
        1,
        [reply(site, scalar(2.0), rows[site], loss=loss) for site, loss in (("a", 9.0), ("b", 0.1))],
        scalar(1),
    )
    model = play(strategy, 2, [reply(site, scalar(to), rows[site]) for site, to in (("b", 3.0), ("c", 5.0))], scalar(2))
    assert value(model) == pytest.approx(4.0), "sites without weight count the same"


@pytest.mark.parametrize(
    ("point", "nearest"),
    [
        ((0.6, 0.9), (0.35, 0.65)),
        ((2.0, 0.0), (1, 0)),
        ((-1.0, -1.0), (0.5, 0.5)),
        ((7.0,), (1,)),
        # Beside 1e30 a sum of 1 is rounding.
        ((0.0, 1e30), (0, 1)),
    ],
)
def test_projection_to_the_simplex(point, nearest):
    found = project(torch.tensor(point, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(nearest, dtype=torch.float64))


def test_fedprox_mu_grows_with_the_loss_and_shrinks_after_five_falls():
    strategy = make({"kind": "fedprox", "mu": 0.5, "adaptive": True}, SCALAR, {"a": 10})
    losses = [1.0, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4]
    found = []
    for number, loss in enumerate(losses, start=1):
        found.append(strategy.configure(number, ["a"], scalar(1))["a"]["mu"])
        strategy.add(reply("a", scalar(1), 10, loss=loss))
        strategy.aggregate()
    assert found == pytest.approx([0.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.5])


def test_a_step_that_leaves_the_finite_numbers_is_an_error_that_says_what_to_do():
    strategy = make({"kind": "fedopt", "server": {"kind": "sgd", "lr": 1e38}}, SCALAR, TWO)
    with pytest.raises(ValueError, match="not finite; lower its learning rate"):
        rounds(strategy, (1e300, 1e300))


def test_losing_all_sites_rows_is_an_error_not_a_nan():
    with pytest.raises(ValueError, match="no site with a training row"):
        make("fedavg", SCALAR, TWO).aggregate()


def test_a_late_update_counts_from_the_present_model_and_less_with_its_age():
    """FedBuff: the update of a site that was sent another model, with 1 / sqrt(1 + age) of its weight."""
    strategy = make("fedavg", SCALAR, TWO, participation={"late": "stale"})
    strategy.configure(5, ["a"], scalar(2.0))
    strategy.add(reply("a", scalar(2.5), 10))
    strategy.add_belated(reply("b", scalar(1.4), 30), scalar(1.0), age=3)
    weight = 30 / math.sqrt(1 + 3)
    assert value(strategy.aggregate()) == pytest.approx((10 * 2.5 + weight * (2.0 + 0.4)) / (10 + weight), abs=1e-15)


def test_a_late_update_of_a_site_without_rows_changes_nothing():
    strategy = make("fedavg", SCALAR, TWO, participation={"late": "stale"})
    strategy.configure(2, ["a"], scalar(2.0))
    strategy.add(reply("a", scalar(2.5), 10))
    strategy.add_belated(reply("b", scalar(1.4), 0), scalar(1.0), age=1)
    assert value(strategy.aggregate()) == 2.5


@pytest.mark.parametrize("kind", ["moon", "scaffold", "feddyn", "fednova", "cyclic", "fedsgd", "qfedavg", "agnostic"])
def test_late_answers_are_refused_where_the_maths_needs_this_rounds_model(kind):
    with pytest.raises(ExperimentError, match=f"participation.late stale does not go with strategy {kind}"):
        make(kind, SCALAR, TWO, participation={"late": "stale"})


def test_a_newton_step_that_is_halved_is_not_the_end_of_the_fit():
    """Where the deviance has risen, the step before was too long: halfway back, and on from there."""
    experiment = Experiment.parse({"data": {"target": "y"}, "model": {"kind": "glm"}})
    newton = create_strategy(experiment, SCALAR, TWO)
    one, free = torch.ones(1, dtype=torch.float64), torch.tensor([True])

    def step(at, deviance):
        present, penalty = at * one, 0 * one
        return newton._following(present, one, one[:, None], deviance, penalty, free, 40).item()

    assert step(0.0, 1.0) == 1.0
    assert step(1.0, 5.0) == 0.5
    assert not newton.converged
    newton.kept["newton"]["coefficients"] = 0.5 * one
    assert step(0.5 + 1e-16, 5.0) == 0.5
    assert newton.converged


@pytest.mark.parametrize("loss", [True, "0.5", None, math.nan, math.inf, [1.0]])
def test_a_loss_before_training_that_is_no_finite_number_is_refused(loss):
    strategy = make({"kind": "agnostic", "lr": 0.3}, SCALAR, TWO)
    asked = {"strategy": {"start_loss": True}}
    with pytest.raises(WireError, match="its loss before training is not a finite number"):
        strategy._with_extras(reply("a", scalar(1.0), 10), {"start_loss": loss}, asked)
    assert strategy._with_extras(reply("a", scalar(1.0), 10), {"start_loss": 3}, asked).start_loss == 3.0
    with pytest.raises(WireError, match="other things for the strategy"):
        strategy._with_extras(reply("a", scalar(1.0), 10), {}, asked)


def test_the_steps_of_fedprox_are_those_of_the_paper():
    strategy = make({"kind": "fedprox", "mu": 0.5, "adaptive": True}, SCALAR, TWO)
    losses = [1.0, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5]
    seen = []
    for number, loss in enumerate(losses, start=1):
        play(strategy, number, [reply(site, scalar(1), rows, loss=loss) for site, rows in TWO.items()], scalar(1))
        seen.append(strategy.message("a")["mu"])
    assert seen == pytest.approx([0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.5])


@pytest.mark.parametrize("counts", [(0, 1, 0), (-1, 1, 1), (1.0, 1, 1), (True, 1, 1), (1, 0, 1)])
def test_a_reply_of_one_row_is_read_and_of_wrong_counts_is_not(counts):
    strategy = make("fedavg", SCALAR, TWO)

    def read(rows, steps, loss_rows):
        loss = {"sum": 0.5, "rows": loss_rows}
        item = {"rows": rows, "steps": steps, "loss": loss, "parameters": wire.pack(scalar(2.0))}
        return strategy.read("a", item | {"strategy": {}}, {})

    assert read(1, 1, 1).rows == 1
    assert read(0, 1, 1).rows == 0
    with pytest.raises(WireError, match="must be"):
        read(*counts)


def test_a_reply_over_one_row_is_read_and_over_none_is_refused():
    strategy = make("fedavg", SCALAR)
    strategy.configure(1, ["amsterdam"], scalar(0.0))

    def read(rows):
        item = {"rows": 1, "steps": 1, "loss": {"sum": 0.5, "rows": rows}, "parameters": str(wire.pack(scalar(1.0)))}
        return strategy.read("amsterdam", item, {})

    assert read(1).loss == 0.5
    with pytest.raises(WireError, match="row counts must be whole numbers"):
        read(0)


def test_a_step_that_the_server_cannot_take_is_named():
    """As where its options fit torch, and what they are multiplied with does not."""
    strategy = make({"kind": "fedavgm", "lr": 1.0}, SCALAR, TWO)
    strategy.server.step = lambda *_: 10.0**400
    with pytest.raises(ValueError, match=r"the server's step cannot be taken with these options \(OverflowError"):
        rounds(strategy, (2, 4))
