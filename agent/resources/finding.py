"""Which process the model server is: by id, by name, by the port it listens on, by its container.

A process that was started again is found again; what cannot be found is None, or a reason.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.edge.settings import split_address

LOOPBACK = ("127.", "::1", "localhost")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How the server's process is found; the first that is given counts."""

    pid: int | None = None
    name: str | None = None
    port: int | None = None
    container: str | None = None  # its id, or the beginning of it
    why_not: str | None = None  # nothing to look for, because ...


def address_target(address: str) -> Target:
    """Who listens at the upstream's address, when that is on this machine."""
    if address.startswith("unix:"):
        return Target(why_not="behind a Unix socket: set resources.pid or resources.name")
    host, port = split_address(address)
    if not host.startswith(LOOPBACK) and host not in _own_addresses():
        return Target(why_not=f"it runs elsewhere ({host}): set resources.pid or resources.name")
    return Target(port=port)


def _own_addresses() -> set[str]:
    return {address.address for many in psutil.net_if_addrs().values() for address in many}


def lives(process: psutil.Process) -> bool:
    """Not ended, and no zombie that only waits to be counted."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def find_process(target: Target) -> psutil.Process | None:
    """The process meant, or None. Of several with a name, the one that started first.

    Raises `psutil.AccessDenied` when somebody listens on the port whom we may not see.
    """
    if target.pid is not None:
        return _process(target.pid)
    if target.name is not None:
        named = [p for p in psutil.process_iter(["name", "create_time"]) if _called(p, target.name)]
        return min(named, key=lambda p: float(p.info["create_time"]), default=None)
    if target.container is not None:
        return _contained(target.container)
    if target.port is not None:
        return _listening(target.port)
    return None


def _contained(container: str) -> psutil.Process | None:
    """The oldest process whose control group names the container, as every runtime does."""
    within = re.compile(rf"[/:-]{re.escape(container)}[0-9a-f]*(\.scope)?$", re.MULTILINE)
    found = [pid for pid in psutil.pids() if within.search(_cgroup_text(pid))]
    processes = [process for pid in found if (process := _process(pid)) is not None]
    return min(processes, key=lambda p: p.create_time(), default=None)


def _cgroup_text(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _called(process: psutil.Process, name: str) -> bool:
    return process.info.get("name") == name


def _listening(port: int) -> psutil.Process | None:
    """The oldest process that listens on the port: forked workers share their parent's socket."""
    listeners = [
        connection
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
    ]
    found = {connection.pid for connection in listeners if connection.pid is not None}
    if listeners and not found:
        raise psutil.AccessDenied()
    processes = [process for pid in found if (process := _process(pid)) is not None]
    return min(processes, key=lambda p: p.create_time(), default=None)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
