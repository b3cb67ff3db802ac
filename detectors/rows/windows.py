"""Rings of counts: what the last 1,000, 10,000 and 100,000 rows looked like, without the rows.

A ring holds four slots, filled one after the other; each is a quarter of the ring's rows. A window
covers about the rows it is named for: at least three quarters of them once so many have come, and
at most a quarter and one tick more than all.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.bins import WIDTH

WINDOW_ROWS: Final = (1_000, 10_000, 100_000)
_SLOTS: Final = 4


class Ring:
    """Counts of about the last `rows_max` rows of all features, in four slots."""

    def __init__(self, features: int, rows_max: int) -> None:
        self.rows_max = rows_max
        self._counts = np.zeros((_SLOTS, features, WIDTH), dtype=np.uint32)
        self._rows = np.zeros(_SLOTS, dtype=np.int64)
        self._head = 0

    def push(self, counts: NDArray[np.int64], rows: int) -> bool:
        """Add one tick's counts [features, 18] of `rows` rows; say whether that filled a slot."""
        if self._rows[self._head] * _SLOTS >= self.rows_max:
            self._head = (self._head + 1) % _SLOTS
            self._counts[self._head] = 0
            self._rows[self._head] = 0
        self._counts[self._head] += counts.astype(np.uint32)
        self._rows[self._head] += rows
        return bool(self._rows[self._head] * _SLOTS >= self.rows_max)

    def counts(self) -> NDArray[np.int64]:
        """Give the window's counts, [features, 18]: the newest slots that hold `rows_max` rows."""
        slots, _ = self._newest()
        total: NDArray[np.int64] = self._counts[slots[0]].astype(np.int64)
        for slot in slots[1:]:
            total += self._counts[slot]
        return total

    def rows(self) -> int:
        """Give the rows that `counts` covers."""
        return self._newest()[1]

    def _newest(self) -> tuple[list[int], int]:
        slots: list[int] = []
        rows = 0
        for age in range(_SLOTS):
            slot = (self._head - age) % _SLOTS
            slots.append(slot)
            rows += int(self._rows[slot])
            if rows >= self.rows_max:
                break
        return slots, rows

    def state(self) -> dict[str, Any]:
        """Give everything, as a dictionary of arrays."""
        return {
            "counts": self._counts.copy(),
            "rows": self._rows.copy(),
            "head": np.array(self._head),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it is of another shape."""
        counts = np.array(state["counts"], dtype=np.uint32)
        rows = np.array(state["rows"], dtype=np.int64)
        if counts.shape != self._counts.shape or rows.shape != self._rows.shape:
            raise ValueError(f"window of shape {counts.shape}, expected {self._counts.shape}")
        self._counts, self._rows = counts, rows
        self._head = int(state["head"]) % _SLOTS
