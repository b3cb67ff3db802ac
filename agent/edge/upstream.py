"""One connection to an upstream: reads responses, and gives them to the client it serves.

A connection serves one request at a time and belongs to its pool in between. Bytes leave for the
client only after llhttp has accepted them, and only behind a complete head. Bytes that nobody asked
for mean that the two sides disagree about framing: such a connection is never used again.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from agent.edge.answer_heads import edit_response, edit_switching
from agent.edge.answers import REQUEST_ID
from agent.edge.channel import OUTCOME_NAMES
from agent.edge.pool import Pool
from agent.edge.settings import EdgeSettings, split_address, tls_name

if TYPE_CHECKING:
    from agent.edge.asker import Asker
    from agent.edge.counters import Counters
    from agent.edge.tls import Contexts

UNREACHABLE: Final = OUTCOME_NAMES.index("upstream_unreachable")
TIMEOUT: Final = OUTCOME_NAMES.index("timeout")
_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
_STATUS: Final = {b"%d" % status: status for status in range(100, 600)}


class _HeadOnly:
    """Listens to the parser of an answer to HEAD, which llhttp thinks has a body to come."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


class UpstreamConnection(asyncio.Protocol):
    """Pooled, then serving `client`, then pooled again."""

    __slots__ = (
        "_complete",
        "_counters",
        "_fresh",
        "_head_bytes_max",
        "_held",
        "_in_body",
        "_keep",
        "_parser",
        "_paused",
        "_sized",
        "_to_come",
        "_tunnel",
        "client",
        "error",
        "half_closed",
        "idle_since",
        "on_message_begin",
        "pool",
        "transport",
        "write",
    )

    def __init__(self, pool: Pool, counters: "Counters", head_bytes_max: int) -> None:
        self.pool = pool
        self.client: Asker | None = None
        self.transport: asyncio.Transport
        self.write: Callable[[bytes], None]  # the transport's
        self._counters = counters
        self._head_bytes_max = head_bytes_max
        # llhttp takes the mark away where a message begins, and fails where a second one does. A
        # method of a list costs a fifth of one of ours.
        self._to_come: list[None] = [None]
        self.on_message_begin = self._to_come.pop
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._fresh = True  # nothing of this response has come yet
        self._complete = False
        self._keep = True
        self._in_body = False
        self._sized = True
        self._tunnel = False
        self._held = b""
        self.half_closed = False
        self.error: Exception | None = None  # that ended it
        self.idle_since = 0.0  # 0 on the first request: only later a close may cross with one
        self._paused = False

    # What llhttp found.

    def on_message_complete(self) -> None:
        self._complete = True
        assert self._parser is not None
        self._keep = self._parser.should_keep_alive()  # llhttp knows it only here

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self.transport = cast(asyncio.Transport, transport)
        self.write = self.transport.write
        self._counters.upstream_connections += 1
        self._counters.upstream_connects += 1

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None:
            self.close()  # nobody asked: whatever it is, it is not the next answer
        elif self._fresh:
            # The whole of this method is here for one case: an answer that looks like the last
            # one, in one piece, to a request with nothing special about it.
            last = self.pool.heads.last
            if client.plain and len(data) == last.size and data.startswith(last.text):
                client.answered(self, last, data)
            else:
                self._head(client, data)
        elif self._in_body:
            self._body(client, data)
        elif self._tunnel:
            client.write(data)
        else:
            self._head(client, data)

    def eof_received(self) -> bool:
        self.half_closed = True
        if self._tunnel and self.client is not None and self.client.transport.can_write_eof():
            self.client.transport.write_eof()
            return not self.client.half_closed and self.transport.can_write_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._counters.upstream_connections -= 1
        self._parser = None  # it holds this object, and the collector is off
        client = self.client
        if client is None:
            self.pool.remove(self)
            return
        self.client = None
        self.error = exc
        # Under TLS only a close that was announced ends a body that has no other end.
        if self._in_body and not self._sized and exc is None and self.half_closed:
            client.finished(self, keep=False)
        else:
            client.upstream_lost(self)

    def pause_writing(self) -> None:
        if self.client is not None:
            self.client.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.client is not None:
            self.client.resume()

    def pause(self) -> None:
        """The client does not take what is read here."""
        self._paused = True
        self.transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        self.transport.resume_reading()

    # Reading one response.

    def serve(self, client: "Asker", data: bytes) -> None:
        self.client = client
        self.write(data)

    def _head(self, client: "Asker", data: bytes) -> None:
        self._fresh = False
        if self._held:
            data = self._held + data
            self._held = b""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > self._head_bytes_max:
                if end > 0 or len(data) > self._head_bytes_max or not _may_begin(data):
                    self._broken(client)
                    return
                client.response_begun()
                self._held = data
                return
            status = _STATUS.get(data[9:12])
            if status is None:
                self._broken(client)
                return
            if status >= 200:
                break
            # An interim response has no body, and the final one may be right behind it.
            if not self._interim(client, data[: end + 4], end):
                return
            data = data[end + 4 :]
            if self._tunnel:
                self._start_tunnel(client, data)
                return
            if not data:
                return
        self._final(client, status, data, end)

    def _interim(self, client: "Asker", data: bytes, end: int) -> bool:
        switching = data[9:12] == b"101"
        if switching and not client.may_tunnel():
            self._broken(client)
            return False
        if not self._feed(data):
            self._broken(client)
            return False
        self._expect()
        if switching:
            self._tunnel = True
            client.answer(101, edit_switching(data, end) + REQUEST_ID, b"\r\n\r\n")
        else:
            client.interim(edit_response(data, end) + b"\r\n\r\n")
        return True

    def _start_tunnel(self, client: "Asker", data: bytes) -> None:
        if data:
            client.write(data)
        client.tunnel()

    def _final(self, client: "Asker", status: int, data: bytes, end: int) -> None:
        if client.bodiless:
            self._bodiless(client, status, data, end)
            return
        heads = self.pool.heads
        head = heads.find(data[: end + 4], status)
        if len(data) == head.size and client.plain:
            heads.last = head
            self._fresh = True
            client.answered(self, head, data)
            return
        if not self._feed(data):
            self._broken(client)
            return
        if self._complete:
            if self._keep and len(data) == head.whole:
                # Behind the same head llhttp would find the same: a body holds no syntax.
                head.size = head.whole
                heads.last = head
            client.answer(status, head.opening, data[end:])
            self._finish(client)
            return
        self._sized = head.sized
        if not head.sized:
            client.keep = False  # only the end of the connection tells the client where it ends
        self._in_body = True
        client.answer(status, head.opening, data[end:])

    def _bodiless(self, client: "Asker", status: int, data: bytes, end: int) -> None:
        """The answer to HEAD: a parser of its own, for ours would wait for the body."""
        listener = _HeadOnly()
        parser = HttpResponseParser(listener)
        try:
            parser.feed_data(data[: end + 4])
        except HttpParserError:
            pass
        if not listener.complete:
            self._broken(client)
            return
        # Without a length in the head llhttp cannot know that there is no body to wait for.
        self._keep = parser.should_keep_alive() and len(data) == end + 4
        client.answer(status, edit_response(data, end) + REQUEST_ID, b"\r\n\r\n")
        self._finish(client)

    def _body(self, client: "Asker", data: bytes) -> None:
        if not self._feed(data):
            self._broken(client)
            return
        client.write(data)
        if self._complete:
            self._finish(client)

    def _feed(self, data: bytes) -> bool:
        """False when llhttp refuses the bytes, or when they hold more than one response."""
        parser = self._parser
        if parser is None:
            return False
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            return data[9:12] == b"101"
        except HttpParserError:
            return False
        return True

    def _expect(self) -> None:
        """The next message that begins is one that was asked for."""
        self._complete = False
        if not self._to_come:
            self._to_come.append(None)

    def _finish(self, client: "Asker") -> None:
        self.client = None
        self._in_body = False
        self._fresh = True
        self._expect()
        client.finished(self, keep=self._keep)

    def _broken(self, client: "Asker") -> None:
        """What came is no response: the client must not see it."""
        self.client = None
        self.transport.abort()
        client.failed(UNREACHABLE)

    def release(self, now: float, *, keep: bool) -> None:
        """The request is answered: pool the connection, or close it."""
        if keep and not self.transport.is_closing():
            self.back(now)
        else:
            self.close()

    def back(self, now: float) -> None:
        """To the pool. Who reads from a transport knows that it is not closing."""
        if self._paused:
            self.resume()
        pool = self.pool
        if len(pool.idle) < pool.idle_max:  # which is 0 once the pool is closed
            self.idle_since = now
            pool.idle.append(self)
        else:
            self.close()

    def close(self) -> None:
        self.client = None
        self.transport.abort()


def _may_begin(data: bytes) -> bool:
    return data[:7] == b"HTTP/1."[: len(data)] and b"\n\n" not in data


async def connect(pool: Pool, counters: "Counters", settings: EdgeSettings) -> UpstreamConnection:
    """A new connection. Raises OSError or TimeoutError. Addresses are numeric: nothing resolves."""

    def new() -> UpstreamConnection:
        return UpstreamConnection(pool, counters, settings.head_bytes_max)

    return await dial(new, pool.address, settings, pool.contexts)


async def dial(
    new: Callable[[], _Protocol],
    address: str,
    settings: EdgeSettings,
    contexts: "Contexts | None",
    *,
    protocol: str = "http/1.1",
) -> _Protocol:
    """A connection to an upstream, over TLS where its address says so. Raises as `connect`."""
    loop = asyncio.get_running_loop()
    host, port = split_address(address)
    name = tls_name(address)
    async with asyncio.timeout(settings.connect_timeout_s):
        if not port:
            _, made = await loop.create_unix_connection(new, host)
        elif not name:
            _, made = await loop.create_connection(new, host, port)
        elif contexts is None:
            raise OSError("this edge was not told how to verify a server")
        else:
            _, made = await loop.create_connection(
                new,
                host,
                port,
                ssl=contexts.context(protocol),
                server_hostname=settings.upstream_server_name or name,
                ssl_handshake_timeout=settings.connect_timeout_s,
                ssl_shutdown_timeout=settings.linger_s,
            )
    return made
