"""Attacks on models and updates that an ordinary run gives away; `attacks` prints them.

Rows are made up: 10 columns, a label that a tenth of the rows have wrong, so that a model can learn rows by heart. Each
attack returns a text for the table. Nothing is asked of a node that a training run does not ask.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
from v6_algorithm.errors import FederationError
from v6_algorithm.exchange import png, wire
from v6_algorithm.exchange.protocol import Arrival, Replies
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.approval import fingerprint
from v6_algorithm.researcher.generate import read_generator
from v6_algorithm.researcher.report import write_artifacts
from v6_algorithm.site.policy import Policy

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


def rules(preset: str, experiment: Experiment) -> Policy:
    """Return a preset's rules; under strict the owner has approved the experiment, or nothing would be answered."""
    policy = own_policy(preset)
    return policy if preset != "strict" else replace(policy, approved_experiments=(fingerprint(experiment),))


def train(frame: pd.DataFrame, preset: str, **changes: Any) -> dict[str, torch.Tensor]:
    """Train on all rows of three sites, the fewest that strict has; return the last model's tensors by name."""
    content = {
        "data": {"target": "y", "scaling": "none"}, "model": {"kind": "mlp", "hidden": [_HIDDEN], "norm": "none"},
        "rounds": 10, "split": {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0},
        "stopping": {"patience": None}, "output": {"model": "last"},
        "training": {"optimizer": {"kind": "adam", "lr": 0.01}, "batch_size": 16},
    }  # fmt: skip
    experiment = Experiment.parse(content | changes)
    parts = {name: frame.iloc[place::3] for place, name in enumerate("abc")}
    tables = {name: TableSource(frame=part.reset_index(drop=True)) for name, part in parts.items()}
    federation = local_federation(experiment, tables, rules(preset, experiment))
    return wire.unpack(run(federation, experiment)["parameters"])


def updates_of(experiment: Experiment, tables: dict[str, TableSource], preset: str) -> list[dict[str, torch.Tensor]]:
    """Run an experiment; return what site "a" sent after each round, as the coordinator gets it."""
    sent: list[dict[str, torch.Tensor]] = []
    federation = local_federation(experiment, tables, rules(preset, experiment))
    call = federation.call

    def listen(method: str, requests: Any, **options: Any) -> Any:
        inner = call(method, requests, **options)

        def arrivals() -> Iterator[Arrival]:
            for name, reply in inner:
                if method == "RPC_train" and name == "a":
                    sent.append(wire.unpack(reply["folds"][0]["parameters"]))
                yield Arrival(name, wire.to_text(reply))
            for name, missing in inner.missing.items():
                yield Arrival(name, None, missing)

        return Replies(requests, arrivals(), {})

    federation.call = listen  # type: ignore[method-assign]
    run(federation, experiment)
    return sent


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
    others = {"b": frame.iloc[24:].reset_index(drop=True), "c": made_up(48, 4)}
    changes = {"rounds": 1, "training": {"optimizer": {"kind": "sgd", "lr": 1.0}, "batch_size": None}}
    base = {
        "data": {"target": "y", "scaling": "none"}, "model": {"kind": "mlp", "hidden": [8], "norm": "none"},
        "split": {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}, "output": {"model": "last"},
    }  # fmt: skip
    experiment = Experiment.parse(base | changes)
    try:
        sent = updates_of(
            experiment, {name: TableSource(frame=rows) for name, rows in ({"a": site} | others).items()}, preset
        )
    except FederationError as error:  # what the node refuses is no update to invert
        return f"refused: {' '.join(str(error).split())}"
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


def properties(preset: str, shadows: int, private: bool = False) -> str:
    """Property inference: whether a site's rows are mostly of one kind, from its first update, by shadow models.

    The property (80 or 50 of a site's 100 rows have x9 > 0) has nothing to do with the label. The attacker knows the
    model that the round began with, and has rows of the same kind to train shadow sites on; of each it has the update,
    and a logistic regression on its principal components. Melis et al. (2019), Exploiting unintended feature leakage in
    collaborative learning.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    section = {"differential_privacy": {"epsilon": 3, "delta": 1e-3}} if private else {}
    experiment = Experiment.parse({
        "data": {"target": "y", "scaling": "none"}, "model": {"kind": "mlp", "hidden": [16], "norm": "none"},
        "rounds": 1, "split": {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}, "output": {"model": "last"},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": 16, "local_epochs": 2}, "privacy": section,
    })  # fmt: skip
    others = {"b": TableSource(frame=made_up(100, 98)), "c": TableSource(frame=made_up(100, 99))}
    features, answers = [], []
    for number in range(4 * shadows):
        pool = made_up(1000, 100 + number)
        positive, negative = pool[pool["x9"] > 0], pool[pool["x9"] <= 0]
        share = 80 if number % 2 else 50
        frame = pd.concat([positive.iloc[:share], negative.iloc[: 100 - share]]).sample(frac=1, random_state=number)
        site = TableSource(frame=frame.reset_index(drop=True))
        (update,) = updates_of(experiment, {"a": site} | others, preset)
        features.append(torch.cat([value.flatten() for value in update.values()]).double().numpy())
        answers.append(number % 2)
    x, y = np.array(features), np.array(answers)
    half = len(y) // 2
    model = make_pipeline(StandardScaler(), PCA(min(12, half // 2)), LogisticRegression(C=0.3)).fit(x[:half], y[:half])
    score = model.decision_function(x[half:])
    return f"AUC {auc(score[y[half:] == 1], score[y[half:] == 0]):.3f} of {len(y) - half} updates"


def private_properties(preset: str, shadows: int) -> str:
    """Property inference from updates under differential privacy of samples, epsilon 3."""
    return properties(preset, shadows, private=True)


def memorisation(preset: str, shadows: int) -> str:
    """What a generator of digits knows by heart of its 96 training images, against 96 that it never saw.

    Distance of made images to the nearest training image against the nearest held-out one (Meehan et al., 2020, A
    non-parametric test to detect data-copying: 0.5 means no copying); membership by the distance of an image to the
    nearest made one (Chen et al., 2020, GAN-Leaks); and by the discriminator's output (Hayes et al., 2019, LOGAN), as
    it is in the model unless `strategy.private` keeps it at the sites.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = np.random.default_rng(7).permutation(len(digits.images))[:192]
    pixels = np.kron(digits.images[chosen] * (255 / 16), np.ones((2, 2))).round().astype(np.uint8)
    names = [f"{number}.png" for number in range(len(pixels))]
    with tempfile.TemporaryDirectory() as folder:
        for name, image in zip(names, pixels, strict=True):
            (Path(folder) / name).write_bytes(png.encode(image[..., None]))
        frame = pd.DataFrame({"file": names, "kind": digits.target[chosen] % 2})
        experiment = Experiment.parse({
            "data": {"target": "kind", "image": {"column": "file", "channels": 1}},
            "problem": {"kind": "gan", "latent": 16, "augment": None}, "model": {"kind": "dcgan", "width": 16},
            "split": {"kind": "ratio", "train": 1.0, "validation": 0, "test": 0}, "stopping": {"patience": None},
            "rounds": 10, "training": {"batch_size": 16, "local_epochs": 8}, "output": {"model": "last"},
        })  # fmt: skip
        sites = {
            name: TableSource(frame=part.reset_index(drop=True), base=Path(folder))
            for name, part in (("a", frame.iloc[:32]), ("b", frame.iloc[32:64]), ("c", frame.iloc[64:96]))
        }
        try:
            result = run(local_federation(experiment, sites, rules(preset, experiment)), experiment)
        except FederationError as error:
            return f"refused: {' '.join(str(error).split())}"
        write_artifacts(result, Path(folder) / "out")
        made = read_generator(Path(folder) / "out" / "model.safetensors")
        drawn = np.stack(list(made.images(made.labels(None, 512), 3)))[..., 0]
    flat = [torch.tensor(group.reshape(len(group), -1) / 255.0) for group in (drawn, pixels[:96], pixels[96:])]
    to_members, to_others = (torch.cdist(flat[0], group) for group in flat[1:])
    nearer = float((to_members.min(dim=1).values < to_others.min(dim=1).values).double().mean())
    by_distance = auc(-to_members.min(dim=0).values.numpy(), -to_others.min(dim=0).values.numpy())
    inputs = torch.tensor(pixels[:, None] / 255.0, dtype=torch.float32)
    with torch.inference_mode():
        judged = made.networks["discriminator"].eval()(2 * inputs - 1, torch.eye(2)[frame["kind"].to_numpy()])
    scores = judged.flatten().double().numpy()
    by_discriminator = auc(scores[:96], scores[96:])
    return (
        f"{nearer:.3f} of made images nearer to a training image; membership AUC {by_distance:.3f} by distance, "
        f"{by_discriminator:.3f} by the discriminator"
    )


MODEL_ATTACKS: dict[str, Callable[[str, int], str]] = {
    "gradient inversion, one step over 24 rows": inversion,
    f"membership, {_SHORT} epochs": membership(_SHORT),
    f"membership, {_BY_HEART} epochs": membership(_BY_HEART),
    "property of a column that the label does not depend on, from an update": properties,
    "the same with differential privacy of samples, epsilon 3": private_properties,
    "memorisation by a generator of 96 images, 80 epochs": memorisation,
}
