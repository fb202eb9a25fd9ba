"""Predictions of two classes with a hospital's recalibration: intercept and slope that a result has of it.

Every result of two classes with measured rows has them (`risk`): of a run with test rows, `run --test`, `evaluate`.
`predict --recalibrate RESULT[::SITE]`, `evaluate --recalibrate` and `Result.predict` use them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.errors import ExperimentError

if TYPE_CHECKING:
    import pandas as pd

# Of rows that did not choose the model, the most telling first.
_PARTS = ("central", "test", "validation")
_LEAST = 1e-12


def recalibration_of(result: Mapping[str, Any] | str | Path, site: str | None = None) -> dict[str, float]:
    """Return `intercept` and `slope` of a result's pooled rows, or of one site's.

    Parameters
    ----------
    result
        Its content, folder or result.json.
    site
        Whose; None: all sites' rows together.

    Raises
    ------
    ExperimentError
        Where the result has none, or not of that site.
    """
    name = str(result) if isinstance(result, (str, Path)) else "the result"
    content = _read(Path(result)) if isinstance(result, (str, Path)) else result
    risk = content.get("risk") if isinstance(content, Mapping) else None
    parts = risk if isinstance(risk, Mapping) else {}
    for part in _PARTS:
        targets = parts.get(part)
        if not isinstance(targets, Mapping) or not targets:
            continue
        if len(targets) > 1:
            raise ExperimentError(f"{name}: recalibration is of one target of two classes; it has {len(targets)}")
        known = next(iter(targets.values()))
        scopes = {"": known["pooled"], **known["sites"]}
        fit = scopes.get(site or "")
        if fit is None:
            raise ExperimentError(f"{name}: has no site '{site}'; it has: {', '.join(filter(None, scopes))}")
        if fit.get("intercept") is None:
            whose = f"site '{site}'" if site else "its rows"
            raise ExperimentError(
                f"{name}: {whose} allow no recalibration: a class is missing, or the classes are apart"
            )
        return {"intercept": float(fit["intercept"]), "slope": float(fit["slope"])}
    raise ExperimentError(
        f"{name}: has no intercept and slope; those of two classes with measured rows have: a run with test rows, "
        "run --test, evaluate --out"
    )


def recalibrated(predictions: pd.DataFrame, fit: Mapping[str, float]) -> pd.DataFrame:
    """Return predictions of two classes (see `predict`) with ``intercept + slope * logit p`` as their logits."""
    columns = [name for name in predictions.columns if str(name).startswith("p(")]
    if len(columns) != 2 or list(predictions.columns) != [*columns, "prediction"]:
        raise ExperimentError("a recalibration is of a model of two classes, and this is none")
    risk = np.clip(predictions[columns[1]].to_numpy(dtype=np.float64), _LEAST, 1 - _LEAST)
    moved = 1 / (1 + np.exp(-(fit["intercept"] + fit["slope"] * np.log(risk / (1 - risk)))))
    labels = predictions["prediction"].dropna().tolist()
    names = {str(label): label for label in labels}
    either = [names.get(str(column)[2:-1], str(column)[2:-1]) for column in columns]
    changed = predictions.assign(**{columns[0]: 1 - moved, columns[1]: moved})
    known = np.isfinite(moved)
    chosen = np.array(either, dtype=object)[(np.nan_to_num(moved) >= 0.5).astype(int)]
    changed["prediction"] = predictions["prediction"].astype(object).where(~known, chosen)
    changed.attrs = dict(predictions.attrs)
    return changed


def _read(path: Path) -> Any:
    file = path / "result.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ExperimentError(f"{path}: is no result.json") from None
    if not isinstance(content, dict):
        raise ExperimentError(f"{path}: is no result.json")
    return content
