"""The source `proxy`: in front of the model server."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agent.config.address import Address, parse_listen, parse_upstream
from agent.config.key_path import KeyPath
from agent.config.section import (
    Bytes,
    Count,
    Flag,
    Listen,
    Name,
    Pattern,
    Pause,
    Seconds,
    Section,
    Upstream,
)
from agent.config.tls import ListenerTlsConfig, UpstreamTlsConfig
from agent.config.tls import findings as tls_findings
from agent.config.tls import unusable as tls_unusable

WORKERS_MAX = 64
Workers = Annotated[Count, Field(le=WORKERS_MAX)]


class RouteConfig(Section):
    """A name for the requests whose path matches."""

    name: Name
    """Label `route` of the metrics."""
    pattern: Pattern
    """Regular expression searched in the path's first 512 bytes; the first that matches wins."""


class GrpcConfig(Section):
    """A second door, for gRPC servers that listen on a port of their own."""

    listen: Listen = "0.0.0.0:9001"
    """HOST:PORT, [v6]:PORT, :PORT or unix:/path."""
    upstream: Upstream
    """The server's gRPC port: http://host:port, https://host:port or unix:/path."""

    @property
    def listen_address(self) -> Address:
        """`listen`, parsed."""
        return parse_listen(self.listen)

    @property
    def upstream_address(self) -> Address:
        """`upstream`, parsed."""
        return parse_upstream(self.upstream)


class ProxySource(Section):
    """The proxy in front of the model server."""

    kind: Literal["proxy"] = "proxy"
    """What brings exchanges in."""
    listen: Listen = "0.0.0.0:9000"
    """HOST:PORT, [v6]:PORT, :PORT or unix:/path."""
    upstream: Upstream
    """The model server: http://host:port, https://host:port or unix:/path."""
    routes: tuple[RouteConfig, ...] = ()
    """Named groups of paths; everything else is `other`."""
    idle_s: Seconds = 4.0
    """How long an idle connection to the upstream is kept; stay below the server's own limit."""
    connect_timeout_s: Seconds = 2.0
    """How long connecting to the upstream may take."""
    total_timeout_s: Seconds = 300.0
    """How long one exchange may take."""
    stall_timeout_s: Pause = 0.0
    """How long neither side may send a byte, in tunnels too; 0 sets no limit."""
    head_timeout_s: Seconds = 30.0
    """How long a client may take for the head of a request, or for a TLS handshake."""
    client_idle_s: Seconds = 75.0
    """How long an idle client connection is kept."""
    drain_s: Seconds = 5.0
    """How long requests that are being answered are waited for when Remora is told to stop."""
    head_bytes_max: Bytes = 65_536
    """Longest request or response head."""
    capture_bytes_max: Bytes = 1_048_576
    """Bytes of a body, per direction, that a sampled copy may hold; more is cut off, and marked."""
    connections_max: Count = 4096
    """Client connections at once, of all workers together."""
    workers: Workers = 1
    """Processes that share the listener; one is enough until it uses up a core."""
    grpc: GrpcConfig | None = None
    """A second door for gRPC; one that shares the upstream's port needs none."""
    forwarded: Flag = False
    """Whether to add X-Forwarded-For and X-Forwarded-Proto."""
    tls: ListenerTlsConfig | None = None
    """TLS for clients."""
    upstream_tls: UpstreamTlsConfig | None = None
    """How an https upstream is verified."""
    proxy_protocol: Flag = False
    """Whether every connection begins with a PROXY header, version 1 or 2, as balancers send it."""

    @property
    def listen_address(self) -> Address:
        """`listen`, parsed."""
        return parse_listen(self.listen)

    @property
    def upstream_address(self) -> Address:
        """`upstream`, parsed."""
        return parse_upstream(self.upstream)

    def findings(self, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
        """Mistakes between keys that are each right by themselves."""
        yield from tls_findings(path, self.upstream, self.upstream_tls)

    def unusable(self, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
        """Files that are there and cannot be used."""
        yield from tls_unusable(path, self.tls, self.upstream_tls)
