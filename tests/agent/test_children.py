"""Children are started again, killed only when they hang, and never started while we stop."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import children
from agent.children import Child, Message

# Answers pings until it is told not to; `{"type": "exit"}` ends it.
CHILD = """
import json, socket, sys
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
control.send(json.dumps({"type": "ready"}).encode())
silent = False
while packet := control.recv(1000):
    message = json.loads(packet)
    if message["type"] == "exit":
        break
    silent = silent or message["type"] == "silence"
    if message["type"] == "ping" and not silent:
        control.send(json.dumps({"type": "pong", "n": message["n"]}).encode())
"""


class Nursery:
    """One child of a module made for the test."""

    def __init__(self, hung_after_s: float) -> None:
        self.told: list[Message] = []
        self.spawned = 0
        self.child = Child(
            "small",
            "small_child",
            on_spawn=self._spawned,
            on_message=self.told.append,
            hung_after_s=hung_after_s,
        )
        self.keeping = asyncio.get_running_loop().create_task(self.child.keep_alive())

    def _spawned(self, _: Child) -> None:
        self.spawned += 1

    async def close(self) -> None:
        await self.child.stop(grace_s=5.0)
        await asyncio.wait_for(self.keeping, 5.0)


@pytest.fixture
def nursery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nursery]:
    (tmp_path / "small_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(children, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(children, "BACKOFF_S", (0.05,))
    return lambda hung_after_s=30.0: Nursery(hung_after_s)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - another process has no event for us
            await asyncio.sleep(0.01)


async def test_a_child_that_ends_is_started_again(nursery: Callable[..., Nursery]) -> None:
    small = nursery()
    await until(lambda: small.told)
    assert small.child.answers
    small.child.send({"type": "exit"})
    await until(lambda: len(small.told) == 2)
    assert (small.spawned, small.child.restarts) == (2, 1)
    await small.close()
    assert small.child.pid is None


async def test_a_child_that_hangs_is_killed(nursery: Callable[..., Nursery]) -> None:
    small = nursery(0.5)
    await until(lambda: small.told)
    small.child.send({"type": "silence"})
    await until(lambda: small.spawned == 2)
    await small.close()


async def test_a_pause_of_everybody_is_no_hanging(nursery: Callable[..., Nursery]) -> None:
    small = nursery(5.0)
    await until(lambda: small.told)
    small.child.last_pong_at -= 1_000.0  # as after a suspended machine woke up
    await until(lambda: small.child.answers)
    assert small.spawned == 1
    await small.close()


async def test_nothing_is_started_once_we_stop(
    nursery: Callable[..., Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "BACKOFF_S", (0.3,))
    small = nursery()
    await until(lambda: small.told)
    small.child.send({"type": "exit"})
    await until(lambda: small.child.pid is None)
    await small.child.stop(grace_s=1.0)  # in the back-off, with nobody to end
    await asyncio.wait_for(small.keeping, 5.0)
    assert small.spawned == 1


async def test_a_start_that_fails_is_tried_again(
    nursery: Callable[..., Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = asyncio.create_subprocess_exec, iter([True, True])

    async def sometimes(*args: Any, **kwargs: Any) -> Any:
        if next(failures, False):
            raise BlockingIOError("no processes left")
        return await real(*args, **kwargs)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sometimes)
    small = nursery()
    await until(lambda: small.told)
    assert small.child.restarts == 2
    await small.close()


async def test_a_child_that_is_away_takes_no_message() -> None:
    child = Child("x", "x", on_spawn=print, on_message=print, hung_after_s=1.0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert child.send({"type": "channel"}, [ours.fileno()]) is False
    assert child.pid is None


REFUSING = """
import json, socket, sys
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
control.send(json.dumps({"type": "refused", "reason": "needs a capability"}).encode())
"""


async def test_a_child_that_refuses_is_asked_again_later_and_that_is_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "refusing_child.py").write_text(REFUSING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(children, "BACKOFF_S", (0.0,))
    spawned: list[Child] = []
    child = Child(
        "small",
        "refusing_child",
        on_spawn=spawned.append,
        on_message=lambda _: None,
        hung_after_s=30.0,
        refused_wait_s=0.3,
    )
    keeping = asyncio.get_running_loop().create_task(child.keep_alive())
    await until(lambda: child.refused)
    assert child.refused == "needs a capability"
    await until(lambda: len(spawned) == 2)
    assert (child.restarts, child.ready) == (0, False)
    await child.stop(grace_s=5.0)
    await asyncio.wait_for(keeping, 5.0)  # no pause is waited out


async def test_ready_is_of_the_present_process(nursery: Callable[..., Nursery]) -> None:
    small = nursery()
    await until(lambda: small.child.ready)
    small.child.send({"type": "exit"})
    await until(lambda: small.spawned == 2 or not small.child.ready)
    await until(lambda: small.child.ready)
    assert small.child.refused is None
    await small.close()
    assert not small.child.ready


def arguments(child: Child) -> list[str]:
    return Path(f"/proc/{child.pid}/cmdline").read_text().split("\0")


async def test_workers_have_one_name_for_people_and_one_each_for_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child(
        "edge-2",
        "small_child",
        on_spawn=lambda _: None,
        on_message=lambda _: None,
        hung_after_s=30.0,
        title="edge",
    )
    keeping = asyncio.get_running_loop().create_task(child.keep_alive())
    await until(lambda: child.ready)
    assert "remora-edge" in arguments(child)
    await child.stop(grace_s=5.0)
    await asyncio.wait_for(keeping, 5.0)
