"""Numeric features to counts by sorting: exact, and the quickest way where numpy sorts by SIMD.

Since version 2 numpy sorts single precision with AVX-512, AVX2 or NEON: 1.6 to 2.7 ns per value,
half of what the grid of `binning` takes. Each value is cast to float32 once, as the grid does it;
the one thing not to break is that both ways give the same counts to the last row.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.bins import BINS, MISSING, OUTSIDE, WIDTH, NumericBins
from detectors.rows.columns import Column

#: Older versions take 40 ns per value on many machines, and the grid is the quicker way.
QUICK: Final = int(np.__version__.split(".")[0]) >= 2

_SLICE_VALUES: Final = 65_536  # 256 kB: small enough for the second-level cache


class SortedCounts:
    """Counts values of features whose edges are numbers of single precision."""

    def __init__(self, bins: Sequence[NumericBins]) -> None:
        # At most limits[0] is below the range, at most limits[k] in bin k - 1 or before, at most
        # limits[16] within the range, and at most infinity is everything but NaN.
        self._limits = np.full((len(bins), WIDTH), np.inf, dtype=np.float32)
        with np.errstate(over="ignore", under="ignore"):
            for row, b in enumerate(bins):
                edges = np.array(b.edges, dtype=np.float32)
                self._limits[row, 0] = np.nextafter(np.float32(b.low), np.float32(-np.inf))
                self._limits[row, 1 : BINS + 1] = np.float32(b.high)
                self._limits[row, 1 : len(edges) + 1] = edges

    def count(self, features: Sequence[int], arrays: Sequence[Column]) -> NDArray[np.int64]:
        """Count columns of equal length, one for each of `features`: [len(features), 18]."""
        rows = len(arrays[0]) if arrays else 0
        upto = np.zeros((len(arrays), WIDTH), dtype=np.int64)
        height = max(1, _SLICE_VALUES // max(rows, 1))
        scratch = np.empty((height, min(rows, _SLICE_VALUES)), dtype=np.float32)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for first in range(0, len(arrays), height):
                group = arrays[first : first + height]
                for start in range(0, rows, _SLICE_VALUES):
                    part = scratch[: len(group), : min(rows - start, _SLICE_VALUES)]
                    for row, array in zip(part, group, strict=True):
                        row[:] = array[start : start + _SLICE_VALUES]
                    part.sort(axis=1)  # NaN sorts last
                    for i, row in enumerate(part, start=first):
                        upto[i] += row.searchsorted(self._limits[features[i]], side="right")
        counts = np.empty_like(upto)
        counts[:, :BINS] = upto[:, 1 : BINS + 1] - upto[:, :BINS]
        counts[:, MISSING] = rows - upto[:, -1]
        counts[:, OUTSIDE] = upto[:, -1] - upto[:, BINS] + upto[:, 0]
        return counts
