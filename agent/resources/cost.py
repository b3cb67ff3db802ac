"""What 1,000 predictions cost, from configured prices and what the server used.

Over a sliding window: a cost by the second would jump, one since the start would never move.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WINDOW_S = 3_600.0
# Below this the first minutes of a server would speak for all of its life.
WINDOW_S_MIN = 60.0
_HOUR_S = 3_600.0
_GIB = 1 << 30
_KWH_J = 3.6e6
_MONTH_HOURS = 730.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """In one currency; None where nothing is charged for it."""

    currency: str
    per_hour: float | None = None  # for the server, whatever it uses
    per_cpu_hour: float | None = None
    per_gib_hour: float | None = None
    per_gpu_hour: float | None = None
    per_kwh: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    at: float
    spent: float  # cumulative, in the currency
    predictions: float  # cumulative


class Costs:
    """Money spent and predictions made, looked at now and then."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self._marks: deque[_Mark] = deque()
        self._before: tuple[float, Mapping[str, float]] | None = None
        self._spent = 0.0

    def update(
        self, used: Mapping[str, float], *, gpus: int, predictions: float, at: float
    ) -> None:
        """`used` has cpu_s and energy_j (cumulative) and memory_bytes, as far as they are known."""
        if self._before is not None:
            self._spent += self._between(*self._before, used, gpus, at)
        self._before = (at, dict(used))
        if self._marks and predictions < self._marks[-1].predictions:
            self._marks.clear()  # they are counted anew
        self._marks.append(_Mark(at=at, spent=self._spent, predictions=predictions))
        while self._marks[0].at < at - WINDOW_S:
            self._marks.popleft()

    def _between(
        self,
        then: float,
        before: Mapping[str, float],
        used: Mapping[str, float],
        gpus: int,
        at: float,
    ) -> float:
        prices, hours = self.prices, max(0.0, at - then) / _HOUR_S
        cpu_s = max(0.0, used.get("cpu_s", 0.0) - before.get("cpu_s", 0.0))
        energy_j = max(0.0, used.get("energy_j", 0.0) - before.get("energy_j", 0.0))
        return (
            hours * (prices.per_hour or 0.0)
            + cpu_s / _HOUR_S * (prices.per_cpu_hour or 0.0)
            + hours * used.get("memory_bytes", 0.0) / _GIB * (prices.per_gib_hour or 0.0)
            + hours * gpus * (prices.per_gpu_hour or 0.0)
            + energy_j / _KWH_J * (prices.per_kwh or 0.0)
        )

    @property
    def per_thousand(self) -> float | None:
        """Money for 1,000 predictions of the last hour; None while there are too few to say."""
        if not self._marks:
            return None
        first, last = self._marks[0], self._marks[-1]
        made = last.predictions - first.predictions
        if last.at - first.at < WINDOW_S_MIN or made <= 0:
            return None
        return 1_000.0 * (last.spent - first.spent) / made

    @property
    def per_month(self) -> float | None:
        """Money for a month like the last hour."""
        if not self._marks:
            return None
        first, last = self._marks[0], self._marks[-1]
        took_s = last.at - first.at
        if took_s < WINDOW_S_MIN:
            return None
        return (last.spent - first.spent) / took_s * _HOUR_S * _MONTH_HOURS

    def as_json(self) -> dict[str, Any]:
        """For status."""
        return {
            "currency": self.prices.currency,
            "per_thousand_predictions": self.per_thousand,
            "per_month": self.per_month,
        }
