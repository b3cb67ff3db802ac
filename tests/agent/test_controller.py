"""What a restart takes up again, and what looking costs."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.admin.view import Refused
from detectors import Reference, build_reference
from retrain import artifact
from retrain.gates import GateReport
from retrain.policy import Ending
from retrain.registry import SlotRecord, Version
from retrain.run import Run, RunState
from tests.agent.workshop import Workshop
from tests.e2e.ci import make_artifact


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path)
    await made.controller.start()
    yield made
    await made.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - files have no event for us
            await asyncio.sleep(0.01)


async def test_a_look_that_finds_nothing_writes_nothing(workshop: Workshop) -> None:
    await workshop.controller.tick()
    connection = workshop.controller.decisions._connection
    before, size = connection.total_changes, (workshop.state / "decisions.db-wal").stat().st_size
    for _ in range(20):
        await workshop.controller.tick()
    assert connection.total_changes == before
    assert (workshop.state / "decisions.db-wal").stat().st_size == size


async def test_a_promoted_model_keeps_its_own_reference_without_any_snapshot(
    workshop: Workshop,
) -> None:
    path = workshop.directory / "promoted"
    make_artifact(path, "2")
    profile = build_reference({"f0": np.random.default_rng(1).normal(size=3_000)})
    (path / artifact.REFERENCE).write_bytes(profile.to_bytes())
    digest = artifact.seal(path, artifact.read_manifest(path)).digest
    registry = workshop.controller.registry
    registry.add_version(
        Version(digest=digest, label="2", origin="run", directory=str(path), at=1.0)
    )
    registry.set_slot(SlotRecord(name="B", digest=digest, address="http://127.0.0.1:10"))
    registry.make_stable("B", at=1.0, actor="test", reason="promoted")
    await workshop.restart()
    monitor = workshop.controller.intake.monitor
    assert monitor.stable == "2"
    found = monitor.reference("2")
    assert isinstance(found, Reference)
    assert found.digest == profile.digest


def _produced(workshop: Workshop) -> Run:
    """A run whose artifact lay there when the agent was killed, before the gates had spoken."""
    retraining = workshop.controller.retraining
    digest = make_artifact(workshop.directory / "made", "7").digest
    with workshop.controller.decisions.transaction() as db:
        run = retraining.runs.recent(1)[0]
        record = json.loads(db.execute("SELECT record FROM run").fetchone()["record"])
        record |= {"state": "produced", "artifact": str(workshop.directory / "made")}
        db.execute(
            "UPDATE run SET open = 0, state = 'produced', record = ?",
            (json.dumps(record | {"sha256": digest}),),
        )
    return run


async def _asked(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    retrain = made.config.retrain.model_copy(update={"via": "local", "recipe": None})
    made.config = made.config.model_copy(update={"retrain": retrain})
    await made.close()
    made.controller = made._made()
    await made.controller.start()
    made.controller.trigger(reason="please", policy=None, actor="ann")
    await until(lambda: made.controller.retraining.runs.recent(1)[0].ended)  # it has no recipe
    return made


async def test_gates_that_a_kill_cut_short_are_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await _asked(tmp_path)
    run = _produced(made)
    asked: list[str] = []

    async def gates(run: Run, _: Path) -> GateReport:
        asked.append(run.id)
        return GateReport(measurements=())

    await made.close()
    made.controller = made._made()
    assert made.controller.retraining._state.in_flight is not None
    monkeypatch.setattr(made.controller._candidates, "_gates", gates)
    await made.controller.start()
    await until(lambda: made.controller.retraining._state.in_flight is None)
    assert asked == [run.id]
    assert made.controller.retraining.runs.recent(1)[0].state is RunState.PRODUCED
    await made.end_models()
    await made.close()


async def test_an_artifact_that_breaks_what_takes_it_ends_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await _asked(tmp_path)
    run = _produced(made)

    async def broken(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(made.controller._candidates, "_gates", broken)
    endings: list[Ending] = []
    links = made.controller._candidates._links
    monkeypatch.setattr(
        made.controller._candidates,
        "_links",
        type(links)(
            begin=links.begin,
            export=links.export,
            ended=endings.append,
            stable_artifact=links.stable_artifact,
        ),
    )
    await made.controller._candidates.submit(run, tmp_path / "made")
    assert endings == [Ending.FAILED]
    await made.close()


async def test_a_sidecar_never_triggers(tmp_path: Path) -> None:
    made = Workshop(tmp_path, role="sidecar")
    await made.controller.start()
    with pytest.raises(Refused, match="sidecar"):
        made.controller.trigger(reason="please", policy=None, actor="ann")
    await made.close()
