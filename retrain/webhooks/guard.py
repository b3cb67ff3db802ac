"""Who may be called: names are resolved once, every address is judged, the judged one is called.

All outgoing HTTP of the lifecycle, webhooks and artifacts alike, goes through `guarded_client`. A
client made any other way may be led to a cloud's metadata service by a DNS answer.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import httpx

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

ADDRESSES_MAX: Final = 4  # tried one after the other, as long as connecting fails
DEFAULT_PORTS: Final = {"https": 443, "http": 80}

# Refused whatever the configuration allows: where clouds keep credentials for whoever asks.
ALWAYS_REFUSED: Final[tuple[Network, ...]] = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::/32"),  # EC2's metadata service over IPv6
)
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


class Refusal(StrEnum):
    """Why an address or URL is not called."""

    SCHEME = "scheme"
    PORT = "port"
    URL = "url"
    RESOLVE = "resolve"
    ADDRESS = "address"


class GuardRefused(Exception):
    """Not called. Names the host and, because the operator must mend it, the address."""

    def __init__(self, reason: Refusal, text: str) -> None:
        super().__init__(text)
        self.reason: Refusal = reason


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses that the system's resolver gives for `host`, in its order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What the configuration's section `webhooks` allows."""

    allow_cidrs: tuple[Network, ...] = ()
    allow_http: bool = False
    ports: frozenset[int] = frozenset({443, 8443})
    resolve: Resolve = resolve_by_system

    def judge_url(self, url: httpx.URL) -> tuple[str, int]:
        """Host and port, if the URL may be called at all. Raises GuardRefused."""
        if url.scheme not in DEFAULT_PORTS or (url.scheme == "http" and not self.allow_http):
            raise GuardRefused(Refusal.SCHEME, f"{url.scheme or 'no scheme'}: only https is called")
        if not url.host or url.userinfo:
            raise GuardRefused(Refusal.URL, "a URL needs a host and may carry no credentials")
        port = url.port or DEFAULT_PORTS[url.scheme]
        if port not in self.ports:
            allowed = ", ".join(str(one) for one in sorted(self.ports))
            raise GuardRefused(Refusal.PORT, f"{url.host}: port {port} is not among {allowed}")
        # The ASCII form: what is resolved, and named in the TLS handshake.
        return url.raw_host.decode("ascii"), port

    def judge_address(self, text: str) -> IPAddress:
        """The address, if it may be connected to. Raises GuardRefused."""
        address = ipaddress.ip_address(text)
        for seen in (address, *embedded(address)):
            if not self._allowed(seen):
                hint = "" if _never(seen) else "; list it in webhooks.allow_cidrs if it is meant"
                raise GuardRefused(Refusal.ADDRESS, f"{address} is not a public address{hint}")
        return address

    def _allowed(self, address: IPAddress) -> bool:
        if _never(address):
            return False
        if any(address.version == one.version and address in one for one in self.allow_cidrs):
            return True
        # The outer form of an embedded address is judged by what it embeds.
        return bool(embedded(address)) or (address.is_global and not address.is_reserved)

    async def addresses(self, host: str, port: int) -> list[IPAddress]:
        """The judged addresses of `host`, resolved once. One bad address refuses them all.

        Raises GuardRefused. One bad among good ones is what a DNS attack looks like.
        """
        try:
            found = await self.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise GuardRefused(Refusal.RESOLVE, f"{host} has no address ({error})") from error
        judged = list(dict.fromkeys(self.judge_address(one) for one in found))
        if not judged:
            raise GuardRefused(Refusal.RESOLVE, f"{host} has no address")
        return judged[:ADDRESSES_MAX]


def embedded(address: IPAddress) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 address that an IPv6 one leads to: v4-mapped, 6to4 or NAT64.

    >>> embedded(ipaddress.ip_address("::ffff:10.0.0.1"))
    (IPv4Address('10.0.0.1'),)
    """
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address in NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF),)
    inner = address.ipv4_mapped or address.sixtofour
    return () if inner is None else (inner,)


def _never(address: IPAddress) -> bool:
    """Refused even inside an allowed network."""
    return (
        any(address.version == one.version and address in one for one in ALWAYS_REFUSED)
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    )


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx's own transport, pointed at an address that was judged.

    The URL is rewritten to the address while the Host header and the name in the TLS handshake,
    and so the certificate that is demanded, stay those of the name.
    """

    def __init__(self, guard: Guard, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self.guard = guard
        self._inner = httpx.AsyncHTTPTransport(
            verify=True if ssl_context is None else ssl_context,
            trust_env=False,
            # Connections are pooled by address: kept ones could serve another name's request.
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=0),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends to the first judged address that accepts a connection."""
        guard = self.guard
        host, port = guard.judge_url(request.url)
        failure: httpx.TransportError | None = None
        for address in await guard.addresses(host, port):
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=str(address), port=port),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error  # nothing of the request was sent: the next address may try
        assert failure is not None
        raise failure

    async def aclose(self) -> None:
        """Closes what is open."""
        await self._inner.aclose()


class GuardedClient(httpx.AsyncClient):
    """Follows no redirect, reads no environment and calls only who may be called."""

    def __init__(
        self, guard: Guard, *, timeout_s: float, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._guarded = GuardedTransport(guard, ssl_context=ssl_context)
        super().__init__(
            transport=self._guarded,
            follow_redirects=False,
            trust_env=False,
            timeout=_patience(timeout_s),
        )

    def allow(self, guard: Guard, *, timeout_s: float) -> None:
        """Another configuration is in force, from the next request on."""
        self._guarded.guard = guard
        self.timeout = _patience(timeout_s)


def guarded_client(
    guard: Guard, *, timeout_s: float, ssl_context: ssl.SSLContext | None = None
) -> GuardedClient:
    """The client for everything that leaves this machine."""
    return GuardedClient(guard, timeout_s=timeout_s, ssl_context=ssl_context)


def _patience(timeout_s: float) -> httpx.Timeout:
    # One address that swallows packets must leave time for the next.
    return httpx.Timeout(timeout_s, connect=timeout_s / 3)
