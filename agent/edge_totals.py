"""Sums of what the edges counted, over their restarts: the numbers that scrapes and pages show.

An edge counts from zero when it starts and says so by its start id. Adding up here keeps the
counters of a scrape rising while analysis lives; when analysis restarts, Prometheus sees a reset.
Until every edge was heard after such a restart nothing is shown: the sum of some of them is less
than was shown before, and a scrape would add the rest a second time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent.call_totals import CallTotals
from agent.sources.proxy import EdgeCounters, RouteCounters

# Versions come and go for months; the table of (version, route) must not.
CELLS_MAX = 200
OVERFLOW = ("other", "other")
# For how long the first edges that are heard wait for the others.
SETTLE_S = 10.0
# Reasons by which an exchange that was to be kept is lost; other drops lose less than that.
EXCHANGE_LOST: Final = frozenset(
    {
        "capture_failed",
        "capture_memory",
        "channel_broken",
        "channel_closed",
        "channel_full",
        "channel_replaced",
        "edge_closed",
    }
)


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
        """This cell and another edge's counts of the same, as one."""
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
    """Takes the edges' snapshots, gives sums."""

    def __init__(self, *, workers: int = 1, routes: tuple[tuple[str, str], ...] = ()) -> None:
        self.calls = CallTotals(routes)  # on HTTP/2 connections: counted here, not by an edge
        self._workers = workers
        self._heard: dict[int, EdgeCounters] = {}  # the newest of each edge, by its number
        self._settled_by: float | None = None  # on the edges' clock
        self._settled = False
        self._ended: dict[tuple[str, str], Cell] = {}  # edges that are gone
        self._ended_drops: Counter[str] = Counter()
        self._ended_refused: Counter[str] = Counter()
        self._ended_copies: Counter[str] = Counter()
        self._ended_kept = 0
        self._restored: Mapping[str, Any] | None = None

    def take(self, counters: EdgeCounters, *, worker: int = 0) -> None:
        """A cumulative snapshot; one of a new edge closes the book on the edge before."""
        before = self._heard.get(worker)
        if before is not None and before.start_id != counters.start_id:
            self._close(before)
        self._heard[worker] = counters
        if not self._settled:
            self._settle(counters.at)

    def _settle(self, at: float) -> None:
        """Once all are heard, or waited for, it is known whether the restored sums go on."""
        if self._settled_by is None:
            self._settled_by = at + SETTLE_S
        if len(self._heard) < self._workers and at < self._settled_by:
            return
        self._settled = True
        if self._restored is not None:
            running = {counters.start_id for counters in self._heard.values()}
            if running.issuperset(self._restored["start_ids"]):
                self._reopen(self._restored)
            self._restored = None

    def _close(self, edge: EdgeCounters) -> None:
        _add_routes(self._ended, edge.routes)
        for cell in self._ended.values():
            cell.in_flight = 0
        self._ended_drops.update(edge.drops)
        self._ended_refused.update(edge.refused)
        self._ended_copies.update(edge.shadow_copies)
        self._ended_kept += edge.kept

    def state(self) -> dict[str, Any]:
        """What edges before the present ones counted, as JSON-able values."""
        return {
            "start_ids": sorted(counters.start_id for counters in self._heard.values()),
            "cells": [[*key, cell.to_json()] for key, cell in self._ended.items()],
            "drops": dict(self._ended_drops),
            "refused": dict(self._ended_refused),
            "shadow_copies": dict(self._ended_copies),
            "kept": self._ended_kept,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue, if all edges of back then still run.

        Of an edge that has ended meanwhile the last counts are not known: then all counters start
        from zero, which a scrape understands, and not from a little less than they were.
        """
        if state.get("start_ids"):
            self._restored = state

    def _reopen(self, state: Mapping[str, Any]) -> None:
        for version, route, cell in state["cells"]:
            self._ended[version, route] = Cell(**{**cell, "codes": Counter(cell["codes"])})
        self._ended_drops.update(state["drops"])
        self._ended_refused.update(state["refused"])
        self._ended_copies.update(state["shadow_copies"])
        self._ended_kept += int(state["kept"])

    @property
    def edges(self) -> list[EdgeCounters]:
        """The newest snapshot of each edge; none before all were heard."""
        return list(self._heard.values()) if self._settled else []

    @property
    def bounds_s(self) -> tuple[float, ...]:
        """Upper bounds of the buckets of all histograms, in seconds."""
        return next((edge.bounds_s for edge in self.edges), ())

    def cells(self) -> dict[tuple[str, str], Cell]:
        """(version, route) to the sums."""
        found = dict(self._ended) if self._settled else {}
        for edge in self.edges:
            _add_routes(found, edge.routes)
        if self.edges:
            _add_routes(found, self.calls.routes())
        return found

    @property
    def drops(self) -> Counter[str]:
        return self._over_all(self._ended_drops, (edge.drops for edge in self.edges))

    @property
    def refused(self) -> Counter[str]:
        return self._over_all(self._ended_refused, (edge.refused for edge in self.edges))

    @property
    def shadow_copies(self) -> Counter[str]:
        """Copies to a candidate by outcome, or by why there was none."""
        return self._over_all(self._ended_copies, (edge.shadow_copies for edge in self.edges))

    @property
    def kept(self) -> int:
        ended = self._ended_kept if self._settled else 0
        return ended + sum(edge.kept for edge in self.edges)

    def _over_all(self, ended: Counter[str], live: Iterable[Mapping[str, int]]) -> Counter[str]:
        found = Counter(ended) if self._settled else Counter()
        for counts in live:
            found.update(counts)
        return found

    @property
    def lost(self) -> dict[str, int]:
        """Exchanges that were to be kept and were not, by reason."""
        return {reason: n for reason, n in self.drops.items() if reason in EXCHANGE_LOST}

    @property
    def completeness(self) -> float | None:
        """Of the exchanges that were to be kept, the share that was; None before the first."""
        wanted = self.kept + sum(self.lost.values())
        return self.kept / wanted if wanted else None

    @property
    def requests(self) -> int:
        return sum(cell.requests for cell in self.cells().values())

    def durations(self) -> tuple[tuple[float, ...], list[int]]:
        """Bucket bounds in seconds and the counts of all versions and routes together."""
        bounds = self.bounds_s
        counts = [0] * (len(bounds) + 1)
        for cell in self.cells().values():
            counts = _added(counts, cell.duration_counts)
        return bounds, counts


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """The quantile by linear interpolation inside its bucket, as Prometheus does it; seconds."""
    total = sum(counts)
    if not total:
        return None
    rank, below = share * total, 0.0
    for index, count in enumerate(counts):
        if below + count >= rank and count:
            if index >= len(bounds):
                return bounds[-1] if bounds else None
            lower = bounds[index - 1] if index else 0.0
            return lower + (bounds[index] - lower) * (rank - below) / count
        below += count
    return bounds[-1] if bounds else None


def _add_routes(cells: dict[tuple[str, str], Cell], routes: Iterable[RouteCounters]) -> None:
    for route in routes:
        key = (route.version, route.route)
        if key not in cells and len(cells) >= CELLS_MAX:
            key = OVERFLOW
        cells[key] = cells.get(key, Cell()).plus(route)


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> Counter[str]:
    """Like `+` of two counters, with its zeros: a series that is zero is there."""
    return Counter({key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}})


def _added(one: list[int], other: tuple[int, ...] | list[int]) -> list[int]:
    if not one:
        return list(other)
    return [a + b for a, b in zip(one, other, strict=True)]
