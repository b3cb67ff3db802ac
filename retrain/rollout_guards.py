"""When a transition of a rollout may be taken: each guard answers with its arithmetic, or None.

Pure questions about a rollout, an event and the time. What a guard says becomes the reason in the
ledger, so it carries both numbers.
"""

from collections.abc import Callable
from typing import TypeAlias

from retrain.gates import Verdict
from retrain.rollout_messages import (
    LeaseLost,
    Measured,
    Operator,
    Restarted,
    RolloutEvent,
    SlotFailed,
    SlotReady,
    Started,
    WeightsConfirmed,
)
from retrain.rollout_state import Rollout, State

Why: TypeAlias = str | None
When: TypeAlias = Callable[[Rollout, RolloutEvent, float], Why]


def not_begun(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return f"started by {event.actor}" if isinstance(event, Started) and not rollout.begun else None


def new_boot(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if isinstance(event, Restarted) and rollout.begun and event.boot != rollout.boot:
        return f"the agent restarted: {rollout.state.value} is driven again"
    return None


def candidate_ready(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, SlotReady) or event.slot != rollout.candidate_slot:
        return None
    if event.digest != rollout.candidate or not rollout.begun:
        return None
    return f"slot {event.slot} is ready after {now - rollout.entered_at:.1f} s"


def ready_for_shadow(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    immediate = rollout.policy.strategy == "immediate"
    return None if immediate or not rollout.policy.shadow else candidate_ready(rollout, event, now)


def ready_for_canary(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return candidate_ready(rollout, event, now) if rollout.policy.strategy == "canary" else None


def candidate_awaited(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return candidate_ready(rollout, event, now) if rollout.waiting else None


def old_slot_ready(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, SlotReady) or event.slot != rollout.stable_slot:
        return None
    if event.digest != rollout.stable or rollout.warm:
        return None
    return f"slot {event.slot} serves the earlier model again"


def old_slot_awaited(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return old_slot_ready(rollout, event, now) if rollout.waiting else None


def candidate_failed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, SlotFailed) or event.slot != rollout.candidate_slot:
        return None
    return (
        f"slot {event.slot} failed: {event.reason}" if event.digest == rollout.candidate else None
    )


def load_may_be_retried(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    why = this_attempt_failed(rollout, event, now)
    left = rollout.policy.load_attempts_max - rollout.attempt - 1
    return f"{why}; {left} attempts left" if why and left > 0 else None


def this_attempt_failed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, SlotFailed) or event.attempt != rollout.attempt:
        return None
    why = candidate_failed(rollout, event, now)
    most = rollout.policy.load_attempts_max
    return f"{why}; attempt {event.attempt + 1} of {most}" if why else None


def old_slot_failed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, SlotFailed) or event.slot != rollout.stable_slot or not rollout.warm:
        return None
    return f"slot {event.slot} with the earlier model failed: {event.reason}"


def old_slot_may_be_retried(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, SlotFailed) or event.slot != rollout.stable_slot:
        return None
    tries, most = event.attempt + 1, rollout.policy.load_attempts_max
    if not rollout.waiting or event.attempt != rollout.attempt or tries >= most:
        return None
    return f"the earlier model did not start: {event.reason}; attempt {tries} of {most}"


def old_slot_fell(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    """It was ready, and was given the traffic, and is gone again."""
    return old_slot_failed(rollout, event, now) if rollout.promoted else None


def is_worse(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    """Evidence or a hard stop; a sick stable model is nothing to roll back onto."""
    if not isinstance(event, Measured):
        return None
    assessment = event.assessment
    if assessment.hard_stop is None and assessment.frozen:
        return None
    return assessment.words if assessment.verdict is Verdict.FAILED else None


def frozen_changed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, Measured) or event.assessment.frozen == rollout.frozen:
        return None
    return event.assessment.words if event.assessment.frozen else "the stable model is well again"


def was_idle(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    """No traffic at all: the canary's clock stands still, for no longer than it may run."""
    if not isinstance(event, Measured) or not event.assessment.idle:
        return None
    return "no traffic" if rollout.idle_s < rollout.policy.duration_s_max else None


def was_seen(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return "measured" if isinstance(event, Measured) else None


def may_step(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    policy = rollout.policy
    if rollout.step + 1 >= len(policy.steps) or not _moving(rollout, event):
        return None
    assert isinstance(event, Measured)
    seen, elapsed_s = event.assessment.step_requests, now - rollout.step_at
    if not event.assessment.interim and event.assessment.verdict is not Verdict.SUCCESSFUL:
        return None
    if seen < policy.step_requests_min or elapsed_s < policy.step_s_min:
        return None
    return (
        f"{seen:,} requests >= {policy.step_requests_min:,}, {elapsed_s:.0f} s >= "
        f"{policy.step_s_min:.0f} s, interim estimates inside their margins; "
        f"{event.assessment.words}"
    )


def _shadowed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    """Enough copies were answered, and as well as the stable model answers."""
    policy = rollout.policy
    if not _moving(rollout, event):
        return None
    assert isinstance(event, Measured)
    assessment, elapsed_s = event.assessment, now - rollout.step_at
    if not assessment.interim and assessment.verdict is not Verdict.SUCCESSFUL:
        return None
    if assessment.step_requests < policy.shadow_requests_min or elapsed_s < policy.shadow_s_min:
        return None
    return (
        f"{assessment.step_requests:,} copies >= {policy.shadow_requests_min:,}, {elapsed_s:.0f} s "
        f">= {policy.shadow_s_min:.0f} s; {event.disagreeing:,} of {event.pairs:,} pairs disagree; "
        f"{assessment.words}"
    )


def _disagrees(rollout: Rollout, event: RolloutEvent) -> Why:
    if not isinstance(event, Measured) or not event.pairs:
        return None
    share, most = event.disagreeing / event.pairs, rollout.policy.disagreement_max
    return f"disagreement {share:.2%} > {most:.2%}" if share > most else None


def shadow_asks(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    """What a person has to look at: that it was to be a shadow only, or that answers differ."""
    why = _shadowed(rollout, event, now)
    if why is None:
        return None
    differs = _disagrees(rollout, event)
    if differs is not None:
        return f"{differs}: {why}"
    return f"strategy shadow: {why}" if rollout.policy.strategy == "shadow" else None


def shadow_over(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return None if shadow_asks(rollout, event, now) else _shadowed(rollout, event, now)


def may_promote(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    policy = rollout.policy
    if rollout.step + 1 < len(policy.steps) or not _moving(rollout, event):
        return None
    assert isinstance(event, Measured)
    assessment = event.assessment
    step_s, total_s = now - rollout.step_at, now - rollout.canary_at
    if (
        assessment.verdict is not Verdict.SUCCESSFUL
        or assessment.requests < policy.promote_requests_min
        or assessment.step_requests < policy.step_requests_min
        or step_s < policy.step_s_min
        or total_s < policy.total_s_min
    ):
        return None
    return (
        f"{assessment.requests:,} requests >= {policy.promote_requests_min:,}, {total_s:.0f} s >= "
        f"{policy.total_s_min:.0f} s; {assessment.words}"
    )


def _moving(rollout: Rollout, event: RolloutEvent) -> bool:
    """The measurement is of this step, and nobody and nothing holds the rollout back."""
    if not isinstance(event, Measured) or event.assessment.step != rollout.step:
        return False
    return not (rollout.paused or rollout.waiting or event.assessment.frozen)


def duration_over(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    ran_s, most = now - rollout.canary_at - rollout.idle_s, rollout.policy.duration_s_max
    if ran_s <= most:
        return None
    return f"inconclusive after {ran_s:.0f} s > {most:.0f} s"


def duration_over_hold(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    holds = rollout.policy.on_inconclusive == "hold"
    return duration_over(rollout, event, now) if holds else None


def _overdue(rollout: Rollout, now: float, most: float) -> Why:
    stayed_s = now - rollout.entered_at
    if stayed_s <= most:
        return None
    return f"{rollout.state.value} for {stayed_s:.0f} s > {most:.0f} s"


def staging_over(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return _overdue(rollout, now, rollout.policy.staging_s_max)


def promoting_over(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return _overdue(rollout, now, rollout.policy.promoting_s_max)


def held_over(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return _overdue(rollout, now, rollout.policy.held_s_max)


def lapsed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    """Unconfirmed, but harmless: the lease that nobody renews takes the weight away."""
    if rollout.promoted:
        return None
    why = _overdue(rollout, now, rollout.policy.rolling_back_s_max)
    return f"{why}, unconfirmed: the lease has run out" if why else None


def lapsed_blamed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return lapsed(rollout, event, now) if rollout.ending is State.ROLLED_BACK else None


def rollback_stuck(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not rollout.promoted:
        return None
    why = _overdue(rollout, now, rollout.policy.rolling_back_s_max + rollout.policy.staging_s_max)
    what = "the earlier model does not start" if rollout.waiting else "nobody confirms the route"
    return f"{why}: {what}; both slots are left as they are" if why else None


def bake_over(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    policy, baked_s = rollout.policy, now - rollout.entered_at
    if not _settled(rollout):
        return None
    enough = rollout.bake_requests >= policy.step_requests_min
    if baked_s <= policy.bake_s * (1 if enough else 2):
        return None
    few = "" if enough else f", of {policy.step_requests_min:,} wanted"
    return f"baked {baked_s:.0f} s > {policy.bake_s:.0f} s, {rollout.bake_requests:,} requests{few}"


def bake_filled(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, Measured) or not event.assessment.baking or not _settled(rollout):
        return None
    seen, wanted = event.assessment.bake_requests, rollout.policy.bake_requests
    return f"baked over {seen:,} requests >= {wanted:,}" if seen >= wanted else None


def _settled(rollout: Rollout) -> bool:
    """The old slot may stop only when the new one is known to have the traffic."""
    return not rollout.waiting and rollout.confirmed == rollout.generation


def bake_stuck(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if _settled(rollout):
        return None
    why = _overdue(rollout, now, 2 * rollout.policy.bake_s + rollout.policy.staging_s_max)
    what = "its slot does not start" if rollout.waiting else "nobody confirms the route"
    return f"{why}: {what}; both slots are left as they are" if why else None


def confirmed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, WeightsConfirmed) or rollout.waiting:
        return None
    if event.generation != rollout.generation or rollout.confirmed == rollout.generation:
        return None
    return f"route {event.generation} confirmed after {now - rollout.entered_at:.2f} s"


def confirmed_blamed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return confirmed(rollout, event, now) if rollout.ending is State.ROLLED_BACK else None


def unconfirmed(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    waited_s = now - rollout.driven_at
    if rollout.waiting or rollout.confirmed == rollout.generation:
        return None
    if waited_s <= rollout.policy.redrive_s:
        return None
    return f"route {rollout.generation} not confirmed after {waited_s:.1f} s"


def lease_lost(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    if not isinstance(event, LeaseLost) or event.generation != rollout.generation:
        return None
    return None if rollout.waiting else f"the lease of route {event.generation} ran out"


def operator(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    assert isinstance(event, Operator)
    return f"{event.action} by {event.actor}: {event.reason}"


def operator_and_ready(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    """Nobody can send traffic to a slot that is not ready, whatever the reason."""
    return None if rollout.waiting else operator(rollout, event, now)


def not_paused(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return None if rollout.paused else operator(rollout, event, now)


def paused(rollout: Rollout, event: RolloutEvent, now: float) -> Why:
    return operator(rollout, event, now) if rollout.paused else None
