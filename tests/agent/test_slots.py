"""Slots: who serves in them is ready, and what is stopped takes nobody else along."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.config import Config
from tests.agent.workshop import Workshop

HANGS = "import signal; signal.pause()  # {artifact} {port}"


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path)
    await made.controller.start()
    yield made
    await made.end_models()
    await made.close()


def served_by(workshop: Workshop, start: tuple[str, ...], *, ready_timeout_s: float) -> Config:
    candidate = workshop.config.rollout.candidate
    assert candidate is not None
    changed = candidate.model_copy(update={"start": start, "ready_timeout_s": ready_timeout_s})
    rollout = workshop.config.rollout.model_copy(update={"candidate": changed})
    return workshop.config.model_copy(update={"rollout": rollout})


async def test_a_model_that_hangs_is_ended_and_not_taken_for_ready_later(
    workshop: Workshop,
) -> None:
    digest = workshop.candidate("2")
    slots = workshop.controller.slots
    slots._config = served_by(workshop, (sys.executable, "-c", HANGS), ready_timeout_s=0.5)
    for _ in range(2):
        with pytest.raises(OSError, match="not ready"):
            await slots.start("B", digest)
        assert slots._processes == {}


async def test_a_start_right_behind_a_stop_survives_it(workshop: Workshop) -> None:
    slots, registry = workshop.controller.slots, workshop.controller.registry
    first, second = workshop.candidate("2"), workshop.candidate("3")
    await slots.start("B", first)
    stop = asyncio.create_task(slots.stop("B"))
    await asyncio.sleep(0)
    await slots.start("B", second)
    await stop
    assert await slots.failed() == []
    assert registry.slot("B").digest == second
    assert slots._processes["B"].alive()


async def test_a_stop_does_not_wait_for_a_model_that_never_gets_ready(workshop: Workshop) -> None:
    digest = workshop.candidate("2")
    slots = workshop.controller.slots
    slots._config = served_by(workshop, (sys.executable, "-c", HANGS), ready_timeout_s=60.0)
    starting = asyncio.create_task(slots.start("B", digest))
    async with asyncio.timeout(10.0):
        while "B" not in slots._processes:  # noqa: ASYNC110 - starting has no event for us
            await asyncio.sleep(0.01)
        await slots.stop("B")
    with pytest.raises(OSError, match="was emptied"):
        await starting
    assert workshop.controller.registry.slot("B").digest is None


async def test_going_back_to_the_configured_upstream_starts_nothing(workshop: Workshop) -> None:
    slots, registry = workshop.controller.slots, workshop.controller.registry
    stable = registry.stable()
    assert stable is not None
    assert stable.digest is not None
    await slots.stop("A")  # as after a promotion went live
    assert registry.slot("A").address is None
    await slots.start("A", stable.digest)
    assert registry.slot("A").address == "http://127.0.0.1:9"
    assert slots.address("A") == "127.0.0.1:9"
    assert slots._processes == {}
