"""The journal keeps what was decided, shows what was altered, and says clearly when it cannot."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrain.ledger import GENESIS, Entry, Kind, Ledger, LedgerError, LedgerReason


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "decisions.db")
    yield opened
    opened.close()


def note(ledger: Ledger, subject: str = "run_1", kind: str = "run") -> Entry:
    with ledger.transaction():
        return ledger.append(
            at=1_700_000_000.25,
            kind=kind,
            subject=subject,
            actor="policy",
            reason="2 features in drift >= quorum 1",
            data={"weight": 0.1, "name": "âge"},
        )


def test_entries_chain_from_genesis_to_head(ledger: Ledger) -> None:
    assert ledger.head() == GENESIS
    first, second = note(ledger), note(ledger)
    assert (first.previous, second.previous) == (GENESIS, first.hash)
    assert ledger.head() == second.hash
    assert ledger.entries() == [first, second]
    assert ledger.verify().ok
    assert ledger.verify().entries == 2


def test_entries_can_be_paged_and_chosen(ledger: Ledger) -> None:
    note(ledger)
    note(ledger, "sha256:1", "rollout")
    note(ledger)
    assert [entry.id for entry in ledger.entries(after=1, limit=1)] == [2]
    assert [entry.id for entry in ledger.entries(subject="run_1")] == [1, 3]
    assert [entry.kind for entry in ledger.entries(kind="rollout")] == [Kind.ROLLOUT]


def test_the_chain_survives_closing(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    first = Ledger(path)
    entry = note(first)
    first.close()
    second = Ledger(path)
    assert second.entries() == [entry]
    assert second.verify().ok
    second.close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "statement", ["UPDATE ledger SET reason = 'nothing'", "DELETE FROM ledger WHERE id = 1"]
)
def test_an_entry_can_be_neither_altered_nor_removed(ledger: Ledger, statement: str) -> None:
    note(ledger)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), ledger.transaction() as inside:
        inside.execute(statement)
    assert ledger.verify().ok


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE ledger SET reason = 'nothing' WHERE id = 2", 2),
        ("UPDATE ledger SET at = at + 1 WHERE id = 1", 1),
        ("UPDATE ledger SET data = 'no json' WHERE id = 3", 3),
        ("DELETE FROM ledger WHERE id = 2", 2),
        ("DELETE FROM ledger WHERE id = 3", 3),
        ("UPDATE ledger SET id = 9 WHERE id = 3", 3),
    ],
)
def test_tampering_behind_its_back_is_found(tmp_path: Path, statement: str, broken_at: int) -> None:
    path = tmp_path / "decisions.db"
    ledger = Ledger(path)
    for _ in range(3):
        note(ledger)
    behind = sqlite3.connect(path)
    behind.execute("DROP TRIGGER ledger_no_update")
    behind.execute("DROP TRIGGER ledger_no_delete")
    behind.execute(statement)
    behind.commit()
    behind.close()
    verification = ledger.verify()
    assert not verification.ok
    assert verification.broken_at == broken_at
    ledger.close()


def test_an_entry_without_a_transaction_is_refused(ledger: Ledger) -> None:
    with pytest.raises(RuntimeError, match="transaction"):
        ledger.append(at=0.0, kind="run", subject="", actor="", reason="", data={})


@pytest.mark.parametrize(("kind", "data"), [("gossip", {}), ("run", {"value": float("nan")})])
def test_unknown_kinds_and_not_a_number_are_refused(
    ledger: Ledger, kind: str, data: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=r"gossip|JSON"), ledger.transaction():
        ledger.append(at=0.0, kind=kind, subject="", actor="", reason="", data=data)
    assert ledger.entries() == []


def test_an_exception_undoes_entry_and_change_together(ledger: Ledger) -> None:
    ledger.migrate("test", ["CREATE TABLE thing (name TEXT)"])

    def half_done() -> None:
        with ledger.transaction() as inside:
            inside.execute("INSERT INTO thing VALUES ('a')")
            note(ledger)
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        half_done()
    assert ledger.read("SELECT * FROM thing") == []
    assert ledger.head() == GENESIS


def test_an_inner_transaction_joins_and_fails_alone(ledger: Ledger) -> None:
    with ledger.transaction():
        kept = note(ledger)
        try:
            with ledger.transaction():
                note(ledger)
                raise KeyError("inner")
        except KeyError:
            pass
    assert ledger.entries() == [kept]
    assert ledger.verify().ok


def test_the_callers_own_file_errors_stay_his(ledger: Ledger) -> None:
    with pytest.raises(FileNotFoundError), ledger.transaction():
        raise FileNotFoundError("candidate.onnx")


def test_migrations_run_once_each_and_only_forward(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "decisions.db")
    first = "CREATE TABLE thing (name TEXT)"
    second = "ALTER TABLE thing ADD COLUMN size INTEGER"
    ledger.migrate("test", [first])
    ledger.migrate("test", [first, second])
    ledger.migrate("test", [first, second])
    assert ledger.read("SELECT name, size FROM thing") == []
    with pytest.raises(LedgerError, match="newer Remora") as caught:
        ledger.migrate("test", [first])
    assert caught.value.reason is LedgerReason.NEWER
    ledger.close()


def test_a_failed_migration_changes_nothing(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        ledger.migrate("test", ["CREATE TABLE thing (name TEXT)", "no SQL at all"])
    with pytest.raises(LedgerError, match="no such table"):
        ledger.read("SELECT * FROM thing")


def test_a_reader_sees_what_an_open_writer_wrote(ledger: Ledger) -> None:
    entry = note(ledger)
    reader = Ledger(ledger.path, read_only=True)
    assert reader.entries() == [entry]
    with pytest.raises(LedgerError) as caught:
        note(reader)
    assert caught.value.reason is LedgerReason.READ_ONLY
    reader.close()


def test_a_reader_needs_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger here"):
        Ledger(tmp_path / "decisions.db", read_only=True)
    with pytest.raises(LedgerError, match="directory does not exist"):
        Ledger(tmp_path / "none" / "decisions.db")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    path.write_bytes(b"this is no database, " * 500)
    with pytest.raises(LedgerError, match=r"decisions\.db: it is damaged") as caught:
        Ledger(path)
    assert caught.value.reason is LedgerReason.CORRUPT


def test_a_locked_file_is_named(ledger: Ledger) -> None:
    other = Ledger(ledger.path, busy_timeout_s=0.0)
    with ledger.transaction(), pytest.raises(LedgerError, match="second agent") as caught:
        note(other)
    assert caught.value.reason is LedgerReason.LOCKED
    assert note(other).id == 1
    other.close()


def test_a_full_disk_is_named_and_keeps_nothing(ledger: Ledger) -> None:
    kept = note(ledger)
    pages = ledger.read("PRAGMA page_count")[0][0]
    ledger.read(f"PRAGMA max_page_count = {pages}")  # as good as a full disk: SQLITE_FULL
    with pytest.raises(LedgerError, match="disk is full") as caught, ledger.transaction():
        ledger.append(
            at=0.0, kind="run", subject="", actor="", reason="", data={"long": "x" * 100_000}
        )
    assert caught.value.reason is LedgerReason.FULL
    assert ledger.entries() == [kept]
    ledger.read("PRAGMA max_page_count = 1000000")
    note(ledger)
    assert ledger.verify().ok


def test_two_writers_make_one_chain(ledger: Ledger) -> None:
    other = Ledger(ledger.path)
    for _ in range(3):
        note(ledger)
        note(other)
    assert ledger.verify().entries == 6
    assert ledger.verify().ok
    other.close()
