"""Expected calibration error from sums over bins of confidence, which add up over sites. Used by the
classification metrics."""

from collections.abc import Sequence
from math import fsum

import numpy as np
from numpy.typing import NDArray

# Guo et al. (2017) report 15 bins, and so does about everyone since.
CALIBRATION_BINS = 15
# Confidences are summed in 1/1024: sums are exact in any order, the error moves by at most 1/2048, and a
# bin that holds a single row does not carry that row's probability in full.
CONFIDENCE_UNITS = 1024


def calibration_bin(confidence: NDArray[np.float64]) -> NDArray[np.intp]:
    """Bin of each confidence: bin m of 15 is ((m - 1) / 15, m / 15], and 0 is in the first.

    Parameters
    ----------
    confidence : ndarray of float64, any shape
        Values in [0, 1].

    Returns
    -------
    ndarray of int, same shape
        0 to 14.
    """
    return np.searchsorted(np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS, confidence, side="left")


def expected_calibration_error(rows: Sequence[int], confidence: Sequence[int], hits: Sequence[int]) -> float:
    """Mean over rows of the distance, in their bin, between the share of hits and the mean confidence.

    With two classes the confidence is the probability of class 1 and a hit is a row of class 1: how far
    predicted risks are from observed frequencies, as Naeini, Cooper and Hauskrecht defined it [1]_. With
    more it is the probability of the predicted class and whether that is right (top-label, [2]_); the
    two differ for two classes, where top-label confidence never is below one half. Bins of equal width.
    A small error is no sign of a good model: predicting the prevalence for everyone has none.

    Parameters
    ----------
    rows, confidence, hits : sequence of int, shape (15,)
        Per bin: rows, their summed confidence in 1/1024, and their hits; at least one row in all.

    Returns
    -------
    float
        In [0, 1]; within 1/2048 of the value from unrounded confidences.

    References
    ----------
    .. [1] Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian
       binning, AAAI 29.
    .. [2] Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks, ICML 34.
    """
    gaps = [abs(hit - units / CONFIDENCE_UNITS) for units, hit in zip(confidence, hits, strict=True)]
    return fsum(gaps) / sum(rows)
