"""How fast the budget of an objective is used up: counts of good and bad over several windows.

A burn rate of 1 uses up the whole budget in exactly the objective's window; 14.4 over an hour uses
up 2 % of a month's. What must not change: minutes are kept for the short windows and hours for the
long ones, so that a month is a thousand numbers, not millions.

Beyer, Murphy, Rensin, Kawahara, Thorne: The Site Reliability Workbook, chapter 5. O'Reilly 2018.
"""

from collections.abc import Mapping
from typing import Any, Final

MINUTE_S: Final = 60.0
HOUR_S: Final = 3_600.0
DAY_S: Final = 86_400.0
# Up to here windows are added up from minutes, beyond from hours.
_FINE_S: Final = 6 * HOUR_S
# Seconds ▶ what the window is called. Pairs of them make an alert that is both sure and quick.
WINDOWS: Final[Mapping[float, str]] = {
    300.0: "5m",
    1_800.0: "30m",
    3_600.0: "1h",
    21_600.0: "6h",
    259_200.0: "3d",
}


class _Buckets:
    """Bad and all requests by buckets of time, the oldest forgotten."""

    def __init__(self, width_s: float, count_max: int) -> None:
        self._width_s = width_s
        self._count_max = count_max
        self.cells: dict[int, list[float]] = {}  # number ▶ bad, all; ascending but for clock jumps

    def add(self, at: float, bad: float, total: float) -> None:
        number = int(at // self._width_s)
        cell = self.cells.setdefault(number, [0.0, 0.0])
        cell[0] += bad
        cell[1] += total
        if len(self.cells) > self._count_max:
            del self.cells[min(self.cells)]

    def sum(self, since: float, now: float) -> tuple[float, float]:
        first, last = int(since // self._width_s), int(now // self._width_s)
        bad = total = 0.0
        for number, cell in self.cells.items():
            if first < number <= last:
                bad += cell[0]
                total += cell[1]
        return bad, total


class Burn:
    """One objective: at least `objective` of all requests are good, over `window_s`.

    Raises ValueError for an objective that is not between 0 and 1, both excluded: one of 1 has no
    budget that could be used up.
    """

    def __init__(self, objective: float, *, window_s: float = 30 * DAY_S) -> None:
        if not 0.0 < objective < 1.0:
            raise ValueError(f"an objective lies between 0 and 1, not at {objective:g}")
        self.objective = objective
        self.window_s = window_s
        self._minutes = _Buckets(MINUTE_S, int(_FINE_S // MINUTE_S) + 1)
        self._hours = _Buckets(HOUR_S, int(window_s // HOUR_S) + 1)
        self._last: tuple[float, float] | None = None

    def update(self, *, bad: float, total: float, at: float) -> None:
        """Cumulative counts, as of `at` in unix seconds; one that fell has begun anew from zero.

        The first counts after a start only say from where to count.
        """
        last, self._last = self._last, (bad, total)
        if last is None:
            return
        begun_anew = bad < last[0] or total < last[1]
        more_bad, more = (bad, total) if begun_anew else (bad - last[0], total - last[1])
        if more > 0:
            self._minutes.add(at, more_bad, more)
            self._hours.add(at, more_bad, more)

    def rate(self, window_s: float, now: float) -> float | None:
        """How many times as fast as it may be used up; None without requests in the window."""
        bad, total = self._sum(window_s, now)
        return bad / total / (1.0 - self.objective) if total else None

    def remaining(self, now: float) -> float:
        """The share of the budget that is left; below 0 when more was used, 1 without requests."""
        return 1.0 - (self.rate(self.window_s, now) or 0.0)

    def _sum(self, window_s: float, now: float) -> tuple[float, float]:
        buckets = self._minutes if window_s <= _FINE_S else self._hours
        return buckets.sum(now - window_s, now)

    def state(self) -> dict[str, Any]:
        """Plain values; not where counting stood, for the counters may begin anew meanwhile."""
        return {
            "minutes": [[number, *cell] for number, cell in self._minutes.cells.items()],
            "hours": [[number, *cell] for number, cell in self._hours.cells.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises KeyError, TypeError or ValueError for what is none."""
        minutes = {int(n): [float(bad), float(total)] for n, bad, total in state["minutes"]}
        hours = {int(n): [float(bad), float(total)] for n, bad, total in state["hours"]}
        self._minutes.cells, self._hours.cells = minutes, hours
