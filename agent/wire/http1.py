"""The captured bytes of one HTTP/1.1 request or response, undone into head and body.

Sans-io and without a clock. The bytes were accepted by llhttp before the edge forwarded them, so
this is a reader, not a judge: it has to be right about whole messages and honest about cut ones.
It never raises anything but `WireError`, whose reason is from a closed set.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

WireReason: TypeAlias = Literal[
    "head_incomplete",
    "head_malformed",
    "chunk_malformed",
    "encoding_malformed",
    "encoding_unknown",
    "body_too_large",
]

# Bodies are inflated into memory: a bomb of a few KiB must not become gigabytes.
INFLATED_BYTES_MAX: Final = 64 * 1024 * 1024
# Chunk sizes have at most 16 hexadecimal digits in llhttp as well; a longer one is no size.
_CHUNK_SIZE_DIGITS_MAX: Final = 16
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_BODILESS: Final = frozenset({204, 304})


class WireError(ValueError):
    """Bytes that are no HTTP/1.1 message. The caller counts it by reason and moves on."""

    def __init__(self, reason: WireReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: WireReason = reason  # a metric label: the set is closed


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMessage:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # lower-case names; repeated ones joined by a comma
    body: bytes  # chunked framing undone, content-encoding not
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseMessage:
    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool


def parse_request(data: bytes) -> RequestMessage:
    """One request from its first byte on; what follows its end is left alone.

    >>> parse_request(b"GET /v1/models?x=1 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n").path
    '/v1/models'
    """
    line, headers, body_at = _head(data, 0)
    parts = line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise WireError("head_malformed", "request line")
    path, _, query = _origin_form(parts[1]).partition("?")
    if _is_chunked(headers):
        body, complete = decode_chunked(data[body_at:])
    else:
        body, complete = _sized_body(data, body_at, headers, otherwise=0)
    return RequestMessage(
        method=parts[0], path=path, query=query, headers=headers, body=body, complete=complete
    )


def parse_response(data: bytes, *, method: str = "GET") -> ResponseMessage:
    """The final response in `data`; interim ones (100, 103) before it are passed over."""
    at = 0
    while True:
        line, headers, body_at = _head(data, at)
        status = _status(line)
        if status >= 200 or status == 101:
            break
        at = body_at
    if method == "HEAD" or status in _BODILESS or status == 101:
        return ResponseMessage(status=status, headers=headers, body=b"", complete=True)
    if method == "CONNECT" and status < 300:
        return ResponseMessage(status=status, headers=headers, body=b"", complete=True)
    if _is_chunked(headers):
        body, complete = decode_chunked(data[body_at:])
    else:
        # Without a length the body lasts until the connection ends: whatever is there is all.
        body, complete = _sized_body(data, body_at, headers, otherwise=len(data) - body_at)
    return ResponseMessage(status=status, headers=headers, body=body, complete=complete)


def decode_chunked(data: bytes) -> tuple[bytes, bool]:
    """The body inside chunked framing, and whether its last chunk was there.

    >>> decode_chunked(b"3\\r\\nabc\\r\\n0\\r\\n\\r\\n")
    (b'abc', True)
    >>> decode_chunked(b"5\\r\\nabc")
    (b'abc', False)
    """
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            _chunk_size(data[at:], cut=True)
            return b"".join(parts), False
        size = _chunk_size(data[at:end], cut=False)
        at = end + 2
        if size == 0:
            # Trailers are of no use to analysis; only their end says that the message is whole.
            complete = data.startswith(b"\r\n", at) or data.find(b"\r\n\r\n", at) >= 0
            return b"".join(parts), complete
        parts.append(data[at : at + size])
        at += size
        closing = data[at : at + 2]
        if closing != b"\r\n":
            if at + 2 <= len(data) or (closing and closing != b"\r"):
                raise WireError("chunk_malformed", "chunk is longer than its size")
            return b"".join(parts), False
        at += 2


def decode_content(
    body: bytes, encoding: str, *, bytes_max: int = INFLATED_BYTES_MAX, truncated: bool = False
) -> bytes:
    """The body without its content-encoding (gzip, deflate, identity, or several in a row).

    A truncated body gives what can be had of it.
    """
    codings = [coding.strip().lower() for coding in encoding.split(",") if coding.strip()]
    # Nobody encodes more often in earnest, and each round may inflate a thousandfold.
    if len(codings) > 4:
        raise WireError("encoding_unknown", "more than four encodings")
    for coding in reversed(codings):
        if coding == "identity":
            continue
        if coding in ("gzip", "x-gzip"):
            body = _inflate(body, zlib.MAX_WBITS | 16, bytes_max, truncated)
        elif coding == "deflate":
            body = _inflate_deflate(body, bytes_max, truncated)
        else:
            raise WireError("encoding_unknown", coding[:32])
    if len(body) > bytes_max:
        raise WireError("body_too_large", f"more than {bytes_max} bytes")
    return body


def _inflate_deflate(body: bytes, bytes_max: int, truncated: bool) -> bytes:
    # RFC 9110 means zlib by "deflate"; some servers send the raw stream, and browsers accept it.
    try:
        return _inflate(body, zlib.MAX_WBITS, bytes_max, truncated)
    except WireError as error:
        if error.reason != "encoding_malformed":
            raise
        return _inflate(body, -zlib.MAX_WBITS, bytes_max, truncated)


def _inflate(body: bytes, window_bits: int, bytes_max: int, truncated: bool) -> bytes:
    parts: list[bytes] = []
    room = bytes_max
    while body:
        inflater = zlib.decompressobj(window_bits)
        try:
            part = inflater.decompress(body, room + 1)
        except zlib.error as error:
            raise WireError("encoding_malformed", str(error)) from None
        room -= len(part)
        if room < 0:
            raise WireError("body_too_large", f"more than {bytes_max} bytes inflated")
        parts.append(part)
        if not inflater.eof:
            if truncated:
                break
            raise WireError("encoding_malformed", "stream ends early")
        body = inflater.unused_data  # gzip members may follow one another
        if window_bits <= zlib.MAX_WBITS or not body.startswith(b"\x1f\x8b"):
            break
    return b"".join(parts)


def _head(data: bytes, at: int) -> tuple[str, dict[str, str], int]:
    """First line, headers and where the body begins, of the message that starts at `at`."""
    while data.startswith(b"\r\n", at):  # an empty line before a message is allowed (RFC 9112 2.2)
        at += 2
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        raise WireError("head_incomplete", f"{len(data) - at} bytes without the end of a head")
    first, *lines = data[at:end].decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise WireError("head_malformed", "header line without a name")
        name = name.lower()
        value = value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return first, headers, end + 4


def _status(line: str) -> int:
    version, _, rest = line.partition(" ")
    code = rest[:3]
    if (
        not version.startswith("HTTP/1.")
        or len(code) != 3
        or not (code.isascii() and code.isdigit())
    ):
        raise WireError("head_malformed", "status line")
    status = int(code)
    if status < 100:
        raise WireError("head_malformed", "status below 100")
    return status


def _origin_form(target: str) -> str:
    """The path of a target; proxies may be sent the absolute form, which has the host before it."""
    if target.startswith("/") or "://" not in target:
        return target
    rest = target.split("://", 1)[1]
    slash = rest.find("/")
    if slash >= 0:
        return rest[slash:]
    mark = rest.find("?")
    return "/" + rest[mark:] if mark >= 0 else "/"


def _is_chunked(headers: Mapping[str, str]) -> bool:
    coding = headers.get("transfer-encoding", "")
    return coding.rpartition(",")[2].strip().lower() == "chunked"


def _sized_body(
    data: bytes, body_at: int, headers: Mapping[str, str], *, otherwise: int
) -> tuple[bytes, bool]:
    text = headers.get("content-length")
    size = otherwise
    if text is not None:
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise WireError("head_malformed", "content-length")
        size = int(text)
    body = data[body_at : body_at + size]
    return body, len(body) == size


def _chunk_size(line: bytes, *, cut: bool) -> int:
    digits = line.split(b";", 1)[0].rstrip(b" \t\r" if cut else b" \t")
    if cut and not digits:
        return 0
    if not digits or len(digits) > _CHUNK_SIZE_DIGITS_MAX or not _HEX.issuperset(digits):
        raise WireError("chunk_malformed", "chunk size")
    return int(digits, 16)
