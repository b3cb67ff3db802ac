"""The whole agent ended and started again on sockets that somebody else holds open."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.house import Agent, Load, ask, until

pytestmark = pytest.mark.real

NewAgent = Callable[..., Agent]
NewLoad = Callable[..., Load]


@pytest.fixture
def held() -> Iterator[list[socket.socket]]:
    """Sockets of the test's own, closed at its end."""
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def listening(port: int, held: list[socket.socket]) -> socket.socket:
    sock = socket.create_server(("127.0.0.1", port), backlog=1024)
    held.append(sock)
    return sock


async def test_a_restart_on_inherited_sockets_fails_no_request(
    new_agent: NewAgent, new_load: NewLoad, held: list[socket.socket]
) -> None:
    agent = new_agent()
    agent.config["sources"][0]["workers"] = 2
    agent.inherits = {
        "proxy": listening(agent.port, held),
        "admin": listening(agent.admin_port, held),
    }
    await agent.start()
    keeping, passing = new_load(agent, clients=3), new_load(agent, clients=3)
    passing.keep = False
    await keeping.more(100)
    await passing.more(100)
    assert await agent.stop() == 0
    agent.launch()
    await agent.ready()
    await passing.more(100)
    await keeping.more(100)
    assert (keeping.failed, passing.failed) == (0, 0), (keeping.statuses, passing.statuses)


async def test_what_takes_long_is_finished_before_the_edge_goes(
    new_agent: NewAgent, held: list[socket.socket]
) -> None:
    agent = new_agent()
    agent.inherits = {"proxy": listening(agent.port, held)}
    await agent.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    body = b'{"instances": [[1, 2, 3]]}'
    head = f"POST /v1/models/m:predict HTTP/1.1\r\nhost: m\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body[:5])

    async def in_flight() -> bool:
        return (await agent.metrics()).sum("remora_requests_in_flight") == 1

    await until(in_flight, "the request has begun")
    assert agent.process is not None
    agent.process.terminate()
    # The listener was closed here, and is open at its holder: a new connection waits there.
    await until(lambda: "draining" in agent.log.read_text(), "it drains")
    writer.write(body[5:])
    answer = await asyncio.wait_for(reader.read(), 20.0)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()
    writer.close()
    assert await asyncio.to_thread(agent.process.wait, 20.0) == 0
    waiting = asyncio.create_task(ask(agent.port, body))
    agent.launch()
    assert (await waiting)[0] == 200


async def test_a_socket_that_nobody_wants_is_named_and_the_rest_is_bound(
    new_agent: NewAgent, held: list[socket.socket]
) -> None:
    agent = new_agent()
    agent.inherits = {"proxy": listening(agent.port, held), "other": listening(0, held)}
    await agent.start()
    assert (await ask(agent.port, b'{"instances": [[1, 2, 3]]}'))[0] == 200
    assert "none of ours" in agent.log.read_text()


async def test_systemd_itself_hands_them_on(
    new_agent: NewAgent, program: Callable[[str], Path]
) -> None:
    agent = new_agent()
    agent.through = [str(program("systemd-socket-activate"))]
    for port in (agent.admin_port, agent.port):  # unnamed: known by their addresses
        agent.through += ["-l", f"127.0.0.1:{port}"]
    agent.launch()
    # The first connection starts it.
    await until(lambda: _accepts(agent.admin_port), "systemd listens")
    await agent.ready()
    assert (await ask(agent.port, b'{"instances": [[1, 2, 3]]}'))[0] == 200
    assert await agent.stop() == 0


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
