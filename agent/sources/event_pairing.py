"""Requests and responses that arrive as two events, joined: bounded, timed, and pure.

Time is an argument. Whatever is not joined is counted by reason, so that completeness can be told:
do not let a half go without a count. A request that stays alone is no failure of the model: KServe
sends no response event for an answer that was not 200, nor for one that was lost on the way.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from agent.wire.cloudevents import CloudEvent

Side: TypeAlias = Literal["request", "response"]
Key: TypeAlias = tuple[str, ...]

# Keys that are done with are remembered, so that a retry is known as one. A key is small.
DONE_MAX: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """One of the two events of an exchange."""

    key: Key
    side: Side
    event: CloudEvent
    arrived_at: float  # unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    request: Half
    response: Half


@dataclass(slots=True, kw_only=True)
class Pairing:
    """Halves wait for each other here.

    Parameters
    ----------
    wait_s: how long a half waits.
    bytes_max: of all that wait; the oldest go first.
    halves_max: how many may wait.
    """

    wait_s: float
    bytes_max: int
    halves_max: int
    paired: int = 0
    held_bytes: int = 0
    # unmatched_request, unmatched_response, pairing_full, duplicate_event
    dropped: Counter[str] = field(default_factory=Counter)
    _waiting: OrderedDict[Key, Half] = field(default_factory=OrderedDict)
    _done: OrderedDict[Key, float] = field(default_factory=OrderedDict)

    def take(self, half: Half, now: float) -> Pair | None:
        """The pair that this half completes, if it does."""
        self.expire(now)
        if half.key in self._done:
            self.dropped["duplicate_event"] += 1
            return None
        other = self._waiting.get(half.key)
        if other is None:
            self._wait(half)
            return None
        if other.side == half.side:
            # Sent again: the first one stands, or a pair would be made twice.
            self.dropped["duplicate_event"] += 1
            return None
        self._forget(half.key)
        self._remember(half.key, now)
        self.paired += 1
        asked, said = (other, half) if half.side == "response" else (half, other)
        return Pair(request=asked, response=said)

    def expire(self, now: float) -> None:
        """Let go of what waited too long."""
        while self._waiting:
            key, oldest = next(iter(self._waiting.items()))
            if now - oldest.arrived_at < self.wait_s:
                break
            self._forget(key)
            self.dropped[f"unmatched_{oldest.side}"] += 1
        while self._done:
            key, at = next(iter(self._done.items()))
            if now - at < self.wait_s and len(self._done) <= DONE_MAX:
                break
            del self._done[key]

    @property
    def waiting(self) -> int:
        """Halves that wait now."""
        return len(self._waiting)

    @property
    def completeness(self) -> float | None:
        """Which share of the exchanges that were heard of was had whole; None before any."""
        names = ("unmatched_request", "unmatched_response", "pairing_full")
        lost = sum(self.dropped[name] for name in names)
        known = self.paired + lost
        return self.paired / known if known else None

    def _wait(self, half: Half) -> None:
        self._waiting[half.key] = half
        self.held_bytes += half.event.size
        while self.held_bytes > self.bytes_max or len(self._waiting) > self.halves_max:
            self._forget(next(iter(self._waiting)))
            self.dropped["pairing_full"] += 1

    def _forget(self, key: Key) -> None:
        self.held_bytes -= self._waiting.pop(key).event.size

    def _remember(self, key: Key, now: float) -> None:
        self._done[key] = now
        while len(self._done) > DONE_MAX:
            self._done.popitem(last=False)
