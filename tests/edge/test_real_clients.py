"""Programs that others wrote, through the edge: curl, wrk, h2load, a browser with a websocket."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.edge.house import House

pytestmark = pytest.mark.real

PATIENCE_S = 45.0
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Handle], Awaitable[str]]
PAGE = b"""<!doctype html><title>t</title><body>nothing yet<script>
const socket = new WebSocket("ws://" + location.host + "/echo");
socket.onopen = () => { socket.send("hello"); socket.send("x".repeat(70000)); };
let heard = [];
socket.onmessage = event => {
  heard.push(event.data.length);
  document.body.textContent = "heard " + heard.join(" ");
  if (heard.length == 2) socket.close(1000, "done");
};
</script><img src="/late"></body>"""


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A server that does with each connection what it is told; gives its address."""
    servers: list[asyncio.Server] = []

    async def start(handle: Handle) -> str:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


async def run(program: Path, *arguments: str) -> tuple[bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, (out, errors)
    return out, errors


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Any request with a length, or without a body, gets it back."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
            body = await reader.readexactly(int(length[1])) if length else b"none"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def upload(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A chunked upload, permitted first, and its size back as it comes, with a trailer."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"expect: 100-continue" in head.lower()
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")
    digest = hashlib.sha256()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        digest.update((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    said = digest.hexdigest().encode()
    writer.write(b"%x\r\n%b\r\n0\r\nx-sum: yes\r\n\r\n" % (len(said), said))
    await writer.drain()
    writer.close()


async def test_curl_uploads_in_chunks_after_it_was_permitted(
    house: House, serve: Serve, program: Callable[[str], Path], tmp_path: Path
) -> None:
    await house.start(await serve(upload))
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 8_192)
    arguments = ("--silent", "--show-error", "--header", "Transfer-Encoding: chunked")
    url = f"http://127.0.0.1:{house.port}/up"
    expect = ("--header", "Expect: 100-continue", "--expect100-timeout", "30")
    out, _ = await run(program("curl"), *arguments, *expect, "--upload-file", str(body), url)
    assert out.decode() == hashlib.sha256(body.read_bytes()).hexdigest()


async def test_curl_asks_twice_on_one_connection(
    house: House, serve: Serve, program: Callable[[str], Path]
) -> None:
    edge = await house.start(await serve(answer_all))
    url = f"http://127.0.0.1:{house.port}/v1"
    told = ("--silent", "--show-error", "--write-out", "%{http_code} %{num_connects};")
    quiet = ("--output", "/dev/null")
    out, _ = await run(program("curl"), *told, *quiet, url, *quiet, url)
    assert out == b"200 1;200 0;"
    assert edge.counters.upstream_connects == 1


async def test_wrk_has_no_complaints(
    house: House, serve: Serve, program: Callable[[str], Path], tmp_path: Path
) -> None:
    edge = await house.start(await serve(answer_all))
    script = tmp_path / "post.lua"
    script.write_text('wrk.method = "POST"\nwrk.body = string.rep("1", 1000)\n')
    url = f"http://127.0.0.1:{house.port}/v1"
    out, _ = await run(program("wrk"), "-t1", "-c16", "-d1", "-s", str(script), url)
    assert b"Non-2xx" not in out
    assert b"Socket errors" not in out
    found = re.search(rb"(\d+) requests in", out)
    assert found is not None
    answered = int(found[1])
    assert edge.counters.cells("1")[0].codes[1] >= answered > 0


async def test_h2load_speaks_http_1_to_it(
    house: House, serve: Serve, program: Callable[[str], Path]
) -> None:
    await house.start(await serve(answer_all))
    url = f"http://127.0.0.1:{house.port}/v1"
    # -m pipelines: several requests are on their way on each connection.
    out, _ = await run(program("h2load"), "--h1", "-n", "2000", "-c", "8", "-m", "4", url)
    assert b"2000 succeeded, 0 failed, 0 errored" in out


class WebSockets:
    """A page, and a websocket that says everything back, as RFC 6455 wants it."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1]
                if path == b"/echo":
                    await self._echo(head, reader, writer)
                    return
                if path == b"/late":  # the browser thinks that it loads until all is said
                    await self.closed
                body = PAGE if path == b"/" else b""
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
                    % len(body)
                )
                writer.write(body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _echo(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        key = re.search(rb"\r\nsec-websocket-key: (\S+)", head, re.IGNORECASE)
        assert key is not None
        mixed = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(mixed)
        )
        while True:
            opcode, payload = await self._frame(reader)
            size = len(payload)
            length = bytes([size]) if size < 126 else b"\x7f" + size.to_bytes(8, "big")
            writer.write(bytes([0x80 | opcode]) + length + payload)
            if opcode == 8:
                await writer.drain()
                self.closed.set_result(payload)
                return

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        """One message in one frame, which is how browsers send."""
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        mask = await reader.readexactly(4)
        payload = await reader.readexactly(size)
        return first & 15, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


async def test_a_browser_talks_through_a_websocket(
    house: House, serve: Serve, program: Callable[[str], Path], tmp_path: Path
) -> None:
    sockets = WebSockets()
    edge = await house.start(await serve(sockets.serve))
    out, _ = await run(
        program("chromium"),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
        f"http://127.0.0.1:{house.port}/",
    )
    assert b"heard 5 70000" in out
    assert sockets.closed.result() == b"\x03\xe8done"
    assert edge.counters.cells("1")[0].codes[0] == 1  # the 101
