"""Where messages of HTTP/1.1 begin and end, for somebody who only listens.

The two ends of the connection have agreed on these messages already, so this reads what they must
have read, and refuses what two readers could understand differently. What must not break: bytes
are never taken for another message than the one that they belong to; in doubt, give up.
"""

import re
from typing import Final

HEAD_BYTES_MAX: Final = 65_536
# Length: until the connection ends.
UNTIL_CLOSE: Final = -1

# Only methods that are known: the rest of a cut first line would pass for another token.
_REQUEST_START = re.compile(
    rb"(?:\r\n){0,2}(?:POST|GET|PUT|HEAD|PATCH|DELETE|OPTIONS|CONNECT|TRACE)"
    rb" [!-~]+ HTTP/1\.[01]\r\n"
)
_RESPONSE_START = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?=[ \r])")
_HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
_TLS_HANDSHAKE: Final = b"\x16\x03"

_CHUNK_LINE_BYTES_MAX: Final = 16_384
_TRAILER_BYTES_MAX: Final = 65_536
_SIZE_DIGITS_MAX: Final = 16
_LINES_MAX: Final = 4_096
_HEADS_MAX: Final = 256
_HEAD_KEPT_BYTES_MAX: Final = 1_024
_LINE_KEPT_BYTES_MAX: Final = 256


def starts_request(data: bytes) -> bool:
    """Whether a request of HTTP/1.x begins with the first of these bytes, its line whole.

    >>> starts_request(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n"), starts_request(b"{}")
    (True, False)
    """
    return _REQUEST_START.match(data) is not None


def starts_response(data: bytes) -> bool:
    """Whether these bytes begin with a status line.

    >>> starts_response(b"HTTP/1.1 200 OK\\r\\n")
    True
    """
    return _RESPONSE_START.match(data) is not None


def other_protocol(data: bytes) -> str:
    """What a client speaks that begins like this, if it is known not to be HTTP/1.

    >>> other_protocol(b"PRI * HTTP/2.0\\r\\n\\r\\nSM"), other_protocol(b"GET ")
    ('http2', '')
    """
    if data.startswith(_HTTP2_PREFACE):
        return "http2"
    if data.startswith(_TLS_HANDSHAKE):
        return "tls"
    return ""


class ResponseHead:
    """What the framing of a response depends on, besides its request."""

    __slots__ = ("chunked", "length", "status")

    def __init__(self, status: int) -> None:
        self.status = status
        self.length = UNTIL_CLOSE
        self.chunked = False


class ResponseHeads:
    """Reads heads of responses; remembers heads and their lines: they come again and again."""

    def __init__(self) -> None:
        self._known: dict[bytes, ResponseHead] = {}
        self._plain: set[bytes] = set()  # in which there is nothing to read
        self._lengths: dict[bytes, int] = {}

    def read(self, data: bytes, at: int, end: int) -> ResponseHead | None:
        """The head from `at` to `end` (of its last line); None where its framing is not sure.

        Several responses may be given the same object: it is not to be changed.
        """
        text = data[at:end]
        known = self._known.get(text)
        if known is None:
            known = self._read(text)
            if known is not None and len(text) <= _HEAD_KEPT_BYTES_MAX:
                if len(self._known) >= _HEADS_MAX:
                    self._known.clear()
                self._known[text] = known
        return known

    def _read(self, text: bytes) -> ResponseHead | None:
        start = _RESPONSE_START.match(text)
        if start is None:
            return None
        head = ResponseHead(int(start[1]))
        plain = self._plain
        lines = text.split(b"\r\n")
        del lines[0]
        for line in lines:
            if line in plain:
                continue
            length = self._lengths.get(line)
            if length is not None and head.length == UNTIL_CLOSE:
                head.length = length
            elif not self._line(head, line):
                return None
        return head

    def _line(self, head: ResponseHead, line: bytes) -> bool:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if name == b"content-length":
            value = value.strip(b" \t")
            if not value.isdigit() or len(value) > 18:
                return False
            length = int(value)
            if head.length not in (UNTIL_CLOSE, length):
                return False
            head.length = length
            if len(self._lengths) >= _LINES_MAX:
                self._lengths.clear()
            self._lengths[line] = length
        elif name == b"transfer-encoding":
            # Whatever comes before it, only a last coding of `chunked` says where the body ends.
            head.chunked = value.rpartition(b",")[2].strip(b" \t").lower() == b"chunked"
            return head.chunked
        elif not colon or b"\n" in line:
            return False
        elif len(line) <= _LINE_KEPT_BYTES_MAX:
            if len(self._plain) >= _LINES_MAX:
                self._plain.clear()  # they come from outside: forget all rather than keep all
            self._plain.add(line)
        return True


class ChunkedBody:
    """Walks over chunked framing, fed however it was cut."""

    __slots__ = ("_line", "_skip", "_trailer_bytes", "malformed")

    def __init__(self) -> None:
        self._line = b""  # a size or trailer line whose end has not come yet
        self._skip = 0  # bytes of the current chunk and its line end still to come
        self._trailer_bytes = -1  # -1: the last chunk has not come
        self.malformed = False

    def end(self, data: bytes, at: int) -> int:
        """Where in `data` the body ends; -1 while it does not, or when it is malformed.

        >>> ChunkedBody().end(b"3\\r\\nabc\\r\\n0\\r\\n\\r\\nHTTP", 0)
        13
        """
        size = len(data)
        while at < size and not self.malformed:
            if self._skip:
                at = self._skipped(data, at)
                continue
            stop = data.find(b"\n", at)
            if stop < 0:
                self._line += data[at:]
                self.malformed = len(self._line) > _CHUNK_LINE_BYTES_MAX
                return -1
            line = self._line + data[at:stop]
            self._line = b""
            at = stop + 1
            if not line.endswith(b"\r"):
                self.malformed = True
            elif self._trailer_bytes < 0:
                self._size_line(line[:-1])
            elif line == b"\r":
                return at
            else:
                self._trailer_bytes += len(line)
                self.malformed = self._trailer_bytes > _TRAILER_BYTES_MAX
        return -1

    def _skipped(self, data: bytes, at: int) -> int:
        """Past what of the chunk is here; its last two bytes have to be the line end."""
        step = min(self._skip, len(data) - at)
        left = self._skip - step
        for position in (2, 1):
            if self._skip >= position > left:
                wanted = b"\r\n"[2 - position]
                self.malformed |= data[at + self._skip - position] != wanted
        self._skip = left
        return at + step

    def _size_line(self, line: bytes) -> None:
        digits = line.partition(b";")[0].rstrip(b" \t")
        if not digits or len(digits) > _SIZE_DIGITS_MAX or not _is_hex(digits):
            self.malformed = True
            return
        length = int(digits, 16)
        if length:
            self._skip = length + 2
        else:
            self._trailer_bytes = 0


def _is_hex(digits: bytes) -> bool:
    return not digits.translate(None, b"0123456789abcdefABCDEF")
