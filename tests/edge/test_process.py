"""The edge as the supervisor starts it: a process of its own, orders and descriptors by socket."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.house import OK, WAIT_S, Analysis, House, Peer

ROOT = Path(__file__).resolve().parents[2]
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


class Process:
    """The supervisor's side."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.process = process
        self.control = control

    def send(self, message: dict[str, Any], fds: list[int]) -> None:
        socket.send_fds(self.control, [json.dumps(message).encode()], fds)

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            packet = await asyncio.get_running_loop().sock_recv(self.control, 65_536)
        message = json.loads(packet)
        assert isinstance(message, dict)
        return message

    def proc(self, name: str) -> str:
        return Path(f"/proc/{self.process.pid}/{name}").read_text()

    async def ended(self) -> int:
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "agent.edge", "remora-edge", "--control-fd", str(theirs.fileno())),
        pass_fds=(theirs.fileno(),),
        cwd=ROOT,
    )
    theirs.close()
    yield Process(child, ours)
    ours.close()
    await asyncio.wait_for(child.wait(), WAIT_S)


async def started(process: Process, house: House, address: str, **settings: Any) -> Analysis:
    listener = socket.create_server(("127.0.0.1", 0))
    house.port = listener.getsockname()[1]
    channel, analysis_end = socket.socketpair()
    stable = {"address": address, "version": "1"}
    process.send(
        {"type": "start", "settings": settings, "stable": stable, "listeners": ["proxy"]},
        [listener.fileno(), channel.fileno()],
    )
    listener.close()
    channel.close()
    assert await process.hear() == {"type": "ready"}
    return Analysis(analysis_end)


async def answered(client: Peer, server: Peer) -> bytes:
    assert await server.until(b"hello") == POST
    await server.send(OK)
    return await client.until(b"\r\n\r\nok")


async def test_a_life_of_an_edge(process: Process, house: House) -> None:
    upstream, other = house.upstream(), house.upstream()
    analysis = await started(process, house, upstream.address)
    assert process.proc("comm") == "remora-edge\n"
    process.send({"type": "ping", "n": 7}, [])
    assert await process.hear() == {"type": "pong", "n": 7, "in_flight": 0}

    client = await house.client()
    await client.send(POST)
    await answered(client, await upstream.accept())
    assert (await analysis.exchange()).request_body == b"hello"

    # Analysis dies while a request is in flight, and a new one comes.
    await client.send(POST)
    await upstream.peers[0].until(b"hello")
    await analysis.close()
    await upstream.peers[0].send(OK)
    await client.until(b"\r\n\r\nok")
    ours, theirs = socket.socketpair()
    process.send({"type": "channel"}, [ours.fileno()])
    ours.close()
    analysis = Analysis(theirs)
    assert (await analysis.snapshot()).routes[0].codes["2xx"] == 2

    process.send({"type": "stable", "address": other.address, "version": "2"}, [])
    process.send({"type": "ping", "n": 8}, [])
    await process.hear()
    await client.send(POST)
    assert b"x-remora-version: 2" in await answered(client, await other.accept())

    process.process.send_signal(signal.SIGTERM)
    assert await client.rest() == b""
    assert await process.ended() == 0
    await analysis.close()


async def test_the_supervisor_dies_and_what_is_in_flight_is_finished(
    process: Process, house: House
) -> None:
    upstream = house.upstream()
    analysis = await started(process, house, upstream.address)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    process.control.shutdown(socket.SHUT_RDWR)
    await server.send(OK)
    assert (await client.rest()).endswith(b"\r\n\r\nok")
    assert await process.ended() == 0
    await analysis.close()


async def test_a_drain_does_not_wait_for_ever(process: Process, house: House) -> None:
    upstream = house.upstream()
    analysis = await started(process, house, upstream.address)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    process.send({"type": "drain", "timeout_s": 0.05}, [])
    assert await client.rest() == b""
    assert await process.ended() == 0
    await analysis.close()


async def test_memory_stays_flat_over_many_connections_and_requests(
    process: Process, house: House
) -> None:
    upstream = house.upstream()
    analysis = await started(process, house, upstream.address)

    async def crowd(count: int) -> int:
        for _ in range(count):
            client = await house.client()
            for _ in range(5):
                await client.send(POST)
                if not upstream.peers:
                    await upstream.accept()
                await answered(client, upstream.peers[0])
            client.close()
        return int(process.proc("status").split("VmRSS:")[1].split()[0])

    before = await crowd(100)
    after = await crowd(300)
    assert after - before < 1_024  # KiB
    process.control.close()
    await process.ended()
    await analysis.close()


async def pour(peer: Peer, size: int) -> None:
    piece = b"x" * (1 << 20)
    for _ in range(size // len(piece)):
        await asyncio.get_running_loop().sock_sendall(peer.sock, piece)


async def drink(peer: Peer, size: int) -> None:
    buffer = memoryview(bytearray(1 << 20))
    while size:
        room = buffer[: min(size, len(buffer))]
        got = await asyncio.get_running_loop().sock_recv_into(peer.sock, room)
        assert got, f"the connection ended {size} bytes early"
        size -= got


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kept", [0.0, 1.0])
async def test_a_gibibyte_each_way_leaves_memory_flat(
    process: Process, house: House, kept: float
) -> None:
    """The highest it ever was, not what it is afterwards; a copy is cut at its limit."""
    upstream = house.upstream()
    analysis = await started(process, house, upstream.address, sampling_rate=kept)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await answered(client, server)
    before = int(process.proc("status").split("VmHWM:")[1].split()[0])
    size = 1 << 30
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    await server.until(b"\r\n\r\n")
    await asyncio.gather(pour(client, size), drink(server, size))
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    await client.until(b"\r\n\r\n")
    await asyncio.gather(pour(server, size), drink(client, size))
    await client.send(POST)
    await answered(client, server)
    after = int(process.proc("status").split("VmHWM:")[1].split()[0])
    assert after - before < 12 * 1_024  # KiB: buffers, and copies of a mebibyte each way
    process.control.close()
    await process.ended()
    await analysis.close()


@pytest.mark.slow
async def test_a_million_headers_are_refused_and_hold_nothing(
    process: Process, house: House
) -> None:
    upstream = house.upstream()
    analysis = await started(process, house, upstream.address)
    client = await house.client()
    before = int(process.proc("status").split("VmHWM:")[1].split()[0])
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
    sending = asyncio.get_running_loop().create_task(
        client.send(b"".join(b"x-%d: 1\r\n" % number for number in range(1_000_000)))
    )
    assert (await client.head()).startswith(b"HTTP/1.1 431 ")
    await asyncio.gather(sending, return_exceptions=True)
    after = int(process.proc("status").split("VmHWM:")[1].split()[0])
    assert after - before < 4 * 1_024
    assert upstream.nobody_came()
    process.control.close()
    await process.ended()
    await analysis.close()


def test_the_edge_imports_nothing_but_the_standard_library_and_two() -> None:
    code = (
        "import sys; import agent.edge.__main__; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    roots = set(done.stdout.split()) - set(sys.stdlib_module_names)
    ours = {name for name in roots if not name.startswith("_")}
    assert ours - {"cython_runtime"} == {"agent", "httptools", "uvloop"}


async def test_an_edge_whose_certificate_is_no_use_ends_before_it_is_ready(
    process: Process,
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    channel, analysis_end = socket.socketpair()
    message = {
        "type": "start",
        "settings": {"tls_cert_file": "/nowhere.pem", "tls_key_file": "/nowhere.key"},
        "stable": {"address": "127.0.0.1:9", "version": "1"},
        "listeners": ["proxy"],
    }
    process.send(message, [listener.fileno(), channel.fileno()])
    await process.ended()
    assert process.control.recv(100) == b""  # what an edge says first is that it is ready
    for end in (listener, channel, analysis_end):
        end.close()
