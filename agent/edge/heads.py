"""Heads of requests and responses: what the edge reads in them, and what it takes out.

Pure functions over bytes. Nothing here decides whether a head is valid: llhttp does, over the very
bytes that are forwarded. What must not break: a header that llhttp sees is seen here too, so every
pattern is anchored at a line's beginning and names end at their colon.
"""

import re
from collections.abc import Callable
from typing import Final

from agent.edge import channel

# Of the answers; `minted` is not looked up.
_X_REQUEST_ID, _CE_ID, _TRACEPARENT, MINTED = range(len(channel.ID_ORIGINS))

_REQUEST_LINE = re.compile(rb"([!-~]+) (?:https?://[^/? ]*)?([^? \r\n]*)[^ \r\n]* HTTP/1\.([01])")
_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
# A first character in brackets lets the matcher pass over other lines without trying each name.
_WATCHED = (
    rb"[cC](?i:ontent-length|onnection|e-id)|[tT](?i:ransfer-encoding|raceparent)"
    rb"|[xX]-(?i:request-id|remora-[^:\r\n]*)|[kK](?i:eep-alive)|[pP](?i:roxy-[^:\r\n]*)"
    rb"|[uU](?i:pgrade)"
)
# The group is there only for a Connection header.
_HOP = re.compile(
    rb"\r\n(?:[cC](?i:onnection):[ \t]*([^\r\n]*)"
    rb"|(?:[kK](?i:eep-alive)|[pP](?i:roxy-[^:\r\n]*)|[xX](?i:-remora-[^:\r\n]*)):[^\r\n]*)"
)
_SIZED = re.compile(rb"\r\n(?i:content-length|transfer-encoding):")
_ALWAYS_OUT = re.compile(
    rb"\r\n(?i:connection|keep-alive|proxy-[^:\r\n]*|x-remora-[^:\r\n]*):[^\r\n]*"
)
# Connection may name any header, but taking these out would change what the message is.
_NEVER_OUT: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})
_PLAIN_CONNECTION: Final = frozenset({b"", b"keep-alive", b"close"})

_CHUNK_LINE_BYTES_MAX: Final = 16_384
# Lines come from clients: when there are too many, forget all rather than keep all.
_LINES_MAX: Final = 4_096
_LINE_KEPT_BYTES_MAX: Final = 512

_LENGTH, _CODING, _CONNECTION, _UPGRADE, _OUT, _KEY = range(6, 12)
_KINDS: Final = {
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"upgrade": _UPGRADE,
    b"x-request-id": _X_REQUEST_ID,
    b"ce-id": _CE_ID,
    b"traceparent": _TRACEPARENT,
}


class RequestHead:
    """What the edge needs to know of one request, read in one pass over its head.

    Made for every request: what most requests do not have stays an attribute of the class.
    """

    keep = True
    length = 0
    chunked = False
    id = b""
    id_from = MINTED
    key = b""
    edited = False  # something has to be taken out before it may be forwarded
    named: frozenset[bytes] = _PLAIN_CONNECTION  # what Connection names
    upgrade = b""

    def __init__(self, line: "RequestLine") -> None:
        self.line = line


class RequestLine:
    """The first line of a request. The same few come again and again, so they are remembered."""

    __slots__ = ("bodiless", "method", "path", "route", "version_1_1")

    def __init__(self, method: bytes, path: bytes, version_1_1: bool, route: int) -> None:
        self.method = method
        self.bodiless = method == b"HEAD"
        self.path = path
        self.version_1_1 = version_1_1
        self.route = route


class HeadReader:
    """Reads request heads; made once, because a configured client key changes the pattern."""

    def __init__(self, client_key: str | None, route: Callable[[bytes], int]) -> None:
        self._route = route
        self._lines: dict[bytes, RequestLine] = {}
        watched = _WATCHED
        self._kinds: dict[bytes, int] = {}
        self._key = (client_key or "").lower().encode("latin-1")
        if self._key:
            watched += rb"|(?i:" + re.escape(self._key) + rb")"
        self._watched = re.compile(rb"\r\n(" + watched + rb"):[ \t]*([^\r\n]*)")

    def read(self, data: bytes, end: int) -> RequestHead | None:
        """The head that ends at `end` (of its last line); None when it cannot be HTTP/1.x."""
        at = data.find(b"\r\n")
        line = self._lines.get(data[:at])
        if line is None:
            line = self._line(data[:at])
            if line is None:
                return None
        head = RequestHead(line)
        if not line.version_1_1:
            head.keep = False
        kinds = self._kinds
        for name, value in self._watched.findall(data, at, end):
            kind = kinds.get(name)
            if kind is None:
                kind = self._kind(name)
            if kind == _LENGTH:
                digits = value.rstrip(b" \t")
                # Python's int() takes more than HTTP does: signs, underscores, other digits.
                if not digits.isdigit() or len(digits) > 18:
                    return None
                head.length = int(digits)
            elif not self._rare(head, kind, value.rstrip(b" \t")):
                return None
        if head.edited and (head.upgrade or head.named is not _PLAIN_CONNECTION):
            _settle_upgrade(head)
        return head

    def _line(self, text: bytes) -> RequestLine | None:
        found = _REQUEST_LINE.fullmatch(text)
        if found is None:
            return None
        line = RequestLine(found[1], found[2], found[3] == b"1", self._route(found[2]))
        if len(text) <= _LINE_KEPT_BYTES_MAX:
            if len(self._lines) >= _LINES_MAX:
                self._lines.clear()
            self._lines[text] = line
        return line

    def _kind(self, name: bytes) -> int:
        lower = name.lower()
        kind = _KINDS.get(lower, _OUT)
        if lower == self._key:
            kind = _KEY
        if len(self._kinds) < 512:  # spellings come from clients
            self._kinds[name] = kind
        return kind

    def _rare(self, head: RequestHead, kind: int, value: bytes) -> bool:
        """False when the message is ambiguous whatever llhttp thinks of it."""
        if kind == _CODING:
            head.chunked = True
            # RFC 9112 6.1: in HTTP/1.0 its framing is faulty, and servers disagree on it.
            return head.line.version_1_1
        if kind == _CONNECTION:
            head.edited = True
            tokens = frozenset(token.strip().lower() for token in value.split(b","))
            if b"close" in tokens:
                head.keep = False
            if not tokens <= _PLAIN_CONNECTION:
                head.named |= tokens
        elif kind == _UPGRADE:
            head.edited = True
            head.upgrade = value.lower()
        elif kind == _KEY:
            head.key = head.key or value
        elif kind == _OUT:
            head.edited = True
        elif kind < head.id_from:
            _identify(head, kind, value)
        return True


def _identify(head: RequestHead, origin: int, value: bytes) -> None:
    if origin == _TRACEPARENT:
        trace = _TRACE.fullmatch(value)
        if trace is None or not trace[1].strip(b"0") or not trace[2].strip(b"0"):
            return
        value = trace[1] + b"-" + trace[2]
    elif _ID.fullmatch(value) is None:
        return
    head.id = value
    head.id_from = origin


def _settle_upgrade(head: RequestHead) -> None:
    """An upgrade is passed on only where it can become a tunnel: no body, and not to HTTP/2.

    To a server that speaks cleartext HTTP/2 the tunnel would be a way around every rule here.
    """
    asked = b"upgrade" in head.named and head.upgrade
    if not asked or head.length or head.chunked or head.upgrade.startswith(b"h2"):
        head.upgrade = b""
        head.named |= {b"upgrade", b"http2-settings"}


def edit_request(data: bytes, end: int, head: RequestHead) -> bytes:
    """The head without hop-by-hop headers; `end` is where its last line ends."""
    if head.named is _PLAIN_CONNECTION and not head.upgrade:
        return _ALWAYS_OUT.sub(b"", data[:end])
    out = head.named - _NEVER_OUT - ({b"upgrade"} if head.upgrade else frozenset())
    lines = _without(data[:end], out)
    if head.upgrade:
        lines.append(b"Connection: upgrade")
    return b"\r\n".join(lines)


def add_forwarded(edited: bytes, peer: bytes) -> bytes:
    """The client's address at the end of X-Forwarded-For; all before it is only its own word."""
    first, *lines = edited.split(b"\r\n")
    hops = [_value(line) for line in lines if _name(line) == b"x-forwarded-for"]
    kept = [line for line in lines if _name(line) != b"x-forwarded-for"]
    if not any(_name(line) == b"x-forwarded-proto" for line in kept):
        kept.append(b"X-Forwarded-Proto: http")
    kept.append(b"X-Forwarded-For: " + b", ".join([*hops, peer]))
    return b"\r\n".join([first, *kept])


def edit_response(data: bytes, end: int) -> bytes:
    """The head up to `end` without hop-by-hop headers."""
    first = _HOP.search(data, 0, end)
    if first is None:
        return data[:end]
    value = first[1]
    if value == b"keep-alive" or value == b"close":
        # What servers say on every answer: one Connection, and it names nothing.
        at = first.end()
        if _HOP.search(data, at, end) is None:
            return data[: first.start()] + data[at:end]
    return b"\r\n".join(_without(data[:end], _named(data[:end]) - _NEVER_OUT))


def edit_switching(data: bytes, end: int) -> bytes:
    """As `edit_response`, for a 101, whose Connection and Upgrade are meant for the client."""
    out = _named(data[:end]) - _NEVER_OUT - {b"upgrade"}
    return b"\r\n".join([*_without(data[:end], out), b"Connection: upgrade"])


def is_sized(data: bytes, end: int) -> bool:
    """Whether a length or chunks end the body; else it lasts until the connection ends."""
    return _SIZED.search(data, 0, end) is not None


def _named(head: bytes) -> frozenset[bytes]:
    values = [_value(line) for line in head.split(b"\r\n") if _name(line) == b"connection"]
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def _without(head: bytes, out: frozenset[bytes]) -> list[bytes]:
    first, *lines = head.split(b"\r\n")
    return [first, *(line for line in lines if not _is_out(_name(line), out))]


def _is_out(name: bytes, out: frozenset[bytes]) -> bool:
    if name in out or name in (b"connection", b"keep-alive"):
        return True
    return name.startswith((b"proxy-", b"x-remora-"))


def _name(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()


def _value(line: bytes) -> bytes:
    return line.partition(b":")[2].strip()


class ChunkedEnd:
    """Finds where a chunked body ends, fed however it was cut. Raises ValueError on endless lines.

    llhttp validates the same bytes; only it does not say where a message ended, and what follows
    is the next request, which may go to another upstream.
    """

    __slots__ = ("_line", "_skip", "_trailers")

    def __init__(self) -> None:
        self._line = b""  # a size or trailer line whose end has not come yet
        self._skip = 0  # bytes of the current chunk and its CRLF still to come
        self._trailers = False

    def find(self, data: bytes, at: int = 0) -> int:
        """Where the body ends in `data`, counted from its beginning; -1 when it does not."""
        size = len(data)
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                if len(self._line) > _CHUNK_LINE_BYTES_MAX:
                    raise ValueError("chunk extension or trailer is too long")
                return -1
            line = (self._line + data[at:end]).rstrip(b"\r")
            self._line = b""
            at = end + 1
            if self._trailers:
                if not line:
                    return at
                continue
            try:
                length = int(line.partition(b";")[0].strip() or b"x", 16)
            except ValueError:
                return -1  # llhttp refuses it
            if length:
                self._skip = length + 2
            else:
                self._trailers = True
        return -1
