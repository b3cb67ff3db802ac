"""The running graph: one agent for a directory, and a channel that is never given up."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent import channels
from agent.config import load_config
from agent.labels import Label
from agent.sampling import edge_keeps
from agent.topology import Agent, infinite_cells


def an_agent(directory: Path, told: list[dict[str, Any]], **overrides: Any) -> Agent:
    config = load_config(
        None,
        environ={},
        overrides={
            "sources.0.upstream": "http://127.0.0.1:9",
            "state.dir": str(directory / "state"),
            **{name.replace("__", "."): value for name, value in overrides.items()},
        },
    )
    return Agent(
        config,
        role="all",
        stable_address="127.0.0.1:9",
        stable_version="1",
        tell_supervisor=told.append,
    )


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - tasks of others have no event for us
            await asyncio.sleep(0.01)


async def test_two_agents_do_not_share_a_directory(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    first = an_agent(tmp_path, [])
    with pytest.raises(OSError, match="another agent uses"):
        an_agent(tmp_path, [])
    await first.start(admin_socket=str(tmp_path / "a.sock"))
    first.connect(ours)
    await first.stop()
    theirs.close()
    second = an_agent(tmp_path, [])
    await second.stop()


async def test_a_label_of_a_request_that_the_edge_did_not_keep_does_not_wait(
    tmp_path: Path,
) -> None:
    agent = an_agent(tmp_path, [], sampling__rate=0.5)
    ids = [f"request-{number}" for number in range(40)]
    salt = agent.sampling.order.salt
    kept = [edge_keeps(id, rate=0.5, salt=salt) for id in ids]
    assert 0 < sum(kept) < len(ids)
    counts = agent.intake.take_labels([Label(request_id=id, label="yes") for id in ids])
    assert counts is not None
    assert (counts["pending"], counts["not_sampled"]) == (sum(kept), len(ids) - sum(kept))
    await agent.stop()


async def test_a_channel_that_ends_is_asked_for_until_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "CHANNEL_LOST_S", 0.02)
    told: list[dict[str, Any]] = []
    agent = an_agent(tmp_path, told)
    ours, theirs = socket.socketpair()
    await agent.start(admin_socket=str(tmp_path / "a.sock"))
    agent.connect(ours)
    theirs.setblocking(False)
    theirs.send(b"\xff" * 64)  # no edge writes that
    lost = {"type": "channel_lost", "source": "proxy", "worker": 0}
    await until(lambda: told.count(lost) >= 2)
    ours, fresh = socket.socketpair()
    agent.connect(ours)
    asked = told.count(lost)
    await until(lambda: agent.channels.reading == 1)
    assert agent.channels.malformed()["channel"] == 1
    assert told.count(lost) == asked
    await agent.stop()
    theirs.close()
    fresh.close()


async def test_a_loop_that_fails_goes_on_and_is_counted(tmp_path: Path) -> None:
    agent = an_agent(tmp_path, [])

    async def broken() -> None:
        raise RuntimeError("at every turn")

    task = agent._every(lambda: 0.001, broken)
    await until(lambda: agent.intake.dropped["periodic_task"] > 3)
    task.cancel()
    await agent.stop()


def test_infinite_numbers_are_counted_in_numeric_columns_alone() -> None:
    columns = {
        "a": np.array([1.0, np.inf, -np.inf, np.nan]),
        "b": np.array(["inf", "x", "y", "z"], dtype=object),
    }
    batch: Any = SimpleNamespace(columns=columns)
    assert infinite_cells(batch) == 2
