"""The stand-in view served for real: uvicorn on a Unix socket behind the front desk on a
loopback port, as the supervisor and analysis do it.
"""

import asyncio
import socket
from pathlib import Path
from types import TracebackType

import httpx

from agent.admin.api import Api
from agent.admin.auth import EVERYTHING, Gatekeeper, Token
from agent.admin.front import FrontDesk, Patience
from agent.admin.server import AdminServer
from tests.admin.stand_in import StandIn

OPERATOR = "operator-secret"
READER = "reader-secret"


class House:
    """The stand-in served as the agent serves itself."""

    def __init__(self, directory: Path, *, open_reads: bool = True, metrics: bool = False) -> None:
        self._directory = directory
        self.view = StandIn()
        self.socket_path = str(directory / "admin.sock")
        self.gatekeeper = Gatekeeper(
            tokens=(
                Token(name="ada", secret=OPERATOR, roles=EVERYTHING),
                Token(name="rob", secret=READER, roles=("read",)),
            ),
            hosts=frozenset({"localhost", "remora.example"}),
            open_reads=open_reads,
            metrics_need_token=metrics,
        )
        self.backend: AdminServer | None = None
        patience = Patience(answer_s=0.5, metrics_s=0.3, linger_s=0.5, head_s=5.0)
        self.front = FrontDesk(
            backend=self.socket_path,
            probes={"/healthz": self._probe, "/readyz": self._probe},
            patience=patience,
        )
        self.healthy = True
        self.port = 0
        self._clients: list[httpx.AsyncClient] = []

    async def _probe(self) -> tuple[bool, dict[str, object]]:
        return self.healthy, {"edge": "up" if self.healthy else "down"}

    async def __aenter__(self) -> "House":
        await self.start_backend()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        await self.front.serve(listener)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for client in self._clients:
            await client.aclose()
        self.front.close()
        await self.stop_backend()

    async def start_backend(self) -> None:
        self.backend = AdminServer(Api(self.view, self.gatekeeper).application(), self.socket_path)
        await self.backend.start()

    async def stop_backend(self) -> None:
        if self.backend is not None:
            await self.backend.stop()
            self.backend = None
        self._directory.joinpath("admin.sock").unlink(missing_ok=True)

    async def hang(self) -> asyncio.Server:
        """A backend that takes connections and never answers, as a stopped process does."""
        await self.stop_backend()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        return await asyncio.start_unix_server(silent, self.socket_path)

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers)
        self._clients.append(client)
        return client
