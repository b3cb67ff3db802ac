"""Messages on their way out, in the ledger's own file: queued with the change they tell of.

A message is delivered at least once, in order for each target, always with the same id. A claim is
a lease: who dies between claim and result holds a message up for the lease, and never loses it.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from retrain.ledger import Kind, Ledger, canonical
from retrain.webhooks.targets.target import Message, Outcome, Receipt, Verdict

LEASE_S: Final = 60.0
# Seconds before attempt 1, 2, ... of the Standard Webhooks specification; 75.6 hours in all.
SCHEDULE_S: Final = (
    0.0,
    5.0,
    300.0,
    1_800.0,
    7_200.0,
    18_000.0,
    36_000.0,
    50_400.0,
    72_000.0,
    86_400.0,
)
JITTER: Final = 0.2  # of the wait, either way: receivers that come back are not all called at once

SCHEMA: Final = (
    """CREATE TABLE outbox (
        id INTEGER PRIMARY KEY,
        webhook_id TEXT NOT NULL UNIQUE,
        target TEXT NOT NULL,
        type TEXT NOT NULL,
        at REAL NOT NULL,
        data TEXT NOT NULL,
        run_id TEXT,
        deadline_at REAL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at REAL NOT NULL,
        lease TEXT,
        lease_until REAL NOT NULL DEFAULT 0,
        outcome TEXT,
        detail TEXT NOT NULL DEFAULT '',
        settled_at REAL)""",
    "CREATE INDEX outbox_pending ON outbox (target, id) WHERE state = 'pending'",
    """CREATE TABLE outbox_disabled (
        target TEXT PRIMARY KEY,
        at REAL NOT NULL,
        detail TEXT NOT NULL)""",
)


class MessageState(StrEnum):
    """Where a message is; the label `state` of remora_webhook_outbox."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A message to be sent now. The right to settle it ends with the lease."""

    message: Message
    lease: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One row as `remora webhooks list` shows it."""

    id: int
    webhook_id: str
    target: str
    type: str
    at: float
    state: MessageState
    attempts: int
    due_at: float
    outcome: Outcome | None
    detail: str


class Outbox:
    """The table. Every method is one transaction, or part of the caller's open one."""

    def __init__(self, ledger: Ledger, *, lease_s: float = LEASE_S) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        if not ledger.read_only:
            ledger.migrate("outbox", SCHEMA)

    def enqueue(
        self,
        *,
        key: str,
        target: str,
        event_type: str,
        at: float,
        data: Mapping[str, Any],
        run_id: str | None = None,
        deadline_at: float | None = None,
    ) -> str:
        """Queues one event for one target, once: the same `key` again has no effect.

        `run_id` marks the target that is asked to perform the run; after `deadline_at` (unix
        seconds) the message is not sent any more. Returns the webhook id.
        """
        digest = hashlib.sha256(f"{key}\0{event_type}\0{target}".encode()).hexdigest()
        webhook_id = f"msg_{digest[:32]}"
        with self._ledger.transaction() as inside:
            disabled = inside.execute(
                "SELECT detail FROM outbox_disabled WHERE target = ?", (target,)
            ).fetchone()
            inside.execute(
                "INSERT OR IGNORE INTO outbox (webhook_id, target, type, at, data, run_id,"
                " deadline_at, state, due_at, outcome, detail)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    webhook_id,
                    target,
                    event_type,
                    at,
                    canonical(data),
                    run_id,
                    deadline_at,
                    MessageState.PENDING if disabled is None else MessageState.DEAD,
                    at + SCHEDULE_S[0],
                    None if disabled is None else Outcome.GONE,
                    "" if disabled is None else f"the target is disabled: {disabled['detail']}",
                ),
            )
        return webhook_id

    def claim(self, now: float, targets: Iterable[str]) -> list[Claim]:
        """The oldest pending message of each target, where it is due and nobody holds it.

        Later ones wait for it: a receiver sees events in the order in which they happened.
        """
        claims = []
        with self._ledger.transaction() as inside:
            for target in targets:
                row = inside.execute(
                    "SELECT * FROM outbox WHERE target = ? AND state = 'pending'"
                    " ORDER BY id LIMIT 1",
                    (target,),
                ).fetchone()
                if row is None or row["due_at"] > now or row["lease_until"] > now:
                    continue
                lease = secrets.token_hex(8)
                # Counted now: an attempt that kills the process is an attempt.
                inside.execute(
                    "UPDATE outbox SET attempts = attempts + 1, lease = ?, lease_until = ?"
                    " WHERE id = ?",
                    (lease, now + self._lease_s, row["id"]),
                )
                claims.append(
                    Claim(message=_message(row, attempts=row["attempts"] + 1), lease=lease)
                )
        return claims

    def settle(
        self, claim: Claim, receipt: Receipt, *, now: float, jitter: float
    ) -> Verdict | None:
        """Writes down what became of an attempt; `jitter` is from -1 to 1.

        Returns what it means for the message, which after the last attempt is DEAD; None when the
        lease was lost, and somebody else's result counts.
        """
        message = claim.message
        with self._ledger.transaction() as inside:
            held = inside.execute(
                "SELECT 1 FROM outbox WHERE webhook_id = ? AND lease = ? AND state = 'pending'",
                (message.webhook_id, claim.lease),
            ).fetchone()
            if held is None:
                return None
            if receipt.verdict is Verdict.DELIVERED:
                self._finish(inside, message, MessageState.DELIVERED, receipt, now)
                return Verdict.DELIVERED
            last = message.attempts >= len(SCHEDULE_S)
            if receipt.verdict is Verdict.RETRY and not last:
                wait_s = SCHEDULE_S[message.attempts] * (1 + JITTER * jitter)
                due_at = now + max(wait_s, receipt.retry_after_s or 0.0)
                inside.execute(
                    "UPDATE outbox SET due_at = ?, lease = NULL, lease_until = 0, outcome = ?,"
                    " detail = ? WHERE webhook_id = ?",
                    (due_at, receipt.outcome, receipt.detail, message.webhook_id),
                )
                return Verdict.RETRY
            self._bury(inside, message, receipt, now)
            if receipt.verdict is Verdict.DISABLE:
                self._disable(inside, message.target, receipt, now)
            return Verdict.DEAD

    def expire(self, now: float) -> list[Message]:
        """Buries what passed its deadline undelivered, and returns it.

        What is just being sent is left to its sender.
        """
        with self._ledger.transaction() as inside:
            rows = inside.execute(
                "SELECT * FROM outbox WHERE state = 'pending' AND deadline_at <= ?"
                " AND lease_until <= ? ORDER BY id",
                (now, now),
            ).fetchall()
            receipt = Receipt(
                verdict=Verdict.DEAD, outcome=Outcome.EXPIRED, detail="its deadline passed"
            )
            messages = [_message(row, attempts=row["attempts"]) for row in rows]
            for message in messages:
                self._bury(inside, message, receipt, now)
        return messages

    def cancel(self, run_id: str, now: float) -> None:
        """Nothing more is sent that asks somebody to perform this run."""
        with self._ledger.transaction() as inside:
            inside.execute(
                "UPDATE outbox SET state = ?, outcome = ?, settled_at = ?"
                " WHERE run_id = ? AND state = 'pending'",
                (MessageState.CANCELLED, Outcome.CANCELLED, now, run_id),
            )

    def redrive(self, webhook_id: str, *, now: float, actor: str) -> bool:
        """Sends a dead message again, from its first attempt; its target is enabled again.

        False when there is no such dead message. A deadline that passed is lifted: who redrives
        wants it sent.
        """
        with self._ledger.transaction() as inside:
            row = inside.execute(
                "SELECT * FROM outbox WHERE webhook_id = ? AND state = 'dead'", (webhook_id,)
            ).fetchone()
            if row is None:
                return False
            inside.execute(
                "UPDATE outbox SET state = 'pending', attempts = 0, due_at = ?, deadline_at = NULL,"
                " lease = NULL, lease_until = 0, settled_at = NULL WHERE id = ?",
                (now, row["id"]),
            )
            inside.execute("DELETE FROM outbox_disabled WHERE target = ?", (row["target"],))
            message = _message(row, attempts=0)
            self._note(message, f"{row['type']} for {row['target']} sent again", now, actor=actor)
        return True

    def next_due(self, targets: Iterable[str]) -> float | None:
        """When the delivery has something to do next (unix seconds), None when it has nothing."""
        wanted = set(targets)
        rows = self._ledger.read(
            "SELECT target, min(id), max(due_at, lease_until) AS ready FROM outbox"
            " WHERE state = 'pending' GROUP BY target"
        )
        deadlines = self._ledger.read(
            "SELECT min(max(deadline_at, lease_until)) AS ready FROM outbox"
            " WHERE state = 'pending' AND deadline_at IS NOT NULL"
        )
        times = [row["ready"] for row in rows if row["target"] in wanted]
        times += [row["ready"] for row in deadlines if row["ready"] is not None]
        return min(times, default=None)

    def counts(self) -> dict[MessageState, int]:
        """How many messages are in each state, for remora_webhook_outbox."""
        rows = self._ledger.read("SELECT state, count(*) AS total FROM outbox GROUP BY state")
        found = {MessageState(row["state"]): int(row["total"]) for row in rows}
        return {state: found.get(state, 0) for state in MessageState}

    def listed(self, *, state: MessageState | None = None, limit: int = 100) -> list[Listed]:
        """The newest messages first."""
        rows = self._ledger.read(
            "SELECT * FROM outbox WHERE state = ? OR ? IS NULL ORDER BY id DESC LIMIT ?",
            (state, state, limit),
        )
        return [
            Listed(
                id=row["id"],
                webhook_id=row["webhook_id"],
                target=row["target"],
                type=row["type"],
                at=row["at"],
                state=MessageState(row["state"]),
                attempts=row["attempts"],
                due_at=row["due_at"],
                outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
                detail=row["detail"],
            )
            for row in rows
        ]

    def prune(self, before: float) -> int:
        """Forgets what was settled before this time (unix seconds), dead ones excepted."""
        with self._ledger.transaction() as inside:
            return inside.execute(
                "DELETE FROM outbox WHERE state IN ('delivered', 'cancelled') AND settled_at < ?",
                (before,),
            ).rowcount

    def _finish(
        self,
        inside: sqlite3.Connection,
        message: Message,
        state: MessageState,
        receipt: Receipt,
        now: float,
    ) -> None:
        inside.execute(
            "UPDATE outbox SET state = ?, outcome = ?, detail = ?, settled_at = ?, lease = NULL,"
            " lease_until = 0 WHERE webhook_id = ?",
            (state, receipt.outcome, receipt.detail, now, message.webhook_id),
        )

    def _bury(
        self, inside: sqlite3.Connection, message: Message, receipt: Receipt, now: float
    ) -> None:
        self._finish(inside, message, MessageState.DEAD, receipt, now)
        text = f"{message.type} for {message.target} given up after {message.attempts} attempts"
        self._note(message, f"{text}: {receipt.detail}", now)

    def _disable(
        self, inside: sqlite3.Connection, target: str, receipt: Receipt, now: float
    ) -> None:
        inside.execute(
            "INSERT OR REPLACE INTO outbox_disabled VALUES (?, ?, ?)", (target, now, receipt.detail)
        )
        inside.execute(
            "UPDATE outbox SET state = 'dead', outcome = ?, detail = ?, settled_at = ?"
            " WHERE target = ? AND state = 'pending'",
            (receipt.outcome, f"the target is disabled: {receipt.detail}", now, target),
        )

    def _note(self, message: Message, reason: str, now: float, *, actor: str = "delivery") -> None:
        self._ledger.append(
            at=now,
            kind=Kind.WEBHOOK,
            subject=message.run_id or message.webhook_id,
            actor=actor,
            reason=reason,
            data={"webhook_id": message.webhook_id, "target": message.target},
        )


def _message(row: sqlite3.Row, *, attempts: int) -> Message:
    return Message(
        webhook_id=row["webhook_id"],
        target=row["target"],
        type=row["type"],
        at=row["at"],
        data=json.loads(row["data"]),
        run_id=row["run_id"],
        attempts=attempts,
    )
