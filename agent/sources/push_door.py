"""Who may come in at the push listener, and how much of them is let in at once.

Everything here is decided before a body is read, and the memory that senders can make us hold is
counted in one place, `Room`: do not read a byte of a body that has no place in it.
"""

import asyncio
import hmac
import ipaddress
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agent.config import PushSource

HEAD_S_MAX: Final = 10.0
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True, kw_only=True)
class Room:
    """What bodies that are read and work that waits may take together."""

    bytes_max: int
    items_max: int
    bytes: int = 0
    items: int = 0

    @property
    def full(self) -> bool:
        return self.bytes >= self.bytes_max or self.items >= self.items_max

    def take(self, count: int) -> bool:
        """Set bytes aside; False, and nothing changed, where there is no room for them."""
        if self.full or self.bytes + count > self.bytes_max:
            return False
        self.bytes += count
        return True

    def give_back(self, count: int) -> None:
        self.bytes -= count


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The token that a sender must show, in a header or as the first part of the path."""

    auth: str
    token: str

    @classmethod
    def of(cls, source: PushSource) -> "Gate":
        """From the configuration. Raises `ConfigError` when the token cannot be read."""
        secret = source.secret()
        return cls(auth=source.auth or "none", token="" if secret is None else secret.reveal())

    def admits(self, path: str, authorization: str) -> str | None:
        """The path without the token in it; None for whom nothing is here.

        >>> gate = Gate(auth="path_token", token="s3cret")
        >>> gate.admits("/s3cret/api/v1/rows", ""), gate.admits("/s3cret", ""), gate.admits("/", "")
        ('/api/v1/rows', '/', None)
        """
        if self.auth == "bearer":
            scheme, _, given = authorization.partition(" ")
            return path if scheme.lower() == "bearer" and self._is_token(given.strip()) else None
        if self.auth == "path_token":
            first, _, rest = path.removeprefix("/").partition("/")
            return f"/{rest}" if self._is_token(first) else None
        return path  # mtls has been judged by the handshake

    def _is_token(self, given: str) -> bool:
        # An empty token would admit whoever shows none.
        return bool(self.token) and hmac.compare_digest(self.token.encode(), given.encode())


def allowed(address: str | None, networks: Sequence[Network]) -> bool:
    """Whether a peer may connect; one without an address is on this machine's Unix socket.

    >>> allowed("::ffff:10.1.2.3", [ipaddress.ip_network("10.0.0.0/8")])
    True
    """
    if not networks or address is None:
        return True
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in network for network in networks)


def push_server(application: Any, source: PushSource, dropped: Counter[str]) -> uvicorn.Config:
    """How uvicorn serves it. Raises `OSError` or `ValueError` for certificates that are none."""
    networks = [ipaddress.ip_network(cidr) for cidr in source.allow_cidrs]
    tls = source.tls
    config = uvicorn.Config(
        application,
        http=_door(lambda address: allowed(address, networks), dropped),
        interface="asgi3",
        ws="none",
        lifespan="off",
        proxy_headers=False,  # whom a request names as its sender decides nothing here
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=source.connections_max,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        ssl_certfile=None if tls is None else str(tls.cert_file),
        ssl_keyfile=None if tls is None else str(tls.key_file),
        ssl_ca_certs=None if tls is None or tls.client_ca_file is None else str(tls.client_ca_file),
        ssl_cert_reqs=ssl.CERT_REQUIRED if source.auth == "mtls" else ssl.CERT_NONE,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


def _door(
    may_connect: Callable[[str | None], bool], dropped: Counter[str]
) -> type[HttpToolsProtocol]:
    class Door(HttpToolsProtocol):
        """A connection: refused by its address, and closed when a head does not come."""

        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport = cast(asyncio.Transport, transport)
            super().connection_made(transport)
            peer = transport.get_extra_info("peername")
            if not may_connect(peer[0] if isinstance(peer, tuple) else None):
                dropped["forbidden_address"] += 1
                transport.abort()
                return
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel_head()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            if self._head is None:
                self._expect_head()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._cancel_head()
            super().on_headers_complete()

        def _expect_head(self) -> None:
            self._head = self.loop.call_later(HEAD_S_MAX, self._too_slow)

        def _cancel_head(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _too_slow(self) -> None:
            dropped["slow_sender"] += 1
            self.transport.abort()

    return Door
