"""Several edges on one listening socket: all work, and the death of one costs what it held."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.house import Agent, Load, Metrics, until

pytestmark = pytest.mark.real

NewAgent = Callable[..., Agent]
NewLoad = Callable[..., Load]


def of_two(new_agent: NewAgent) -> Agent:
    agent = new_agent()
    agent.config["sources"][0]["workers"] = 2
    return agent


async def by_process(agent: Agent, name: str) -> dict[str, float]:
    """A metric's values by its label `process`."""
    samples = (await agent.metrics()).samples
    return {labels["process"]: value for found, labels, value in samples if found == name}


def _work(metrics: Metrics) -> float:
    return metrics.sum("remora_requests_total", code="2xx")


async def test_both_get_work_and_are_counted_together(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    agent = of_two(new_agent)
    await agent.start()
    assert len(agent.pids("edge")) == 2
    load = new_load(agent, clients=8)
    load.keep = False  # each request may come to another edge
    before = await by_process(agent, "remora_agent_cpu_seconds_total")
    assert {"edge-1", "edge-2", "analysis", "supervisor"} == set(before)

    async def busy() -> bool:
        now = await by_process(agent, "remora_agent_cpu_seconds_total")
        return all(now[name] > before[name] + 0.03 for name in ("edge-1", "edge-2"))

    await until(busy, "both edges work")
    await load.stop()
    asked = load.statuses[200]

    async def all_counted() -> bool:
        return asked <= _work(await agent.metrics()) <= asked + 8  # those that were in flight

    await until(all_counted, "the requests of both are counted")
    assert load.failed == 0
    (source,) = (await agent.status() or {})["sources"]
    assert (source["kind"], source["state"], source["completeness"]) == ("proxy", "runs", 1.0)
    _, body = await agent.probe("/healthz")
    assert (body["edge"], body["edges"]) == ("up", "2 of 2")


async def test_killing_one_under_load_fails_only_what_it_had_in_flight(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    agent = of_two(new_agent)
    await agent.start()
    load = new_load(agent, clients=6)
    await load.more(300)
    old = agent.pids("edge")
    counted = _work(await agent.metrics())
    os.kill(old[0], signal.SIGKILL)
    while_away = load.requests
    await until(lambda: len(set(agent.pids("edge")) - set(old)) == 1, "another edge")
    await load.more(300)
    assert load.requests > while_away
    assert load.statuses[0] <= 6, load.statuses  # connections that were open on it
    assert set(load.statuses) <= {0, 200}
    assert old[1] in agent.pids("edge")

    async def rises() -> bool:
        return _work(await agent.metrics()) > counted + 200

    await until(rises, "counters went on rising")
    restarts = await by_process(agent, "remora_agent_restarts_total")
    assert restarts["edge-1"] + restarts["edge-2"] == 1


async def test_a_restarted_analysis_finds_them_all_and_shows_no_sum_of_some(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    agent = of_two(new_agent)
    await agent.start()
    load = new_load(agent, clients=6)
    load.keep = False
    await load.more(200)
    await until(lambda: _counted(agent, load), "counted")
    before = _work(await agent.metrics())
    old = agent.signal("analysis", signal.SIGKILL)
    await agent.restarted("analysis", old)
    await agent.ready()

    async def heard_of_both() -> Any:
        # Never less than before: the sum of one edge would be.
        work = _work(await agent.metrics())
        assert work == 0 or work >= before
        return work >= before

    await until(heard_of_both, "the counters of both go on")
    assert load.failed == 0


async def _counted(agent: Agent, load: Load) -> bool:
    return _work(await agent.metrics()) >= 200
