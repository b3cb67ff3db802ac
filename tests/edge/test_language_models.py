"""Chats streamed by a real server through the edge: times bounded by what the server was made to
do, and what is known of a client that leaves in the middle."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from agent.decoders.chat import Chat
from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.generation import Generation
from tests.decoders.language import asked, chunk, events, usage
from tests.edge.house import WAIT_S, Analysis, House, Server

TOKENS = 5


class ChatServer:
    """Answers with `TOKENS` tokens, each when the test lets it go. `sent_s` is when that was."""

    def __init__(self) -> None:
        self.go = [asyncio.Event() for _ in range(TOKENS)]
        self.sent_s: list[float] = []
        self.asked = asyncio.Event()
        self.asked_s = 0.0
        self.left = asyncio.Event()
        self.app = Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def chat(self, request: Request) -> StreamingResponse:
        await request.body()
        self.asked_s = perf_counter()
        self.asked.set()
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        try:
            for place, event in enumerate(self.go):
                await event.wait()
                self.sent_s.append(perf_counter())
                finish = "stop" if place == TOKENS - 1 else None
                yield events(chunk({"content": f"t{place} "}, finish=finish), done=False)
            yield events({"choices": [], "usage": usage(9, TOKENS)})
        finally:
            self.left.set()


@asynccontextmanager
async def serving(app: Starlette, listener: Server) -> AsyncIterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
    task = asyncio.create_task(server.serve(sockets=[listener.sock]))
    try:
        yield
    finally:
        server.should_exit = True
        server.force_exit = True
        await asyncio.wait_for(task, WAIT_S)


@asynccontextmanager
async def conversation(
    house: House,
) -> AsyncIterator[tuple[ChatServer, httpx.AsyncClient, Analysis]]:
    """A chat server behind an edge that keeps everything, and somebody who talks to it."""
    chat = ChatServer()
    upstream = house.upstream(family=socket.AF_INET)
    await house.start(upstream, sampling_rate=1.0)
    analysis = house.analysis()
    async with (
        serving(chat.app, upstream),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{house.port}", timeout=WAIT_S) as client,
    ):
        yield chat, client, analysis


def generation_of(exchange: Any) -> tuple[Generation, DecodeReason | None]:
    reason: DecodeReason | None = None
    try:
        generation = Chat(DecoderSettings()).decode(exchange).generation
    except DecodeError as error:
        generation, reason = error.generation, error.reason
    assert generation is not None
    return generation, reason


async def test_times_of_a_stream_lie_between_what_server_and_client_saw(house: House) -> None:
    async with conversation(house) as (chat, client, analysis):
        began_s = perf_counter()
        async with client.stream("POST", "/v1/chat/completions", json=asked()) as answer:
            assert answer.status_code == 200
            pieces = answer.aiter_raw()
            arrived_s: list[float] = []
            for event in chat.go:
                event.set()
                await anext(pieces)
                arrived_s.append(perf_counter())
            async for _ in pieces:
                pass
            ended_s = perf_counter()
        generation, reason = generation_of(await analysis.exchange())
    assert reason is None
    assert generation.first_token_s is not None
    # The first token could not come before the server sent it, and had come when we had it.
    assert chat.sent_s[0] - chat.asked_s <= generation.first_token_s <= arrived_s[0] - began_s
    assert chat.sent_s[-1] - chat.asked_s <= generation.duration_s <= ended_s - began_s + 1.0
    assert (generation.output_tokens, generation.basis) == (TOKENS, "usage")
    per_token_s = generation.per_token_s
    assert per_token_s is not None
    assert per_token_s >= (chat.sent_s[-1] - arrived_s[0]) / (TOKENS - 1)


async def test_of_a_client_that_leaves_in_mid_stream_times_and_tokens_are_known(
    house: House,
) -> None:
    async with conversation(house) as (chat, client, analysis):
        began_s = perf_counter()
        async with client.stream("POST", "/v1/chat/completions", json=asked()) as answer:
            pieces = answer.aiter_raw()
            for event in chat.go[:2]:
                event.set()
                await anext(pieces)
            left_s = perf_counter()
        # The client has left; the server is told so, though it was never let go.
        await asyncio.wait_for(chat.left.wait(), WAIT_S)
        exchange = await analysis.exchange()
    generation, reason = generation_of(exchange)
    assert exchange.outcome == "client_disconnect"
    assert reason is DecodeReason.INCOMPLETE_EXCHANGE
    assert (generation.output_tokens, generation.basis) == (2, "counted")
    assert generation.finish_reasons == ("interrupted",)
    assert generation.first_token_s is not None
    assert chat.sent_s[0] - chat.asked_s <= generation.first_token_s <= left_s - began_s
    assert generation.duration_s >= chat.sent_s[1] - chat.asked_s


@pytest.mark.parametrize("kept_bytes", [700, 1_000])
async def test_a_copy_that_is_cut_knows_the_times_of_the_whole_stream(
    house: House, kept_bytes: int
) -> None:
    chat = ChatServer()
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0, capture_bytes_max=kept_bytes)
    analysis = house.analysis()
    for event in chat.go:
        event.set()
    base = f"http://127.0.0.1:{house.port}"
    async with serving(chat.app, upstream), httpx.AsyncClient(base_url=base) as client:
        answer = await client.post("/v1/chat/completions", json=asked())
        assert answer.text.count("data: ") == TOKENS + 2
        generation, reason = generation_of(await analysis.exchange())
    assert reason is DecodeReason.BODY_TRUNCATED
    assert generation.basis == "cut"
    assert generation.output_tokens is not None
    assert 1 <= generation.output_tokens < TOKENS
    assert generation.per_token_s is None
    assert generation.duration_s >= (generation.first_token_s or 0.0) > 0.0
