"""river's detectors in a process of their own: `remora-concept`, opt-in
(`detect.concept.detectors`).

river brings 96 MB that analysis should not carry. The child is fed error bits by version and
answers with the changes that its detectors found; what it knows dies with it, and it learns anew.
They stand outside the false-alarm budget: most of them alarm on streams in which nothing happens
(docs/labels.md has the rates), and every reading of theirs says so. Nothing waits for the child:
bits that it does not take in time are dropped and counted. Do not import river or numerics at the
top of this file: the parent imports it too.
"""

import asyncio
import importlib
import json
import os
import socket
import sys
from collections import Counter, OrderedDict, deque
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
# river's names, with river's own defaults: module and class. The set is closed.
CATALOG: Final[Mapping[str, tuple[str, str]]] = {
    "adwin": ("river.drift", "ADWIN"),
    "ddm": ("river.drift.binary", "DDM"),
    "eddm": ("river.drift.binary", "EDDM"),
    "fhddm": ("river.drift.binary", "FHDDM"),
    "hddm_a": ("river.drift.binary", "HDDMA"),
    "hddm_w": ("river.drift.binary", "HDDMW"),
    "kswin": ("river.drift", "KSWIN"),
    "page_hinkley": ("river.drift", "PageHinkley"),
}
# Rows that say what the error rate is at an alarm of a detector that does not say it itself.
RECENT_ROWS: Final = 100
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
    detector: str = "adwin"


class ConceptChild:
    """The parent's side: keeps the child alive, feeds it, hears from it.

    `on_change` runs in the event loop. `dropped` counts bits under `concept_feed`; `refused` says
    why there is no child when one cannot be had at all.
    """

    def __init__(
        self,
        on_change: Callable[[AdwinChange], None],
        *,
        detectors: Sequence[str] = ("adwin",),
        command: Sequence[str] = (sys.executable, "-m", "agent.concept_child"),
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self._on_change = on_change
        self._command = tuple(command)
        self._detectors = ",".join(detectors)
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
                log.error("no detectors of river", why=self.refused)
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
                *("remora-concept", "--detectors", self._detectors),
                *("--control-fd", str(theirs.fileno())),
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
        subject=change.detector,
        detector=change.detector,
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
        explain=f"{change.detector} (outside the false-alarm budget): the error rate went from "
        f"{change.before:.3f} to {change.after:.3f} over {change.rows:,} labelled rows",
    )


# The child.


class Rated:
    """A detector that says only that something changed, beside the error rate that it does not say:
    of all rows since it last did, or of the last hundred right after.
    """

    def __init__(self, detector: Any, *, right_answers: bool = False) -> None:
        self._detector = detector
        self._flip = int(right_answers)
        self._recent: deque[int] = deque(maxlen=RECENT_ROWS)
        self._errors = self.width = 0
        self.drift_detected = False

    @property
    def estimation(self) -> float:
        return self._errors / self.width if self.width else 0.0

    def update(self, bit: int) -> None:
        self._detector.update(bit ^ self._flip)
        self.drift_detected = bool(self._detector.drift_detected)
        self._recent.append(bit)
        if self.drift_detected:
            self._errors, self.width = sum(self._recent), len(self._recent)
        else:
            self._errors, self.width = self._errors + bit, self.width + 1


@dataclass(slots=True)
class _Watched:
    """One detector of one version, the rows it has seen, and the rate before the drift it is in.

    A cut says that the rate rose, and little of how far: it is made early, and a new window begins
    after it. That window says the rest once it is long enough.
    """

    name: str
    detector: Any
    seen: int = 0
    origin: float | None = None
    is_drift: bool = False

    def take(self, version: str, bit: int) -> AdwinChange | None:
        was = float(self.detector.estimation)
        self.detector.update(bit)
        self.seen += 1
        now, rows = float(self.detector.estimation), int(self.detector.width)
        cut = bool(self.detector.drift_detected)
        state: Literal["ok", "warning", "drift"]
        before = was
        if self.origin is None:
            if not cut or now <= was:
                return None  # a model that became better is no drift
            self.origin, self.is_drift = was, now - was >= EFFECT_MIN
            state = "drift" if self.is_drift else "warning"
        elif rows < ROWS_MIN or cut:
            return None
        elif now - self.origin >= EFFECT_MIN and not self.is_drift:
            before, self.is_drift, state = self.origin, True, "drift"
        elif now - self.origin >= EFFECT_MIN / 2:
            return None
        else:
            before, self.origin, state = self.origin, None, "ok"
        return AdwinChange(
            version=version,
            state=state,
            before=before,
            after=now,
            rows=rows,
            seen=self.seen,
            detector=self.name,
        )


class _Detectors:
    """Detectors of each version; those of the one that was fed longest ago go first."""

    def __init__(self, made: Mapping[str, Callable[[], Any]]) -> None:
        self._made = made
        self._known: OrderedDict[str, list[_Watched]] = OrderedDict()

    def feed(self, version: str, bits: bytes) -> list[AdwinChange]:
        if version not in self._known:
            self._known[version] = [_Watched(name, make()) for name, make in self._made.items()]
            if len(self._known) > VERSIONS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(version)
        return [
            change
            for watched in self._known[version]
            for bit in bits
            if (change := watched.take(version, bit)) is not None
        ]


def serve(control: socket.socket, made: Mapping[str, Callable[[], Any]]) -> None:
    """Take packets until the other end is closed."""
    detectors = _Detectors(made)
    while packet := control.recv(PACKET_BYTES_MAX):
        version, _, bits = packet.partition(b"\0")
        for change in detectors.feed(version.decode(errors="replace"), bits):
            control.send(json.dumps(asdict(change)).encode())


def makers(names: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Constructors of the named detectors. Raises ImportError without river, KeyError for a name
    that is not in the catalog.
    """

    def maker(name: str) -> Callable[[], Any]:
        module, of = CATALOG[name]
        made = getattr(importlib.import_module(module), of)
        if name == "adwin":
            return partial(made, delta=DELTA)
        if name == "kswin":
            return lambda: Rated(made(seed=1))  # it draws among old rows: the same every time
        # FHDDM looks for a mean that falls: of right answers, as in its paper, whatever river says.
        return lambda: Rated(made(), right_answers=name == "fhddm")

    return {name: maker(name) for name in names}


def main(arguments: Sequence[str]) -> int:
    """Entry of `python -m agent.concept_child`; analysis is the only caller."""
    name_process(arguments[0])
    try:
        made = makers(arguments[arguments.index("--detectors") + 1].split(","))
    except ImportError:
        sys.stderr.write("remora-concept: river is missing: pip install 'remora[concept]'\n")
        return MISSING_EXTRA
    with suppress(OSError):
        os.nice(5)
    control = socket.socket(fileno=int(arguments[arguments.index("--control-fd") + 1]))
    with control, suppress(ConnectionError, KeyboardInterrupt):
        serve(control, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
