"""The release of a candidate as a table: `(rollout, event, now) -> (rollout, commands)`, pure.

What is not in `TRANSITIONS` cannot happen: an event without a row that applies changes nothing.
Of several rows the first whose guard answers is taken. Somebody else performs the commands, after
both the rollout and what it recorded are on disk, and reports back with events.

Every state that has not ended has a row for `tick` that leads out of it by its deadline.
"""

from dataclasses import dataclass, replace

from retrain import rollout_effects as do
from retrain import rollout_guards as when
from retrain.rollout_messages import (
    DURABLE,
    LeaseLost,
    Measured,
    Operator,
    Restarted,
    RolloutCommand,
    RolloutEvent,
    SlotFailed,
    SlotReady,
    Started,
    Tick,
    WeightsConfirmed,
)
from retrain.rollout_state import ENDED, Admission, Refused, Rollout, RolloutPolicy, State, begin

__all__ = [
    "DURABLE",
    "ENDED",
    "TRANSITIONS",
    "Admission",
    "Refused",
    "Rollout",
    "RolloutPolicy",
    "State",
    "Transition",
    "advance",
    "begin",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One row: in `state`, told `event`, if `when` answers, go `to` and `do`."""

    state: State
    event: str
    when: when.When
    to: State
    do: do.Do


def _row(state: State, event: str, guard: when.When, to: State, effect: do.Do) -> Transition:
    return Transition(state=state, event=event, when=guard, to=to, do=effect)


_S = State
TRANSITIONS: tuple[Transition, ...] = (
    # Its slot is being started.
    _row(_S.STAGING, "started", when.not_begun, _S.STAGING, do.start),
    _row(_S.STAGING, "slot_ready", when.ready_for_shadow, _S.SHADOW, do.shadow),
    _row(_S.STAGING, "slot_ready", when.ready_for_canary, _S.CANARY, do.first_step),
    _row(_S.STAGING, "slot_ready", when.candidate_ready, _S.PROMOTING, do.all_traffic),
    _row(_S.STAGING, "slot_failed", when.load_may_be_retried, _S.STAGING, do.start_again),
    _row(_S.STAGING, "slot_failed", when.this_attempt_failed, _S.FAILED, do.load_failed),
    _row(_S.STAGING, "tick", when.staging_over, _S.FAILED, do.load_failed),
    _row(_S.STAGING, "operator_abort", when.operator, _S.ABORTED, do.stop_unused),
    _row(_S.STAGING, "operator_rollback", when.operator, _S.ABORTED, do.stop_unused),
    _row(_S.STAGING, "restarted", when.new_boot, _S.STAGING, do.restart),
    # It answers copies, which no client sees.
    _row(_S.SHADOW, "slot_failed", when.candidate_failed, _S.ROLLING_BACK, do.roll_back),
    _row(_S.SHADOW, "measured", when.is_worse, _S.ROLLING_BACK, do.roll_back),
    _row(_S.SHADOW, "measured", when.frozen_changed, _S.SHADOW, do.set_frozen),
    _row(_S.SHADOW, "measured", when.shadow_asks, _S.HELD, do.hold),
    _row(_S.SHADOW, "measured", when.shadow_over, _S.CANARY, do.first_step),
    _row(_S.SHADOW, "measured", when.was_idle, _S.SHADOW, do.stand_still),
    _row(_S.SHADOW, "measured", when.was_seen, _S.SHADOW, do.count),
    _row(_S.SHADOW, "tick", when.duration_over_hold, _S.HELD, do.hold),
    _row(_S.SHADOW, "tick", when.duration_over, _S.ROLLING_BACK, do.give_up),
    _row(_S.SHADOW, "tick", when.unconfirmed, _S.SHADOW, do.drive_again),
    _row(_S.SHADOW, "weights_confirmed", when.confirmed, _S.SHADOW, do.confirm),
    _row(_S.SHADOW, "lease_lost", when.lease_lost, _S.SHADOW, do.drive_again),
    _row(_S.SHADOW, "operator_pause", when.not_paused, _S.SHADOW, do.set_paused),
    _row(_S.SHADOW, "operator_resume", when.paused, _S.SHADOW, do.clear_paused),
    _row(_S.SHADOW, "operator_promote", when.operator_and_ready, _S.PROMOTING, do.all_traffic),
    _row(_S.SHADOW, "operator_abort", when.operator, _S.ROLLING_BACK, do.give_up),
    _row(_S.SHADOW, "operator_rollback", when.operator, _S.ROLLING_BACK, do.roll_back),
    _row(_S.SHADOW, "restarted", when.new_boot, _S.SHADOW, do.restart),
    _row(_S.SHADOW, "slot_ready", when.candidate_awaited, _S.SHADOW, do.drive_shadow),
    # It has a share of the traffic.
    _row(_S.CANARY, "slot_failed", when.candidate_failed, _S.ROLLING_BACK, do.roll_back),
    _row(_S.CANARY, "measured", when.is_worse, _S.ROLLING_BACK, do.roll_back),
    _row(_S.CANARY, "measured", when.frozen_changed, _S.CANARY, do.set_frozen),
    _row(_S.CANARY, "measured", when.may_promote, _S.PROMOTING, do.all_traffic),
    _row(_S.CANARY, "measured", when.may_step, _S.CANARY, do.next_step),
    _row(_S.CANARY, "measured", when.was_idle, _S.CANARY, do.stand_still),
    _row(_S.CANARY, "measured", when.was_seen, _S.CANARY, do.count),
    _row(_S.CANARY, "tick", when.duration_over_hold, _S.HELD, do.hold),
    _row(_S.CANARY, "tick", when.duration_over, _S.ROLLING_BACK, do.give_up),
    _row(_S.CANARY, "tick", when.unconfirmed, _S.CANARY, do.drive_again),
    _row(_S.CANARY, "weights_confirmed", when.confirmed, _S.CANARY, do.confirm),
    _row(_S.CANARY, "lease_lost", when.lease_lost, _S.CANARY, do.drive_again),
    _row(_S.CANARY, "operator_pause", when.not_paused, _S.CANARY, do.set_paused),
    _row(_S.CANARY, "operator_resume", when.paused, _S.CANARY, do.clear_paused),
    _row(_S.CANARY, "operator_promote", when.operator_and_ready, _S.PROMOTING, do.all_traffic),
    _row(_S.CANARY, "operator_abort", when.operator, _S.ROLLING_BACK, do.give_up),
    _row(_S.CANARY, "operator_rollback", when.operator, _S.ROLLING_BACK, do.roll_back),
    _row(_S.CANARY, "restarted", when.new_boot, _S.CANARY, do.restart),
    _row(_S.CANARY, "slot_ready", when.candidate_awaited, _S.CANARY, do.drive_step),
    # All traffic was asked for.
    _row(_S.PROMOTING, "weights_confirmed", when.confirmed, _S.BAKING, do.bake),
    _row(_S.PROMOTING, "slot_failed", when.candidate_failed, _S.ROLLING_BACK, do.roll_back),
    _row(_S.PROMOTING, "measured", when.is_worse, _S.ROLLING_BACK, do.roll_back),
    _row(_S.PROMOTING, "tick", when.promoting_over, _S.ROLLING_BACK, do.give_up),
    _row(_S.PROMOTING, "tick", when.unconfirmed, _S.PROMOTING, do.drive_again),
    _row(_S.PROMOTING, "lease_lost", when.lease_lost, _S.PROMOTING, do.drive_again),
    _row(_S.PROMOTING, "operator_abort", when.operator, _S.ROLLING_BACK, do.give_up),
    _row(_S.PROMOTING, "operator_rollback", when.operator, _S.ROLLING_BACK, do.roll_back),
    _row(_S.PROMOTING, "restarted", when.new_boot, _S.PROMOTING, do.restart),
    _row(_S.PROMOTING, "slot_ready", when.candidate_awaited, _S.PROMOTING, do.drive_all_traffic),
    # It is stable, the old one is kept warm.
    _row(_S.BAKING, "slot_failed", when.candidate_failed, _S.ROLLING_BACK, do.roll_back),
    _row(_S.BAKING, "slot_failed", when.old_slot_failed, _S.BAKING, do.old_slot_gone),
    _row(_S.BAKING, "slot_ready", when.candidate_awaited, _S.BAKING, do.drive_bake),
    _row(_S.BAKING, "slot_ready", when.old_slot_ready, _S.BAKING, do.old_slot_back),
    _row(_S.BAKING, "measured", when.is_worse, _S.ROLLING_BACK, do.roll_back),
    _row(_S.BAKING, "measured", when.bake_filled, _S.LIVE, do.go_live),
    _row(_S.BAKING, "measured", when.was_seen, _S.BAKING, do.count),
    _row(_S.BAKING, "tick", when.bake_over, _S.LIVE, do.go_live),
    _row(_S.BAKING, "tick", when.bake_stuck, _S.FAILED, do.stuck),
    _row(_S.BAKING, "tick", when.unconfirmed, _S.BAKING, do.drive_again),
    _row(_S.BAKING, "weights_confirmed", when.confirmed, _S.BAKING, do.confirm),
    _row(_S.BAKING, "operator_abort", when.operator, _S.ROLLING_BACK, do.give_up),
    _row(_S.BAKING, "operator_rollback", when.operator, _S.ROLLING_BACK, do.roll_back),
    _row(_S.BAKING, "restarted", when.new_boot, _S.BAKING, do.restart),
    # It is stable, the old one is gone. Only the newest rollout is asked to go back.
    _row(_S.LIVE, "operator_rollback", when.operator, _S.ROLLING_BACK, do.roll_back),
    # No traffic, a person is asked. Late labels may still speak against it.
    _row(_S.HELD, "operator_resume", when.operator_and_ready, _S.CANARY, do.resume_held),
    _row(_S.HELD, "operator_promote", when.operator_and_ready, _S.PROMOTING, do.all_traffic),
    _row(_S.HELD, "operator_abort", when.operator, _S.ROLLING_BACK, do.give_up),
    _row(_S.HELD, "operator_rollback", when.operator, _S.ROLLING_BACK, do.roll_back),
    _row(_S.HELD, "measured", when.is_worse, _S.ROLLING_BACK, do.roll_back),
    _row(_S.HELD, "slot_failed", when.candidate_failed, _S.ROLLING_BACK, do.roll_back),
    _row(_S.HELD, "slot_ready", when.candidate_awaited, _S.HELD, do.held_ready),
    _row(_S.HELD, "weights_confirmed", when.confirmed, _S.HELD, do.confirm),
    _row(_S.HELD, "tick", when.held_over, _S.ROLLING_BACK, do.give_up),
    _row(_S.HELD, "tick", when.unconfirmed, _S.HELD, do.drive_again),
    _row(_S.HELD, "restarted", when.new_boot, _S.HELD, do.restart),
    # The stable model gets its traffic back. Who was to blame is rolled back, others aborted.
    _row(_S.ROLLING_BACK, "weights_confirmed", when.confirmed_blamed, _S.ROLLED_BACK, do.withdrawn),
    _row(_S.ROLLING_BACK, "weights_confirmed", when.confirmed, _S.ABORTED, do.withdrawn),
    _row(_S.ROLLING_BACK, "tick", when.lapsed_blamed, _S.ROLLED_BACK, do.withdrawn),
    _row(_S.ROLLING_BACK, "tick", when.lapsed, _S.ABORTED, do.withdrawn),
    _row(_S.ROLLING_BACK, "tick", when.rollback_stuck, _S.FAILED, do.stuck),
    _row(_S.ROLLING_BACK, "tick", when.unconfirmed, _S.ROLLING_BACK, do.drive_again),
    _row(_S.ROLLING_BACK, "slot_ready", when.old_slot_awaited, _S.ROLLING_BACK, do.back_to_old),
    _row(
        _S.ROLLING_BACK,
        "slot_failed",
        when.old_slot_may_be_retried,
        _S.ROLLING_BACK,
        do.start_old_again,
    ),
    _row(
        _S.ROLLING_BACK,
        "slot_failed",
        when.old_slot_fell,
        _S.ROLLING_BACK,
        do.serve_with_candidate,
    ),
    _row(_S.ROLLING_BACK, "restarted", when.new_boot, _S.ROLLING_BACK, do.restart),
)

_NAMES: dict[type[RolloutEvent], str] = {
    Started: "started",
    SlotReady: "slot_ready",
    SlotFailed: "slot_failed",
    Measured: "measured",
    Tick: "tick",
    WeightsConfirmed: "weights_confirmed",
    LeaseLost: "lease_lost",
    Restarted: "restarted",
}


def advance(
    rollout: Rollout, event: RolloutEvent, now: float
) -> tuple[Rollout, tuple[RolloutCommand, ...]]:
    """The rollout after the event, and what is to be performed, in this order.

    Commands of `DURABLE` kinds are written in the transaction that stores the rollout, the others
    are performed after it; performing them again does no harm.
    After a restart tell every rollout that has not ended `Started` (which only one that never
    began heeds) and then `Restarted`.
    """
    name = f"operator_{event.action}" if isinstance(event, Operator) else _NAMES[type(event)]
    if isinstance(event, Measured) and event.assessment.at <= rollout.assessed_at:
        return rollout, ()  # heard before
    for row in TRANSITIONS:
        if row.state is not rollout.state or row.event != name:
            continue
        why = row.when(rollout, event, now)
        if why is None:
            continue
        moved, commands = row.do(rollout, event, now, why)
        if isinstance(event, Measured):
            moved = replace(moved, assessed_at=event.assessment.at)
        if row.to is rollout.state:
            return moved, commands
        return replace(moved, state=row.to, entered_at=now, reason=why), commands
    return rollout, ()
