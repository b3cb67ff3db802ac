"""The running graph: one agent for a directory, and a channel that is never given up."""

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent import channels
from agent.config import load_config
from agent.edge import channel
from agent.edge.counters import Cell, Counters
from agent.labels import Label
from agent.sampling import edge_keeps
from agent.sources.proxy import to_exchange
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


def exchange_of(id: str, duration_s: float) -> bytes:
    body = b'{"instances": [[0.5, 1]]}'
    request = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    record = channel.ExchangeRecord(
        slot=0,
        outcome=0,
        id_from=0,
        id=id.encode(),
        version=b"1",
        request=request + body,
        request_truncated=False,
        response=b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"predictions": [1]}',
        response_truncated=False,
        started_at=1_000.0,
        first_byte_s=duration_s,
        duration_s=duration_s,
        weight=1.0,
    )
    return channel.encode_exchange(record)


def counts_of(cell: Cell) -> bytes:
    counters = Counters(("other",))
    counters.start_id = "one edge"
    counters._versions["1"] = [cell]
    snapshot = counters.snapshot(generation=0, weight=0.0)
    body = {**snapshot, "capture_s": 0.0, "shadow_copies": {"busy": 3}}
    return channel.frame(channel.COUNTERS, json.dumps(body).encode())


async def test_what_comes_over_a_channel_is_in_latencies_objectives_and_copies_and_survives(
    tmp_path: Path,
) -> None:
    slo = {"slo.0.name": "answered", "slo.0.objective": 0.9}
    agent = an_agent(tmp_path, [], **slo)
    ours, theirs = socket.socketpair()
    await agent.start(admin_socket=str(tmp_path / "a.sock"))
    agent.connect(ours)
    cell = Cell()
    theirs.sendall(counts_of(cell))
    await until(lambda: agent.totals.edges)
    await agent._note_history()
    for number in range(20):
        theirs.sendall(exchange_of(f"r-{number}", 0.25))
        cell.in_flight += 1
        cell.finished(0, 500 if number < 5 else 200, 0.25, 0.25)
    theirs.sendall(counts_of(cell))
    await until(lambda: agent.totals.requests == 20 and agent.intake.monitor.rows_total == 20)
    await agent._note_history()
    status = agent.view.status()
    (latency,) = status["latency"]
    assert latency["p50_s"] == pytest.approx(0.25, rel=0.02)
    (standing,) = status["slo"]
    assert standing["burn"]["5m"] == pytest.approx(2.5)
    text = " ".join(family.name for family in agent.view.families())
    for name in ("request_duration_quantile_seconds", "slo_burn_rate", "shadow_copies_total"):
        assert f"remora_{name}" in text
    await agent.stop()
    theirs.close()
    again = an_agent(tmp_path, [], **slo)
    await again.start(admin_socket=str(tmp_path / "a.sock"))
    assert again.view.status()["slo"][0]["remaining"] == pytest.approx(-1.5)
    await again.stop()


async def test_the_answers_of_both_models_reach_the_rollout(tmp_path: Path) -> None:
    agent = an_agent(tmp_path, [])
    heard: list[tuple[str, bool]] = []
    assert agent.intake.feed_pairs == agent.controller.release.on_answer
    agent.intake.feed_pairs = lambda inference, shadow: heard.append((inference.id, shadow))
    record = channel.decode_exchange(exchange_of("r-1", 0.1)[channel.FRAME_HEAD_BYTES :])
    exchange = to_exchange(record)
    agent._take(exchange)
    agent._take(replace(exchange, shadow=True, slot="candidate", version="2"))
    assert heard == [("r-1", False), ("r-1", True)]
    # A copy's rows are the client's rows once more.
    assert agent.intake.monitor.rows_total == 1
    await agent.stop()


def test_infinite_numbers_are_counted_in_numeric_columns_alone() -> None:
    columns = {
        "a": np.array([1.0, np.inf, -np.inf, np.nan]),
        "b": np.array(["inf", "x", "y", "z"], dtype=object),
    }
    batch: Any = SimpleNamespace(columns=columns)
    assert infinite_cells(batch) == 2
