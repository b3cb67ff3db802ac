"""Jobs as processes of this machine: scrubbed environment, low priority, limits, progress.

A job does not outlive its agent. What a restarted agent finds in its ledger as running it looks up
by pid and start time (`is_alive`), finds dead, and reports as failed.
What is not promised: a job runs as the agent's user, so file permissions, not this class, keep it
from the agent's secrets; run the agent's jobs elsewhere where user code is not trusted.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

LAUNCH = Path(__file__).with_name("launch.py")
# What any program needs to run at all. Tokens, proxies and cloud credentials are not among it.
ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ARROW_NUM_THREADS",
)
LINE_BYTES_MAX = 64 << 10
EVENTS_MAX = 256
TAIL_BYTES = 8 << 10
KILL_GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """address_bytes_max: of virtual memory, which torch asks for freely: 16 GiB is sane on a CPU
    build; give None for CUDA, which maps far more than it uses.
    """

    time_s_max: float = 3_600.0
    address_bytes_max: int | None = 16 << 30
    file_bytes_max: int | None = 8 << 30
    nice: int = 10
    threads: int = 1


class Ending(StrEnum):
    EXITED = "exited"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIdentity:
    """A process for ever: the pid alone is given to somebody else some day.

    started: clock ticks after boot, field 22 of /proc/PID/stat; 0 where there is no /proc.
    """

    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """returncode as of subprocess (minus the signal's number). last: the last progress line.

    stderr_tail: the end of what the job said on standard error.
    """

    ending: Ending
    returncode: int
    last: Mapping[str, Any]
    stderr_tail: str


class JobHandle:
    """A job that was started. Made by `LocalRunner.start`; read `events` from one place only."""

    def __init__(self, process: asyncio.subprocess.Process, time_s_max: float) -> None:
        self._process = process
        self._events: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(EVENTS_MAX)
        self._tail = b""
        self._ending = Ending.EXITED
        self.latest: Mapping[str, Any] = {}
        self.lines_dropped_total = 0
        self.identity = JobIdentity(pid=process.pid, started=_start_ticks(process.pid))
        self._watch = asyncio.create_task(self._run(time_s_max))

    def poll(self) -> int | None:
        """The return code, None while the job runs."""
        return self._process.returncode

    async def events(self) -> AsyncIterator[Mapping[str, Any]]:
        """Progress as it comes, until the job ends. A slow reader loses the oldest lines."""
        while (event := await self._events.get()) is not None:
            yield event

    async def wait(self) -> JobEnd:
        """Until the job has ended, of itself or by its time limit."""
        await asyncio.shield(self._watch)
        returncode = self._process.returncode
        assert returncode is not None  # the watch ends after the process
        return JobEnd(
            ending=self._ending,
            returncode=returncode,
            last=self.latest,
            stderr_tail=self._tail.decode("utf-8", errors="replace"),
        )

    async def cancel(self) -> JobEnd:
        """Asks the job to end, and ends it after a grace of 5 s. Does nothing to an ended job."""
        if self.poll() is None:
            self._ending = Ending.CANCELLED
            await self._end()
        return await self.wait()

    async def _run(self, time_s_max: float) -> None:
        readers = asyncio.gather(self._read_progress(), self._read_tail())
        try:
            async with asyncio.timeout(time_s_max):
                await self._process.wait()
        except TimeoutError:
            self._ending = Ending.TIMEOUT
            await self._end()
        finally:
            # Also what the job left running, in case it was its own child that trained.
            self._signal(signal.SIGKILL)
            await readers
            self._put(None)

    async def _end(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(KILL_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.identity.pid, number)  # the job leads a session of its own
        except ProcessLookupError:
            pass  # gone already, and its children with it

    async def _read_progress(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit: asyncio has thrown it away
                self.lines_dropped_total += 1
                continue
            if not line:
                return
            event = _event(line)
            if event is None:
                self.lines_dropped_total += 1
                continue
            self.latest = event
            self._put(event)

    async def _read_tail(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        while chunk := await stream.read(TAIL_BYTES):
            self._tail = (self._tail + chunk)[-TAIL_BYTES:]

    def _put(self, event: Mapping[str, Any] | None) -> None:
        if self._events.full():
            self._events.get_nowait()
            self.lines_dropped_total += 1
        self._events.put_nowait(event)


class LocalRunner:
    """Starts jobs. Keeps nothing: whoever starts a job holds its handle."""

    async def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env_allow: Sequence[str] = (),
        limits: JobLimits | None = None,
    ) -> JobHandle:
        """Starts `argv` in `cwd`, which must exist, with nothing of the environment but what any
        program needs and the names in `env_allow`.

        Raises OSError if the interpreter cannot be started or `cwd` is absent. A command that does
        not exist is a job that ends at once, and says why at the end of its standard error.
        """
        bounds = limits or JobLimits()
        told = {
            "nice": bounds.nice,
            "address_bytes_max": bounds.address_bytes_max,
            "file_bytes_max": bounds.file_bytes_max,
            "parent": os.getpid(),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(LAUNCH),
            json.dumps(told),
            "--",
            *argv,
            cwd=cwd,
            env=job_environment(cwd, env_allow, bounds.threads),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        return JobHandle(process, bounds.time_s_max)


def pipeline_argv(command: str, *arguments: str) -> list[str]:
    """`python -m retrain.pipeline COMMAND ...`, never importing from the job's own directory."""
    return [sys.executable, "-P", "-m", "retrain.pipeline", command, *arguments]


def job_environment(cwd: Path, env_allow: Sequence[str], threads: int) -> dict[str, str]:
    names = (*ENVIRONMENT, *env_allow)
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {name: str(threads) for name in THREAD_VARIABLES}
    packages = Path(__file__).resolve().parents[2]
    return environment | {
        # Not the home of whoever runs the agent: tools look for credentials there.
        "HOME": str(cwd),
        "PYTHONPATH": str(packages),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
    }


def is_alive(identity: JobIdentity) -> bool:
    """Whether the very process still runs: same pid and same start."""
    started = _start_ticks(identity.pid)
    return started != 0 and started == identity.started


def _start_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    # The name may hold spaces and brackets: fields count from the last bracket.
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])


def _event(line: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("step"), str) else None
