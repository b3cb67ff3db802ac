"""What scores meant: how often rows of a score turned out positive, from counts per score bin.

A level is made from a labelled reference, or learnt from labelled rows after a change. Bins are
joined into few cells, in thirds of the rows: low, middle and high scores. Whoever refines the cells
gives them too few rows to say anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

THIRDS: Final = 3
CELLS_MAX: Final = 15
CELL_ROWS_MIN: Final = 100
BINS_MAX: Final = 1_024
# A rate of 0 or 1 has no odds.
RATE_MIN: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLevel:
    """Labelled rows by score bin, as counted.

    `edges` [bins - 1] ascending: bin b holds scores in (edges[b - 1], edges[b]]. `rows`,
    `positives` and `guess_sums` are [bins]: the last holds, summed over a bin's rows, how often
    they were to turn out positive before anything was counted: the scores themselves, or
    `guesses` [bins] where these are given. Raises ValueError for counts that cannot be.
    """

    edges: Floats
    rows: Floats
    positives: Floats
    guess_sums: Floats
    guesses: Floats | None = None

    def __post_init__(self) -> None:
        bins = len(self.edges) + 1
        arrays = [self.rows, self.positives, self.guess_sums]
        if self.guesses is not None:
            arrays.append(self.guesses)
        if bins > BINS_MAX or any(array.shape != (bins,) for array in arrays):
            raise ValueError(f"{bins} score bins need as many counts each, at most {BINS_MAX}")
        if not all(np.isfinite(array).all() for array in (self.edges, *arrays)):
            raise ValueError("score bins: edges and counts must be finite")
        if (np.diff(self.edges) < 0).any():
            raise ValueError("score bins: edges must rise")
        slack = 1e-6 * (1.0 + self.rows)
        wrong = (self.positives < -slack) | (self.positives > self.rows + slack)
        wrong |= (self.guess_sums < -slack) | (self.guess_sums > self.rows + slack)
        if wrong.any():
            raise ValueError("score bins: positives and scores must be between 0 and the rows")

    @property
    def total(self) -> float:
        """All rows."""
        return float(self.rows.sum())

    def state(self) -> dict[str, Any]:
        """Give JSON values."""
        return {
            "edges": self.edges.tolist(),
            "rows": self.rows.tolist(),
            "positives": self.positives.tolist(),
            "guess_sums": self.guess_sums.tolist(),
            "guesses": None if self.guesses is None else self.guesses.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ScoreLevel":
        """Read what `state` gave. Raises ValueError for what does not fit."""
        given: dict[str, Any] = {
            name: None if state[name] is None else np.asarray(state[name], np.float64)
            for name in ("edges", "rows", "positives", "guess_sums", "guesses")
        }
        return cls(**given)


def score_level(
    edges: Sequence[float] | Floats,
    rows: Sequence[float] | Floats,
    positives: Sequence[float] | Floats,
    *,
    score_sums: Sequence[float] | Floats | None = None,
    calibrated: Sequence[float] | Floats | None = None,
) -> ScoreLevel:
    """Make a level of plain counts.

    `score_sums` [bins] are the sums of scores, which are then taken as first guesses within a bin;
    without them `calibrated` [bins] are the guesses, and without these all bins of a cell are alike
    (a bin's middle is no guess: scores that take few values all stand at its upper edge).
    """
    counts = np.asarray(rows, np.float64)
    guesses: Floats | None = None
    if score_sums is None:
        guesses = np.zeros_like(counts)
        if calibrated is not None:
            guesses = np.asarray(calibrated, np.float64)
    sums = np.asarray(score_sums, np.float64) if guesses is None else None
    if guesses is not None:
        if guesses.shape != counts.shape:
            raise ValueError(f"score bins: {len(guesses)} rates for {len(counts)} bins")
        sums = counts * guesses
    assert sums is not None
    return ScoreLevel(
        edges=np.asarray(edges, np.float64),
        rows=counts,
        positives=np.asarray(positives, np.float64),
        guess_sums=sums,
        guesses=guesses,
    )


class Cells:
    """A level joined into at most 15 cells of about as many rows each.

    Within a cell a row is expected to be positive as often as its score says (or its bin's rate),
    plus what the cell's rows were above or below that: so that scores which move inside a cell are
    no change of what they mean.
    """

    def __init__(self, level: ScoreLevel) -> None:
        total = level.total
        count = int(np.clip(total // CELL_ROWS_MIN, THIRDS, CELLS_MAX))
        count -= count % THIRDS
        middles = (np.cumsum(level.rows) - level.rows / 2) / max(total, 1.0)
        places = np.minimum((middles * count).astype(np.intp), count - 1)
        used, self._of_bin = np.unique(places, return_inverse=True)
        self._edges, self._guesses = level.edges, level.guesses
        self.third = (used * THIRDS // count).astype(np.intp)
        rows, positives, sums = (
            np.bincount(self._of_bin, array, len(used))
            for array in (level.rows, level.positives, level.guess_sums)
        )
        overall = (positives.sum() + 0.5) / (rows.sum() + 1.0)
        rate = (positives + 0.5 * overall) / (rows + 0.5)
        self.shift = np.where(rows > 0, rate - sums / np.maximum(rows, 1.0), 0.0)
        # Two positives and two others more: few rows of one kind are no certainty.
        doubted = (positives + 2.0) / (rows + 4.0)
        self.variance = doubted * (1.0 - doubted)
        self.rows = np.maximum(rows, 0.5)
        self.shares = rows / max(rows.sum(), 1.0)

    def expected(self, scores: Floats) -> tuple[NDArray[np.intp], Floats]:
        """Give the cell of each score, and how often rows of it turned out positive, [rows]."""
        bins = np.searchsorted(self._edges, scores, side="left")
        cells = self._of_bin[bins]
        guesses = scores if self._guesses is None else self._guesses[bins]
        return cells, np.clip(guesses + self.shift[cells], RATE_MIN, 1.0 - RATE_MIN)

    def doubt(self, shares: Floats, thirds: NDArray[np.bool_]) -> float:
        """Give the standard error of the level, in log-odds, over rows that fall so into cells.

        `shares` [cells] are those of current rows: where they have moved to cells that the
        reference knew little of, it is unsure of them.
        """
        weights = np.where(thirds[self.third], shares, 0.0)
        information = float(weights @ self.variance)
        if information <= 0.0:
            return np.inf
        return float(np.sqrt((weights**2 * self.variance / self.rows).sum()) / information)

    def error(self, shares: Floats) -> Floats:
        """Give the standard error of the level's rate in each third, [3]."""
        weights = np.bincount(self.third, shares, THIRDS)
        spread = np.bincount(self.third, shares**2 * self.variance / self.rows, THIRDS)
        found: Floats = np.sqrt(spread) / np.maximum(weights, 1e-12)
        return found
