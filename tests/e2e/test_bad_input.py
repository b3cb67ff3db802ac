"""What clients send that is no question to a model: relayed as it came, counted by its reason."""

import asyncio
import json
from collections.abc import Callable

import pytest

from tests.e2e.house import Agent, Load, ask, request, until
from tests.e2e.model import Model

pytestmark = pytest.mark.real

GOOD = b'{"instances": [[0.5, 1, 2]]}'
BODIES: dict[str, tuple[str, bytes]] = {
    "longer than the capture": (
        "body_truncated",
        json.dumps({"instances": [[0.5, 1, 2]] * 10_000}).encode(),
    ),
    "not JSON": ("not_json", b'{"instances": [[0.5, 1'),
    "wrong types": ("wrong_type", b'{"instances": "0.5, 1, 2"}'),
    "an empty batch": ("empty_batch", b'{"instances": []}'),
    "rows of different lengths": ("ragged_rows", b'{"instances": [[1, 2, 3], [1, 2]]}'),
    "10,000 columns": (
        "too_many_columns",
        json.dumps({"instances": [[0] * 10_000]}).encode(),
    ),
}


async def test_whatever_comes_is_relayed_untouched_and_counted_by_its_reason(
    new_agent: Callable[..., Agent], new_load: Callable[..., Load], model: Model
) -> None:
    agent = new_agent()
    agent.config["sources"][0]["capture_bytes_max"] = 40_000
    await agent.start()
    load = new_load(agent, clients=1)
    await load.more(20)  # the protocol of the route is known
    await load.stop()
    for name, (_, body) in BODIES.items():
        status, _, _ = await ask(agent.port, body)
        assert status == 200, name
        assert model.last_body == body, name
    await _leave_halfway(agent, model)
    assert (await ask(agent.port, GOOD))[0] == 200

    async def counted() -> bool:
        metrics = await agent.metrics()
        wanted = {reason for reason, _ in BODIES.values()}
        return all(metrics.sum("remora_dropped_total", reason=reason) == 1 for reason in wanted)

    try:
        await until(counted, "each is counted by its reason")
    except AssertionError:
        print((await agent.get("/metrics")).text.partition("remora_dropped_total")[2][:1500])
        print((await agent.status() or {}).get("undecoded"))
        raise

    async def left() -> bool:
        metrics = await agent.metrics()
        return metrics.sum("remora_requests_total", code="client_disconnect") == 1

    await until(left, "the client that left is counted")
    metrics = await agent.metrics()
    assert metrics.sum("remora_agent_restarts_total") == 0
    assert metrics.sum("remora_dropped_total", reason="receiver") == 0


async def _leave_halfway(agent: Agent, model: Model) -> None:
    """A request whose body never comes to its end, given up once its head is at the model.

    Not sooner: where a reset overtakes what was sent, there was never a request to count.
    """
    begun = model.begun
    _, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    writer.write(request("half-1", GOOD * 100)[:-50])
    await until(lambda: model.begun > begun, "half a request is at the model")
    writer.transport.abort()


@pytest.mark.parametrize("word", ["NaN", "Infinity"])
async def test_numbers_that_are_none_are_counted_and_harm_nobody(
    new_agent: Callable[..., Agent], new_load: Callable[..., Load], model: Model, word: str
) -> None:
    agent = new_agent(
        schema={"features": [{"name": n, "kind": "numeric"} for n in ("f0", "f1", "f2")]},
        reference={"learn_rows": 300, "provisional_rows": 100},
        detect={"tick_rows": 100, "tick_s": 1},
    )
    await agent.start()
    load = new_load(agent, clients=1)

    async def learnt() -> bool:
        return bool((await agent.status() or {}).get("reference"))

    await until(learnt, "reference learnt")
    body = f'{{"instances": [[0.5, {word}, 2], [0.1, 3, 1]]}}'.encode()
    for _ in range(60):
        assert (await ask(agent.port, body))[0] == 200
    assert load.failed == 0

    async def missing() -> bool:
        metrics = await agent.metrics()
        if "Infinity" in word:
            return metrics.sum("remora_dropped_total", reason="infinite_value") > 0
        return metrics.sum("remora_feature_missing_ratio", feature="f1") > 0

    await until(missing, f"{word} is counted")
    text = (await agent.get("/metrics")).text
    assert "remora_rows_total" in text
    metrics = await agent.metrics()
    assert metrics.sum("remora_dropped_total", reason="receiver") == 0
    assert metrics.sum("remora_agent_restarts_total") == 0
    assert (await agent.get("/api/v1/features/f1")).status_code == 200
