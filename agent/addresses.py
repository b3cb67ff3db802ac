"""Where things listen and where they are reached: addresses as people write them.

The edge connects to numeric addresses only; every name is resolved here, in the supervisor.
"""

import asyncio
import grp
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

BACKLOG = 1024
UNIX_MODE = 0o660


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A model server's address: a host and port, or the path of a Unix socket."""

    host: str
    port: int
    unix_path: str | None = None

    @property
    def is_name(self) -> bool:
        """Whether the host must be resolved, again and again, because it may move."""
        if self.unix_path is not None:
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False


def parse_upstream(url: str) -> Upstream:
    """`http://host:port` or `unix:/path`. Raises `ValueError` saying what is wrong."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"{url}: a Unix socket's path is absolute")
        return Upstream(host="", port=0, unix_path=path)
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url}: an upstream is http://host:port or unix:/path")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url}: an upstream has no path, requests keep their own")
    return Upstream(host=parts.hostname, port=parts.port or 80)


async def resolve(upstream: Upstream) -> str:
    """The numeric address, as the edge takes it. A name that cannot be resolved stays a name.

    The edge then answers 502 until a later look-up succeeds: a DNS that is late at boot must not
    keep the port closed.
    """
    if upstream.unix_path is not None:
        return f"unix:{upstream.unix_path}"
    host = upstream.host
    if upstream.is_name:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, upstream.port, type=socket.SOCK_STREAM
            )
        except OSError:
            return f"127.0.0.1:{_UNRESOLVED_PORT}"
        # Servers on localhost often listen on IPv4 alone: it is tried first.
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        host = str(found[0][4][0])
    return f"[{host}]:{upstream.port}" if ":" in host else f"{host}:{upstream.port}"


# Nothing listens on the discard port: connecting to it is refused at once, which is a 502.
_UNRESOLVED_PORT = 9


def split_listen(listen: str) -> tuple[str, int]:
    """`HOST:PORT`, `[v6]:PORT` or `:PORT` (all interfaces). Raises `ValueError`."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{listen}: a listener is HOST:PORT, [IPV6]:PORT, :PORT or unix:/path")
    return host.strip("[]"), int(port)


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach the listener."""
    if listen.startswith("unix:"):
        return True
    host, _ = split_listen(listen)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def bind_listener(listen: str, *, wait_s: float, group: str | None = None) -> socket.socket:
    """A listening socket; waits up to `wait_s` seconds for a port that is being given up.

    Raises `OSError` naming the address when it stays taken.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        try:
            return _bind(listen, group)
        except OSError as error:
            if loop.time() > deadline:
                raise OSError(error.errno, f"cannot listen on {listen}: {error.strerror}") from None
        await asyncio.sleep(0.1)


def _bind(listen: str, group: str | None) -> socket.socket:
    if listen.startswith("unix:"):
        return _bind_unix(listen.removeprefix("unix:"), group)
    host, port = split_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(("0.0.0.0" if not host else host, port))  # noqa: S104 -- ":9000" asks for it
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _bind_unix(path: str, group: str | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    try:
        _remove_stale(path)
        listener.bind(path)
        os.chmod(path, UNIX_MODE)
        if group is not None:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """A socket file goes only when nothing answers on it: it may be another agent's."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
