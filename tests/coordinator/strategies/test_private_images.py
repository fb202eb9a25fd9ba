"""Layers that stay at the sites, of networks for images: FedBN with scanners that differ, MOON on their features."""

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import handle

SCANNERS = {"one": (1.0, 0.0), "two": (0.15, 3.0), "three": (4.0, -6.0)}


def scans(lengths=(8, 8), rows=60):
    """Give the same kind of patients at each site, a 1 with a bright corner, by scanners of other gain and offset."""
    sites = {}
    for number, (name, (gain, offset)) in enumerate(SCANNERS.items()):
        generator = np.random.default_rng(number)
        labels = np.arange(rows) % 2
        values = generator.normal(size=(rows, *lengths))
        values[(slice(None), *(slice(0, 3) for _ in lengths))] += 2 * labels.reshape(-1, *[1] * len(lengths))
        frame = pd.DataFrame(gain * values.reshape(rows, -1) + offset).rename(columns=lambda place: f"pixel{place}")
        sites[name] = TableSource(frame=frame.assign(y=labels))
    return sites


def experiment_of(lengths=(8, 8), **changes):
    image = {"shape": [1, *lengths], "dimensions": len(lengths)}
    return Experiment.parse(
        {
            "data": {"target": "y", "image": image, "scaling": "none"},
            "problem": "image_classification" if len(lengths) == 2 else "volume_classification",
            "model": {"kind": "cnn", "widths": [4], "norm": "batch"},
            "training": {"local_epochs": 2, "batch_size": 12, "optimizer": {"kind": "adam", "lr": 0.02}},
            "strategy": {"private": "norm"},
            "rounds": 8,
            "stopping": {"monitor": "auroc", "patience": None},
        }
        | changes
    )


def finished(experiment, sites):
    result = run(local_federation(experiment, sites), experiment)
    assert result["status"] == "completed"
    return result


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(8, 8), (6, 6, 6)], ids=["images", "volumes"])
def test_own_batch_norm_beats_the_common_one_where_the_scanners_differ(lengths):
    """Li et al., FedBN, ICLR 2021."""
    own, common = (
        finished(experiment_of(lengths, strategy=strategy), scans(lengths))["metrics"]["test"]["pooled"]["auroc"]
        for strategy in ({"private": "norm"}, "fedavg")
    )
    assert own > common + 0.1


def test_running_statistics_stay_at_the_site_over_rounds_and_go_with_the_model_that_is_tested(monkeypatch):
    asked = []

    def listen(method, request, context, **options):
        reply = handle(method, request, context, **options)
        asked.append((method, request, reply, context))
        return reply

    monkeypatch.setattr(local, "handle", listen)
    result = finished(experiment_of(rounds=4), scans())
    names = {name for _, _, reply, _ in asked for fold in reply.get("folds", ()) if "parameters" in fold
             for name in wire.unpack(fold["parameters"])}  # fmt: skip
    assert names == {"model.0.0.weight", "model.0.0.bias", "model.3.0.weight", "model.3.0.bias"}
    (context,) = {id(one[3]): one[3] for one in asked if one[1]["site"] == "two"}.values()
    versions = next(value for key, value in context.memory.items() if str(key[1]).startswith("private-"))
    newest = versions[max(versions)]
    assert newest["model.0.1.running_mean"].abs().max() > 1, "the second scanner's offset is 3, the others' 0 and -6"
    # One for each batch of two epochs a round: nobody averaged or reset it.
    training = result["sites"]["two"]["n"]["train"]
    assert int(newest["model.0.1.num_batches_tracked"]) == 2 * max(versions) * -(-training // 12)
    tested = [
        fold["private"]["round"]
        for method, request, _, _ in asked
        if method == "evaluate"
        for fold in request["folds"]
        if "test" in fold["evaluate"]
    ]
    assert result["best_round"] in tested


def test_moon_compares_the_features_of_an_image_network():
    result = finished(experiment_of(strategy="moon", model={"kind": "cnn", "widths": [4]}, rounds=3), scans())
    assert len(result["history"]["train_loss"]) == 3
