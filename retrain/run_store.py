"""Runs on disk: a transition, its ledger entry and what must be sent are one transaction.

The unique index on open runs is what keeps a second run from starting beside the first, whatever
the policy or two agents on one file believe.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from retrain.decision import Action
from retrain.ledger import Kind, Ledger, canonical
from retrain.run import OPEN, Run, RunLimits, RunState, Via, advance, begin
from retrain.run_dialogue import (
    ArtifactSource,
    Begin,
    Command,
    Delivered,
    Event,
    PostWebhook,
    RevokeWebhook,
    Undeliverable,
)
from retrain.webhooks.bodies import Ask, EventType, run_finished
from retrain.webhooks.outbox import Outbox
from retrain.webhooks.targets.target import Message, Receipt, Target, Verdict

SCHEMA: Final = (
    """CREATE TABLE run (
        id TEXT PRIMARY KEY,
        decision_id TEXT NOT NULL UNIQUE,
        model TEXT NOT NULL,
        trigger_name TEXT NOT NULL,
        state TEXT NOT NULL,
        open INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        requested_at REAL NOT NULL,
        deadline_at REAL NOT NULL,
        record TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX run_one_in_flight ON run (model) WHERE open = 1",
)

REQUESTED_TYPES: Final = {
    Action.RETRAIN: EventType.RETRAIN_REQUESTED,
    Action.COMPRESS: EventType.COMPRESS_REQUESTED,
}


class RunInFlight(Exception):
    """Another run of this model is under way; the policy should have coalesced."""


class RunStore:
    """The table of runs. `targets` are all configured ones, by name."""

    def __init__(self, ledger: Ledger, outbox: Outbox, targets: Mapping[str, Target]) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._targets = targets
        if not ledger.read_only:
            ledger.migrate("run", SCHEMA)

    def request(
        self,
        ask: Ask,
        *,
        via: Via,
        target: str | None,
        fallback: bool,
        limits: RunLimits,
        now: float,
    ) -> tuple[Run, tuple[Command, ...]]:
        """Makes the run of a decision and begins it; for one that exists already, just tells it.

        Raises RunInFlight, and ValueError for a decision to hold or an unknown target. `now` is
        unix seconds.
        """
        if target is not None and target not in self._targets:
            raise ValueError(f"retrain.target: {target!r} is not among webhooks.targets")
        event_type = REQUESTED_TYPES.get(ask.decision.action)
        if event_type is None:
            raise ValueError("a decision to hold starts no run")
        with self._ledger.transaction() as inside:
            known = self.find(ask.run_id)
            if known is not None:
                return known, ()
            run = begin(
                ask,
                trigger=ask.decision.policy,
                via=via,
                target=target,
                fallback=fallback,
                limits=limits,
                now=now,
            )
            self._insert(inside, run)
            self._note(run, None, ask.decision.reason, ask.decision.actor, now)
            run, commands = self.apply(run.id, Begin(), now, actor=ask.decision.actor)
            for command in commands:
                if isinstance(command, PostWebhook):
                    self._post(ask, event_type, command, now)
        return run, tuple(one for one in commands if not isinstance(one, PostWebhook))

    def apply(
        self, run_id: str, event: Event, now: float, *, actor: str
    ) -> tuple[Run, tuple[Command, ...]]:
        """Tells the run of an event, and returns it with the commands left for a runner.

        An event that means nothing to it writes nothing. Raises KeyError for an unknown run.
        """
        with self._ledger.transaction() as inside:
            before = self.find(run_id)
            if before is None:
                raise KeyError(run_id)
            run, commands = advance(before, event, now)
            if run is before:
                return run, ()
            inside.execute(
                "UPDATE run SET state = ?, open = ?, seq = ?, deadline_at = ?, record = ?"
                " WHERE id = ?",
                (run.state, run.state in OPEN, run.seq, run.deadline_at, _written(run), run.id),
            )
            if run.state is not before.state:
                self._note(run, before, run.reason or type(event).__name__.lower(), actor, now)
            if any(isinstance(one, RevokeWebhook) for one in commands):
                self._outbox.cancel(run.id, now)
            if run.ended:
                self._publish_end(run, now)
        return run, tuple(one for one in commands if not isinstance(one, RevokeWebhook))

    def settled(self, message: Message, verdict: Verdict, receipt: Receipt, now: float) -> None:
        """What the delivery tells of a message, as the run's event; others' messages pass by."""
        if message.run_id is None or self.find(message.run_id) is None:
            return
        event: Event = Undeliverable(reason=receipt.detail)
        if verdict is Verdict.DELIVERED:
            event = Delivered(external_id=receipt.external_id, external_url=receipt.external_url)
        self.apply(message.run_id, event, now, actor="delivery")

    def find(self, run_id: str) -> Run | None:
        """The run, if there is one."""
        rows = self._ledger.read("SELECT record FROM run WHERE id = ?", (run_id,))
        return _read(rows[0]["record"]) if rows else None

    def in_flight(self) -> list[Run]:
        """Runs that have not ended: after a restart, `outstanding` tells what to do again."""
        rows = self._ledger.read("SELECT record FROM run WHERE open = 1 ORDER BY requested_at")
        return [_read(row["record"]) for row in rows]

    def due(self, now: float) -> list[str]:
        """The ids of runs whose deadline has passed, which a `Tick` moves on."""
        rows = self._ledger.read("SELECT id FROM run WHERE open = 1 AND deadline_at <= ?", (now,))
        return [row["id"] for row in rows]

    def recent(self, limit: int = 50) -> list[Run]:
        """The newest runs first."""
        rows = self._ledger.read(
            "SELECT record FROM run ORDER BY requested_at DESC, id LIMIT ?", (limit,)
        )
        return [_read(row["record"]) for row in rows]

    def totals(self) -> dict[tuple[str, str], int]:
        """(trigger, outcome) of all that ended, for remora_retrain_runs_total."""
        rows = self._ledger.read(
            "SELECT trigger_name, state, count(*) AS total FROM run WHERE open = 0"
            " GROUP BY trigger_name, state"
        )
        return {(row["trigger_name"], row["state"]): int(row["total"]) for row in rows}

    def _insert(self, inside: sqlite3.Connection, run: Run) -> None:
        try:
            inside.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?)",
                (
                    run.id,
                    run.decision_id,
                    run.model,
                    run.trigger,
                    run.state,
                    run.seq,
                    run.requested_at,
                    run.deadline_at,
                    _written(run),
                ),
            )
        except sqlite3.IntegrityError as error:
            raise RunInFlight(f"a run of {run.model} is under way") from error

    def _note(self, run: Run, before: Run | None, reason: str, actor: str, now: float) -> None:
        self._ledger.append(
            at=now,
            kind=Kind.RUN,
            subject=run.id,
            actor=actor,
            reason=reason,
            data={
                "from": None if before is None else before.state,
                "to": run.state,
                "decision_id": run.decision_id,
                "external_url": run.external_url,
                "sha256": run.sha256,
            },
        )

    def _post(self, ask: Ask, event_type: EventType, command: PostWebhook, now: float) -> None:
        data = ask.data(ledger_head=self._ledger.head())
        for name in self._subscribers(event_type, always=command.target):
            asked = name == command.target
            self._outbox.enqueue(
                key=command.run_id,
                target=name,
                event_type=event_type,
                at=now,
                data=data,
                run_id=command.run_id if asked else None,
                deadline_at=command.deadline_at if asked else None,
            )

    def _publish_end(self, run: Run, now: float) -> None:
        data = run_finished(
            run_id=run.id,
            model=run.model,
            outcome=run.state,
            reason=run.reason,
            artifact=run.sha256,
            external_url=run.external_url,
            ledger_head=self._ledger.head(),
        )
        for name in self._subscribers(EventType.RUN_FINISHED):
            self._outbox.enqueue(
                key=run.id, target=name, event_type=EventType.RUN_FINISHED, at=now, data=data
            )

    def _subscribers(self, event_type: str, *, always: str | None = None) -> Sequence[str]:
        return [
            name
            for name, target in self._targets.items()
            if name == always or event_type in target.events
        ]


def _written(run: Run) -> str:
    return canonical(asdict(run))


def _read(text: str) -> Run:
    value: dict[str, Any] = json.loads(text)
    value["state"] = RunState(value["state"])
    value["via"] = Via(value["via"])
    value["limits"] = RunLimits(**value["limits"])
    if value["source"] is not None:
        value["source"] = ArtifactSource(**value["source"])
    return Run(**value)
