"""A child process that is kept alive: spawned with a control socket, pinged, restarted.

The supervisor must stay cheaper and calmer than what it watches: nothing here waits for a
child, and a child that dies is started again after a back-off while everything else goes on.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

log = structlog.get_logger("remora.supervisor")

Message = dict[str, Any]

BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
# A child that lived this long was healthy: its next death starts the back-off anew.
HEALTHY_S = 30.0
PING_EVERY_S = 0.5
PACKET_BYTES_MAX = 200_000


class Child:
    """One supervised process. `on_spawn` sends it whatever it needs to start."""

    def __init__(
        self,
        name: str,
        module: str,
        *,
        on_spawn: Callable[["Child"], None],
        on_message: Callable[[Message], None],
        hung_after_s: float,
        title: str | None = None,
        refused_wait_s: float | None = None,
    ) -> None:
        self.name = name
        self.ready = False  # it said so since it was started
        self.refused: str | None = None  # why it cannot do its work, in its own words
        self._refused_wait_s = refused_wait_s
        self._refuses = False  # the present process
        # What ps shows: workers that do the same have one name there, and one each in metrics.
        self._title = f"remora-{title or name}"
        self.restarts = 0
        self.pid: int | None = None
        self.last_pong_at = 0.0
        self._module = module
        self._on_spawn = on_spawn
        self._on_message = on_message
        self._hung_after_s = hung_after_s
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._stop_called = asyncio.Event()
        self._deaths_in_a_row = 0
        self._ping = 0
        self._unanswered = 0  # pings since the last pong

    @property
    def answers(self) -> bool:
        """Whether its loop answered a ping lately."""
        return self.pid is not None and self._age_s() < 2.0

    def _age_s(self) -> float:
        return asyncio.get_running_loop().time() - self.last_pong_at

    def _ends(self) -> bool:
        """Asked anew after each wait: `stop` may have been called meanwhile."""
        return self._stopping

    async def keep_alive(self) -> None:
        """Run until `stop`, starting the process again whenever it ends."""
        loop = asyncio.get_running_loop()
        while not self._ends():
            born_at = loop.time()
            try:
                await self._live()
            except OSError as error:
                # No memory, no descriptors, no processes left: that passes, this task must not.
                log.error("child cannot be started", child=self.name, error=str(error))
            if self._ends():
                return
            if self._refuses and self._refused_wait_s is not None:
                # It has said what is missing, and that does not come by starting it again soon.
                await self._pause(self._refused_wait_s)
                continue
            if loop.time() - born_at > HEALTHY_S:
                self._deaths_in_a_row = 0
            wait_s = BACKOFF_S[min(self._deaths_in_a_row, len(BACKOFF_S) - 1)]
            self._deaths_in_a_row += 1
            self.restarts += 1
            log.warning("child ended, starting it again", child=self.name, wait_s=wait_s)
            await self._pause(wait_s)

    async def _pause(self, wait_s: float) -> None:
        """The back-off; cut short when there is nothing to wait for any more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop_called.wait(), wait_s)

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            # The name stands in the arguments so that ps and pgrep show which process this is.
            argv = ["-m", self._module, self._title, "--control-fd", str(theirs.fileno())]
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, *argv, pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL
            )
            theirs.close()
            self._control = ours
            self.pid = process.pid
            self.last_pong_at = loop.time()
            self._unanswered = 0
            self._refuses = False
            loop.add_reader(ours, self._readable)
            pinging = loop.create_task(self._watch(process))
            try:
                self._on_spawn(self)
                code = await process.wait()
                log.info("child ended", child=self.name, pid=self.pid, code=code)
            finally:
                pinging.cancel()
                loop.remove_reader(ours)
                self._control = None
                self.pid = None
                self.ready = False

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Ping twice a second; a loop that has not answered for long is killed, not waited for.

        Pings are counted, not seconds: a machine or container that was paused as a whole wakes up
        to an old pong, and a child must not die for having slept when we slept too.
        """
        while True:
            self._ping += 1
            self.send({"type": "ping", "n": self._ping})
            await asyncio.sleep(PING_EVERY_S)
            self._unanswered += 1
            if self._unanswered * PING_EVERY_S > self._hung_after_s:
                log.error("child hangs, killing it", child=self.name, silent_s=self._age_s())
                process.kill()
                return

    def _readable(self) -> None:
        assert self._control is not None
        while True:
            try:
                packet = self._control.recv(PACKET_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return
            if not packet:
                asyncio.get_running_loop().remove_reader(self._control)
                return
            message = json.loads(packet)
            if message["type"] == "pong":
                self.last_pong_at = asyncio.get_running_loop().time()
                self._unanswered = 0
                continue
            if message["type"] == "ready":
                self.ready, self.refused = True, None
            elif message["type"] == "refused":
                self.refused, self._refuses = str(message["reason"]), True
            self._on_message(message)

    def send(self, message: Message, fds: Sequence[int] = ()) -> bool:
        """Hand the child a message and descriptors; False when it is away or does not read."""
        if self._control is None:
            return False
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], list(fds))
        except (BlockingIOError, OSError) as error:
            if message["type"] != "ping":
                log.warning("child takes no message", child=self.name, error=str(error))
            return False
        return True

    async def stop(self, *, grace_s: float) -> None:
        """Ask it to end, wait at most `grace_s` seconds, then kill it."""
        self._stopping = True
        self._stop_called.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            process.send_signal(signal.SIGTERM)
        except ProcessLookupError:
            return
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            log.warning("child did not end in time, killing it", child=self.name)
            process.kill()
            await process.wait()


def name_process(name: str) -> None:
    """Make top and ps -o comm show `name` (the kernel keeps 15 characters)."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(name)
    except OSError:
        # Only a nicety: a /proc that is not writable changes nothing else.
        return


def notify_systemd(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3)); nothing elsewhere."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.sendto(state.encode(), address)
        except OSError as error:
            log.warning("systemd takes no notification", error=str(error))
