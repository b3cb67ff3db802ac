"""What the model server uses: found, found again, and absent with its reason."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from agent.resources import (
    NO_PERMISSION,
    AgentResources,
    ServerResources,
    Target,
    address_target,
    find_process,
)
from agent.resources import server as server_module

# Uses half a second of CPU time and a child, then listens and says where.
SERVER = """
import os, socket, sys, time
while time.process_time() < 0.5:
    pass
if os.fork() == 0:
    while time.process_time() < 0.2:
        pass
    print("child", flush=True)
    sys.stdin.read()
    os._exit(0)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), reuse_port=True)
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""

Start = Callable[[int], tuple[subprocess.Popen[str], int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(port)` is a process that listens there (0: anywhere), and the port."""
    started: list[subprocess.Popen[str]] = []

    def run(port: int) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        lines = {process.stdout.readline().strip() for _ in range(2)} - {"child"}
        return process, int(lines.pop())

    yield run
    for process in started:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.real
def test_a_server_is_found_by_its_port_and_again_after_a_restart(start: Start) -> None:
    process, port = start(0)
    server = ServerResources(address_target(f"127.0.0.1:{port}"))
    assert server.latest.absent == {"server": "not looked at yet"}
    first = server.read()
    assert first.pid == process.pid
    assert first.values["cpu_s"] >= 0.65  # with its child
    assert first.values["threads"] >= 2
    assert first.values["fds"] >= 4
    assert first.values["memory_bytes"] > 1e6
    assert "network" in first.absent

    end(process)
    gone = server.read()
    assert (gone.values, gone.pid) == ({}, None)
    assert gone.absent["server"] in ("no such process", "its process has just ended")

    again, _ = start(port)
    second = server.read()
    assert second.pid == again.pid
    # A counter: what the first one used is not forgotten.
    assert second.values["cpu_s"] >= first.values["cpu_s"] + 0.65


@pytest.mark.real
def test_a_server_is_found_by_its_number_or_its_name(start: Start) -> None:
    process, _ = start(0)
    by_number = find_process(Target(pid=process.pid))
    assert by_number is not None
    assert by_number.pid == process.pid
    by_name = find_process(Target(name=by_number.name()))
    assert by_name is not None  # of several, the oldest
    assert by_name.create_time() <= by_number.create_time()
    assert find_process(Target(pid=2**22 + 1)) is None
    assert find_process(Target(name="no such name at all")) is None


@pytest.mark.parametrize(
    ("address", "why"),
    [("unix:/run/model.sock", "Unix socket"), ("192.0.2.7:8000", r"runs elsewhere \(192.0.2.7\)")],
)
def test_what_cannot_be_seen_is_absent_with_its_reason(address: str, why: str) -> None:
    server = ServerResources(address_target(address))
    seen = server.read()
    assert seen.values == {}
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(seen.absent["server"])


@pytest.mark.parametrize("address", ["127.0.0.1:80", "127.1.2.3:80", "[::1]:80", "localhost:80"])
def test_this_machine_has_many_names(address: str) -> None:
    assert address_target(address) == Target(port=80)


def test_an_address_of_our_own_interfaces_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"eth0": [SimpleNamespace(address="10.1.2.3")]}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    assert address_target("10.1.2.3:8000") == Target(port=8_000)


def test_a_listener_of_somebody_else_is_a_matter_of_permission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    laddr = SimpleNamespace(port=8_000)
    connection = SimpleNamespace(status=psutil.CONN_LISTEN, laddr=laddr, pid=None)
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [connection])
    server = ServerResources(Target(port=8_000))
    assert server.read().absent == {"server": NO_PERMISSION}
    assert ServerResources(Target(port=8_001)).read().absent == {"server": "no such process"}


class Fake:
    """A process as psutil shows it."""

    def __init__(self, pid: int, cpu_s: float, children: list["Fake"] | None = None) -> None:
        self.pid, self.cpu_s = pid, cpu_s
        self.kids = children or []
        self.state = psutil.STATUS_RUNNING
        self.hidden = False

    def oneshot(self) -> Any:
        return open(os.devnull)  # any context manager will do

    def is_running(self) -> bool:
        return True

    def status(self) -> str:
        return self.state

    def children(self, recursive: bool) -> list["Fake"]:
        return self.kids

    def create_time(self) -> float:
        return 1.0

    def cpu_times(self) -> Any:
        return SimpleNamespace(user=self.cpu_s, system=0.0)

    def memory_info(self) -> Any:
        return SimpleNamespace(rss=1_000)

    def num_threads(self) -> int:
        return 2

    def num_fds(self) -> int:
        if self.hidden:
            raise psutil.AccessDenied(self.pid)
        return 5


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Fake | None]:
    """Who is found, from now on: the first of the list."""
    processes: list[Fake | None] = []
    monkeypatch.setattr(server_module, "find_process", lambda target: processes[0])
    return processes


def test_workers_that_come_and_go_do_not_make_the_counter_fall(found: list[Any]) -> None:
    main = Fake(1, 10.0, [Fake(n, 1.0) for n in range(2, 5)])
    found[:] = [main]
    server = ServerResources(Target(pid=1))
    assert server.read().values["cpu_s"] == 13.0
    for number in range(100):
        main.kids = [Fake(100 + number, 2.0)]
        server.read()
    assert server.read().values["cpu_s"] == 10.0 + 3.0 + 200.0
    assert len(server._cpu_s) <= 2  # the dead are added up, not kept


def test_a_zombie_is_not_the_server(found: list[Any]) -> None:
    old, new = Fake(1, 5.0), Fake(2, 1.0)
    found[:] = [old]
    server = ServerResources(Target(port=1))
    server.read()
    old.state = psutil.STATUS_ZOMBIE
    found[:] = [new]
    seen = server.read()
    assert (seen.pid, seen.values["cpu_s"]) == (2, 6.0)


def test_descriptors_of_another_user_are_absent_and_the_rest_is_there(found: list[Any]) -> None:
    hidden = Fake(1, 5.0)
    hidden.hidden = True
    found[:] = [hidden]
    seen = ServerResources(Target(pid=1)).read()
    assert "fds" not in seen.values
    assert "descriptors" in seen.absent["fds"]
    assert seen.values["threads"] == 2


def test_the_server_moves_with_the_stable_version(found: list[Any]) -> None:
    found[:] = [Fake(1, 5.0)]
    server = ServerResources(Target(port=8_000))
    server.read()
    found[:] = [Fake(2, 1.0)]
    server.look_at("127.0.0.1:8001")
    assert (server.read().pid, server._target) == (2, Target(port=8_001))
    server.look_at("unix:/x")  # a port that was known is better than nothing
    assert server._target == Target(port=8_001)
    named = ServerResources(Target(name="model"))
    named.look_at("127.0.0.1:8001")
    assert named._target == Target(name="model")


def test_our_own_processes_are_measured_by_name() -> None:
    ours = AgentResources()
    ours.processes_are(
        {"edge": {"pid": os.getpid(), "restarts": 3}, "tap": {"pid": None, "restarts": 1}}
    )
    seen = ours.read()
    assert set(seen) == {"supervisor", "edge", "tap"}
    assert seen["edge"]["restarts"] == 3.0
    assert seen["edge"]["cpu_s"] > 0
    assert seen["edge"]["memory_bytes"] > 1e6
    assert seen["tap"] == {"restarts": 1.0}
    ours.processes_are({"edge": {"pid": 2**22 + 1, "restarts": 4}})
    assert ours.read()["edge"] == {"restarts": 4.0}
