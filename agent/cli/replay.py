"""`remora replay`: recorded rows through the very detectors that `run` uses, in order.

Nothing here decides anything: rows are cut into ticks as the agent cuts them, and what detectors
say is written down. The same rows and flags give the same events, byte for byte.
"""

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.captured_packets import is_capture, read_capture
from agent.cli.output import plain, print_json, print_table
from agent.cli.parser import Subparsers, add_command, add_json
from agent.cli.profile import read_reference
from agent.cli.rows import (
    add_column_flags,
    bad_lines,
    count,
    has_outcomes,
    missing_words,
    outcomes,
    progress,
    require_columns,
    special_columns,
    task_of,
    times_of,
)
from agent.errors import BadInputError

if TYPE_CHECKING:
    from agent.batch import Batch
    from agent.labels import Joined
    from agent.tables import Columns
    from detectors import Reading, Reference

CHUNK_ROWS = 10_000


def add(subparsers: Subparsers) -> None:
    """Registers `replay`."""
    parser = add_command(
        subparsers,
        "replay",
        replay,
        purpose="recorded rows through the detectors that `run` uses, in order",
        example="remora replay june.csv --reference reference.json --events events.jsonl",
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="Parquet, CSV, JSON Lines, pcap")
    parser.add_argument("--reference", metavar="FILE", type=Path, required=True, help="a profile")
    add_column_flags(parser)
    parser.add_argument(
        "--label-delay",
        metavar="ROWS",
        type=count,
        default=0,
        help="a row's label comes so many rows later (default 0)",
    )
    parser.add_argument(
        "--events", metavar="FILE", type=Path, help="one JSON line per change of state"
    )
    parser.add_argument(
        "--port", metavar="N", type=count, help="of a pcap: where the model server listens"
    )
    parser.add_argument(
        "--fail-on-drift", action="store_true", help="exit 1 when anything is in drift: for CI"
    )
    add_json(parser)


def replay(args: argparse.Namespace) -> int:
    """Replays one file."""
    detection = Detection(read_reference(args.reference), args)
    readings: list[Reading] = []
    rows = 0
    started = time.perf_counter()
    with ExitStack() as stack:
        advance = stack.enter_context(progress("replaying"))
        events = stack.enter_context(_open_events(args.events)) if args.events else None
        for columns in _ticks(args, detection):
            found = detection.update(columns)
            readings += found
            if events is not None:
                events.writelines(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in found)
            size = len(next(iter(columns.values()), ()))
            rows += size
            advance(size)
    elapsed_s = max(time.perf_counter() - started, 1e-9)
    if not rows:
        raise BadInputError(f"{args.data}: holds no rows: nothing to replay")
    _present(args, detection, readings, rows, elapsed_s)
    drifted = any(reading.state.value == "drift" for reading in readings)
    return 1 if drifted and args.fail_on_drift else 0


class Detection:
    """The detectors of one replay, and the rows whose labels have not come yet."""

    def __init__(self, reference: "Reference", args: argparse.Namespace) -> None:
        from agent.schema import Schema
        from agent.version_watch import VersionWatch
        from detectors import ProfileError
        from detectors.settings import Settings

        self._args = args
        self.reference = reference
        self.tick_rows: int = args.tick_rows or reference.tick_rows
        self._schema = Schema(features=())  # no kinds: the reference knows them
        self._task = args.task or reference.task
        try:
            self._watch = VersionWatch("", reference, Settings())
        except ProfileError as error:
            raise BadInputError(f"{args.reference}: {error}") from None
        self._waiting: deque[Joined] = deque()  # rows whose labels are still to come
        self._rows = 0
        self._outputs = False

    def update(self, columns: "Columns") -> list["Reading"]:
        """One tick's rows; the changes of state."""
        at = self._time_of(columns)
        readings = self._watch.take(self._batch(columns, at), ticks=1.0)
        if has_outcomes(self._args):
            self._task = self._task or task_of(columns, self._args) or "classification"
            self._waiting += self._joined(columns, at or 0.0)
        self._rows += len(next(iter(columns.values()), ()))
        # A label has come once as many rows as the delay were seen after its own.
        come: list[Joined] = []
        while self._waiting and self._waiting[0].row + self._args.label_delay < self._rows:
            come.append(self._waiting.popleft())
        readings += self._watch.take_labelled(come, ticks=1.0, at=at)
        # `row` of every event counts the rows of the data, also where labels come late.
        return [replace(reading, at=at, row=self._rows) for reading in readings]

    @property
    def labelled_rows(self) -> int:
        """Rows whose label came."""
        return self._watch.labelled_rows

    @property
    def not_watched(self) -> list[str]:
        """What this replay could not see, for want of a column or a reference."""
        missing = [] if self._outputs else ["prediction drift"]
        return missing if self.labelled_rows else [*missing, "concept drift"]

    def _batch(self, columns: "Columns", at: float | None) -> "Batch":
        import numpy as np

        from agent.batch import Batch

        rows = len(next(iter(columns.values()), ()))
        special = special_columns(self._args)
        output = self._output_column(columns)
        self._outputs |= output is not None and self.reference.prediction is not None
        features = {n: c for n, c in columns.items() if n not in special and c is not output}
        return Batch(
            version="",
            slot="stable",
            rows=rows,
            opened_at=at or 0.0,
            closed_at=at or 0.0,
            ids=(),
            row_numbers=np.arange(rows),
            aliases={},
            at=np.zeros(rows),
            weight=np.ones(rows),
            uniform=np.ones(rows, dtype=bool),
            columns=features,
            prediction=output,
            score=None,
            schema=self._schema,
            type_changes={},
            unexpected={},
        )

    def _joined(self, columns: "Columns", at: float) -> Iterator["Joined"]:
        from agent.labels import Joined

        assert self._task is not None
        for row, (said, truth) in enumerate(outcomes(columns, self._args, self._task)):
            if truth is not None:
                yield Joined(
                    id="",
                    row=self._rows + row,
                    prediction=said,
                    score=None,
                    label=truth,
                    version="",
                    slot="stable",
                    weight=1.0,
                    uniform=True,
                    predicted_at=at,
                    labelled_at=at,
                )

    def _output_column(self, columns: "Columns") -> Any:
        name = self._args.prediction or self._args.score
        if name is None and self.reference.prediction is not None:
            name = self.reference.prediction.name
        return None if name is None else columns.get(name)

    def _time_of(self, columns: "Columns") -> float | None:
        """The time of the tick's last row that has one."""
        if self._args.timestamp is None:
            return None
        times = times_of(columns[self._args.timestamp][-100:])
        known = times[times == times]
        return float(known[-1]) if len(known) else None


def _ticks(args: argparse.Namespace, detection: Detection) -> Iterator["Columns"]:
    """The rows cut into ticks; files are read in larger chunks, which is faster."""
    from agent.tables import read_columns

    tick_rows = detection.tick_rows
    chunk_rows = tick_rows * max(1, CHUNK_ROWS // tick_rows)
    if is_capture(args.data):
        names = detection.reference.feature_names
        chunks = read_capture(args.data, port=args.port, names=names, chunk_rows=chunk_rows)
    else:
        chunks = read_columns(
            args.data, chunk_rows=chunk_rows, missing=missing_words(args), bad_lines=bad_lines(args)
        )
    for columns in chunks:
        require_columns(columns, special_columns(args), args.data)
        rows = len(next(iter(columns.values()), ()))
        for start in range(0, rows, tick_rows):
            yield {name: column[start : start + tick_rows] for name, column in columns.items()}


def _open_events(path: Path) -> Any:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"--events {path}: cannot be written ({error.strerror})") from None


def _present(
    args: argparse.Namespace,
    detection: Detection,
    readings: list["Reading"],
    rows: int,
    elapsed_s: float,
) -> None:
    unwatched = detection.not_watched
    if args.json:
        print_json(
            {
                "rows": rows,
                "rows_per_s": round(rows / elapsed_s),
                "reference": detection.reference.digest,
                "labelled_rows": detection.labelled_rows,
                "not_watched": unwatched,
                "readings": [reading.to_json() for reading in readings],
            }
        )
        return
    print_table(
        "Readings",
        ("row", "state", "kind", "subject", "effect", "evidence (log10)", "what happened"),
        (
            (
                f"{r.row:,}",
                r.state.value,
                r.kind.value,
                r.subject,
                "" if r.effect is None else f"{r.effect.name} {r.effect.value:.2f}",
                "" if r.evidence is None else f"{r.evidence:.1f}",
                r.explain,
            )
            for r in readings
        ),
    )
    if unwatched:
        print(f"not watched: {plain(', '.join(unwatched))} (no column or reference for it)")
    sys.stdout.flush()
    print(f"{rows:,} rows in {elapsed_s:.2f} s: {rows / elapsed_s:,.0f} rows/s")
