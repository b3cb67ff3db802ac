"""Messages of gRPC inside the data of a stream: a flag, a length, and that many bytes.

Sans-io. A call is worth decoding when each side sent one whole message; what must not break is
that a message is never taken for whole unless its length says so.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

GrpcReason: TypeAlias = Literal["grpc_encoding", "grpc_message_too_large"]

_PREFIX_BYTES: Final = 5
# As a body's, in agent/decoders: a kilobyte can hold a gigabyte.
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
_WINDOW_BITS: Final[Mapping[str, int]] = {"gzip": 31, "deflate": 15}
# By number, as gRPC's statuscodes.md gives them; the names are labels of a metric.
STATUSES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
# What each would be in HTTP, in the same order; 499 is nginx's for a client that left.
HTTP_STATUSES: Final = (
    200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
)  # fmt: skip
OK, CANCELLED, UNKNOWN = 0, 1, 2
DEADLINE_EXCEEDED: Final = 4
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
# What a server means that resets a stream instead of answering, by the error code of HTTP/2.
_OF_RESET: Final[Mapping[int, int]] = {7: UNAVAILABLE, 8: CANCELLED, 11: 8, 12: 7}
_TIMEOUT_UNITS_S: Final[Mapping[str, float]] = {
    "H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9,
}  # fmt: skip


class GrpcError(ValueError):
    """A whole message that cannot be unpacked. The caller counts it by reason and moves on."""

    def __init__(self, reason: GrpcReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: GrpcReason = reason  # a metric label: the set is closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """What one side of a call has sent: its first message, and whether that was all."""

    first: bytes  # without its prefix; unpacked if it was whole
    whole: bool  # not cut
    more: bool  # another message has at least begun: the call is a stream


def first_message(data: bytes, encoding: str) -> Messages:
    """Raises GrpcError.

    >>> first_message(b"\\0\\0\\0\\0\\x02hi", "identity")
    Messages(first=b'hi', whole=True, more=False)
    """
    if len(data) < _PREFIX_BYTES:
        return Messages(first=b"", whole=False, more=False)
    length = int.from_bytes(data[1:_PREFIX_BYTES], "big")
    end = _PREFIX_BYTES + length
    message = data[_PREFIX_BYTES:end]
    whole = len(message) == length
    if whole and data[0]:
        message = _unpacked(message, encoding)
    return Messages(first=message, whole=whole, more=len(data) > end)


def _unpacked(message: bytes, encoding: str) -> bytes:
    window_bits = _WINDOW_BITS.get(encoding.strip().lower())
    if window_bits is None:
        raise GrpcError("grpc_encoding", f"messages packed by {encoding[:40]!r}")
    inflate = zlib.decompressobj(window_bits)
    try:
        plain = inflate.decompress(message, MESSAGE_BYTES_MAX + 1)
    except zlib.error as error:
        raise GrpcError("grpc_encoding", f"broken packing: {error}") from None
    if len(plain) > MESSAGE_BYTES_MAX:
        raise GrpcError("grpc_message_too_large", f"over {MESSAGE_BYTES_MAX} bytes")
    if not inflate.eof:
        raise GrpcError("grpc_encoding", "broken packing: it ends early")
    return plain


def grpc_status(text: str | None) -> int | None:
    """The number of a `grpc-status` trailer; one that no server should send is UNKNOWN.

    >>> grpc_status("5"), grpc_status("99"), grpc_status(None)
    (5, 2, None)
    """
    if text is None:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else UNKNOWN
    return number if number < len(STATUSES) else UNKNOWN


def status_of_reset(error: int) -> int:
    """The status of a call that its server has reset."""
    return _OF_RESET.get(error, INTERNAL)


def timeout_s(text: str | None) -> float | None:
    """The `grpc-timeout` of a call in seconds.

    >>> timeout_s("250m"), timeout_s("1H"), timeout_s("soon")
    (0.25, 3600.0, None)
    """
    if not text or not 2 <= len(text) <= 9 or not (text[:-1].isascii() and text[:-1].isdigit()):
        return None
    unit = _TIMEOUT_UNITS_S.get(text[-1])
    return None if unit is None else int(text[:-1]) * unit
