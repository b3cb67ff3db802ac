"""One retraining or compression, from the request to an artifact, as a table of states.

`advance(run, event, now)` is pure: what is not in `TRANSITIONS` does not happen, and an event that
comes again changes nothing. Every state that is not an end has a deadline, and `Tick` is its way
out. `retrain.run_store` keeps runs; a runner performs the commands and reports back by events.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

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


class RunState(StrEnum):
    """Where a run is."""

    REQUESTED = "requested"
    WAITING = "waiting"  # somebody outside was asked
    RUNNING = "running"  # the pipeline of this machine
    FETCHING = "fetching"  # an artifact was announced
    PRODUCED = "produced"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


ENDS: Final = frozenset(
    {RunState.PRODUCED, RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELLED}
)
OPEN: Final = frozenset(RunState) - ENDS


class Via(StrEnum):
    """Who trains."""

    WEBHOOK = "webhook"
    LOCAL = "local"


class Signal(StrEnum):
    """What an event means to a run; the second key of the table."""

    ASK = "ask"
    TRAIN_HERE = "train_here"
    HEARD = "heard"  # still waiting, but something is known: delivered, or CI says running
    ANNOUNCED = "announced"
    ARRIVED = "arrived"
    AGAIN = "again"  # fetching failed, another attempt is due
    BROKE = "broke"
    EXPIRE = "expire"
    CANCEL = "cancel"


TRANSITIONS: Final[Mapping[tuple[RunState, Signal], RunState]] = {
    (RunState.REQUESTED, Signal.ASK): RunState.WAITING,
    (RunState.REQUESTED, Signal.TRAIN_HERE): RunState.RUNNING,
    (RunState.REQUESTED, Signal.EXPIRE): RunState.TIMED_OUT,
    (RunState.REQUESTED, Signal.CANCEL): RunState.CANCELLED,
    (RunState.WAITING, Signal.HEARD): RunState.WAITING,
    (RunState.WAITING, Signal.TRAIN_HERE): RunState.RUNNING,
    (RunState.WAITING, Signal.ANNOUNCED): RunState.FETCHING,
    (RunState.WAITING, Signal.BROKE): RunState.FAILED,
    (RunState.WAITING, Signal.EXPIRE): RunState.TIMED_OUT,
    (RunState.WAITING, Signal.CANCEL): RunState.CANCELLED,
    (RunState.RUNNING, Signal.ARRIVED): RunState.PRODUCED,
    (RunState.RUNNING, Signal.BROKE): RunState.FAILED,
    (RunState.RUNNING, Signal.EXPIRE): RunState.TIMED_OUT,
    (RunState.RUNNING, Signal.CANCEL): RunState.CANCELLED,
    (RunState.FETCHING, Signal.ARRIVED): RunState.PRODUCED,
    (RunState.FETCHING, Signal.AGAIN): RunState.FETCHING,
    (RunState.FETCHING, Signal.BROKE): RunState.FAILED,
    (RunState.FETCHING, Signal.EXPIRE): RunState.TIMED_OUT,
    (RunState.FETCHING, Signal.CANCEL): RunState.CANCELLED,
}

# Where an event means anything: a CI that calls late must not fail the pipeline that replaced it.
HEARD_IN: Final[Mapping[type[Event], frozenset[RunState]]] = {
    Begin: frozenset({RunState.REQUESTED}),
    Delivered: frozenset({RunState.WAITING}),
    Undeliverable: frozenset({RunState.WAITING}),
    Reported: frozenset({RunState.WAITING}),
    Finished: frozenset({RunState.RUNNING, RunState.FETCHING}),
    Broke: frozenset({RunState.RUNNING}),
    FetchFailed: frozenset({RunState.FETCHING}),
    Cancel: OPEN,
    Tick: OPEN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """How long and how often; times in seconds."""

    deadline_s: float = 3_600.0  # to deliver, to hear something, to train here, to fetch: each
    total_s_max: float = 86_400.0  # of a run whose CI keeps saying `running`
    fetch_attempts_max: int = 3
    fetch_wait_s: float = 10.0  # before the second attempt; doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. `seq` counts its transitions; everything else is as of the last one."""

    id: str
    decision_id: str
    trigger: str  # the policy that asked: a metric label
    model: str
    via: Via
    target: str | None  # whom the webhook asks
    fallback: bool  # train here when nobody could be asked
    recipe: str | None
    limits: RunLimits
    requested_at: float  # unix seconds, as the next
    deadline_at: float
    state: RunState = RunState.REQUESTED
    seq: int = 0
    delivered: bool = False
    external_id: str | None = None
    external_url: str | None = None
    source: ArtifactSource | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)  # CI's words, shown and not trusted
    fetch_attempt: int = 0  # the one under way, from 1
    artifact: str | None = None  # path of what was produced
    sha256: str | None = None
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Nothing can happen to it any more."""
        return self.state in ENDS


def begin(
    ask: Ask,
    *,
    trigger: str,
    via: Via,
    target: str | None,
    fallback: bool,
    limits: RunLimits,
    now: float,
) -> Run:
    """A requested run. Its id follows from the decision's, so one decision makes one run."""
    if via is Via.WEBHOOK and target is None:
        raise ValueError("a run by webhook needs a target")
    return Run(
        id=ask.run_id,
        decision_id=ask.decision.id,
        trigger=trigger,
        model=ask.model,
        via=via,
        target=target,
        fallback=fallback,
        recipe=ask.recipe,
        limits=limits,
        requested_at=now,
        deadline_at=now + limits.deadline_s,
    )


def run_id(decision_id: str) -> str:
    """The id of the run of a decision.

    >>> run_id("dec_0123")
    'run_0123'
    """
    return "run_" + decision_id.removeprefix("dec_")


def advance(run: Run, event: Event, now: float) -> tuple[Run, tuple[Command, ...]]:
    """What the event makes of the run at `now` (unix seconds), and what is to be done.

    The same run comes back, with nothing to do, when the event means nothing to it.
    """
    told = _told(run, event, now) if run.state in HEARD_IN[type(event)] else None
    if told is None:
        return run, ()
    signal, changed = told
    state = TRANSITIONS.get((run.state, signal))
    if state is None or (state is run.state and changed == run):
        return run, ()
    if state not in (run.state, *ENDS):
        changed = replace(changed, deadline_at=now + run.limits.deadline_s)
    changed = replace(changed, state=state, seq=run.seq + 1)
    return changed, _commands(run, changed, now)


def outstanding(run: Run) -> tuple[Command, ...]:
    """What a runner must perform again after a restart; performing it twice does no harm."""
    match run:
        case Run(state=RunState.RUNNING):
            return (_start(run),)
        case Run(state=RunState.FETCHING, source=ArtifactSource() as source):
            return (_fetch(run, source, 0.0),)
        case Run(state=RunState.PRODUCED, artifact=str(artifact), sha256=str(sha256)):
            return (SubmitArtifact(run_id=run.id, artifact=artifact, sha256=sha256),)
    return ()


def _told(run: Run, event: Event, now: float) -> tuple[Signal, Run] | None:
    """The signal that the event is to this run, and what the run learns from it."""
    match event:
        case Begin():
            return (Signal.ASK if run.via is Via.WEBHOOK else Signal.TRAIN_HERE), run
        case Delivered() | Reported(status="running"):
            return Signal.HEARD, _hearing(run, event, now)
        case Undeliverable():
            return None if run.delivered else _not_asked(run, event.reason)
        case Reported(status="succeeded", artifact=ArtifactSource() as source):
            return Signal.ANNOUNCED, replace(
                _hearing(run, event, now), source=source, fetch_attempt=1
            )
        case Reported():
            changed = replace(_hearing(run, event, now), reason=f"CI reported {event.status}")
            return Signal.BROKE, changed
        case Finished():
            return Signal.ARRIVED, replace(run, artifact=event.artifact, sha256=event.sha256)
        case Broke():
            return Signal.BROKE, replace(run, reason=event.reason)
        case FetchFailed():
            return _not_fetched(run, event)
        case Cancel():
            return Signal.CANCEL, replace(run, reason=f"{event.actor}: {event.reason}")
        case Tick():
            return _late(run, now)


def _hearing(run: Run, event: Delivered | Reported, now: float) -> Run:
    """The run knows that somebody works on it. The first word, and each `running`, give time."""
    deadline_at = run.deadline_at
    if isinstance(event, Reported) or not run.delivered:
        last = run.requested_at + run.limits.total_s_max
        deadline_at = max(run.deadline_at, min(now + run.limits.deadline_s, last))
    changed = replace(
        run,
        delivered=True,
        deadline_at=deadline_at,
        external_url=event.external_url or run.external_url,
    )
    if isinstance(event, Reported):
        return replace(changed, metrics=event.metrics or run.metrics)
    return replace(changed, external_id=event.external_id or run.external_id)


def _not_asked(run: Run, why: str) -> tuple[Signal, Run]:
    reason = f"nobody could be asked: {why}"
    if run.fallback:
        return Signal.TRAIN_HERE, replace(run, via=Via.LOCAL, reason=reason)
    return Signal.BROKE, replace(run, reason=reason)


def _not_fetched(run: Run, event: FetchFailed) -> tuple[Signal, Run] | None:
    if event.attempt != run.fetch_attempt:
        return None  # an old attempt's news
    attempts_max = run.limits.fetch_attempts_max
    reason = f"fetching failed ({event.attempt} of {attempts_max}): {event.reason}"
    if event.lasting or event.attempt >= attempts_max:
        return Signal.BROKE, replace(run, reason=reason)
    return Signal.AGAIN, replace(run, fetch_attempt=event.attempt + 1, reason=reason)


def _late(run: Run, now: float) -> tuple[Signal, Run] | None:
    if now < run.deadline_at:
        return None
    if run.state is RunState.WAITING and not run.delivered and run.fallback:
        return _not_asked(run, f"not delivered within {run.limits.deadline_s:.0f} s")
    reason = f"{run.state.value} for longer than it may ({run.limits.deadline_s:.0f} s)"
    return Signal.EXPIRE, replace(run, reason=reason)


def _commands(before: Run, run: Run, now: float) -> tuple[Command, ...]:
    """What a transition asks for: by the state that was left, then by the one entered."""
    commands: list[Command] = []
    if before.state is RunState.WAITING and run.state is not RunState.WAITING:
        commands.append(RevokeWebhook(run_id=run.id))
    if before.state is RunState.RUNNING and run.state in (RunState.TIMED_OUT, RunState.CANCELLED):
        commands.append(StopPipeline(run_id=run.id))
    match run:
        case Run(state=RunState.WAITING, target=str(target)) if before.state is not run.state:
            commands.append(PostWebhook(run_id=run.id, target=target, deadline_at=run.deadline_at))
        case Run(state=RunState.RUNNING):
            commands.append(_start(run))
        case Run(state=RunState.FETCHING, source=ArtifactSource() as source):
            waits = run.limits.fetch_wait_s * (2.0 ** (run.fetch_attempt - 2))
            not_before = now if run.fetch_attempt == 1 else now + waits
            commands.append(_fetch(run, source, not_before))
        case Run(state=RunState.PRODUCED):
            commands += outstanding(run)
    return tuple(commands)


def _start(run: Run) -> StartPipeline:
    return StartPipeline(run_id=run.id, recipe=run.recipe, deadline_at=run.deadline_at)


def _fetch(run: Run, source: ArtifactSource, not_before: float) -> FetchArtifact:
    return FetchArtifact(
        run_id=run.id, source=source, attempt=run.fetch_attempt, not_before=not_before
    )
