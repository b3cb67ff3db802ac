"""Idle connections to one upstream address, the most recently used one first.

Last in, first out keeps the busy ones warm and lets the others grow old and be closed. A pooled
connection still reads: the server's end of file removes it at once, so what `take` gives was open
when the loop last looked. The gap that stays is what the one retry is for.
"""

from typing import TYPE_CHECKING

from agent.edge.answer_heads import AnswerHeads

if TYPE_CHECKING:
    from agent.edge.tls import Contexts
    from agent.edge.upstream import UpstreamConnection


class Pool:
    """Idle connections to one address."""

    __slots__ = ("address", "closed", "contexts", "heads", "idle", "idle_max", "idle_s")

    def __init__(
        self, address: str, *, idle_s: float, idle_max: int, contexts: "Contexts | None" = None
    ) -> None:
        self.address = address
        self.contexts = contexts  # of TLS, where the address asks for it
        self.closed = False
        self.heads = AnswerHeads()
        self.idle_s = idle_s
        self.idle_max = idle_max
        self.idle: list[UpstreamConnection] = []  # given back at `idle_since`: ascending

    def __len__(self) -> int:
        return len(self.idle)

    def take(self, now: float) -> "UpstreamConnection | None":
        if not self.idle:
            return None
        connection = self.idle.pop()
        if now - connection.idle_since > self.idle_s:
            connection.close()
            self.close_idle()  # the youngest was too old, so all are
            return None
        return connection

    def remove(self, connection: "UpstreamConnection") -> None:
        """The server has closed it; not being here is fine, for it may just be in use."""
        if connection in self.idle:
            self.idle.remove(connection)

    def expire(self, now: float) -> None:
        """Close what has idled too long; the oldest come first."""
        old = 0
        while old < len(self.idle) and now - self.idle[old].idle_since > self.idle_s:
            old += 1
        expired = self.idle[:old]
        del self.idle[:old]
        for connection in expired:
            connection.close()

    def close_idle(self) -> None:
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """For good: what is in use now is closed when it comes back."""
        self.closed = True
        self.idle_max = 0
        self.close_idle()
