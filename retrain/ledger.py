"""The journal of everything that was decided: append-only, hash-chained, in one SQLite file.

Whoever changes a state (a run, a rollout, the outbox) opens `Ledger.transaction()`, makes the
change in tables of its own, appends the entry and queues what must be sent: all of it is on disk,
or nothing is. Never await inside a transaction: whatever else runs on the thread would join it.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

GENESIS: Final = "0" * 64  # what the first entry names as its predecessor


class Kind(StrEnum):
    """What an entry is about. Closed: `entries(kind=...)` and the pages filter by it."""

    DECISION = "decision"
    RUN = "run"
    GATE = "gate"
    ROLLOUT = "rollout"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"
    QUARANTINE = "quarantine"
    REFERENCE = "reference"
    LABEL_IMPORT = "label_import"
    OPERATOR = "operator"
    WEBHOOK = "webhook"


class LedgerReason(StrEnum):
    """Why the file cannot be used; each has another mend."""

    CORRUPT = "corrupt"
    FULL = "full"
    LOCKED = "locked"
    MISSING = "missing"
    NEWER = "newer"
    READ_ONLY = "read_only"
    UNUSABLE = "unusable"


class LedgerError(Exception):
    """The file cannot be read or written. Nothing of the transaction was kept."""

    def __init__(self, reason: LedgerReason, text: str) -> None:
        super().__init__(text)
        self.reason: LedgerReason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the journal. `hash` covers every other field, the previous hash included."""

    id: int
    at: float  # unix seconds
    kind: Kind
    subject: str  # what it is about: a run, a rollout, a digest, a feature
    actor: str  # who did it: `policy`, `runner`, or the name of an operator's token
    reason: str  # one sentence, with the numbers
    data: Mapping[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What walking the chain found. `broken_at` is the first entry that does not fit."""

    entries: int
    ok: bool
    broken_at: int | None = None


def canonical(value: Any) -> str:
    """JSON with one spelling for one value: what is hashed and signed.

    Raises ValueError for NaN and infinities, which JSON has no word for.

    >>> canonical({"b": 1, "a": "é"})
    '{"a":"é","b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _digest(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(entry).encode()).hexdigest()


# The kinds are not in a CHECK: a new kind must not need a rebuilt table.
SCHEMA: Final = (
    """CREATE TABLE ledger (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        actor TEXT NOT NULL,
        reason TEXT NOT NULL,
        data TEXT NOT NULL,
        previous TEXT NOT NULL UNIQUE,
        hash TEXT NOT NULL UNIQUE)""",
    "CREATE INDEX ledger_subject ON ledger (subject, id)",
    """CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    """CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
)

COLUMNS: Final = "id, at, kind, subject, actor, reason, data, previous, hash"

SQLITE_REASONS: Final = {
    sqlite3.SQLITE_BUSY: LedgerReason.LOCKED,
    sqlite3.SQLITE_LOCKED: LedgerReason.LOCKED,
    sqlite3.SQLITE_CORRUPT: LedgerReason.CORRUPT,
    sqlite3.SQLITE_NOTADB: LedgerReason.CORRUPT,
    sqlite3.SQLITE_FULL: LedgerReason.FULL,
    sqlite3.SQLITE_READONLY: LedgerReason.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: LedgerReason.MISSING,
}

MENDS: Final = {
    LedgerReason.LOCKED: "another process holds it: is a second agent running on this directory?",
    LedgerReason.CORRUPT: "it is damaged: put a backup in its place, or move it away to begin anew",
    LedgerReason.FULL: "the disk is full: make room, nothing was written",
    LedgerReason.READ_ONLY: "it may not be written: check the owner and mode of file and directory",
    LedgerReason.MISSING: "it cannot be opened: check that it exists and may be read",
}


class Ledger:
    """`decisions.db`: the chain, and the tables of those who decide, in one file.

    `path` is created when it is missing (mode 0600), unless `read_only`, which is what commands
    use beside a running agent. May be used from several threads; transactions then queue up.
    """

    def __init__(self, path: Path, *, read_only: bool = False, busy_timeout_s: float = 5.0) -> None:
        self.path: Final = path
        self.read_only: Final = read_only
        self._lock = threading.RLock()
        self._depth = 0
        if read_only and not path.exists():
            raise LedgerError(LedgerReason.MISSING, f"{path}: there is no ledger here")
        if not read_only:
            self._create()
        with self._translated():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                timeout=busy_timeout_s,
                isolation_level=None,  # transactions begin where this file says, nowhere else
                check_same_thread=False,
            )
            self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _create(self) -> None:
        try:
            self.path.touch(mode=0o600, exist_ok=True)
        except FileNotFoundError as error:
            text = f"{self.path}: its directory does not exist"
            raise LedgerError(LedgerReason.MISSING, text) from error
        except OSError as error:
            text = f"{self.path}: {MENDS[LedgerReason.READ_ONLY]} ({error.strerror})"
            raise LedgerError(LedgerReason.READ_ONLY, text) from error

    def _prepare(self) -> None:
        with self._translated():
            if self.read_only:
                self._connection.execute("PRAGMA query_only = ON")
                self._connection.execute("SELECT count(*) FROM ledger").fetchone()
                return
            self._connection.execute("PRAGMA journal_mode = WAL")
            # FULL: a decision that was acted upon must survive the power cut a moment later.
            # Decisions are rare; telemetry has a file of its own.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        self.migrate("ledger", SCHEMA)

    def close(self) -> None:
        """Closes the file. The ledger cannot be used afterwards."""
        self._connection.close()

    def migrate(self, name: str, statements: Sequence[str]) -> None:
        """Brings the tables of `name` up to date: statement n makes version n + 1.

        A statement that was released never changes and never moves; new ones go to the end.
        Raises LedgerError (NEWER) when a later Remora has written the file.
        """
        with self.transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, version INTEGER)"
            )
            row = connection.execute(
                "SELECT version FROM migration WHERE name = ?", (name,)
            ).fetchone()
            version = 0 if row is None else int(row["version"])
            if version > len(statements):
                raise LedgerError(
                    LedgerReason.NEWER,
                    f"{self.path}: tables of {name} have version {version}, this Remora knows"
                    f" {len(statements)}: run the newer Remora, or restore an older file",
                )
            for statement in statements[version:]:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migration VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET version = excluded.version",
                (name, len(statements)),
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Inside an open one it joins: only the outermost commits.

        An exception undoes what was done inside this `with`, and travels on. Raises LedgerError
        when the file is locked, full, damaged or read-only. `sqlite3.IntegrityError` travels as
        it is: a violated constraint says something about the data, not about the file.
        """
        with self._lock:
            outermost = self._depth == 0
            savepoint = f"level_{self._depth}"
            with self._translated():
                self._connection.execute(
                    "BEGIN IMMEDIATE" if outermost else f"SAVEPOINT {savepoint}"
                )
            self._depth += 1
            try:
                with self._translated():
                    yield self._connection
                    self._connection.execute("COMMIT" if outermost else f"RELEASE {savepoint}")
            except BaseException:
                self._undo(outermost, savepoint)
                raise
            finally:
                self._depth -= 1

    def _undo(self, outermost: bool, savepoint: str) -> None:
        # SQLite has already rolled back by itself after a full disk or an I/O error.
        if not self._connection.in_transaction:
            return
        with self._translated():
            if outermost:
                self._connection.execute("ROLLBACK")
            else:
                self._connection.execute(f"ROLLBACK TO {savepoint}")
                self._connection.execute(f"RELEASE {savepoint}")

    def append(
        self,
        *,
        at: float,
        kind: str,
        subject: str,
        actor: str,
        reason: str,
        data: Mapping[str, Any],
    ) -> Entry:
        """Adds an entry to the open transaction. `at` is unix seconds.

        Raises ValueError for a kind that is not in `Kind` or data that JSON cannot hold, and
        RuntimeError outside a transaction: an entry without its change would be a lie.
        """
        if self._depth == 0:
            raise RuntimeError("append belongs into the transaction of the change it records")
        last = self._last()
        fields: dict[str, Any] = {
            "id": 1 if last is None else last.id + 1,
            "at": float(at),
            "kind": Kind(kind).value,
            "subject": subject,
            "actor": actor,
            "reason": reason,
            # Through JSON and back: what is hashed is what a reader of the file will see.
            "data": json.loads(canonical(data)),
            "previous": GENESIS if last is None else last.hash,
        }
        digest = _digest(fields)
        self._connection.execute(
            f"INSERT INTO ledger ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - fixed names
            (*(fields | {"data": canonical(fields["data"])}).values(), digest),
        )
        return Entry(**(fields | {"kind": Kind(kind)}), hash=digest)

    def entries(
        self,
        *,
        after: int = 0,
        limit: int = 100,
        subject: str | None = None,
        kind: str | None = None,
    ) -> list[Entry]:
        """Entries with an id greater than `after`, oldest first, at most `limit` of them."""
        query = f"SELECT {COLUMNS} FROM ledger WHERE id > ?"  # noqa: S608 - fixed names
        values: list[str | int] = [after]
        if subject is not None:
            query += " AND subject = ?"
            values.append(subject)
        if kind is not None:
            query += " AND kind = ?"
            values.append(Kind(kind).value)
        rows = self.read(f"{query} ORDER BY id LIMIT ?", (*values, limit))
        return [_entry(row) for row in rows]

    def read(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Rows of a SELECT, for those who keep tables of their own here. Raises LedgerError."""
        with self._lock, self._translated():
            return self._connection.execute(query, values).fetchall()

    def head(self) -> str:
        """The hash of the newest entry, which stands for all before it."""
        last = self._last()
        return GENESIS if last is None else last.hash

    def verify(self) -> Verification:
        """Walks the whole chain, in constant memory.

        Finds an altered, exchanged, inserted or removed entry. An attacker who may write the file
        can rebuild it whole: that is what the head hash in every webhook is for.
        """
        count, previous = 0, GENESIS
        query = f"SELECT {COLUMNS} FROM ledger WHERE id > ? ORDER BY id LIMIT 1000"  # noqa: S608 - fixed names
        while rows := self.read(query, (count,)):
            for row in rows:
                if row["id"] != count + 1 or not _fits(row, previous):
                    return Verification(entries=count, ok=False, broken_at=count + 1)
                count, previous = row["id"], row["hash"]
        # AUTOINCREMENT remembers the highest id ever given: entries missing at the end show here.
        rows = self.read("SELECT seq FROM sqlite_sequence WHERE name = 'ledger'")
        highest = int(rows[0]["seq"]) if rows else 0
        if highest > count:
            return Verification(entries=count, ok=False, broken_at=count + 1)
        return Verification(entries=count, ok=True)

    def _last(self) -> Entry | None:
        rows = self.read(f"SELECT {COLUMNS} FROM ledger ORDER BY id DESC LIMIT 1")  # noqa: S608 - fixed names
        return _entry(rows[0]) if rows else None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as ours, which say what to do about them."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            # Extended codes keep the primary one in their lowest byte.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            reason = SQLITE_REASONS.get(code, LedgerReason.UNUSABLE)
            text = MENDS.get(reason, "SQLite refuses it")
            raise LedgerError(reason, f"{self.path}: {text} ({error})") from error


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        id=row["id"],
        at=row["at"],
        kind=Kind(row["kind"]),
        subject=row["subject"],
        actor=row["actor"],
        reason=row["reason"],
        data=json.loads(row["data"]),
        previous=row["previous"],
        hash=row["hash"],
    )


def _fits(row: sqlite3.Row, previous: str) -> bool:
    fields = dict(row)
    claimed = fields.pop("hash")
    try:
        fields["data"] = json.loads(fields["data"])
    except ValueError:
        return False
    return bool(fields["previous"] == previous and claimed == _digest(fields))
