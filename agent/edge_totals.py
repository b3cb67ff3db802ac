"""Sums of what the edge counted, over its restarts: the numbers that scrapes and pages show.

An edge counts from zero when it starts and says so by its start id. Adding up here keeps the
counters of a scrape rising while analysis lives; when analysis restarts, Prometheus sees a reset.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.sources.proxy import EdgeCounters, RouteCounters

# Versions come and go for months; the table of (version, route) must not.
CELLS_MAX = 200
OVERFLOW = ("other", "other")


@dataclass(slots=True)
class Cell:
    """All requests of one version and route."""

    codes: Counter[str] = field(default_factory=Counter)
    duration_counts: list[int] = field(default_factory=list)
    duration_sum_s: float = 0.0
    first_byte_counts: list[int] = field(default_factory=list)
    first_byte_sum_s: float = 0.0
    in_flight: int = 0

    def plus(self, later: RouteCounters) -> "Cell":
        """This cell and a newer edge's counts of the same, as one."""
        return Cell(
            codes=_sum(self.codes, later.codes),
            duration_counts=_added(self.duration_counts, later.duration_counts),
            duration_sum_s=self.duration_sum_s + later.duration_sum_s,
            first_byte_counts=_added(self.first_byte_counts, later.first_byte_counts),
            first_byte_sum_s=self.first_byte_sum_s + later.first_byte_sum_s,
            in_flight=self.in_flight + later.in_flight,  # of an edge that is gone: 0
        )

    @property
    def requests(self) -> int:
        return sum(self.codes.values())

    def to_json(self) -> dict[str, Any]:
        """Its figures as plain values, by the names of the fields."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return {**plain, "codes": dict(self.codes)}


class EdgeTotals:
    """Takes the edge's snapshots, gives sums."""

    def __init__(self) -> None:
        self.latest: EdgeCounters | None = None
        self._ended: dict[tuple[str, str], Cell] = {}  # edges that are gone
        self._ended_drops: Counter[str] = Counter()
        self._ended_refused: Counter[str] = Counter()
        self._ended_kept = 0
        self._restored: Mapping[str, Any] | None = None

    def take(self, counters: EdgeCounters) -> None:
        """A cumulative snapshot; one of a new edge closes the book on the edge before."""
        if self._restored is not None:
            if self._restored["start_id"] == counters.start_id:
                self._reopen(self._restored)
            self._restored = None
        if self.latest is not None and self.latest.start_id != counters.start_id:
            self._ended = self.cells()
            for cell in self._ended.values():
                cell.in_flight = 0
            self._ended_drops = self.drops
            self._ended_refused = self.refused
            self._ended_kept = self.kept
        self.latest = counters

    def state(self) -> dict[str, Any]:
        """What edges before the present one counted, as JSON-able values."""
        return {
            "start_id": self.latest.start_id if self.latest else "",
            "cells": [[*key, cell.to_json()] for key, cell in self._ended.items()],
            "drops": dict(self._ended_drops),
            "refused": dict(self._ended_refused),
            "kept": self._ended_kept,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue, if the edge of back then still runs.

        Of an edge that has ended meanwhile the last counts are not known: then all counters start
        from zero, which a scrape understands, and not from a little less than they were.
        """
        self._restored = state

    def _reopen(self, state: Mapping[str, Any]) -> None:
        self._ended = {
            (version, route): Cell(**{**cell, "codes": Counter(cell["codes"])})
            for version, route, cell in state["cells"]
        }
        self._ended_drops = Counter(state["drops"])
        self._ended_refused = Counter(state["refused"])
        self._ended_kept = int(state["kept"])

    def cells(self) -> dict[tuple[str, str], Cell]:
        """(version, route) to the sums."""
        found = dict(self._ended)
        if self.latest is not None:
            for route in self.latest.routes:
                key = (route.version, route.route)
                if key not in found and len(found) >= CELLS_MAX:
                    key = OVERFLOW
                found[key] = found.get(key, Cell()).plus(route)
        return found

    @property
    def drops(self) -> Counter[str]:
        return self._ended_drops + Counter(self.latest.drops if self.latest else {})

    @property
    def refused(self) -> Counter[str]:
        return self._ended_refused + Counter(self.latest.refused if self.latest else {})

    @property
    def kept(self) -> int:
        return self._ended_kept + (self.latest.kept if self.latest else 0)

    @property
    def requests(self) -> int:
        return sum(cell.requests for cell in self.cells().values())

    def durations(self) -> tuple[tuple[float, ...], list[int]]:
        """Bucket bounds in seconds and the counts of all versions and routes together."""
        bounds = self.latest.bounds_s if self.latest else ()
        counts = [0] * (len(bounds) + 1)
        for cell in self.cells().values():
            counts = _added(counts, cell.duration_counts)
        return bounds, counts


def quantile(bounds: tuple[float, ...], counts: list[int], share: float) -> float | None:
    """The quantile by linear interpolation inside its bucket, as Prometheus does it; seconds."""
    total = sum(counts)
    if not total:
        return None
    rank, below = share * total, 0
    for index, count in enumerate(counts):
        if below + count >= rank and count:
            if index >= len(bounds):
                return bounds[-1] if bounds else None
            lower = bounds[index - 1] if index else 0.0
            return lower + (bounds[index] - lower) * (rank - below) / count
        below += count
    return bounds[-1] if bounds else None


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> Counter[str]:
    """Like `+` of two counters, with its zeros: a series that is zero is there."""
    return Counter({key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}})


def _added(one: list[int], other: tuple[int, ...] | list[int]) -> list[int]:
    if not one:
        return list(other)
    return [a + b for a, b in zip(one, other, strict=True)]
