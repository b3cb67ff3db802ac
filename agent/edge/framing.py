"""Where the requests of one client begin and end, and whether llhttp accepts them.

Two readers look at the same bytes: ours finds the end of a message, because llhttp does not say
where that is; llhttp says whether the bytes are HTTP at all. Whenever the two disagree the message
is refused. That agreement is what keeps one request from hiding inside another.
"""

import re
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from agent.edge.heads import ChunkedEnd, HeadReader, RequestHead, add_forwarded, edit_request

_HEAD_KEPT_BYTES_MAX: Final = 2_048


_BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")


class Refused(ValueError):
    """The bytes are no request that could be passed on."""


class RequestFraming:
    """The requests of one connection, one after the other."""

    __slots__ = (
        "_chunks",
        "_complete",
        "_last_head",
        "_last_text",
        "_parser",
        "_reader",
        "_remaining",
        "complete",
        "peer",
        "rest",
    )

    def __init__(self, reader: HeadReader) -> None:
        self._reader = reader
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._last_text: bytes | None = None
        self._last_head: RequestHead
        self._chunks: ChunkedEnd | None = None
        self._remaining = 0
        self._complete = False  # as llhttp sees it
        self.complete = True  # the request was read to its end
        self.peer = b""  # for X-Forwarded-For; empty when that is not wanted
        self.rest = b""  # what came behind the end of the request

    def on_message_complete(self) -> None:
        self._complete = True

    def begin(self, data: bytes, end: int) -> tuple[RequestHead, bytes]:
        """The request whose last header line ends at `end`, and what of it may be forwarded."""
        text = data[:end]
        if text == self._last_text:
            head = self._last_head  # a client that asks the same kind of thing again
        else:
            found = self._reader.read(data, end)
            if found is None:
                raise Refused
            head = self._last_head = found
            # Thousands of connections may each remember one.
            self._last_text = text if end <= _HEAD_KEPT_BYTES_MAX else None
        body_at = end + 4
        size = len(data)
        if head.chunked and not head.upgrade:
            self._chunks = ChunkedEnd()
            stop = self._find_end(data, body_at)
            complete = stop >= 0
        else:
            self._chunks = None
            stop = body_at + head.length
            self._remaining = stop - size
            complete = stop <= size
        if complete and stop < size:
            self.rest = data[stop:]
            data = data[:stop]
        if head.edited or self.peer:
            data = self._edited(data, end, head)
        self._complete = False
        try:
            assert self._parser is not None
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._parser = HttpRequestParser(self)  # the old one is done with HTTP
            if not head.upgrade:
                raise Refused from None  # CONNECT
        except HttpParserError:
            raise Refused from None
        if self._complete is not complete:
            raise Refused
        self.complete = complete
        return head, data

    def more(self, data: bytes) -> bytes:
        """What of `data` belongs to the body and may be forwarded."""
        size = len(data)
        if self._chunks is None:
            stop = self._remaining
            complete = stop <= size
            self._remaining -= size
        else:
            stop = self._find_end(data, 0)
            complete = stop >= 0
        if complete and stop < size:
            self.rest = data[stop:]
            data = data[:stop]
        try:
            assert self._parser is not None
            self._parser.feed_data(data)
        except (HttpParserUpgrade, HttpParserError):
            raise Refused from None
        if self._complete is not complete:
            raise Refused
        self.complete = complete
        return data

    def close(self) -> None:
        """The parser holds this object, and the collector is off."""
        self._parser = None
        self.rest = b""

    def _find_end(self, data: bytes, at: int) -> int:
        assert self._chunks is not None
        try:
            return self._chunks.find(data, at)
        except ValueError:
            raise Refused from None

    def _edited(self, data: bytes, end: int, head: RequestHead) -> bytes:
        edited = edit_request(data, end, head)
        if self.peer:
            edited = add_forwarded(edited, self.peer)
        return edited + data[end:]


def without_empty_lines(data: bytes) -> bytes:
    while data.startswith(b"\r\n"):  # allowed before a request line (RFC 9112 2.2)
        data = data[2:]
    return data


def has_bare_line_feed(data: bytes) -> bool:
    """Such a head would be awaited for ever: its end is looked for with carriage returns."""
    return _BARE_LINE_FEED.search(data) is not None


def peer_of(name: object) -> bytes:
    """The client's address as X-Forwarded-For has it; over a Unix socket there is none."""
    return str(name[0]).encode() if isinstance(name, tuple) else b"unknown"
