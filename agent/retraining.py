"""From readings to an artifact: the policy looks, a run is made, its commands are performed here.

What is decided and what must be sent are on disk before anything is started: a crash between the
two finds the run again and performs its outstanding commands once more, which does no harm.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from agent.admin.view import CallbackAnswer, Refused
from agent.config import Config
from agent.policy_wiring import policy, quality_of
from agent.run_work import RunWork, Submit
from agent.training_data import TrainingData
from agent.version_watch import VersionWatch
from agent.webhook_wiring import callback_root, guard, guarded_client, targets
from detectors import Reading
from retrain.decision import Action, Because, Decision, Finding
from retrain.ledger import Ledger, LedgerError
from retrain.policy import Ending, Request, Role, View
from retrain.policy_store import PolicyStore
from retrain.run import ENDS, Run, RunLimits, RunState, Via, outstanding, run_id
from retrain.run_dialogue import (
    ArtifactSource,
    Command,
    Event,
    Reported,
    Tick,
)
from retrain.run_store import RunStore
from retrain.webhooks.bodies import Ask, EventType, drift_changed
from retrain.webhooks.callback import CallbackMalformed, CallbackRefused, Inbox
from retrain.webhooks.delivery import Delivery
from retrain.webhooks.outbox import Outbox

log = structlog.get_logger("remora.retraining")

FINDINGS_STANDING_MAX = 5_000
DELIVER_AGAIN_S = 5.0
PRUNE_EVERY_S = 3_600.0
# What was delivered and what was called back: long enough for anybody's questions and retries.
KEPT_S = 7 * 86_400.0
# Ticks whose times are remembered: evidence that grew for longer began before all of them.
TICKS_REMEMBERED = 5_000

# States that others are told of.
CHANGED = {"drift": EventType.DRIFT_DETECTED, "ok": EventType.DRIFT_RECOVERED}


class Retraining:
    """Policy, runs, webhooks out and callbacks in, for one model."""

    def __init__(
        self,
        config: Config,
        *,
        role: str,
        ledger: Ledger,
        state_dir: Path,
        data: TrainingData,
        stable_digest: Callable[[], str | None],
        stable_artifact: Callable[[], Path | None],
        submit: Submit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._role = Role(role)
        self._ledger = ledger
        self._data = data
        self._stable_digest = stable_digest
        self._clock = clock
        self._callback_root = callback_root(config, state_dir)
        self._targets = targets(config, self._callback_root)
        self._policy_store = PolicyStore(ledger, config.model.name)
        self._ticks: deque[tuple[int, float]] = deque(maxlen=TICKS_REMEMBERED)
        self.outbox = Outbox(ledger)
        self.runs = RunStore(ledger, self.outbox, self._targets)
        self._inbox = Inbox(ledger, self._callback_root)
        self._client = guarded_client(config)
        self.delivery = Delivery(
            ledger=ledger,
            outbox=self.outbox,
            targets=self._targets,
            client=self._client,
            timeout_s=config.webhooks.timeout_s,
            settled=self.runs.settled,
            clock=clock,
        )
        self._policy = policy(config, self._role)
        self._state = self._policy_store.load()
        self._standing: dict[tuple[str, ...], Finding] = {}
        self.work = RunWork(
            config=lambda: self._config,
            runs=self.runs,
            ledger=ledger,
            client=self._client,
            data=data,
            work_dir=state_dir / "runs",
            stable_artifact=stable_artifact,
            apply=self._apply,
            submit=submit,
            clock=clock,
        )
        self._delivering: asyncio.Task[None] | None = None
        self._prune_at = 0.0
        self.last_decision: Decision | None = None

    # Life.

    async def start(self, findings: Sequence[Finding]) -> None:
        """Deliver what is pending, and perform again what a crash interrupted."""
        for finding in findings:
            if not _is_improvement(finding):
                self._remember(finding)
        self._delivering = asyncio.get_running_loop().create_task(self._deliver())
        runs = {run.id: run for run in self.runs.in_flight()}
        if self._state.in_flight is not None:
            # Its artifact may be there while nobody has said yet what the gates think of it.
            run = self.runs.find(run_id(self._state.in_flight))
            if run is not None:
                runs[run.id] = run
        for run in runs.values():
            self.work.perform(outstanding(run))

    async def _deliver(self) -> None:
        """The delivery, for as long as we live: without it no run is ever asked for."""
        while True:
            try:
                await self.delivery.run()
            except Exception:
                log.exception("the delivery of webhooks failed, it begins again")
            await asyncio.sleep(DELIVER_AGAIN_S)

    async def stop(self) -> None:
        """Jobs end with us; the run is found again at the next start."""
        if self._delivering is not None:
            self._delivering.cancel()
        await self.work.stop()
        await self._client.aclose()

    def reconfigure(self, config: Config) -> None:
        """Triggers, cooldown, budget, targets and who may be called change at once."""
        self._config = config
        self._client.allow(guard(config), timeout_s=config.webhooks.timeout_s)
        self.delivery.timeout_s = config.webhooks.timeout_s
        self._policy = policy(config, self._role)
        try:
            fresh = targets(config, self._callback_root)
        except ValueError as error:
            log.error("webhook targets not reloaded", error=str(error))
            return
        # The same mapping is what the runs and the delivery look into.
        self._targets.clear()
        self._targets.update(fresh)
        self.delivery.wake()

    # Readings and the policy.

    def on_tick(self, rows: int, opened_at: float) -> None:
        """The stable version's rows so far, and when the tick that brought them was opened."""
        self._ticks.append((rows, opened_at))

    def on_readings(self, readings: Sequence[Reading]) -> None:
        """Changes of state of the stable version: remembered for the policy, and told to others."""
        findings = [reading.to_json() for reading in readings]
        for finding in findings:
            if not _is_improvement(finding):
                self._remember(finding)
        news = [finding for finding in findings if finding["state"] in CHANGED]
        if not news or self._role is Role.SIDECAR:
            return
        try:
            # One transaction: a thousand features that drift together are one wait for the disk.
            with self._ledger.transaction():
                for finding in news:
                    self._publish(CHANGED[finding["state"]], finding)
        except LedgerError as error:
            # The policy goes by what is remembered; only the telling is lost.
            log.error("drift not announced", findings=len(news), error=str(error))

    def forget_standing(self) -> None:
        """Another model is stable now: what stood against the one before says nothing of it."""
        self._standing.clear()
        self._ticks.clear()

    def _remember(self, finding: Finding) -> None:
        names = ("kind", "scope", "subject", "version", "reference")
        key = tuple(str(finding[name]) for name in names)
        if key in self._standing or len(self._standing) < FINDINGS_STANDING_MAX:
            self._standing[key] = finding

    def _publish(self, event: EventType, finding: Finding) -> None:
        key = f"{finding['subject']}|{finding['at']}|{finding['row']}|{finding['version']}"
        self.publish(event, key, drift_changed(model=self._config.model.name, finding=finding))

    def publish(self, event: str, key: str, data: Mapping[str, Any]) -> None:
        """One event for everybody who wants it; the same key again has no effect."""
        with self._ledger.transaction():
            for name, target in self._targets.items():
                if event in target.events:
                    self.outbox.enqueue(
                        key=key, target=name, event_type=event, at=self._clock(), data=data
                    )
        self.delivery.wake()

    def look(
        self,
        watch: VersionWatch | None,
        *,
        busy: str | None,
        request: Request | None = None,
    ) -> Decision:
        """One look of the policy; a run is on disk when this returns, if one was decided."""
        now = self._clock()
        view = View(
            findings=tuple(self._standing.values()),
            quality=quality_of(watch),
            request=request,
            busy=busy,
        )
        with self._ledger.transaction():
            state, decision = self._policy.decide(self._state, view, now)
            self._policy_store.keep(state, decision if _worth_noting(decision) else None)
            commands: tuple[Command, ...] = ()
            if decision.action is not Action.HOLD:
                commands = self._request(decision, now)
        self._state = state
        self.last_decision = decision
        self.work.perform(commands)
        if decision.action is not Action.HOLD:
            log.info("retraining decided", reason=decision.reason, run=run_id(decision.id))
            self.delivery.wake()
        return decision

    def _request(self, decision: Decision, now: float) -> tuple[Command, ...]:
        settings = self._config.retrain
        id = run_id(decision.id)
        public_url = self._config.admin.public_url
        ask = Ask(
            run_id=id,
            model=self._config.model.name,
            stable=self._stable_digest(),
            decision=decision,
            window=self._window(id, decision.to_json()),
            recipe=settings.recipe,
            callback_url=None
            if public_url is None
            else f"{public_url.rstrip('/')}/api/v1/runs/{id}/callback",
            deadline_at=now + settings.deadline_s,
        )
        _, commands = self.runs.request(
            ask,
            via=Via.LOCAL if settings.via == "local" else Via.WEBHOOK,
            target=settings.target if settings.via == "webhook" else None,
            fallback=settings.fallback == "local",
            limits=RunLimits(deadline_s=settings.deadline_s),
            now=now,
        )
        return commands

    def _window(self, id: str, decision: Mapping[str, Any]) -> dict[str, Any]:
        """The rows to learn from, and where CI can get them."""
        since = self._since(decision)
        window = self._data.window() | {"from": since}
        with self._ledger.transaction() as inside:
            inside.execute("INSERT OR IGNORE INTO run_window VALUES (?, ?)", (id, since))
        public_url = self._config.admin.public_url
        if public_url is not None:
            window["data_url"] = f"{public_url.rstrip('/')}/api/v1/runs/{id}/data"
        return window

    def _since(self, decision: Mapping[str, Any]) -> float | None:
        """When the evidence that the decision rests on began to grow, in unix seconds."""
        starts = [finding["window"]["from"] for finding in decision["findings"]]
        if not starts or not self._ticks:
            return None
        first = min(starts)
        return next((at for rows, at in self._ticks if rows > first), None)

    # Runs.

    def tick(self) -> None:
        """Deadlines, and runs that ended without the policy having heard."""
        now = self._clock()
        for id in self.runs.due(now):
            self._apply(id, Tick())
        if self._state.in_flight is not None:
            run = self.runs.find(run_id(self._state.in_flight))
            # A produced artifact is on its way to the gates: `ended` tells the policy.
            if run is None or (run.ended and run.state is not RunState.PRODUCED):
                failed = run is None or run.state is not RunState.CANCELLED
                self.ended(Ending.FAILED if failed else Ending.CANCELLED)
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_S
            self.outbox.prune(now - KEPT_S)
            self._inbox.prune(now - KEPT_S)
            busy = {run.id for run in self.runs.in_flight()}
            if self._state.in_flight is not None:
                busy.add(run_id(self._state.in_flight))
            self.work.tidy(busy)

    def ended(self, ending: Ending) -> None:
        """How the run in flight came out, gates included."""
        self._state = self._policy.finished(self._state, ending)
        self._policy_store.keep(self._state)

    def _apply(self, id: str, event: Event, *, actor: str = "runner") -> Run:
        run, commands = self.runs.apply(id, event, self._clock(), actor=actor)
        self.work.perform(commands)
        if run.state in ENDS:
            self.delivery.wake()
        return run

    # Callbacks.

    def callback(self, id: str, headers: dict[str, str], body: bytes) -> CallbackAnswer:
        """One callback of CI, judged and applied. A duplicate is answered 200 without effect."""
        try:
            with self._ledger.transaction():
                accepted = self._inbox.accept(headers, body, run_id=id, now=self._clock())
                run = self.runs.find(id)
                if run is None:
                    # Signed with the secret of a run that never was: as good as not signed.
                    raise CallbackRefused
                if accepted.duplicate:
                    return CallbackAnswer(status=200, body={"state": run.state, "duplicate": True})
                report = accepted.report
                source = None
                if report.artifact is not None:
                    source = ArtifactSource(
                        url=report.artifact.url,
                        sha256=report.artifact.sha256,
                        size_bytes=report.artifact.bytes,
                    )
                event = Reported(
                    status=report.status.value,
                    artifact=source,
                    metrics=report.metrics or {},
                    external_url=report.external_url,
                )
                run, commands = self.runs.apply(id, event, self._clock(), actor="ci")
        except CallbackRefused:
            return CallbackAnswer(status=401, body={"error": "not accepted"})
        except CallbackMalformed as error:
            return CallbackAnswer(status=error.status, body={"error": str(error)})
        except LedgerError as error:
            raise Refused(503, str(error)) from error
        self.work.perform(commands)
        self.delivery.wake()
        return CallbackAnswer(status=200, body={"state": run.state, "duplicate": False})


def _is_improvement(finding: Finding) -> bool:
    """Fewer errors than before are worth telling, and no reason to retrain."""
    effect = finding.get("effect") or {}
    return effect.get("name") == "error_rate_change" and (effect.get("value") or 0.0) < 0.0


def _worth_noting(decision: Decision) -> bool:
    """A quiet look is no news: only what started something, or stopped somebody, is kept."""
    return decision.because not in (Because.QUIET, Because.STANDING)
