"""Recorded rows cut into ticks, for `replay`: as the agent cut them where it said so, else evenly.

Rows that the agent captured carry the number of their tick, when it ended and its share of the
budget. Cut and paid like that, they give the very readings that the agent gave.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.cli.captured_packets import is_capture, read_capture
from agent.cli.rows import bad_lines, missing_words, require_columns, special_columns, times_of
from agent.errors import BadInputError

if TYPE_CHECKING:
    from agent.tables import Columns
    from detectors import Reference

CHUNK_ROWS = 10_000
#: What tells rows that the agent captured from all others, and what stands beside their features.
CAPTURED = frozenset({"tick", "tick_at", "tick_share", "tick_evidence", "request_id"})
BESIDE = CAPTURED | {"row", "at", "version", "sampling_weight", "prediction", "score", "label"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One tick of rows. `evidence` [rows] says which of them the agent bet on; None: all."""

    columns: "Columns"
    share: float = 1.0
    at: float | None = None
    times: Any = None
    evidence: Any = None
    captured: bool = False

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()), ()))


def ticks(args: argparse.Namespace, reference: "Reference") -> Iterator[Recorded]:
    """The ticks of a data file. Raises BadInputError for what cannot be read."""
    tick_rows = args.tick_rows or reference.tick_rows
    # Files are read in larger chunks, which is faster.
    chunk_rows = tick_rows * max(1, CHUNK_ROWS // tick_rows)
    chunks = _chunks(args, reference, chunk_rows)
    first = next(chunks, None)
    if first is None:
        return
    every = _with(first, chunks)
    if first.keys() >= CAPTURED and args.tick_rows is None:
        yield from _as_captured(every, args)
    else:
        yield from _evenly(every, args, tick_rows)


def _chunks(
    args: argparse.Namespace, reference: "Reference", chunk_rows: int
) -> Iterator["Columns"]:
    from agent.tables import read_columns

    if is_capture(args.data):
        names = reference.columns or reference.feature_names
        yield from read_capture(args.data, port=args.port, names=names, chunk_rows=chunk_rows)
        return
    for columns in read_columns(
        args.data, chunk_rows=chunk_rows, missing=missing_words(args), bad_lines=bad_lines(args)
    ):
        require_columns(columns, [*special_columns(args), *args.fairness], args.data)
        yield columns


def _with(first: "Columns", rest: Iterable["Columns"]) -> Iterator["Columns"]:
    yield first
    yield from rest


def _evenly(
    chunks: Iterable["Columns"], args: argparse.Namespace, tick_rows: int
) -> Iterator[Recorded]:
    for columns in chunks:
        rows = len(next(iter(columns.values()), ()))
        for start in range(0, rows, tick_rows):
            cut = {name: column[start : start + tick_rows] for name, column in columns.items()}
            times = None if args.timestamp is None else times_of(cut[args.timestamp])
            yield Recorded(columns=cut, at=_last(times), times=times)


def _last(times: Any) -> float | None:
    """The time of the tick's last row that has one."""
    if times is None:
        return None
    known = times[times == times]
    return float(known[-1]) if len(known) else None


def _as_captured(chunks: Iterable["Columns"], args: argparse.Namespace) -> Iterator[Recorded]:
    """Ticks by their number; those of one version, the first one where none is asked for."""
    import numpy as np

    version = args.model_version
    held: Columns = {}
    for columns in chunks:
        if version is None:
            version = columns["version"][0]
        own = columns["version"] == version
        columns = {name: column[own] for name, column in columns.items()}
        if held:
            names = dict.fromkeys([*held, *columns])
            columns = {name: _joined(held, columns, name) for name in names}
        ends = np.flatnonzero(np.diff(columns["tick"])) + 1
        start = 0
        for end in ends.tolist():
            yield _captured({name: column[start:end] for name, column in columns.items()})
            start = end
        held = {name: column[start:] for name, column in columns.items()}
    if held and len(held["tick"]):
        yield _captured(held)
    elif not held:
        raise BadInputError(f"{args.data}: has no rows of version {version}")


def _joined(before: "Columns", after: "Columns", name: str) -> Any:
    """A column over the end of a chunk; a chunk that does not have it has nothing there."""
    import numpy as np

    parts = []
    for columns in (before, after):
        rows = len(columns["tick"])
        parts.append(columns.get(name, np.full(rows, None, dtype=object)))
    return np.concatenate(parts)


def _captured(columns: "Columns") -> Recorded:
    return Recorded(
        columns=columns,
        share=float(columns["tick_share"][0]),
        at=float(columns["tick_at"][0]),
        times=columns["at"].astype(float),
        evidence=columns["tick_evidence"].astype(bool),
        captured=True,
    )
