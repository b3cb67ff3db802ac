"""A real HTTP server on loopback that stands in for CI, GitHub or an artifact store."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request, byte for byte where it matters."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    server_name: str | None  # as the TLS handshake named it


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the stand-in says. `silent` never answers; `broken` closes without a word."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    silent: bool = False
    broken: bool = False


@dataclass(kw_only=True)
class StandIn:
    """Answers by `answer`, and remembers what it was asked."""

    answer: Callable[[Received], Answer] = lambda received: Answer()
    received: list[Received] = field(default_factory=list)
    port: int = 0
    names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def named_by(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self.names.append(name)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            lines = (line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): value for name, value in lines}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            name = self.names[-1] if self.names else None
            received = Received(
                method=method, path=path, headers=headers, body=body, server_name=name
            )
            self.received.append(received)
            answer = self.answer(received)
            if answer.silent:
                await reader.read()  # until the other side gives up
            elif not answer.broken:
                told = {"content-length": str(len(answer.body)), "connection": "close"}
                lines_out = [f"HTTP/1.1 {answer.status} Word"]
                # An empty value leaves the header out.
                told |= answer.headers
                lines_out += [f"{name}: {value}" for name, value in told.items() if value]
                writer.write("\r\n".join([*lines_out, "", ""]).encode() + answer.body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side left; tests see that on its own side
        finally:
            writer.close()


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def answer() -> type[Answer]:
    """The class, because test files cannot import each other."""
    return Answer


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    server_side = StandIn()
    server = await asyncio.start_server(server_side.serve, "127.0.0.1", 0)
    server_side.port = server.sockets[0].getsockname()[1]
    yield server_side
    server.close()
    await server.wait_closed()


@pytest.fixture
async def stand_in_tls() -> AsyncIterator[Callable[[Path, Path], Awaitable[StandIn]]]:
    """`await stand_in_tls(certificate, key)` starts one that speaks TLS."""
    servers = []

    async def start(certificate: Path, key: Path) -> StandIn:
        server_side = StandIn()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.sni_callback = server_side.named_by
        server = await asyncio.start_server(server_side.serve, "127.0.0.1", 0, ssl=context)
        server_side.port = server.sockets[0].getsockname()[1]
        servers.append(server)
        return server_side

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()
