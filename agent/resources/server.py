"""What the model server uses: looked at as a process, and as a container where it is one.

The server is found by process id, by name, by container or by the port it listens on, and found
again when it was restarted. Counters never fall: who is gone used what it used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from agent.config import Config
from agent.resources.cgroup import read_cgroup
from agent.resources.cost import Costs, Prices
from agent.resources.energy import EnergyMeter
from agent.resources.finding import Target, address_target, find_process, lives
from agent.resources.gpu import Gpu, GpuMeter
from agent.resources.network import read_network
from agent.resources.reading import Look, Roots

NO_PERMISSION = (
    "no permission to read its process: share the process namespace, and run as its user"
)
# What the kernel counts for a container that a restart replaces by another one.
_RISING = ("throttled_s", "oom_kills", "received_bytes", "sent_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """One look at the server. Values that count only ever rise while the agent lives.

    values: cpu_s, memory_bytes, threads, fds of the processes; of their control group
    cgroup_memory_bytes, memory_limit_bytes, cpu_limit_cores, throttled_s, oom_kills;
    received_bytes, sent_bytes; energy_j. Whatever could not be read is missing.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    gpus: Sequence[Gpu] = ()
    pid: int | None = None
    energy_source: str = ""


class ServerResources:
    """The model server's process and its children."""

    def __init__(
        self,
        target: Target,
        *,
        roots: Roots | None = None,
        gpu: GpuMeter | None = None,
        watts_per_core: float | None = None,
    ) -> None:
        self._target = target
        self._roots = roots or Roots()
        self._gpu = gpu or GpuMeter()
        self._energy = EnergyMeter(roots=self._roots, watts_per_core=watts_per_core)
        self._process: psutil.Process | None = None
        self._cpu_before_s = 0.0  # of processes that are gone
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._risen: dict[str, float] = dict.fromkeys(
            _RISING, 0.0
        )  # sums of `_RISING` over restarts
        self._counted: dict[str, float] = {}  # what the kernel said last
        self.latest = Resources(absent={"server": "not looked at yet"})

    @classmethod
    def of(cls, config: Config, stable_address: str | None) -> "ServerResources":
        """From the configuration; without a key there, who listens where requests are sent."""
        return cls(_target(config, stable_address), watts_per_core=config.resources.watts_per_core)

    def look_at(self, address: str) -> None:
        """The stable model is served elsewhere now."""
        target = self._target
        if target.pid is not None or target.name is not None or target.container is not None:
            return
        found = address_target(address)
        if found.why_not is None or target.port is None:
            self._target = found
            self._process = None

    def read(self) -> Resources:
        """Look again; never raises."""
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
        look = Look(values={"memory_bytes": 0.0, "threads": 0.0, "fds": 0.0})
        for member in family:
            try:
                self._add(member, look.values, look.absent)
            except psutil.NoSuchProcess:
                continue
        if "fds" in look.absent:
            del look.values["fds"]
        look.values["cpu_s"] = self._cpu_before_s + sum(self._cpu_s.values())
        self._around(process.pid, look)
        gpus, why_no_gpu = self._gpu.read([member.pid for member in family])
        return Resources(
            values=look.values,
            absent={**look.absent, **why_no_gpu},
            gpus=tuple(gpus),
            pid=process.pid,
            energy_source=self._energy.source,
        )

    def _around(self, pid: int, look: Look) -> None:
        """What the kernel counts for the container, and the processor for the machine."""
        for more in (
            read_cgroup(pid, self._roots),
            read_network(pid, self._roots),
            self._energy.read(look.values["cpu_s"]),
        ):
            look.values |= more.values
            look.absent |= more.absent
        for name in _RISING:
            if name in look.values:
                look.values[name] = self._raised(name, look.values[name])

    def _raised(self, name: str, counted: float) -> float:
        before = self._counted.get(name, 0.0)
        self._counted[name] = counted
        # Another container counts from zero.
        self._risen[name] += counted - before if counted >= before else counted
        return self._risen[name]

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
        if self._process is not None and lives(self._process):
            return self._process
        self._settle(set())
        self._process = find_process(self._target)
        return self._process

    def _settle(self, alive: set[tuple[int, float]]) -> None:
        """Whoever is gone used what it used: the counter must not fall."""
        for gone in self._cpu_s.keys() - alive:
            self._cpu_before_s += self._cpu_s.pop(gone)


def _target(config: Config, stable_address: str | None) -> Target:
    keys = config.resources
    given = (keys.pid, keys.name, keys.port, keys.container)
    if any(key is not None for key in given):
        return Target(pid=keys.pid, name=keys.name, port=keys.port, container=keys.container)
    if stable_address is not None:
        return address_target(stable_address)
    if config.tap is not None:
        return Target(port=config.tap.port)
    return Target(why_not="nothing is relayed to it: set resources.port, pid, name or container")


def costs_of(config: Config) -> Costs | None:
    """From configured prices; None where there are none."""
    price = config.resources.price
    if price is None:
        return None
    return Costs(
        Prices(
            currency=price.currency,
            per_hour=price.per_hour,
            per_cpu_hour=price.per_cpu_hour,
            per_gib_hour=price.per_gib_hour,
            per_gpu_hour=price.per_gpu_hour,
            per_kwh=price.per_kwh,
        )
    )
