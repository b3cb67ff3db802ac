"""What a transition of a rollout changes and asks for: pure, each the work of one row.

The order of commands is the order of performing. Whoever takes weight away does so before
anything else, and no slot is stopped before another one is known to have its traffic.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from retrain.rollout_messages import (
    BeginBake,
    BeginStep,
    ClearCooldown,
    InstallReference,
    MakeStable,
    Measured,
    Notify,
    Quarantine,
    Record,
    Restarted,
    RestoreReference,
    RolloutCommand,
    RolloutEvent,
    SetWeights,
    SlotFailed,
    StartCooldown,
    StartSlot,
    StopSlot,
)
from retrain.rollout_state import SHADOW_STEP, Rollout, State

Step: TypeAlias = tuple[Rollout, tuple[RolloutCommand, ...]]
Do: TypeAlias = Callable[[Rollout, RolloutEvent, float, str], Step]


def _route(rollout: Rollout, weight: float, now: float) -> tuple[Rollout, SetWeights]:
    """The rollout with the next generation of the route, and the command for it."""
    generation = rollout.generation + 1
    moved = replace(rollout, generation=generation, weight=weight, driven_at=now)
    return moved, SetWeights(generation=generation, candidate_weight=weight)


def _start_candidate(rollout: Rollout) -> StartSlot:
    return StartSlot(slot=rollout.candidate_slot, digest=rollout.candidate, attempt=rollout.attempt)


def _start_old(rollout: Rollout) -> StartSlot:
    # Attempts are counted only while everything waits for this slot.
    attempt = rollout.attempt if rollout.waiting else 0
    return StartSlot(slot=rollout.stable_slot, digest=rollout.stable, attempt=attempt)


def _facts(rollout: Rollout, event: RolloutEvent) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "rollout": rollout.id,
        "state": rollout.state.value,
        "candidate": rollout.candidate,
        "stable": rollout.stable,
        "step": rollout.step,
        "weight": rollout.weight,
        "generation": rollout.generation,
    }
    if isinstance(event, Measured):
        facts["assessment"] = event.assessment.as_json()
    return facts


def note(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """Nothing but the entry in the ledger."""
    return rollout, (Record(kind="rollout", reason=why, data=_facts(rollout, event)),)


def start(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    moved, route = _route(replace(rollout, begun=True), 0.0, now)
    record = Record(kind="rollout", reason=why, data=_facts(moved, event))
    notify = Notify(type="remora.rollout.started", reason=why)
    return moved, (record, route, _start_candidate(moved), notify)


def start_again(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    moved = replace(rollout, attempt=rollout.attempt + 1)
    record = Record(kind="rollout", reason=why, data=_facts(moved, event))
    return moved, (record, _start_candidate(moved))


def shadow(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """No share of the traffic: the route at weight 0, and copies by the rollout's state."""
    fresh = replace(rollout, canary_at=now, step_at=now, step=SHADOW_STEP, waiting=False)
    moved, route = _route(fresh, 0.0, now)
    copied = f"shadow, {rollout.policy.shadow:.0%} copied: {why}"
    record = Record(kind="rollout", reason=copied, data=_facts(moved, event))
    return moved, (record, _begin_shadow(moved), route)


def _begin_shadow(rollout: Rollout) -> BeginStep:
    # Of each request that is copied there are two outcomes, so this is the candidate's share.
    # The two are alike where the request decides, which makes differences rarer than the analysis
    # takes into account: it errs towards saying less.
    share = rollout.policy.shadow
    return BeginStep(step=SHADOW_STEP, weight=share / (1.0 + share))


def first_step(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    fresh = replace(rollout, canary_at=now, idle_s=0.0, requests=0)
    return _to_step(fresh, 0, event, now, why, anew=rollout.step == SHADOW_STEP)


def next_step(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    return _to_step(rollout, rollout.step + 1, event, now, why)


def resume_held(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """The same step again, with a new clock; the evidence goes on."""
    fresh = replace(rollout, canary_at=now, idle_s=0.0, paused=False)
    if rollout.step == SHADOW_STEP:
        return first_step(fresh, event, now, why)
    return _to_step(fresh, rollout.step, event, now, why)


def _to_step(
    rollout: Rollout, step: int, event: RolloutEvent, now: float, why: str, *, anew: bool = False
) -> Step:
    weight = rollout.policy.steps[step]
    moved, route = _route(replace(rollout, step=step, step_at=now), weight, now)
    steps = f"step {step + 1} of {len(rollout.policy.steps)}, weight {weight:.0%}: {why}"
    record = Record(kind="rollout", reason=steps, data=_facts(moved, event))
    return moved, (record, BeginStep(step=step, weight=weight, anew=anew), route)


def all_traffic(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """Ask for 100% while the stable slot keeps running: one write takes it back."""
    moved, route = _route(replace(rollout, paused=False), 1.0, now)
    return moved, (Record(kind="rollout", reason=why, data=_facts(moved, event)), route)


def bake(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """The slots change roles; the reference follows in the same breath."""
    moved, _ = _route(replace(rollout, promoted=True, warm=True), 0.0, now)
    record = Record(kind="promotion", reason=why, data=_facts(moved, event))
    return moved, (
        record,
        _make_stable(moved),
        InstallReference(digest=rollout.candidate),
        BeginBake(),
        Notify(type="remora.rollout.promoted", reason=why),
    )


def _make_stable(rollout: Rollout) -> MakeStable:
    digest = rollout.candidate if rollout.promoted else rollout.stable
    return MakeStable(generation=rollout.generation, slot=rollout.stable_now, digest=digest)


def go_live(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    record = Record(kind="promotion", reason=why, data=_facts(rollout, event))
    moved = replace(rollout, warm=False)
    return moved, (record, StopSlot(slot=rollout.stable_slot), ClearCooldown())


def hold(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    moved, route = _route(rollout, 0.0, now)
    record = Record(kind="rollout", reason=why, data=_facts(moved, event))
    notify = Notify(type="remora.rollout.held", reason=why)
    # Or the analysis would find a candidate without requests starved.
    return moved, (route, BeginStep(step=rollout.step, weight=0.0), record, notify)


def roll_back(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """The candidate is to blame: out of the traffic, into quarantine, and a cooldown."""
    moved, commands = _withdraw(replace(rollout, ending=State.ROLLED_BACK), event, now, why)
    blame = Quarantine(digest=rollout.candidate, reason=why)
    return moved, (*commands, blame, StartCooldown(rollout=rollout.id))


def give_up(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """Out of the traffic, without blame."""
    return _withdraw(replace(rollout, ending=State.ABORTED), event, now, why)


def _withdraw(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    record = Record(kind="rollback", reason=why, data=_facts(rollout, event))
    if not rollout.promoted:
        moved, route = _route(replace(rollout, waiting=False), 0.0, now)
        return moved, (route, record)
    if not rollout.warm:
        # Nobody else can answer yet: the candidate serves until the earlier model is ready.
        moved = replace(rollout, waiting=True, driven_at=now, attempt=0)
        return moved, (_start_old(moved), record)
    moved, commands = _back_to_old(rollout, now)
    return moved, (*commands, record)


def _back_to_old(rollout: Rollout, now: float) -> Step:
    """All traffic to the earlier model first, then its reference."""
    moved, _ = _route(replace(rollout, warm=True, waiting=False), 0.0, now)
    back = MakeStable(generation=moved.generation, slot=moved.stable_slot, digest=moved.stable)
    return moved, (back, RestoreReference(digest=moved.stable))


def back_to_old(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    moved, commands = _back_to_old(rollout, now)
    return moved, (*commands, Record(kind="rollback", reason=why, data=_facts(moved, event)))


def withdrawn(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """The stable model has its traffic back: now the candidate's slot may stop."""
    moved = replace(rollout, promoted=False, weight=0.0, confirmed=rollout.generation)
    record = Record(kind="rollback", reason=why, data=_facts(moved, event))
    stop = StopSlot(slot=rollout.candidate_slot)
    if rollout.ending is State.ABORTED and not rollout.promoted:
        return moved, (stop, record)
    return moved, (stop, record, Notify(type="remora.rollout.rolled_back", reason=rollout.reason))


def stop_unused(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """A candidate that never had traffic goes away."""
    record = Record(kind="rollout", reason=why, data=_facts(rollout, event))
    return rollout, (StopSlot(slot=rollout.candidate_slot), record)


def load_failed(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """No quarantine: what never had traffic may have failed for reasons of this machine."""
    moved, commands = stop_unused(rollout, event, now, why)
    return moved, (*commands, StartCooldown(rollout=rollout.id))


def stuck(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    record = Record(kind="rollback", reason=why, data=_facts(rollout, event))
    return rollout, (record, Notify(type="remora.rollout.held", reason=why))


def set_paused(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    return note(replace(rollout, paused=True), event, now, why)


def clear_paused(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    return note(replace(rollout, paused=False), event, now, why)


def set_frozen(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    assert isinstance(event, Measured)
    return note(replace(rollout, frozen=event.assessment.frozen), event, now, why)


def stand_still(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """No entry: silence would fill the ledger."""
    idle_s = min(
        rollout.idle_s + now - max(rollout.assessed_at, rollout.canary_at),
        rollout.policy.duration_s_max,
    )
    return replace(rollout, idle_s=idle_s), ()


def count(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    assert isinstance(event, Measured)
    seen = event.assessment
    return replace(rollout, requests=seen.requests, bake_requests=seen.bake_requests), ()


def confirm(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    return replace(rollout, confirmed=rollout.generation), ()


def old_slot_gone(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    moved, commands = note(replace(rollout, warm=False), event, now, why)
    return moved, (_start_old(rollout), *commands)


def start_old_again(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    moved, commands = note(replace(rollout, attempt=rollout.attempt + 1), event, now, why)
    return moved, (_start_old(moved), *commands)


def serve_with_candidate(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """Whom we roll back onto is gone: a doubtful answer is better than none until it is back."""
    assert isinstance(event, SlotFailed)
    fallen = replace(rollout, waiting=True, warm=False, attempt=event.attempt + 1)
    moved, _ = _route(fallen, 0.0, now)
    record = Record(kind="rollback", reason=why, data=_facts(moved, event))
    reference = InstallReference(digest=moved.candidate)
    return moved, (_make_stable(moved), reference, _start_old(moved), record)


def old_slot_back(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    return note(replace(rollout, warm=True), event, now, why)


def drive_again(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """The same wish under a new generation, for a data plane that did not answer."""
    moved, route = _route(rollout, rollout.weight, now)
    if rollout.state is State.BAKING:
        return moved, (_make_stable(moved),)
    if rollout.state is State.ROLLING_BACK and rollout.promoted:
        return _back_to_old(rollout, now)
    return moved, (route,)


def restart(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """Say everything that is desired again. A candidate gets traffic only once it is ready."""
    assert isinstance(event, Restarted)
    moved, route = _route(replace(rollout, boot=event.boot), 0.0, now)
    record = Record(kind="rollout", reason=why, data=_facts(moved, event))
    candidate, old = _start_candidate(moved), _start_old(moved)
    match rollout.state:
        case State.STAGING:
            return moved, (route, candidate, record)
        case State.SHADOW | State.CANARY | State.PROMOTING | State.HELD:
            without = BeginStep(step=moved.step, weight=0.0)
            return replace(moved, waiting=True), (route, without, candidate, record)
        case State.BAKING:
            # If its slot went with the agent, the old one may be the only one that answers.
            return replace(moved, waiting=True, warm=False), (candidate, old, record)
        case State.ROLLING_BACK if moved.promoted:
            # The earlier model may have gone with the agent: traffic moves when it is ready.
            # The candidate, if it still serves, is adopted as the stable slot, never started.
            moved = replace(moved, waiting=True, warm=False, attempt=0)
            return moved, (_start_old(moved), record)
        case _:
            return moved, (route, record)


def drive_step(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """The slot is ready after a restart: the weight of the step again."""
    weight = rollout.policy.steps[rollout.step]
    moved, route = _route(replace(rollout, waiting=False), weight, now)
    record = Record(kind="rollout", reason=why, data=_facts(moved, event))
    return moved, (record, BeginStep(step=rollout.step, weight=weight), route)


def drive_shadow(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    """The slot is ready after a restart: copies again."""
    moved, route = _route(replace(rollout, waiting=False), 0.0, now)
    record = Record(kind="rollout", reason=why, data=_facts(moved, event))
    return moved, (record, _begin_shadow(moved), route)


def drive_bake(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    moved, _ = _route(replace(rollout, waiting=False), 0.0, now)
    reference = InstallReference(digest=rollout.candidate)
    record = Record(kind="rollout", reason=why, data=_facts(moved, event))
    return moved, (_make_stable(moved), reference, BeginBake(), record)


def drive_all_traffic(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    return all_traffic(replace(rollout, waiting=False), event, now, why)


def held_ready(rollout: Rollout, event: RolloutEvent, now: float, why: str) -> Step:
    return note(replace(rollout, waiting=False), event, now, why)
