"""A slot that serves a model: a command that we start and supervise, or an upstream that is there.

The model must survive us: its process has a session of its own and writes to a file, not to a
pipe, so that an agent killed hard takes nothing with it, and the next one adopts it. Nothing goes
through a shell, and the model sees neither our secrets nor our environment.
"""

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Literal, TypeAlias

import httpx

from retrain.registry import SlotRecord
from retrain.rollout_messages import Slot
from retrain.traffic.process import ProcessId, marked

# Enough to find programs and speak a language; everything else must be allowed by name.
ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HOME")
MARKER = "REMORA_SLOT"
MODEL_UMASK = 0o022
LOG_BYTES_MAX = 4 << 20
READY_EVERY_S = 0.1
READY_REQUEST_S = 2.0
STOP_GRACE_S = 10.0
BACKOFF_S = 0.5
BACKOFF_S_MAX = 30.0
# A process that stayed up for so long has earned a quick restart.
STEADY_S = 60.0

SlotNews: TypeAlias = Literal["ready", "failed"]


class SlotError(Exception):
    """The slot does not serve; the text says why, with the last line of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotCommand:
    """How a model is served. `{artifact}` and `{port}` are replaced in each argument.

    env: names of our variables that the process may see. ready_path answers 2xx when it serves.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    ready_path: str = "/v2/health/ready"
    ready_timeout_s: float = 120.0
    env: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not any("{port}" in argument for argument in self.argv):
            raise ValueError("the command needs {port}: where the model listens is chosen for it")

    def arguments(self, *, artifact: Path, port: int) -> list[str]:
        return [
            argument.replace("{artifact}", str(artifact)).replace("{port}", str(port))
            for argument in self.argv
        ]


def backoff_s(failures: int) -> float:
    """Seconds before the next start after so many failures in a row.

    >>> [backoff_s(n) for n in (1, 2, 3, 20)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(failures - 1, 16))


class SlotProcess:
    """One model process in one slot. `home` is the slot's folder: its log and nothing else."""

    def __init__(
        self, *, name: Slot, digest: str, command: SlotCommand, artifact: Path, home: Path
    ) -> None:
        self.name = name
        self.digest = digest
        self._command = command
        self._artifact = artifact
        self._home = home
        self.log = home / "model.log"
        self._id: ProcessId | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self.address = ""

    @property
    def record(self) -> SlotRecord:
        """What the registry is to remember: enough to find the process again."""
        return SlotRecord(
            name=self.name,
            digest=self.digest,
            address=self.address or None,
            pid=self._id.pid if self._id else None,
            started=self._id.started if self._id else None,
        )

    def alive(self) -> bool:
        if self._child is not None:
            self._child.poll()  # a zombie of ours is reaped here
        return self._id is not None and self._id.alive()

    def adopt(self, record: SlotRecord) -> bool:
        """Take over what an earlier agent started. False: it is gone, or it is another model."""
        if record.digest != self.digest or not record.address:
            return False
        if record.pid is None or record.started is None:
            return False
        found = ProcessId(pid=record.pid, started=record.started)
        if not found.alive():
            return False
        self._id, self.address, self._child = found, record.address, None
        return True

    def start(self) -> None:
        """Start the process on a free loopback port. SlotError: it cannot be started at all."""
        if self.alive():
            return
        self._end_strays()
        self._home.mkdir(parents=True, exist_ok=True)
        self.bound_log()
        port = _free_port()
        environment = {
            name: os.environ[name]
            for name in (*ENVIRONMENT, *self._command.env)
            if name in os.environ
        }
        environment[MARKER] = self._marker
        arguments = self._command.arguments(artifact=self._artifact, port=port)
        try:
            # Appending: after the file was cut the next line goes to its new end.
            with self.log.open("ab") as output:
                self._child = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._command.cwd,
                    env=environment,
                    umask=MODEL_UMASK,  # ours is stricter than a model server may expect
                    start_new_session=True,
                )
        except OSError as error:
            raise SlotError(f"{arguments[0]}: {error.strerror}") from error
        self._id = ProcessId.of(self._child.pid)
        self.address = f"http://127.0.0.1:{port}"

    @property
    def _marker(self) -> str:
        home = hashlib.sha256(os.fsencode(self._home.resolve())).hexdigest()
        return f"{self.name}-{home[:16]}"

    def _end_strays(self) -> None:
        """An agent that died between start and note left a process that nobody knows, and a
        process that died may have left children that hold its port and memory."""
        for stray in marked(MARKER, self._marker):
            stray.kill()

    async def wait_ready(self) -> None:
        """Returns when the model answers; SlotError when it ends before or takes too long."""
        identity = self._id
        if identity is None:
            # It ended before we could look at it, or was never started.
            raise SlotError(f"{self._exit_words()}{self._last_line()}")
        timeout_s = self._command.ready_timeout_s
        gone = asyncio.ensure_future(identity.ended())
        answers = asyncio.ensure_future(answers_ready(self.address, self._command.ready_path))
        try:
            done, _ = await asyncio.wait(
                {gone, answers}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            gone.cancel()
            answers.cancel()
        # Somebody else may answer on the port of a process that could not have it.
        if gone in done or not self.alive():
            raise SlotError(f"{self._exit_words()}{self._last_line()}")
        if not done:
            raise SlotError(f"not ready after {timeout_s:g} s{self._last_line()}")

    async def ended(self) -> str:
        """Returns when the process has ended, saying how."""
        if self._id is not None:
            await self._id.ended()
        return self._exit_words()

    async def stop(self, *, grace_s: float = STOP_GRACE_S) -> None:
        """End the process and its descendants: asked first, killed after the grace."""
        if self._id is not None:
            self._id.signal_group(SIGTERM)
            try:
                await asyncio.wait_for(self._id.ended(), grace_s)
            except TimeoutError:
                self._id.signal_group(SIGKILL)
                await self._id.ended()
        self._end_strays()
        if self._child is not None:
            self._child.wait()
        self._id, self._child, self.address = None, None, ""

    def bound_log(self) -> None:
        """Keep the log below its limit: the full part moves aside, one is kept."""
        try:
            if self.log.stat().st_size > LOG_BYTES_MAX:
                # Copied and cut: the process holds the file open and would follow a rename.
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)
        except FileNotFoundError:
            pass

    async def supervise(
        self, tell: Callable[[SlotNews, str], None], *, restart: Callable[[], bool]
    ) -> None:
        """Start, tell when it is ready, tell when it failed, and start again while `restart()`.

        The stable slot is restarted, with back-off; for a candidate the rollout decides. Ends
        when the process failed and must not be restarted; cancel it and call `stop` to end both.
        """
        failures, loop = 0, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self.start()
                await self.wait_ready()
                tell("ready", self.address)
                why = f"{await self.ended()}{self._last_line()}"
            except SlotError as error:
                why = str(error)
            await self.stop()
            tell("failed", why)
            if not restart():
                return
            failures = 1 if loop.time() - began > STEADY_S else failures + 1
            await asyncio.sleep(backoff_s(failures))

    def _exit_words(self) -> str:
        code = self._child.poll() if self._child is not None else None
        if code is None:
            return "the process ended"
        return f"killed by signal {-code}" if code < 0 else f"exit {code}"

    def _last_line(self) -> str:
        try:
            with self.log.open("rb") as text:
                text.seek(max(0, self.log.stat().st_size - 400))
                lines = text.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {last[:200]}" if last else ""


class UpstreamSlot:
    """A slot that somebody else runs: nothing is started or stopped, it is only asked."""

    def __init__(
        self, *, name: Slot, digest: str, address: str, ready_path: str, ready_timeout_s: float
    ) -> None:
        self.name = name
        self.digest = digest
        self.address = address
        self._ready_path = ready_path
        self._ready_timeout_s = ready_timeout_s

    @property
    def record(self) -> SlotRecord:
        return SlotRecord(name=self.name, digest=self.digest, address=self.address)

    async def wait_ready(self) -> None:
        try:
            await asyncio.wait_for(
                answers_ready(self.address, self._ready_path), self._ready_timeout_s
            )
        except TimeoutError:
            text = f"{self.address}{self._ready_path} not ready after {self._ready_timeout_s:g} s"
            raise SlotError(text) from None


async def answers_ready(address: str, path: str) -> None:
    """Returns with the first 2xx answer; asks until it is cancelled."""
    # No proxy of the environment may answer for the model.
    async with httpx.AsyncClient(trust_env=False, timeout=READY_REQUEST_S) as client:
        while True:
            try:
                if (await client.get(address + path)).is_success:
                    return
            except httpx.HTTPError:
                pass  # not yet
            await asyncio.sleep(READY_EVERY_S)


def _free_port() -> int:
    """A port nobody listens on now; whoever takes it in between makes the start fail, visibly."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def slot_names(stable: Slot) -> Sequence[Slot]:
    """The stable slot, and the one that the next candidate gets."""
    return (stable, "B" if stable == "A" else "A")
