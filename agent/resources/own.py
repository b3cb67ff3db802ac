"""What Remora's own processes use."""

from collections.abc import Mapping
from typing import Any

import psutil


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
