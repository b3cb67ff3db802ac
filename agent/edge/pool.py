"""Idle connections to one upstream address, the most recently used one first.

Last in, first out keeps the busy ones warm and lets the others grow old and be closed. A pooled
connection still reads: the server's end of file removes it at once, so what `take` gives was open
when the loop last looked. The gap that stays is what the one retry is for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.edge.upstream import UpstreamConnection


class Pool:
    """Idle connections to one address."""

    __slots__ = ("_idle", "_idle_max", "_idle_s", "_since", "address", "closed")

    def __init__(self, address: str, *, idle_s: float, idle_max: int) -> None:
        self.address = address
        self.closed = False
        self._idle_s = idle_s
        self._idle_max = idle_max
        self._idle: list[UpstreamConnection] = []
        self._since: list[float] = []  # when each of `_idle` was given back: ascending

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, now: float) -> "UpstreamConnection | None":
        if not self._idle:
            return None
        if now - self._since[-1] > self._idle_s:
            self.close_idle()  # the youngest is too old, so all are
            return None
        self._since.pop()
        return self._idle.pop()

    def give(self, connection: "UpstreamConnection", now: float) -> None:
        if self.closed or len(self._idle) >= self._idle_max:
            connection.close()
            return
        self._idle.append(connection)
        self._since.append(now)

    def remove(self, connection: "UpstreamConnection") -> None:
        """The server has closed it; not being here is fine, for it may just be in use."""
        if connection in self._idle:
            at = self._idle.index(connection)
            del self._idle[at], self._since[at]

    def expire(self, now: float) -> None:
        """Close what has idled too long; the oldest come first."""
        old = 0
        while old < len(self._since) and now - self._since[old] > self._idle_s:
            old += 1
        expired = self._idle[:old]
        del self._idle[:old], self._since[:old]
        for connection in expired:
            connection.close()

    def close_idle(self) -> None:
        idle, self._idle = self._idle, []
        self._since = []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """For good: what is in use now is closed when it comes back."""
        self.closed = True
        self.close_idle()
