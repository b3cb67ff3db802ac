"""Late labels joined to predictions on disk, by request id and row.

Predictions wait for their label, labels that came first wait for their prediction, both in one
SQLite file with limits on age and number. The same label twice changes nothing; a different one is
a correction, which quality follows and evidence does not: what a detector has seen it cannot unsee.
"""

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from agent.batch import Batch

log = structlog.get_logger("remora.labels")

LabelValue: TypeAlias = str | int | float | bool

# An expired prediction's id is remembered for this share of its life: a label for it is `late`.
TOMBSTONE_SHARE: Final = 0.25
VARIABLES: Final = 500  # in one IN (...) list; SQLite's own limit is far above
VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE predictions (
    id TEXT NOT NULL,
    row INTEGER NOT NULL,
    at REAL NOT NULL,
    version TEXT NOT NULL,
    slot TEXT NOT NULL,
    prediction TEXT,
    score REAL,
    weight REAL NOT NULL,
    uniform INTEGER NOT NULL,
    label TEXT,
    labelled_at REAL,
    duplicate INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (id, row)
) WITHOUT ROWID;
CREATE INDEX predictions_at ON predictions (at);
CREATE INDEX predictions_labelled ON predictions (labelled_at) WHERE labelled_at IS NOT NULL;
CREATE TABLE aliases (alias TEXT PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX aliases_at ON aliases (at);
CREATE TABLE pending (
    id TEXT NOT NULL,
    row INTEGER NOT NULL,
    label TEXT NOT NULL,
    came_at REAL NOT NULL,
    PRIMARY KEY (id, row)
) WITHOUT ROWID;
CREATE INDEX pending_came_at ON pending (came_at);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What turned out true for one row of one request; `at` in unix seconds when it was known."""

    request_id: str
    row: int = 0
    label: LabelValue
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A prediction and its label. `old_label` is set when a label was corrected."""

    id: str
    row: int
    prediction: LabelValue | None
    score: float | None
    label: LabelValue
    old_label: LabelValue | None = None
    version: str
    slot: str
    weight: float
    uniform: bool
    predicted_at: float
    labelled_at: float

    @property
    def delay_s(self) -> float:
        """How long the truth took, in seconds; 0 for clocks that disagree."""
        return max(0.0, self.labelled_at - self.predicted_at)


class LabelStore:
    """The join on disk.

    Parameters
    ----------
    path: the SQLite file; made when missing, set aside when it cannot be read.
    ttl_s: how long a prediction waits for its label.
    pending_s: how long a label waits for its prediction.
    rows_max: predictions kept; the oldest are evicted and counted.
    was_kept: whether the sampling would have kept a request of that id; None: cannot be told.
    """

    def __init__(
        self,
        path: Path,
        *,
        ttl_s: float,
        pending_s: float,
        rows_max: int,
        was_kept: Callable[[str], bool | None] = lambda _: None,
    ) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._pending_s = pending_s
        self._rows_max = rows_max
        self._was_kept = was_kept
        # What became of labels and predictions since the agent started, by outcome.
        self.outcomes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._connection = self._open()
        self._rows = self._one("SELECT COUNT(*) FROM predictions")

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "lock" in str(error):
                raise
            aside = self._path.with_suffix(".unreadable")
            log.error("label store cannot be read, starting an empty one", kept_as=str(aside))
            self.dropped["store_unreadable"] += 1
            for suffix in ("-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._path.replace(aside)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA cache_size=-4000")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT")
            elif version > VERSION:
                raise sqlite3.DatabaseError(f"written by a newer version ({version})")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._connection.close()

    @property
    def rows(self) -> int:
        """Predictions that are kept, labelled or not."""
        return self._rows

    # Predictions.

    def remember(self, batch: Batch, now: float) -> list[Joined]:
        """Keep a tick's predictions; gives those whose label was here before them."""
        if batch.prediction is None:
            return []
        scores = batch.score
        slot = batch.slot
        keys = list(zip(batch.ids, batch.row_numbers.tolist(), strict=True))
        predictions = [_text(value) for value in batch.prediction.tolist()]
        records = [
            (
                key[0],
                key[1],
                at,
                batch.version,
                slot,
                prediction,
                None if scores is None or math.isnan(scores[place]) else float(scores[place]),
                weight,
                int(uniform),
            )
            for place, (key, at, prediction, weight, uniform) in enumerate(
                zip(
                    keys,
                    batch.at.tolist(),
                    predictions,
                    batch.weight.tolist(),
                    batch.uniform.tolist(),
                    strict=True,
                )
            )
        ]
        with _Transaction(self._connection):
            inserted = self._connection.executemany(
                "INSERT OR IGNORE INTO predictions"
                " (id, row, at, version, slot, prediction, score, weight, uniform)"
                " VALUES (?,?,?,?,?,?,?,?,?)",
                records,
            ).rowcount
            if batch.aliases:
                self._connection.executemany(
                    "INSERT OR IGNORE INTO aliases VALUES (?,?,?)",
                    [(alias, id, now) for alias, id in batch.aliases.items()],
                )
            self._count(records, inserted)
            joined = self._join_pending(batch, keys, now)
        return joined

    def _count(self, records: Sequence[tuple[object, ...]], inserted: int) -> None:
        self._rows += inserted
        if inserted < len(records):
            # A live id used again: which of the two requests a label means nobody can say.
            self.dropped["duplicate_id"] += len(records) - inserted
            self._connection.executemany(
                "UPDATE predictions SET duplicate = 1 WHERE id=? AND row=? AND at<>?",
                [record[:3] for record in records],
            )
        over = self._rows - self._rows_max
        if over > 0:
            self._connection.execute(
                "DELETE FROM predictions WHERE (id, row) IN"
                " (SELECT id, row FROM predictions ORDER BY at LIMIT ?)",
                (over,),
            )
            self.dropped["prediction_evicted"] += over
            self._rows = self._rows_max

    def _join_pending(
        self, batch: Batch, keys: Sequence[tuple[str, int]], now: float
    ) -> list[Joined]:
        if not self._one("SELECT EXISTS (SELECT 1 FROM pending)"):
            return []
        wanted = set(keys)
        names = [*dict.fromkeys(batch.ids), *batch.aliases]
        found: list[Joined] = []
        for id, row, label in self._select_in("SELECT id, row, label FROM pending", names):
            key = (batch.aliases.get(id, id), row)
            if key not in wanted:
                continue
            self._connection.execute("DELETE FROM pending WHERE id=? AND row=?", (id, row))
            _, joined = self._label(key[0], row, _value(label), now)
            if joined is not None:
                self.outcomes["joined"] += 1
                found.append(joined)
        return found

    # Labels.

    def take(self, labels: Iterable[Label], now: float) -> tuple[Counter[str], list[Joined]]:
        """Join labels; gives what became of each by outcome, and the rows that were joined."""
        counts: Counter[str] = Counter()
        joined: list[Joined] = []
        with _Transaction(self._connection):
            for label in labels:
                known_at = now if label.at is None else label.at
                outcome, row = self._take(label, known_at, now)
                counts[outcome] += 1
                if row is not None:
                    joined.append(row)
        self.outcomes.update(counts)
        return counts, joined

    def _take(self, label: Label, known_at: float, now: float) -> tuple[str, Joined | None]:
        id = self._id_of(label.request_id)
        outcome, joined = self._label(id, label.row, label.label, known_at)
        if outcome != "unknown":
            if joined is not None and now - joined.predicted_at > self._ttl_s:
                return "late", None
            return outcome, joined
        if self._one("SELECT EXISTS (SELECT 1 FROM predictions WHERE id=?)", (id,)):
            return "unmatched", None  # the request is known, the row is not one of its rows
        if self._was_kept(label.request_id) is False:
            return "not_sampled", None
        self._connection.execute(
            "INSERT OR REPLACE INTO pending VALUES (?,?,?,?)",
            (label.request_id, label.row, json.dumps(label.label), now),
        )
        return "pending", None

    def _id_of(self, name: str) -> str:
        found = self._connection.execute("SELECT id FROM aliases WHERE alias=?", (name,)).fetchone()
        return name if found is None else str(found[0])

    def _label(self, id: str, row: int, label: LabelValue, at: float) -> tuple[str, Joined | None]:
        found = self._connection.execute(
            "SELECT prediction, score, version, slot, weight, uniform, at, label, duplicate"
            " FROM predictions WHERE id=? AND row=?",
            (id, row),
        ).fetchone()
        if found is None:
            return "unknown", None
        prediction, score, version, slot, weight, uniform, predicted_at, old, duplicate = found
        if duplicate:
            return "unmatched", None
        text = json.dumps(label)
        if old == text:
            return "unchanged", None
        self._connection.execute(
            "UPDATE predictions SET label=?, labelled_at=? WHERE id=? AND row=?",
            (text, at, id, row),
        )
        joined = Joined(
            id=id,
            row=row,
            prediction=None if prediction is None else _value(prediction),
            score=score,
            label=label,
            old_label=None if old is None else _value(old),
            version=version,
            slot=slot,
            weight=weight,
            uniform=bool(uniform),
            predicted_at=predicted_at,
            labelled_at=at,
        )
        return ("joined" if old is None else "corrected"), joined

    # Age.

    def expire(self, now: float) -> None:
        """Let go of what has waited too long; counted by what it was."""
        with _Transaction(self._connection):
            cursor = self._connection.execute(
                "DELETE FROM pending WHERE came_at < ?", (now - self._pending_s,)
            )
            self.outcomes["unmatched"] += cursor.rowcount
            forgotten = now - self._ttl_s * (1.0 + TOMBSTONE_SHARE)
            cursor = self._connection.execute("DELETE FROM predictions WHERE at < ?", (forgotten,))
            self._rows -= cursor.rowcount
            self._connection.execute("DELETE FROM aliases WHERE at < ?", (forgotten,))

    def labelled(self, *, rows_max: int) -> dict[tuple[str, int], LabelValue]:
        """(request id, row) to label, of the labels that came last; for captures and gates."""
        rows = self._connection.execute(
            "SELECT id, row, label FROM predictions WHERE labelled_at IS NOT NULL"
            " ORDER BY labelled_at DESC LIMIT ?",
            (rows_max,),
        )
        return {(id, row): _value(label) for id, row, label in rows}

    def labelled_rows(self) -> int:
        """How many kept predictions have a label."""
        return self._one("SELECT COUNT(*) FROM predictions WHERE labelled_at IS NOT NULL")

    def _one(self, statement: str, values: Sequence[object] = ()) -> int:
        return int(self._connection.execute(statement, values).fetchone()[0])

    def _select_in(self, statement: str, names: Sequence[str]) -> list[tuple[str, int, str]]:
        found: list[tuple[str, int, str]] = []
        for start in range(0, len(names), VARIABLES):
            part = names[start : start + VARIABLES]
            marks = ",".join("?" * len(part))
            found += self._connection.execute(f"{statement} WHERE id IN ({marks})", part).fetchall()
        return found


class _Transaction:
    """All of a call's changes or none of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _text(value: object) -> str | None:
    """A prediction as JSON text; None when there is none."""
    if value is None or value != value:
        return None
    return json.dumps(value)


def _value(text: str) -> LabelValue:
    value = json.loads(text)
    assert isinstance(value, str | int | float | bool)
    return value
