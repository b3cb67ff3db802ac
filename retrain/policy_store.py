"""What the policy remembers, on disk, and its decisions in the ledger: once each.

Call `keep` in the transaction that also requests the run, or a crash between them loses or doubles
it. A HOLD is written when it is another HOLD than the last one, not every tick.
"""

import json
from typing import Final

from retrain.decision import Decision
from retrain.ledger import Kind, Ledger, canonical
from retrain.policy import PolicyState

SCHEMA: Final = (
    """CREATE TABLE policy (
        model TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        last_decision TEXT NOT NULL)""",
)


class PolicyStore:
    """The policy's memory of one model."""

    def __init__(self, ledger: Ledger, model: str) -> None:
        self._ledger = ledger
        self._model = model
        if not ledger.read_only:
            ledger.migrate("policy", SCHEMA)

    def load(self) -> PolicyState:
        """The state as of the last `keep`; a new one at first."""
        rows = self._ledger.read("SELECT state FROM policy WHERE model = ?", (self._model,))
        return PolicyState.from_json(json.loads(rows[0]["state"])) if rows else PolicyState()

    def keep(self, state: PolicyState, decision: Decision | None = None) -> bool:
        """Stores the state, and the decision if it is news. Says whether it was."""
        with self._ledger.transaction() as inside:
            row = inside.execute(
                "SELECT state, last_decision FROM policy WHERE model = ?", (self._model,)
            ).fetchone()
            last = "" if row is None else row["last_decision"]
            news = decision is not None and decision.id != last
            text = canonical(state.to_json())
            if row is not None and not news and row["state"] == text:
                return False  # most ticks: no write, no sync
            if decision is not None and news:
                self._ledger.append(
                    at=decision.at,
                    kind=Kind.DECISION,
                    subject=decision.id,
                    actor=decision.actor,
                    reason=f"{decision.action}: {decision.reason}",
                    data=decision.to_json() | {"model": self._model},
                )
                last = decision.id
            inside.execute(
                "INSERT INTO policy VALUES (?, ?, ?) ON CONFLICT (model) DO UPDATE"
                " SET state = excluded.state, last_decision = excluded.last_decision",
                (self._model, text, last),
            )
        return news
