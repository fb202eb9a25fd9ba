"""Attacks on models and updates that an ordinary run gives away; `attacks` prints them.

Rows are made up: 10 columns, a label that a tenth of the rows have wrong, so that a model can learn rows by heart. Each
attack returns a text for the table. Nothing is asked of a node that a training run does not ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulate import local_federation, own_policy
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment

COLUMNS = [f"x{number}" for number in range(10)]
_HIDDEN = 64
# Epochs in five rounds: until a model knows rows by heart, and as long as a run with early stopping trains.
_BY_HEART, _SHORT = 50, 5


def made_up(rows: int, seed: int) -> pd.DataFrame:
    """Return rows, a label y that a tenth have wrong, and a column of the site's that no model sees."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(size=(rows, len(COLUMNS))).round(4), columns=COLUMNS)
    label = (frame.to_numpy()[:, :3].sum(axis=1) > 0).astype(int)
    return frame.assign(y=np.where(generator.random(rows) < 0.1, 1 - label, label))


def train(frame: pd.DataFrame, preset: str, **changes: Any) -> dict[str, torch.Tensor]:
    """Train on all rows of two sites; return the last model's tensors by name."""
    content = {
        "data": {"target": "y", "scaling": "none"}, "model": {"kind": "mlp", "hidden": [_HIDDEN], "norm": "none"},
        "rounds": 10, "split": {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0},
        "stopping": {"patience": None}, "output": {"model": "last"},
        "training": {"optimizer": {"kind": "adam", "lr": 0.01}, "batch_size": 16},
    }  # fmt: skip
    experiment = Experiment.parse(content | changes)
    half = len(frame) // 2
    parts = {"a": frame.iloc[:half], "b": frame.iloc[half:]}
    tables = {name: TableSource(frame=part.reset_index(drop=True)) for name, part in parts.items()}
    return wire.unpack(run(local_federation(experiment, tables, own_policy(preset)), experiment)["parameters"])


def margins(state: dict[str, torch.Tensor], frame: pd.DataFrame) -> np.ndarray:
    """Return each row's log-odds of its label under the model: (rows,)."""
    names = sorted(name for name in state if name.endswith("weight"))
    outputs = torch.tensor(frame[COLUMNS].to_numpy(), dtype=torch.float32)
    for place, name in enumerate(names):
        outputs = outputs @ state[name].T + state[name.replace("weight", "bias")]
        outputs = torch.relu(outputs) if place < len(names) - 1 else outputs
    logit = (outputs[:, -1] - (outputs[:, 0] if outputs.shape[1] == 2 else 0)).double().numpy()
    return np.where(frame["y"] == 1, logit, -logit)


def auc(of_members: np.ndarray, of_others: np.ndarray) -> float:
    """Return how often a member has the higher score; ties count half."""
    difference = of_members[:, None] - of_others[None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def at_low_rate(of_members: np.ndarray, of_others: np.ndarray, rate: float = 0.01) -> float:
    """Return the share of members whose score only `rate` of the others reach."""
    return float((of_members > np.quantile(of_others, 1 - rate)).mean())


def membership(epochs: int) -> Callable[[str, int], str]:
    """Loss threshold, and LiRA with shadow models, against the model of a run of so many epochs.

    LiRA: Carlini et al. (2022), Membership inference attacks from first principles; online, one variance for all rows.
    """

    def attack(preset: str, shadows: int) -> str:
        pool = made_up(400, 1)
        adam = {"kind": "adam", "lr": 0.01}
        training = {"optimizer": adam, "batch_size": 16, "local_epochs": epochs // 5}
        generator = np.random.default_rng(2)
        inside = np.stack([generator.permutation(len(pool)) < 200 for _ in range(shadows + 1)])
        scores = np.stack([margins(train(pool[row], preset, rounds=5, seed=number, training=training), pool)
                           for number, row in enumerate(inside)])  # fmt: skip
        target, known, others, of_others = scores[0], inside[0], scores[1:], inside[1:]
        # Each row was in some of the shadow models and not in others, but for a few rows of few models.
        means = [
            (others * (of_others == member)).sum(axis=0) / np.maximum((of_others == member).sum(axis=0), 1)
            for member in (True, False)
        ]
        spread = max(float(np.std(np.where(of_others, others - means[0], others - means[1]))), 1e-9)
        ratio = ((target - means[1]) ** 2 - (target - means[0]) ** 2) / (2 * spread**2)
        loss, lira = (auc(score[known], score[~known]) for score in (target, ratio))
        return f"AUC {loss:.3f} by loss, {lira:.3f} by LiRA ({at_low_rate(ratio[known], ratio[~known]):.1%} at 1 %)"

    return attack


def inversion(preset: str, shadows: int) -> str:
    """Gradient inversion: rows looked for whose gradient is the update of a round of one step over 24 rows of a site.

    Geiping et al. (2020), Inverting gradients, with labels known and without a prior; the update is read from a run.
    """
    frame, errors = made_up(48, 3), []
    site = frame.iloc[:24].reset_index(drop=True)
    other = frame.iloc[24:].reset_index(drop=True)
    changes = {"rounds": 1, "training": {"optimizer": {"kind": "sgd", "lr": 1.0}, "batch_size": None}}
    base = {
        "data": {"target": "y", "scaling": "none"}, "model": {"kind": "mlp", "hidden": [8], "norm": "none"},
        "split": {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}, "output": {"model": "last"},
    }  # fmt: skip
    experiment = Experiment.parse(base | changes)
    sent: list[dict[str, torch.Tensor]] = []
    from v6_algorithm.coordinator import master

    federation = local_federation(experiment, {"a": TableSource(frame=site), "b": TableSource(frame=other)},
                                  own_policy(preset))  # fmt: skip
    call = federation.call

    def listen(method: str, requests: Any, **options: Any) -> Any:
        from v6_algorithm.exchange.protocol import Arrival, Replies

        inner = call(method, requests, **options)

        def arrivals() -> Any:
            for name, reply in inner:
                if method == "RPC_train" and name == "a":
                    sent.append(wire.unpack(reply["folds"][0]["parameters"]))
                yield Arrival(name, wire.to_text(reply))
            for name, missing in inner.missing.items():
                yield Arrival(name, None, missing)

        return Replies(requests, arrivals(), {})

    federation.call = listen  # type: ignore[method-assign]
    try:
        master.run(federation, experiment)
    except Exception as error:  # what the node refuses is no update to invert
        return f"refused: {str(error)[:60]}"
    from v6_algorithm.data.preparation import Preparation, Setup
    from v6_algorithm.researcher.doctor.hospital import initial

    zero = np.zeros((1, len(COLUMNS)))
    before = initial(experiment, Setup(COLUMNS, {}, [0, 1], preparation=Preparation(zero, zero, zero + 1)))
    names = list(before)
    wanted = [before[name] - sent[0][name] for name in names]
    truth = torch.tensor(site[COLUMNS].to_numpy(), dtype=torch.float32)
    label = torch.tensor(site["y"].to_numpy())
    from v6_algorithm.learning.problems import create_problem

    problem = create_problem(experiment, Setup(COLUMNS, {}, [0, 1], preparation=Preparation(zero, zero, zero + 1)))
    for start in range(3):
        generator = torch.Generator().manual_seed(start)
        guess = torch.randn(truth.shape, generator=generator).requires_grad_()
        optimiser = torch.optim.Adam([guess], lr=0.05)
        for _ in range(600):
            state = {name: before[name].clone().requires_grad_() for name in names}
            hidden = torch.relu(guess @ state[names[0]].T + state[names[1]])
            output = hidden @ state[names[2]].T + state[names[3]]
            loss = problem.row_loss(output, label, 0).mean()
            gradients = torch.autograd.grad(loss, list(state.values()), create_graph=True)
            distance = sum(((gradient - goal) ** 2).sum() for gradient, goal in zip(gradients, wanted, strict=True))
            optimiser.zero_grad()
            distance.backward()
            optimiser.step()
        near = torch.cdist(truth, guess.detach()).min(dim=1).values / len(COLUMNS) ** 0.5
        errors.append(float(near.median()))
    blind = torch.cdist(truth, torch.randn(truth.shape, generator=torch.Generator().manual_seed(9))).min(dim=1).values
    return f"median distance to the nearest guess {min(errors):.2f} s.d. (blind {float(blind.median()) / 10**0.5:.2f})"


def properties(preset: str, shadows: int) -> str:
    """Property inference: whether a site's rows are mostly of one kind, from the model, by shadow models.

    The property (80 or 50 of 100 rows have x9 > 0) has nothing to do with the label. Ganju et al. (2018), simplified:
    a logistic regression on the summed first-layer weights of each column, units sorted away.
    """
    from sklearn.linear_model import LogisticRegression

    features, answers = [], []
    for number in range(2 * shadows):
        pool = made_up(2000, 100 + number)
        positive, negative = pool[pool["x9"] > 0], pool[pool["x9"] <= 0]
        share = 160 if number % 2 else 100
        frame = pd.concat([positive.iloc[:share], negative.iloc[: 200 - share]]).sample(frac=1, random_state=number)
        state = train(frame, preset, rounds=5, seed=number)
        weight = state[min(name for name in state if name.endswith("weight"))].double().numpy()
        bias = state[min(name for name in state if name.endswith("bias"))].double().numpy()
        features.append(
            [*weight.sum(axis=0), *np.abs(weight).sum(axis=0), *(weight * bias[:, None]).sum(axis=0), bias.sum()]
        )
        answers.append(number % 2)
    x, y = np.array(features), np.array(answers)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    half = len(y) // 2
    model = LogisticRegression(C=0.1).fit(x[:half], y[:half])
    score = model.decision_function(x[half:])
    return f"AUC {auc(score[y[half:] == 1], score[y[half:] == 0]):.3f} of {len(y) - half} models"


MODEL_ATTACKS: dict[str, Callable[[str, int], str]] = {
    "gradient inversion, one step over 24 rows": inversion,
    f"membership, {_SHORT} epochs": membership(_SHORT),
    f"membership, {_BY_HEART} epochs": membership(_BY_HEART),
    "property of a column that the label does not depend on": properties,
}
