"""A push listener that really listens, and a client that really sends."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from agent.config import PushSource
from agent.exchange import Exchange
from agent.inference import Inference
from agent.sources.push import Push
from agent.sources.push_door import Room
from agent.sources.sampler import Sampler

WAIT_S = 30.0


class Taking:
    """Stands where analysis stands: takes everything, or nothing while it is told to hold on."""

    def __init__(self) -> None:
        self.taken: list[Exchange | Inference] = []
        self.labels: list[tuple[bytes, str]] = []
        self._more = asyncio.Event()
        self.room: Room | None = None
        self.room_max = 0  # the most that was seen taken of it
        self.work_s = 0.0  # how long analysis is busy with each, as arithmetic and not as sleep

    def emit(self, taken: Exchange | Inference, /) -> bool:
        if self.room is not None:
            self.room_max = max(self.room_max, self.room.bytes)
        until = time.monotonic() + self.work_s
        while time.monotonic() < until:
            pass
        self.taken.append(taken)
        self._more.set()
        return True

    async def take_labels(self, body: bytes, content_type: str) -> dict[str, Any]:
        self.labels.append((body, content_type))
        return {"joined": 0, "pending": body.count(b"request_id")}

    @property
    def exchanges(self) -> list[Exchange]:
        return [taken for taken in self.taken if isinstance(taken, Exchange)]

    @property
    def inferences(self) -> list[Inference]:
        return [taken for taken in self.taken if isinstance(taken, Inference)]

    async def until(self, count: int) -> None:
        """Until so much was taken."""
        async with asyncio.timeout(WAIT_S):
            while len(self.taken) < count:
                self._more.clear()
                await self._more.wait()


class Client:
    def __init__(self, port: int, push: Push, taking: Taking, *, prefix: str = "") -> None:
        self.port = port
        self.push = push
        self.taking = taking
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}{prefix}", trust_env=False, timeout=WAIT_S
        )

    async def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, content=body, headers=named)

    @property
    def dropped(self) -> Counter[str]:
        return Counter(self.push.dropped)


@asynccontextmanager
async def pushing(*, sampler: Sampler | None = None, **keys: Any) -> AsyncIterator[Client]:
    """A push source on a port of its own, with these keys of the configuration."""
    taking = Taking()
    source = PushSource.model_validate({"kind": "push", "listen": "127.0.0.1:0", **keys})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        push = Push(source, listener=listener, take_labels=taking.take_labels, sampler=sampler)
        taking.room = push._room
        running = asyncio.get_running_loop().create_task(push.run(taking.emit))
        client = Client(int(listener.getsockname()[1]), push, taking)
        try:
            yield client
        finally:
            await client.http.aclose()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
