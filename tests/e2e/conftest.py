"""A real agent in front of a small real model, ended by pid when the test is over."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import Agent, Load
from tests.e2e.model import Model


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    served = Model()
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
def new_agent(tmp_path: Path, model: Model) -> Iterator[Callable[..., Agent]]:
    """Makes agents in front of the model, not started yet; sections of the configuration as
    keywords."""
    made: list[Agent] = []

    def make(**sections: Any) -> Agent:
        directory = tmp_path / f"agent{len(made)}"
        directory.mkdir()
        agent = Agent(directory, upstream=model.port, **sections)
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
async def new_load() -> AsyncIterator[Callable[..., Load]]:
    """Starts clients against an agent's port."""
    made: list[Load] = []

    def start(agent: Agent, **changes: Any) -> Load:
        load = Load(agent.port, **changes)
        made.append(load)
        load.start()
        return load

    yield start
    for load in made:
        await load.stop()
