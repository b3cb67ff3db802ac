"""Which versions there are, which slot serves which, what is in quarantine.

Tables beside the ledger: every change is one of its transactions, together with its entry. What a
rollout decided (`store`) is written whole: its new state, its records, quarantine, cooldown and
reference, or nothing of it. The registry performs nothing and starts nothing.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from retrain.ledger import Ledger
from retrain.rollout import ENDED, Admission, Rollout
from retrain.rollout_messages import (
    ClearCooldown,
    InstallReference,
    Notify,
    Quarantine,
    Record,
    RestoreReference,
    RolloutCommand,
    Slot,
    StartCooldown,
)

COOLDOWN_MAX_S = 7 * 86_400.0
KEPT_VERSIONS = 3
_SLOTS: tuple[Slot, Slot] = ("A", "B")
Origin: TypeAlias = Literal["external", "run", "compression", "import"]

_SCHEMA = (
    """CREATE TABLE version (
        digest TEXT PRIMARY KEY, label TEXT NOT NULL, parent TEXT, directory TEXT,
        origin TEXT NOT NULL, at REAL NOT NULL)""",
    """CREATE TABLE slot (
        name TEXT PRIMARY KEY CHECK (name IN ('A', 'B')), digest TEXT, address TEXT,
        pid INTEGER, started TEXT, stable INTEGER NOT NULL DEFAULT 0)""",
    # Two stable slots cannot be written down.
    "CREATE UNIQUE INDEX one_stable_slot ON slot (stable) WHERE stable = 1",
    "INSERT INTO slot (name) VALUES ('A'), ('B')",
    """CREATE TABLE quarantine (
        digest TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL, released_at REAL)""",
    """CREATE TABLE rollout (
        id TEXT PRIMARY KEY, at REAL NOT NULL, ended INTEGER NOT NULL, data TEXT NOT NULL,
        analysis TEXT)""",
    "CREATE UNIQUE INDEX one_rollout ON rollout (ended) WHERE ended = 0",
    """CREATE TABLE release (
        id INTEGER PRIMARY KEY CHECK (id = 1), reference TEXT, cooldowns INTEGER NOT NULL,
        cooldown_until REAL NOT NULL, cooldown_rollout TEXT, generation INTEGER NOT NULL,
        upstream TEXT)""",
    "INSERT INTO release VALUES (1, NULL, 0, 0, NULL, 0, NULL)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A model by its digest; `directory` is None where nobody gave us its artifact."""

    digest: str
    label: str
    origin: Origin
    parent: str | None = None
    directory: str | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecord:
    """What serves in a slot. `started` identifies the process together with its pid."""

    name: Slot
    digest: str | None = None
    address: str | None = None
    pid: int | None = None
    started: str | None = None
    stable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    digest: str
    reason: str
    at: float


def external(upstream: str) -> str:
    """The name of a model that we know by its address only."""
    return f"external:{upstream}"


class Registry:
    """Versions, slots, quarantine, cooldown and rollouts of one model."""

    def __init__(self, ledger: Ledger, *, cooldown_s: float = 21_600.0) -> None:
        self._ledger = ledger
        self.cooldown_s = cooldown_s
        ledger.migrate("registry", _SCHEMA)

    # Versions and slots.

    def add_version(self, version: Version) -> None:
        """Note a version; the same digest again changes nothing."""
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO version (digest, label, parent, directory, origin, at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    version.digest,
                    version.label,
                    version.parent,
                    version.directory,
                    version.origin,
                    version.at,
                ),
            )

    def versions(self) -> list[Version]:
        """Newest first."""
        rows = self._ledger.read("SELECT * FROM version ORDER BY at DESC, rowid DESC")
        return [Version(**dict(row)) for row in rows]

    def version(self, digest_or_label: str) -> Version | None:
        """By digest, or the newest of that label."""
        found = (v for v in self.versions() if digest_or_label in (v.digest, v.label))
        return next(found, None)

    def slot(self, name: Slot) -> SlotRecord:
        rows = self._ledger.read("SELECT * FROM slot WHERE name = ?", (name,))
        return _slot(rows[0])

    def stable(self) -> SlotRecord | None:
        """The slot that serves everybody; None before the first start."""
        rows = self._ledger.read("SELECT * FROM slot WHERE stable = 1")
        return _slot(rows[0]) if rows else None

    def set_slot(self, record: SlotRecord) -> None:
        """What runs there now; whether it is stable is not changed by this."""
        with self._ledger.transaction() as db:
            db.execute(
                "UPDATE slot SET digest = ?, address = ?, pid = ?, started = ? WHERE name = ?",
                (record.digest, record.address, record.pid, record.started, record.name),
            )

    def make_stable(self, name: Slot, *, at: float, actor: str, reason: str) -> None:
        """One slot is stable, and the ledger says since when and why. Again: no effect."""
        with self._ledger.transaction() as db:
            before = db.execute("SELECT name FROM slot WHERE stable = 1").fetchone()
            if before is not None and before["name"] == name:
                return
            db.execute("UPDATE slot SET stable = 0")
            db.execute("UPDATE slot SET stable = 1 WHERE name = ?", (name,))
            record = self.slot(name)
            self._ledger.append(
                at=at,
                kind="promotion",
                subject=record.digest or name,
                actor=actor,
                reason=reason,
                data={"slot": name, "address": record.address},
            )

    def unused_slots(self) -> list[SlotRecord]:
        """Slots that hold a model though they are neither stable nor part of a rollout.

        A crash between the end of a rollout and the stop of its slot leaves one behind.
        """
        if self.in_flight() is not None:
            return []
        slots = (self.slot(name) for name in _SLOTS)
        return [record for record in slots if record.digest and not record.stable]

    # The upstream that the configuration names.

    def reconcile_upstream(
        self, upstream: str, *, label: str, digest: str | None, at: float, routed: bool = True
    ) -> str | None:
        """Register what the configuration calls the stable model; what differs, in words.

        At the first start it becomes stable. Later the stable slot of the ledger stands. Another
        upstream than last time is a new version: stable if the one it replaces was. Where nobody
        routes (any more), no promoted model can be what answers: the configured one is stable.
        """
        known = digest or external(upstream)
        with self._ledger.transaction() as db:
            before, stable = self._release()["upstream"], self.stable()
            db.execute("UPDATE release SET upstream = ?", (upstream,))
            if before != upstream:
                self.add_version(Version(digest=known, label=label, origin="external", at=at))
            if stable is None:
                self.set_slot(SlotRecord(name="A", digest=known, address=upstream))
                reason = f"first start: {upstream} is stable"
                self.make_stable("A", at=at, actor="configuration", reason=reason)
                self._set_reference(known, at=at, reason=reason)
                return None
            promoted = stable.address not in (before, upstream)
            if not routed and promoted and self.in_flight() is None:
                return self._unrouted(stable, upstream, known, at=at)
            if before != upstream:
                return self._changed_upstream(stable, before, upstream, known, at=at)
        if stable.address == upstream:
            return None
        return (
            f"the configuration names {upstream}, but slot {stable.name} ({stable.digest} at "
            f"{stable.address}) was promoted and stays stable"
        )

    def _unrouted(self, stable: SlotRecord, upstream: str, digest: str, *, at: float) -> str:
        other: Slot = "B" if stable.name == "A" else "A"
        reason = f"nothing is relayed any more: {digest} is stable, not {stable.digest}"
        self.set_slot(SlotRecord(name=other, digest=digest, address=upstream))
        self.make_stable(other, at=at, actor="configuration", reason=reason)
        self._set_reference(digest, at=at, reason=reason)
        return reason

    def _changed_upstream(
        self, stable: SlotRecord, before: str, upstream: str, digest: str, *, at: float
    ) -> str:
        role = "not stable: the promoted version stays"
        for name in _SLOTS:
            record = self.slot(name)
            if record.address == before and record.pid is None:
                self.set_slot(SlotRecord(name=name, digest=digest, address=upstream))
        if stable.address == before:
            role = "stable"
            self._set_reference(digest, at=at, reason=f"the upstream is now {upstream}")
        reason = f"upstream changed from {before} to {upstream}: a new version, {role}"
        self._ledger.append(
            at=at,
            kind="operator",
            subject=digest,
            actor="configuration",
            reason=reason,
            data={"before": before, "upstream": upstream},
        )
        return reason

    # Quarantine and cooldown.

    def quarantined(self) -> list[Quarantined]:
        rows = self._ledger.read(
            "SELECT digest, reason, at FROM quarantine WHERE released_at IS NULL ORDER BY at"
        )
        return [Quarantined(**dict(row)) for row in rows]

    def release(self, digest: str, *, at: float, actor: str, reason: str) -> bool:
        """Let a digest be tried again. False: it was not in quarantine."""
        with self._ledger.transaction() as db:
            changed = db.execute(
                "UPDATE quarantine SET released_at = ? WHERE digest = ? AND released_at IS NULL",
                (at, digest),
            ).rowcount
            if changed:
                self._ledger.append(
                    at=at, kind="quarantine", subject=digest, actor=actor, reason=reason, data={}
                )
            return bool(changed)

    def admission(self, digest: str, *, verified: bool, by_operator: bool) -> Admission:
        """What `rollout.begin` needs to know. `verified`: the artifact's files match the digest."""
        found = [entry.reason for entry in self.quarantined() if entry.digest == digest]
        flying = self.in_flight()
        return Admission(
            verified=verified,
            quarantined=found[0] if found else None,
            cooldown_until=float(self._release()["cooldown_until"]),
            in_flight=flying.id if flying else None,
            by_operator=by_operator,
        )

    # Rollouts.

    def store(
        self,
        rollout: Rollout,
        commands: Sequence[RolloutCommand],
        *,
        at: float,
        actor: str,
        notify: Callable[[sqlite3.Connection, Rollout, Notify], None] | None = None,
    ) -> None:
        """Write a rollout and what its last event recorded, all in one transaction.

        `notify` puts a webhook into the outbox of the same file. sqlite3.IntegrityError: another
        rollout has not ended.
        """
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT INTO rollout (id, at, ended, data) VALUES (?, ?, ?, ?) ON CONFLICT (id)"
                " DO UPDATE SET ended = excluded.ended, data = excluded.data",
                (rollout.id, at, rollout.state in ENDED, json.dumps(rollout.as_json())),
            )
            db.execute("UPDATE release SET generation = max(generation, ?)", (rollout.generation,))
            for command in commands:
                if isinstance(command, Notify) and notify is not None:
                    notify(db, rollout, command)
                self._write(db, rollout, command, at=at, actor=actor)

    def _write(
        self,
        db: sqlite3.Connection,
        rollout: Rollout,
        command: RolloutCommand,
        *,
        at: float,
        actor: str,
    ) -> None:
        match command:
            case Record(kind=kind, reason=reason, data=data):
                self._ledger.append(
                    at=at, kind=kind, subject=rollout.id, actor=actor, reason=reason, data=data
                )
            case Quarantine(digest=digest, reason=reason):
                db.execute(
                    "INSERT INTO quarantine (digest, reason, at) VALUES (?, ?, ?) ON CONFLICT"
                    " (digest) DO UPDATE SET reason = excluded.reason, released_at = NULL",
                    (digest, reason, at),
                )
                self._ledger.append(
                    at=at, kind="quarantine", subject=digest, actor=actor, reason=reason, data={}
                )
            case StartCooldown(rollout=name):
                self._start_cooldown(db, name, at)
            case ClearCooldown():
                db.execute("UPDATE release SET cooldowns = 0, cooldown_until = 0")
            case InstallReference(digest=digest):
                self._set_reference(digest, at=at, reason=f"promoted by rollout {rollout.id}")
            case RestoreReference(digest=digest):
                self._set_reference(digest, at=at, reason=f"restored by rollout {rollout.id}")
            case _:
                pass

    def _start_cooldown(self, db: sqlite3.Connection, rollout: str, at: float) -> None:
        row = self._release()
        if row["cooldown_rollout"] == rollout:
            return  # counted already
        cooldown_s = min(COOLDOWN_MAX_S, self.cooldown_s * 2.0 ** min(row["cooldowns"], 64))
        db.execute(
            "UPDATE release SET cooldowns = cooldowns + 1, cooldown_until = ?,"
            " cooldown_rollout = ?",
            (at + cooldown_s, rollout),
        )

    def _set_reference(self, digest: str, *, at: float, reason: str) -> None:
        if self.reference() == digest:
            return
        with self._ledger.transaction() as db:
            db.execute("UPDATE release SET reference = ?", (digest,))
            self._ledger.append(
                at=at, kind="reference", subject=digest, actor="rollout", reason=reason, data={}
            )

    def reference(self) -> str | None:
        """The digest whose reference is in force."""
        found = self._release()["reference"]
        return None if found is None else str(found)

    def generation(self) -> int:
        """The highest route ever asked for: a new rollout counts on from here."""
        return int(self._release()["generation"])

    def in_flight(self) -> Rollout | None:
        rows = self._ledger.read("SELECT data FROM rollout WHERE ended = 0")
        return Rollout.from_json(json.loads(rows[0]["data"])) if rows else None

    def rollouts(self, limit: int = 20) -> list[Rollout]:
        """Newest first. Only the first may be asked to roll back after it went live."""
        rows = self._ledger.read(
            "SELECT data FROM rollout ORDER BY at DESC, rowid DESC LIMIT ?", (limit,)
        )
        return [Rollout.from_json(json.loads(row["data"])) for row in rows]

    def save_analysis(self, rollout: str, state: dict[str, Any]) -> None:
        with self._ledger.transaction() as db:
            db.execute("UPDATE rollout SET analysis = ? WHERE id = ?", (json.dumps(state), rollout))

    def analysis(self, rollout: str) -> dict[str, Any] | None:
        rows = self._ledger.read("SELECT analysis FROM rollout WHERE id = ?", (rollout,))
        if not rows or rows[0]["analysis"] is None:
            return None
        found: dict[str, Any] = json.loads(rows[0]["analysis"])
        return found

    def kept(self) -> set[str]:
        """Digests whose artifacts must stay: in a slot, needed to go back, or recent."""
        used = {record.digest for record in map(self.slot, _SLOTS) if record.digest}
        for rollout in self.rollouts(1):
            used |= {rollout.candidate, rollout.stable}
        recent = [version.digest for version in self.versions() if version.directory]
        return used | set(recent[:KEPT_VERSIONS])

    def _release(self) -> sqlite3.Row:
        return self._ledger.read("SELECT * FROM release")[0]


def _slot(row: sqlite3.Row) -> SlotRecord:
    return SlotRecord(**{**dict(row), "stable": bool(row["stable"])})
