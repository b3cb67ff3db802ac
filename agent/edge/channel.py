"""The wire format between edge and analysis: frames, and the records inside them. Pure bytes.

Both ends import this file, so it stays inside the standard library and touches no socket.
One frame is ``length u32 | kind u8 | payload``, little-endian, the length counting the payload
alone. How a stream of frames was cut into reads never matters (`FrameDecoder`).

edge to analysis
    EXCHANGE   one kept exchange: the fixed part `_EXCHANGE`, then id, version, request bytes and
               response bytes as they were forwarded, heads included.
    OUTCOMES   how requests of one slot went while a candidate was routed: slot u8, length of the
               version u8, version, then one fixed `_OUTCOME` for each request.
    COUNTERS   JSON, cumulative since the edge started; see `Counters.snapshot`.
    SPLICE     what passes on HTTP/2 connections: records of `journal.py`, which describes them.
    SOURCE_COUNTERS  JSON, cumulative, of a source that is no edge: {dropped: {reason: n},
               completeness: share of what passed that it has whole, 0 to 1, or null}
analysis to edge
    ROUTE      JSON {generation, stable: {address, version}, candidate: {address, version} | null,
               weight, shadow, lease_s}
    SAMPLING   JSON {rate, salt, also, errors, error_codes}: share of the uniform stratum, share
               that analysis chooses from, share of those that end with one of the codes (see
               `counters.CODES`). The salt is hexadecimal.

The codes of ids, slots and outcomes are positions in the tuples below: append, never reorder.
"""

import struct
from dataclasses import dataclass
from typing import Final, Literal

EXCHANGE: Final = 1
OUTCOMES: Final = 2
COUNTERS: Final = 3
SPLICE: Final = 4
SOURCE_COUNTERS: Final = 5
ROUTE: Final = 16
SAMPLING: Final = 17

ID_ORIGINS: Final[tuple[Literal["x-request-id", "ce-id", "traceparent", "minted"], ...]] = (
    "x-request-id",
    "ce-id",
    "traceparent",
    "minted",
)
SLOTS: Final[tuple[Literal["stable", "candidate"], ...]] = ("stable", "candidate")
OUTCOME_NAMES: Final[
    tuple[Literal["ok", "client_disconnect", "upstream_unreachable", "timeout"], ...]
] = ("ok", "client_disconnect", "upstream_unreachable", "timeout")

# Two captured sides of at most 16 MiB each and their heads fit; anything longer is a broken peer.
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024

_FRAME = struct.Struct("<IB")
FRAME_HEAD_BYTES: Final = _FRAME.size
# slot, outcome, id origin, flags | started, first byte and first byte of the body (-1: none),
# duration, weight | draw | bytes of id, version, request, response
_EXCHANGE = struct.Struct("<BBBBdddddQHHII")
_WHOLE_EXCHANGE = struct.Struct(_FRAME.format + _EXCHANGE.format[1:])  # both, packed at once
_OUTCOME = struct.Struct("<BBHffQd")  # outcome, flags, status, duration, first byte, key, at
OUTCOME_BYTES: Final = _OUTCOME.size
_REQUEST_TRUNCATED = 1
_RESPONSE_TRUNCATED = 2
_SHADOW = 4
_BEYOND_UNIFORM = 8


class ChannelError(ValueError):
    """Bytes that no edge writes: the channel cannot be read any further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRecord:
    """One kept exchange as the edge saw it; the heads inside are not parsed yet.

    `draw` is the 64-bit hash that decided about keeping it, 0 where nothing had to be decided.
    `uniform` is false for what only a strategy beyond the uniform rate has kept. `shadow` marks
    the answer of a candidate that the client never saw.
    """

    slot: int
    outcome: int
    id_from: int
    id: bytes
    version: bytes
    request: bytes
    request_truncated: bool
    response: bytes
    response_truncated: bool
    started_at: float
    first_byte_s: float | None
    first_body_s: float | None = None
    duration_s: float
    weight: float
    draw: int = 0
    uniform: bool = True
    shadow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRecord:
    """How one request went; `key` is a hash of the client's key, else of the request id."""

    outcome: int
    status: int
    duration_s: float
    first_byte_s: float | None
    key: int
    at: float
    shadow: bool = False


def frame(kind: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), kind) + payload


def frame_head(kind: int, payload_bytes: int) -> bytes:
    """What stands before a payload that is sent in parts."""
    return _FRAME.pack(payload_bytes, kind)


def exchange_head(
    slot: int,
    outcome: int,
    id_from: int,
    id: bytes,
    version: bytes,
    request_bytes: int,
    request_truncated: bool,
    response_bytes: int,
    response_truncated: bool,
    started_at: float,
    first_byte_s: float | None,
    duration_s: float,
    weight: float,
    first_body_s: float | None = None,
    draw: int = 0,
    uniform: bool = True,
    shadow: bool = False,
) -> bytes:
    """Everything of an exchange's frame that comes before the bytes of request and response.

    The edge keeps those as references to chunks that it forwarded, and joins them only once,
    with all else of a batch.
    """
    fixed = _WHOLE_EXCHANGE.pack(
        _EXCHANGE.size + len(id) + len(version) + request_bytes + response_bytes,
        EXCHANGE,
        slot,
        outcome,
        id_from,
        request_truncated * _REQUEST_TRUNCATED
        | response_truncated * _RESPONSE_TRUNCATED
        | shadow * _SHADOW
        | (not uniform) * _BEYOND_UNIFORM,
        started_at,
        -1.0 if first_byte_s is None else first_byte_s,
        -1.0 if first_body_s is None else first_body_s,
        duration_s,
        weight,
        draw,
        len(id),
        len(version),
        request_bytes,
        response_bytes,
    )
    return fixed + id + version


def encode_exchange(record: ExchangeRecord) -> bytes:
    head = exchange_head(
        slot=record.slot,
        outcome=record.outcome,
        id_from=record.id_from,
        id=record.id,
        version=record.version,
        request_bytes=len(record.request),
        request_truncated=record.request_truncated,
        response_bytes=len(record.response),
        response_truncated=record.response_truncated,
        started_at=record.started_at,
        first_byte_s=record.first_byte_s,
        duration_s=record.duration_s,
        weight=record.weight,
        first_body_s=record.first_body_s,
        draw=record.draw,
        uniform=record.uniform,
        shadow=record.shadow,
    )
    return head + record.request + record.response


def decode_exchange(payload: bytes) -> ExchangeRecord:
    if len(payload) < _EXCHANGE.size:
        raise ChannelError("exchange record is shorter than its fixed part")
    (
        slot,
        outcome,
        id_from,
        flags,
        started_at,
        first_byte_s,
        first_body_s,
        duration_s,
        weight,
        draw,
        id_bytes,
        version_bytes,
        request_bytes,
        response_bytes,
    ) = _EXCHANGE.unpack_from(payload)
    version_at = _EXCHANGE.size + id_bytes
    request_at = version_at + version_bytes
    response_at = request_at + request_bytes
    if response_at + response_bytes != len(payload):
        raise ChannelError("exchange record does not have the length it announces")
    if slot >= len(SLOTS) or outcome >= len(OUTCOME_NAMES) or id_from >= len(ID_ORIGINS):
        raise ChannelError("exchange record with an unknown code")
    return ExchangeRecord(
        slot=slot,
        outcome=outcome,
        id_from=id_from,
        id=payload[_EXCHANGE.size : version_at],
        version=payload[version_at:request_at],
        request=payload[request_at:response_at],
        request_truncated=bool(flags & _REQUEST_TRUNCATED),
        response=payload[response_at:],
        response_truncated=bool(flags & _RESPONSE_TRUNCATED),
        started_at=started_at,
        first_byte_s=None if first_byte_s < 0 else first_byte_s,
        first_body_s=None if first_body_s < 0 else first_body_s,
        duration_s=duration_s,
        weight=weight,
        draw=draw,
        uniform=not flags & _BEYOND_UNIFORM,
        shadow=bool(flags & _SHADOW),
    )


def pack_outcome(
    outcome: int,
    status: int,
    duration_s: float,
    first_byte_s: float | None,
    key: int,
    at: float,
    shadow: bool = False,
) -> bytes:
    first = -1.0 if first_byte_s is None else first_byte_s
    return _OUTCOME.pack(outcome, shadow * _SHADOW, status, duration_s, first, key, at)


def encode_outcome(record: OutcomeRecord) -> bytes:
    return pack_outcome(
        record.outcome,
        record.status,
        record.duration_s,
        record.first_byte_s,
        record.key,
        record.at,
        record.shadow,
    )


def outcomes_frame(slot: int, version: bytes, records: bytes) -> bytes:
    """One frame of outcomes already encoded and joined, all of one slot and version."""
    return frame(OUTCOMES, bytes((slot, len(version))) + version + records)


def decode_outcomes(payload: bytes) -> tuple[int, bytes, list[OutcomeRecord]]:
    if len(payload) < 2 or payload[0] >= len(SLOTS):
        raise ChannelError("outcomes without a slot")
    start = 2 + payload[1]
    if start > len(payload) or (len(payload) - start) % _OUTCOME.size:
        raise ChannelError("outcomes are cut in the middle of one")
    records = []
    for outcome, flags, status, duration_s, first_byte_s, key, at in _OUTCOME.iter_unpack(
        payload[start:]
    ):
        if outcome >= len(OUTCOME_NAMES):
            raise ChannelError("outcome with an unknown code")
        records.append(
            OutcomeRecord(
                outcome=outcome,
                status=status,
                duration_s=duration_s,
                first_byte_s=None if first_byte_s < 0 else first_byte_s,
                key=key,
                at=at,
                shadow=bool(flags & _SHADOW),
            )
        )
    return payload[0], payload[2:start], records


class FrameDecoder:
    """Turns bytes, however they were cut, into whole frames.

    >>> decoder = FrameDecoder()
    >>> decoder.feed(frame(ROUTE, b"{}")[:3])
    []
    >>> decoder.feed(frame(ROUTE, b"{}")[3:])
    [(16, b'{}')]
    """

    def __init__(self, *, payload_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._held = bytearray()
        self._payload_bytes_max = payload_bytes_max

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Every frame that `data` completes. Raises ChannelError when a limit is broken."""
        held = self._held
        held += data
        frames: list[tuple[int, bytes]] = []
        at = 0
        while len(held) - at >= FRAME_HEAD_BYTES:
            length, kind = _FRAME.unpack_from(held, at)
            if length > self._payload_bytes_max:
                raise ChannelError(f"frame of {length} bytes > {self._payload_bytes_max}")
            end = at + FRAME_HEAD_BYTES + length
            if end > len(held):
                break
            frames.append((kind, bytes(held[at + FRAME_HEAD_BYTES : end])))
            at = end
        del held[:at]
        return frames
