"""Asks every site what its table holds and puts the answers together: `v6-algorithm describe`, and the network's
`describe`.

Calls for columns and labels, then for means, then for what needs the means, up to twice more where quantiles lie.
Unlike before training, a site whose columns do not fit is no error: that is what a researcher wants to see.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from v6_algorithm.coordinator.description.table_one import check_groups, grouped
from v6_algorithm.coordinator.inference.distributions import t_p
from v6_algorithm.coordinator.preparation.notes.assumed import tell_assumed
from v6_algorithm.coordinator.preparation.notes.images import tell_ends
from v6_algorithm.coordinator.preparation.questions import raise_data_errors
from v6_algorithm.data.description.hints import HINTS
from v6_algorithm.data.identifiers import looks_like_identifier
from v6_algorithm.data.imaging.picture import CAUSES
from v6_algorithm.data.preparation import Moments, merge_moments
from v6_algorithm.data.preparation.columns import sort_labels, tell_numbers, tell_patients, unknown_coded
from v6_algorithm.data.preparation.setup import pack_arrays, unpack_arrays
from v6_algorithm.data.quantiles import CALLS, CellColumn, Cells, next_windows, quantiles
from v6_algorithm.data.reading.assumed import check_assumed
from v6_algorithm.data.rows.numbers import LeftOut
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Federation, Replies
from v6_algorithm.experiment import Data, Experiment, SurvivalTarget
from v6_algorithm.learning.metrics.intervals.proportions import Z

SCHEMA = 1
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Cells are up to 6 kB a column and site; a researcher reads fewer than this.
MOST_COLUMNS = 1000
MOST_CORRELATED = 100
# Of an interval.
_FEWEST_CORRELATED = 4
Summary = dict[str, Any]


def describe(federation: Federation, experiment: Experiment) -> Summary:
    """Describe the tables of a federation.

    Parameters
    ----------
    federation
        The sites and the way to them.
    experiment
        Its `data` says which columns; nothing is trained.

    Returns
    -------
    dict
        `sites` (rows of each), `images` (by site: sizes, mean lowest and highest value, why some are unreadable),
        `columns` (each with its kind at every site, and `hints`, keys of `HINTS`, where a site gives any; numeric ones
        with `pooled` and `sites` statistics: n, missing, mean, sd with n - 1, quantiles), `labels` (of targets, events
        and categorical columns, pooled and by site; rows of labels that are too few to be told are in `hidden`),
        `correlations` (of each pair of columns over the rows with both values, with their number `n`, `low`, `high` and
        `p`), with `evaluation.by` `table_one` and `curves` (see `table_one.grouped`),
        `missing_sites` and `notes`. A statistic that no site may tell is None.

    Raises
    ------
    ExperimentError
        When no site's data fit the experiment: all of them are named.
    FederationError
        When no site answers.
    """
    deadline_s = experiment.participation.deadline_s
    body = experiment.model_copy(update={"mode": "federated"}).for_sites()

    def ask(sites: Sequence[str], step: dict[str, Any]) -> Replies:
        requests = {
            site: wire.message(site=site, round=0, attempt=1, experiment=body, sites=len(sites), **step)
            for site in sites
        }
        return federation.call("RPC_summary", requests, deadline_s=deadline_s)

    return _Description(ask, experiment, [site.name for site in federation.sites()]).run()


class _Description:
    """The calls of one description, and what they have told so far."""

    def __init__(
        self, ask: Callable[[Sequence[str], dict[str, Any]], Replies], experiment: Experiment, sites: Sequence[str]
    ) -> None:
        self._ask = ask
        self._data = experiment.data
        self._name = experiment.name
        self._by = experiment.evaluation.by
        self._sites = list(sites)
        self._missing: dict[str, str] = {}
        self._notes: list[str] = []
        self._correlations: dict[str, Any] | None = None

    def run(self) -> Summary:
        """Make the calls."""
        replies = self._gather({"step": "columns"}, _check_columns)
        self._notes += tell_assumed({site: reply["assumed"] for site, reply in replies.items()})
        columns = self._columns(replies)
        features = [name for name, column in columns.items() if column["described"]]
        if features:
            self._describe(features, columns)
        images = {site: replies[site]["image"] for site in self._sites if replies[site]["image"] is not None}
        self._notes += tell_ends(images)
        by_group = self._by_group(features)
        for column in columns.values():
            del column["described"]
        return {
            "schema": SCHEMA,
            "name": self._name,
            "sites": {site: {"rows": replies[site]["rows"]} for site in self._sites},
            "images": images,
            "columns": columns,
            "labels": _labels(self._data, {site: replies[site]["labels"] for site in self._sites}),
            "correlations": self._correlations,
            **by_group,
            "missing_sites": self._missing,
            "notes": self._notes,
        }

    def _by_group(self, features: list[str]) -> dict[str, Any]:
        """Ask for sums by group, where the experiment wants them."""
        if self._by is None:
            return {}
        columns = [name for name in features if name != self._by]
        answers = self._gather({"step": "groups", "features": columns}, partial(check_groups, features=columns))
        table, curves, notes = grouped(answers, columns, self._by, _causes(self._data))
        self._notes += notes
        return {"table_one": table, "curves": curves}

    def _gather(self, step: dict[str, Any], check: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Send a step to the sites that are still there, and keep those whose answers are right."""
        replies = self._ask(self._sites, step)
        answers = {}
        for site, reply in replies:
            try:
                answers[site] = check(reply)
            except (KeyError, TypeError, AttributeError, ValueError, WireError) as error:
                replies.reject(site, str(error) if isinstance(error, WireError) else "its summary is malformed")
        self._missing |= {site: str(reason) for site, reason in sorted(replies.missing.items())}
        # Where nobody's data fit, it is the experiment that is wrong.
        raise_data_errors(replies, "leave_out")
        replies.require(1, "description")
        self._sites = [site for site in self._sites if site in answers]
        return answers

    def _columns(self, replies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """List all columns, say which are numbers, and note what a run would stumble over."""
        names = dict.fromkeys(name for answer in replies.values() for name in answer["columns"])
        columns: dict[str, Any] = {}
        left_out = LeftOut()
        numeric = []
        for name in names:
            kinds = {site: replies[site]["columns"].get(name, "not there") for site in replies}
            columns[name] = {"kinds": kinds, "described": False}
            hinted = {str(answer["hints"][name]) for answer in replies.values() if name in answer["hints"]}
            if hinted:
                columns[name]["hints"] = sorted(hinted)
            differ = set(kinds.values()) - {"empty"}
            if len(differ) > 1:
                places = "; ".join(
                    f"{kind} at {', '.join(site for site in kinds if kinds[site] == kind)}" for kind in sorted(differ)
                )
                self._notes.append(f"column '{name}' is not the same everywhere: {places}")
            labelled = any(name in answer["labels"] for answer in replies.values())
            if "numeric" in differ and not labelled and self._wanted(name, hinted):
                numeric.append(name)
            elif not labelled and name not in self._set_aside and self._data.features is None:
                if "numeric" in differ or looks_like_identifier(name):
                    left_out.identifiers.append(name)
                else:
                    hints = {site: str(answer["hints"].get(name, "")) for site, answer in replies.items()}
                    there = {site: None if kind == "not there" else kind for site, kind in kinds.items()}
                    left_out.add(name, there, hints)
        self._notes += left_out.notes()
        self._notes += [f"data.missing_values: {absent}" for absent in unknown_coded(self._data, names)]
        if self._data.features is not None:
            numeric = [name for name in [*self._data.features, *self._data.target_columns.values()] if name in numeric]
        if len(numeric) > MOST_COLUMNS:
            self._notes.append(
                f"described are the first {MOST_COLUMNS} of {len(numeric)} numeric columns; data.features names others"
            )
        for name in numeric[:MOST_COLUMNS]:
            columns[name]["described"] = True
        told = {site: answer["hints"] for site, answer in replies.items()}
        self._notes += [*tell_patients(self._data, told), *tell_numbers(told, numeric)]
        return columns

    def _wanted(self, name: str, hinted: Collection[str]) -> bool:
        data = self._data
        if data.features is not None and name in data.features:
            return True
        return name not in self._set_aside and ("measured" in hinted or not looks_like_identifier(name))

    @property
    def _set_aside(self) -> set[str | None]:
        """Columns that are not described because the experiment uses them otherwise, or not at all."""
        data, whole = self._data, [section.column for section in (self._data.image, self._data.sequence) if section]
        return {*data.exclude, data.group, data.synthetic, *data.split_columns, data.measures, *whole}

    def _describe(self, features: list[str], columns: dict[str, Any]) -> None:
        """Ask for sums of these columns and put their statistics into `columns`."""

        def check_moments(reply: dict[str, Any]) -> Any:
            return Moments.check(unpack_arrays(reply["moments"]), 1, len(features)), set(map(str, reply["hidden"]))

        moments = self._gather({"step": "moments", "features": features}, check_moments)
        merged = merge_moments(site_moments for site_moments, _ in moments.values())
        mean = merged.mean[0]
        spread = np.sqrt(merged.squares[0] / np.maximum(merged.count[0], 1))
        correlated = len(features) <= MOST_CORRELATED
        if not correlated:
            self._notes.append(f"correlations are told for at most {MOST_CORRELATED} columns")
        asked = {"mean": mean, "sd": spread}
        products: dict[str, Any] = {}
        for call in range(CALLS):
            # Products come once; later calls are about the cells in which the quantiles lie.
            first = correlated and not call
            step = {"step": "shape", "features": features, "asked": pack_arrays(asked), "products": first}
            shapes = self._gather(step, partial(_check_shape, features=len(features), correlated=first))
            products = products if call else {site: sums for site, (_, sums) in shapes.items()}
            cells = {site: answer.columns() for site, (answer, _) in shapes.items()}
            windows, wanted = next_windows(list(cells.values()), QUANTILES)
            if not wanted:
                break
            asked |= {"windows": windows}
        # A site that fell silent in between is left out of all statistics, not of some.
        moments = {site: moments[site] for site in self._sites}
        merged = merge_moments(site_moments for site_moments, _ in moments.values())
        for number, name in enumerate(features):
            sites: dict[str, Any] = {}
            for site, (site_moments, hidden) in moments.items():
                if columns[name]["kinds"].get(site) == "numeric":
                    site_cells = [cells[site][number]]
                    sites[site] = {"hidden": True} if name in hidden else _numbers(site_moments, number, site_cells)
            # Missing values are of sites that have the column: elsewhere every row lacks it.
            rows = sum(
                float(site_moments.rows[0])
                for site, (site_moments, hidden) in moments.items()
                if _counts(sites.get(site))
            )
            pooled = _numbers(merged, number, [cells[site][number] for site in moments], rows)
            columns[name] |= {"pooled": pooled, "sites": sites}
        if correlated:
            self._correlate(features, {site: products[site] for site in self._sites})

    def _correlate(self, features: list[str], products: Mapping[str, Any]) -> None:
        silent = sorted(site for site, product in products.items() if product is None)
        if silent:
            self._notes.append(f"correlations are without {', '.join(silent)}: too few rows for so many columns")
        known = [product for product in products.values() if product is not None]
        if not known:
            return
        left_out = {site: int(product["left_out"][0]) for site, product in products.items() if product is not None}
        if told := [f"{site} {rows}" for site, rows in left_out.items() if rows]:
            self._notes.append(
                "correlations leave out rows whose empty cells are in the same columns as in few other rows: "
                f"{', '.join(told)} (or somewhat fewer)"
            )
        n, sums, first, squares = (
            np.sum([product[name] for product in known], axis=0) for name in ("pairs", "sums", "first", "squares")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            # Each column's sums are over the rows in which the other has a value too.
            spread = squares - first**2 / n
            size = np.sqrt(spread * spread.T)
            varies = (n > 2) & (spread > 1e-12 * squares) & (spread > 1e-12 * squares).T
            matrix = np.where(varies, np.clip((sums - first * first.T / n) / size, -1, 1), np.nan)
        self._correlations = {
            "columns": features,
            "matrix": [[None if np.isnan(value) else float(value) for value in row] for row in matrix],
            "n": [[int(value) for value in row] for row in n],
        }
        told_of = [
            [_tested(r, int(rows)) for r, rows in zip(*line, strict=True)] for line in zip(matrix, n, strict=True)
        ]
        for place, key in enumerate(("low", "high", "p")):
            self._correlations[key] = [[tested[place] for tested in line] for line in told_of]


def _tested(r: float, n: int) -> tuple[float | None, float | None, float | None]:
    """Return the ends of a correlation's 95 % interval (Fisher's z) and p of the t test; None where there is none."""
    if math.isnan(r) or n < _FEWEST_CORRELATED:
        return None, None, None
    if abs(r) >= 1:
        # As next to it: whether rounding leaves a line's r at 1 is chance.
        return float(r), float(r), 0.0
    width = Z / math.sqrt(n - 3)
    low, high = (math.tanh(math.atanh(r) + side * width) for side in (-1, 1))
    return low, high, t_p(float(r * math.sqrt((n - 2) / (1 - r * r))), n - 2)


def _causes(data: Data) -> list[str]:
    """Name the event and the causes that compete with it, by the values that say them; none where none competes."""
    if not isinstance(data.target, SurvivalTarget) or not data.target.competing:
        return []
    return [
        condition.removeprefix("==").strip().strip("'\"") for condition in (str(data.positive), *data.target.competing)
    ]


def _counts(site: Mapping[str, Any] | None) -> bool:
    return site is not None and "hidden" not in site


def _numbers(moments: Moments, number: int, cells: Sequence[CellColumn], rows: float | None = None) -> dict[str, Any]:
    """Turn sums into what is shown of one column; `cells` has those of each site."""
    count, squares = float(moments.count[0, number]), float(moments.squares[0, number])
    mean = float(moments.mean[0, number])
    rows = float(moments.rows[0]) if rows is None else rows
    shown: dict[str, Any] = {"n": int(count), "missing": int(rows - count)}
    if not count:
        return shown | {"mean": None, "sd": None, "quantiles": None}
    bounded: dict[str, dict[str, float | None]]
    if squares == 0:
        bounded = {str(q): {"value": mean, "low": mean, "high": mean} for q in QUANTILES}
    else:
        bounded = {str(q): asdict(quantile) for q, quantile in zip(QUANTILES, quantiles(cells, QUANTILES), strict=True)}
    sd = float(np.sqrt(squares / (count - 1))) if count > 1 else None
    return shown | {"mean": mean, "sd": sd, "quantiles": bounded}


def _labels(data: Data, by_site: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Add up label counts by column."""
    targets = set(data.target_columns.values())
    described: dict[str, Any] = {}
    for name in dict.fromkeys(name for labels in by_site.values() for name in labels):
        sites = {site: labels[name] for site, labels in by_site.items() if name in labels}
        every = sort_labels({label for site_labels in sites.values() for label in site_labels["counts"]})
        described[name] = {
            "role": "target" if name in targets else "categorical",
            "labels": every,
            "pooled": _row(every, sites.values()),
            "sites": {site: _row(every, [site_labels]) for site, site_labels in sites.items()},
        }
    return described


def _row(labels: Sequence[Any], parts: Any) -> dict[str, Any]:
    """Return counts in the labels' order; None where no part tells a label though some of its rows are hidden."""
    parts = list(parts)
    hidden = sum(part["hidden"] for part in parts)
    counts = []
    for label in labels:
        shown = [part["counts"][label] for part in parts if label in part["counts"]]
        counts.append(sum(shown) if shown or not hidden else None)
    return {"counts": counts, "hidden": hidden, "missing": sum(part["missing"] for part in parts)}


def _check_columns(reply: Mapping[str, Any]) -> dict[str, Any]:
    labels = {}
    for name, column in reply["labels"].items():
        counts = dict(column["counts"])
        numbers = [column["hidden"], column["missing"], *counts.values()]
        if not all(isinstance(label, (int, float, str)) for label in counts):
            raise WireError("labels must be numbers or text")
        if not all(type(rows) is int and rows >= 0 for rows in numbers) or sum(numbers) != reply["rows"]:
            raise WireError("the rows of its labels do not add up to its rows")
        labels[str(name)] = {"counts": counts, "hidden": column["hidden"], "missing": column["missing"]}
    if type(reply["rows"]) is not int or reply["rows"] < 1:
        raise WireError("row counts must be whole numbers")
    columns = {str(name): str(kind) for name, kind in reply["columns"].items()}
    hints = {str(name): str(reason) for name, reason in reply["hints"].items()}
    if not (set(hints) <= set(columns) and set(hints.values()) <= set(HINTS)):
        raise WireError("what it says of columns must be of the known hints")
    return {
        "rows": reply["rows"],
        "columns": columns,
        "hints": hints,
        "labels": labels,
        "image": _check_image(reply),
        "assumed": check_assumed(reply.get("assumed", [])),
    }


def _check_image(reply: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read what a site tells of its image files; None of tables without."""
    image = reply.get("image")
    if image is None:
        return None
    sizes, causes = dict(image["sizes"]), dict(image["causes"])
    counts = [*sizes.values(), *causes.values(), image["hidden"]]
    if not all(type(rows) is int and rows >= 0 for rows in counts) or sum(counts) != reply["rows"]:
        raise WireError("the counts of its images do not add up to its rows")
    if not all(re.fullmatch(r"\d{1,9}(x\d{1,9}){2,3}", size) for size in sizes) or not set(causes) <= set(CAUSES):
        raise WireError("sizes of images must be whole numbers, and causes known ones")
    ends = [None if image[end] is None else float(image[end]) for end in ("low", "high")]
    if not all(end is None or math.isfinite(end) for end in ends):
        raise WireError("values of images must be finite")
    return {"sizes": sizes, "hidden": image["hidden"], "causes": causes, "low": ends[0], "high": ends[1]}


def _check_shape(reply: Mapping[str, Any], features: int, correlated: bool) -> tuple[Cells, Any]:
    cells = Cells.check(unpack_arrays(reply["cells"]), features)
    if reply["products"] is None:
        return cells, None
    products = unpack_arrays(reply["products"])
    shapes = {name: array.shape for name, array in products.items()}
    wanted = dict.fromkeys(("pairs", "sums", "first", "squares"), (features, features)) | {"left_out": (1,)}
    if not correlated or shapes != wanted:
        raise WireError("its products of columns are of other columns")
    if not all(np.isfinite(array).all() for array in products.values()):
        raise WireError("its products of columns are not finite")
    if (products["pairs"] < 0).any() or (products["squares"] < 0).any() or products["left_out"][0] < 0:
        raise WireError("its products of columns must count rows, and squares must be at least 0")
    return cells, products
