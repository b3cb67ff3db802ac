"""What the model server costs, and what we cost: CPU, memory, threads, file descriptors.

The server is found by process id, by name, or by the port it listens on, and found again when it
was restarted. What cannot be read is absent with its reason, never a zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from agent.config import Config
from agent.edge.settings import split_address

LOOPBACK = ("127.", "::1", "localhost")
NO_PERMISSION = (
    "no permission to read its process: share the process namespace, and run as its user"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How the server's process is found; the first that is given counts."""

    pid: int | None = None
    name: str | None = None
    port: int | None = None
    why_not: str | None = None  # nothing to look for, because ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """One look at a process and its children. `cpu_s` only ever rises while the agent lives."""

    values: Mapping[str, float] = field(default_factory=dict)  # cpu_s, memory_bytes, threads, fds
    absent: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None


class ServerResources:
    """The model server's process and its children."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._process: psutil.Process | None = None
        self._cpu_before_s = 0.0  # of processes that are gone
        self._cpu_s: dict[tuple[int, float], float] = {}
        self.latest = Resources(absent={"server": "not looked at yet"})

    @classmethod
    def of(cls, config: Config, stable_address: str | None) -> "ServerResources":
        """From the configuration; without a key there, who listens where requests are sent."""
        keys = config.resources
        if keys.pid is not None or keys.name is not None or keys.port is not None:
            return cls(Target(pid=keys.pid, name=keys.name, port=keys.port))
        if stable_address is not None:
            return cls(address_target(stable_address))
        if config.tap is not None:
            return cls(Target(port=config.tap.port))
        return cls(Target(why_not="nothing is relayed to it: set resources.port, pid or name"))

    def look_at(self, address: str) -> None:
        """The stable model is served elsewhere now."""
        if self._target.pid is not None or self._target.name is not None:
            return
        target = address_target(address)
        if target.why_not is None or self._target.port is None:
            self._target = target
            self._process = None

    def read(self, now: float) -> Resources:
        """Look again; never raises."""
        del now
        try:
            self.latest = self._read()
        except psutil.NoSuchProcess:
            self._process = None
            self.latest = Resources(absent={"server": "its process has just ended"})
        except psutil.AccessDenied:
            self.latest = Resources(absent={"server": NO_PERMISSION})
        return self.latest

    def _read(self) -> Resources:
        process = self._find()
        if process is None:
            return Resources(absent={"server": self._target.why_not or "no such process"})
        family = [process, *process.children(recursive=True)]
        self._settle({(member.pid, member.create_time()) for member in family})
        values: dict[str, float] = {"memory_bytes": 0.0, "threads": 0.0, "fds": 0.0}
        absent: dict[str, str] = {"network": "the kernel counts bytes per interface, not process"}
        for member in family:
            try:
                self._add(member, values, absent)
            except psutil.NoSuchProcess:
                continue
        if "fds" in absent:
            del values["fds"]
        values["cpu_s"] = self._cpu_before_s + sum(self._cpu_s.values())
        return Resources(values=values, absent=absent, pid=process.pid)

    def _add(
        self, member: psutil.Process, values: dict[str, float], absent: dict[str, str]
    ) -> None:
        with member.oneshot():
            times = member.cpu_times()
            self._cpu_s[(member.pid, member.create_time())] = times.user + times.system
            values["memory_bytes"] += member.memory_info().rss
            values["threads"] += member.num_threads()
        try:
            values["fds"] += member.num_fds()
        except psutil.AccessDenied:
            absent["fds"] = "only its own user may count a process' descriptors"

    def _find(self) -> psutil.Process | None:
        if self._process is not None and _lives(self._process):
            return self._process
        self._settle(set())
        self._process = find_process(self._target)
        return self._process

    def _settle(self, alive: set[tuple[int, float]]) -> None:
        """Whoever is gone used what it used: the counter must not fall."""
        for gone in self._cpu_s.keys() - alive:
            self._cpu_before_s += self._cpu_s.pop(gone)


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


def _lives(process: psutil.Process) -> bool:
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
    if target.port is not None:
        return _listening(target.port)
    return None


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


class AgentResources:
    """Our own processes, as the supervisor names them, and the supervisor itself."""

    def __init__(self) -> None:
        self._processes: dict[str, dict[str, Any]] = {}
        own = psutil.Process()
        self._supervisor = own.ppid()

    def processes_are(self, processes: Mapping[str, Mapping[str, Any]]) -> None:
        """Name to pid (or None while it is away) and restarts."""
        self._processes = {name: dict(values) for name, values in processes.items()}

    def read(self) -> dict[str, dict[str, float]]:
        """Name to cpu_s, memory_bytes, restarts, pid; without figures for what is not running."""
        named = {"supervisor": {"pid": self._supervisor, "restarts": 0}, **self._processes}
        found: dict[str, dict[str, float]] = {}
        for name, values in named.items():
            figures = {"restarts": float(values["restarts"] or 0)}
            pid = values["pid"]
            if pid is not None and psutil.pid_exists(pid):
                figures |= _figures(pid)
            found[name] = figures
        return found


def _figures(pid: int) -> dict[str, float]:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return {
                "pid": pid,
                "cpu_s": times.user + times.system,
                "memory_bytes": float(process.memory_info().rss),
            }
    except psutil.Error:
        return {}
