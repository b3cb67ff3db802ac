"""What the policy said, and why: an action, one sentence with both numbers, and the evidence.

A decision is a value. Its id follows from what was decided, not from when: deciding twice over the
same facts, as happens after a crash, gives one id and so starts one run.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from retrain.ledger import canonical

# The JSON object of one reading: a state-change event of docs/interface, as detectors write it.
Finding: TypeAlias = Mapping[str, Any]

ID_DIGITS: Final = 24  # 96 bits: two decisions of one agent never share an id


class Action(StrEnum):
    """What is to be done now."""

    RETRAIN = "retrain"
    COMPRESS = "compress"
    HOLD = "hold"


class Because(StrEnum):
    """Which rule had the last word. Closed: it is a metric label."""

    FIRED = "fired"
    OPERATOR = "operator"
    QUIET = "quiet"  # no rule asks for anything
    STANDING = "standing"  # a rule still asks for what was already acted upon
    IN_FLIGHT = "in_flight"
    BUSY = "busy"  # a rollout is under way
    COOLDOWN = "cooldown"
    BUDGET = "budget"  # runs per day are used up
    ROLE = "role"  # a sidecar measures, it does not decide
    DISABLED = "disabled"  # retrain.via is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """RETRAIN, COMPRESS or HOLD, with its arithmetic in words."""

    id: str
    at: float  # unix seconds
    action: Action
    because: Because
    policy: str  # the trigger's name; `operator` for a person; empty when none asked
    reason: str
    findings: tuple[Finding, ...] = field(default=())  # the readings it rests on
    actor: str = "policy"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for the ledger, the API and the webhook."""
        return {
            "id": self.id,
            "at": self.at,
            "action": self.action.value,
            "because": self.because.value,
            "policy": self.policy,
            "reason": self.reason,
            "findings": [dict(finding) for finding in self.findings],
            "actor": self.actor,
        }


def decision_id(
    *, sequence: int, action: Action, because: Because, policy: str, subjects: Iterable[str]
) -> str:
    """The id that follows from what was decided. `sequence` counts the runs started so far.

    >>> decision_id(
    ...     sequence=0, action=Action.HOLD, because=Because.QUIET, policy="", subjects=[]
    ... )
    'dec_...'
    """
    facts = [sequence, action.value, because.value, policy, sorted(subjects)]
    return "dec_" + hashlib.sha256(canonical(facts).encode()).hexdigest()[:ID_DIGITS]
