"""A process that outlives us: recognised by pid and start time, ended as a group.

A pid alone names nobody: the kernel hands it out again. Pid, start time and boot do. Nothing here
may signal a process that is not identified in this way. Linux only.
"""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """`started`: boot id and start time in clock ticks since boot, as the kernel tells them."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process with this pid as it is now; None when there is none, or a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        # The command's name is in brackets and may hold anything, brackets too.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid=pid, started=f"{boot}:{fields[19]}")

    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    def signal_group(self, number: signal.Signals) -> None:
        """To the process and its descendants; nothing if it is gone. It leads its own group."""
        if not self.alive():
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """This process alone, at once; nothing if it is gone."""
        try:
            if self.alive():
                os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    async def ended(self) -> None:
        """Returns when the process has ended, whoever's child it is."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Between the look and the open it may have gone and its pid been taken.
            if self.alive():
                await _readable(handle)
        finally:
            os.close(handle)


async def _readable(handle: int) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(handle, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(handle)


def marked(name: str, value: str) -> list[ProcessId]:
    """Processes of this user with `name=value` in their environment.

    Finds a child whose pid we had no time to write down, and children it left behind.
    """
    wanted = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(ProcessId.of(int(entry.name)))
        except OSError:
            continue  # not ours, or gone
    return [process for process in found if process is not None]
