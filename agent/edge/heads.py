"""Heads of requests: what the edge reads in them, and what it takes out.

Nothing here decides whether a head is valid: llhttp does, over the very bytes that are forwarded.
What must not break: a header that llhttp sees is seen here too, so lines end where llhttp ends
them, names begin at the line's beginning and end at their colon.
"""

import re
from collections.abc import Callable
from typing import Final

from agent.edge import channel

# Of the answers; `minted` is not looked up.
X_REQUEST_ID, _CE_ID, TRACEPARENT, MINTED = range(len(channel.ID_ORIGINS))

_REQUEST_LINE = re.compile(rb"([!-~]+) (?:https?://[^/? ]*)?([^? \r\n]*)[^ \r\n]* HTTP/1\.([01])")
_ID_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"
# Turns what may be in an id into letters, all else into what is none.
AS_LETTERS: Final = bytes(97 if byte in _ID_BYTES else 33 for byte in range(256))
_HOST_BYTES: Final = _ID_BYTES + b"~%!$&'()*+;=[]"  # RFC 3986 3.2.2, less the comma of lists
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_ALWAYS_OUT = re.compile(
    rb"\r\n(?i:connection|keep-alive|proxy-[^:\r\n]*|x-remora-[^:\r\n]*):[^\r\n]*"
)
# Connection may name any header, but taking these out would change what the message is.
NEVER_OUT: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})
_PLAIN_CONNECTION: Final[frozenset[bytes]] = frozenset({b"", b"keep-alive", b"close"})

# RFC 9110 9.2.2: doing it twice is doing it once.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})

_CHUNK_LINE_BYTES_MAX: Final = 16_384
# Lines come from clients: when there are too many, forget all rather than keep all.
_LINES_MAX: Final = 4_096
_HEADERS_MAX: Final = 1_024
_LINE_KEPT_BYTES_MAX: Final = 512

_PLAIN, LENGTH, _HOST, _CODING, _CONNECTION, _UPGRADE, _OUT, _KEY, _MASKED = range(5, 14)
# Headers in which there is nothing that differs from one request of a client to the next.
PLAIN_KINDS: Final = frozenset({_PLAIN, _HOST, _CONNECTION, _OUT, _KEY})
_KINDS: Final = {
    b"content-length": LENGTH,
    b"host": _HOST,
    b"transfer-encoding": _CODING,
    # What hands headers on as variables (CGI, WSGI) cannot tell these from the real ones.
    b"content_length": _MASKED,
    b"transfer_encoding": _MASKED,
    b"connection": _CONNECTION,
    b"keep-alive": _OUT,
    b"upgrade": _UPGRADE,
    b"x-request-id": X_REQUEST_ID,
    b"ce-id": _CE_ID,
    b"traceparent": TRACEPARENT,
}


class RequestHead:
    """What the edge needs to know of one request, read in one pass over its head."""

    __slots__ = (
        "chunked",
        "edited",
        "forwarded",
        "id",
        "id_from",
        "keep",
        "key",
        "length",
        "line",
        "named",
        "plain",
        "size",
        "text",
        "upgrade",
    )

    line: "RequestLine"
    keep: bool
    plain: bool  # the connection is kept, and the answer is not one to HEAD
    length: int
    chunked: bool
    id: bytes
    id_from: int
    key: bytes
    edited: bool  # something has to be taken out before it may be forwarded
    named: frozenset[bytes]  # what Connection names
    upgrade: bytes
    # Of a head that is remembered: as it came, as it is forwarded when that is not the same, and
    # the size of the whole request. No request has the size -1.
    text: bytes
    forwarded: bytes
    size: int


def new_head(line: "RequestLine") -> RequestHead:
    head = RequestHead()  # a constructor of its own would double the cost
    head.line = line
    head.keep = line.version_1_1
    head.plain = line.plain
    head.id_from = MINTED
    head.named = _PLAIN_CONNECTION
    head.length = 0
    head.chunked = head.edited = False
    head.id = head.key = head.upgrade = head.text = head.forwarded = b""
    head.size = -1
    return head


class RequestLine:
    """The first line of a request. The same few come again and again, so they are remembered."""

    __slots__ = ("bodiless", "idempotent", "method", "path", "plain", "route", "version_1_1")

    def __init__(self, method: bytes, path: bytes, version_1_1: bool, route: int) -> None:
        self.method = method
        self.bodiless = method == b"HEAD"
        self.idempotent = method in _IDEMPOTENT
        self.path = path
        self.version_1_1 = version_1_1
        self.plain = version_1_1 and not self.bodiless
        self.route = route


class HeadReader:
    """Reads request heads; made once, because a configured client key changes the pattern."""

    def __init__(self, client_key: str | None, route: Callable[[bytes], int]) -> None:
        self._route = route
        self._lines: dict[bytes, RequestLine] = {}
        self._plain: set[bytes] = set()  # header lines in which there is nothing to read
        self._hosts: set[bytes] = set()
        self._lengths: dict[bytes, int] = {}  # Content-Length lines
        self._id_start = b"x-request-id: "
        self._kinds: dict[bytes, int] = {}
        self._key = (client_key or "").lower().encode("latin-1")

    def read(self, data: bytes, end: int) -> RequestHead | None:
        """The head that ends at `end` (of its last line); None when it cannot be HTTP/1.x.

        Most lines of a head come again with the next request, so a set knows what is to be read
        in them: nothing. That costs half of one search for all names that matter.
        """
        lines = data[:end].split(b"\r\n")
        first = lines[0]
        line = self._lines.get(first)
        if line is None:
            line = self._line(first)
            if line is None:
                return None
        del lines[0]
        head = new_head(line)
        plain = self._plain
        hosts = self._hosts
        lengths = self._lengths
        id_start = self._id_start
        hosted = False
        for text in lines:
            if text in plain:
                continue
            if text in hosts:
                if hosted:
                    return None  # two: who is asked would depend on who reads
                hosted = True
                continue
            length = lengths.get(text)
            if length is not None:
                head.length = length
                continue
            if text.startswith(id_start) and head.id_from != X_REQUEST_ID:
                # An id as it was spelled last time: a third of what `_header` takes for it.
                id = text[len(id_start) :]
                if len(id) <= 128 and id.translate(AS_LETTERS).isalnum():
                    head.id = id
                    head.id_from = X_REQUEST_ID
                    continue
            if not self._header(head, text):
                return None
            if text in hosts:
                if hosted:
                    return None
                hosted = True
        if head.edited and (head.upgrade or head.named is not _PLAIN_CONNECTION):
            _settle_upgrade(head)
        return head

    def _header(self, head: RequestHead, text: bytes) -> bool:
        """A line that was not seen before; False when the message is refused for it."""
        name, _, value = text.partition(b":")
        value = value.strip(b" \t")
        kind = self._kinds.get(name)
        if kind is None:
            kind = self.kind(name)
        if kind <= _CE_ID:
            acceptable = 1 <= len(value) <= 128 and value.translate(AS_LETTERS).isalnum()
            if kind < head.id_from and acceptable:
                head.id = value
                head.id_from = kind
                if kind == X_REQUEST_ID and text == name + b": " + value:
                    self._id_start = name + b": "
        elif kind == _PLAIN:
            if len(text) <= _LINE_KEPT_BYTES_MAX:
                if len(self._plain) >= _HEADERS_MAX:
                    self._plain.clear()
                self._plain.add(text)
        elif kind == _HOST:
            if len(text) > _LINE_KEPT_BYTES_MAX or value.translate(None, _HOST_BYTES):
                return False
            if len(self._hosts) >= _HEADERS_MAX:
                self._hosts.clear()
            self._hosts.add(text)
        elif kind == LENGTH:
            # Python's int() takes more than HTTP does: signs, underscores, other digits.
            if not value.isdigit() or len(value) > 18:
                return False
            head.length = int(value)
            if len(self._lengths) >= _HEADERS_MAX:
                self._lengths.clear()
            self._lengths[text] = head.length
        else:
            return self._rare(head, kind, value)
        return True

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

    def kind(self, name: bytes) -> int:
        """What a header of that name is to the edge."""
        lower = name.lower()
        if lower == self._key:
            kind = _KEY
        elif lower.startswith((b"proxy-", b"x-remora-")):
            kind = _OUT
        else:
            kind = _KINDS.get(lower, _PLAIN)
        if len(self._kinds) < 512 and len(name) <= _LINE_KEPT_BYTES_MAX:  # they come from clients
            self._kinds[name] = kind
        return kind

    def _rare(self, head: RequestHead, kind: int, value: bytes) -> bool:
        """False when the message is ambiguous whatever llhttp thinks of it."""
        if kind == _MASKED:
            return False
        if kind == _CODING:
            # One coding, said once: nobody sends requests in another, and on lists of them servers
            # disagree. RFC 9112 6.1: in HTTP/1.0 its framing is faulty.
            again, head.chunked = head.chunked, True
            return head.line.version_1_1 and value.lower() == b"chunked" and not again
        if kind == _CONNECTION:
            head.edited = True
            if value == b"keep-alive":
                return True  # what most libraries say, and what is so anyway
            tokens = frozenset(token.strip().lower() for token in value.split(b","))
            if b"close" in tokens:
                head.keep = head.plain = False
            if not tokens <= _PLAIN_CONNECTION:
                head.named |= tokens
        elif kind == _UPGRADE:
            head.edited = True
            head.upgrade = value.lower()
        elif kind == _KEY:
            head.key = head.key or value
        elif kind == _OUT:
            head.edited = True
        elif head.id_from > TRACEPARENT:
            traced = trace_id(value)
            if traced is not None:
                head.id = traced
                head.id_from = TRACEPARENT
        return True


def trace_id(value: bytes) -> bytes | None:
    """Trace and span of a traceparent, as an id; None when it is not valid or names nothing."""
    trace = _TRACE.fullmatch(value)
    if trace is None or not trace[1].strip(b"0") or not trace[2].strip(b"0"):
        return None
    return trace[1] + b"-" + trace[2]


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
    out = head.named - NEVER_OUT - ({b"upgrade"} if head.upgrade else frozenset())
    lines = without(data[:end], out)
    if head.upgrade:
        lines.append(b"Connection: upgrade")
    return b"\r\n".join(lines)


def add_forwarded(edited: bytes, peer: bytes, scheme: bytes) -> bytes:
    """The client's address at the end of X-Forwarded-For; all before it is only its own word."""
    first, *lines = edited.split(b"\r\n")
    hops = [value_of(line) for line in lines if name_of(line) == b"x-forwarded-for"]
    kept = [line for line in lines if name_of(line) != b"x-forwarded-for"]
    if not any(name_of(line) == b"x-forwarded-proto" for line in kept):
        kept.append(b"X-Forwarded-Proto: " + scheme)
    kept.append(b"X-Forwarded-For: " + b", ".join([*hops, peer]))
    return b"\r\n".join([first, *kept])


def without(head: bytes, out: frozenset[bytes]) -> list[bytes]:
    first, *lines = head.split(b"\r\n")
    return [first, *(line for line in lines if not _is_out(name_of(line), out))]


def _is_out(name: bytes, out: frozenset[bytes]) -> bool:
    if name in out or name in (b"connection", b"keep-alive"):
        return True
    return name.startswith((b"proxy-", b"x-remora-"))


def name_of(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()


def value_of(line: bytes) -> bytes:
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
