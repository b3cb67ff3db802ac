"""The GPUs that the server's processes use, through NVML (extra `gpu`).

The library is loaded when the first GPU is looked for, and never again once it was not there.
"""

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

MISSING = "no nvidia-ml-py here: pip install 'remora[gpu]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU at one moment. `memory_bytes` is of the server's processes alone."""

    index: int
    utilization: float  # of the whole GPU, 0 to 1
    memory_bytes: float
    energy_j: float | None = None  # of the whole GPU, since the driver was loaded


@dataclass(slots=True)
class GpuMeter:
    """NVML's handle; `library` is injected by tests, which have no GPU."""

    library: Any = None
    why_not: str = ""
    _ready: bool = field(default=False)

    def read(self, pids: Collection[int]) -> tuple[list[Gpu], Mapping[str, str]]:
        """The GPUs on which one of the processes runs; or the reason why nobody can say."""
        if not self._ready and not self.why_not:
            self._start()
        if self.why_not:
            return [], {"gpu": self.why_not}
        try:
            return self._used(set(pids)), {}
        except self.library.NVMLError as error:
            return [], {"gpu": f"NVML: {error}"}

    def _start(self) -> None:
        if self.library is None:
            try:
                self.library = importlib.import_module("pynvml")
            except ImportError:
                self.why_not = MISSING
                return
        try:
            self.library.nvmlInit()
        except self.library.NVMLError as error:
            self.why_not = f"NVML does not start: {error}"
            return
        self._ready = True

    def _used(self, pids: set[int]) -> list[Gpu]:
        nvml = self.library
        found: list[Gpu] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            running = nvml.nvmlDeviceGetComputeRunningProcesses(device)
            ours = [process for process in running if process.pid in pids]
            if ours:
                found.append(
                    Gpu(
                        index=index,
                        utilization=nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100.0,
                        # None where the driver does not say it (inside a container, say).
                        memory_bytes=float(sum(process.usedGpuMemory or 0 for process in ours)),
                        energy_j=self._energy_j(device),
                    )
                )
        return found

    def _energy_j(self, device: Any) -> float | None:
        try:
            return float(self.library.nvmlDeviceGetTotalEnergyConsumption(device)) / 1_000.0
        except self.library.NVMLError:
            return None  # older than Volta
