"""Each process of a running agent killed, hung or told to end, under load: what clients notice."""

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.house import Agent, Load, ask, until
from tests.e2e.model import Model

pytestmark = pytest.mark.real

NewAgent = Callable[..., Agent]
NewLoad = Callable[..., Load]

# A reference within seconds, and ticks that small.
QUICK: dict[str, Any] = {
    "reference": {"learn_rows": 400, "provisional_rows": 100},
    "detect": {"tick_rows": 100, "tick_s": 2},
}


async def learnt(agent: Agent) -> dict[str, Any]:
    """Status once there is a reference and a snapshot has it."""

    async def has_reference() -> Any:
        status = await agent.status()
        return status if status and status["reference"] else None

    status: dict[str, Any] = await until(has_reference, "reference learnt")
    at = time.time()
    path = agent.state / "snapshot.npz"
    await until(lambda: path.exists() and path.stat().st_mtime > at, "snapshot written")
    return status


async def test_killed_analysis_costs_no_request_and_forgets_at_most_one_snapshot(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    agent = new_agent(**QUICK)
    await agent.start()
    load = new_load(agent)
    before = await learnt(agent)
    await load.more(200)
    early = load.ids[-180:-140]  # of ticks that are closed: an open tick is lost with its process
    rows_before = (await agent.metrics()).sum("remora_rows_total")
    snapshot_at = (agent.state / "snapshot.npz").stat().st_mtime
    assert time.time() - snapshot_at < 4.0
    old = agent.signal("analysis", signal.SIGKILL)
    away = await agent.probe("/healthz")
    assert away[0] == 200
    await agent.restarted("analysis", old)
    await agent.ready()
    await load.more(100)
    after = await agent.status()
    assert after is not None
    assert after["reference"] == before["reference"]
    assert load.failed == 0
    # Rows of the time between the last snapshot and the kill are lost, no more.
    assert (await agent.metrics()).sum("remora_rows_total") > rows_before - 2_000
    metrics = await agent.metrics()
    assert metrics.sum("remora_agent_restarts_total", process="analysis") == 1
    assert metrics.sum("remora_requests_total", code="2xx") > 100
    # Predictions are on disk: labels of before the kill still find theirs.
    labels = [{"request_id": id, "row": 0, "label": 1} for id in early]
    counts = (await agent.post("/api/v1/labels", labels)).json()
    assert counts["joined"] == len(early), counts


async def test_killed_edge_fails_only_what_was_in_flight_on_it(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    agent = new_agent(**QUICK, sampling={"rate": 0.5})
    await agent.start()
    load = new_load(agent, clients=4)
    await load.more(200)
    await until(
        lambda: _counted(agent, at_least=150), "counters of the first edge reached analysis"
    )
    before = await agent.metrics()
    old = agent.signal("edge", signal.SIGKILL)
    # The very next connection waits in the kernel's queue of the supervisor's socket.
    status, headers, _ = await ask(agent.port, b'{"instances": [[1, 2, 3]]}')
    assert status == 200
    assert headers["x-remora-version"] == "1"
    await agent.restarted("edge", old)
    assert load.statuses[0] <= 4, load.statuses
    assert set(load.statuses) <= {0, 200}
    await load.more(200)
    counted = before.sum("remora_requests_total")
    await until(lambda: _counted(agent, at_least=counted + 150), "counters went on rising")
    after = await agent.metrics()
    assert after.sum("remora_agent_restarts_total", process="edge") == 1
    # The sampling rate was told again: about half of the later requests became rows.
    new_requests = after.sum("remora_requests_total") - counted
    new_rows = after.sum("remora_rows_total") - before.sum("remora_rows_total")
    assert 0.25 < new_rows / 2 / new_requests < 0.75


async def _counted(agent: Agent, *, at_least: float) -> bool:
    return (await agent.metrics()).sum("remora_requests_total") >= at_least


async def test_hung_analysis_costs_copies_and_no_request(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    agent = new_agent(**QUICK)
    await agent.start()
    load = new_load(agent, padding=200_000)
    await load.more(20)
    agent.signal("analysis", signal.SIGSTOP)
    try:
        # The channel and the edge's queue hold 10 MiB or so: this is three times that.
        await load.more(150)

        async def down() -> bool:
            code, body = await agent.probe("/healthz")
            assert code == 200
            return bool(body["analysis"] == "down")

        await until(down, "healthz says that analysis does not answer")
        assert (await agent.probe("/readyz"))[0] == 200
        await load.more(20)
    finally:
        agent.signal("analysis", signal.SIGCONT)

    async def dropped() -> bool:
        metrics = await agent.metrics()
        return metrics.sum("remora_dropped_total", reason="channel_full") > 0

    await until(dropped, "drops counted")
    assert load.failed == 0
    assert (await agent.metrics()).sum("remora_agent_restarts_total") == 0


async def test_killed_supervisor_takes_its_children_along_and_another_binds_at_once(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    agent = new_agent(**QUICK)
    await agent.start()
    load = new_load(agent)
    await learnt(agent)
    children = [agent.pid("edge"), agent.pid("analysis")]
    agent.kill_supervisor()
    died_at = time.monotonic()
    agent.launch()  # at once: it waits for the ports that the old edge still holds
    await until(lambda: not set(children) & set(agent.alive()), "children ended", within_s=7.0)
    assert time.monotonic() - died_at < 7.0
    await agent.ready()
    before = load.statuses[200]
    await until(lambda: load.statuses[200] > before + 100, "requests are answered again")
    status = await agent.status()
    assert status is not None
    assert status["reference"] is not None  # what the old analysis saved as it went


async def test_two_agents_never_share_a_state_directory(
    new_agent: NewAgent, new_load: NewLoad
) -> None:
    first, second = new_agent(), new_agent()
    await first.start()
    second.config["state"] = first.config["state"]
    second.launch()

    async def refused() -> bool:
        _, body = await second.probe("/healthz")
        return "another agent uses" in body.get("analysis_error", "")

    await until(refused, "the second one says why it does not analyse")
    # It relays all the same: a wrong directory is no reason to fail requests.
    assert (await ask(second.port, b'{"instances": [[1, 2, 3]]}'))[0] == 200
    assert (await first.probe("/healthz"))[1]["analysis"] == "up"


async def test_sigterm_drains_and_leaves_nobody(new_agent: NewAgent, new_load: NewLoad) -> None:
    agent = new_agent()
    await agent.start()
    load = new_load(agent)
    await load.more(50)
    assert await agent.stop() == 0
    await load.stop()
    # Whatever was being answered was answered; refused connections are what a stop is.
    assert set(load.statuses) <= {200, 0}
    assert agent.alive() == []
    assert (agent.state / "snapshot.npz").exists()


async def test_sighup_takes_up_what_is_live_and_names_the_rest(new_agent: NewAgent) -> None:
    agent = new_agent()
    await agent.start()
    agent.config["sampling"] = {"rate": 0.25}
    agent.config["model"] = {"name": "other", "version": "1"}
    agent.write_config()
    assert agent.process is not None
    os.kill(agent.process.pid, signal.SIGHUP)

    async def taken() -> bool:
        status = await agent.status()
        return status is not None and status["sampling"]["rate"] == 0.25

    await until(taken, "the new rate is in force")
    assert "needs a restart" in agent.log.read_text()
    assert "model.name" in agent.log.read_text()
    status = await agent.status()
    assert status is not None
    assert status["model"] == "m"
    (agent.directory / "remora.yaml").write_text("sampling: {rte: 1}")
    os.kill(agent.process.pid, signal.SIGHUP)
    await until(lambda: "not reloaded" in agent.log.read_text(), "the mistake is told")
    assert agent.process.poll() is None


async def test_upstream_that_is_down_is_counted_and_awaited(
    new_agent: NewAgent, model: Model
) -> None:
    agent = new_agent()
    await agent.start()
    port = model.port
    await model.stop()
    status, headers, _ = await ask(agent.port, b'{"instances": [[1, 2, 3]]}', id="lost-1")
    assert status == 502
    assert headers["x-remora-request-id"] == "lost-1"
    assert (await agent.probe("/readyz"))[0] == 503
    assert (await agent.probe("/healthz"))[0] == 200

    async def counted() -> bool:
        return (await agent.metrics()).sum(
            "remora_requests_total", code="upstream_unreachable"
        ) == 1

    await until(counted, "the 502 is counted")
    await model.start(port)
    await until(lambda: _ready(agent), "ready again")
    assert (await ask(agent.port, b'{"instances": [[1, 2, 3]]}'))[0] == 200


async def _ready(agent: Agent) -> bool:
    return (await agent.probe("/readyz"))[0] == 200


@pytest.mark.parametrize("name", ["snapshot.npz", "labels.db"])
async def test_memory_that_cannot_be_read_is_set_aside(new_agent: NewAgent, name: str) -> None:
    agent = new_agent(**QUICK)
    agent.state.mkdir()
    (agent.state / name).write_bytes(b"no database, no archive" * 500)
    await agent.start()
    assert (await ask(agent.port, b'{"instances": [[1, 2, 3]]}'))[0] == 200
    aside = {"snapshot.npz": "snapshot.unusable", "labels.db": "labels.unreadable"}[name]
    assert (agent.state / aside).exists()
    assert "error" in agent.log.read_text()


async def test_a_ledger_that_is_damaged_stops_the_deciding_and_not_the_traffic(
    new_agent: NewAgent,
) -> None:
    agent = new_agent()
    agent.state.mkdir()
    path = agent.state / "decisions.db"
    path.write_bytes(b"this was a ledger once" * 1_000)
    agent.launch()

    async def told() -> bool:
        _, body = await agent.probe("/healthz")
        return "damaged" in body.get("analysis_error", "")

    await until(told, "healthz says what is wrong")
    code, body = await agent.probe("/healthz")
    assert (code, body["edge"]) == (200, "up")
    assert (await agent.probe("/readyz"))[0] == 200
    assert (await ask(agent.port, b'{"instances": [[1, 2, 3]]}'))[0] == 200
    assert (await agent.metrics()).sum("remora_analysis_up") == 0
    assert path.read_bytes().startswith(b"this was a ledger once")  # nobody touched it
    # The mend that the message names, while everything runs.
    path.rename(path.with_suffix(".damaged"))
    await until(agent.status, "analysis starts with a new ledger", within_s=25.0)
    assert "analysis_error" not in (await agent.probe("/healthz"))[1]


async def test_a_configuration_longer_than_a_packet_reaches_analysis(new_agent: NewAgent) -> None:
    features = [{"name": f"feature-{n:05d}-{'x' * 40}", "kind": "numeric"} for n in range(4_000)]
    agent = new_agent(schema={"features": features})
    assert len(json.dumps(agent.config)) > 250_000
    await agent.start()
