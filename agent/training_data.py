"""Captured rows and their labels, put together for the pipeline: the data of one run.

The join happens when a run asks for it: labels come late, and a row without one teaches nothing.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from agent.capture import read_rows
from agent.labels import LabelStore, LabelValue

# A run learns from the most recent labelled rows; more would only make it slower.
LABELS_MAX = 500_000
ROWS_FILE = "labelled.jsonl"


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
        captures are off.
        """
        if self._captures is None:
            raise ValueError("nothing is captured: set capture.enabled: true and let traffic come")
        labels = self._labels.labelled(rows_max=LABELS_MAX)
        rows = read_rows(self._captures)
        if since is not None:
            rows = (row for row in rows if row["at"] >= since)
        return await asyncio.to_thread(_write, directory, rows, labels)


def _write(
    directory: Path,
    rows: Iterable[dict[str, Any]],
    labels: dict[tuple[str, int], LabelValue],
) -> int:
    count = 0
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / "labelled.part"
    with temporary.open("wb") as out:
        for row in rows:
            label = labels.get((row["request_id"], row["row"]))
            if label is None:
                continue
            # One type for one column, whatever a client sent: readers infer it from the file.
            row["label"] = str(label) if not isinstance(label, float | int) else label
            out.write(orjson.dumps(row) + b"\n")
            count += 1
    temporary.replace(directory / ROWS_FILE)
    return count
