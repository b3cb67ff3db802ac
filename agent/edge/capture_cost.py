"""What capturing costs the edge in CPU, so that the governor can tell it from relaying.

A clock around every call would cost a part of what it measures. Instead the calls after each
snapshot are timed, a few dozen of them, and stand for all until the next one; between that the
relay calls what it would call anyway. Sending is timed always: it happens a few hundred times a
second at most. The clock is a wall clock, so what took much longer than the rest was interrupted
and is left out of the mean.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agent.edge.capture import Capture

TIMED_CALLS: Final = 48
_INTERRUPTED: Final = 8.0  # times the median: a context switch, not a call
_clock = time.perf_counter


class CaptureCost:
    """Puts timed versions of `begin` and `keep` in place, and adds up."""

    def __init__(
        self, capture: "Capture", *, begin: Callable[..., Any], keep: Callable[..., None]
    ) -> None:
        self._capture = capture
        self._begin = begin
        self._keep = keep
        self._begin_s: list[float] = []
        self._keep_s: list[float] = []
        self._mean_begin_s = self._mean_keep_s = 0.0
        self._requests = self._kept = 0
        self._sum_s = 0.0

    def total_s(self, *, requests: int, kept: int, sent_s: float) -> float:
        """CPU seconds since the edge started, from what it has counted since then."""
        if self._begin_s:
            self._mean_begin_s = trimmed_mean(self._begin_s)
        if self._keep_s:
            self._mean_keep_s = trimmed_mean(self._keep_s)
        if self._capture.on:
            self._sum_s += max(0, requests - self._requests) * self._mean_begin_s
        self._sum_s += max(0, kept - self._kept) * self._mean_keep_s
        self._requests, self._kept = requests, kept
        self._begin_s.clear()
        self._keep_s.clear()
        self._capture.begin = self._timed_begin
        self._capture.keep = self._timed_keep
        return self._sum_s + sent_s

    def _timed_begin(self, id: bytes, request: bytes = b"") -> Any:
        started = _clock()
        idle = _clock()
        tape = self._begin(id, request)
        self._begin_s.append(_clock() - idle - (idle - started))
        if len(self._begin_s) >= TIMED_CALLS:
            self._capture.begin = self._begin
        return tape

    def _timed_keep(self, *arguments: Any, **named: Any) -> None:
        started = _clock()
        idle = _clock()
        self._keep(*arguments, **named)
        self._keep_s.append(_clock() - idle - (idle - started))
        if len(self._keep_s) >= TIMED_CALLS:
            self._capture.keep = self._keep


def trimmed_mean(times_s: list[float]) -> float:
    """The mean without what was interrupted; never below 0, whatever the clock says.

    >>> trimmed_mean([1.0, 1.0, 2.0, 500.0]), trimmed_mean([-1.0])
    (1.3333333333333333, 0.0)
    """
    limit_s = _INTERRUPTED * max(median(times_s), 0.0)
    usual = [time_s for time_s in times_s if time_s <= limit_s]
    return max(0.0, sum(usual) / len(usual)) if usual else 0.0
