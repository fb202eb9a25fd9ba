"""Weights & Biases, with the keys that decentralizedAI_dermatology's users know.

Project, account and mode are W&B's own environment variables (`WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_MODE=offline`);
the project is ``v6-algorithm`` where none is set. Metrics of every site and the experiment, without the places of
the sites' data, are written to W&B's servers unless it is offline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from v6_algorithm.errors import ExperimentError

# (part, metric) -> key: of a site under its name, of all together under "Server". Others are part_metric.
_SITE_KEYS = {
    ("train", "loss"): "training_loss",
    ("validation", "auroc"): "Validation AUC Score",
    ("validation", "accuracy"): "Validation Acc",
    ("validation", "loss"): "Validation Loss",
}
_SERVER_KEYS = {
    ("validation", "loss"): "loss",
    ("validation", "accuracy"): "accuracy",
    ("validation", "auroc"): "auc",
}
_POOLED = "pooled"


class WeightsAndBiases:
    """One W&B run."""

    def __init__(self, folder: Path, experiment: Mapping[str, Any]) -> None:
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "v6-algorithm",
                name=experiment.get("name"),
                config=_settings(experiment),
                dir=str(folder),
            )
        except wandb.Error as error:
            raise ExperimentError(f"--track wandb: {error}; offline: set WANDB_MODE=offline") from None
        # Validation comes a round after the training of the same model: W&B's own step only goes forward.
        self._run.define_metric("*", step_metric="round")

    def log(self, scope: str, part: str, metric: str, value: float, round: int) -> None:
        """Write one number."""
        keys, prefix = (_SERVER_KEYS, "Server") if scope == _POOLED else (_SITE_KEYS, scope)
        key = keys.get((part, metric), f"{part}_{metric}")
        self._run.log({f"{prefix}/{key}": value, "round": round})

    def flush(self) -> None:
        """Do nothing: W&B sends on its own."""

    def about(self, experiment: Mapping[str, Any]) -> None:
        """Write the settings, which a task that is watched tells only at its end."""
        self._run.config.update(_settings(experiment), allow_val_change=True)

    def close(self, best: Mapping[str, float]) -> None:
        """Write the best AUROC, and end the run."""
        if "auroc" in best:
            self._run.summary["best_auc_score"] = best["auroc"]
        self._run.finish()


def _settings(experiment: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in experiment.items() if key != "sites"}
