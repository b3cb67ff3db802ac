"""The policy asks for a run when a rule truly fires, says why with numbers, and never stutters."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.decision import Action, Because, Decision
from retrain.policy import Ending, Policy, PolicyState, Request, Role, View
from retrain.schedule import Schedule
from retrain.triggers import DriftRule, Quality, QualityRule, ScheduleRule

NOON = 1_700_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR

DRIFT = DriftRule(name="drift")
QUALITY = QualityRule(name="quality", metric="accuracy", below=0.8)
NIGHTLY = ScheduleRule(name="nightly", schedule=Schedule(cron="0 3 * * *"))


def finding(subject: str = "age", state: str = "drift", **other: Any) -> dict[str, Any]:
    return {
        "kind": "data_drift",
        "scope": "feature",
        "subject": subject,
        "state": state,
        "evidence": 6.2,
        "effect": {"name": "psi", "value": 0.31},
        "reference": "sha256:aa",
        "version": "1",
        **other,
    }


def accuracy(value: float, half: float | None, rows: int = 500, version: str = "1") -> Quality:
    return Quality(
        metric="accuracy",
        basis="realised",
        value=value,
        lower=None if half is None else value - half,
        upper=None if half is None else value + half,
        rows=rows,
        version=version,
    )


def drifting(*subjects: str) -> View:
    return View(findings=[finding(subject) for subject in subjects])


def look(policy: Policy, *looks: tuple[float, View], state: PolicyState | None = None) -> Decision:
    decision = None
    state = state or PolicyState()
    for now, view in looks:
        state, decision = policy.decide(state, view, now)
    assert decision is not None
    return decision


def test_confirmed_drift_starts_a_run_and_says_both_numbers() -> None:
    decision = look(Policy(rules=[DRIFT]), (NOON, drifting("age", "income")))
    assert decision.action is Action.RETRAIN
    assert decision.reason == (
        "drift: 2 subjects in drift (age psi 0.31, evidence 10^6.2, income psi 0.31,"
        " evidence 10^6.2) >= quorum 1"
    )
    assert [one["subject"] for one in decision.findings] == ["age", "income"]


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(findings=[finding(state="warning")]),
        View(findings=[finding(state="ok")]),
        View(findings=[finding(state="insufficient_data")]),
        View(findings=[finding(kind="latency")]),
    ],
)
def test_less_than_confirmed_drift_of_a_chosen_kind_holds(view: View) -> None:
    decision = look(Policy(rules=[DRIFT]), (NOON, view))
    assert decision.because is Because.QUIET
    assert decision.reason == "drift: 0 subjects in drift < quorum 1"


def test_the_quorum_counts_subjects_not_detectors() -> None:
    policy = Policy(rules=[DriftRule(name="drift", features_min=2)])
    twice = View(findings=[finding(detector="psi"), finding(detector="ks")])
    assert look(policy, (NOON, twice)).reason == "drift: 1 subject in drift < quorum 2"
    assert look(policy, (NOON, drifting("age", "income"))).action is Action.RETRAIN


@pytest.mark.parametrize(
    ("estimate", "action", "text"),
    [
        (accuracy(0.74, 0.03), Action.RETRAIN, "0.74 over 500 rows, upper limit 0.77 < 0.8"),
        (accuracy(0.78, 0.03), Action.HOLD, "0.78 over 500 rows, upper limit 0.81 >= 0.8"),
        (accuracy(0.10, 0.03, rows=199), Action.HOLD, "0.1, but 199 rows < 200"),
        (accuracy(0.10, None), Action.HOLD, "no upper confidence limit"),
        (replace(accuracy(0.1, 0.1), basis="estimated"), Action.HOLD, "not known yet"),
    ],
)
def test_quality_counts_when_its_whole_interval_is_too_low(
    estimate: Quality, action: Action, text: str
) -> None:
    decision = look(Policy(rules=[QUALITY]), (NOON, View(quality=[estimate])))
    assert decision.action is action
    assert text in decision.reason


def test_losses_are_bounded_from_above() -> None:
    rule = QualityRule(name="loss", metric="accuracy", above=0.5)
    policy = Policy(rules=[rule])
    assert look(policy, (NOON, View(quality=[accuracy(0.6, 0.05)]))).action is Action.RETRAIN
    decision = look(policy, (NOON, View(quality=[accuracy(0.6, 0.2)])))
    assert "lower limit 0.4 <= 0.5" in decision.reason


@pytest.mark.parametrize(("below", "above"), [(None, None), (0.1, 0.9)])
def test_a_quality_rule_has_exactly_one_bound(below: float | None, above: float | None) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        QualityRule(name="quality", metric="accuracy", below=below, above=above)


def test_the_calendar_fires_once_for_all_the_times_it_missed() -> None:
    policy = Policy(rules=[NIGHTLY], cooldown_s=0.0)
    state, first = policy.decide(PolicyState(), View(), NOON)
    assert first.because is Because.QUIET
    assert "nightly: next at 2023-11-15T03:00:00Z" in first.reason
    state, second = policy.decide(state, View(), NOON + 5 * DAY)  # the agent was down
    assert second.action is Action.RETRAIN
    state = policy.finished(state, Ending.SUCCEEDED)
    state, third = policy.decide(state, View(), NOON + 5 * DAY + 60)
    assert third.because is Because.QUIET
    assert state.due["nightly"] > NOON + 5 * DAY


def test_a_time_that_comes_during_the_cooldown_is_used_up() -> None:
    policy = Policy(rules=[NIGHTLY])
    state = PolicyState(starts=(NOON,), due={"nightly": NOON + HOUR})
    state, held = policy.decide(state, View(), NOON + HOUR)
    assert held.because is Because.COOLDOWN
    assert held.reason.startswith("last run 3600 s ago < cooldown 21600 s: nightly: due at")
    assert policy.decide(state, View(), NOON + 2 * HOUR)[1].because is Because.QUIET


def test_standing_drift_starts_one_run_until_it_has_gone_and_come_back() -> None:
    policy = Policy(rules=[DRIFT])
    state, first = policy.decide(PolicyState(), drifting("age"), NOON)
    assert first.action is Action.RETRAIN
    state = policy.finished(state, Ending.SUCCEEDED)
    for hours in range(1, 100):
        state, decision = policy.decide(state, drifting("age"), NOON + hours * HOUR)
        assert decision.because is Because.STANDING
    state, _ = policy.decide(state, View(), NOON + 100 * HOUR)  # silence is not recovery
    assert policy.decide(state, drifting("age"), NOON + 101 * HOUR)[1].action is Action.HOLD
    state, _ = policy.decide(state, View(findings=[finding(state="ok")]), NOON + 102 * HOUR)
    assert policy.decide(state, drifting("age"), NOON + 103 * HOUR)[1].action is Action.RETRAIN


def test_drift_of_another_subject_or_of_the_promoted_version_is_new() -> None:
    policy = Policy(rules=[DRIFT])
    state, _ = policy.decide(PolicyState(), drifting("age"), NOON)
    state = policy.finished(state, Ending.SUCCEEDED)
    later = NOON + 7 * HOUR
    assert policy.decide(state, drifting("age", "income"), later)[1].action is Action.RETRAIN
    promoted = View(findings=[finding(version="2", reference="sha256:bb")])
    assert policy.decide(state, promoted, later)[1].action is Action.RETRAIN


def test_poor_quality_must_recover_before_it_counts_again() -> None:
    policy = Policy(rules=[QUALITY], cooldown_s=0.0)
    poor, unsure, good = (
        View(quality=[accuracy(value, half)])
        for value, half in ((0.70, 0.03), (0.78, 0.05), (0.85, 0.02))
    )
    state, first = policy.decide(PolicyState(), poor, NOON)
    assert first.action is Action.RETRAIN
    state = policy.finished(state, Ending.SUCCEEDED)
    for view in (poor, unsure, poor):
        state, decision = policy.decide(state, view, NOON + HOUR)
        assert decision.action is Action.HOLD
    state, _ = policy.decide(state, good, NOON + 2 * HOUR)
    assert policy.decide(state, poor, NOON + 3 * HOUR)[1].action is Action.RETRAIN


def test_a_trigger_during_a_run_joins_it_and_is_looked_at_again_at_its_end() -> None:
    policy = Policy(rules=[DRIFT], cooldown_s=0.0)
    state, first = policy.decide(PolicyState(), drifting("age"), NOON)
    state, held = policy.decide(state, drifting("age", "income"), NOON + 60)
    assert held.because is Because.IN_FLIGHT
    assert held.reason.startswith(f"joined to the run in flight ({first.id})")
    assert state.coalesced == {"drift"}
    state = policy.finished(state, Ending.SUCCEEDED)
    assert state.coalesced == frozenset()
    assert policy.decide(state, drifting("age"), NOON + 120)[1].because is Because.STANDING
    state, again = policy.decide(state, drifting("age", "income"), NOON + 120)
    assert again.action is Action.RETRAIN
    state = policy.finished(state, Ending.SUCCEEDED)
    assert policy.decide(state, drifting("age", "income"), NOON + 180)[1].action is Action.HOLD


def test_failed_runs_may_be_tried_again_but_not_for_ever() -> None:
    policy = Policy(rules=[DRIFT], runs_per_day_max=99)
    state, starts = PolicyState(), 0
    for hours in range(0, 100, 7):
        state, decision = policy.decide(state, drifting("age"), NOON + hours * HOUR)
        if decision.action is Action.RETRAIN:
            starts += 1
            state = policy.finished(state, Ending.FAILED)
    assert starts == policy.failures_max


def test_the_cooldown_and_the_days_budget_hold_with_their_numbers() -> None:
    policy = Policy(rules=[DRIFT], cooldown_s=HOUR, runs_per_day_max=2)
    state, reasons = PolicyState(), []
    for number, minutes in enumerate((0, 30, 61, 200, 24 * 60 + 1)):
        state, decision = policy.decide(state, drifting(f"x{number}"), NOON + minutes * 60)
        reasons.append((decision.because, decision.reason.split(":")[0]))
        if decision.action is Action.RETRAIN:
            state = policy.finished(state, Ending.SUCCEEDED)
    assert reasons == [
        (Because.FIRED, "drift"),
        (Because.COOLDOWN, "last run 1800 s ago < cooldown 3600 s"),
        (Because.FIRED, "drift"),
        (Because.BUDGET, "2 runs in 24 h >= 2 a day"),
        (Because.FIRED, "drift"),
    ]


def test_a_person_overrides_cooldown_budget_and_a_rollout_but_not_a_run_in_flight() -> None:
    policy = Policy(rules=[DRIFT], runs_per_day_max=1)
    ask = View(request=Request(actor="ada", reason="new data"), busy="the rollout of v2")
    state, first = policy.decide(PolicyState(starts=(NOON - 1,)), ask, NOON)
    assert (first.action, first.because) == (Action.RETRAIN, Because.OPERATOR)
    assert (first.actor, first.reason) == ("ada", "ada asks: new data")
    state, second = policy.decide(state, ask, NOON + 1)
    assert second.because is Because.IN_FLIGHT
    assert state.coalesced == {"operator"}


def test_a_person_may_ask_for_compression() -> None:
    ask = View(request=Request(actor="ada", reason="too slow", action=Action.COMPRESS))
    assert look(Policy(rules=[]), (NOON, ask)).action is Action.COMPRESS


@pytest.mark.parametrize("view", [drifting("age"), View(request=Request(actor="a", reason="b"))])
@pytest.mark.parametrize(
    ("policy", "because"),
    [
        (Policy(rules=[DRIFT], role=Role.SIDECAR), Because.ROLE),
        (Policy(rules=[DRIFT], enabled=False), Because.DISABLED),
    ],
)
def test_a_sidecar_or_a_disabled_agent_never_starts_but_says_what_it_saw(
    policy: Policy, because: Because, view: View
) -> None:
    decision = look(policy, (NOON, view))
    assert decision.action is Action.HOLD
    assert decision.because is because
    assert "asks" in decision.reason or "1 subject in drift" in decision.reason


def test_a_rollout_under_way_holds_automatic_runs() -> None:
    decision = look(Policy(rules=[DRIFT]), (NOON, replace(drifting("age"), busy="rollout of v2")))
    assert decision.because is Because.BUSY
    assert decision.reason.startswith("waits for rollout of v2: drift: 1 subject")


def test_deciding_twice_over_the_same_state_gives_one_id() -> None:
    policy = Policy(rules=[DRIFT])
    before, later = (
        policy.decide(PolicyState(), drifting("age"), now)[1] for now in (NOON, NOON + 9)
    )
    assert before.id == later.id
    state, _ = policy.decide(PolicyState(), drifting("age"), NOON)
    state = policy.finished(state, Ending.FAILED)
    assert policy.decide(state, drifting("age"), NOON + DAY)[1].id != before.id


def test_held_decisions_keep_their_id_while_only_numbers_move() -> None:
    policy = Policy(rules=[QUALITY])
    first, second = (
        look(policy, (NOON, View(quality=[accuracy(value, 0.01)]))) for value in (0.91, 0.93)
    )
    assert first.id == second.id
    assert first.reason != second.reason


VIEWS = st.builds(
    View,
    findings=st.lists(
        st.builds(
            finding,
            st.sampled_from(["age", "income"]),
            st.sampled_from(["ok", "warning", "drift", "insufficient_data"]),
            version=st.sampled_from(["1", "2"]),
        ),
        max_size=4,
    ),
    quality=st.lists(
        st.builds(accuracy, st.floats(0, 1), st.none() | st.floats(0, 0.2), st.integers(0, 999)),
        max_size=1,
    ),
    busy=st.none() | st.just("rollout"),
)
ENDINGS = st.none() | st.sampled_from(Ending)
LOOKS = st.lists(st.tuples(st.floats(1, 2 * DAY), VIEWS, ENDINGS), max_size=40)


@given(LOOKS)
def test_brakes_hold_whatever_comes(looks: Sequence[tuple[float, View, Ending | None]]) -> None:
    policy = Policy(rules=[DRIFT, QUALITY, NIGHTLY], cooldown_s=HOUR, runs_per_day_max=3)
    state, now, starts, ids = PolicyState(), NOON, [], set()
    for wait, view, ending in looks:
        now += wait
        in_flight = state.in_flight
        assert policy.decide(state, view, now) == policy.decide(state, view, now)
        state, decision = policy.decide(state, view, now)
        assert decision.reason
        if decision.action is Action.RETRAIN:
            assert in_flight is None
            assert view.busy is None
            assert decision.id not in ids
            ids.add(decision.id)
            starts.append(now)
        if ending is not None and state.in_flight is not None:
            state = policy.finished(state, ending)
        state = PolicyState.from_json(json.loads(json.dumps(state.to_json())))
    assert all(later - earlier >= HOUR for earlier, later in pairwise(starts))
    assert all(sum(start - DAY < one <= start for one in starts) <= 3 for start in starts)
    assert not any(key.startswith("schedule") for key in state.acted)
