"""What a rollout is told (events) and what it asks for (commands): values only.

Commands say what is desired, never "add": performing one twice is performing it once. Events name
what they answer (generation, attempt, boot), so that one delivered twice finds nothing to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from retrain.assessment import Assessment

Slot: TypeAlias = Literal["A", "B"]
OperatorAction: TypeAlias = Literal["promote", "abort", "rollback", "pause", "resume"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The rollout was admitted and begins."""

    actor: str = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReady:
    """The slot serves this digest, which was read back or verified before it was started."""

    slot: Slot
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFailed:
    """Never ready, crashed, or the wrong digest. `attempt` is that of the StartSlot it answers."""

    slot: Slot
    digest: str
    reason: str
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`pairs` answers of both models to one request were compared, `disagreeing` of them differ."""

    assessment: Assessment
    pairs: int = 0
    disagreeing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed: deadlines, and desired states that nobody confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsConfirmed:
    """The data plane was read back and has this generation."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost:
    """The data plane dropped the candidate's weight, because nobody renewed its lease."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """The agent came up and found this rollout on disk. `boot` is new for every start."""

    boot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A person decided; `actor` and `reason` go into the ledger."""

    action: OperatorAction
    actor: str
    reason: str


RolloutEvent: TypeAlias = (
    Started
    | SlotReady
    | SlotFailed
    | Measured
    | Tick
    | WeightsConfirmed
    | LeaseLost
    | Restarted
    | Operator
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSlot:
    """Have the slot serve this digest: adopt it when it does already, else verify and start it.

    Whoever performs this refuses a digest that is in quarantine by now.
    """

    slot: Slot
    digest: str
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSlot:
    slot: Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWeights:
    """The candidate's slot gets this share of the traffic, the stable slot the rest."""

    generation: int
    candidate_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeStable:
    """This slot gets all traffic and is the stable one from now on."""

    generation: int
    slot: Slot
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallReference:
    """Detect against the reference of this artifact; latched states are cleared."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReference:
    """Detect against the reference that this earlier stable model had."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    digest: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCooldown:
    """No new rollout for a while; longer with each consecutive one. Once per rollout."""

    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearCooldown:
    """A bake went well: the next failure counts as the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginStep:
    """The analysis is told the candidate's share; `anew` leaves behind what copies have shown."""

    step: int
    weight: float
    anew: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginBake:
    """The analysis holds the new stable model against the past of the old one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An entry for the ledger; `kind` is one of `ledger.Kind`."""

    kind: Literal["rollout", "promotion", "rollback"]
    reason: str
    data: Mapping[str, Any] = field(default_factory=dict)


NoticeType: TypeAlias = Literal[
    "remora.rollout.started",
    "remora.rollout.promoted",
    "remora.rollout.rolled_back",
    "remora.rollout.held",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """A webhook of this type goes into the outbox."""

    type: NoticeType
    reason: str


RolloutCommand: TypeAlias = (
    StartSlot
    | StopSlot
    | SetWeights
    | MakeStable
    | InstallReference
    | RestoreReference
    | Quarantine
    | StartCooldown
    | ClearCooldown
    | BeginStep
    | BeginBake
    | Record
    | Notify
)

# What lives in the same file as the rollout: written with it or not at all. A crash between the
# two would forget a quarantine, or detect against the reference of another model.
DURABLE = (
    Record,
    Notify,
    Quarantine,
    StartCooldown,
    ClearCooldown,
    InstallReference,
    RestoreReference,
)
