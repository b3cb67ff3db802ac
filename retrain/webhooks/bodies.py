"""The bodies of outgoing webhooks: `{"type", "timestamp", "data"}`, small enough for any receiver.

Golden files in tests/golden/webhooks hold every one of them: a key that moves there moves in
somebody's CI. Nothing secret is put in here, because bodies are stored and shown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from retrain.decision import Decision, Finding

# Standard Webhooks asks for less than 20 kB; twenty findings of 500 bytes leave room for the rest.
FINDINGS_MAX: Final = 20


class EventType(StrEnum):
    """Everything that is ever sent. Closed: configuration chooses among these."""

    DRIFT_DETECTED = "remora.drift.detected"
    DRIFT_RECOVERED = "remora.drift.recovered"
    RETRAIN_REQUESTED = "remora.retrain.requested"
    COMPRESS_REQUESTED = "remora.compress.requested"
    RUN_FINISHED = "remora.run.finished"
    ROLLOUT_STARTED = "remora.rollout.started"
    ROLLOUT_PROMOTED = "remora.rollout.promoted"
    ROLLOUT_ROLLED_BACK = "remora.rollout.rolled_back"
    ROLLOUT_HELD = "remora.rollout.held"


# Those that ask somebody to run something; a CI that is told of anything else would start for it.
REQUESTS: Final = frozenset({EventType.RETRAIN_REQUESTED, EventType.COMPRESS_REQUESTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a run asks of whoever trains: everything that is known when it is requested."""

    run_id: str
    model: str
    stable: str | None  # digest of the model in production, when it is known
    decision: Decision
    window: Mapping[str, Any]  # the rows to learn from: captures, ticks or times, and how many
    recipe: str | None
    callback_url: str | None  # None without admin.public_url
    deadline_at: float  # unix seconds

    def data(self, *, ledger_head: str) -> dict[str, Any]:
        """`data` of retrain.requested and compress.requested."""
        decision = self.decision.to_json()
        findings = decision.pop("findings")
        return {
            "run_id": self.run_id,
            "model": self.model,
            "stable": self.stable,
            "decision": decision | {"at": rfc3339(self.decision.at)},
            **listed(findings),
            "window": dict(self.window),
            "recipe": self.recipe,
            "callback_url": self.callback_url,
            "deadline": rfc3339(self.deadline_at),
            "ledger_head": ledger_head,
        }


def listed(findings: Sequence[Finding]) -> dict[str, Any]:
    """The strongest findings, and how many there are in all."""
    strongest = sorted(findings, key=lambda one: one.get("evidence") or 0.0, reverse=True)
    return {
        "findings": [dict(one) for one in strongest[:FINDINGS_MAX]],
        "findings_total": len(findings),
    }


def drift_changed(*, model: str, finding: Finding) -> dict[str, Any]:
    """`data` of drift.detected and drift.recovered: the state-change event, and whose it is."""
    return {"model": model, **finding}


def run_finished(
    *,
    run_id: str,
    model: str,
    outcome: str,
    reason: str,
    artifact: str | None,
    external_url: str | None,
    ledger_head: str,
) -> dict[str, Any]:
    """`data` of run.finished; `artifact` is the sha256 of what came of it."""
    return {
        "run_id": run_id,
        "model": model,
        "outcome": outcome,
        "reason": reason,
        "artifact": artifact,
        "external_url": external_url,
        "ledger_head": ledger_head,
    }


def rollout_changed(
    *,
    rollout_id: str,
    model: str,
    stable: str,
    candidate: str,
    reason: str,
    weight: float,
    ledger_head: str,
) -> dict[str, Any]:
    """`data` of the four rollout events; versions by digest, `weight` from 0 to 1."""
    return {
        "rollout_id": rollout_id,
        "model": model,
        "stable": stable,
        "candidate": candidate,
        "reason": reason,
        "weight": weight,
        "ledger_head": ledger_head,
    }


def encode(event_type: str, at: float, data: Mapping[str, Any]) -> bytes:
    """The bytes that are signed and sent; the same arguments give the same bytes, always."""
    body = {"type": event_type, "timestamp": rfc3339(at), "data": data}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def rfc3339(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond.

    >>> rfc3339(1700000000.25)
    '2023-11-14T22:13:20.250Z'
    """
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
