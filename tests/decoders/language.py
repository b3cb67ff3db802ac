"""Answers of language model servers as they cross the wire, made from chunks written by hand."""

from typing import Any

import orjson

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
LINES = {"content-type": "application/x-ndjson"}


def events(*chunks: Any, done: bool = True, end: str = "\n\n") -> bytes:
    """Server-sent events; a chunk of bytes is sent as it is."""
    parts = [
        chunk if isinstance(chunk, bytes) else b"data: " + orjson.dumps(chunk) + end.encode()
        for chunk in chunks
    ]
    return b"".join(parts) + (f"data: [DONE]{end}".encode() if done else b"")


def lines(*chunks: Any) -> bytes:
    return b"".join(orjson.dumps(chunk) + b"\n" for chunk in chunks)


def chunk(
    delta: dict[str, Any] | None = None, *, finish: str | None = None, index: int = 0, **other: Any
) -> dict[str, Any]:
    """One chunk of a chat, as OpenAI documents it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": index, "delta": delta or {}, "finish_reason": finish}],
        **other,
    }


def usage(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def asked(**other: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Which way is north?"},
        ],
        "stream": True,
        **other,
    }


# vLLM with stream_options.include_usage: a first chunk with the role alone, usage at the end.
VLLM = events(
    chunk({"role": "assistant", "content": ""}, usage=None),
    chunk({"content": "Up"}, usage=None),
    chunk({"content": " the"}, usage=None),
    chunk({"content": " map."}, finish="stop", usage=None),
    {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [],
     "usage": usage(17, 4)},
)  # fmt: skip
# llama.cpp: no usage unless asked, but timings with the last chunk.
LLAMA_CPP = events(
    chunk({"role": "assistant", "content": None}),
    chunk({"content": "Up"}),
    chunk({"content": " the"}),
    chunk({"content": " map."}),
    chunk({}, finish="stop", timings={"prompt_n": 3, "predicted_n": 5, "predicted_ms": 40.1}),
)
# Ollama's OpenAI-compatible endpoint: the role in each chunk, no usage, CRLF is not unheard of.
OLLAMA = events(
    chunk({"role": "assistant", "content": "Up"}),
    chunk({"role": "assistant", "content": " the"}),
    chunk({"role": "assistant", "content": " map."}),
    chunk({"role": "assistant", "content": ""}, finish="stop"),
    end="\r\n\r\n",
)
# A gateway that pings, nulls choices and forgets to say that it is done.
GATEWAY = events(
    b": keep-alive\n\n",
    chunk({"content": "Up"}) | {"choices": None},
    chunk({"content": "Up"}),
    b": keep-alive\n\nevent: ping\n\n",
    {"id": "chatcmpl-1", "choices": [{"delta": {"content": " the map."}}]},
    chunk({}, finish="stop"),
    done=False,
)
