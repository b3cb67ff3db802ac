"""GPUs through NVML's calls: a stand-in for the library, for there is no GPU where tests run."""

from types import SimpleNamespace
from typing import Any

import pytest

from agent.resources.gpu import MISSING, Gpu, GpuMeter


class Nvml:
    """Two GPUs; process 7 runs on both, process 8 on the second."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, broken: str = "") -> None:
        self.broken = broken
        self.started = 0

    def nvmlInit(self) -> None:
        self.started += 1
        if self.broken == "init":
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        if self.broken == "count":
            raise self.NVMLError("GPU is lost")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[Any]:
        both = SimpleNamespace(pid=7, usedGpuMemory=1_000)
        return [both] if device == 0 else [both, SimpleNamespace(pid=8, usedGpuMemory=None)]

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:
        return SimpleNamespace(gpu=40 + device, memory=1)

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        if device == 1:
            raise self.NVMLError("Not Supported")
        return 2_500


def test_the_gpus_of_the_servers_processes_and_no_others() -> None:
    meter = GpuMeter(library=Nvml())
    both = [
        Gpu(index=0, utilization=0.4, memory_bytes=1_000.0, energy_j=2.5),
        Gpu(index=1, utilization=0.41, memory_bytes=1_000.0, energy_j=None),
    ]
    assert meter.read([7, 8]) == (both, {})
    assert meter.read([8]) == ([Gpu(index=1, utilization=0.41, memory_bytes=0.0)], {})
    assert meter.read([9]) == ([], {})


def test_the_library_is_started_once() -> None:
    library = Nvml()
    meter = GpuMeter(library=library)
    for _ in range(3):
        meter.read([7])
    assert library.started == 1


@pytest.mark.parametrize(("broken", "words"), [("init", "Not Loaded"), ("count", "lost")])
def test_what_nvml_says_is_the_reason(broken: str, words: str) -> None:
    gpus, absent = GpuMeter(library=Nvml(broken=broken)).read([7])
    assert gpus == []
    assert words in absent["gpu"]


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("agent.resources.gpu.importlib.import_module", no_library)
    meter = GpuMeter()
    assert meter.read([7]) == ([], {"gpu": MISSING})
