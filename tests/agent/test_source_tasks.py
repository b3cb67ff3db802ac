"""Sources fail, end and block; none of that ends the watching or goes unsaid."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent import source_tasks
from agent.source_tasks import SourceTasks
from agent.sources.source import Emit, SourceName


class Scripted:
    """A source that does what each of its turns says."""

    name: SourceName = "push"
    completeness = 0.75

    def __init__(self, *turns: Callable[[Emit], Any]) -> None:
        self.turns = list(turns)
        self.runs = 0
        self.closed = 0
        self.dropped = {"body_too_large": 3}

    async def run(self, emit: Emit) -> None:
        self.runs += 1
        try:
            if self.turns:
                self.turns.pop(0)(emit)
            else:
                await asyncio.Event().wait()
        finally:
            self.closed += 1


def fails(_: Emit) -> None:
    raise OSError("the directory is gone")


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - a task of another has no event for us
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_tasks, "BACKOFF_S", (0.0, 0.01))


async def test_a_source_that_fails_or_ends_is_begun_again_and_counted() -> None:
    source = Scripted(fails, lambda _: None, fails)
    tasks = SourceTasks([source], lambda _: True)
    tasks.start()
    await until(lambda: source.runs == 4)
    assert tasks.drops() == {"source_failed": 2, "body_too_large": 3}
    (status,) = tasks.status()
    assert (status["state"], status["reason"], status["completeness"]) == ("runs", None, 0.75)
    await tasks.stop()
    assert source.closed == 4  # the last one was cancelled and awaited


async def test_one_that_waits_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_tasks, "BACKOFF_S", (60.0,))
    broken, well = Scripted(fails), Scripted()
    tasks = SourceTasks([broken, well], lambda _: True)
    tasks.start()
    await until(lambda: tasks.status()[0]["state"] == "waits")
    first, second = tasks.status()
    assert (first["reason"], second["state"]) == ("the directory is gone", "runs")
    await tasks.stop()


async def test_what_a_receiver_cannot_stand_does_not_end_the_source() -> None:
    said: list[bool] = []
    anything: Any = object()

    def refuse(_: Any) -> bool:
        raise RuntimeError("a fault of ours")

    source = Scripted(lambda emit: said.append(emit(anything)))
    tasks = SourceTasks([source], refuse)
    tasks.start()
    await until(lambda: source.runs == 2)
    assert said == [False]
    assert tasks.drops()["intake_failed"] == 1
    assert tasks.drops()["source_failed"] == 0
    await tasks.stop()
