"""Analysis' end of the channel to the edge: records come in, routes and sampling go out.

Whatever the edge captured from the wire may be malformed: that is counted by reason and never
ends the reading. Only a channel that is itself broken does, and then a new one is needed.
"""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent.edge import channel
from agent.edge.journal import decode_records
from agent.exchange import Exchange, ExchangeOutcome, Slot
from agent.sources.grpc_calls import CallTally, GrpcCalls
from agent.sources.source import SourceName, kept_headers
from agent.wire.http1 import WireError, parse_request, parse_response

_HASHES = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    address: str  # "127.0.0.1:8000", "[::1]:8000" or "unix:/path"
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Who gets which share. An edge keeps the newest generation it was told.

    The candidate's share falls to 0 by itself `lease_s` after the last route that named it, and
    so does `shadow`, the share of the stable model's requests that it is sent copies of.
    """

    generation: int
    stable: Upstream
    candidate: Upstream | None = None
    weight: float = 0.0
    shadow: float = 0.0
    lease_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one request went while a candidate was routed, of whichever slot."""

    slot: Slot
    version: str
    outcome: ExchangeOutcome
    status: int  # 0 when there was no response
    duration_s: float
    first_byte_s: float | None
    key: int  # 64-bit hash of the client's key, else of the request id
    at: float  # unix seconds
    shadow: bool = False  # of a copy: no client has seen it


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCounters:
    """All requests of one version and route since the edge started."""

    version: str
    route: str
    codes: Mapping[str, int]  # 1xx .. 5xx, client_disconnect, upstream_unreachable, timeout
    in_flight: int
    duration_counts: tuple[int, ...]  # one for each bound, and one for what is above the last
    duration_sum_s: float
    first_byte_counts: tuple[int, ...]
    first_byte_sum_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCounters:
    """Cumulative since the edge with this `start_id` started; another id means from 0 again."""

    start_id: str
    started_at: float
    at: float
    bounds_s: tuple[float, ...]  # upper bounds, inclusive
    routes: tuple[RouteCounters, ...]
    drops: Mapping[str, int]  # exchanges, outcomes or captured bytes lost, by reason
    refused: Mapping[str, int]  # requests answered without asking the upstream, by reason
    kept: int  # exchanges handed to the channel
    retries: int
    client_connections: int  # open now
    upstream_connections: int  # open now
    upstream_connects: int
    generation: int  # of the route in force
    weight: float  # the candidate's share in force: 0 once its lease has run out
    capture_s: float = 0.0  # CPU that keeping exchanges has cost, beyond relaying
    shadow_copies: Mapping[str, int] = field(default_factory=dict)  # by outcome, or why dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCounters:
    """What a source that is no edge has lost since it started, and which share it has whole."""

    dropped: Mapping[str, int]
    completeness: float | None


class EdgeChannel:
    """One connection to one edge; made anew whenever either side is restarted.

    `run` reads until the edge closes its end. `send_*` may be called at any time, before `run`
    as well. Callbacks run in the event loop and must not block.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_exchange: Callable[[Exchange], object],
        on_outcomes: Callable[[Sequence[Outcome]], None],
        on_counters: Callable[[EdgeCounters], None],
        *,
        source: SourceName = "proxy",
        on_source: Callable[[SourceCounters], object] | None = None,
        headers_also: Iterable[str] = (),
        calls: CallTally | None = None,
    ) -> None:
        """`calls` is told of every call on HTTP/2 connections; without it they are passed over."""
        self._sock = sock
        self._source: SourceName = source
        self._on_exchange = on_exchange
        self._on_outcomes = on_outcomes
        self._on_counters = on_counters
        self._on_source = on_source
        self._headers_also = tuple(headers_also)
        self._decoder = channel.FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._ended = asyncio.Event()
        self.malformed: Counter[str] = Counter()
        self._calls: GrpcCalls | None = None
        if calls is not None:
            self._calls = GrpcCalls(
                calls, on_exchange, dropped=self.malformed, headers_also=self._headers_also
            )

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(
            lambda: _Reading(self._feed, self._ended), sock=self._sock
        )
        for data in self._unsent:
            self._transport.write(data)
        self._unsent.clear()
        try:
            await self._ended.wait()
        finally:
            self.close()

    def close(self) -> None:
        self._ended.set()
        if self._calls is not None:
            self._calls.close()
        if self._transport is not None:
            self._transport.close()
        else:
            self._sock.close()

    def send_route(self, route: Route) -> None:
        candidate = route.candidate
        self._send(
            channel.ROUTE,
            {
                "generation": route.generation,
                "stable": {"address": route.stable.address, "version": route.stable.version},
                "candidate": candidate
                and {"address": candidate.address, "version": candidate.version},
                "weight": route.weight,
                "shadow": route.shadow,
                "lease_s": route.lease_s,
            },
        )

    def send_sampling(
        self,
        *,
        rate: float,
        salt: bytes,
        also: float = 0.0,
        errors: float = 0.0,
        error_codes: Sequence[str] = (),
    ) -> None:
        order = {"rate": rate, "salt": salt.hex(), "also": also, "errors": errors}
        self._send(channel.SAMPLING, {**order, "error_codes": list(error_codes)})

    def _send(self, kind: int, body: Mapping[str, object]) -> None:
        data = channel.frame(kind, json.dumps(body).encode())
        if self._transport is None:
            self._unsent.append(data)
        elif not self.closed:
            self._transport.write(data)

    def _feed(self, data: bytes) -> None:
        try:
            taken = [self._take(kind, payload) for kind, payload in self._decoder.feed(data)]
        except (channel.ChannelError, KeyError, TypeError, ValueError):
            # Past a broken frame nothing can be trusted: end, and let a new channel be made.
            self.malformed["channel"] += 1
            self.close()
            return
        for deliver in taken:
            if deliver is not None:
                self._deliver(deliver)

    def _deliver(self, deliver: Callable[[], object]) -> None:
        try:
            deliver()
        except Exception as error:
            # One exchange that a receiver cannot stand must not cost all that come after it.
            self.malformed["receiver"] += 1
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a receiver of edge records failed", "exception": error}
            )

    def _take(self, kind: int, payload: bytes) -> Callable[[], object] | None:
        if kind == channel.EXCHANGE:
            record = channel.decode_exchange(payload)
            try:
                exchange = to_exchange(record, source=self._source, headers_also=self._headers_also)
            except WireError as error:
                self.malformed[error.reason] += 1
                return None
            return partial(self._on_exchange, exchange)
        if kind == channel.OUTCOMES:
            return partial(self._on_outcomes, _to_outcomes(payload))
        if kind == channel.COUNTERS:
            return partial(self._on_counters, to_counters(json.loads(payload)))
        if kind == channel.SPLICE and self._calls is not None:
            return partial(self._calls.take, list(decode_records(payload)))
        if kind == channel.SOURCE_COUNTERS and self._on_source is not None:
            return partial(self._on_source, to_source_counters(json.loads(payload)))
        return None  # a kind that a newer edge knows and we do not


class _Reading(asyncio.Protocol):
    def __init__(self, feed: Callable[[bytes], None], ended: asyncio.Event) -> None:
        self._feed = feed
        self._ended = ended

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()


def to_exchange(
    record: channel.ExchangeRecord,
    *,
    source: SourceName = "proxy",
    headers_also: Iterable[str] = (),
) -> Exchange:
    """Raises WireError when the captured bytes are no HTTP; the caller counts its reason."""
    headers_also = tuple(headers_also)
    request = parse_request(record.request)
    status = 0
    response_headers: Mapping[str, str] = {}
    response_body = b""
    response_whole = True
    if record.response:
        response = parse_response(record.response, method=request.method)
        status = response.status
        response_headers = kept_headers(response.headers, also=headers_also)
        response_body = response.body
        response_whole = response.complete
    id_from = channel.ID_ORIGINS[record.id_from]
    return Exchange(
        id=record.id.decode("latin-1"),
        minted=id_from == "minted",
        id_from=id_from,
        source=source,
        version=record.version.decode("utf-8", "replace"),
        slot=channel.SLOTS[record.slot],
        method=request.method,
        path=request.path,
        query=request.query,
        request_headers=kept_headers(request.headers, also=headers_also),
        request_body=request.body,
        request_truncated=record.request_truncated or not request.complete,
        status=status,
        response_headers=response_headers,
        response_body=response_body,
        response_truncated=record.response_truncated or not response_whole,
        started_at=record.started_at,
        first_byte_s=record.first_byte_s,
        duration_s=record.duration_s,
        outcome=channel.OUTCOME_NAMES[record.outcome],
        weight=record.weight,
        first_body_s=record.first_body_s,
        draw=record.draw / _HASHES,
        uniform=record.uniform,
        shadow=record.shadow,
    )


def _to_outcomes(payload: bytes) -> list[Outcome]:
    slot, version, records = channel.decode_outcomes(payload)
    name = version.decode("utf-8", "replace")
    return [
        Outcome(
            slot=channel.SLOTS[slot],
            version=name,
            outcome=channel.OUTCOME_NAMES[record.outcome],
            status=record.status,
            duration_s=record.duration_s,
            first_byte_s=record.first_byte_s,
            key=record.key,
            at=record.at,
            shadow=record.shadow,
        )
        for record in records
    ]


def to_counters(body: Mapping[str, Any]) -> EdgeCounters:
    """From the JSON of a COUNTERS frame. Raises KeyError, TypeError or ValueError."""
    return EdgeCounters(
        start_id=str(body["start_id"]),
        started_at=float(body["started_at"]),
        at=float(body["at"]),
        bounds_s=tuple(float(bound) for bound in body["bounds_s"]),
        routes=tuple(_to_route_counters(cell) for cell in body["routes"]),
        drops={str(reason): int(count) for reason, count in body["drops"].items()},
        refused={str(reason): int(count) for reason, count in body["refused"].items()},
        kept=int(body["kept"]),
        retries=int(body["retries"]),
        client_connections=int(body["client_connections"]),
        upstream_connections=int(body["upstream_connections"]),
        upstream_connects=int(body["upstream_connects"]),
        generation=int(body["generation"]),
        weight=float(body["weight"]),
        capture_s=float(body.get("capture_s", 0.0)),
        shadow_copies={str(name): int(n) for name, n in body.get("shadow_copies", {}).items()},
    )


def to_source_counters(body: Mapping[str, Any]) -> SourceCounters:
    """From the JSON of a SOURCE_COUNTERS frame. Raises KeyError, TypeError or ValueError."""
    ratio = body["completeness"]
    return SourceCounters(
        dropped={str(reason): int(count) for reason, count in body["dropped"].items()},
        completeness=None if ratio is None else min(1.0, max(0.0, float(ratio))),
    )


def _to_route_counters(cell: Mapping[str, Any]) -> RouteCounters:
    return RouteCounters(
        version=str(cell["version"]),
        route=str(cell["route"]),
        codes={str(code): int(count) for code, count in cell["codes"].items()},
        in_flight=int(cell["in_flight"]),
        duration_counts=tuple(int(count) for count in cell["duration_counts"]),
        duration_sum_s=float(cell["duration_sum_s"]),
        first_byte_counts=tuple(int(count) for count in cell["first_byte_counts"]),
        first_byte_sum_s=float(cell["first_byte_sum_s"]),
    )
