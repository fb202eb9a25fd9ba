"""The results of a run in the layout of coinstac-dinunet, for those whose scripts read that.

Written when the experiment says `output: {dinunet: true}`, into a folder and a zip of it:

    dinunet/NAME/fold_0/test_metrics.csv         one line of metrics, of all sites' test rows together
    dinunet/NAME/fold_0/logs.json                train_log, validation_log, test_metrics, data_size, best_val_epoch, …
    dinunet/NAME/fold_0/train_log_0.svg          the training loss over the rounds; also as .png, with matplotlib
    dinunet/NAME/fold_0/validation_log_0.svg     the validation loss; validation_log_1.svg: its metrics
    dinunet/NAME/fold_0/best.NAME-0.safetensors  where dinunet has a pickle, best.NAME-0.pt
    dinunet/NAME/global_test_metrics.csv         one line of metrics, pooled over the folds
    dinunet/NAME_STRATEGY_DATE_TIME.zip

A csv's header names the columns of its line, each, in their order. dinunet's lists of who is in which part stay at the
sites. An epoch is a round here.
"""

from __future__ import annotations

import base64
import io
import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from v6_algorithm.learning.metrics import is_score
from v6_algorithm.researcher.report.charts.curves import history_lines, line_chart
from v6_algorithm.researcher.report.charts.marks import Line, standalone
from v6_algorithm.researcher.report.reading import finite, history_columns, mapping, run_name, sequence, title
from v6_algorithm.researcher.report.reading import folds as folds_of
from v6_algorithm.researcher.report.templating import chart_css

# dinunet's own five first, which is all that its readers know.
_FIRST = ("loss", "accuracy", "f1", "precision", "recall")


def wanted(result: dict[str, Any]) -> bool:
    """Say whether the experiment asks for this layout."""
    return mapping(result, "experiment", "output").get("dinunet") is True


def notes(result: dict[str, Any]) -> list[str]:
    """Return what is to be said of this layout, if it is asked for: that there are no PNGs."""
    if not wanted(result) or find_spec("matplotlib"):
        return []
    return ["output.dinunet: its plots are written as SVG only; for PNG too: pip install 'v6-algorithm[plots]'"]


def dinunet_files(result: dict[str, Any]) -> dict[str, bytes]:
    """Return the files by their path under the run's folder, the zip of them last.

    Parameters
    ----------
    result : dict
        The result of `master`, as in result.json; may be partial.
    """
    task = _name(title(result))
    folds = [fold for _, fold in folds_of(result)] or [result]
    # One header for all: a fold whose AUROC is not defined leaves its cell empty.
    header = _header([mapping(result, "metrics", "test", "pooled"), *(_tested(fold) for fold in folds)])
    models = _models(result)
    files: dict[str, bytes] = {}
    for number, fold in enumerate(folds):
        place = f"{task}/fold_{number}"
        files[f"{place}/test_metrics.csv"] = _csv(header, _tested(fold))
        logs = json.dumps(_logs(result, fold, number, len(folds), header), indent=1, allow_nan=False)
        files[f"{place}/logs.json"] = logs.encode("utf-8", "backslashreplace")
        files |= {f"{place}/{name}": content for name, content in _plots(result, fold, header)}
        if model := models.get(int(fold.get("fold", 0))):
            files[f"{place}/best.{task}-{number}.safetensors"] = model
    files[f"{task}/global_test_metrics.csv"] = _csv(header, mapping(result, "metrics", "test", "pooled"))
    strategy = _name(str(mapping(result, "experiment", "strategy").get("kind") or "fedavg"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    files[f"{task}_{strategy}_{time.strftime('%Y-%m-%d_%H-%M-%S')}.zip"] = packed.getvalue()
    return {f"dinunet/{path}": content for path, content in files.items()}


def _name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in text)


def _tested(fold: dict[str, Any]) -> dict[str, Any]:
    return mapping(fold, "metrics", "test", "pooled")


def _monitored(result: dict[str, Any]) -> str:
    return str(mapping(result, "experiment", "stopping").get("monitor") or "loss")


def _header(rows: list[dict[str, Any]]) -> list[str]:
    names = list(
        dict.fromkeys(
            name for row in rows for name, value in row.items() if finite(value) is not None and is_score(name)
        )
    )
    return [name for name in _FIRST if name in names] + [name for name in names if name not in _FIRST]


def _csv(header: list[str], metrics: dict[str, Any]) -> bytes:
    values = [finite(metrics.get(name)) for name in header]
    line = ",".join("" if value is None else repr(value) for value in values)
    # Without any metric there is no line either: a line of nothing would read as one of zeros.
    return f"{','.join(header)}\n{line}\n".encode() if header and metrics else b""


def _logs(result: dict[str, Any], fold: dict[str, Any], number: int, folds: int, header: list[str]) -> dict[str, Any]:
    """Return dinunet's log of one fold; `log_header` names the columns of validation_log and test_metrics."""
    experiment, history = mapping(result, "experiment"), history_columns(mapping(fold, "history"))
    columns = [history.get(f"validation_{name}", []) for name in header]
    monitor = _monitored(result)
    scores = history.get(f"validation_{monitor}", [])
    best = finite(fold.get("best_round"))
    rounds = history["round"]
    at = rounds.index(best) if best in rounds else len(scores)
    tested = _tested(fold)
    return {
        "task_id": title(result),
        "mode": run_name(result),
        "agg_engine": mapping(experiment, "strategy").get("kind"),
        "num_folds": folds,
        "split_ix": number,
        "seed": experiment.get("seed"),
        "monitor_metric": monitor,
        "log_header": header,
        "epochs": rounds,
        "train_log": [[value] for value in history.get("train_loss", [])],
        "validation_log": [
            [column[row] if row < len(column) else None for column in columns] for row in range(len(rounds))
        ],
        "test_metrics": [[finite(tested.get(name)) for name in header]] if tested else [],
        "best_val_epoch": None if best is None else int(best),
        "best_val_score": scores[at] if at < len(scores) else None,
        "data_size": {site: mapping(about, "n") for site, about in mapping(fold, "sites").items()},
        "time_spent_on_computation": [
            entry.get("seconds") for entry in sequence(result, "timing", "rounds") if isinstance(entry, dict)
        ],
        "cumulative_total_duration": mapping(result, "timing").get("total_s"),
        "args": experiment,
    }


def _plots(result: dict[str, Any], fold: dict[str, Any], header: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Draw dinunet's images of one fold: the losses, and together what is monitored and the header's first metrics."""
    history, best = history_columns(mapping(fold, "history")), finite(fold.get("best_round"))
    monitor = _monitored(result)
    metrics = [f"validation_{name}" for name in dict.fromkeys([monitor, *header]) if name != "loss"]
    for stem, title_, names in (
        ("train_log_0", "Training loss", ["train_loss"]),
        ("validation_log_0", "Validation loss", ["validation_loss"]),
        ("validation_log_1", "Validation metrics", metrics),
    ):
        lines = history_lines(history, names)
        described = f"{title_} over {len(history['round'])} rounds."
        chart = line_chart(lines, ident=stem, title=title_, description=described, best=best)
        if chart:
            yield f"{stem}.svg", standalone(chart, chart_css())
            if find_spec("matplotlib"):
                yield f"{stem}.png", _png(lines, title_, best)


def _png(lines: Sequence[Line], title_: str, best: float | None) -> bytes:
    """Draw lines over rounds with matplotlib; without pyplot, which keeps figures and looks for a screen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for line, style in zip(lines, ("-", "--", ":", "-."), strict=False):
        _, values = zip(*line.points(), strict=True)
        axes.plot(
            list(line.xs), [float("nan") if value is None else value for value in values], style, label=line.label
        )
    if best is not None:
        axes.axvline(best, color="grey", linewidth=1, linestyle=":", label=f"best: round {best:g}")
    axes.set_xlabel("Round")
    axes.set_ylabel(title_)
    for text in axes.legend().get_texts():
        # A target's name may hold a dollar sign.
        text.set_parse_math(False)
    packed = io.BytesIO()
    figure.savefig(packed, format="png", dpi=120)
    return packed.getvalue()


def _models(result: dict[str, Any]) -> dict[int, bytes]:
    """Cut the model file into one for each fold; empty where there is none, or each site has models of its own."""
    parameters = result.get("parameters")
    if not isinstance(parameters, str) or run_name(result) == "local":
        return {}
    import safetensors
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(base64.b64decode(parameters, validate=True))
    except (ValueError, safetensors.SafetensorError):
        return {}  # the run's own model file is complained about when it is written
    models: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        fold, _, tensor_name = name.rpartition("/")
        models.setdefault(int(fold.removeprefix("fold-") or 0), {})[tensor_name] = tensor
    return {number: safetensors.torch.save(tensor_name) for number, tensor_name in models.items()}
