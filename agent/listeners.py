"""The listening sockets by name: those that systemd hands us, and the others bound here.

A socket that was inherited stays open with whoever made it while we are restarted: connections
wait in its queue, and none is refused. A name given to it decides what it is for; without one its
address does (systemd calls each socket of a unit by the unit's name).
"""

import fcntl
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

import structlog

from agent.addresses import bind_listener
from agent.config import Address, Config

log = structlog.get_logger("remora.supervisor")

FIRST_FD: Final = 3  # sd_listen_fds(3)
INHERITED_MAX: Final = 64
# After a supervisor's death its edge still holds the port until it has drained: 5 s, and a bit.
BIND_WAIT_S: Final = 8.0
_EVERY: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 -- compared, not bound
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """A listening socket that was open before we were."""

    name: str
    sock: socket.socket


async def open_listeners(
    config: Config, environ: MutableMapping[str, str]
) -> dict[str, socket.socket]:
    """Every listener there is to be, by name. Raises `OSError` naming what cannot be bound."""
    found = inherited(environ)
    wanted = addresses(config)
    chosen = matched(wanted, found)
    for one in found:
        if one.sock not in chosen.values():
            # Whoever connects there would wait for ever: nobody accepts.
            log.error("an inherited socket is none of ours", name=one.name, address=shown(one.sock))
            one.sock.close()
    opened = {}
    try:
        for name, address in wanted.items():
            sock = chosen.get(name)
            opened[name] = sock or await bind_listener(address, wait_s=BIND_WAIT_S)
    except OSError:
        for sock in (*opened.values(), *chosen.values()):
            sock.close()
        raise
    return opened


def addresses(config: Config) -> dict[str, Address]:
    """Where the configuration wants to listen, by name."""
    wanted = {}
    if config.proxy is not None:
        wanted["proxy"] = config.proxy.listen_address
        if config.proxy.grpc is not None:
            wanted["grpc"] = config.proxy.grpc.listen_address
    if config.push is not None:
        wanted["push"] = config.push.listen_address
    return wanted | {"admin": config.admin.listen_address}


def inherited(environ: MutableMapping[str, str]) -> list[Inherited]:
    """The sockets of `sd_listen_fds`, and the variables gone: a child of ours has no such sockets.

    What is no listening stream socket is passed over and named in the log.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    found = []
    for place in range(min(int(count[:9]), INHERITED_MAX)):
        name = names[place] if place < len(names) else ""
        sock = _listening(FIRST_FD + place)
        if sock is None:
            log.error("what was inherited is no listening stream socket", place=place, name=name)
        else:
            found.append(Inherited(name=name, sock=sock))
    return found


def _listening(descriptor: int) -> socket.socket | None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        accepts = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        if accepts and sock.type == socket.SOCK_STREAM and sock.family in families:
            sock.setblocking(False)
            return sock
    except OSError:
        pass
    sock.detach()  # not ours to close
    return None


def matched(wanted: Mapping[str, Address], found: list[Inherited]) -> dict[str, socket.socket]:
    """Which of the inherited sockets is which listener: by name first, and the rest by address."""
    chosen: dict[str, socket.socket] = {}
    for one in found:
        if one.name in wanted and one.name not in chosen:
            chosen[one.name] = one.sock
    for one in found:
        if one.sock in chosen.values():
            continue
        for name, address in wanted.items():
            if name not in chosen and _listens_on(one.sock, address):
                chosen[name] = one.sock
                break
    return chosen


def _listens_on(sock: socket.socket, address: Address) -> bool:
    bound = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return address.path is not None and bound == address.path
    if address.path is not None or bound[1] != address.port:
        return False
    host = bound[0]
    alike = (_EVERY, _LOCAL) if address.host == "localhost" else (_EVERY,)
    return host == address.host or any(host in one and address.host in one for one in alike)


def shown(sock: socket.socket) -> str:
    """Where a socket listens, for people."""
    bound = sock.getsockname()
    if isinstance(bound, str | bytes):
        return str(Address(path=os.fsdecode(bound)))
    return str(Address(host=bound[0], port=bound[1]))
