"""What runs ask for, done: training here, fetching from CI, handing over to the gates.

Every piece of work has a name and is under way once; asking for it again does nothing. What comes
of it goes back to the run as an event, never further by itself.
"""

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import httpx
import structlog

from agent.admin.view import Refused
from agent.config import Config
from agent.training_data import ROWS_FILE, TrainingData
from retrain.bundle import unpack
from retrain.ledger import Ledger
from retrain.run import Run
from retrain.run_dialogue import (
    Broke,
    Command,
    Event,
    FetchArtifact,
    FetchFailed,
    Finished,
    StartPipeline,
    StopPipeline,
    SubmitArtifact,
)
from retrain.run_store import RunStore
from retrain.runners.local import JobHandle, JobLimits, LocalRunner, pipeline_argv
from retrain.webhooks.fetch import FetchError, fetch

log = structlog.get_logger("remora.retraining")

# From when on a run's rows are of the world that asked for it.
WINDOW_TABLE = ("CREATE TABLE run_window (run_id TEXT PRIMARY KEY, since REAL)",)
ROWS_WAIT_S = 2.0
WORK_DIRS_KEPT = 5

Submit = Callable[[Run, Path], Coroutine[Any, Any, None]]


class RunWork:
    """The work of one model's runs. `apply` tells a run of an event; `config` is the newest."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        runs: RunStore,
        ledger: Ledger,
        client: httpx.AsyncClient,
        data: TrainingData,
        work_dir: Path,
        stable_artifact: Callable[[], Path | None],
        apply: Callable[[str, Event], object],
        submit: Submit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._runs = runs
        self._ledger = ledger
        self._client = client
        self._data = data
        self._work_dir = work_dir
        self._stable_artifact = stable_artifact
        self._apply = apply
        self._submit = submit
        self._clock = clock
        ledger.migrate("run_window", WINDOW_TABLE)
        self._jobs: dict[str, JobHandle] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """Jobs end with us; the run is found again at the next start."""
        for task in list(self._tasks.values()):
            task.cancel()
        for job in list(self._jobs.values()):
            await job.cancel()

    def tidy(self, busy: set[str]) -> None:
        """Remove what old runs left, but for those that are busy."""
        self._begin("old work", self._remove_old_work(busy))

    def perform(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case StartPipeline():
                    self._begin(command.run_id, self._train(command))
                case StopPipeline():
                    job = self._jobs.get(command.run_id)
                    if job is not None:
                        self._begin(f"stop {command.run_id}", _cancelled(job))
                case FetchArtifact():
                    self._begin(f"{command.run_id} {command.attempt}", self._fetch(command))
                case SubmitArtifact():
                    self._begin(f"{command.run_id} gates", self._hand_over(command))
                case _:
                    raise AssertionError(f"{command} is the store's to perform")

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Work under this name, unless it is under way already."""
        if name in self._tasks:
            work.close()
            return

        async def watched() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("work of a run failed", work=name)
            finally:
                self._tasks.pop(name, None)

        self._tasks[name] = asyncio.get_running_loop().create_task(watched())

    async def _train(self, command: StartPipeline) -> None:
        id = command.run_id
        work = self._work_dir / id
        try:
            recipe = self._config().recipe_path
            if recipe is None:
                raise ValueError("retrain.recipe is not set: name the recipe of the pipeline")
            work.mkdir(parents=True, exist_ok=True)
            # Of an attempt that a restart cut short: the pipeline never writes over an artifact.
            await asyncio.to_thread(shutil.rmtree, work / "artifact", ignore_errors=True)
            run = self._runs.find(id)
            assert run is not None
            captured = await self.export(run)
            arguments = [str(recipe), "--out", str(work), "--data", str(captured)]
            stable = self._stable_artifact()
            if stable is not None:
                arguments += ["--stable", str(stable)]
            arguments += ["--trigger", json.dumps({"run_id": id, "policy": run.trigger})]
            limits = JobLimits(time_s_max=max(1.0, command.deadline_at - self._clock()))
            job = await LocalRunner().start(
                pipeline_argv("run", *arguments), cwd=work, limits=limits
            )
            self._jobs[id] = job
            end = await job.wait()
        except (OSError, ValueError) as error:
            self._apply(id, Broke(reason=str(error)[:500]))
            return
        finally:
            self._jobs.pop(id, None)
        digest = end.last.get("digest")
        if end.returncode in (0, 1) and isinstance(digest, str):
            # Gates that failed are the gates' word; the run did produce a candidate.
            self._apply(id, Finished(artifact=str(work / "artifact"), sha256=digest))
            return
        why = str(end.last.get("error") or end.stderr_tail.strip()[-300:] or end.ending)
        self._apply(id, Broke(reason=f"the pipeline ended with {end.returncode}: {why}"))

    async def _fetch(self, command: FetchArtifact) -> None:
        await asyncio.sleep(max(0.0, command.not_before - self._clock()))
        work = self._work_dir / command.run_id
        settings = self._config().retrain
        try:
            work.mkdir(parents=True, exist_ok=True)
            archive = await fetch(
                command.source.url,
                sha256=command.source.sha256,
                size_bytes=command.source.size_bytes,
                into=work,
                client=self._client,
                hosts=settings.artifact_hosts,
                size_bytes_max=settings.artifact_bytes_max,
            )
            artifact = work / "artifact"
            if not artifact.exists():
                await asyncio.to_thread(unpack, archive, artifact)
        except FetchError as error:
            failed = FetchFailed(attempt=command.attempt, reason=str(error), lasting=error.lasting)
        except (OSError, ValueError) as error:
            failed = FetchFailed(attempt=command.attempt, reason=str(error)[:500], lasting=True)
        else:
            found = Finished(artifact=str(artifact), sha256=command.source.sha256)
            self._apply(command.run_id, found)
            return
        self._apply(command.run_id, failed)

    async def _hand_over(self, command: SubmitArtifact) -> None:
        run = self._runs.find(command.run_id)
        assert run is not None
        await self._submit(run, Path(command.artifact))

    async def rows_of(self, id: str) -> Path:
        """The captured, labelled rows that a run may learn from. Raises `Refused`."""
        run = self._runs.find(id)
        if run is None:
            raise Refused(404, f"no run {id}")
        directory = self._work_dir / run.id / "data"
        try:
            rows = await self._data.export(directory, since=self._began(run))
        except ValueError as error:
            raise Refused(409, str(error)) from error
        if not rows:
            raise Refused(409, "no captured row has a label yet: labels go to /api/v1/labels")
        return directory / ROWS_FILE

    async def export(self, run: Run) -> Path:
        """A directory with the rows that a run here learns from.

        Labels come late: a run that a drift asked for waits for some of the world after it, half
        its time at most, and then takes what there is. Raises `ValueError` when there is nothing.
        """
        directory = self._work_dir / run.id / "data"
        since, wanted = self._began(run), self._config().retrain.rows_min
        patience_until = (run.requested_at + run.deadline_at) / 2
        while True:
            rows = await self._data.export(directory, since=since)
            if rows >= wanted or since is None or self._clock() >= patience_until:
                break
            await asyncio.sleep(ROWS_WAIT_S)
        if rows < wanted and since is not None:
            rows = await self._data.export(directory)
        if not rows:
            raise ValueError("no captured row has a label yet: send labels to /api/v1/labels")
        return directory

    def _began(self, run: Run) -> float | None:
        """From when on rows are of the world that asked for the run, as decided at the time."""
        rows = self._ledger.read("SELECT since FROM run_window WHERE run_id = ?", (run.id,))
        return rows[0]["since"] if rows else None

    async def _remove_old_work(self, busy: set[str]) -> None:
        """Working directories of runs: artifacts and rows, which would fill the disk in a year."""

        def remove() -> None:
            found = sorted(self._work_dir.glob("run_*"), key=lambda path: path.stat().st_mtime)
            for path in found[:-WORK_DIRS_KEPT]:
                if path.name not in busy:
                    shutil.rmtree(path, ignore_errors=True)

        await asyncio.to_thread(remove)


async def _cancelled(job: JobHandle) -> None:
    await job.cancel()
