"""One direction of an HTTP/2 connection, from bytes to frames and headers (RFC 9113, RFC 7541).

Sans-io and without a clock. A reader beside the traffic, not an end of it: the server judges what
clients send, this has to be right about what a server accepts and to stop at the first byte that
it cannot place. What must not break: header compression has state, so every header block is
decoded, in order, or none after it is believed. Nothing but `Http2Error` is raised.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import hpack

Http2Reason: TypeAlias = Literal[
    "http2_frame_malformed",
    "http2_headers_malformed",
    "http2_headers_too_large",
]
Headers: TypeAlias = Mapping[str, str]

DATA, HEADERS, _PRIORITY, RST_STREAM = range(4)
_PUSH_PROMISE: Final = 5
_CONTINUATION: Final = 9
_END_STREAM: Final = 1
_END_HEADERS: Final = 4
_PADDED: Final = 8
_PRIORITY_FLAG: Final = 32
_HEAD: Final = struct.Struct(">IBI")
_STREAM: Final = 0x7FFFFFFF

# A block may be spread over frames without end (CVE-2024-27316 and its kin); nginx stops at 32 KiB.
BLOCK_BYTES_MAX: Final = 65_536
# Unpacked, as RFC 9113 counts it: a reference of one byte can stand for 4 KiB.
HEADER_LIST_BYTES_MAX: Final = 262_144
# The default is 4 KiB; whoever negotiates more than this is not followed.
TABLE_BYTES_MAX: Final = 16_384
# A client repeats a few blocks for its whole life; those that differ each time come only once.
_CACHED_MAX: Final = 128
_CACHED_BYTES_MAX: Final = 512


class Http2Error(ValueError):
    """Bytes that cannot be placed: this direction cannot be read any further."""

    def __init__(self, reason: Http2Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Http2Reason = reason  # a metric label: the set is closed


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersCame:
    """A whole header block: a request's, an answer's, or its trailers."""

    stream: int
    headers: Headers  # pseudo-headers among them; repeated ones joined by a comma
    ends: bool  # nothing follows on this stream in this direction


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCame:
    stream: int
    data: bytes  # without padding
    ends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    stream: int
    error: int


Event: TypeAlias = HeadersCame | DataCame | Reset


class DirectionReader:
    """Frames of one direction, however they were cut; those without meaning here are passed over.

    >>> reader = DirectionReader()
    >>> list(reader.feed(bytes.fromhex("00000101050000000182")))
    [HeadersCame(stream=1, headers={':method': 'GET'}, ends=True)]
    """

    def __init__(self) -> None:
        self._held = b""
        self._headers = HeaderReader()
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._block_stream = 0  # 0: no block is open
        self._block_ends = False
        self._promised = False  # the open block is of a request that the server makes up

    def feed(self, data: bytes) -> Iterator[Event]:
        """Raises Http2Error; not to be called again then."""
        held = self._held + data if self._held else data
        at, size = 0, len(held)
        while size - at >= _HEAD.size:
            word, flags, stream = _HEAD.unpack_from(held, at)
            end = at + _HEAD.size + (word >> 8)
            if end > size:
                _require_bearable(word & 0xFF, word >> 8)
                break
            payload = held[at + _HEAD.size : end]
            at = end
            event = self._frame(word & 0xFF, flags, stream & _STREAM, payload)
            if event is not None:
                yield event
        self._held = held[at:] if at else held

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> Event | None:
        if (kind == _CONTINUATION) != bool(self._block_stream):
            raise Http2Error("http2_frame_malformed", "a header block is interrupted, or not begun")
        if kind == HEADERS:
            return self._begin(flags, stream, _fragment(flags, payload))
        if kind == _CONTINUATION:
            if stream != self._block_stream:
                raise Http2Error("http2_frame_malformed", "headers go on in another stream")
            return self._more(flags, payload)
        if kind == DATA:
            if not stream:
                raise Http2Error("http2_frame_malformed", "data of no stream")
            return DataCame(
                stream=stream, data=_unpadded(flags, payload), ends=bool(flags & _END_STREAM)
            )
        if kind == RST_STREAM:
            if len(payload) != 4:
                raise Http2Error("http2_frame_malformed", "a reset without its reason")
            return Reset(stream=stream, error=int.from_bytes(payload, "big"))
        if kind == _PUSH_PROMISE:
            fragment = _unpadded(flags, payload)[4:]
            self._promised = True
            return self._begin(flags & ~_END_STREAM, stream, fragment)
        return None

    def _begin(self, flags: int, stream: int, fragment: bytes) -> Event | None:
        if not stream:
            raise Http2Error("http2_frame_malformed", "headers of no stream")
        self._block_stream = stream
        self._block_ends = bool(flags & _END_STREAM)
        return self._more(flags, fragment)

    def _more(self, flags: int, fragment: bytes) -> Event | None:
        self._block.append(fragment)
        self._block_bytes += len(fragment)
        if self._block_bytes > BLOCK_BYTES_MAX:
            raise Http2Error("http2_headers_too_large", f"a block over {BLOCK_BYTES_MAX} bytes")
        if not flags & _END_HEADERS:
            return None
        block = self._block[0] if len(self._block) == 1 else b"".join(self._block)
        stream, promised = self._block_stream, self._promised
        self._block, self._block_bytes = [], 0
        self._block_stream, self._promised = 0, False
        headers = self._headers.read(block)
        if promised:
            return None
        return HeadersCame(stream=stream, headers=headers, ends=self._block_ends)


class HeaderReader:
    """Header blocks of one direction, in the order they came.

    A client repeats the same block for every call of a kind, and as long as the table of the
    decoder does not change, the same bytes mean the same headers: those are read once. Blocks that
    change the table are never remembered, and make everything remembered worthless.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=HEADER_LIST_BYTES_MAX)
        self._decoder.max_allowed_table_size = TABLE_BYTES_MAX
        self._known: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """Raises Http2Error; what comes after it cannot be read then."""
        found = self._known.get(block)
        if found is not None:
            return found
        try:
            headers = _joined(self._decoder.decode(block, raw=True))
        except hpack.OversizedHeaderListError:
            raise Http2Error("http2_headers_too_large", "a list without end") from None
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise Http2Error("http2_headers_malformed", str(error)[:200]) from None
        if changes_table(block):
            self._known.clear()
        elif len(block) <= _CACHED_BYTES_MAX:
            if len(self._known) >= _CACHED_MAX:
                self._known.clear()
            self._known[block] = headers
        return headers


def changes_table(block: bytes) -> bool:
    """Whether decoding `block` leaves the dynamic table other than it was; in doubt, yes.

    >>> changes_table(b"\\x82\\x84"), changes_table(b"\\x00\\x01a\\x01b"), changes_table(b"\\x40")
    (False, False, True)
    """
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            at = _after_integer(block, at, 7)
        elif first & 0x60:
            return True  # a literal that is added, or another size of the table
        else:
            named = first & 0x0F
            at = _after_integer(block, at, 4)
            for _ in range(1 if named else 2):
                at = _after_string(block, at)
        if at < 0:
            return True
    return at != len(block)


def _after_integer(block: bytes, at: int, prefix_bits: int) -> int:
    mask = (1 << prefix_bits) - 1
    is_long = block[at] & mask == mask
    at += 1
    while is_long:
        if at >= len(block):
            return -1
        is_long = block[at] >= 0x80
        at += 1
    return at


def _after_string(block: bytes, at: int) -> int:
    if not 0 <= at < len(block):
        return -1
    length = block[at] & 0x7F
    end = _after_integer(block, at, 7)
    if length == 0x7F:
        shift = 0
        for byte in block[at + 1 : max(end, 0)]:
            length += (byte & 0x7F) << shift
            shift += 7
    return -1 if end < 0 or end + length > len(block) else end + length


def _joined(headers: Iterable[Any]) -> Headers:
    joined: dict[str, str] = {}
    for name_bytes, value_bytes in headers:
        name, value = name_bytes.decode("latin-1"), value_bytes.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _require_bearable(kind: int, length: int) -> None:
    """Of a frame that is not whole yet: how much of it may come is what data is kept of."""
    if kind != DATA and length > BLOCK_BYTES_MAX:
        raise Http2Error("http2_headers_too_large", f"a frame of {length} bytes")


def _fragment(flags: int, payload: bytes) -> bytes:
    """What a HEADERS frame holds of its block."""
    payload = _unpadded(flags, payload)
    if flags & _PRIORITY_FLAG:
        if len(payload) < 5:
            raise Http2Error("http2_frame_malformed", "a priority is cut")
        return payload[5:]
    return payload


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error("http2_frame_malformed", "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
