"""Listening sockets bound and names resolved, for the supervisor.

The edge connects to numeric addresses only; every name is resolved here, again and again.
How addresses are written is `agent.config.address`.
"""

import asyncio
import grp
import ipaddress
import os
import socket
from dataclasses import replace
from pathlib import Path

from agent.config.address import Address
from agent.edge.settings import split_address

BACKLOG = 1024
UNIX_MODE = 0o660


def is_name(upstream: Address) -> bool:
    """Whether the host must be resolved, again and again, because it may move."""
    if upstream.path is not None:
        return False
    try:
        ipaddress.ip_address(upstream.host)
    except ValueError:
        return True
    return False


async def resolve(upstream: Address, *, current: str | None = None) -> str:
    """The numeric address, as the edge takes it.

    A name that was resolved before keeps its address for as long as it is one of the name's: a
    name with several answers gives them in another order each time. A look-up that fails changes
    nothing. A name that was never resolved gives an address that nobody listens on, and the edge
    answers 502 until a later look-up succeeds: a DNS that is late at boot must not keep the port
    closed.
    """
    if upstream.path is not None:
        return str(upstream)
    if not is_name(upstream):
        return _written(upstream, upstream.host)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            upstream.host, upstream.port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):  # UnicodeError: no name that a DNS could know
        return current or _written(replace(upstream, port=_UNRESOLVED_PORT), "127.0.0.1")
    # Servers on localhost often listen on IPv4 alone: it is tried first.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    addresses = [_written(upstream, str(entry[4][0])) for entry in found]
    return current if current in addresses else addresses[0]


def _written(upstream: Address, host: str) -> str:
    """As the edge takes it: for TLS the name stays beside the number, to be verified."""
    name = f"/{upstream.host}" if upstream.tls and host != upstream.host else ""
    return f"{replace(upstream, host=host)}{name}"


# Nothing listens on the discard port: connecting to it is refused at once, which is a 502.
_UNRESOLVED_PORT = 9


async def accepts_connection(address: str, *, timeout_s: float = 1.0) -> bool:
    """Whether `address` (host:port or unix:/path, numeric) accepts a connection now."""
    try:
        host, port = split_address(address)
        if not port:
            opening = asyncio.open_unix_connection(host)
        else:
            opening = asyncio.open_connection(host, port)
        _, writer = await asyncio.wait_for(opening, timeout_s)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def bind_listener(
    listen: Address, *, wait_s: float, group: str | None = None
) -> socket.socket:
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


def _bind(listen: Address, group: str | None) -> socket.socket:
    if listen.path is not None:
        return _bind_unix(listen.path, group)
    host = listen.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host or "0.0.0.0", listen.port))  # noqa: S104 -- ":9000" asks for it
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
