"""A run only moves as the table says, always has a way out, and hears everything once."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retrain.decision import Action, Because, Decision
from retrain.run import (
    OPEN,
    TRANSITIONS,
    Run,
    RunLimits,
    RunState,
    Signal,
    Via,
    advance,
    begin,
    outstanding,
    run_id,
)
from retrain.run_dialogue import (
    ArtifactSource,
    Begin,
    Broke,
    Cancel,
    Command,
    Delivered,
    Event,
    FetchArtifact,
    FetchFailed,
    Finished,
    PostWebhook,
    Reported,
    RevokeWebhook,
    StartPipeline,
    StopPipeline,
    SubmitArtifact,
    Tick,
    Undeliverable,
)
from retrain.webhooks.bodies import Ask

NOON = 1_700_000_000.0
LIMITS = RunLimits(deadline_s=100.0, total_s_max=1_000.0)
SOURCE = ArtifactSource(url="https://ci.example.com/a.tar", sha256="ab" * 32, size_bytes=9)
DONE = Finished(artifact="artifacts/ab", sha256="ab" * 32)


def ask(decision_id: str = "dec_1", action: Action = Action.RETRAIN) -> Ask:
    decision = Decision(
        id=decision_id,
        at=NOON,
        action=action,
        because=Because.FIRED,
        policy="drift",
        reason="drift: 1 subject in drift (age psi 0.31) >= quorum 1",
    )
    return Ask(
        run_id=run_id(decision_id),
        model="income",
        stable="sha256:aa",
        decision=decision,
        window={"rows": 5000},
        recipe=None,
        callback_url="https://remora.example.com/api/v1/runs/run_1/callback",
        deadline_at=NOON + LIMITS.deadline_s,
    )


def requested(via: Via = Via.WEBHOOK, *, fallback: bool = False) -> Run:
    return begin(
        ask(), trigger="drift", via=via, target="ci", fallback=fallback, limits=LIMITS, now=NOON
    )


def told(run: Run, *events: Event, at: float = NOON + 1) -> tuple[Run, tuple[Command, ...]]:
    commands: tuple[Command, ...] = ()
    for event in events:
        run, commands = advance(run, event, at)
    return run, commands


def test_an_external_run_asks_waits_fetches_and_submits() -> None:
    run, commands = told(requested(), Begin())
    assert run.state is RunState.WAITING
    (post,) = commands
    assert isinstance(post, PostWebhook)
    assert post.deadline_at == run.deadline_at
    run, commands = told(run, Delivered(external_id="7", external_url="https://ci/7"))
    assert (run.state, commands, run.external_id) == (RunState.WAITING, (), "7")
    run, commands = told(run, Reported(status="succeeded", artifact=SOURCE))
    assert run.state is RunState.FETCHING
    assert commands == (
        RevokeWebhook(run_id="run_1"),
        FetchArtifact(run_id="run_1", source=SOURCE, attempt=1, not_before=NOON + 1),
    )
    run, commands = told(run, DONE)
    assert run.state is RunState.PRODUCED
    assert commands == (SubmitArtifact(run_id="run_1", artifact="artifacts/ab", sha256="ab" * 32),)


def test_a_local_run_trains_here() -> None:
    run, commands = told(requested(Via.LOCAL), Begin())
    assert run.state is RunState.RUNNING
    assert isinstance(commands[0], StartPipeline)
    assert told(run, DONE)[0].state is RunState.PRODUCED
    failed, _ = told(run, Broke(reason="loss is not finite"))
    assert (failed.state, failed.reason) == (RunState.FAILED, "loss is not finite")


@pytest.mark.parametrize("event", [Undeliverable(reason="answered 410"), Tick()])
def test_who_cannot_be_asked_in_time_is_replaced_by_the_local_pipeline(event: Event) -> None:
    run, _ = told(requested(fallback=True), Begin())
    run, commands = told(run, event, at=run.deadline_at)
    assert (run.state, run.via) == (RunState.RUNNING, Via.LOCAL)
    assert run.reason.startswith("nobody could be asked: ")
    assert commands == (
        RevokeWebhook(run_id="run_1"),
        StartPipeline(run_id="run_1", recipe=None, deadline_at=run.deadline_at),
    )
    assert run.deadline_at == NOON + 201


def test_a_ci_that_wakes_up_late_does_not_disturb_its_replacement() -> None:
    run, _ = told(requested(fallback=True), Begin(), Undeliverable(reason="answered 410"))
    for late in (
        Delivered(),
        Undeliverable(reason="x"),
        Reported(status="failed"),
        Reported(status="succeeded", artifact=SOURCE),
        FetchFailed(attempt=0, reason="x", lasting=True),
    ):
        assert told(run, late) == (run, ())


def test_without_a_fallback_it_fails_or_times_out() -> None:
    run, _ = told(requested(), Begin())
    assert told(run, Undeliverable(reason="answered 410"))[0].state is RunState.FAILED
    assert told(run, Tick(), at=run.deadline_at)[0].state is RunState.TIMED_OUT


def test_a_ci_that_was_asked_and_fell_silent_is_not_replaced() -> None:
    run, _ = told(requested(fallback=True), Begin(), Delivered())
    run, commands = told(run, Tick(), at=run.deadline_at)
    assert run.state is RunState.TIMED_OUT
    assert run.reason == "waiting for longer than it may (100 s)"
    assert commands == (RevokeWebhook(run_id="run_1"),)


def test_a_word_from_ci_gives_time_but_not_for_ever() -> None:
    run, _ = told(requested(), Begin())
    for now in range(50, 2_000, 50):
        run, commands = told(run, Reported(status="running"), at=NOON + now)
        assert commands == ()
        assert run.deadline_at == NOON + min(now + 100, 1_000)
    assert told(run, Tick(), at=NOON + 1_000)[0].state is RunState.TIMED_OUT


def test_ci_may_call_back_before_the_delivery_knows_it_delivered() -> None:
    run, _ = told(requested(), Begin(), Reported(status="succeeded", artifact=SOURCE))
    assert run.state is RunState.FETCHING
    for late in (Delivered(), Undeliverable(reason="lost"), Reported(status="failed")):
        assert told(run, late) == (run, ())


def test_a_failed_report_fails_the_run() -> None:
    run, _ = told(requested(), Begin(), Reported(status="failed", external_url="https://ci/7"))
    assert (run.state, run.reason) == (RunState.FAILED, "CI reported failed")
    assert run.external_url == "https://ci/7"


def test_fetching_is_tried_again_with_growing_waits_then_given_up() -> None:
    run, _ = told(requested(), Begin(), Reported(status="succeeded", artifact=SOURCE))
    waits = []
    for attempt in (1, 2):
        event = FetchFailed(attempt=attempt, reason="answered 502", lasting=False)
        run, commands = told(run, event, at=NOON + 2)
        (again,) = commands
        assert isinstance(again, FetchArtifact)
        waits.append(again.not_before - NOON - 2)
        assert told(run, event) == (run, ())  # news of an old attempt
    assert waits == [10.0, 20.0]
    run, _ = told(run, FetchFailed(attempt=3, reason="answered 502", lasting=False))
    assert run.state is RunState.FAILED
    assert run.reason == "fetching failed (3 of 3): answered 502"


def test_a_wrong_digest_is_not_fetched_again() -> None:
    run, _ = told(requested(), Begin(), Reported(status="succeeded", artifact=SOURCE))
    run, _ = told(run, FetchFailed(attempt=1, reason="sha256", lasting=True))
    assert run.state is RunState.FAILED


def test_cancelling_stops_what_runs() -> None:
    run, _ = told(requested(Via.LOCAL), Begin())
    run, commands = told(run, Cancel(actor="ada", reason="wrong data"))
    assert (run.state, run.reason) == (RunState.CANCELLED, "ada: wrong data")
    assert commands == (StopPipeline(run_id="run_1"),)


def test_a_restart_takes_up_what_was_under_way() -> None:
    local, commands = told(requested(Via.LOCAL), Begin())
    assert outstanding(local) == commands
    fetching, _ = told(requested(), Begin(), Reported(status="succeeded", artifact=SOURCE))
    (again,) = outstanding(fetching)
    assert isinstance(again, FetchArtifact)
    assert outstanding(told(requested(), Begin())[0]) == ()


def test_the_table_is_whole() -> None:
    assert {state for state, _ in TRANSITIONS} == OPEN
    for state in OPEN:
        assert TRANSITIONS[state, Signal.EXPIRE] is RunState.TIMED_OUT
        assert TRANSITIONS[state, Signal.CANCEL] is RunState.CANCELLED
    assert {signal for _, signal in TRANSITIONS} == set(Signal)


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.just(Begin()),
    st.builds(Delivered, external_id=st.none() | st.just("7")),
    st.just(Undeliverable(reason="answered 410")),
    st.builds(
        Reported,
        status=st.sampled_from(["running", "succeeded", "failed"]),
        artifact=st.none() | st.just(SOURCE),
        metrics=st.sampled_from([{}, {"accuracy": 0.9}]),
    ),
    st.just(DONE),
    st.just(Broke(reason="x")),
    st.builds(FetchFailed, attempt=st.integers(0, 4), reason=st.just("x"), lasting=st.booleans()),
    st.just(Cancel(actor="ada", reason="x")),
    st.just(Tick()),
)


class RunLife(RuleBasedStateMachine):
    """Events in any order, with any gaps, each told twice."""

    def __init__(self) -> None:
        super().__init__()
        self.run = requested(fallback=True)
        self.now = NOON

    @rule(event=EVENTS, wait_s=st.sampled_from([0.0, 1.0, 60.0, 100.0, 500.0]))
    def tell(self, event: Event, wait_s: float) -> None:
        self.now += wait_s
        before = self.run
        self.run, commands = advance(before, event, self.now)
        if before.ended:
            assert (self.run, commands) == (before, ())
        if self.run.state is not before.state:
            ways = {to for (at, _), to in TRANSITIONS.items() if at is before.state}
            assert self.run.state in ways
            assert self.run.seq == before.seq + 1
        assert advance(self.run, event, self.now) == (self.run, ())

    @precondition(lambda self: not self.run.ended)
    @invariant()
    def time_alone_leads_out(self) -> None:
        run = self.run
        for _ in range(2):  # at most: waiting, then the fallback
            run, _commands = advance(run, Tick(), max(run.deadline_at, self.now))
        assert run.ended

    @invariant()
    def it_cannot_outlive_its_limits(self) -> None:
        limit = LIMITS.total_s_max + LIMITS.deadline_s
        assert self.run.deadline_at <= max(self.now, NOON) + limit


TestRunLife = RunLife.TestCase
