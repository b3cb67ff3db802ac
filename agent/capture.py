"""Sampled rows kept on disk for retraining and reports: JSON Lines segments, bounded and redacted.

Lines are appended as ticks end, so a crash costs at most the line being written, and analysis
needs no Parquet library for it (that alone is 50 MB of memory); jobs read the segments as they
are. Raw bytes are never written, nor are redacted features, nor texts of language models unless
`capture.text` asks for them. Sensitive features are: a model that was trained with them cannot be
retrained without; list them under `redact` where that is not wanted.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from agent.batch import Batch
from agent.reservoir import Chosen, all_rows, choose

log = structlog.get_logger("remora.capture")

SEGMENT_BYTES_MAX: Final = 4 * 1024 * 1024
# A segment goes as a whole, so it holds a small part of the room and of the time there is.
SEGMENTS_MIN: Final = 8
SEGMENT_S_MAX: Final = 86_400.0
SUFFIX: Final = ".jsonl"
# What every line says beside its features; a feature of such a name is left out, and said so.
RESERVED: Final = frozenset(
    {
        *("prediction", "score", "label", "request_id", "row", "at", "version", "tick"),
        *("tick_at", "tick_share", "tick_evidence", "sampling_weight"),
    }
)


class CaptureWriter:
    """Appends rows to segments in `directory`; the oldest segments go when room or time is up.

    Neither the disk nor a row that cannot be written stops anything: rows are lost and counted in
    `dropped`. `left_out` names the features that collide with a column of ours.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bytes_max: int,
        retention_s: float,
        redact: Sequence[str],
        reservoir: int | None = None,
        salt: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._retention_s = retention_s
        self._reservoir = reservoir
        self._salt = salt
        self._hidden = frozenset(redact) | RESERVED
        self._clock = clock
        self._file: int | None = None  # unbuffered: what is written is written, or was refused
        self._written = 0
        self._opened_at = -math.inf
        # Ticks are told apart across restarts as well, and later ones have higher numbers.
        self._tick = int(clock() * 1_000)
        self.rows = 0
        self.left_out: tuple[str, ...] = ()
        self.dropped: Counter[str] = Counter()

    def write(self, batch: Batch, *, share: float = 1.0) -> None:
        """Keep a tick's rows; `share` is what it brought of a minute of the budget."""
        self._tick += 1
        self._note_left_out(batch)
        lines = self._lines(batch, share)
        if not lines:
            return
        data = b"".join(lines)
        try:
            self._append(data)
        except OSError as error:
            self.dropped["capture_disk"] += len(lines)
            log.error("rows not captured", error=str(error))
            # Whatever the segment ends with now, the next rows do not continue it.
            self.close()
            return
        self.rows += len(lines)

    def limit(self, *, bytes_max: int, retention_s: float, reservoir: int | None = None) -> None:
        """Other limits from now on: a reload."""
        self._bytes_max = bytes_max
        self._retention_s = retention_s
        self._reservoir = reservoir

    def expire(self) -> None:
        """Let go of what is older than `retention_s`; `write` does so too, when rows come."""
        now = self._clock()
        if self._file is not None and now - self._opened_at >= self._segment_s:
            self.close()
        try:
            for path, started_at in self._kept():
                if now - started_at >= self._retention_s:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.error("captured rows not removed", error=str(error))

    def close(self) -> None:
        """Finish the segment; a new one is begun at the next tick."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def _segment_bytes(self) -> int:
        return min(SEGMENT_BYTES_MAX, self._bytes_max // SEGMENTS_MIN)

    @property
    def _segment_s(self) -> float:
        return min(SEGMENT_S_MAX, self._retention_s / SEGMENTS_MIN)

    def _note_left_out(self, batch: Batch) -> None:
        colliding = tuple(name for name in batch.columns if name in RESERVED)
        if not colliding:
            return
        self.dropped["capture_reserved_name"] += len(colliding) * batch.rows
        if colliding != self.left_out:
            self.left_out = colliding
            log.error("features not captured: their names mean something else", names=colliding)

    def _lines(self, batch: Batch, share: float) -> list[bytes]:
        lines = []
        chosen = all_rows(batch)
        if self._reservoir is not None:
            chosen = choose(batch, rows_max=self._reservoir, salt=self._salt)
        for row in _rows(batch, chosen, (self._tick, share), self._hidden):
            try:
                lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            except TypeError:  # half a surrogate pair, an integer beyond 64 bits
                self.dropped["capture_unwritable"] += 1
        return lines

    def _append(self, data: bytes) -> None:
        file = self._segment(len(data))
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(file, view) :]
        except OSError:
            os.ftruncate(file, self._written)  # what is counted as lost is not there by halves
            raise
        self._written += len(data)

    def _segment(self, room: int) -> int:
        """The open segment, or a new one when that is full or has been open for long."""
        young = self._clock() - self._opened_at < self._segment_s
        if self._file is not None and young and self._written + room <= self._segment_bytes:
            return self._file
        self.close()
        self.expire()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(max(room, self._segment_bytes))
        self._opened_at = self._clock()
        self._file = self._create(int(self._opened_at * 1e9))
        self._written = 0
        return self._file

    def _create(self, name: int) -> int:
        """A new file, last in order whatever the clock says. Only the agent's own user reads it."""
        for path, _ in self._kept()[-1:]:
            name = max(name, _number(path) + 1)
        path = self._directory / f"rows-{name:020d}{SUFFIX}"
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)

    def _make_room(self, room: int) -> None:
        if room > self._bytes_max:
            raise OSError(f"a tick of {room} bytes, and room for {self._bytes_max} at most")
        sizes = [(path, path.stat().st_size) for path, _ in self._kept()]
        total = sum(size for _, size in sizes)
        for path, size in sizes:
            if total + room <= self._bytes_max:
                break
            total -= size
            path.unlink(missing_ok=True)
            self.dropped["capture_evicted"] += 1

    def _kept(self) -> list[tuple[Path, float]]:
        """The segments, oldest first, and when each was begun in unix seconds."""
        return [(path, _number(path) / 1e9) for path in segments(self._directory)]


def segments(directory: Path) -> list[Path]:
    """The segments that there are, oldest first."""
    return sorted(path for path in directory.glob(f"rows-*{SUFFIX}") if _number(path) >= 0)


def read_segment(path: Path) -> list[dict[str, Any]]:
    """A segment's rows in the order they were written, without lines that a crash has cut.

    A segment is small, see `SEGMENT_BYTES_MAX`; one that was removed meanwhile has no rows.
    """
    rows = []
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    for line in data.splitlines():
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict) and {"request_id", "row", "at"} <= row.keys():
            rows.append(row)
    return rows


def _number(path: Path) -> int:
    """Nanoseconds at which it was begun, from its name; -1 for a file of somebody else."""
    digits = path.name.removeprefix("rows-").removesuffix(SUFFIX)
    return int(digits) if digits.isascii() and digits.isdigit() else -1


def _rows(
    batch: Batch, chosen: Chosen, tick: tuple[int, float], hidden: frozenset[str]
) -> Iterator[dict[str, Any]]:
    names = [name for name in batch.columns if name not in hidden]
    features = len(names)
    names += ["prediction", "score", "request_id", "row", "at", "version", "tick"]
    names += ["tick_at", "tick_share", "tick_evidence", "sampling_weight"]
    # Prompts and replies of language models, where the operator asked for them.
    texts = [name for name in batch.texts if f"{name}.text" not in hidden]
    names += [f"{name}.text" for name in texts]
    places = chosen.places
    count = len(places)
    nothing: list[Any] = [None] * count
    columns = [_plain(batch.columns[name][places]) for name in names[:features]]
    columns += [
        nothing if batch.prediction is None else _plain(batch.prediction[places]),
        nothing if batch.score is None else _plain(batch.score[places]),
        [batch.ids[place] for place in places.tolist()],
        batch.row_numbers[places].tolist(),
        batch.at[places].tolist(),
        [batch.version] * count,
        [tick[0]] * count,
        [batch.closed_at] * count,
        [tick[1]] * count,
        batch.uniform[places].tolist(),
        chosen.weight.tolist(),
        *([batch.texts[name][place] for place in places.tolist()] for name in texts),
    ]
    for cells in zip(*columns, strict=True):
        yield dict(zip(names, cells, strict=True))


def _plain(column: Any) -> list[Any]:
    """Values JSON has words for: NaN and infinities are missing."""
    return [
        None if isinstance(value, float) and not math.isfinite(value) else value
        for value in column.tolist()
    ]
