"""Where the requests of one client begin and end, and whether llhttp accepts them.

Two readers look at the same bytes: ours finds the end of a message, because llhttp does not say
where that is; llhttp says whether the bytes are HTTP at all. Whenever the two disagree the message
is refused. That agreement is what keeps one request from hiding inside another. A head that is byte
for byte the last one, with all of its body and nothing behind it, was agreed on then (`again`), and
so was one that differs in its id and its length alone (`alike`): that halves the cost of clients
that ask the same kind of thing over and over.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from agent.edge.heads import (
    ChunkedEnd,
    HeadReader,
    RequestHead,
    RequestLine,
    add_forwarded,
    edit_request,
    new_head,
)

if TYPE_CHECKING:
    from agent.edge.templates import Templates

_HEAD_KEPT_BYTES_MAX: Final = 2_048  # thousands of connections may each remember one
_NONE: Final = new_head(RequestLine(b"", b"", True, 0))
_BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")


class Refused(ValueError):
    """The bytes are no request that could be passed on."""


class RequestFraming:
    """The requests of one connection, one after the other."""

    __slots__ = (
        "_chunks",
        "_feed",
        "_reader",
        "_remaining",
        "_strange",
        "_templates",
        "_unfinished",
        "alike",
        "complete",
        "kin",
        "last",
        "on_message_complete",
        "peer",
        "rest",
        "scheme",
    )

    def __init__(self, reader: HeadReader, templates: "Templates | None" = None) -> None:
        self._reader = reader
        self._templates = templates
        # llhttp takes the mark away at the end of a message, and fails at the end of a second one.
        # A method of a list costs a fifth of one of ours, and holds nothing of this object.
        self._unfinished: list[None] = [None]
        self.on_message_complete = self._unfinished.pop
        self._feed = HttpRequestParser(self).feed_data
        self._chunks: ChunkedEnd | None = None
        self._remaining = 0
        # What of a whole request may be forwarded when a template fits it; `kin` is then its head.
        self.alike: Callable[[bytes], bytes | None] | None = None
        self.kin = _NONE
        self._strange = 0  # requests that no template fitted
        self.last = _NONE  # the head of the last request, if the next one may be the same
        self.complete = True  # the request was read to its end
        self.peer = b""  # for X-Forwarded-For; empty when that is not wanted
        self.scheme = b"http"  # for X-Forwarded-Proto
        self.rest = b""  # what came behind the end of the request

    def begin(self, data: bytes, end: int) -> tuple[RequestHead, bytes]:
        """The request whose last header line ends at `end`, and what of it may be forwarded."""
        head = self._reader.read(data, end)
        if head is None:
            raise Refused
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
        came = data
        if head.edited or self.peer:
            data = self._edited(data, end, head)
        try:
            self._feed(data)
        except HttpParserUpgrade:
            self._feed = HttpRequestParser(self).feed_data  # the old one is done with HTTP
            if not head.upgrade:
                raise Refused from None  # CONNECT
        except HttpParserError:
            raise Refused from None
        self._end(complete)
        if complete and body_at <= _HEAD_KEPT_BYTES_MAX and not (head.chunked or head.upgrade):
            if self._templates is not None and not self.peer:
                self._seek_template(self._templates, came, head)
            head.text = came[:body_at]
            head.size = stop
            if data is not came:
                head.forwarded = data[: len(data) - head.length]
        self.last = head
        return head, data

    def _seek_template(self, templates: "Templates", data: bytes, head: RequestHead) -> None:
        self._strange += 1
        if self._strange & (self._strange - 1):
            return  # 1, 2, 4, 8: whoever sends something else each time is soon left alone
        template = templates.find(data, head, self._reader.kind)
        self.alike = None if template is None else partial(template.fill, head)
        self.kin = head

    def again(self, data: bytes) -> bytes:
        """The request with the last head that `data` is, whole: what of it may be forwarded.

        Both readers have seen this very head from this client, and a body of a known length holds
        no syntax: there is nothing that either could read in another way this time.
        """
        head = self.last
        return head.forwarded + data[len(head.text) :] if head.forwarded else data

    def _end(self, complete: bool) -> None:
        """Both readers must have seen the end, or neither."""
        if complete:
            if self._unfinished:
                raise Refused
            self._unfinished.append(None)
        elif not self._unfinished:
            raise Refused
        self.complete = complete

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
            self._feed(data)
        except (HttpParserUpgrade, HttpParserError):
            raise Refused from None
        self._end(complete)
        return data

    def _find_end(self, data: bytes, at: int) -> int:
        assert self._chunks is not None
        try:
            return self._chunks.find(data, at)
        except ValueError:
            raise Refused from None

    def _edited(self, data: bytes, end: int, head: RequestHead) -> bytes:
        edited = edit_request(data, end, head)
        if self.peer:
            edited = add_forwarded(edited, self.peer, self.scheme)
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
