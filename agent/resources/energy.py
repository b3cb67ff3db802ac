"""Energy of the processors, and the server's share of it.

The processor counts for the whole machine (RAPL); the server is given the share that its CPU time
has in all CPU time, which is fair where cores are alike. Where there is no counter, a configured
number of watts for a busy core is multiplied with its CPU time, and said to be a model.

Source: the kernel's power/powercap.rst; the counter runs over at max_energy_range_uj.
"""

from dataclasses import dataclass, field
from pathlib import Path

from agent.resources.reading import Look, Roots, number_in

_UJ = 1e6
NONE = "no energy counter of the processor (RAPL) on this machine: set resources.watts_per_core"


@dataclass(slots=True)
class EnergyMeter:
    """Adds up joules between looks; the sum only ever rises."""

    roots: Roots
    watts_per_core: float | None = None
    joules: float = 0.0
    source: str = ""
    _counters: dict[str, float] = field(default_factory=dict)
    _server_s: float | None = None
    _machine_s: float | None = None

    def read(self, server_cpu_s: float) -> Look:
        """`server_cpu_s` is cumulative. energy_j, or why not."""
        look = Look()
        spent_s = 0.0 if self._server_s is None else max(0.0, server_cpu_s - self._server_s)
        self._server_s = server_cpu_s
        try:
            drawn = self._drawn()
        except PermissionError:
            drawn, why = None, "the energy counter is readable by root alone (powercap)"
        else:
            why = NONE
        if drawn is not None:
            self.source = "rapl"
            self.joules += drawn * self._share(spent_s)
        elif self.watts_per_core is not None:
            self.source = "model"
            self.joules += spent_s * self.watts_per_core
        else:
            look.absent["energy"] = why
            return look
        look.values["energy_j"] = self.joules
        return look

    def _drawn(self) -> float | None:
        """Joules of all packages since the last look; None without a counter."""
        packages = [p for p in self._zones() if (p / "name").read_text().startswith("package")]
        drawn: float | None = None
        for package in packages:
            now = number_in(package / "energy_uj")
            if now is None:
                continue
            before = self._counters.get(package.name, now)
            self._counters[package.name] = now
            if now < before:
                before -= number_in(package / "max_energy_range_uj") or before - now
            drawn = (drawn or 0.0) + (now - before) / _UJ
        return drawn

    def _zones(self) -> list[Path]:
        powercap = self.roots.sys / "class" / "powercap"
        return sorted(path for path in powercap.glob("*-rapl:*") if (path / "name").is_file())

    def _share(self, spent_s: float) -> float:
        """The server's part of the CPU time that was spent since the last look."""
        machine_s, before = self._busy_s(), self._machine_s
        self._machine_s = machine_s
        if before is None or machine_s is None or machine_s <= before:
            return 0.0
        return min(1.0, spent_s / (machine_s - before))

    def _busy_s(self) -> float | None:
        """CPU time of all processes, of the first line of /proc/stat: user, nice, system."""
        try:
            line = (self.roots.proc / "stat").read_text(encoding="ascii").split("\n", 1)[0]
            user, nice, system = (float(text) for text in line.split()[1:4])
        except (OSError, ValueError):
            return None
        return (user + nice + system) / _TICKS


# USER_HZ: what the kernel counts CPU time in, 100 on every platform that Python has wheels for.
_TICKS = 100.0
