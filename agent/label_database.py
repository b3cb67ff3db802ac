"""The SQLite file behind the join of labels: its tables, opening it, and starting anew.

Rows are appended in the order in which they come and found by a 64-bit hash of their request id:
an index over the ids themselves is three times as large, and every insertion lands on another page
of it. A file is set aside only when it is damaged or of another version, never because the disk is
full or somebody holds a lock.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import structlog

log = structlog.get_logger("remora.labels")

VERSION: Final = 3
VARIABLES: Final = 500  # in one IN (...) list; SQLite's own limit is far above
# A person with a sqlite3 shell may hold the file; analysis has better things to do than wait long.
BUSY_WAIT_S: Final = 1.0
PAGES_BETWEEN_CHECKPOINTS: Final = 4_000  # 16 MB of log, and one fsync for all of it
DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

SCHEMA: Final = """
CREATE TABLE predictions (
    seq INTEGER PRIMARY KEY,
    key INTEGER NOT NULL,
    row INTEGER NOT NULL,
    id TEXT NOT NULL,
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
    told INTEGER NOT NULL DEFAULT 1,
    groups TEXT
);
CREATE UNIQUE INDEX predictions_key ON predictions (key, row);
CREATE TABLE aliases (
    seq INTEGER PRIMARY KEY,
    key INTEGER NOT NULL UNIQUE,
    target INTEGER,
    at REAL NOT NULL
);
CREATE TABLE pending (
    seq INTEGER PRIMARY KEY,
    key INTEGER NOT NULL,
    row INTEGER NOT NULL,
    label TEXT NOT NULL,
    known_at REAL NOT NULL,
    came_at REAL NOT NULL
);
CREATE UNIQUE INDEX pending_key ON pending (key, row);
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

# What version 3 has beyond version 2: labelled rows that wait for their cohort (`told` is 0), and
# the cohorts.
WAITING: Final = """
CREATE INDEX predictions_waiting ON predictions (at) WHERE told = 0;
CREATE TABLE cohorts (
    start INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL DEFAULT 0,
    labelled INTEGER NOT NULL DEFAULT 0,
    in_time INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE delays (step INTEGER PRIMARY KEY, rows REAL NOT NULL);
CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
FROM_VERSION_2: Final = """
ALTER TABLE predictions ADD COLUMN told INTEGER NOT NULL DEFAULT 1;
ALTER TABLE predictions ADD COLUMN groups TEXT;
"""


@dataclass(slots=True, kw_only=True)
class Counts:
    """How many there are in the file; stored there with every change, for counting is slow."""

    rows: int = 0
    labelled: int = 0
    pending: int = 0
    waiting: int = 0  # joined, and not yet handed on


@dataclass(slots=True)
class Tally:
    """What one transaction did; it counts once that is on disk."""

    outcomes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    delays: Counter[int] = field(default_factory=Counter)
    cohorts: Counter[tuple[int, str]] = field(default_factory=Counter)


class Database:
    """One connection that writes, and the counts that go with it.

    Raises `sqlite3.OperationalError` for what an operator can mend: no room, no permission, a
    lock held by somebody.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set_aside = False  # a file had to be, for this one
        try:
            self._connection, self.counts = _connect(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            set_aside(path, str(error))
            self.set_aside = True
            self._connection, self.counts = _connect(path)

    def close(self) -> None:
        self._connection.close()

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def executemany(self, statement: str, values: Sequence[Sequence[object]]) -> sqlite3.Cursor:
        return self._connection.executemany(statement, values)

    def number(self, statement: str, values: Sequence[object] = ()) -> int:
        """The first column of the first row."""
        return int(self._connection.execute(statement, values).fetchone()[0])

    def select_in(self, statement: str, keys: Sequence[int]) -> list[tuple[Any, ...]]:
        return select_in(self._connection, statement, keys)

    @contextmanager
    def transaction(self) -> Iterator[Tally]:
        """All of a call's changes or none of them, in the file and in the counts."""
        before = replace(self.counts)
        tally = Tally()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield tally
            self._connection.executemany(
                "INSERT INTO counts VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value=?",
                [
                    (name, value, value)
                    for name in ("rows", "labelled", "pending", "waiting")
                    if (value := getattr(self.counts, name)) != getattr(before, name)
                ],
            )
            self._connection.execute("COMMIT")
        except BaseException:
            self.counts = before
            if self._connection.in_transaction:  # a full disk may have ended it already
                self._connection.execute("ROLLBACK")
            raise


def key_of(id: str) -> int:
    """The 64-bit hash, signed, that rows of a request are found by.

    Two of five million ids share one with a probability of a millionth, and are then counted as
    one id used twice.
    """
    return int.from_bytes(blake2b(id.encode(), digest_size=8).digest(), "little", signed=True)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is unusable, as opposed to the disk, its rights or a lock."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _OtherVersion) or (code is not None and code & 0xFF in DAMAGED)


def set_aside(path: Path, why: str) -> None:
    """Keep the file for whoever wants to look. Raises `OSError` when it cannot be moved."""
    aside = path.with_suffix(".unreadable")
    log.error("label store cannot be read, starting an empty one", why=why, kept_as=str(aside))
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.replace(aside)


class _OtherVersion(sqlite3.DatabaseError):
    """The file is sound, and not of this version."""


def _connect(path: Path) -> tuple[sqlite3.Connection, Counts]:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_WAIT_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-4000")
        connection.execute(f"PRAGMA wal_autocheckpoint={PAGES_BETWEEN_CHECKPOINTS}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if version == 0 and tables == 0:
            connection.executescript(
                f"BEGIN; {SCHEMA} {WAITING} PRAGMA user_version={VERSION}; COMMIT"
            )
        elif version == 2:
            connection.executescript(
                f"BEGIN; {FROM_VERSION_2} {WAITING} PRAGMA user_version={VERSION}; COMMIT"
            )
        elif version != VERSION:
            raise _OtherVersion(f"written by another version ({version}, not {VERSION})")
        known = connection.execute("SELECT name, value FROM counts").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection, Counts(**dict(known))


def read_only(path: Path) -> sqlite3.Connection:
    """A connection of its own for a thread that only reads; writing goes on beside it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_WAIT_S)


def select_in(
    connection: sqlite3.Connection, statement: str, keys: Sequence[int]
) -> list[tuple[Any, ...]]:
    """All rows of a SELECT whose `key` is one of `keys`."""
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(keys), VARIABLES):
        part = keys[start : start + VARIABLES]
        marks = ",".join("?" * len(part))
        found += connection.execute(f"{statement} WHERE key IN ({marks})", part).fetchall()
    return found
