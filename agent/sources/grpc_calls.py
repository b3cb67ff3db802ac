"""Calls on HTTP/2 connections that the edge splices: its journal in, statuses and exchanges out.

Every call is counted, with its status and how long it took; those that the edge kept become
exchanges. What must not break: a connection of which one header block is missing or unreadable is
given up as a whole, counted by reason, and never guessed at; the calls that it had open are lost.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from agent.edge.draw import DRAWS
from agent.edge.journal import (
    CLOSED,
    FROM_CLIENT,
    FROM_SERVER,
    KEPT,
    OPENED,
    Record,
    decode_kept,
)
from agent.exchange import Exchange, ExchangeOutcome
from agent.sources.call import Call, identity, status_name
from agent.sources.source import kept_headers
from agent.wire.grpc_message import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    HTTP_STATUSES,
    UNAVAILABLE,
    UNKNOWN,
    GrpcError,
    Messages,
    first_message,
    grpc_status,
    status_of_reset,
    timeout_s,
)
from agent.wire.http2 import DataCame, DirectionReader, Event, HeadersCame, Http2Error, Reset

CONNECTIONS_MAX: Final = 4_096  # the edge's own default
STREAMS_MAX: Final = 4_096  # of one connection; servers allow a few hundred at once
HELD_BYTES_MAX: Final = 64 * 1024 * 1024  # of calls that are kept and not over
# Health checks and reflection are of gRPC itself, and no model is asked.
_OF_GRPC_ITSELF: Final = "/grpc."


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """One call, or one plain HTTP/2 request, as it is counted."""

    version: str
    path: str  # without the query
    grpc_status: str | None  # by name; None: it is no gRPC
    status: int  # as in HTTP; of no meaning unless the outcome is ok
    outcome: ExchangeOutcome
    duration_s: float
    first_byte_s: float | None


class CallTally(Protocol):
    """Who counts calls. Each that has begun either ends or is lost, once."""

    def begun(self, version: str, path: str, *, is_grpc: bool) -> None: ...

    def ended(self, call: CallEnded) -> None: ...

    def lost(self, version: str, path: str, *, is_grpc: bool) -> None: ...


class _Connection:
    """One spliced connection, as far as it was told."""

    __slots__ = ("from_client", "from_server", "kept", "streams", "version")

    def __init__(self, version: str) -> None:
        self.version = version
        self.from_client = DirectionReader()
        self.from_server = DirectionReader()
        self.streams: dict[int, Call] = {}
        self.kept: dict[int, tuple[int, float, bool]] = {}  # streams whose headers are to come


class GrpcCalls:
    """Takes records in the order the edge wrote them. One for each channel: numbers of
    connections mean nothing beyond it."""

    def __init__(
        self,
        tally: CallTally,
        on_exchange: Callable[[Exchange], object],
        *,
        dropped: Counter[str],
        headers_also: Iterable[str] = (),
    ) -> None:
        self._tally = tally
        self._on_exchange = on_exchange
        self._headers_also = tuple(headers_also)
        self._connections: dict[int, _Connection] = {}
        self._held_bytes = 0
        self.dropped = dropped

    def take(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.what == OPENED:
                self._open(record)
                continue
            connection = self._connections.get(record.connection)
            if connection is None:
                continue  # of an edge that was told about by another analysis, or given up
            try:
                self._take(connection, record)
            except Http2Error as error:
                self.dropped[error.reason] += 1
                self._give_up(record.connection)

    def close(self) -> None:
        """The channel is gone, and with it what the open calls will come to."""
        for number in list(self._connections):
            self._give_up(number)

    def _open(self, record: Record) -> None:
        if record.connection in self._connections:
            self._give_up(record.connection)
        if len(self._connections) >= CONNECTIONS_MAX:
            self.dropped["http2_connections_max"] += 1
            self._give_up(next(iter(self._connections)))
        version = record.payload.decode("utf-8", "replace")
        self._connections[record.connection] = _Connection(version)

    def _take(self, connection: _Connection, record: Record) -> None:
        if record.what == FROM_CLIENT:
            for event in connection.from_client.feed(record.payload):
                self._from_client(connection, event, record.at)
        elif record.what == FROM_SERVER:
            for event in connection.from_server.feed(record.payload):
                self._from_server(connection, event, record.at)
        elif record.what == KEPT:
            if len(connection.kept) < STREAMS_MAX:
                connection.kept[record.stream] = decode_kept(record.payload)
        elif record.what == CLOSED:
            self._close(record)
        else:
            self._give_up(record.connection)

    # What passes.

    def _from_client(self, connection: _Connection, event: Event, at: float) -> None:
        call = connection.streams.get(event.stream)
        if isinstance(event, HeadersCame):
            if call is None:
                self._begin(connection, event, at)
        elif call is None:
            return
        elif isinstance(event, DataCame):
            self._hold(call.request, event.data)
        elif isinstance(event, Reset):
            self._left(connection, event.stream, call, at)

    def _begin(self, connection: _Connection, event: HeadersCame, at: float) -> None:
        if len(connection.streams) >= STREAMS_MAX:
            self.dropped["http2_streams_max"] += 1
            return
        kept = connection.kept.pop(event.stream, None)
        call = connection.streams[event.stream] = Call(event.headers, started_at=at, kept=kept)
        self._tally.begun(connection.version, call.path, is_grpc=call.is_grpc)

    def _from_server(self, connection: _Connection, event: Event, at: float) -> None:
        call = connection.streams.get(event.stream)
        if call is None:
            return
        if isinstance(event, HeadersCame):
            call.answer(event.headers, at)
        elif isinstance(event, DataCame):
            if call.first_body_at is None and event.data:
                call.first_body_at = at
            self._hold(call.response, event.data)
        else:
            self._end(connection, event.stream, at, status=status_of_reset(event.error))
            return
        if event.ends:
            status = grpc_status(call.trailers.get("grpc-status"))
            if status is None and (call.status == 200 if call.is_grpc else not call.status):
                status = UNKNOWN  # it has ended without saying how
            self._end(connection, event.stream, at, status=status)

    def _left(self, connection: _Connection, stream: int, call: Call, at: float) -> None:
        """The client has reset it: it will not wait any longer, or does not want it any more."""
        limit_s = timeout_s(call.headers.get("grpc-timeout"))
        late = limit_s is not None and at - call.started_at >= limit_s
        self._end(connection, stream, at, status=DEADLINE_EXCEEDED if late else CANCELLED)

    def _hold(self, parts: list[bytes], data: bytes) -> None:
        if not data:
            return
        if self._held_bytes + len(data) > HELD_BYTES_MAX:
            self.dropped["grpc_memory"] += 1  # a message that is not whole is not decoded
            return
        self._held_bytes += len(data)
        parts.append(data)

    # How it ends.

    def _close(self, record: Record) -> None:
        connection = self._connections.pop(record.connection)
        by_upstream = record.stream == 1
        for stream in list(connection.streams):
            status = UNAVAILABLE if by_upstream else CANCELLED
            self._end(connection, stream, record.at, status=status, by_upstream=by_upstream)

    def _give_up(self, number: int) -> None:
        connection = self._connections.pop(number)
        for call in connection.streams.values():
            self.dropped["http2_call_lost"] += 1
            self._held_bytes -= call.held_bytes
            self._tally.lost(connection.version, call.path, is_grpc=call.is_grpc)

    def _end(
        self,
        connection: _Connection,
        stream: int,
        at: float,
        *,
        status: int | None,
        by_upstream: bool = False,
    ) -> None:
        call = connection.streams.pop(stream)
        self._held_bytes -= call.held_bytes
        outcome = _outcome(status, by_upstream=by_upstream)
        ended = CallEnded(
            version=connection.version,
            path=call.path,
            grpc_status=status_name(status, call.status) if call.is_grpc else None,
            status=call.status if status is None else HTTP_STATUSES[status],
            outcome=outcome,
            duration_s=max(0.0, at - call.started_at),
            first_byte_s=call.first_byte_s,
        )
        self._tally.ended(ended)
        if call.kept is not None and not call.path.startswith(_OF_GRPC_ITSELF):
            try:
                exchange = self._exchange(connection.version, call, ended)
            except GrpcError as error:
                self.dropped[error.reason] += 1
                return
            if exchange is not None:
                self._on_exchange(exchange)

    def _exchange(self, version: str, call: Call, ended: CallEnded) -> Exchange | None:
        """None for a call with more than one message in either direction. Raises GrpcError."""
        asked = Messages(first=b"".join(call.request), whole=True, more=False)
        said = Messages(first=b"".join(call.response), whole=True, more=False)
        if call.is_grpc:
            asked = first_message(asked.first, call.headers.get("grpc-encoding", ""))
            said = first_message(said.first, call.answered.get("grpc-encoding", ""))
            if asked.more or said.more:
                return None
        id, id_from = identity(call.headers) or (secrets.token_hex(16), "minted")
        draw, weight, uniform = call.kept or (0, 1.0, True)
        path, _, query = call.target.partition("?")
        body_at = call.first_body_at
        return Exchange(
            id=id,
            minted=id_from == "minted",
            id_from=id_from,
            source="proxy",
            version=version,
            slot="stable",
            method=call.headers.get(":method", ""),
            path=path,
            query=query,
            request_headers=kept_headers(call.headers, also=self._headers_also),
            request_body=asked.first,
            request_truncated=not asked.whole,
            status=ended.status,
            response_headers=kept_headers(call.answered, also=self._headers_also),
            response_body=said.first,
            response_truncated=not said.whole,
            started_at=call.started_at,
            first_byte_s=ended.first_byte_s,
            duration_s=ended.duration_s,
            outcome=ended.outcome,
            weight=weight,
            first_body_s=None if body_at is None else max(0.0, body_at - call.started_at),
            draw=draw / DRAWS,
            uniform=uniform,
        )


def _outcome(status: int | None, *, by_upstream: bool) -> ExchangeOutcome:
    if by_upstream:
        return "upstream_unreachable"
    if status == DEADLINE_EXCEEDED:
        return "timeout"
    return "client_disconnect" if status == CANCELLED else "ok"
