"""How long requests take, by version and route: quantiles of the last minutes.

The edges count every request in buckets; here the kept ones are sketched, each for as many as it
stands for, so that neither sampling nor a strategy that keeps errors bends a quantile.
"""

from collections.abc import Callable, Mapping
from typing import Final

from agent.exchange import Exchange
from detectors.latency import RecentQuantiles

SHARES: Final = (0.5, 0.9, 0.95, 0.99)
KEYS_MAX: Final = 64
OVERFLOW: Final = ("other", "other")


class Latencies:
    """Sketches of (version, route); beyond so many all share one."""

    def __init__(self, route: Callable[[str], str]) -> None:
        self._route = route
        self._recent: dict[tuple[str, str], RecentQuantiles] = {}

    def take(self, exchange: Exchange, now: float, *, stable: str = "") -> None:
        """An exchange that the client was answered; a copy's answer is no client's wait.

        One that names no version, an event or a line, was answered by `stable`.
        """
        # A source that does not know how long it took says 0.
        if not exchange.status or exchange.shadow or not exchange.duration_s > 0.0:
            return
        key = (exchange.version or stable, self._route(exchange.path))
        if key not in self._recent and len(self._recent) >= KEYS_MAX:
            self._forget(now)
        if key not in self._recent and len(self._recent) >= KEYS_MAX:
            key = OVERFLOW
        recent = self._recent.setdefault(key, RecentQuantiles())
        recent.update(exchange.duration_s, max(1.0, exchange.weight), now)

    def quantiles(self, now: float) -> Mapping[tuple[str, str], list[float]]:
        """(version, route) to the durations in seconds at `SHARES`, where there are any."""
        found: dict[tuple[str, str], list[float]] = {}
        for key, recent in sorted(self._recent.items()):
            durations = recent.window(now).quantiles(SHARES)
            if durations is not None:
                found[key] = durations
        return found

    def _forget(self, now: float) -> None:
        """Versions and routes that nobody asks any more make room."""
        for key, recent in list(self._recent.items()):
            if not recent.window(now).weight:
                del self._recent[key]
