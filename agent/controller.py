"""What decides, wired together: readings to the policy, runs to gates, candidates to rollouts.

Only one agent of a model may be a controller. A sidecar has the same object and is refused by the
policy and here: it measures and routes, and never starts anything.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from agent.admin.view import Json, Refused
from agent.config import Config
from agent.intake import Intake
from agent.labels import Joined
from agent.monitor import Tick
from agent.release import STATE_NUMBER, Release
from agent.retraining import Retraining
from agent.slots import Slots
from agent.sources.proxy import Outcome, Route
from agent.training_data import TrainingData
from detectors import Reading, Reference
from retrain import artifact
from retrain.artifact_store import ArtifactStore
from retrain.decision import Action
from retrain.gates import GateReport
from retrain.ledger import Kind, Ledger, LedgerError
from retrain.policy import Ending, Request
from retrain.registry import Registry, Version
from retrain.rollout import Refused as NotAdmitted
from retrain.rollout import Rollout
from retrain.rollout_messages import Notify
from retrain.run import Run, Via
from retrain.runners.local import JobLimits, LocalRunner, pipeline_argv
from retrain.webhooks.bodies import rollout_changed

log = structlog.get_logger("remora.controller")

GATES_S_MAX = 900.0
LISTED_MAX = 50


class Controller:
    """Policy, runs, gates, registry and rollouts of one model."""

    def __init__(
        self,
        config: Config,
        *,
        role: str,
        state_dir: Path,
        stable: tuple[str, str],
        intake: Intake,
        send_route: Callable[[Route], None],
        tell_supervisor: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._role = role
        self._intake = intake
        self._clock = clock
        self._work_dir = state_dir / "runs"
        self._ledger = Ledger(state_dir / "decisions.db")
        self.registry = Registry(self._ledger, cooldown_s=config.rollout.cooldown_s)
        self._store = ArtifactStore(state_dir / "artifacts")
        self._slots = Slots(
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
            ledger=self._ledger,
            state_dir=state_dir,
            data=self._data,
            stable_digest=self._stable_digest,
            stable_artifact=self._stable_artifact,
            submit=self._submit,
            clock=clock,
        )
        self.release = Release(
            config,
            ledger=self._ledger,
            registry=self.registry,
            slots=self._slots,
            monitor=intake.monitor,
            send_route=send_route,
            tell_supervisor=tell_supervisor,
            publish=self._publish,
            on_stable_changed=self.retraining.forget_standing,
            clock=clock,
        )

    # Life.

    async def start(self) -> None:
        """Know the stable version, take up what was interrupted, deliver what is pending."""
        await self._know_stable()
        await self._slots.start_stable()
        label = self._stable_label()
        if label != self._intake.monitor.stable:
            self._intake.monitor.make_stable(label)
        self._use_stable_reference(label)
        await self.release.start()
        findings = [
            reading.to_json()
            for reading in self._intake.monitor.findings
            if reading.version == self._intake.monitor.stable
        ]
        await self.retraining.start(findings)

    def _use_stable_reference(self, label: str) -> None:
        """What the stable version is compared with, whatever a snapshot of earlier has in it.

        The configured file belongs to the configured upstream; a model that was promoted brought
        a profile of its own, which a crash before the next snapshot must not lose.
        """
        stable = self.registry.stable()
        reference = None
        if stable is not None and stable.address != self._config.proxy.upstream:
            reference = self.release.reference_of(stable.digest)
        elif self._config.reference.path is not None:
            reference = Reference.from_bytes(self._config.reference.path.read_bytes())
        elif stable is not None:
            reference = self.release.reference_of(stable.digest)
        known = self._intake.monitor.reference(label)
        if reference is not None and (known is None or known.digest != reference.digest):
            log.info("reference taken up", version=label, digest=reference.digest)
            self._intake.monitor.install(label, reference)

    async def _know_stable(self) -> None:
        config = self._config
        directory = config.rollout.stable_artifact
        digest = None
        if directory is not None:
            manifest = await asyncio.to_thread(artifact.load, directory)
            digest = manifest.digest
            self._slots.upstream_digest = digest
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
            config.proxy.upstream, label=config.model.version, digest=digest, at=self._clock()
        )
        if differs is not None:
            log.warning("the configuration and the ledger differ", detail=differs)

    async def stop(self) -> None:
        """Jobs end with us, model servers do not."""
        await self.release.stop()
        await self.retraining.stop()
        self._ledger.close()

    def reconfigure(self, config: Config) -> None:
        """A reload of what can change while running."""
        self._config = config
        self.registry.cooldown_s = config.rollout.cooldown_s
        self.retraining.reconfigure(config)
        self.release.reconfigure(config)

    def upstream_moved(self, address: str) -> None:
        """The configured upstream's name points elsewhere."""
        self._slots.upstream_moved(address)
        self.release.route_again()

    # What happens.

    def on_tick(self, tick: Tick) -> None:
        """A tick of rows: readings of the stable version are the policy's business."""
        batch = tick.batch
        if batch.version == self._intake.monitor.stable:
            watch = self._intake.monitor.watch(batch.version)
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
        stable = self._intake.monitor.stable
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
        watch = self._intake.monitor.watch(self._intake.monitor.stable)
        self.retraining.look(watch, busy=self.release.busy)

    # Candidates.

    async def _submit(self, run: Run, directory: Path) -> None:
        """An artifact of a run: verified, gated, registered, and given its rollout.

        Whatever happens here, the policy hears of an end: a run that stays in flight for ever
        would be the last one. The end is told after the rollout has begun, so that a crash in
        between does all of this again instead of leaving the candidate lying.
        """
        ending = Ending.FAILED
        try:
            digest = await self._admit(run, directory)
            if digest is not None:
                ending = Ending.SUCCEEDED
                await self._roll_out(digest)
        except (OSError, ValueError, LedgerError) as error:
            log.error("artifact of a run not taken", run=run.id, error=str(error))
            self._note_gates(run, f"not taken: {error}", passed=False, data={})
        finally:
            self.retraining.ended(ending)
        await asyncio.to_thread(self._store.remove_all_but, self.registry.kept())

    async def _admit(self, run: Run, directory: Path) -> str | None:
        """The digest, now in the registry; None when the gates say no. Raises what it meets."""
        try:
            manifest = await asyncio.to_thread(artifact.load, directory)
        except ValueError as error:
            self._note_gates(run, str(error), passed=False, data={})
            return None
        report = await self._gates(run, directory)
        if report is None or not report.passed:
            words = report.words if report is not None else "the gates could not be measured"
            facts = report.as_json() if report is not None else {}
            self._note_gates(run, words, passed=False, data=facts)
            return None
        stored = await asyncio.to_thread(self._store.add, directory, manifest.digest)
        self.registry.add_version(
            Version(
                digest=manifest.digest,
                label=self._free_label(manifest),
                origin="run",
                parent=manifest.parent,
                directory=str(stored),
                at=self._clock(),
            )
        )
        self._note_gates(run, report.words, passed=True, data=report.as_json())
        return manifest.digest

    def _free_label(self, manifest: artifact.Manifest) -> str:
        """Arms, counters and references are kept by label: two versions must not share one."""
        taken = self.registry.version(manifest.version)
        if taken is None or taken.digest == manifest.digest:
            return manifest.version
        return f"{manifest.version}-{manifest.digest.removeprefix('sha256:')[:8]}"

    async def _roll_out(self, digest: str) -> None:
        try:
            await self.release.begin(digest, by_operator=False, actor="policy")
        except NotAdmitted as error:
            log.warning("candidate waits in the registry", digest=digest, reason=str(error))
            with self._ledger.transaction():
                self._ledger.append(
                    at=self._clock(),
                    kind=Kind.ROLLOUT,
                    subject=digest,
                    actor="policy",
                    reason=f"not rolled out: {error}",
                    data={},
                )

    def _note_gates(self, run: Run, words: str, *, passed: bool, data: dict[str, Any]) -> None:
        log.info("gates", run=run.id, passed=passed, words=words)
        with self._ledger.transaction():
            self._ledger.append(
                at=self._clock(),
                kind=Kind.GATE,
                subject=run.id,
                actor="gates",
                reason=words,
                data={"passed": passed, "sha256": run.sha256, **data},
            )

    async def _gates(self, run: Run, directory: Path) -> GateReport | None:
        """Measured here, whatever CI says: by the run itself when it trained here."""
        report = directory.parent / "report.json"
        if run.via is Via.LOCAL and report.exists():
            return _read_report(report)
        recipe = self._config.recipe_path
        if recipe is None:
            log.error("no gates: retrain.recipe is not set", run=run.id)
            return None
        work = self._work_dir / run.id
        arguments = [str(directory), "--recipe", str(recipe), "--out", str(work)]
        try:
            arguments += ["--data", str(await self.retraining.export(run))]
        except ValueError as error:
            log.warning("gates without recent rows", reason=str(error))
        stable = self._stable_artifact()
        if stable is not None:
            arguments += ["--stable", str(stable)]
        job = await LocalRunner().start(
            pipeline_argv("validate", *arguments),
            cwd=work,
            limits=JobLimits(time_s_max=GATES_S_MAX),
        )
        end = await job.wait()
        if end.returncode not in (0, 1):
            log.error("gates failed to run", code=end.returncode, stderr=end.stderr_tail[-500:])
            return None
        return _read_report(work / "report.json")

    # Acting for people.

    def trigger(self, *, reason: str, policy: str | None, actor: str) -> Json:
        """A retraining asked for by hand. Raises `Refused` when the policy holds."""
        asked = reason if policy is None else f"{reason} (policy {policy})"
        watch = self._intake.monitor.watch(self._intake.monitor.stable)
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
        return _shown(rollout)

    async def rollout_act(self, id: str, action: str, reason: str, actor: str) -> Json:
        return _shown(self.release.operate(id, action, reason, actor))

    async def rollback(self, to: str | None, reason: str, actor: str) -> Json:
        if self._role == "sidecar":
            raise Refused(409, "role sidecar never starts a rollout, back or forth")
        return _shown(await self.release.roll_back(to, reason, actor))

    def accept_reference(self, actor: str) -> Json:
        reference = self._intake.monitor.accept_reference()
        if reference is None:
            raise Refused(409, "there is no learnt reference that waits for a word")
        with self._ledger.transaction():
            self._ledger.append(
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

    # Showing.

    def stable_facts(self) -> Json:
        stable = self.registry.stable()
        if stable is None:
            return {"version": self._intake.monitor.stable, "digest": None, "address": None}
        return {
            "version": self._stable_label(),
            "digest": stable.digest,
            "address": self._slots.address(stable.name),
            "slot": stable.name,
        }

    def rollout_facts(self) -> Json | None:
        rollout = self.release.rollout
        if rollout is None:
            return None
        facts = _shown(rollout)
        if self.release.assessment is not None:
            facts["assessment"] = self.release.assessment.as_json()
        return facts

    def rollout_figures(self) -> dict[str, Any] | None:
        rollout = self.release.rollout
        if rollout is None:
            return None
        return {
            "candidate": rollout.candidate,
            "state": STATE_NUMBER[rollout.state],
            "weight": rollout.weight,
            "version": self.release.label(rollout.candidate),
        }

    @property
    def rollbacks(self) -> dict[str, int]:
        return dict(self.release.rollbacks)

    def run_facts(self) -> Json | None:
        newest = self.retraining.runs.recent(1)
        return _run(newest[0]) if newest else None

    def decision_facts(self) -> Json | None:
        decision = self.retraining.last_decision
        return None if decision is None else decision.to_json()

    def rollouts(self) -> list[Json]:
        shown = []
        for rollout in self.registry.rollouts(LISTED_MAX):
            facts = _shown(rollout)
            facts["transitions"] = [
                {
                    "at": entry.at,
                    "kind": entry.kind,
                    "state": entry.data.get("state"),
                    "reason": entry.reason,
                }
                for entry in self._ledger.entries(subject=rollout.id, limit=200)
            ]
            if self.release.rollout is not None and rollout.id == self.release.rollout.id:
                assessment = self.release.assessment
                facts["measurements"] = (
                    [] if assessment is None else assessment.as_json()["measurements"]
                )
            shown.append(facts)
        return shown

    def runs(self) -> list[Json]:
        return [_run(run) for run in self.retraining.runs.recent(LISTED_MAX)]

    def versions(self) -> list[Json]:
        stable = self._stable_digest()
        held = {entry.digest for entry in self.registry.quarantined()}
        return [
            {
                "version": version.label,
                "digest": version.digest,
                "origin": version.origin,
                "parent": version.parent,
                "created": version.at,
                "stable": version.digest == stable,
                "quarantined": version.digest in held,
            }
            for version in self.registry.versions()
        ]

    def quarantined(self) -> list[Json]:
        return [
            {"digest": entry.digest, "reason": entry.reason, "at": entry.at}
            for entry in self.registry.quarantined()
        ]

    def ledger(self, *, after: int, limit: int) -> Json:
        entries = self._ledger.entries(after=after, limit=limit)
        return {
            "entries": [
                {
                    "id": entry.id,
                    "at": entry.at,
                    "kind": entry.kind,
                    "subject": entry.subject,
                    "actor": entry.actor,
                    "reason": entry.reason,
                    "data": dict(entry.data),
                    "hash": entry.hash,
                }
                for entry in entries
            ],
            "head": self._ledger.head(),
        }

    def ledger_verify(self) -> Json:
        found = self._ledger.verify()
        return {"entries": found.entries, "ok": found.ok, "broken_at": found.broken_at}

    # What the parts ask of each other.

    def _stable_digest(self) -> str | None:
        stable = self.registry.stable()
        return None if stable is None else stable.digest

    def _stable_label(self) -> str:
        return self.release_label(self._stable_digest())

    def release_label(self, digest: str | None) -> str:
        version = None if digest is None else self.registry.version(digest)
        return self._config.model.version if version is None else version.label

    def _stable_artifact(self) -> Path | None:
        digest = self._stable_digest()
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
            ledger_head=self._ledger.head(),
        )
        key = f"{rollout.id}|{rollout.state}|{rollout.generation}"
        self.retraining.publish(notice.type, key, data)


def _shown(rollout: Rollout) -> Json:
    return {
        "id": rollout.id,
        "candidate": rollout.candidate,
        "stable": rollout.stable,
        "state": rollout.state.value,
        "reason": rollout.reason,
        "weight": rollout.weight,
        "step": rollout.step,
        "steps": list(rollout.policy.steps),
        "strategy": rollout.policy.strategy,
        "requests": rollout.requests,
        "bake_requests": rollout.bake_requests,
        "promoted": rollout.promoted,
        "paused": rollout.paused,
        "frozen": rollout.frozen,
        "started_at": rollout.created_at,
        "entered_at": rollout.entered_at,
    }


def _run(run: Run) -> Json:
    return {
        "id": run.id,
        "state": run.state.value,
        "trigger": run.trigger,
        "via": run.via.value,
        "target": run.target,
        "reason": run.reason,
        "requested_at": run.requested_at,
        "deadline_at": run.deadline_at,
        "outcome": run.state.value if run.ended else None,
        "metrics": dict(run.metrics),
        "external_url": run.external_url,
        "sha256": run.sha256,
    }


def _read_report(path: Path) -> GateReport | None:
    try:
        return GateReport.from_json(json.loads(path.read_bytes())["gates"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("gate report cannot be read", path=str(path), error=repr(error))
        return None
