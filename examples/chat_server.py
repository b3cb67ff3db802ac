"""A chat server with no model behind it, to try Remora on: it says a few words, one at a time.

    python examples/chat_server.py 8000

Speaks the OpenAI-compatible `POST /v1/chat/completions`, in one piece and as a stream.
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

WORDS = ("the", "harbour", "was", "quiet", "and", "two", "boats", "left", "at", "dawn", "unseen")


async def chat(request: Request) -> Response:
    asked: dict[str, Any] = await request.json()
    words = random.choices(WORDS, k=random.randint(5, 25))  # noqa: S311  words, not secrets
    prompt_tokens = sum(len(str(m.get("content")).split()) for m in asked["messages"])
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(words)}
    if asked.get("stream"):
        return StreamingResponse(stream(words, usage), media_type="text/event-stream")
    message = {"role": "assistant", "content": " ".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse({"id": new_id(), "choices": [choice], "usage": usage})


async def stream(words: list[str], usage: dict[str, int]) -> AsyncIterator[bytes]:
    id = new_id()
    for word in words:
        await asyncio.sleep(0.02)
        yield event({"id": id, "choices": [{"index": 0, "delta": {"content": word + " "}}]})
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    yield event({"id": id, "choices": [last]})
    yield event({"id": id, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def new_id() -> str:
    return f"chatcmpl-{random.getrandbits(64):016x}"


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
