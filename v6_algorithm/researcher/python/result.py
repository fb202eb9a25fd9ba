"""What a run gives, as Python likes it: dataframes, predictions, plots, files; `v6_algorithm.api` returns it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.python.sites import source_of_rows

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.researcher.external import ReturnedModel


# Metrics in a result's text, as in the terminal's table.
_SHOWN = 5
# Of a folder of runs, in a message.
_MOST_RUNS = 10
_Read = TypeVar("_Read", bound=Callable[..., Any])


def _whole(read: _Read) -> _Read:
    """Name the file where a result that was read from one lacks a part, or has another in its place."""

    @wraps(read)
    def named(self: Result, *arguments: Any) -> Any:
        try:
            return read(self, *arguments)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if self._source is None:  # a fresh one is whole, or it is a bug
                raise
            raise ExperimentError(
                f"{self._source}: is no whole result.json of this version "
                f"({type(error).__name__} in its {read.__name__})"
            ) from None

    return cast("_Read", named)


class Result:
    """The result of a run.

    Parameters
    ----------
    content
        As in result.json; see DESIGN's contract.

    Attributes
    ----------
    content : dict
        The same.
    """

    def __init__(self, content: Mapping[str, Any], source: str | None = None) -> None:
        self.content = dict(content)
        self._source = source

    @property
    def name(self) -> str:
        """The experiment's name."""
        experiment = self.content.get("experiment")
        return str(experiment.get("name", "experiment")) if isinstance(experiment, Mapping) else "experiment"

    @property
    @_whole
    def metrics(self) -> pd.DataFrame:
        """Metrics, a line for each part and scope (``pooled``, ``mean_over_sites``, a site, a fold, a baseline's)."""
        import pandas as pd

        from v6_algorithm.researcher.report.reading import metric_rows

        rows = metric_rows(self.content)
        index = pd.MultiIndex.from_tuples(
            [(row.run, row.part, row.name or row.scope) for row in rows], names=["run", "part", "scope"]
        )
        frame = pd.DataFrame([dict(row.metrics) for row in rows], index=index)
        return frame.droplevel("run") if frame.index.get_level_values("run").nunique() == 1 else frame

    @property
    @_whole
    def history(self) -> pd.DataFrame:
        """A line for each round: losses and validation metrics; of several folds with the fold in the index."""
        import pandas as pd

        from v6_algorithm.researcher.report.reading import folds, history_columns, mapping

        blocks = {name: pd.DataFrame(history_columns(mapping(fold, "history"))) for name, fold in folds(self.content)}
        if blocks:
            return pd.concat(blocks, names=["fold"]).reset_index("fold").set_index(["fold", "round"])
        return pd.DataFrame(history_columns(mapping(self.content, "history"))).set_index("round")

    @property
    @_whole
    def sites(self) -> pd.DataFrame:
        """Rows of each site by part; of several folds those of the first."""
        import pandas as pd

        rows = {name: site.get("n", {}) for name, site in self.content.get("sites", {}).items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("site")

    @property
    @_whole
    def participation(self) -> pd.DataFrame:
        """A line for each round and site: whether it answered, and if not, why; under differential privacy epsilon."""
        import pandas as pd

        costs = ["epsilon"] if self.content.get("differential_privacy") else []
        lines = [
            {"round": call.get("round"), "site": site, "answered": reason is None, "reason": reason}
            | {name: call.get(name, {}).get(site) for name in costs}
            for call in self.content.get("participation", [])
            for site, reason in [*((name, None) for name in call["answered"]), *call["missing"].items()]
        ]
        return pd.DataFrame(lines, columns=["round", "site", "answered", "reason", *costs])

    @property
    @_whole
    def coefficients(self) -> pd.DataFrame:
        """Of a GLM a line for each term: estimate, standard_error, z, p, low, high, and ratios where they have a name.

        Raises
        ------
        ExperimentError
            When the model has no coefficients to report.
        """
        import pandas as pd

        if not self.content.get("coefficients"):
            raise ExperimentError("the result has no coefficients; they are of model glm and cox, without folds")
        return pd.DataFrame(self.content["coefficients"]).set_index("term")

    @_whole
    def likelihood_ratio(self, larger: Result) -> dict[str, float]:
        """Test this fit against a larger one of the same rows, whose terms hold all of this one's.

        Parameters
        ----------
        larger
            The result of the same model with more terms.

        Returns
        -------
        dict
            `chi2`, `freedom` and `p` of the likelihood-ratio test.

        Raises
        ------
        ExperimentError
            When the fits are not nested, of other rows, or have no likelihood.
        """
        from v6_algorithm.researcher.python.likelihood_ratio import likelihood_ratio

        return likelihood_ratio(self.content, larger.content)

    @property
    @_whole
    def meta_analysis(self) -> pd.DataFrame:
        """Sites as a sample: a line for each part and metric, and each term where sites were fitted alone.

        Columns: sites, estimate, low, high, prediction_low, prediction_high, tau2, i2, q, q_p, scale; random effects by
        REML, intervals after Hartung and Knapp. Empty where fewer than two sites have an interval.
        """
        import pandas as pd

        from v6_algorithm.researcher.report import meta_analysis as texts

        return pd.DataFrame(texts.rows(self.content), columns=list(texts.HEADER)).set_index(["part", "what"])

    @property
    @_whole
    def comparison(self) -> pd.DataFrame:
        """Two models on the same rows (`test=a, against=b`): a line for each metric.

        Columns: first, second, difference (first less second), standard_error, low, high, p, test (``delong``,
        ``paired`` or ``bootstrap``).

        Raises
        ------
        ExperimentError
            When the result is of no such test.
        """
        import pandas as pd

        compared = (self.content.get("comparison") or {}).get("test")
        if not compared:
            raise ExperimentError("the result compares no two models; run(..., test=a, against=b) does")
        columns = ["first", "second", "difference", "standard_error", "low", "high", "p"]
        tests = {"auroc": "delong", "brier": "paired", "log_loss": "paired"}
        lines = {
            name: {key: told.get(key) for key in columns} | {"test": tests.get(name, "bootstrap")}
            for name, told in compared.items()
            if name != "metrics" and told is not None
        }
        return pd.DataFrame.from_dict(lines, orient="index", columns=[*columns, "test"]).rename_axis("metric")

    @_whole
    def summary(self) -> str:
        """Return the table of coefficients and the fit, as text."""
        from v6_algorithm.researcher.report import coefficients as texts

        frame = self.coefficients.drop(columns="left_out", errors="ignore")
        return f"{frame.round(4).to_string(na_rep='–')}\n{texts.fit_text(self.content)}"

    @property
    @_whole
    def notes(self) -> list[str]:
        """What the run wants to be known: what was left out, guessed or is missing."""
        return list(self.content.get("notes", []))

    @property
    @_whole
    def model(self) -> ReturnedModel:
        """The trained model with its preparation; raises ExperimentError where there is none."""
        from v6_algorithm.researcher.external import ReturnedModel

        parameters = self.content.get("parameters")
        if not isinstance(parameters, str):
            raise ExperimentError("the result holds no model")
        return ReturnedModel.of(parameters, self.name)

    def predict(
        self,
        rows: Any,
        site: str | None = None,
        *,
        times: Sequence[float] = (),
        recalibrate: Result | None = None,
        at: str | None = None,
    ) -> pd.DataFrame:
        """Predict for new rows, with the training's own preparation; no outcome column is needed.

        Parameters
        ----------
        rows
            A DataFrame, a path, or an array as the sites were given.
        site
            Whose model, in mode local, and of a run that was loaded from its folder with private layers or personal
            models; the mean of the sites' predictions when absent, of personal models the shared one's. Of a
            stratified Cox model whose baseline hazard; that of all sites together when absent.
        times
            Of survival: when, in place of the model's own horizons; between those the hazard is taken to be constant.
        recalibrate, at
            A result of two classes whose intercept and slope move the risks, such as this one or that of `evaluate`;
            of all its rows, or of those of the site `at`.

        Returns
        -------
        pandas.DataFrame
            See `researcher.external.predict.predict`; what the model took for something else is a warning too.
        """
        from v6_algorithm.researcher.external.predict import predict

        model = self._model_with_layers(site)
        predicted = predict(model, source_of_rows(rows, model.experiment, "rows"), site, times)
        for note in predicted.attrs["notes"]:
            warnings.warn(note, stacklevel=2)
        if recalibrate is not None:
            from v6_algorithm.researcher.external.recalibrated import recalibrated, recalibration_of

            return recalibrated(predicted, recalibration_of(recalibrate.content, at))
        return predicted

    def _model_with_layers(self, site: str | None) -> ReturnedModel:
        """Return the model, of a run's folder with what it has of its sites."""
        from v6_algorithm.researcher.external.local_layers import layers_of_run, model_for

        folder = Path(self._source) if self._source is not None else None
        folder = folder.parent if folder is not None and folder.suffix == ".json" else folder
        return model_for(folder, [], site) if folder is not None and layers_of_run(folder) else self.model

    def export(self, folder: str | Path, formats: Sequence[str] = ("onnx", "torch")) -> Path:
        """Write the model for those without this package: ONNX, `torch.export` and model.json; return the folder.

        Parameters
        ----------
        folder
            Where to write.
        formats
            ``onnx`` (needs the extra `onnx`), ``torch``, or both.

        Raises
        ------
        ExperimentError
            When the model cannot be exported, or its export differs from it by more than 1e-5.
        """
        from v6_algorithm.researcher.export import export

        export(self.model, Path(folder), formats)
        return Path(folder)

    def evaluate(self, rows: Any) -> Result:
        """Measure the model on rows whose outcome is known; nothing of them leaves this process."""
        from v6_algorithm.researcher.external import CentralTable

        model = self.model
        measurement = CentralTable(source_of_rows(rows, model.experiment, "rows"), "rows").measure(model)
        content = {
            "schema": 1,
            "status": "evaluated",
            "experiment": self.content.get("experiment", {}),
            "metrics": {},
            "notes": [],
            "sites": {},
        }
        measurement.add_to(content)
        return Result(content)

    def plot(self, metrics: Sequence[str] | str | None = None) -> Any:
        """Draw the history with matplotlib; returns the figure.

        Parameters
        ----------
        metrics
            Columns of `history`, or one; the losses and the first metric when absent.

        Raises
        ------
        ExperimentError
            When matplotlib is missing, a column is not in the history, or nothing was trained.
        """
        from v6_algorithm.researcher.python.plot import plot

        return plot(self.history, metrics)

    @_whole
    def report(self) -> str:
        """Return the report page, HTML."""
        from v6_algorithm.researcher.report.page import render

        return render(self.content)

    def save(self, folder: str | Path) -> Path:
        """Write result.json, the tables, the model and the report into a folder; return it.

        Raises
        ------
        ExperimentError
            When the folder cannot be written.
        """
        from v6_algorithm.researcher.report import write_artifacts

        try:
            write_artifacts(self.content, Path(folder))
        except OSError as error:
            failed = getattr(error, "failed", [])
            names = f" (not written: {', '.join(path.name for path in failed)})" if failed else ""
            raise ExperimentError(f"{folder}: cannot be written: {error.strerror}{names}") from None
        return Path(folder)

    def _repr_html_(self) -> str:
        from html import escape

        return f'<iframe srcdoc="{escape(self.report())}" width="100%" height="720" style="border:0"></iframe>'

    @_whole
    def __repr__(self) -> str:
        status, rounds = self.content.get("status"), self.content.get("rounds_run")
        head = f"Result of '{self.name}': {status}" + (f" after {rounds} rounds" if rounds else "")
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([head, self._main_metrics() if self.content.get("metrics") else "", *notes])

    def _main_metrics(self) -> str:
        """Return the metrics that the terminal shows, as text; `metrics` has all of them."""
        from v6_algorithm.researcher.report.reading import columns, metric_rows

        frame = self.metrics
        shown = columns(metric_rows(self.content))[:_SHOWN]
        return frame[[*(["n"] if "n" in frame else []), *shown]].round(4).to_string(na_rep="–")


def load(path: str | Path) -> Result:
    """Read a run's folder, or its result.json.

    Raises
    ------
    ExperimentError
        When there is none.
    """
    file = Path(path)
    file = file / "result.json" if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError
        return Result(content, str(path))
    except OSError as error:
        raise ExperimentError(f"{path}: {_no_result(Path(path), error)}") from None
    except (ValueError, RecursionError):
        raise ExperimentError(f"{path}: is not a result.json") from None


def _no_result(path: Path, error: OSError) -> str:
    """Say why a result cannot be read: there is no such folder, or it holds none; with the runs that may be meant."""
    from v6_algorithm.experiment.reading import meant

    if not path.exists():
        return f"there is no file or folder of that name{meant(path)}"
    if not path.is_dir() or not isinstance(error, FileNotFoundError):
        return f"no result can be read: {error.strerror}"
    inside = sorted(file.parent.name for file in path.glob("*/result.json"))
    if inside:
        more = ", …" if len(inside) > _MOST_RUNS else ""
        return f"holds no result.json; runs in it: {', '.join(inside[:_MOST_RUNS])}{more}"
    return "holds no result.json, as the folder of a run that is done does"


def compare(results: Sequence[Result] | Mapping[str, Result], part: str = "test") -> pd.DataFrame:
    """Put the pooled metrics of several results beside each other, a line for each.

    Parameters
    ----------
    results
        In a mapping the names that the lines get; else the experiments' names.
    part
        ``test``, ``validation`` or ``central``.

    Raises
    ------
    ExperimentError
        When there is no such part, or something else than a result is given.
    """
    import pandas as pd

    from v6_algorithm.researcher.report.reading import RESULT_PARTS, finite, mapping

    if part not in RESULT_PARTS:
        raise ExperimentError(f"compare: part '{part}' is not known; allowed: {', '.join(RESULT_PARTS)}")
    given = list(results.values() if isinstance(results, Mapping) else results)
    if other := [type(one).__name__ for one in given if not isinstance(one, Result)]:
        raise ExperimentError(f"compare: a {other[0]} is not taken; allowed: results, as load('runs/heart') reads them")
    named = list(results.items()) if isinstance(results, Mapping) else [(result.name, result) for result in results]
    lines = [mapping(result.content, "metrics", part, "pooled") for _, result in named]
    numbers = [{key: value for key, value in line.items() if finite(value) is not None} for line in lines]
    return pd.DataFrame(numbers, index=pd.Index([name for name, _ in named], name="result"))
