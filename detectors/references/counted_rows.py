"""Rows counted in chosen bins while a reference is built, in blocks, and what the blocks show."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.drift.evidence import cosine_scores
from detectors.references.blocks import Blocks, SampledBlocks
from detectors.references.calibration import TOLERANCE, block_scores, calibrate, significant
from detectors.rows.binning import Binner
from detectors.rows.bins import BINS, MISSING, WIDTH, Bins
from detectors.rows.columns import Column


class CountedRows:
    """Counts of all rows so far in the bins of some features, and how far the features wander.

    `tick_rows` is the scale of the self-calibration; `ordered=False` leaves it out.
    """

    def __init__(
        self, bins: Sequence[tuple[str, Bins]], *, tick_rows: int, ordered: bool = True
    ) -> None:
        self.binner = Binner(bins)
        self.place = {name: row for row, (name, _) in enumerate(bins)}
        self._tick_rows, self._ordered = tick_rows, ordered
        self._blocks = Blocks(len(bins), max(1, tick_rows // 16))
        self._sampled = SampledBlocks(len(bins) if ordered else 0, tick_rows)

    def add(
        self, columns: Mapping[str, Column], rows: int, times: NDArray[np.float64] | None = None
    ) -> None:
        """Count the next rows; `times` in Unix seconds, for bins that have seasons."""
        start = 0
        while start < rows:
            # without an order there are no blocks to tell apart: count whatever is there in one go
            take = min(self._blocks.room() if self._ordered else rows, rows - start)
            self._blocks.add(self._counted(columns, times, start, take), take)
            start += take
        start = 0
        while self._ordered and start < rows:
            take = min(self._sampled.room(), rows - start)
            wanted = self._sampled.wanted
            counts = self._counted(columns, times, start, take) if wanted else None
            self._sampled.add(counts, take)
            start += take

    def total(self) -> NDArray[np.float64]:
        """Give all rows' counts, [features, 18]."""
        return self._blocks.total()

    def total_of(self, name: str) -> NDArray[np.float64]:
        """Give all rows' counts of one feature, [18]."""
        return self._blocks.total_of(self.place[name])

    def calibration(self, name: str, *, categorical: bool = False) -> tuple[float, float]:
        """Give (phi, tolerance) of a feature; (1, TOLERANCE) without an order."""
        row = self.place[name]
        blocks, ticks = self._blocks.full()[:, row, :], self._sampled.full()
        total = self._blocks.total_of(row)
        if not self._ordered or total.sum() == 0:
            return 1.0, TOLERANCE
        p = total / total.sum()
        used = int(np.flatnonzero(p[:BINS]).max(initial=-1)) + 1
        cosines = np.empty((0, WIDTH)) if categorical else cosine_scores(p, used)
        singles = [MISSING] if 0 < p[MISSING] < 1 else []
        if categorical:
            singles += [b for b in range(BINS) if 0.01 <= p[b] < 1]
        long = self._blocks.block_rows > self._tick_rows
        phi, tolerance = calibrate(
            blocks,
            self._blocks.block_rows,
            self._tick_rows,
            block_scores(cosines, p, singles),
            ticks=ticks[:, row, :] if long else None,
        )
        return significant(phi), significant(tolerance)

    def _counted(
        self,
        columns: Mapping[str, Column],
        times: NDArray[np.float64] | None,
        start: int,
        take: int,
    ) -> NDArray[np.int64]:
        part = {name: column[start : start + take] for name, column in columns.items()}
        return self.binner.count(part, take, None if times is None else times[start : start + take])
