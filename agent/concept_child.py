"""river's ADWIN in a process of its own: `remora-concept`, opt-in (`detect.concept.adwin`).

river brings 96 MB that analysis should not carry. The child is fed error bits by version and
answers with the changes that ADWIN found; what it knows dies with it, and it learns anew. Nothing
waits for it: bits that it does not take in time are dropped and counted. Do not import river or
numerics at the top of this file: the parent imports it too.
"""

import asyncio
import json
import os
import socket
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from agent.children import BACKOFF_S, HEALTHY_S, name_process

if TYPE_CHECKING:
    from agent.labels import Joined
    from detectors import Reading

log = structlog.get_logger("remora.concept")

DELTA: Final = 0.002
VERSIONS_MAX: Final = 8
BITS_MAX: Final = 16_384  # in one packet
PACKET_BYTES_MAX: Final = 65_536
BUFFER_BYTES: Final = 262_144
# How much the error rate rises for a drift: the bound of the built-in detector. Less is a warning,
# and less than half of it is what there was before.
EFFECT_MIN: Final = 0.02
MISSING_EXTRA: Final = 2  # exit status: restarting would not help
STOP_S: Final = 2.0
ROWS_MIN: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AdwinChange:
    """A change of mind about one version: the error rate before the drift, and now."""

    version: str
    state: Literal["ok", "warning", "drift"]
    before: float
    after: float
    rows: int  # in the window that `after` is the mean of
    seen: int  # of that version since the child started


class ConceptChild:
    """The parent's side: keeps the child alive, feeds it, hears from it.

    `on_change` runs in the event loop. `dropped` counts bits under `concept_feed`; `refused` says
    why there is no child when one cannot be had at all.
    """

    def __init__(
        self,
        on_change: Callable[[AdwinChange], None],
        *,
        command: Sequence[str] = (sys.executable, "-m", "agent.concept_child"),
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self._on_change = on_change
        self._command = tuple(command)
        self._backoff_s = tuple(backoff_s)
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.up = asyncio.Event()  # set while there is a child to feed
        self.restarts = 0
        self.refused: str | None = None
        self.dropped: Counter[str] = Counter()

    @property
    def pid(self) -> int | None:
        """The child's process id, None while it is away."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Begin keeping it alive, in the running loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_alive())

    async def stop(self) -> None:
        """End it. It has nothing to save."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    def feed(self, version: str, bits: bytes) -> bool:
        """Hand over errors (1) and right answers (0), in order; False when some were dropped."""
        for start in range(0, len(bits), BITS_MAX):
            part = bits[start : start + BITS_MAX]
            if self._socket is None or not _sent(self._socket, _packet(version, part)):
                self.dropped["concept_feed"] += len(bits) - start
                return False
        return True

    async def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            born_at = loop.time()
            status = await self._live()
            if status == MISSING_EXTRA:
                self.refused = "river is not installed: pip install 'remora[concept]'"
                log.error("no ADWIN", why=self.refused)
                return
            if loop.time() - born_at > HEALTHY_S:
                deaths = 0
            wait_s = self._backoff_s[min(deaths, len(self._backoff_s) - 1)]
            deaths += 1
            self.restarts += 1
            log.warning("child ended, starting it again", child="concept", wait_s=wait_s)
            await asyncio.sleep(wait_s)

    async def _live(self) -> int:
        """One life; its exit status. Cancelled, it takes the child along."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                *("remora-concept", "--control-fd", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            log.error("child does not start", child="concept", error=str(error))
            ours.close()
            return 1
        finally:
            theirs.close()
        self._process, self._socket = process, ours
        self.up.set()
        loop.add_reader(ours, self._readable, ours)
        try:
            return await process.wait()
        finally:
            loop.remove_reader(ours)
            ours.close()  # its end of file tells the child to go
            self._process = self._socket = None
            self.up.clear()
            if process.returncode is None:
                await _end(process)

    def _readable(self, ours: socket.socket) -> None:
        while True:
            try:
                packet = ours.recv(PACKET_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet = b""
            if not packet:
                asyncio.get_running_loop().remove_reader(ours)
                return
            self._on_change(AdwinChange(**json.loads(packet)))


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _packet(version: str, bits: bytes) -> bytes:
    return version.encode()[:1_000] + b"\0" + bits


def _sent(sock: socket.socket, packet: bytes) -> bool:
    try:
        sock.send(packet)
    except OSError:  # full, or gone
        return False
    return True


def error_bits(joined: "Sequence[Joined]") -> Mapping[str, bytes]:
    """Version to the errors (1) and right answers (0) among fresh labels that are evidence."""
    from agent.version_watch import is_error, is_evidence

    bits: dict[str, bytearray] = {}
    for row in joined:
        if is_evidence(row) and isinstance(row.prediction, str):
            bits.setdefault(row.version, bytearray()).append(is_error(row))
    return {version: bytes(these) for version, these in bits.items()}


def adwin_reading(
    change: AdwinChange, *, labelled_rows: int, reference: str, at: float | None
) -> "Reading":
    """A change as everybody else hears of it."""
    from detectors.reading import Effect, Kind, Reading, Scope, State, Window

    effect = change.after - change.before
    return Reading(
        at=at,
        row=labelled_rows,
        kind=Kind.CONCEPT_DRIFT,
        scope=Scope.MODEL,
        # Its own subject: what it takes back must not be taken for the built-in detector's word.
        subject="adwin",
        detector="adwin",
        state=State(change.state),
        statistic=abs(effect),
        threshold=EFFECT_MIN,
        evidence=None,
        effect=Effect(name="error_rate_change", value=effect),
        window=Window(
            rows=change.rows, start=max(labelled_rows - change.rows, 0), end=labelled_rows
        ),
        reference=reference,
        version=change.version,
        explain=f"ADWIN: the error rate went from "
        f"{change.before:.3f} to {change.after:.3f} over {change.rows:,} labelled rows",
    )


# The child.


@dataclass(slots=True)
class _Watched:
    """One version's ADWIN, the rows it has seen, and the rate before the drift it is in.

    A cut says that the rate rose, and little of how far: it is made early, and river begins a new
    window after it. That window says the rest once it is long enough.
    """

    adwin: Any
    seen: int = 0
    origin: float | None = None
    is_drift: bool = False

    def take(self, version: str, bit: int) -> AdwinChange | None:
        was = float(self.adwin.estimation)
        self.adwin.update(bit)
        self.seen += 1
        now, rows = float(self.adwin.estimation), int(self.adwin.width)
        if self.origin is None:
            if not self.adwin.drift_detected or now <= was:
                return None  # a model that became better is no drift
            self.origin, self.is_drift = was, now - was >= EFFECT_MIN
        elif rows < ROWS_MIN or self.adwin.drift_detected:
            return None
        elif now - self.origin >= EFFECT_MIN and not self.is_drift:
            self.is_drift = True
        elif now - self.origin >= EFFECT_MIN / 2:
            return None
        else:
            change = AdwinChange(
                version=version, state="ok", before=self.origin, after=now, rows=rows,
                seen=self.seen,
            )  # fmt: skip
            self.origin = None
            return change
        return AdwinChange(
            version=version,
            state="drift" if self.is_drift else "warning",
            before=self.origin,
            after=now,
            rows=rows,
            seen=self.seen,
        )


class _Detectors:
    """One ADWIN for each version; the one that was fed longest ago goes first."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._known: OrderedDict[str, _Watched] = OrderedDict()

    def feed(self, version: str, bits: bytes) -> list[AdwinChange]:
        if version not in self._known:
            self._known[version] = _Watched(self._make())
            if len(self._known) > VERSIONS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(version)
        watched = self._known[version]
        return [change for bit in bits if (change := watched.take(version, bit)) is not None]


def serve(control: socket.socket, make: Callable[[], Any]) -> None:
    """Take packets until the other end is closed."""
    detectors = _Detectors(make)
    while packet := control.recv(PACKET_BYTES_MAX):
        version, _, bits = packet.partition(b"\0")
        for change in detectors.feed(version.decode(errors="replace"), bits):
            control.send(json.dumps(asdict(change)).encode())


def main(arguments: Sequence[str]) -> int:
    """Entry of `python -m agent.concept_child`; analysis is the only caller."""
    name_process(arguments[0])
    try:
        from river.drift import ADWIN
    except ImportError:
        sys.stderr.write("remora-concept: river is missing: pip install 'remora[concept]'\n")
        return MISSING_EXTRA
    with suppress(OSError):
        os.nice(5)
    control = socket.socket(fileno=int(arguments[arguments.index("--control-fd") + 1]))
    with control, suppress(ConnectionError, KeyboardInterrupt):
        serve(control, partial(ADWIN, delta=DELTA))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
