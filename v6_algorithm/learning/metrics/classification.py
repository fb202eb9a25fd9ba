"""Classification metrics: one site's predictions become a confusion matrix, score histograms, calibration
bins and two sums. Problems fill it; what can be done with the resulting states is in `classification_state`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from v6_algorithm.learning.metrics.calibration import CALIBRATION_BINS, CONFIDENCE_UNITS, calibration_bin
from v6_algorithm.learning.metrics.checks import LARGEST_ROW_VALUE
from v6_algorithm.learning.metrics.histogram import FINE_BINS, bin_index
from v6_algorithm.learning.metrics.sparse import Tally

# Half-precision probabilities of many classes still sum to 1 within this; logits do not.
SUM_TOLERANCE = 0.01
# Where screening tests are usually compared.
SPECIFICITIES = (0.9, 0.95)


@dataclass(frozen=True)
class CountedRows:
    """What each row adds to a state; all but `usable` of the rows that are usable.

    Attributes
    ----------
    usable
        (given rows,) bool: whose probabilities and loss are finite.
    classes, predicted, losses
        (rows,) class, predicted class and loss.
    keys, is_class, squares
        (rows, scored classes): the bin of the score, as `sparse` numbers it, whether the row is of the class, and the
        squared error of its probability.
    place, units, hit
        (rows,) bin of calibration, confidence in its units, and whether it hit.
    """

    usable: NDArray[np.bool_]
    classes: NDArray[np.int64]
    losses: NDArray[np.float64]
    predicted: NDArray[np.int64]
    keys: NDArray[np.int64]
    is_class: NDArray[np.bool_]
    place: NDArray[np.int64]
    units: NDArray[np.int64]
    hit: NDArray[np.bool_]
    squares: NDArray[np.float64]


class ClassificationMetrics:
    """Collect the classification metrics of one part at one site.

    Ranking metrics come from histograms whose bins are spaced in logit(p), because scores of a rare
    disease crowd near 0: equal steps in p would put them all into one bin. There are 2^20 bins, of
    which a state lists the filled ones, so that scores keep their order where they crowd and where
    they saturate, and the metrics are those of the pooled rows but for rows within 1e-4 of a logit;
    `auroc_resolution` and `auprc_resolution` bound what that costs. Of few rows such a histogram is
    the list of their scores: a node that holds them back joins bins (`coarse_histograms`).

    Parameters
    ----------
    n_classes : int
        At least 2. With two classes, precision, recall, f1 and the ranking metrics are of class 1.
    bins : int
        At least 2; all sites must use the same number.
    specificities : sequence of float
        At which the sensitivity is told, of two classes; each above 0 and below 1.

    Notes
    -----
    A state describes all rows it was updated with. With a handful of rows it nearly describes each,
    so a site must hold it back below its least number of rows: that is the privacy guard's task.
    """

    def __init__(self, n_classes: int, bins: int = FINE_BINS, specificities: Sequence[float] = SPECIFICITIES) -> None:
        if n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, got {n_classes}")
        if bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}")
        self.n_classes = n_classes
        self.bins = bins
        self.specificities = [float(specificity) for specificity in specificities] if n_classes == 2 else []
        self._scored = scored_classes(n_classes)
        self._n = 0
        self._non_finite = 0
        self._loss = 0.0
        self._brier = 0.0
        self._confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
        self._positives, self._negatives = Tally(len(self._scored), bins), Tally(len(self._scored), bins)
        self._calibration = np.zeros((3, CALIBRATION_BINS), dtype=np.int64)

    def update(self, probability: ArrayLike, target: ArrayLike, loss: ArrayLike) -> None:
        """Add a batch of rows.

        Rows whose probability or loss is not finite are counted and left out.

        Parameters
        ----------
        probability : array of float, shape (n, n_classes)
            Predicted probabilities; rows sum to 1.
        target : array of int, shape (n,)
            Class of each row, 0 to `n_classes - 1`.
        loss : array of float, shape (n,)
            Loss of each row, as trained.

        Raises
        ------
        ValueError
            If shapes differ, targets are no classes, or rows are not probabilities.
        """
        counted = self.counted(probability, target, loss)
        self._non_finite += int((~counted.usable).sum())
        np.add.at(self._confusion, (counted.classes, counted.predicted), 1)
        self._positives.add(counted.keys[counted.is_class])
        self._negatives.add(counted.keys[~counted.is_class])
        np.add.at(
            self._calibration.T,
            counted.place,
            np.stack([np.ones_like(counted.units), counted.units, counted.hit], axis=1),
        )
        self._brier += float(counted.squares.sum())
        self._loss += float(counted.losses.sum())
        self._n += len(counted.losses)

    def counted(self, probability: ArrayLike, target: ArrayLike, loss: ArrayLike) -> CountedRows:
        """Return what each row adds, before it is added up; raises as `update` does."""
        rows = np.asarray(probability, dtype=np.float64)
        classes = np.asarray(target)
        losses = np.asarray(loss, dtype=np.float64)
        self._refuse_wrong_input(rows, classes, losses)
        usable = np.isfinite(rows).all(axis=1) & (np.abs(losses) <= LARGEST_ROW_VALUE)
        if not usable.all():
            rows, classes, losses = rows[usable], classes[usable], losses[usable]
        classes = classes.astype(np.int64)
        if (np.abs(rows.sum(axis=1) - 1) > SUM_TOLERANCE).any() or (rows < -SUM_TOLERANCE).any():
            raise ValueError("rows of probability must sum to 1 with no entry below 0: apply softmax to logits first")

        # argmax would give class 0 on the tie at 0.5.
        predicted = (rows[:, 1] >= 0.5).astype(np.int64) if self.n_classes == 2 else rows.argmax(axis=1)
        keys = bin_index(rows[:, self._scored], self.bins) + np.arange(len(self._scored)) * self.bins
        is_class = classes[:, None] == np.array(self._scored)
        # Two classes: p1 against the outcome; more: the predicted class's probability against being right.
        confidence = np.clip(rows[:, 1] if self.n_classes == 2 else rows.max(axis=1), 0, 1)
        hit = classes == (1 if self.n_classes == 2 else predicted)
        units = np.rint(confidence * CONFIDENCE_UNITS).astype(np.int64)
        # Two classes: (p1 - y)^2 alone; the other class would only double it.
        squares = (rows[:, self._scored] - is_class) ** 2
        return CountedRows(
            usable, classes, losses, predicted, keys, is_class, calibration_bin(confidence), units, hit, squares
        )

    def state(self) -> dict[str, Any]:
        """Return what the rows add up to, as plain JSON.

        Returns
        -------
        dict
            `confusion` has a row per target class and a column per predicted class. `positives` and
            `negatives` have one histogram per scored class (class 1 of two, else every class): the `bins` that
            hold rows, and how many `rows` each of them holds.
            `calibration` has three rows over 15 bins of confidence: rows, summed confidence in
            1/1024, and hits; see `calibration`. `specificities` is as given, empty for more classes.
            `joined` is 1 once bins were joined; see `joined`.
        """
        return {
            "kind": "classification",
            "n_classes": self.n_classes,
            "bins": self.bins,
            "specificities": self.specificities,
            "n": self._n,
            "non_finite": self._non_finite,
            "joined": 0,
            "loss": self._loss,
            "brier": self._brier,
            "confusion": self._confusion.tolist(),
            "positives": self._positives.histograms(),
            "negatives": self._negatives.histograms(),
            "calibration": self._calibration.tolist(),
        }

    def _refuse_wrong_input(
        self, rows: NDArray[np.float64], classes: NDArray[Any], losses: NDArray[np.float64]
    ) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.n_classes:
            raise ValueError(f"probability must have shape (n, {self.n_classes}), got {rows.shape}")
        if classes.shape != rows.shape[:1] or losses.shape != rows.shape[:1]:
            raise ValueError(
                f"target and loss must have shape {rows.shape[:1]}, got {classes.shape} and {losses.shape}"
            )
        if classes.size and not np.issubdtype(classes.dtype, np.integer):
            raise ValueError(f"target must hold integers, got {classes.dtype}")
        if ((classes < 0) | (classes >= self.n_classes)).any():
            raise ValueError(f"target must hold classes from 0 to {self.n_classes - 1}")


def scored_classes(n_classes: int) -> list[int]:
    """Classes that have score histograms; of two, class 1 says it all."""
    return [1] if n_classes == 2 else list(range(n_classes))
