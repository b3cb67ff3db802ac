"""A rollout as a value: where it stands, what it rests on, and who may begin one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Self, TypeAlias

from retrain.rollout_messages import Slot


class State(StrEnum):
    """Where a candidate stands, from the moment its gates have passed."""

    STAGING = "staging"  # its slot is being started
    CANARY = "canary"  # it has a share of the traffic
    PROMOTING = "promoting"  # all traffic was asked for, not yet confirmed
    BAKING = "baking"  # it is stable, the old one is kept warm
    LIVE = "live"  # it is stable, the old one is gone
    HELD = "held"  # no traffic, a person is asked
    ROLLING_BACK = "rolling_back"  # the stable model gets its traffic back
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    FAILED = "failed"
    # Last, because metrics give states by their place.
    SHADOW = "shadow"  # it answers copies, which no client sees


Strategy: TypeAlias = Literal["canary", "immediate", "shadow"]
# The step of a rollout that has no share of the traffic yet.
SHADOW_STEP = -1
# A new rollout may begin beside one of these.
ENDED = frozenset({State.LIVE, State.ROLLED_BACK, State.ABORTED, State.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPolicy:
    """How far, how fast, how long. Seconds and requests of the candidate.

    shadow: the share of requests copied before the canary begins; 0 goes without. Strategy shadow
    copies and then waits for a person. disagreement_max: beyond it a person is asked as well.
    bake_requests: so many end the bake early; a bake that saw fewer than step_requests_min goes
    on to at most twice bake_s. staging_s_max covers every attempt to start the slot.
    """

    strategy: Strategy = "canary"
    shadow: float = 0.0
    shadow_requests_min: int = 500
    shadow_s_min: float = 300.0
    disagreement_max: float = 1.0
    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5)
    step_requests_min: int = 200
    promote_requests_min: int = 1_000
    step_s_min: float = 300.0
    total_s_min: float = 1_800.0
    duration_s_max: float = 86_400.0
    on_inconclusive: Literal["hold", "abort"] = "hold"
    bake_s: float = 86_400.0
    bake_requests: int = 50_000
    held_s_max: float = 7 * 86_400.0
    staging_s_max: float = 600.0
    promoting_s_max: float = 60.0
    rolling_back_s_max: float = 60.0
    redrive_s: float = 5.0
    load_attempts_max: int = 3

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not 0.0 <= self.shadow <= 1.0 or (self.strategy == "shadow" and self.shadow == 0.0):
            raise ValueError(f"nothing can be learnt from a shadow of {self.shadow:g}")
        if not self.steps or not rising or not self.steps[0] > 0 or not self.steps[-1] < 1:
            raise ValueError(f"steps must rise between 0 and 1, not {list(self.steps)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One candidate on its way. `weight` is what its slot gets, as far as we have asked for.

    generation: fencing number of the last route asked for; the data plane ignores lower ones.
    promoted: the candidate's slot is the stable one. warm: the old stable slot still runs.
    ending: where ROLLING_BACK leads. waiting: for a slot to be ready before traffic may move.
    """

    id: str
    candidate: str
    stable: str
    candidate_slot: Slot
    stable_slot: Slot
    policy: RolloutPolicy = field(default_factory=RolloutPolicy)
    state: State = State.STAGING
    reason: str = ""
    weight: float = 0.0
    step: int = 0
    generation: int = 0
    confirmed: int = -1
    begun: bool = False
    attempt: int = 0
    created_at: float = 0.0
    entered_at: float = 0.0
    step_at: float = 0.0
    canary_at: float = 0.0
    idle_s: float = 0.0
    assessed_at: float = 0.0
    driven_at: float = 0.0
    requests: int = 0
    bake_requests: int = 0
    paused: bool = False
    frozen: bool = False
    promoted: bool = False
    warm: bool = True
    waiting: bool = False
    ending: State = State.ABORTED
    boot: str = ""

    @property
    def stable_now(self) -> Slot:
        return self.candidate_slot if self.promoted else self.stable_slot

    def arm(self, slot: Slot) -> Literal["stable", "candidate"]:
        """Whose outcomes a slot's requests are, for the analysis: it follows the version."""
        return "candidate" if slot == self.candidate_slot else "stable"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what is no rollout."""
        fields = dict(value)
        policy = dict(fields["policy"])
        fields["policy"] = RolloutPolicy(**{**policy, "steps": tuple(policy["steps"])})
        fields["state"] = State(fields["state"])
        fields["ending"] = State(fields["ending"])
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What the registry knows about a candidate at the moment it asks for traffic.

    by_operator: a person started it, which overrides a cooldown and nothing else.
    """

    verified: bool
    quarantined: str | None = None
    cooldown_until: float = 0.0
    in_flight: str | None = None
    by_operator: bool = False


class Refused(Exception):
    """The candidate gets no rollout; the text says why, for the ledger and the operator."""


def begin(rollout: Rollout, admission: Admission, now: float) -> Rollout:
    """The rollout ready for its first event, or Refused."""
    digest = rollout.candidate
    if digest == rollout.stable:
        raise Refused(f"{digest} is the stable model already")
    if rollout.candidate_slot == rollout.stable_slot:
        raise Refused(f"slot {rollout.stable_slot} cannot hold both models")
    if not admission.verified:
        raise Refused(f"{digest} is not verified")
    if admission.quarantined is not None:
        raise Refused(f"{digest} is in quarantine: {admission.quarantined}")
    if admission.in_flight is not None:
        raise Refused(f"rollout {admission.in_flight} has not ended")
    left_s = admission.cooldown_until - now
    if left_s > 0 and not admission.by_operator:
        raise Refused(f"cooldown after a rollback: {left_s:.0f} s left")
    return replace(rollout, created_at=now, entered_at=now)
