"""The bin of each row, where a count of rows is not enough: outliers, means by bin, slices.

Slower than `binning` by a factor of ten, so only for some rows or some features; the same bins to
the last bit. Seasonal features are placed by the bins of all hours together.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.rows.bins import BINS, MISSING, OUTSIDE, Bins, NumericBins
from detectors.rows.columns import Column, category_keys, digest_of, numbers


def places(column: Column, bins: Bins) -> NDArray[np.int64]:
    """Give the bin of each row, [rows], 0 to 17."""
    if isinstance(bins, NumericBins):
        return _numeric(column, bins)
    known: dict[Any, int] = {None: MISSING}
    ordered = {digest: b for b, digest in enumerate(bins.top)}
    keys = category_keys(column).tolist()
    for key in set(keys) - {None}:
        digest = digest_of(key)
        rest = BINS - 1 if bins.open or digest in bins.others else OUTSIDE
        known[key] = ordered.get(digest, rest)
    return np.fromiter((known[key] for key in keys), np.int64, len(keys))


def _numeric(column: Column, bins: NumericBins) -> NDArray[np.int64]:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        values = numbers(column)
        if bins.lines:  # on a grid values are cast once, before they are compared
            values = values.astype(np.float32)
        values = values.astype(np.float64)
    found: NDArray[np.int64] = np.searchsorted(np.array(bins.edges), values, side="left")
    found[(values < bins.low) | (values > bins.high)] = OUTSIDE
    found[np.isnan(values)] = MISSING
    return found
