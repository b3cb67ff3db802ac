"""Captured rows and their labels, put together for the pipeline: the data of one run.

The join happens when a run asks for it: labels come late, and a row without one teaches nothing.
It reads one segment at a time, the newest first, so that memory stays as it is however much was
captured, and what is left out beyond `ROWS_MAX` is the oldest.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from agent.capture import read_segment, segments
from agent.labels import LabelStore, LabelValue

# A run learns from the most recent labelled rows; more would only make it slower.
ROWS_MAX: Final = 500_000
ROWS_FILE: Final = "labelled.jsonl"

LabelsOf = Callable[[Sequence[str]], Mapping[tuple[str, int], LabelValue]]
Row = dict[str, Any]


class TrainingData:
    """What a run may learn from: `window` says it in a webhook, `export` hands it to a job."""

    def __init__(
        self,
        labels: LabelStore,
        captures: Path | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._labels = labels
        self._captures = captures
        self._clock = clock

    def window(self) -> dict[str, Any]:
        """The rows to learn from, in words a CI can use: where they are and how many."""
        return {
            "captures": None if self._captures is None else str(self._captures),
            "labelled_rows": self._labels.labelled_rows(),
            "until": self._clock(),
        }

    async def export(self, directory: Path, *, since: float | None = None) -> int:
        """Write the labelled rows as one JSON Lines file into `directory`; returns how many.

        `since` (unix seconds) leaves older rows out. Raises `ValueError` with the mend when
        captures are off, `OSError` and `sqlite3.Error` when disk or label store refuse.
        """
        if self._captures is None:
            raise ValueError("nothing is captured: set capture.enabled: true and let traffic come")
        return await asyncio.to_thread(self._export, self._captures, directory, since)

    def _export(self, captures: Path, directory: Path, since: float | None) -> int:
        directory.mkdir(parents=True, exist_ok=True)
        with self._labels.reader() as labels_of:
            return _write(directory, _labelled(captures, labels_of, since))


def _labelled(captures: Path, labels_of: LabelsOf, since: float | None) -> Iterator[Row]:
    """The rows that have a label, newest segment first, at most `ROWS_MAX`."""
    count = 0
    for path in reversed(segments(captures)):
        rows = read_segment(path)
        labels = labels_of([row["request_id"] for row in rows])
        for row in reversed(rows):
            label = labels.get((row["request_id"], row["row"]))
            if label is None or (since is not None and row["at"] < since):
                continue
            if count == ROWS_MAX:
                return
            count += 1
            row["label"] = label
            yield row


def _write(directory: Path, rows: Iterator[Row]) -> int:
    """One file, of one type per column: readers take a column's type from its first lines."""
    temporary = directory / f"{ROWS_FILE}.part"
    kinds: dict[str, set[str]] = {}
    count = 0
    with temporary.open("wb") as out:
        for row in rows:
            for name, value in row.items():
                if value is not None:
                    kinds.setdefault(name, set()).add(_kind(value))
            _put(out, row)
            count += 1
    mixed = [name for name, seen in kinds.items() if len(seen) > 1]
    if mixed:
        rewritten = directory / f"{ROWS_FILE}.text"
        with temporary.open("rb") as lines, rewritten.open("wb") as out:
            for line in lines:
                _put(out, _as_text(orjson.loads(line), mixed))
        temporary.unlink()
        temporary = rewritten
    temporary.replace(directory / ROWS_FILE)
    return count


def _put(out: BinaryIO, row: Row) -> None:
    out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "text"


def _as_text(row: Row, names: Sequence[str]) -> Row:
    """The columns of several types as text, spelt as JSON spells them: true, 3 for 3.0."""
    for name in names:
        value = row.get(name)
        if isinstance(value, bool):
            row[name] = "true" if value else "false"
        elif isinstance(value, float) and value.is_integer():
            row[name] = str(int(value))
        elif value is not None:
            row[name] = str(value)
    return row
