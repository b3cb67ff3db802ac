"""The performer of rollouts: events in from the edge, slots and people; commands out to them.

The table in `retrain.rollout` decides. Here every step is first on disk, then performed; whatever
was performed twice after a crash was asked for as a desired state, so twice is once.
"""

import asyncio
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from agent.config import Config
from agent.desired_route import desired_route
from agent.inference import Inference
from agent.labels import Joined
from agent.monitor import ModelMonitor
from agent.release_rules import (
    cause,
    reference_in,
    rollout_policy,
    with_strategy,
)
from agent.rollout_evidence import RolloutEvidence
from agent.slots import Slots, verified
from agent.sources.proxy import Outcome as EdgeOutcome
from agent.sources.proxy import Route
from agent.version_names import VersionNames
from retrain.ledger import Ledger, LedgerError
from retrain.registry import Registry
from retrain.rollout import DURABLE, ENDED, Rollout, State, advance, begin
from retrain.rollout import Refused as NotAdmitted
from retrain.rollout_messages import (
    BeginBake,
    BeginStep,
    InstallReference,
    MakeStable,
    Notify,
    Restarted,
    RestoreReference,
    RolloutCommand,
    RolloutEvent,
    SetWeights,
    SlotFailed,
    SlotReady,
    Started,
    StartSlot,
    StopSlot,
    Tick,
    WeightsConfirmed,
)

log = structlog.get_logger("remora.release")

ASSESS_EVERY_S = 1.0
SAVE_ANALYSIS_EVERY_S = 2.0
STATE_NUMBER = {state: number for number, state in enumerate(State)}
WATCHED = frozenset({State.SHADOW, State.CANARY, State.PROMOTING, State.BAKING, State.HELD})

SendRoute = Callable[[Route], None]
Publish = Callable[[sqlite3.Connection, Rollout, Notify], None]


class Release:
    """One model's rollouts: at most one that has not ended."""

    def __init__(
        self,
        config: Config,
        *,
        ledger: Ledger,
        registry: Registry,
        slots: Slots,
        monitor: ModelMonitor,
        send_route: SendRoute,
        tell_supervisor: Callable[[dict[str, Any]], None],
        publish: Publish,
        on_stable_changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self.registry = registry
        self.versions = VersionNames(registry)
        self._slots = slots
        self._monitor = monitor
        self._send_route = send_route
        self._tell_supervisor = tell_supervisor
        self._publish = publish
        self._on_stable_changed = on_stable_changed
        self._clock = clock
        self.rollout: Rollout | None = None
        self.evidence: RolloutEvidence | None = None
        self._boot = uuid.uuid4().hex
        self._assess_at = self._save_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self.rollbacks: Counter[str] = Counter()

    # Life.

    async def start(self) -> None:
        """Take up the rollout that a stop or a crash interrupted; let go of slots left over."""
        for record in self.registry.unused_slots():
            if record.pid is not None:
                self._begin(self._slots.stop(record.name))
        found = self.registry.in_flight()
        if found is None:
            newest = self.registry.rollouts(1)
            self.rollout = newest[0] if newest else None
        else:
            self.rollout = found
            self.evidence = RolloutEvidence(self._config, self.versions)
            self.evidence.restore(self.registry.analysis(found.id))
            self.apply(Started(), actor="runner")
            self.apply(Restarted(boot=self._boot), actor="runner")
        self.route_again()

    async def stop(self) -> None:
        """Save the evidence. Slots keep serving: they are not ours to end."""
        rollout, evidence = self._flying(), self.evidence
        if rollout is not None and evidence is not None:
            evidence.observe(rollout, all_of_them=True)
            self.registry.save_analysis(rollout.id, evidence.state())
        for task in list(self._tasks):
            task.cancel()

    def reconfigure(self, config: Config) -> None:
        """The next rollout is made by these rules; one that is under way keeps its own."""
        self._config = config

    def _flying(self) -> Rollout | None:
        rollout = self.rollout
        return None if rollout is None or rollout.state in ENDED else rollout

    @property
    def busy(self) -> str | None:
        """The rollout under way, in words; None when there is none."""
        rollout = self._flying()
        return None if rollout is None else f"rollout {rollout.id} ({rollout.state.value})"

    # Beginning one.

    async def begin(
        self, digest: str, *, by_operator: bool, actor: str, strategy: str | None = None
    ) -> Rollout:
        """A rollout of a version of the registry. Raises `retrain.rollout.Refused` with its why."""
        if self._config.rollout.candidate is None:
            raise NotAdmitted("rollout.candidate is not set: nothing can serve a candidate")
        version = self.registry.version(digest)
        whole = version is not None and await asyncio.to_thread(verified, version)
        # Nothing waits from here on: what is read now is still true when it is written.
        stable = self.registry.stable()
        if stable is None or stable.digest is None:
            raise NotAdmitted("no stable model is known yet")
        policy = rollout_policy(self._config)
        if strategy is not None:
            policy = with_strategy(policy, strategy)
        rollout = Rollout(
            id=f"rollout_{uuid.uuid4().hex[:12]}",
            candidate=version.digest if version is not None else digest,
            stable=stable.digest,
            candidate_slot="B" if stable.name == "A" else "A",
            stable_slot=stable.name,
            policy=policy,
            generation=self.registry.generation(),
            boot=self._boot,
        )
        admission = self.registry.admission(
            rollout.candidate, verified=whole, by_operator=by_operator
        )
        admitted = begin(rollout, admission, self._clock())
        assert version is not None
        before = (self.rollout, self.evidence)
        self.rollout = admitted
        self.evidence = RolloutEvidence(self._config, self.versions)
        try:
            self.apply(Started(actor=actor), actor=actor)
        except (LedgerError, sqlite3.IntegrityError) as error:
            if self.rollout is admitted:  # it was never written, so it never was
                self.rollout, self.evidence = before
            raise NotAdmitted(f"the ledger does not take it: {error}") from error
        self._monitor.install(version.label, reference_in(version))
        return self.rollout

    # Events.

    def apply(self, event: RolloutEvent, *, actor: str = "rollout") -> bool:
        """Tell the rollout; whether it changed. On disk first, performed after."""
        before = self.rollout
        if before is None:
            return False
        now = self._clock()
        moved, commands = advance(before, event, now)
        if moved is before and not commands:
            return False
        self.registry.store(moved, commands, at=now, actor=actor, notify=self._publish)
        self.rollout = moved
        if moved.state is not before.state:
            log.info("rollout moves", to=moved.state.value, reason=moved.reason, id=moved.id)
            self._count(moved, event)
        for command in commands:
            self._perform(command)
        return True

    def _count(self, moved: Rollout, event: RolloutEvent) -> None:
        if moved.state is State.ROLLING_BACK:
            self.rollbacks[cause(event)] += 1
        if moved.state in ENDED and not moved.promoted:
            version = self.registry.version(moved.candidate)
            if version is not None:
                self._monitor.forget(version.label)

    def on_generation(self, generation: int, weight: float) -> None:
        """What the edge has in force, read back."""
        rollout = self._flying()
        if rollout is None or generation < rollout.generation:
            return
        wanted = 0.0 if rollout.promoted else rollout.weight
        if abs(weight - wanted) < 1e-9:
            self.apply(WeightsConfirmed(generation=generation))

    def on_outcomes(self, outcomes: Sequence[EdgeOutcome]) -> None:
        """Every request of both arms, while there are two; looked at by `tick`, in order."""
        if self._flying() is not None and self.evidence is not None:
            self.evidence.arrive(outcomes)

    def on_answer(self, inference: Inference, shadow: bool) -> None:
        """What either model answered, while the candidate is asked the same."""
        rollout, evidence = self._flying(), self.evidence
        if rollout is not None and evidence is not None and rollout.state is State.SHADOW:
            schema = self._monitor.schema_learner.schema
            evidence.answered(inference, schema, shadow=shadow, now=self._clock())

    def on_labelled(self, joined: Sequence[Joined]) -> None:
        """Labels of either arm."""
        rollout, evidence = self._flying(), self.evidence
        if rollout is not None and evidence is not None:
            evidence.labelled(rollout, joined)

    def on_invalid_output(self, version: str, what: str) -> None:
        """A model answered NaN or infinity."""
        rollout, evidence = self._flying(), self.evidence
        if rollout is not None and evidence is not None:
            evidence.invalid_output(rollout, version, what)

    async def tick(self) -> None:
        """Renew the lease, measure, let time pass, look after the slots."""
        for failure in await self._slots.failed():
            self.apply(SlotFailed(slot=failure.slot, digest=failure.digest, reason=failure.reason))
        rollout = self._flying()
        if rollout is None:
            return
        now = self._clock()
        evidence = self.evidence
        if evidence is not None:
            evidence.observe(rollout)
        if evidence is not None and rollout.state in WATCHED and now >= self._assess_at:
            self._assess_at = now + ASSESS_EVERY_S
            self.apply(evidence.measure(now))
            if now >= self._save_at:
                self._save_at = now + SAVE_ANALYSIS_EVERY_S
                self.registry.save_analysis(rollout.id, evidence.state())
        self.apply(Tick())
        # Last, so that only who could measure and write gets the lease renewed: on a disk that is
        # full no rollback can be recorded, and then the weight must run out by itself.
        self.route_again()

    # Performing.

    def _perform(self, command: RolloutCommand) -> None:
        match command:
            case StartSlot():
                self._begin(self._start_slot(command))
            case StopSlot(slot=slot):
                self._begin(self._slots.stop(slot))
            case SetWeights() | BeginStep():
                if isinstance(command, BeginStep) and self.evidence is not None:
                    self.evidence.begin_step(command, self._clock())
                self.route_again()
            case MakeStable(slot=slot, digest=digest):
                self.registry.make_stable(
                    slot, at=self._clock(), actor="rollout", reason=f"{digest} is stable"
                )
                self._announce_stable()
            case BeginBake():
                if self.evidence is not None:
                    self.evidence.begin_bake(self._clock())
            case InstallReference(digest=digest) | RestoreReference(digest=digest):
                self._use_reference(digest)
            case _:
                assert isinstance(command, DURABLE)  # written with the rollout

    def _use_reference(self, digest: str) -> None:
        """Detection goes on against what this version was made from; nothing stays latched."""
        version = self.registry.version(digest)
        label = self.versions.label(digest)
        self._monitor.install(label, None if version is None else reference_in(version))
        self._monitor.make_stable(label)
        self._on_stable_changed()

    def _announce_stable(self) -> None:
        stable = self.registry.stable()
        assert stable is not None
        label = self.versions.label(stable.digest or "")
        address = self._slots.address(stable.name)
        self._tell_supervisor({"type": "stable", "address": address, "version": label})
        self.route_again()

    def slot_moved(self, slot: Any) -> None:
        """A model was started again, on another port: if it is the stable one, all must know."""
        if self.registry.slot(slot).stable:
            self._announce_stable()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The rollout's own deadline gets it out of the state in which this leaves it.
            log.error("work of a rollout failed", error=repr(error), exc_info=error)

    async def _start_slot(self, command: StartSlot) -> None:
        try:
            await self._slots.start(command.slot, command.digest)
        except (OSError, ValueError, TimeoutError) as error:
            failed = SlotFailed(
                slot=command.slot,
                digest=command.digest,
                reason=str(error)[:300] or type(error).__name__,
                attempt=command.attempt,
            )
            self.apply(failed)
            return
        self.apply(SlotReady(slot=command.slot, digest=command.digest))

    # The route.

    def route_again(self) -> None:
        """The desired route, with its lease renewed: at each tick and to each new edge."""
        route = desired_route(
            self.registry,
            self._slots,
            self._flying(),
            label=self.versions.label,
            lease_s=self._config.rollout.lease_s,
        )
        if route is not None:
            self._send_route(route)
