"""Sampled rows kept on disk for retraining and reports: JSON Lines segments, bounded and redacted.

Lines are appended as ticks end, so a crash costs at most the line being written, and analysis
needs no Parquet library for it (that alone is 50 MB of memory); jobs read the segments as they
are. Raw bytes are never written, nor are redacted features. Sensitive ones are: a model that was
trained with them cannot be retrained without; list them under `redact` where that is not wanted.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
import structlog

from agent.batch import Batch

log = structlog.get_logger("remora.capture")

SEGMENT_BYTES_MAX: Final = 16 * 1024 * 1024
SUFFIX: Final = ".jsonl"
# What every line says beside its features; a feature of such a name is left out, and said so.
RESERVED: Final = frozenset(
    {"prediction", "score", "label", "request_id", "row", "at", "version", "tick"}
)


class CaptureWriter:
    """Appends rows to segments in `directory`; the oldest segments go when room or time is up.

    Disk errors cost rows, counted in `dropped`; they are never raised.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bytes_max: int,
        retention_s: float,
        redact: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._retention_s = retention_s
        self._redact = frozenset(redact)
        self._clock = clock
        self._file: BinaryIO | None = None
        self._written = 0
        self._tick = 0
        self.rows = 0
        self.dropped: Counter[str] = Counter()

    def write(self, batch: Batch) -> None:
        """Keep a tick's rows."""
        self._tick += 1
        lines = b"".join(orjson.dumps(row) + b"\n" for row in _rows(batch, self._hidden()))
        try:
            file = self._open(len(lines))
            file.write(lines)
            file.flush()
        except OSError as error:
            self.dropped["capture_disk"] += batch.rows
            log.error("rows not captured", error=str(error))
            return
        self._written += len(lines)
        self.rows += batch.rows

    def limit(self, *, bytes_max: int, retention_s: float) -> None:
        """Other limits from now on: a reload."""
        self._bytes_max = bytes_max
        self._retention_s = retention_s

    def close(self) -> None:
        """Finish the segment; a new one is begun at the next tick."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _hidden(self) -> frozenset[str]:
        return self._redact | RESERVED

    def _open(self, room: int) -> BinaryIO:
        if self._file is not None and self._written + room <= SEGMENT_BYTES_MAX:
            return self._file
        self.close()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(room)
        path = self._directory / f"rows-{time.time_ns():020d}{SUFFIX}"
        # The writer outlives this call; `close` is its end.
        self._file = open(path, "ab")  # noqa: SIM115
        self._written = 0
        return self._file

    def _make_room(self, room: int) -> None:
        kept = segments(self._directory)
        sizes = {path: path.stat().st_size for path in kept}
        oldest_at = self._clock() - self._retention_s
        total = sum(sizes.values())
        for path in kept:
            if path.stat().st_mtime >= oldest_at and total + room <= self._bytes_max:
                break
            total -= sizes[path]
            path.unlink()
            self.dropped["capture_expired"] += 1


def segments(directory: Path) -> list[Path]:
    """The segments that there are, oldest first."""
    return sorted(directory.glob(f"rows-*{SUFFIX}"))


def read_rows(directory: Path) -> Iterator[dict[str, Any]]:
    """All rows that were kept, oldest first. A line that was cut by a crash is passed by."""
    for path in segments(directory):
        with path.open("rb") as file:
            for line in file:
                try:
                    yield orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue


def _rows(batch: Batch, hidden: frozenset[str]) -> Iterator[dict[str, Any]]:
    names = [name for name in batch.columns if name not in hidden]
    columns = [_plain(batch.columns[name]) for name in names]
    count = batch.rows
    prediction = [None] * count if batch.prediction is None else _plain(batch.prediction)
    score = [None] * count if batch.score is None else _plain(batch.score)
    at = batch.at.tolist()
    numbers = batch.row_numbers.tolist()
    for place in range(count):
        row = {name: column[place] for name, column in zip(names, columns, strict=True)}
        row["prediction"] = prediction[place]
        row["score"] = score[place]
        row["request_id"] = batch.ids[place]
        row["row"] = numbers[place]
        row["at"] = at[place]
        row["version"] = batch.version
        yield row


def _plain(column: Any) -> list[Any]:
    """Values JSON has words for: NaN and infinities are missing."""
    return [
        None if isinstance(value, float) and not math.isfinite(value) else value
        for value in column.tolist()
    ]
