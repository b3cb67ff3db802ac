"""The front desk: probes whatever happens behind it, and an answer for everybody who asks."""

import asyncio
import http.client
import json
import socket
from pathlib import Path

from agent.admin.front import HEAD_BYTES_MAX, FrontDesk
from tests.admin.house import OPERATOR, House

PROBES = ("/healthz", "/readyz")


async def raw(house: House, sent: bytes, *, end: bool = False) -> bytes:
    """All that comes back on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        writer.write(sent)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def expect_probes(house: House) -> None:
    client = house.client()
    for path in PROBES:
        assert (await client.get(path)).status_code == 200
        assert (await client.head(path)).content == b""
    house.healthy = False
    for path in PROBES:
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (503, {"edge": "down"})
    house.healthy = True


async def test_probes_are_answered_beside_a_live_backend(house: House) -> None:
    await expect_probes(house)
    answer = await house.client(OPERATOR).post("/healthz")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_with_a_dead_backend_probes_live_and_the_rest_is_503(house: House) -> None:
    await house.stop_backend()
    await expect_probes(house)
    answer = await house.client().get("/api/v1/status")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert "analysis is away" in answer.json()["error"]
    posted = await house.client(OPERATOR).post("/api/v1/labels", content=b" " * 2**20)
    assert posted.status_code == 503


async def test_with_a_hung_backend_probes_live_and_the_rest_is_503(house: House) -> None:
    hung = await house.hang()
    await expect_probes(house)
    client = house.client(OPERATOR)
    assert (await client.get("/api/v1/status")).status_code == 503
    posted = await client.post("/api/v1/labels", content=b" " * 2**18)
    assert posted.status_code == 503
    hung.close()


async def test_a_scrape_learns_that_analysis_is_away(house: House) -> None:
    client = house.client()
    assert "remora_analysis_up 1.0" in (await client.get("/metrics")).text
    await house.stop_backend()
    away = await client.get("/metrics")
    assert away.status_code == 200
    assert away.text.splitlines()[-1] == "remora_analysis_up 0"
    assert away.headers["content-type"].startswith("text/plain; version=0.0.4")
    hung = await house.hang()
    assert (await client.get("/metrics")).text == away.text
    hung.close()
    await house.stop_backend()
    assert (await client.post("/metrics")).status_code == 503


async def test_a_backend_that_comes_back_is_found(house: House) -> None:
    client = house.client()
    await house.stop_backend()
    assert (await client.get("/api/v1/status")).status_code == 503
    await house.start_backend()
    assert (await client.get("/api/v1/status")).status_code == 200


async def test_a_client_that_keeps_its_connection_asks_again_on_a_new_one(house: House) -> None:
    def ask() -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=10)
        found = []
        for path in ("/api/v1/status", "/healthz", "/metrics", "/nope", "/api/v1/status"):
            connection.request("GET", path, headers={"Connection": "keep-alive"})
            answer = connection.getresponse()
            answer.read()
            assert answer.getheader("connection") == "close"
            found.append(answer.status)
        connection.close()
        return found

    assert await asyncio.to_thread(ask) == [200, 200, 200, 404, 200]


async def test_a_second_request_on_one_connection_is_not_answered(house: House) -> None:
    get = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for path in (b"/api/v1/versions", b"/healthz"):
        came = await raw(house, get % path + get % b"/api/v1/versions")
        assert came.count(b"HTTP/1.1 ") == 1


async def test_a_client_that_says_it_is_done_sending_is_answered(house: House) -> None:
    came = await raw(house, b"GET /api/v1/runs HTTP/1.1\r\nHost: localhost\r\n\r\n", end=True)
    assert came.startswith(b"HTTP/1.1 200 ")
    assert b"run-0192" in came


async def test_a_head_that_comes_in_pieces_is_one_head(house: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    for piece in (b"GET /hea", b"lthz HT", b"TP/1.1\r\nHost: x\r\n\r", b"\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_head_without_end_is_refused(house: House) -> None:
    came = await raw(house, b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * HEAD_BYTES_MAX))
    assert came.startswith(b"HTTP/1.1 431 ")


async def test_what_is_no_http_does_no_harm(house: House) -> None:
    for sent in (b"\r\n\r\n", b"\x16\x03\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET /healthz\r\n\r\n"):
        await raw(house, sent, end=True)
    assert (await house.client().get("/healthz")).status_code == 200


async def test_a_body_beyond_the_limit_is_refused_even_while_it_is_sent(house: House) -> None:
    def send() -> bytes:
        with socket.create_connection(("127.0.0.1", house.port), timeout=10) as sock:
            sock.sendall(
                b"POST /api/v1/rollback HTTP/1.1\r\nHost: localhost\r\n"
                b"Authorization: Bearer %s\r\nContent-Length: 3000000\r\n\r\n" % OPERATOR.encode()
            )
            for _ in range(3):
                sock.sendall(b" " * 1_000_000)
            return sock.recv(100)

    for _ in range(5):
        assert (await asyncio.to_thread(send)).startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_leaves_is_forgotten(house: House) -> None:
    hung = await house.hang()
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await writer.drain()
        writer.transport.abort()
    async with asyncio.timeout(10):
        while house.front.open:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    hung.close()


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    async def ready() -> tuple[bool, dict[str, object]]:
        return True, {"edge": "listening"}

    path = str(tmp_path / "front.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    front = FrontDesk(backend=str(tmp_path / "none.sock"), probes={"/readyz": ready})
    await front.serve(listener)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    writer.write_eof()
    came = await reader.read()
    assert json.loads(came.partition(b"\r\n\r\n")[2]) == {"edge": "listening"}
    writer.close()
    front.close()
