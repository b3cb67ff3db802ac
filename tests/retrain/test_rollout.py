"""The release of a candidate, told as a dialogue. What holds in any order: test_rollout_world."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from retrain.assessment import Assessment
from retrain.gates import Verdict
from retrain.rollout import (
    ENDED,
    TRANSITIONS,
    Admission,
    Refused,
    Rollout,
    RolloutPolicy,
    State,
    advance,
    begin,
)
from retrain.rollout_messages import (
    BeginStep,
    InstallReference,
    LeaseLost,
    MakeStable,
    Measured,
    Notify,
    Operator,
    Quarantine,
    Record,
    Restarted,
    RestoreReference,
    RolloutCommand,
    RolloutEvent,
    SetWeights,
    SlotFailed,
    SlotReady,
    StartCooldown,
    Started,
    StartSlot,
    StopSlot,
    Tick,
    WeightsConfirmed,
)

POLICY = RolloutPolicy(steps=(0.05, 0.5), step_s_min=60.0, total_s_min=120.0)


def fresh(policy: RolloutPolicy = POLICY) -> Rollout:
    rollout = Rollout(
        id="r1",
        candidate="sha256:new",
        stable="sha256:old",
        candidate_slot="B",
        stable_slot="A",
        policy=policy,
    )
    return begin(rollout, Admission(verified=True), 0.0)


def assessed(verdict: Verdict = Verdict.INCONCLUSIVE, **fields: Any) -> Measured:
    given: dict[str, Any] = {
        "at": 0.0,
        "step": 0,
        "baking": False,
        "verdict": verdict,
        "words": "errors 31/402 against 12/3,618 control: evidence 1,204 >= 600",
        "measurements": (),
        "hard_stop": None,
        "frozen": False,
        "interim": False,
        "idle": False,
        "requests": 0,
        "step_requests": 0,
        "control_requests": 0,
        "bake_requests": 0,
    }
    return Measured(assessment=Assessment(**{**given, **fields}))


class Dialogue:
    """A rollout that is told events, and what it asked for last."""

    def __init__(self, rollout: Rollout | None = None) -> None:
        self.rollout = rollout or fresh()
        self.commands: tuple[RolloutCommand, ...] = ()

    def tell(self, event: RolloutEvent, now: float) -> "Dialogue":
        if isinstance(event, Measured):
            event = replace(event, assessment=replace(event.assessment, at=now))
        self.rollout, self.commands = advance(self.rollout, event, now)
        return self

    def asked(self, kind: type[RolloutCommand]) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]

    def stands(self, state: State) -> bool:
        return self.rollout.state is state

    def to_canary(self) -> "Dialogue":
        self.tell(Started(), 1.0)
        return self.tell(SlotReady(slot="B", digest="sha256:new"), 10.0)

    def to_last_step(self) -> "Dialogue":
        self.to_canary()
        good = assessed(interim=True, requests=400, step_requests=400)
        return self.tell(good, 100.0)

    def to_baking(self) -> "Dialogue":
        self.to_last_step()
        self.tell(assessed(Verdict.SUCCESSFUL, step=1, requests=2_000, step_requests=1_600), 200.0)
        return self.tell(WeightsConfirmed(generation=self.rollout.generation), 201.0)

    def to_live(self) -> "Dialogue":
        self.to_baking().tell(WeightsConfirmed(generation=self.rollout.generation), 202.0)
        return self.tell(assessed(baking=True, bake_requests=50_000), 300.0)


SHADOW = replace(POLICY, shadow=0.25, shadow_s_min=60.0, disagreement_max=0.1)


def shadowing(policy: RolloutPolicy = SHADOW) -> Dialogue:
    return Dialogue(fresh(policy)).to_canary()


def copied(verdict: Verdict = Verdict.INCONCLUSIVE, **fields: Any) -> Measured:
    given = {"interim": True, "step_requests": 600, "requests": 600, "step": -1}
    return replace(assessed(verdict, **{**given, **fields}), pairs=200, disagreeing=10)


def test_a_candidate_answers_copies_before_it_gets_a_share() -> None:
    talk = shadowing()
    assert talk.stands(State.SHADOW)
    assert talk.asked(SetWeights)[0].candidate_weight == 0.0
    # Of 100 requests and 25 copies, a fifth of the outcomes is the candidate's.
    assert talk.asked(BeginStep) == [BeginStep(step=-1, weight=0.2)]
    talk.tell(copied(step_requests=499), 100.0)
    assert talk.stands(State.SHADOW)
    talk.tell(copied(), 60.0)
    assert talk.stands(State.SHADOW)
    talk.tell(copied(), 101.0)
    assert talk.stands(State.CANARY)
    assert talk.asked(SetWeights)[0].candidate_weight == 0.05
    # What copies have shown does not count towards promotion.
    assert talk.asked(BeginStep) == [BeginStep(step=0, weight=0.05, anew=True)]
    assert talk.rollout.requests == 0
    assert "600 copies >= 500" in talk.asked(Record)[0].reason
    assert "10 of 200 pairs disagree" in talk.asked(Record)[0].reason


def test_a_candidate_that_fails_on_copies_never_gets_traffic() -> None:
    talk = shadowing().tell(copied(Verdict.FAILED), 20.0)
    assert talk.stands(State.ROLLING_BACK)
    assert talk.asked(Quarantine)
    assert talk.rollout.weight == 0.0


def test_answers_that_differ_too_often_are_shown_to_a_person() -> None:
    talk = shadowing().tell(replace(copied(), disagreeing=21), 101.0)
    assert talk.stands(State.HELD)
    assert "disagreement 10.50% > 10.00%" in talk.rollout.reason
    talk.tell(Operator(action="resume", actor="ada", reason="as intended"), 110.0)
    assert talk.stands(State.CANARY)
    assert talk.asked(BeginStep) == [BeginStep(step=0, weight=0.05, anew=True)]


def test_strategy_shadow_ends_with_a_person() -> None:
    talk = shadowing(replace(SHADOW, strategy="shadow")).tell(copied(), 101.0)
    assert talk.stands(State.HELD)
    talk.tell(Operator(action="promote", actor="ada", reason="looks well"), 110.0)
    assert talk.stands(State.PROMOTING)


def test_a_restart_in_the_shadow_copies_again_once_the_slot_is_ready() -> None:
    talk = shadowing().tell(Restarted(boot="b2"), 50.0)
    assert talk.stands(State.SHADOW)
    assert talk.rollout.waiting
    assert talk.asked(BeginStep) == [BeginStep(step=-1, weight=0.0)]
    talk.tell(copied(), 120.0)
    assert talk.stands(State.SHADOW)
    talk.tell(SlotReady(slot="B", digest="sha256:new"), 130.0)
    assert talk.asked(BeginStep) == [BeginStep(step=-1, weight=0.2)]
    assert not talk.rollout.waiting


def test_a_shadow_without_a_share_is_none() -> None:
    with pytest.raises(ValueError, match="nothing can be learnt"):
        RolloutPolicy(strategy="shadow")


def only(kinds: Sequence[RolloutCommand]) -> list[type]:
    return [type(kind) for kind in kinds]


def test_a_good_candidate_goes_all_the_way() -> None:
    talk = Dialogue().tell(Started(actor="policy"), 1.0)
    assert talk.asked(StartSlot) == [StartSlot(slot="B", digest="sha256:new")]
    assert talk.asked(SetWeights)[0].candidate_weight == 0.0
    talk.tell(SlotReady(slot="B", digest="sha256:new"), 10.0)
    assert talk.stands(State.CANARY)
    assert talk.asked(SetWeights)[0].candidate_weight == 0.05
    talk.tell(assessed(interim=True, requests=400, step_requests=400), 100.0)
    assert (talk.rollout.step, talk.rollout.weight) == (1, 0.5)
    assert "400 requests >= 200, 90 s >= 60 s" in talk.asked(Record)[0].reason
    talk.tell(assessed(Verdict.SUCCESSFUL, step=1, requests=2_000, step_requests=1_600), 200.0)
    assert talk.stands(State.PROMOTING)
    assert talk.asked(SetWeights)[0].candidate_weight == 1.0
    talk.tell(WeightsConfirmed(generation=talk.rollout.generation), 201.0)
    assert talk.stands(State.BAKING)
    assert talk.asked(MakeStable)[0].slot == "B"
    assert talk.asked(InstallReference) == [InstallReference(digest="sha256:new")]
    assert talk.asked(Notify)[0].type == "remora.rollout.promoted"
    talk.tell(WeightsConfirmed(generation=talk.rollout.generation), 202.0)
    talk.tell(assessed(baking=True, bake_requests=50_000), 300.0)
    assert talk.stands(State.LIVE)
    assert talk.asked(StopSlot) == [StopSlot(slot="A")]


def test_the_last_step_promotes_only_on_evidence_time_and_requests() -> None:
    for event, now in (
        (assessed(interim=True, step=1, requests=2_000, step_requests=900), 200.0),
        (assessed(Verdict.SUCCESSFUL, step=1, requests=900, step_requests=900), 200.0),
        (assessed(Verdict.SUCCESSFUL, step=1, requests=2_000, step_requests=900), 125.0),
        (assessed(Verdict.SUCCESSFUL, step=0, requests=2_000, step_requests=900), 200.0),
    ):
        talk = Dialogue().to_last_step().tell(event, now)
        assert talk.stands(State.CANARY)


def test_a_bad_candidate_loses_its_traffic_before_anything_else() -> None:
    talk = Dialogue().to_canary().tell(assessed(Verdict.FAILED), 20.0)
    assert talk.stands(State.ROLLING_BACK)
    assert only(talk.commands) == [SetWeights, Record, Quarantine, StartCooldown]
    assert talk.asked(SetWeights)[0].candidate_weight == 0.0
    assert "evidence 1,204 >= 600" in talk.asked(Quarantine)[0].reason
    talk.tell(WeightsConfirmed(generation=talk.rollout.generation), 20.1)
    assert talk.stands(State.ROLLED_BACK)
    assert only(talk.commands) == [StopSlot, Record, Notify]
    assert "evidence 1,204 >= 600" in talk.asked(Notify)[0].reason


def test_a_rollback_that_nobody_confirms_is_asked_for_again_and_then_left_to_the_lease() -> None:
    talk = Dialogue().to_canary().tell(assessed(Verdict.FAILED), 20.0)
    talk.tell(Tick(), 26.0)
    assert talk.asked(SetWeights)[0].candidate_weight == 0.0
    talk.tell(Tick(), 81.0)
    assert talk.stands(State.ROLLED_BACK)


def test_a_crash_of_the_candidate_rolls_back() -> None:
    talk = Dialogue().to_canary()
    talk.tell(SlotFailed(slot="B", digest="sha256:new", reason="killed by signal 9"), 20.0)
    assert talk.stands(State.ROLLING_BACK)
    assert "signal 9" in talk.rollout.reason


def test_nobody_is_rolled_back_onto_a_sick_stable_model() -> None:
    talk = Dialogue().to_canary().tell(assessed(frozen=True, words="sick"), 20.0)
    assert talk.stands(State.CANARY)
    assert talk.rollout.frozen
    talk.tell(assessed(Verdict.SUCCESSFUL, frozen=True, requests=9_000, step_requests=9_000), 90.0)
    assert talk.rollout.step == 0
    talk.tell(assessed(frozen=False), 95.0)
    assert not talk.rollout.frozen


def test_inconclusive_at_the_end_of_the_time_is_held_without_traffic() -> None:
    talk = Dialogue().to_canary().tell(Tick(), 86_411.0)
    assert talk.stands(State.HELD)
    assert talk.asked(SetWeights)[0].candidate_weight == 0.0
    assert talk.asked(Notify)[0].type == "remora.rollout.held"
    # The analysis knows that no request is due, and finds nobody starved.
    assert talk.asked(BeginStep) == [BeginStep(step=0, weight=0.0)]
    talk.tell(Operator(action="resume", actor="ada", reason="more traffic now"), 90_000.0)
    assert talk.stands(State.CANARY)
    assert talk.rollout.weight == 0.05


def test_inconclusive_may_be_aborted_instead_and_nobody_is_blamed() -> None:
    talk = Dialogue(fresh(replace(POLICY, on_inconclusive="abort"))).to_canary()
    talk.tell(Tick(), 86_411.0)
    assert talk.stands(State.ROLLING_BACK)
    assert not talk.asked(Quarantine)
    talk.tell(WeightsConfirmed(generation=talk.rollout.generation), 86_412.0)
    assert talk.stands(State.ABORTED)


def test_the_clock_stands_still_without_any_traffic() -> None:
    talk = Dialogue().to_canary().tell(assessed(idle=True), 50_010.0)
    talk.tell(Tick(), 100_000.0)
    assert talk.stands(State.CANARY)
    talk.tell(Tick(), 140_000.0)
    assert talk.stands(State.HELD)


def test_immediate_goes_to_everybody_and_bakes() -> None:
    talk = Dialogue(fresh(replace(POLICY, strategy="immediate"))).to_canary()
    assert talk.stands(State.PROMOTING)
    talk.tell(WeightsConfirmed(generation=talk.rollout.generation), 11.0)
    assert talk.stands(State.BAKING)


def test_a_rollback_in_bake_moves_traffic_first_and_then_the_reference() -> None:
    talk = Dialogue().to_baking().tell(assessed(Verdict.FAILED, baking=True), 250.0)
    assert only(talk.commands)[:2] == [MakeStable, RestoreReference]
    assert talk.asked(MakeStable)[0].slot == "A"
    assert talk.asked(RestoreReference) == [RestoreReference(digest="sha256:old")]
    assert not talk.asked(StopSlot)
    talk.tell(WeightsConfirmed(generation=talk.rollout.generation), 250.1)
    assert talk.asked(StopSlot) == [StopSlot(slot="B")]
    assert talk.rollout.stable_now == "A"


@pytest.mark.parametrize("where", ["baking", "live"])
def test_a_rollback_to_a_model_that_is_gone_starts_it_first(where: str) -> None:
    talk = Dialogue().to_live() if where == "live" else Dialogue().to_baking()
    if where == "baking":
        talk.tell(SlotFailed(slot="A", digest="sha256:old", reason="exit 1"), 240.0)
    talk.tell(Operator(action="rollback", actor="ada", reason="complaints"), 400.0)
    assert talk.stands(State.ROLLING_BACK)
    assert talk.asked(StartSlot) == [StartSlot(slot="A", digest="sha256:old")]
    assert not talk.asked(MakeStable)
    assert not talk.asked(StopSlot)
    talk.tell(SlotReady(slot="A", digest="sha256:old"), 420.0)
    assert only(talk.commands)[:2] == [MakeStable, RestoreReference]
    talk.tell(WeightsConfirmed(generation=talk.rollout.generation), 420.1)
    assert talk.stands(State.ROLLED_BACK)


def test_a_model_that_does_not_come_back_leaves_the_new_one_serving() -> None:
    talk = Dialogue().to_live()
    talk.tell(Operator(action="rollback", actor="ada", reason="complaints"), 400.0)
    for attempt in range(3):
        talk.tell(
            SlotFailed(slot="A", digest="sha256:old", reason="exit 1", attempt=attempt), 410.0
        )
    assert not talk.asked(StartSlot)
    talk.tell(Tick(), 1_100.0)
    assert talk.stands(State.FAILED)
    assert not talk.asked(StopSlot)
    assert talk.rollout.stable_now == "B"


def test_a_slot_that_never_gets_ready_is_tried_three_times() -> None:
    talk = Dialogue().tell(Started(), 1.0)
    failure = SlotFailed(slot="B", digest="sha256:new", reason="not ready in 120 s")
    talk.tell(failure, 121.0)
    assert talk.asked(StartSlot) == [StartSlot(slot="B", digest="sha256:new", attempt=1)]
    assert talk.tell(failure, 122.0).commands == ()
    talk.tell(replace(failure, attempt=1), 240.0)
    talk.tell(replace(failure, attempt=2), 360.0)
    assert talk.stands(State.FAILED)
    assert "attempt 3 of 3" in talk.rollout.reason
    assert not talk.asked(Quarantine)


def test_after_a_restart_a_candidate_gets_traffic_only_once_it_is_ready() -> None:
    talk = Dialogue().to_last_step().tell(Restarted(boot="b2"), 110.0)
    assert only(talk.commands) == [SetWeights, BeginStep, StartSlot, Record]
    assert talk.asked(SetWeights)[0].candidate_weight == 0.0
    talk.tell(assessed(Verdict.SUCCESSFUL, step=1, requests=9_000, step_requests=900), 400.0)
    assert talk.stands(State.CANARY)
    talk.tell(SlotReady(slot="B", digest="sha256:new"), 401.0)
    assert talk.asked(SetWeights)[0].candidate_weight == 0.5


def test_after_a_restart_in_bake_the_new_model_is_stable_once_it_is_ready() -> None:
    talk = Dialogue().to_baking().tell(Restarted(boot="b2"), 210.0)
    assert only(talk.commands) == [StartSlot, StartSlot, Record]
    talk.tell(assessed(baking=True, bake_requests=60_000), 211.0)
    assert talk.stands(State.BAKING)
    talk.tell(SlotReady(slot="B", digest="sha256:new"), 212.0)
    assert talk.asked(MakeStable)[0].slot == "B"


def test_a_bake_does_not_end_while_the_route_is_unconfirmed() -> None:
    talk = Dialogue().to_baking()
    filled = assessed(baking=True, bake_requests=60_000)
    assert talk.tell(filled, 202.0).stands(State.BAKING)
    talk.tell(WeightsConfirmed(generation=talk.rollout.generation), 203.0)
    assert talk.tell(filled, 204.0).stands(State.LIVE)


def test_a_lost_lease_is_driven_again_once() -> None:
    talk = Dialogue().to_canary()
    lost = LeaseLost(generation=talk.rollout.generation)
    assert talk.tell(lost, 20.0).asked(SetWeights)[0].candidate_weight == 0.05
    assert talk.tell(lost, 20.0).commands == ()


@pytest.mark.parametrize(
    ("admission", "words"),
    [
        (Admission(verified=False), "not verified"),
        (Admission(verified=True, quarantined="errors 9/10"), "in quarantine: errors 9/10"),
        (Admission(verified=True, in_flight="r0"), "r0 has not ended"),
        (Admission(verified=True, cooldown_until=60.0), "60 s left"),
        (Admission(verified=True, quarantined="bad", by_operator=True), "in quarantine"),
    ],
)
def test_who_gets_no_rollout(admission: Admission, words: str) -> None:
    with pytest.raises(Refused, match=words):
        begin(fresh(), admission, 0.0)


def test_an_operator_may_cut_a_cooldown_short() -> None:
    begin(fresh(), Admission(verified=True, cooldown_until=60.0, by_operator=True), 0.0)


def test_every_state_that_has_not_ended_has_a_deadline_in_the_table() -> None:
    for state in set(State) - ENDED:
        assert any(
            row.state is state and row.event == "tick" and row.to is not state
            for row in TRANSITIONS
        ), state


def test_steps_rise() -> None:
    with pytest.raises(ValueError, match="steps must rise"):
        RolloutPolicy(steps=(0.5, 0.1))
