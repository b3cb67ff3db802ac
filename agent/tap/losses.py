"""What the tap did not see whole, by reason, and which share of the traffic it did.

Completeness is about the last minute, because a number since the start would hide that it is bad
now. Kernel drops count packets, not exchanges: how many exchanges they were is estimated. They
show as gaps as well, in connections that go on, so of the two the bigger number counts.
"""

from collections import Counter, deque
from typing import Final, Literal, TypeAlias, get_args

Loss: TypeAlias = Literal[
    "gap",  # bytes of it never passed here
    "unmatched",  # a response whose request was not seen
    "malformed",  # no HTTP/1.1 that could be followed
    "truncated",  # longer than capture_bytes_max, or cut off by its connection's end
    "evicted",  # its connection was forgotten: quiet for too long, or one of too many
    "unended",  # the tap ended, or the connection began anew, in the middle of it
    "http2",  # a connection of HTTP/2, which cannot be read from its middle
    "tls",  # an encrypted connection
    "fragment",  # packets in fragments
    "cut",  # packets longer than the capture's limit
    "other",  # packets that are no TCP
    "rotated",  # under way when flow sampling chose other connections
    "kernel",  # packets that found the ring full
]
LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
# Those that are exchanges, or connections with at least one.
_EXCHANGES: Final = ("unmatched", "malformed", "truncated", "evicted", "unended", "http2", "tls")

_SECONDS: Final = 60


class Losses:
    """Counts since the start, and a minute of them by seconds."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.whole = 0
        self.packets = 0
        self._history: deque[tuple[int, float]] = deque([(0, 0.0)], maxlen=_SECONDS + 1)

    def tick(self) -> None:
        """Called once a second."""
        self._history.append((self.whole, self.lost))

    @property
    def lost(self) -> float:
        """Exchanges since the start that should have been seen and were not, as far as known."""
        counts = self.counts
        known = sum(counts[reason] for reason in _EXCHANGES)
        return known + max(float(counts["gap"]), counts["kernel"] / self._packets_per_pair())

    def _packets_per_pair(self) -> float:
        return max(1.0, self.packets / self.whole) if self.whole else 2.0

    @property
    def completeness(self) -> float | None:
        """Of the last minute; None when nothing has passed."""
        whole, lost = self._history[0]
        whole = self.whole - whole
        lost = max(0.0, self.lost - lost)
        seen = whole + lost
        return whole / seen if seen else None

    def snapshot(self) -> dict[str, object]:
        """The body of a SOURCE_COUNTERS frame. Every reason is there, from zero."""
        return {
            "dropped": {f"tap_{reason}": self.counts[reason] for reason in LOSSES},
            "completeness": self.completeness,
            "whole": self.whole,
        }
