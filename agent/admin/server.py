"""The admin application served on the Unix socket behind the front desk, inside analysis' loop."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

SOCKET_MODE = 0o600
START_S_MAX = 10.0


class AdminServer:
    """uvicorn without its signal handlers and logs: both belong to the process around it."""

    def __init__(self, application: Any, socket_path: str) -> None:
        self._path = socket_path
        config = uvicorn.Config(
            application,
            uds=socket_path,
            http="httptools",
            ws="none",
            lifespan="off",
            proxy_headers=False,  # whom a request names as its sender decides nothing here
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when it accepts. Raises `OSError` when the socket cannot be made."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve())
        async with asyncio.timeout(START_S_MAX):
            while not self._server.started:
                if self._task.done():
                    await self._task
                    raise OSError(f"the admin API cannot listen on {self._path}")
                await asyncio.sleep(0.01)
        os.chmod(self._path, SOCKET_MODE)

    async def stop(self) -> None:
        """Finish the answers under way, two seconds at most."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class QuietServer(uvicorn.Server):
    """uvicorn for a part of a process: it takes no signals."""

    def install_signal_handlers(self) -> None:
        """Signals are the process', not one server's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The same, by the name that newer releases of uvicorn give it."""
        yield
