"""Rollouts as they are wired: one at a time, on disk before it is done, harmless when it is not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent.admin.view import Refused
from retrain.ledger import LedgerError, LedgerReason
from retrain.rollout import Refused as NotAdmitted
from retrain.rollout import State
from tests.agent.workshop import Workshop


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path)
    await made.controller.start()
    yield made
    await made.end_models()
    await made.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - another process has no event for us
            await asyncio.sleep(0.01)


def full(*_: Any, **__: Any) -> NoReturn:
    raise LedgerError(LedgerReason.FULL, "the disk is full")


async def test_of_two_that_begin_at_once_one_does(workshop: Workshop) -> None:
    release = workshop.controller.release
    digests = [workshop.candidate("2"), workshop.candidate("3")]
    came = await asyncio.gather(
        *(release.begin(digest, by_operator=True, actor="ann") for digest in digests),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in came) == ["Refused", "Rollout"]
    assert len(workshop.controller.registry.rollouts()) == 1
    assert release.rollout is not None
    await until(lambda: release.rollout and release.rollout.state is State.CANARY)


async def test_a_rollout_that_could_not_be_written_never_was(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = workshop.controller.release
    digest = workshop.candidate("2")
    with monkeypatch.context() as broken:
        broken.setattr(workshop.controller.registry, "store", full)
        with pytest.raises(NotAdmitted, match="disk is full"):
            await release.begin(digest, by_operator=True, actor="ann")
    assert (release.rollout, release.busy) == (None, None)
    await release.begin(digest, by_operator=True, actor="ann")
    assert release.busy is not None


async def test_who_cannot_write_does_not_renew_the_lease(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a bad candidate kept its share for as long as the disk is full."""
    release = workshop.controller.release
    await release.begin(workshop.candidate("2"), by_operator=True, actor="ann")
    await until(lambda: release.rollout and release.rollout.state is State.CANARY)
    assert workshop.routes[-1].weight > 0
    workshop.routes.clear()
    monkeypatch.setattr(workshop.controller.registry, "store", full)
    monkeypatch.setattr(workshop.controller.registry, "save_analysis", full)
    with pytest.raises(LedgerError):
        await release.tick()
    assert workshop.routes == []


async def test_a_promoted_model_that_comes_back_elsewhere_is_announced(workshop: Workshop) -> None:
    release = workshop.controller.release
    digest = workshop.candidate("2")
    await release.begin(digest, by_operator=True, actor="ann", strategy="immediate")
    await until(lambda: release.rollout and release.rollout.state is State.PROMOTING)
    assert release.rollout is not None
    release.on_generation(release.rollout.generation, 1.0)
    first = workshop.routes[-1].stable.address
    workshop.told.clear()
    record = workshop.controller.registry.slot("B")
    process = workshop.controller.slots._processes["B"]
    assert process._id is not None
    process._id.kill()
    await until(lambda: not process.alive())
    await workshop.controller.slots.failed()
    await until(lambda: workshop.controller.registry.slot("B").pid not in (None, record.pid))
    await until(lambda: workshop.told)
    assert workshop.routes[-1].stable.address != first
    assert workshop.told[-1]["address"] == workshop.routes[-1].stable.address


async def test_a_sidecar_rolls_nothing_out_nor_back(tmp_path: Path) -> None:
    made = Workshop(tmp_path, role="sidecar")
    await made.controller.start()
    digest = made.candidate("2")
    with pytest.raises(Refused):
        await made.controller.rollout_start(digest, None, "ann")
    with pytest.raises(Refused):
        await made.controller.rollback("2", "why not", "ann")
    assert made.controller.registry.rollouts() == []
    await made.close()


async def test_going_back_without_a_rollout_is_refused(workshop: Workshop) -> None:
    with pytest.raises(Refused, match="no version before"):
        await workshop.controller.rollback(None, "", "ann")
    with pytest.raises(Refused, match="no version"):
        await workshop.controller.rollback("99", "", "ann")
