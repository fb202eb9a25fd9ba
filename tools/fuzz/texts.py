"""Cases that cost little: texts that pass between coordinator and sites, and experiment files."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from tools.fuzz.spoiling import WEIRD, Right, spoil_text


def wire_cases() -> Any:
    """Texts of tensors, replies, sums and metric states."""
    import numpy as np
    import torch

    from v6_algorithm.coordinator.masked_answer import MaskedAnswer
    from v6_algorithm.data.preparation.setup import Setup, pack_arrays, unpack_arrays
    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.exchange import wire
    from v6_algorithm.exchange.compression import create_compressor
    from v6_algorithm.exchange.secure_aggregation import protocol
    from v6_algorithm.exchange.secure_aggregation.keys import Participant, check_participants
    from v6_algorithm.experiment.strategy.compression import Compression
    from v6_algorithm.learning.metrics import ClassificationMetrics, SurvivalMetrics, compute, explain, merge_states

    generator = np.random.default_rng(0)
    packed = wire.pack({"model.weight": torch.randn(2, 3), "model.count": torch.arange(3)})
    spec = {
        "model.weight": wire.TensorSpec((2, 3), "float32", "parameter"),
        "model.count": wire.TensorSpec((3,), "int64", "buffer"),
    }
    request = wire.message(site="a", round=1, attempt=1)
    classes, survival = ClassificationMetrics(2), SurvivalMetrics([1.0, 2.0], [1.0, 2.0])
    probability = generator.random(30)
    classes.update(np.stack([1 - probability, probability], 1), generator.integers(0, 2, 30), generator.random(30))
    survival.update(generator.random((30, 3)), np.stack([generator.random(30) * 3, generator.integers(0, 2, 30)], 1),
                    generator.random(30))  # fmt: skip
    states = [json.loads(json.dumps(metrics.state())) for metrics in (classes, survival)]
    reply = wire.message(site="a", round=1, attempt=1, status="ok", folds=[{"fold": 0, "parameters": str(packed)}])
    setup = json.loads(json.dumps(Setup(["a", "b"], {"c": ["x", "y"]}, [0, 1]).to_json()))
    arrays = str(pack_arrays({"mean": np.zeros((1, 3))}))

    right_states = [Right(state) for state in states]
    right_reply, right_setup = Right(reply), Right(setup)
    right_spec = Right({name: item.to_json() for name, item in spec.items()})
    compressors = [
        create_compressor(Compression.model_validate({"stages": stages}), spec)
        for stages in (["int8"], [{"kind": "topk", "fraction": 0.5}], [{"kind": "powersgd", "rank": 1}], ["float16"])
    ]
    update = {"model.weight": torch.randn(2, 3)}
    payloads = [
        str(wire.pack(compressor.encode(update, {}, lambda purpose: torch.Generator().manual_seed(0))[0]))
        for compressor in compressors
    ]
    masked, call, keys = _masked_call()

    def case(draw: random.Random) -> None:
        what = draw.randrange(10)
        try:
            if what == 0:
                wire.unpack(spoil_text(str(packed), draw), draw.choice([None, spec]))
            elif what == 1:
                text = (
                    spoil_text(json.dumps(reply), draw) if draw.randrange(2) else json.dumps(right_reply.spoiled(draw))
                )
                wire.read_reply(text, request)
            elif what == 2:
                number = draw.randrange(len(states))
                try:
                    merged = merge_states([states[number], right_states[number].spoiled(draw)])
                except ValueError:  # what `reply_checks` takes for a wrong reply
                    return
                compute(merged)
                explain(merged)
            elif what == 3:
                wire.spec_from_json(right_spec.spoiled(draw))
            elif what == 4:
                unpack_arrays(spoil_text(arrays, draw))
            elif what == 5:
                Setup.from_json(right_setup.spoiled(draw))
            elif what == 6:
                # What another scheme, or another model, would send is as wrong as what nobody sends.
                text = draw.choice(payloads)
                text = spoil_text(text, draw) if draw.randrange(2) else text
                draw.choice(compressors).decode(wire.unpack(text))
            elif what == 7:
                MaskedAnswer.read(masked.spoiled(draw), call)
            elif what == 8:
                listed = [participant.to_json() for participant in call.participants]
                people = [Participant.from_json(entry) for entry in Right(listed).spoiled(draw)]
                check_participants(people, call.run, call.participants[0], draw.choice([None, b"secret"]))
                letters = Right(masked.copy()["masked"]["letters"]).spoiled(draw)
                protocol.open_letters(call, keys, list(call.points), letters)
            else:
                wire.unpack(draw.choice(WEIRD))
        except V6AlgorithmError:
            pass
        except (KeyError, TypeError, AttributeError, ValueError):
            if what not in (7, 8):  # `sum` and `open_sum` take these for a malformed reply
                raise

    return case


def _masked_call() -> tuple[Right, Any, Any]:
    """Return what one of three sites sends under secure aggregation, the call, and another site's keys."""
    import numpy as np

    from v6_algorithm.exchange.secure_aggregation import fixed_point, layout, protocol
    from v6_algorithm.exchange.secure_aggregation.keys import SiteKeys
    from v6_algorithm.exchange.secure_aggregation.ring import Vector

    run = "0" * 32
    keys = [SiteKeys.derive(bytes(32), run, site) for site in "abc"]
    call = protocol.Call(run, 1, tuple(key.public(run) for key in keys), 2, "0" * 64)
    bits, words = fixed_point.words_for(None, 3)
    encoded, clipped = fixed_point.encode_updates(np.linspace(-1, 1, 5), 8.0, bits, words)
    skeleton, numbers = layout.take_apart({"sites": 1, "clipped": clipped, "body": {"folds": [{"rows": 3}]}})
    sent = protocol.mask_vector(Vector(encoded, fixed_point.encode_sums(numbers, 3)), call, keys[0])
    vector = {"context": call.context, "updates": 5, "words": words, "numbers": str(sent.vector.to_text())}
    reply = {"skeleton": skeleton, "masked": {**vector, "letters": sent.letters, "seals": sent.seals}, "device": "cpu"}
    return Right(reply), call, keys[1]


YAML = """
name: heart
seed: 0
sites: {source: "builtin:breast_cancer", partition: {kind: dirichlet, sites: 3, alpha: 0.5}}
data: {target: num, positive: "> 0", exclude: [a], categorical: [b, c], group: patient, scaling: standard,
       missing: mean, where: {age: ">= 18"}, missing_values: {chol: [0]}, image: {column: file, size: [1, 8, 8]}}
problem: {kind: classification}
model: {kind: mlp, hidden: [64, 32], norm: layer, dropout: 0.1}
split: {kind: kfold, folds: 5, repeats: 2, stratify: true}
rounds: 20
training: {local_epochs: 1, batch_size: 32, optimizer: {kind: adam, lr: 1e-3}, scheduler: {kind: step, step_size: 5},
           freeze: {layers: ["0.*"], rounds: 2}, augmentation: [{kind: mixup}]}
strategy: {kind: fedavg, weighting: samples, compress: {stages: [int8]}}
stopping: {monitor: loss, patience: 5}
participation: {fraction: 1.0, minimum: 2, deadline_s: 3600, maximum_share: 0.5}
privacy: {secure_aggregation: {threshold: 2}}
evaluation: {subgroups: [sex], threshold: 0.5}
tune: {kind: random, trials: 3, space: {training.optimizer.lr: [0.1, 0.01]}}
output: {model: best}
"""


def yaml_cases() -> Any:
    """Experiment files, as text and as content, and what `--set` changes in them."""
    import yaml

    from v6_algorithm.errors import V6AlgorithmError
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.experiment.reading import read_file

    content = yaml.safe_load(YAML)
    # A file of few sections is read faster, and what is wrong in one is not hidden by what is wrong in another.
    sections = {name: yaml.safe_dump({name: section}, default_flow_style=None) for name, section in content.items()}
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "experiment.yaml"
    pairs = (("classification", "logistic"), ("regression", {"kind": "glm"}), ("survival", "cox"), ("gan", None))
    files = [{"data": {"target": "y"}, "problem": kind, "model": model} for kind, model in pairs]
    rights = {name: Right({name: content[name], "data": {"target": "y"}}) for name in content} | {
        f"{number}": Right(given) for number, given in enumerate(files)
    }
    rights["all"], rights["data"] = Right(content), Right({"data": content["data"]})

    def case(draw: random.Random, keep: Any = folder) -> None:
        try:
            if draw.randrange(3) == 0:
                names = draw.sample(sorted(sections), draw.choice((1, 2, 2, 3)))
                text = spoil_text("".join(sections[name] for name in names), draw)
                file.write_text(text, encoding="utf-8", errors="surrogatepass")
                overrides = [spoil_text("training.optimizer.lr=0.1", draw)] if draw.randrange(3) == 0 else []
                given = read_file(file, overrides)
            else:
                given = rights[draw.choice(sorted(rights))].spoiled(draw)
            Experiment.parse(given)
        except V6AlgorithmError:
            pass

    return case
