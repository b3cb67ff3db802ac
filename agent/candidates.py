"""From an artifact to a candidate: verified, gated here whatever CI says, registered, rolled out.

Whatever happens, the policy hears of an end: a run that stays in flight for ever would be the last.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from retrain import artifact
from retrain.artifact_store import ArtifactStore
from retrain.gates import GateReport
from retrain.ledger import Kind, Ledger
from retrain.policy import Ending
from retrain.registry import Registry, Version
from retrain.rollout import Refused as NotAdmitted
from retrain.run import Run, Via
from retrain.runners.local import JobLimits, LocalRunner, pipeline_argv

log = structlog.get_logger("remora.candidates")

GATES_S_MAX = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What candidates need of the other parts.

    begin: a rollout of this digest; raises `retrain.rollout.Refused`. export: a directory with the
    rows that a run may learn from; raises `ValueError`. ended: how a run came out.
    """

    begin: Callable[[str], Awaitable[object]]
    export: Callable[[Run], Awaitable[Path]]
    ended: Callable[[Ending], None]
    stable_artifact: Callable[[], Path | None]


class Candidates:
    """The way of every artifact, one at a time or many."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        registry: Registry,
        store: ArtifactStore,
        work_dir: Path,
        recipe: Callable[[], Path | None],
        links: Links,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._store = store
        self._work_dir = work_dir
        self._recipe = recipe
        self._links = links
        self._clock = clock

    async def submit(self, run: Run, directory: Path) -> None:
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
        except Exception as error:
            log.exception("artifact of a run not taken", run=run.id, error=str(error))
        # Not after a cancellation: the agent stops, and the next one does all of this again.
        self._links.ended(ending)
        await asyncio.to_thread(self._store.remove_all_but, self._registry.kept())

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
        self._registry.add_version(
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
        taken = self._registry.version(manifest.version)
        if taken is None or taken.digest == manifest.digest:
            return manifest.version
        return f"{manifest.version}-{manifest.digest.removeprefix('sha256:')[:8]}"

    async def _roll_out(self, digest: str) -> None:
        try:
            await self._links.begin(digest)
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
        recipe = self._recipe()
        if recipe is None:
            log.error("no gates: retrain.recipe is not set", run=run.id)
            return None
        work = self._work_dir / run.id
        arguments = [str(directory), "--recipe", str(recipe), "--out", str(work)]
        try:
            arguments += ["--data", str(await self._links.export(run))]
        except ValueError as error:
            log.warning("gates without recent rows", reason=str(error))
        stable = self._links.stable_artifact()
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


def _read_report(path: Path) -> GateReport | None:
    try:
        return GateReport.from_json(json.loads(path.read_bytes())["gates"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("gate report cannot be read", path=str(path), error=repr(error))
        return None
