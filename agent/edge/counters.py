"""What the edge counts: fixed arrays for each version and route, and reasons for every loss.

Counting happens for every request, rendering never does here: a snapshot of plain numbers leaves
once a second. All of it is cumulative, so a snapshot that gets lost costs nothing.
"""

import os
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from typing import Final

# Seconds. From below what a loopback server needs to the longest that anybody waits for a model.
BOUNDS_S: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
_BUCKETS: Final = len(BOUNDS_S) + 1


def bound_above(duration_s: float) -> float | None:
    """The upper bound of a duration's bucket; None when it is above all of them.

    >>> bound_above(0.1), bound_above(0.2), bound_above(100.0)
    (0.1, 0.25, None)
    """
    place = bisect_left(BOUNDS_S, duration_s)
    return BOUNDS_S[place] if place < len(BOUNDS_S) else None


# The first five are status classes: index status // 100 - 1.
CODES: Final = (
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "client_disconnect",
    "upstream_unreachable",
    "timeout",
)
# Position in CODES of an outcome of the channel other than "ok".
CODE_OF_OUTCOME: Final = (0, 5, 6, 7)
VERSIONS_MAX: Final = 64
_FOLD_AT: Final = 256


class Cell:
    """All requests of one version and route."""

    __slots__ = (
        "codes",
        "duration",
        "duration_sum_s",
        "first_byte",
        "first_byte_sum_s",
        "in_flight",
        "whole",
    )

    def __init__(self) -> None:
        self.codes = [0] * len(CODES)
        self.in_flight = 0
        self.duration = [0] * _BUCKETS
        self.duration_sum_s = 0.0
        self.first_byte = [0] * _BUCKETS
        self.first_byte_sum_s = 0.0
        self.whole: list[float] = []

    def answered(self, code: int, duration_s: float) -> None:
        """The response came in one piece: its first byte and its last are one moment.

        Durations wait in a list, because sorting many at once and cutting the list at the bounds
        costs a tenth of two searches for each.
        """
        self.codes[code] += 1
        self.in_flight -= 1
        whole = self.whole
        whole.append(duration_s)
        if len(whole) >= _FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """To be called before the arrays are read."""
        whole, self.whole = self.whole, []
        whole.sort()
        sum_s = sum(whole)
        self.duration_sum_s += sum_s
        self.first_byte_sum_s += sum_s
        at = 0
        for bucket, bound_s in enumerate(BOUNDS_S):
            if at == len(whole):
                return
            upto = bisect_right(whole, bound_s, at)
            self.duration[bucket] += upto - at
            self.first_byte[bucket] += upto - at
            at = upto
        self.duration[-1] += len(whole) - at
        self.first_byte[-1] += len(whole) - at

    def finished(
        self, outcome: int, status: int, duration_s: float, first_byte_s: float | None
    ) -> None:
        code = CODE_OF_OUTCOME[outcome] if outcome else status // 100 - 1
        self.codes[code] += 1
        self.in_flight -= 1
        self.duration[bisect_left(BOUNDS_S, duration_s)] += 1
        self.duration_sum_s += duration_s
        if first_byte_s is not None:
            self.first_byte[bisect_left(BOUNDS_S, first_byte_s)] += 1
            self.first_byte_sum_s += first_byte_s


class Counters:
    """Everything that the edge counts, from its start on."""

    def __init__(self, route_names: tuple[str, ...]) -> None:
        self.start_id = os.urandom(8).hex()
        self.started_at = time.time()
        self.route_names = route_names
        self.drops: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.kept = 0
        self.retries = 0
        self.client_connections = 0
        self.upstream_connections = 0
        self.upstream_connects = 0
        self._versions: dict[str, list[Cell]] = {}

    @property
    def in_flight(self) -> int:
        """A version with anything in flight is never forgotten, so this is all of it."""
        return sum(cell.in_flight for cells in self._versions.values() for cell in cells)

    @property
    def answered(self) -> int:
        """Of the versions that are remembered."""
        return sum(sum(cell.codes) for cells in self._versions.values() for cell in cells)

    def cells(self, version: str) -> list[Cell]:
        """One cell for each route, made when a version is first routed to."""
        found = self._versions.get(version)
        if found is None:
            if len(self._versions) >= VERSIONS_MAX:
                self._forget_one()
            found = self._versions[version] = [Cell() for _ in self.route_names]
        return found

    def _forget_one(self) -> None:
        # Dictionaries keep their order: the first idle one is the oldest.
        for version, cells in self._versions.items():
            if not any(cell.in_flight for cell in cells):
                del self._versions[version]
                return

    def drop(self, reason: str, count: int = 1) -> None:
        self.drops[reason] += count

    def refuse(self, reason: str) -> None:
        self.refused[reason] += 1

    def snapshot(self, *, generation: int, weight: float) -> dict[str, object]:
        """The body of a COUNTERS frame; routes that have seen nothing are left out."""
        return {
            "start_id": self.start_id,
            "started_at": self.started_at,
            "at": time.time(),
            "bounds_s": BOUNDS_S,
            "routes": [
                _plain(version, route, cell)
                for version, cells in self._versions.items()
                for route, cell in zip(self.route_names, cells, strict=True)
                if cell.in_flight or any(cell.codes)
            ],
            "drops": self.drops,
            "refused": self.refused,
            "kept": self.kept,
            "retries": self.retries,
            "client_connections": self.client_connections,
            "upstream_connections": self.upstream_connections,
            "upstream_connects": self.upstream_connects,
            "generation": generation,
            "weight": weight,
        }


def _plain(version: str, route: str, cell: Cell) -> dict[str, object]:
    cell.fold()
    return {
        "version": version,
        "route": route,
        "codes": dict(zip(CODES, cell.codes, strict=True)),
        "in_flight": cell.in_flight,
        "duration_counts": cell.duration,
        "duration_sum_s": cell.duration_sum_s,
        "first_byte_counts": cell.first_byte,
        "first_byte_sum_s": cell.first_byte_sum_s,
    }
