"""Inferences of one version, laid out as columns: what detectors are fed, tick by tick.

Do not convert cell by cell what came as a matrix: requests of numbers alone must cost a few
array operations per tick, whatever the number of rows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.inference import Inference, Value
from agent.schema import (
    Column,
    Feature,
    Schema,
    category,
    class_scores,
    feature_names,
    numbers,
    objects,
    outcome,
)
from agent.schema_learning import SchemaLearner

VERSIONS_MAX = 8  # open at once; one more closes the one that has been open longest
MATRICES_AT_ONCE = 64  # laid out together: what fits in a cache where each is one row
VECTOR_WIDTH_MAX = 4_096  # longer vectors are not watched: 1,000 rows of them are 16 MB
UNEXPECTED_MAX = 64  # names of unexpected columns that are counted one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One tick of one version: `rows` rows, each array of that length."""

    version: str
    slot: Literal["stable", "candidate"]
    rows: int
    opened_at: float  # unix seconds by the builder's clock: first row taken
    closed_at: float  # tick complete; closed_at - opened_at is the tick's share of the budget
    ids: tuple[str, ...]  # of the request that each row came with
    row_numbers: NDArray[np.int64]  # of the row within its request, from 0: labels name it
    aliases: Mapping[str, str]  # other id of a request -> its id
    at: NDArray[np.float64]  # unix seconds of each row's request
    weight: NDArray[np.float64]  # 1 / probability of having been kept
    uniform: NDArray[np.bool_]  # only these rows are evidence
    columns: Mapping[str, Column]  # schema order; float64 (NaN missing) or object (None missing)
    prediction: Column | None  # float64, or object for classes
    score: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None  # [rows, classes], of more than two classes
    schema: Schema  # the one it was laid out by
    type_changes: Mapping[str, int]  # feature -> cells of another type, which are missing here
    unexpected: Mapping[str, int]  # rows with a column the schema does not know; bounded
    # What people wrote and were answered, `rows` each; only where `capture.text` asks for it.
    texts: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    # [rows, width] each: points in a space, embeddings above all; NaN where a row has none.
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


# Rows `start` to `stop` of one inference; a plain tuple, for there may be one for each row.
_Piece: TypeAlias = tuple[Inference, int, int]
_Key: TypeAlias = tuple[str, Literal["stable", "candidate"]]


@dataclass(slots=True, kw_only=True)
class _Open:
    """A tick that is being filled."""

    opened_at: float
    rows: int = 0
    pieces: list[_Piece] = field(default_factory=list)


class BatchBuilder:
    """Cuts the inferences of each version into ticks of `tick_rows` rows or `tick_s` seconds.

    A tick holds exactly `tick_rows` rows unless time closed it: a request that reaches over the
    end is cut, so that replaying recorded rows cuts as the agent did. Holds at most `tick_rows`
    rows per version, plus what the last request brought.
    """

    def __init__(
        self, learner: SchemaLearner, *, tick_rows: int = 1_000, tick_s: float = 60.0
    ) -> None:
        self.learner = learner
        self.tick_rows = tick_rows
        self.tick_s = tick_s
        self._open: dict[_Key, _Open] = {}

    def add(self, inference: Inference, now: float) -> list[Batch]:
        """Takes one inference; gives the ticks it completed."""
        self.learner.observe(inference)
        key = (inference.version, inference.slot)
        tick = self._open.get(key)
        batches = self._make_room(now) if tick is None else []
        start, count = 0, len(inference.rows)
        while start < count:
            if tick is None:
                tick = self._open[key] = _Open(opened_at=now)
            stop = min(count, start + self.tick_rows - tick.rows)
            tick.pieces.append((inference, start, stop))
            tick.rows += stop - start
            start = stop
            if tick.rows >= self.tick_rows:
                batches.append(self._close(*key, now))
                tick = None
        return batches

    def due(self, now: float) -> list[Batch]:
        """The ticks whose time is over."""
        over = [key for key, tick in self._open.items() if now - tick.opened_at >= self.tick_s]
        return [self._close(*key, now) for key in over]

    def is_open(self, version: str) -> bool:
        """Whether rows of that version wait for their tick to end."""
        return any(name == version for name, _ in self._open)

    def flush(self, now: float) -> list[Batch]:
        """All open ticks, as they are: at the end of a replay, or before a restart."""
        return [self._close(*key, now) for key in list(self._open)]

    def _make_room(self, now: float) -> list[Batch]:
        if len(self._open) < VERSIONS_MAX:
            return []
        oldest = min(self._open, key=lambda key: self._open[key].opened_at)
        return [self._close(*oldest, now)]

    def _close(self, version: str, slot: Literal["stable", "candidate"], now: float) -> Batch:
        tick = self._open.pop((version, slot))
        return lay_out(tick.pieces, self.learner.schema, opened_at=tick.opened_at, closed_at=now)


def lay_out(
    pieces: Sequence[_Piece], schema: Schema, *, opened_at: float, closed_at: float
) -> Batch:
    """The rows of one or more pieces of one version as a batch."""
    counts = [stop - start for _, start, stop in pieces]
    inferences = [inference for inference, _, _ in pieces]
    rows = sum(counts)
    columns, type_changes, unexpected = _columns(pieces, schema, rows)
    outputs = _outputs(pieces, schema)
    prediction, score = outcome(schema, outputs)
    return Batch(
        version=inferences[0].version,
        slot=inferences[0].slot,
        rows=rows,
        opened_at=opened_at,
        closed_at=closed_at,
        ids=tuple(_repeated([inference.id for inference in inferences], counts)),
        row_numbers=np.fromiter(
            chain.from_iterable(range(start, stop) for _, start, stop in pieces),
            dtype=np.int64,
            count=rows,
        ),
        aliases={alias: i.id for i in inferences if i.aliases for alias in i.aliases},
        at=np.repeat([i.at for i in inferences], counts),
        weight=np.repeat([i.weight for i in inferences], counts),
        uniform=np.repeat([i.uniform for i in inferences], counts),
        columns=columns,
        prediction=prediction,
        score=score,
        scores=class_scores(schema, outputs),
        schema=schema,
        type_changes=type_changes,
        unexpected=unexpected,
        texts=_texts(pieces),
        vectors=_vectors(pieces, rows),
    )


def _repeated(names: Sequence[str], counts: Sequence[int]) -> Iterable[str]:
    """Each name as often as its count says."""
    return chain.from_iterable(map(repeat, names, counts))


def _texts(pieces: Sequence[_Piece]) -> dict[str, list[str | None]]:
    """The texts of all pieces; None for rows that have none."""
    names = dict.fromkeys(name for inference, _, _ in pieces for name in inference.texts)
    return {
        name: [
            text
            for inference, start, stop in pieces
            for text in inference.texts.get(name, (None,) * inference.row_count)[start:stop]
        ]
        for name in names
    }


def _vectors(pieces: Sequence[_Piece], total: int) -> dict[str, NDArray[np.float32]]:
    """The vectors of all pieces, each as wide as its first: NaN for rows without one so wide."""
    widths: dict[str, int] = {}
    for inference, _, _ in pieces:
        for name, found in inference.vectors.items():
            widths.setdefault(name, found.shape[1])
    stacked = {
        name: np.full((total, width), np.nan, dtype=np.float32)
        for name, width in widths.items()
        if 0 < width <= VECTOR_WIDTH_MAX
    }
    row = 0
    for inference, start, stop in pieces if stacked else ():
        for name, block in stacked.items():
            own = inference.vectors.get(name)
            if own is not None and own.shape[1] == block.shape[1]:
                block[row : row + stop - start] = own[start:stop]
        row += stop - start
    return stacked


def _columns(
    pieces: Sequence[_Piece], schema: Schema, total: int
) -> tuple[dict[str, Column], Counter[str], Counter[str]]:
    """The features of all pieces in schema order; what a piece does not have is missing."""
    type_changes: Counter[str] = Counter()
    unexpected: Counter[str] = Counter()
    found: dict[str, Column] = {}
    kinds = {feature.name: feature for feature in schema.features}
    groups = _alike(pieces, schema.names)
    for names, runs, group in groups:
        places = np.concatenate([np.arange(*run) for run in runs]) if len(groups) > 1 else None
        for name, values in zip(names, _cells(group), strict=True):
            if (feature := kinds.get(name)) is None:
                if name in unexpected or len(unexpected) < UNEXPECTED_MAX:
                    unexpected[name] += len(values)
                continue
            column, changed = _as_kind(values, feature)
            if places is None and name not in found:
                found[name] = column
            else:
                if name not in found:
                    found[name] = _all_missing(feature, total)
                found[name][slice(None) if places is None else places] = column
            if changed:
                type_changes[name] += changed
    columns = {
        name: found[name] if name in found else _all_missing(feature, total)
        for name, feature in kinds.items()
    }
    return columns, type_changes, unexpected


def _alike(
    pieces: Iterable[_Piece], known: tuple[str, ...]
) -> list[tuple[tuple[str, ...], list[tuple[int, int]], list[_Piece]]]:
    """Pieces with the same columns in the same form, and the runs of their rows in the batch."""
    groups: dict[tuple[tuple[str, ...], bool], tuple[list[tuple[int, int]], list[_Piece]]] = {}
    last: tuple[tuple[str, ...], bool] | None = None
    runs: list[tuple[int, int]] = []
    members: list[_Piece] = []
    begun = row = 0
    for piece in pieces:
        inference, start, stop = piece
        names = inference.names
        key = (
            feature_names(inference, known) if names is None else names,
            isinstance(inference.rows, np.ndarray),
        )
        if key != last:  # neighbours are alike most of the time, and a hash costs more
            runs.append((begun, row))  # the first time to a list that nobody keeps
            runs, members = groups.setdefault(key, ([], []))
            last, begun = key, row
        members.append(piece)
        row += stop - start
    runs.append((begun, row))
    return [(names, runs, members) for (names, _), (runs, members) in groups.items()]


def _cells(pieces: Sequence[_Piece]) -> Iterable[NDArray[np.float64] | Sequence[object]]:
    """One sequence of cells per column: float64 where the rows were a matrix."""
    slices = [inference.rows[start:stop] for inference, start, stop in pieces]
    matrices = [rows for rows in slices if isinstance(rows, np.ndarray)]
    if matrices:
        return _transposed(matrices)
    return list(zip(*(row for rows in slices for row in rows), strict=True))


def _transposed(matrices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Matrices [., d] one below the other, as [d, rows]; few at a time, so that there is no second
    copy of all of them.
    """
    cells = np.empty((matrices[0].shape[1], sum(map(len, matrices))))
    row = 0
    for first in range(0, len(matrices), MATRICES_AT_ONCE):
        some = np.concatenate(matrices[first : first + MATRICES_AT_ONCE])
        cells[:, row : row + len(some)] = some.T
        row += len(some)
    return cells


def _all_missing(feature: Feature, rows: int) -> Column:
    if feature.kind in ("categorical", "text"):
        return np.full(rows, None, dtype=object)
    return np.full(rows, np.nan)


def _as_kind(
    values: NDArray[np.float64] | Sequence[object], feature: Feature
) -> tuple[Column, int]:
    """The cells of one column as its kind, and how many were of a type it cannot have."""
    if feature.kind in ("categorical", "text"):
        cells = values.tolist() if isinstance(values, np.ndarray) else values
        # What decoders give are Values; the columns of a group are typed no narrower than object.
        return objects([category(cell) for cell in cells]), 0  # type: ignore[arg-type]
    if isinstance(values, np.ndarray):
        return values, 0
    return numbers(values)  # type: ignore[arg-type]


def _outputs(pieces: Sequence[_Piece], schema: Schema) -> dict[str, list[Value | Sequence[Value]]]:
    """What is prediction or score, of all rows; None where a piece does not have it."""
    wanted = {schema.prediction, schema.score}
    present = {name for inference, _, _ in pieces for name in inference.outputs if name in wanted}
    merged: dict[str, list[Value | Sequence[Value]]] = {name: [] for name in present}
    for name, entries in merged.items():
        for inference, start, stop in pieces:
            if (said := inference.outputs.get(name)) is not None:
                entries.extend(said[start:stop])
            else:
                entries.extend([None] * (stop - start))
    return merged
