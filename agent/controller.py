"""What decides, wired together: readings to the policy, runs to gates, candidates to rollouts.

Only one agent of a model may be a controller. A sidecar has the same object and is refused by the
policy and here: it measures and routes, and never starts anything.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from agent.admin.view import Json, Refused
from agent.by_hand import operate, roll_back
from agent.candidates import Candidates, Links
from agent.config import Config
from agent.configured_reference import configured_reference
from agent.facts import Facts, shown
from agent.intake import Intake
from agent.labels import Joined
from agent.monitor import Tick
from agent.release import Release
from agent.retraining import Retraining
from agent.slots import Slots
from agent.sources.proxy import Outcome, Route
from agent.training_data import TrainingData
from detectors import Reading
from retrain import artifact
from retrain.artifact_store import ArtifactStore
from retrain.decision import Action
from retrain.ledger import Kind, Ledger
from retrain.policy import Request
from retrain.registry import Registry, Version
from retrain.rollout import Refused as NotAdmitted
from retrain.rollout import Rollout
from retrain.rollout_messages import Notify
from retrain.webhooks.bodies import rollout_changed

log = structlog.get_logger("remora.controller")


class Controller:
    """Policy, runs, gates, registry and rollouts of one model."""

    def __init__(
        self,
        config: Config,
        *,
        role: str,
        state_dir: Path,
        stable: tuple[str | None, str],
        intake: Intake,
        send_route: Callable[[Route], None],
        tell_supervisor: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._role = role
        self.intake = intake
        self._clock = clock
        self.decisions = Ledger(state_dir / "decisions.db")
        self.registry = Registry(self.decisions, cooldown_s=config.rollout.cooldown_s)
        self._store = ArtifactStore(state_dir / "artifacts")
        self.slots = Slots(
            config,
            self.registry,
            state_dir=state_dir,
            upstream=stable[0],
            on_moved=lambda slot: self.release.slot_moved(slot),
        )
        self._data = TrainingData(
            intake.labels, config.capture_dir if config.capture.enabled else None, clock=clock
        )
        self.retraining = Retraining(
            config,
            role=role,
            ledger=self.decisions,
            state_dir=state_dir,
            data=self._data,
            stable_digest=self.stable_digest,
            stable_artifact=self._stable_artifact,
            # Made after it: each needs the other.
            submit=lambda run, path: self._candidates.submit(run, path),
            clock=clock,
        )
        self.release = Release(
            config,
            ledger=self.decisions,
            registry=self.registry,
            slots=self.slots,
            monitor=intake.monitor,
            send_route=send_route,
            tell_supervisor=tell_supervisor,
            publish=self._publish,
            on_stable_changed=self.retraining.forget_standing,
            clock=clock,
        )
        intake.feed_pairs = self.release.on_answer
        self._candidates = Candidates(
            ledger=self.decisions,
            registry=self.registry,
            store=self._store,
            work_dir=state_dir / "runs",
            recipe=lambda: self._config.recipe_path,
            links=Links(
                begin=partial(self.release.begin, by_operator=False, actor="policy"),
                export=self.retraining.work.export,
                ended=self.retraining.ended,
                stable_artifact=self._stable_artifact,
            ),
            clock=clock,
        )
        self.facts = Facts(
            registry=self.registry,
            slots=self.slots,
            release=self.release,
            retraining=self.retraining,
            ledger=self.decisions,
            stable_label=self.stable_label,
        )

    # Life.

    async def start(self) -> None:
        """Know the stable version, take up what was interrupted, deliver what is pending."""
        await self._know_stable()
        await self.slots.start_stable()
        label = self.stable_label()
        if label != self.intake.monitor.stable:
            self.intake.monitor.make_stable(label)
        self._use_stable_reference(label)
        await self.release.start()
        findings = [
            reading.to_json()
            for reading in self.intake.monitor.findings
            if reading.version == self.intake.monitor.stable
        ]
        await self.retraining.start(findings)

    def _use_stable_reference(self, label: str) -> None:
        """What the stable version is compared with, whatever a snapshot of earlier has in it.

        The configured file belongs to the configured upstream; a model that was promoted brought
        a profile of its own, which a crash before the next snapshot must not lose.
        """
        stable = self.registry.stable()
        reference = None
        if stable is not None and stable.address != self._config.stable_upstream:
            reference = self.release.versions.reference_of(stable.digest)
        elif self._config.reference.path is not None:
            reference = configured_reference(self._config.reference)
        elif stable is not None:
            reference = self.release.versions.reference_of(stable.digest)
        known = self.intake.monitor.reference(label)
        if reference is not None and (known is None or known.digest != reference.digest):
            log.info("reference taken up", version=label, digest=reference.digest)
            self.intake.monitor.install(label, reference)

    async def _know_stable(self) -> None:
        config = self._config
        directory = config.rollout.stable_artifact
        digest = None
        if directory is not None:
            manifest = await asyncio.to_thread(artifact.load, directory)
            digest = manifest.digest
            self.slots.upstream_digest = digest
            stored = await asyncio.to_thread(self._store.add, directory, digest)
            self.registry.add_version(
                Version(
                    digest=digest,
                    label=config.model.version,
                    origin="import",
                    parent=manifest.parent,
                    directory=str(stored),
                    at=self._clock(),
                )
            )
        differs = self.registry.reconcile_upstream(
            config.stable_upstream,
            label=config.model.version,
            digest=digest,
            at=self._clock(),
            routed=config.proxy is not None,
        )
        if differs is not None:
            log.warning("the configuration and the ledger differ", detail=differs)

    async def stop(self) -> None:
        """Jobs end with us, model servers do not."""
        await self.release.stop()
        await self.retraining.stop()
        self.decisions.close()

    def reconfigure(self, config: Config) -> None:
        """A reload of what can change while running."""
        self._config = config
        self.registry.cooldown_s = config.rollout.cooldown_s
        self.retraining.reconfigure(config)
        self.release.reconfigure(config)

    def upstream_moved(self, address: str) -> None:
        """The configured upstream's name points elsewhere."""
        self.slots.upstream_moved(address)
        self.release.route_again()

    # What happens.

    def on_tick(self, tick: Tick) -> None:
        """A tick of rows: readings of the stable version are the policy's business."""
        batch = tick.batch
        if batch.version == self.intake.monitor.stable:
            watch = self.intake.monitor.watch(batch.version)
            if watch is not None:
                self.retraining.on_tick(watch.rows, batch.opened_at)
        self._take(tick.readings)
        prediction = batch.prediction
        if prediction is not None and prediction.dtype != object:
            bad = int(np.isinf(prediction.astype(np.float64)).sum())
            if bad:
                self.release.on_invalid_output(batch.version, f"infinity in {bad} rows")

    def on_labelled(self, joined: Sequence[Joined], readings: Sequence[Reading]) -> None:
        """Labels joined, and what the concept detectors said to them."""
        self._take(readings)
        self.release.on_labelled(joined)

    def _take(self, readings: Sequence[Reading]) -> None:
        stable = self.intake.monitor.stable
        mine = [reading for reading in readings if reading.version == stable]
        if mine:
            for reading in mine:
                log.info("reading", state=reading.state.value, explain=reading.explain)
            self.retraining.on_readings(mine)

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self.release.on_outcomes(outcomes)

    def on_generation(self, generation: int, weight: float) -> None:
        self.release.on_generation(generation, weight)

    def route_again(self) -> None:
        self.release.route_again()

    async def tick(self) -> None:
        """Twice a second: deadlines, measurements, and one look of the policy."""
        self.retraining.tick()
        await self.release.tick()
        watch = self.intake.monitor.watch(self.intake.monitor.stable)
        self.retraining.look(watch, busy=self.release.busy)

    # Acting for people.

    def trigger(self, *, reason: str, policy: str | None, actor: str) -> Json:
        """A retraining asked for by hand. Raises `Refused` when the policy holds."""
        asked = reason if policy is None else f"{reason} (policy {policy})"
        watch = self.intake.monitor.watch(self.intake.monitor.stable)
        decision = self.retraining.look(
            watch, busy=self.release.busy, request=Request(actor=actor, reason=asked)
        )
        if decision.action is Action.HOLD:
            raise Refused(409, decision.reason)
        return decision.to_json()

    async def rollout_start(self, candidate: str, strategy: str | None, actor: str) -> Json:
        if self._role == "sidecar":
            raise Refused(409, "role sidecar never starts a rollout")
        if self.registry.version(candidate) is None:
            raise Refused(404, f"no version {candidate} in the registry")
        try:
            rollout = await self.release.begin(
                candidate, by_operator=True, actor=actor, strategy=strategy
            )
        except NotAdmitted as error:
            raise Refused(409, str(error)) from error
        return shown(rollout)

    async def rollout_act(self, id: str, action: str, reason: str, actor: str) -> Json:
        return shown(operate(self.release, id=id, action=action, reason=reason, actor=actor))

    async def rollback(self, to: str | None, reason: str, actor: str) -> Json:
        if self._role == "sidecar":
            raise Refused(409, "role sidecar never starts a rollout, back or forth")
        return shown(await roll_back(self.release, to=to, reason=reason, actor=actor))

    def accept_reference(self, actor: str) -> Json:
        reference = self.intake.monitor.accept_reference()
        if reference is None:
            raise Refused(409, "there is no learnt reference that waits for a word")
        with self.decisions.transaction():
            self.decisions.append(
                at=self._clock(),
                kind=Kind.REFERENCE,
                subject=reference.digest,
                actor=actor,
                reason=f"accepted a reference learnt from {reference.rows:,} rows",
                data={},
            )
        return {"digest": reference.digest, "rows": reference.rows, "accepted": True}

    def release_digest(self, digest: str, actor: str) -> Json:
        done = self.registry.release(
            digest, at=self._clock(), actor=actor, reason="released by hand"
        )
        if not done:
            raise Refused(404, f"{digest} is not in quarantine")
        return {"digest": digest, "released": True}

    # What the parts ask of each other.

    def stable_digest(self) -> str | None:
        stable = self.registry.stable()
        return None if stable is None else stable.digest

    def stable_label(self) -> str:
        return self.release_label(self.stable_digest())

    def release_label(self, digest: str | None) -> str:
        version = None if digest is None else self.registry.version(digest)
        return self._config.model.version if version is None else version.label

    def _stable_artifact(self) -> Path | None:
        digest = self.stable_digest()
        version = None if digest is None else self.registry.version(digest)
        if version is None or version.directory is None:
            return None
        return Path(version.directory)

    def _publish(self, db: sqlite3.Connection, rollout: Rollout, notice: Notify) -> None:
        """A rollout's webhook, in the transaction that stores the rollout."""
        del db  # the outbox joins the open transaction by itself
        data = rollout_changed(
            rollout_id=rollout.id,
            model=self._config.model.name,
            stable=rollout.stable,
            candidate=rollout.candidate,
            reason=notice.reason,
            weight=rollout.weight,
            ledger_head=self.decisions.head(),
        )
        key = f"{rollout.id}|{rollout.state}|{rollout.generation}"
        self.retraining.publish(notice.type, key, data)
