"""A request and its response as they pass, and who watches them. See `pairing.py`.

What must not break: bytes are held only within the budget, and given back exactly once.
"""

from typing import Any, Protocol

from agent.edge.heads import HeadReader, RequestHead
from agent.wire.message_ends import ResponseHeads

# Outcomes, as positions in agent.edge.channel.OUTCOME_NAMES; a listener never sees a timeout.
OK, CLIENT_DISCONNECT, UPSTREAM_UNREACHABLE = range(3)


class Budget:
    """How many bytes of bodies may be held: of one side of a pair, and of all pairs together."""

    __slots__ = ("held", "side_bytes_max", "total_bytes_max")

    def __init__(self, *, side_bytes_max: int, total_bytes_max: int) -> None:
        self.side_bytes_max = side_bytes_max
        self.total_bytes_max = total_bytes_max
        self.held = 0


class Pair:
    """A request and its response as they pass; filled while they do."""

    __slots__ = (
        "budget",
        "cell",
        "draw",
        "finished_at",
        "first_body_at",
        "first_byte_at",
        "head",
        "id",
        "kept",
        "outcome",
        "rates",
        "request",
        "request_bytes",
        "request_cut",
        "request_whole",
        "response",
        "response_bytes",
        "response_cut",
        "response_whole",
        "started_at",
        "status",
    )

    head: RequestHead
    id: bytes
    kept: bool  # the observer's, like the three that follow; whether bytes are held is decided once
    draw: int
    rates: Any
    cell: Any

    def __init__(self, head: RequestHead, started_at: float, budget: Budget) -> None:
        self.head = head
        self.started_at = started_at
        self.budget = budget
        self.kept = True
        self.id = head.id
        self.draw = 0
        self.outcome = OK
        self.status = 0
        self.first_byte_at = self.first_body_at = self.finished_at = 0.0  # 0: not yet
        self.request: list[bytes] = []
        self.response: list[bytes] = []
        self.request_bytes = self.response_bytes = 0
        self.request_cut = self.response_cut = False
        self.request_whole = self.response_whole = False

    def add_request(self, data: bytes) -> None:
        budget = self.budget
        size = len(data)
        if (
            self.request_bytes + size > budget.side_bytes_max
            or budget.held + size > budget.total_bytes_max
        ):
            self.request_cut = True
            data = data[: max(0, self._room(self.request_bytes))]
            size = len(data)
        budget.held += size
        self.request_bytes += size
        self.request.append(data)

    def add_response(self, data: bytes) -> None:
        budget = self.budget
        size = len(data)
        if (
            self.response_bytes + size > budget.side_bytes_max
            or budget.held + size > budget.total_bytes_max
        ):
            self.response_cut = True
            data = data[: max(0, self._room(self.response_bytes))]
            size = len(data)
        budget.held += size
        self.response_bytes += size
        self.response.append(data)

    def _room(self, have: int) -> int:
        budget = self.budget
        return min(budget.side_bytes_max - have, budget.total_bytes_max - budget.held)

    def release(self) -> None:
        """Its bytes are not held any more."""
        self.budget.held -= self.request_bytes + self.response_bytes
        self.request_bytes = self.response_bytes = 0


class Observer(Protocol):
    """Who wants to know; the three readers below are shared by all connections."""

    requests: HeadReader
    responses: ResponseHeads
    budget: Budget

    def begun(self, pair: Pair) -> None:
        """A request's head is there: whether the pair is kept is decided here, once."""
        ...

    def gave_up(self, pair: Pair, reason: str) -> None:
        """A pair that was begun will not be whole."""
        ...

    def drop(self, reason: str) -> None:
        """Something that is no pair was lost, or is none that this can read."""
        ...
