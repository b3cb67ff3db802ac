"""Realised quality of a regression: errors of its numbers against the truth.

The mean absolute error has a betting interval when a range of errors is given, and errors count no
more than the range then. The other intervals are asymptotic; the relative error has none, for its
spread hangs on the smallest truths.

Sources: Koenker and Bassett (1978) for the pinball loss; the delta method for RMSE.
"""

import math
from typing import Final

import numpy as np

from detectors.performance.intervals import Estimate
from detectors.performance.weighted_rows import Floats, WeightedRows

MAPE_TRUTH_MIN: Final = 1e-9


def regression(
    rows: WeightedRows, *, error_max: float | None = None, quantile: float | None = None
) -> dict[str, Estimate]:
    """rmse, mae, and mape where truths are not all near zero; pinball where `quantile` is given."""
    error = rows.said - rows.true
    size = np.abs(error)
    if error_max is not None:
        size_counted = np.minimum(size, error_max)
    else:
        size_counted = size
    found = {"rmse": _rmse(rows, error)}
    mae = rows.mean(size_counted, most=error_max)
    if mae is not None:
        found["mae"] = mae
    large = np.abs(rows.true) > MAPE_TRUTH_MIN
    if large.any():
        kept = rows.where(large)
        ratio = np.average(size[large] / np.abs(kept.true), weights=kept.weight)
        found["mape"] = kept.plain(float(ratio))
    if quantile is not None:
        # A truth above the prediction costs `quantile` of the gap, one below it the rest.
        loss = np.where(error < 0.0, quantile, 1.0 - quantile) * size
        pinball = rows.mean(loss)
        if pinball is not None:
            found["pinball"] = pinball
    return found


def _rmse(rows: WeightedRows, error: Floats) -> Estimate:
    square = error**2
    mean = float(np.average(square, weights=rows.weight))
    value = math.sqrt(mean)
    slopes = (square - mean) / (2.0 * value * rows.weight.sum()) if value > 0.0 else 0.0 * square
    return rows.figure(value, slopes)
