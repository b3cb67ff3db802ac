"""A real agent with a budget too small for its traffic, and one that keeps what failed."""

from collections.abc import Callable
from typing import Any

import pytest

from agent.edge.draw import DRAWS, draw
from tests.e2e.house import Agent, Load, until
from tests.e2e.model import Model

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

NewAgent = Callable[..., Agent]
NewLoad = Callable[..., Load]


async def test_a_budget_is_held_by_looking_at_less_and_traffic_does_not_notice(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    agent = new_agent(
        detect={"tick_rows": 200, "tick_s": 1},
        sampling={"cpu_budget": 0.002, "rate_min": 0.01},
    )
    await agent.start()
    load = new_load(agent)
    assert (await agent.metrics()).sum("remora_sampling_rate", model="m") == 1.0

    async def rate() -> float:
        return (await agent.metrics()).sum("remora_sampling_rate", model="m")

    async def lowest() -> bool:
        return await rate() == 0.01

    await until(lowest, "the rate lowered to its least", within_s=90.0)
    await load.more(200)
    assert load.failed == 0
    status = await agent.status()
    assert status is not None
    governor = status["governor"]
    assert (governor["why"], status["sampling"]["rate"]) == ("cpu", 0.01)
    assert governor["cpu"]["budget_cores"] == 0.002
    assert governor["cpu"]["used_cores"] > 0.0
    assert status["sampling"]["asked"] == 1.0
    assert "sampling rate changed" in agent.log.read_text()

    # What is asked about now was left out, and that is what its label is told.
    salt = (agent.state / "sampling.salt").read_bytes()
    out = [id for id in (f"new-{n}" for n in range(50)) if draw(id.encode(), salt) / DRAWS > 0.01]

    async def known() -> bool:
        body = [{"request_id": id, "label": 1} for id in out]
        said: dict[str, Any] = (await agent.post("/api/v1/labels", body)).json()
        return bool(said["not_sampled"] == len(out))

    await until(known, "labels of requests that were left out", within_s=60.0)

    # An idle agent costs more than two thousandths of a core: that is said as well.
    async def unheld() -> bool:
        metrics = await agent.metrics()
        return metrics.sum("remora_sampling_budget_held", budget="cpu") == 0.0

    await until(unheld, "a budget that cannot be held", within_s=90.0)
    findings = (await agent.get("/api/v1/findings")).text
    assert "sampling.cpu_budget cannot be held" in findings
    assert load.failed == 0


async def test_failures_are_all_kept_where_little_else_is(
    new_agent: NewAgent, new_load: NewLoad, model: Model
) -> None:
    model.failing = 0.2
    agent = new_agent(sampling={"rate": 0.05, "errors": True}, detect={"tick_s": 1})
    await agent.start()
    load = new_load(agent)
    await load.more(1_000)
    await load.stop()
    failed, requests = load.statuses[500], load.requests
    assert failed == pytest.approx(0.2 * requests, rel=0.1)

    async def all_came() -> bool:
        metrics = await agent.metrics()
        return metrics.sum("remora_dropped_total", reason="error_status") == failed

    await until(all_came, "every failure kept")
    metrics = await agent.metrics()
    assert metrics.sum("remora_sampling_rate") == 0.05
    assert metrics.sum("remora_rows_total") < 0.15 * 2 * requests
    status = await agent.status()
    assert status is not None
    assert status["sampling"]["failed_ratio"] == pytest.approx(0.2, abs=0.1)
