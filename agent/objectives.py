"""Objectives of the service: good and bad requests, counted by the edges, as burn rates.

Every request counts, not only those that were kept: the edges' own counters are what is read. A
latency that is no bound of a bucket is judged by the next bound above it; `check` says so.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.config.objectives import ObjectiveConfig
from agent.edge.counters import BOUNDS_S
from agent.edge_totals import Cell
from detectors.burn import DAY_S, WINDOWS, Burn

# What the server is to blame for. A client that leaves is nobody's failure, and counts as nothing.
BAD_CODES = ("5xx", "upstream_unreachable", "timeout")
LEFT = "client_disconnect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One objective at one moment. A burn rate is None where its window saw no request."""

    name: str
    objective: float
    burn: Mapping[str, float | None]  # by the window's name
    remaining: float  # share of the budget

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "objective": self.objective,
            "burn": dict(self.burn),
            "remaining": self.remaining,
        }


class Objectives:
    """All configured objectives, fed with the edges' sums now and then."""

    def __init__(self, configured: Sequence[ObjectiveConfig]) -> None:
        self._configured = tuple(configured)
        self._burns = {
            one.name: Burn(one.objective, window_s=one.window_days * DAY_S) for one in configured
        }

    def update(self, cells: Mapping[tuple[str, str], Cell], at: float) -> None:
        """The sums of all edges by version and route, as of `at` in unix seconds."""
        for one in self._configured:
            meant = [cell for (_, route), cell in cells.items() if one.route in (None, route)]
            bad, total = _counted(meant, one.latency_s)
            self._burns[one.name].update(bad=bad, total=total, at=at)

    def standings(self, now: float) -> list[Standing]:
        return [
            Standing(
                name=one.name,
                objective=one.objective,
                burn={
                    name: self._burns[one.name].rate(window_s, now)
                    for window_s, name in WINDOWS.items()
                },
                remaining=self._burns[one.name].remaining(now),
            )
            for one in self._configured
        ]

    def state(self) -> dict[str, Any]:
        """By name and what it means: an objective that was changed starts with a whole budget."""
        return {_meaning(one): self._burns[one.name].state() for one in self._configured}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises KeyError, TypeError or ValueError for what is none."""
        for one in self._configured:
            found = state.get(_meaning(one))
            if found is not None:
                self._burns[one.name].restore(found)


def _counted(cells: Sequence[Cell], latency_s: float | None) -> tuple[int, int]:
    """Bad and all requests."""
    total = sum(cell.requests - cell.codes[LEFT] for cell in cells)
    if latency_s is None:
        return sum(cell.codes[code] for cell in cells for code in BAD_CODES), total
    within = bisect_left(BOUNDS_S, latency_s) + 1
    # A client that left is in the histogram as well, fast or slow: never more bad ones than there
    # are requests that count.
    slow = sum(sum(cell.duration_counts[within:]) for cell in cells)
    return min(slow, total), total


def _meaning(one: ObjectiveConfig) -> str:
    return f"{one.name} {one.route} {one.latency_s} {one.window_days}"
