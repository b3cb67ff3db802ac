"""Quantiles of durations over a stream, from a histogram whose bins grow with what they hold.

Bin i holds the durations in (g^(i-1), g^i], so that the middle of a bin is off by at most the
relative error, whatever the durations are. Counts add: sketches of two windows, processes or
machines make the sketch of both. What must not change is g, or old counts mean something else.

Masson, Rim, Lee: DDSketch, a fast and fully-mergeable quantile sketch with relative-error
guarantees. VLDB 2019.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Self

RELATIVE_ERROR = 0.01
# Shorter ones are counted as this, longer ones as that: a microsecond and eleven days. So at most
# 1,382 bins are ever in use.
DURATION_S_MIN = 1e-6
DURATION_S_MAX = 1e6
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH = math.log(_GROWTH)


class QuantileSketch:
    """Weighted durations, in seconds.

    >>> sketch = QuantileSketch()
    >>> for ms in range(1, 101):
    ...     sketch.update(ms / 1000)
    >>> [round(quantile, 3) for quantile in sketch.quantiles([0.5, 0.99]) or ()]
    [0.05, 0.099]
    """

    def __init__(self) -> None:
        self._counts: dict[int, float] = {}
        self.weight = 0.0

    def update(self, duration_s: float, weight: float = 1.0) -> None:
        """One duration that stands for `weight` of them.

        Raises ValueError for what is no duration, and for a weight that is not positive: nothing
        has changed then.
        """
        if not duration_s >= 0.0 or not 0.0 < weight < math.inf:
            raise ValueError(f"{duration_s} s with weight {weight} is no duration")
        clipped = min(max(duration_s, DURATION_S_MIN), DURATION_S_MAX)
        place = math.ceil(math.log(clipped) / _LOG_GROWTH)
        self._counts[place] = self._counts.get(place, 0.0) + weight
        self.weight += weight

    def merge(self, other: "QuantileSketch") -> None:
        """Take in what the other has seen; it stays as it is."""
        for place, weight in other._counts.items():
            self._counts[place] = self._counts.get(place, 0.0) + weight
        self.weight += other.weight

    def quantiles(self, shares: Sequence[float]) -> list[float] | None:
        """The durations below which these shares lie, in the order asked for; None if empty."""
        if not self._counts:
            return None
        places = sorted(self._counts)
        found = dict.fromkeys(shares, _middle(places[-1]))
        waiting = sorted(set(shares), reverse=True)
        below = 0.0
        for place in places:
            below += self._counts[place]
            while waiting and below >= waiting[-1] * self.weight:
                found[waiting.pop()] = _middle(place)
        return [found[share] for share in shares]

    def state(self) -> dict[str, Any]:
        """Plain values: bins in use and their weights."""
        places = sorted(self._counts)
        return {"bins": places, "weights": [self._counts[place] for place in places]}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """From `state`. Raises KeyError, TypeError or ValueError for what is none."""
        sketch = cls()
        for place, weight in zip(state["bins"], state["weights"], strict=True):
            sketch._counts[int(place)] = float(weight)
        sketch.weight = sum(sketch._counts.values())
        return sketch


def _middle(place: int) -> float:
    """The duration from which no other of the bin is further than the relative error."""
    return float(2 * _GROWTH**place / (1 + _GROWTH))


class RecentQuantiles:
    """A sketch of the last `window_s` seconds, give or take one part of it."""

    def __init__(self, *, window_s: float = 300.0, parts: int = 5) -> None:
        self._part_s = window_s / parts
        self._parts: deque[tuple[int, QuantileSketch]] = deque(maxlen=parts + 1)

    def update(self, duration_s: float, weight: float, now: float) -> None:
        """As the sketch's; `now` in seconds, of any clock that does not go back by a window."""
        number = int(now // self._part_s)
        if not self._parts or number > self._parts[-1][0]:
            self._parts.append((number, QuantileSketch()))
        self._parts[-1][1].update(duration_s, weight)

    def window(self, now: float) -> QuantileSketch:
        """What the window holds at this moment."""
        number = int(now // self._part_s)
        whole = QuantileSketch()
        parts = self._parts.maxlen or 1
        for place, sketch in self._parts:
            if place > number - parts:
                whole.merge(sketch)
        return whole
