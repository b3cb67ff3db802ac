"""What the kernel says of a container and a processor, from recorded trees of files."""

import os
from pathlib import Path

import pytest

from agent.resources.cgroup import read_cgroup
from agent.resources.energy import NONE, EnergyMeter
from agent.resources.network import read_network
from agent.resources.reading import Roots

SERVER, OURS = 10, 20
UNIFIED = "/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope"


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(proc=tmp_path / "proc", sys=tmp_path / "sys")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def grouped(roots: Roots, *, server: str, ours: str) -> None:
    write(roots.proc / str(SERVER) / "cgroup", server)
    write(roots.proc / str(OURS) / "cgroup", ours)


def version_2(roots: Roots, **files: str) -> Path:
    grouped(roots, server=f"0::{UNIFIED}\n", ours="0::/kubepods.slice/ours\n")
    group = roots.sys / "fs/cgroup" / UNIFIED[1:]
    recorded = {
        "cpu.stat": "usage_usec 9000000\nuser_usec 1\nnr_throttled 7\nthrottled_usec 2500000\n",
        "cpu.max": "150000 100000\n",
        "memory.current": "104857600\n",
        "memory.max": "209715200\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n",
    }
    for name, text in {**recorded, **files}.items():
        write(group / name, text)
    return group


def test_a_container_of_version_2_has_its_limits_and_what_they_did(roots: Roots) -> None:
    version_2(roots)
    look = read_cgroup(SERVER, roots, own_pid=OURS)
    assert look.values == {
        "throttled_s": 2.5,
        "cpu_limit_cores": 1.5,
        "cgroup_memory_bytes": 104857600.0,
        "memory_limit_bytes": 209715200.0,
        "oom_kills": 1.0,
    }
    assert look.absent == {}


def test_no_limit_is_no_figure(roots: Roots) -> None:
    version_2(roots, **{"cpu.max": "max 100000\n", "memory.max": "max\n"})
    values = read_cgroup(SERVER, roots, own_pid=OURS).values
    assert "cpu_limit_cores" not in values
    assert "memory_limit_bytes" not in values
    assert values["cgroup_memory_bytes"] == 104857600.0


@pytest.mark.parametrize("text", ["", "\n", "junk", "max", "1 0", "\xff"])
def test_files_that_say_something_else_are_passed_over(roots: Roots, text: str) -> None:
    names = ("cpu.stat", "cpu.max", "memory.current", "memory.max", "memory.events")
    version_2(roots, **dict.fromkeys(names, text))
    look = read_cgroup(SERVER, roots, own_pid=OURS)
    assert "oom_kills" not in look.values
    assert "cpu_limit_cores" not in look.values


def test_version_1_and_hybrids_have_a_group_for_each_controller(roots: Roots) -> None:
    grouped(
        roots,
        server="4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
        ours="4:memory:/\n3:cpu,cpuacct:/\n0::/\n",
    )
    mount = roots.sys / "fs/cgroup"
    (mount / "unified").mkdir(parents=True)
    write(mount / "cpu/docker/abc/cpu.stat", "nr_periods 9\nthrottled_time 1500000000\n")
    write(mount / "cpu/docker/abc/cpu.cfs_quota_us", "50000\n")
    write(mount / "cpu/docker/abc/cpu.cfs_period_us", "100000\n")
    write(mount / "memory/docker/abc/memory.usage_in_bytes", "4096\n")
    write(mount / "memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n")
    write(mount / "memory/docker/abc/memory.oom_control", "under_oom 0\noom_kill 2\n")
    look = read_cgroup(SERVER, roots, own_pid=OURS)
    assert look.values == {
        "throttled_s": 1.5,
        "cpu_limit_cores": 0.5,
        "cgroup_memory_bytes": 4096.0,
        "oom_kills": 2.0,
    }


@pytest.mark.parametrize("path", ["/", "/system.slice/both.service"])
def test_a_group_that_is_shared_says_nothing_of_the_server(roots: Roots, path: str) -> None:
    grouped(roots, server=f"0::{path}\n", ours=f"0::{path}\n")
    write(roots.sys / "fs/cgroup" / path[1:] / "memory.current", "1\n")
    look = read_cgroup(SERVER, roots, own_pid=OURS)
    assert look.values == {}
    assert "shares its control group" in look.absent["cgroup"]


@pytest.mark.parametrize("path", ["/../../escape", "/not/mounted/here"])
def test_a_group_of_another_namespace_is_absent_with_its_reason(roots: Roots, path: str) -> None:
    grouped(roots, server=f"0::{path}\n", ours="0::/ours\n")
    write(roots.sys / "escape/memory.current", "1\n")
    look = read_cgroup(SERVER, roots, own_pid=OURS)
    assert look.values == {}
    assert "not visible" in look.absent["cgroup"]


DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0
  eth0: 1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0
  eth1: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0
"""


def networked(roots: Roots, *, server: str, ours: str) -> None:
    for pid, namespace in ((SERVER, server), (OURS, ours)):
        link = roots.proc / str(pid) / "ns/net"
        link.parent.mkdir(parents=True)
        os.symlink(namespace, link)
    write(roots.proc / str(SERVER) / "net/dev", DEV)


def test_a_server_with_a_namespace_of_its_own_has_its_bytes(roots: Roots) -> None:
    networked(roots, server="net:[1]", ours="net:[2]")
    look = read_network(SERVER, roots, own_pid=OURS)
    assert look.values == {"received_bytes": 1010.0, "sent_bytes": 2020.0}


def test_in_a_shared_namespace_nobody_knows_whose_bytes_they_are(roots: Roots) -> None:
    networked(roots, server="net:[1]", ours="net:[1]")
    look = read_network(SERVER, roots, own_pid=OURS)
    assert look.values == {}
    assert "shares its network namespace" in look.absent["network"]


def test_a_process_that_has_gone_has_no_network(roots: Roots) -> None:
    assert "cannot be read" in read_network(SERVER, roots, own_pid=OURS).absent["network"]


class Machine:
    """A processor with counters, and CPU time of all processes."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        zones = roots.sys / "class/powercap"
        for number, name in enumerate(("package-0", "package-1")):
            write(zones / f"intel-rapl:{number}/name", f"{name}\n")
            write(zones / f"intel-rapl:{number}/max_energy_range_uj", "1000000000\n")
        # Part of a package: counted in it already.
        write(zones / "intel-rapl:0:0/name", "core\n")
        write(zones / "intel-rapl:0:0/energy_uj", "5\n")

    def now(self, *, energy_uj: tuple[int, int], busy_s: float) -> None:
        for number, counter in enumerate(energy_uj):
            path = self._roots.sys / f"class/powercap/intel-rapl:{number}/energy_uj"
            write(path, f"{counter}\n")
        busy = int(busy_s * 100)
        write(self._roots.proc / "stat", f"cpu  {busy - 10} 4 6 99999 1 0 0 0 0 0\ncpu0 1 1\n")


def test_the_server_has_its_share_of_what_the_packages_drew(roots: Roots) -> None:
    machine = Machine(roots)
    meter = EnergyMeter(roots=roots)
    machine.now(energy_uj=(0, 500_000_000), busy_s=100.0)
    assert meter.read(50.0).values == {"energy_j": 0.0}
    # 60 and 40 joules, of which the server's 2 of 8 seconds are a quarter.
    machine.now(energy_uj=(60_000_000, 540_000_000), busy_s=108.0)
    assert meter.read(52.0).values["energy_j"] == pytest.approx(25.0)
    assert meter.source == "rapl"


def test_a_counter_that_runs_over_goes_on(roots: Roots) -> None:
    machine = Machine(roots)
    meter = EnergyMeter(roots=roots)
    machine.now(energy_uj=(990_000_000, 0), busy_s=100.0)
    meter.read(0.0)
    machine.now(energy_uj=(10_000_000, 0), busy_s=101.0)
    assert meter.read(1.0).values["energy_j"] == pytest.approx(20.0)


def test_without_a_counter_the_model_speaks_if_it_is_configured(roots: Roots) -> None:
    assert EnergyMeter(roots=roots).read(1.0).absent == {"energy": NONE}
    meter = EnergyMeter(roots=roots, watts_per_core=12.0)
    assert meter.read(100.0).values == {"energy_j": 0.0}
    assert meter.read(110.0).values["energy_j"] == pytest.approx(120.0)
    assert meter.source == "model"
    meter.read(5.0)  # another process: it cannot have given energy back
    assert meter.read(6.0).values["energy_j"] == pytest.approx(132.0)
