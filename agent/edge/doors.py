"""A listening socket whose connections have something to do before they are a client's.

That is a header of the PROXY protocol, then a TLS handshake, or one of both; listeners without
either never come here. What must not break: no more than `_OPENING_MAX` connections are at it at
one moment and none for longer than `head_timeout_s`, for nothing else counts them yet.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agent.edge import proxy_protocol

if TYPE_CHECKING:
    from agent.edge.edge import Edge
    from agent.edge.tls import Contexts

# How a connection becomes somebody's: who the balancer says is there, and the scheme of its URLs.
Welcome = Callable[[bytes, bytes], asyncio.Protocol]

_OPENING_MAX: Final = 256
_PAUSE_S: Final = 0.05  # when there are no descriptors left


class Door:
    """Accepts until it is closed; what it has accepted by then is opened all the same."""

    def __init__(
        self,
        edge: "Edge",
        listener: socket.socket,
        welcome: Welcome,
        *,
        contexts: "Contexts | None",
        protocol: str,
    ) -> None:
        self._edge = edge
        self._listener = listener
        self._welcome = welcome
        self._contexts = contexts
        self._protocol = protocol
        self._scheme = b"http" if contexts is None else b"https"
        self._room = asyncio.Semaphore(_OPENING_MAX)
        self._accepting = asyncio.get_running_loop().create_task(self._accept_forever())

    def close(self) -> None:
        self._accepting.cancel()
        self._listener.close()

    async def _accept_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError:
                self._room.release()
                await asyncio.sleep(_PAUSE_S)
            else:
                self._edge.spawn(self._open(sock))

    async def _open(self, sock: socket.socket) -> None:
        settings = self._edge.settings
        try:
            async with asyncio.timeout(settings.head_timeout_s):
                peer = await self._peer(sock) if settings.proxy_protocol else b""
                await self._hand_over(sock, peer)
        except proxy_protocol.HeaderError:
            self._edge.counters.refuse("proxy_protocol")
            sock.close()
        except (OSError, ValueError):  # of which TimeoutError and ssl's errors are
            self._edge.counters.refuse("handshake")
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise
        finally:
            self._room.release()

    async def _peer(self, sock: socket.socket) -> bytes:
        loop = asyncio.get_running_loop()
        held = b""
        while more := proxy_protocol.wanted(held):
            data = await loop.sock_recv(sock, more)
            if not data:
                raise ConnectionResetError
            held += data
        return proxy_protocol.peer(held)

    async def _hand_over(self, sock: socket.socket, peer: bytes) -> None:
        loop = asyncio.get_running_loop()
        settings = self._edge.settings

        def welcome() -> asyncio.Protocol:
            return self._welcome(peer, self._scheme)

        if self._contexts is None:
            await loop.connect_accepted_socket(welcome, sock)
            return
        await loop.connect_accepted_socket(
            welcome,
            sock,
            ssl=self._contexts.context(self._protocol),
            ssl_handshake_timeout=settings.head_timeout_s,
            ssl_shutdown_timeout=settings.linger_s,
        )
