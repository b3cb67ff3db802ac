"""Text generation that is not OpenAI's: Triton's `generate`, the own APIs of Ollama, llama.cpp.

`POST /v2/models/<name>[/versions/<v>]/generate[_stream]`, `/api/chat`, `/api/generate` and
`/completion`. Which of them it is stands in the path; do not guess from bodies, which look alike.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.decoders.chat import prompt_of_messages, prompts_of_input
from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.replies import Dialect, Prompt, Replies, read
from agent.exchange import Exchange
from agent.inference import Inference

_TRITON: Final = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/generate(_stream)?/?$")
_OLLAMA: Final = re.compile(r"/api/(chat|generate)/?$")
_LLAMA_CPP: Final = re.compile(r"/completion/?$")


class Generate:
    """One row for each request; the dialect by its path, Triton's where that says nothing."""

    name = "generate"

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings

    def matches(self, exchange: Exchange) -> bool:
        return any(pattern.search(exchange.path) for pattern, _ in _DIALECTS)

    def decode(self, exchange: Exchange) -> Inference:
        found = (dialect for pattern, dialect in _DIALECTS if pattern.search(exchange.path))
        return read(exchange, next(found, TRITON), self._settings)


def _triton_prompts(asked: dict[str, Any]) -> Sequence[Prompt]:
    if "text_input" not in asked:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "no text_input")
    return _one(asked["text_input"])


def _say_triton(value: dict[str, Any], replies: Replies) -> None:
    """Each event of a stream brings the next part of `text_output`; there is no last word."""
    if replies.id is None:
        replies.id = value.get("id")
    said = value.get("text_output")
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if not isinstance(said, str) or (choice := replies.choice(0)) is None:
        return
    choice.pieces += choice.say(said)
    if value.get("finish_reason") is not None:
        choice.finish = value["finish_reason"]


def _ollama_prompts(asked: dict[str, Any]) -> Sequence[Prompt]:
    messages = asked.get("messages")
    if isinstance(messages, list):
        tools = asked.get("tools")
        return [prompt_of_messages(messages, tools=len(tools) if isinstance(tools, list) else 0)]
    if not isinstance(asked.get("prompt"), str):
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "neither messages nor a prompt")
    images, system = asked.get("images"), asked.get("system")
    system = system if isinstance(system, str) else ""
    return [
        Prompt(
            text=f"{system}\n{asked['prompt']}" if system else asked["prompt"],
            last_length=len(asked["prompt"]),
            messages=2 if system else 1,
            has_system=bool(system),
            images=len(images) if isinstance(images, list) else 0,
        )
    ]


def _say_ollama(value: dict[str, Any], replies: Replies) -> None:
    """A line: a piece of text, or the last one with what was counted."""
    message = value.get("message")
    if not isinstance(message, Mapping) and "response" not in value and "done" not in value:
        return
    choice = replies.choice(0)
    if choice is None:
        return
    said, brought = value.get("response"), False
    if isinstance(message, Mapping):
        said = message.get("content")
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, Mapping) else None
            choice.call(function.get("name") if isinstance(function, Mapping) else None)
            brought = True
        brought = choice.think(message.get("thinking")) or brought
    brought = choice.think(value.get("thinking")) or brought
    choice.pieces += choice.say(said) or brought
    if value.get("done") is True:
        replies.done = True
        choice.finish = value.get("done_reason") or "stop"
        replies.count(value.get("prompt_eval_count"), value.get("eval_count"))


def _llama_cpp_prompts(asked: dict[str, Any]) -> Sequence[Prompt]:
    if "prompt" not in asked:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "no prompt")
    return _one(asked["prompt"])


def _say_llama_cpp(value: dict[str, Any], replies: Replies) -> None:
    if "content" not in value or (choice := replies.choice(0)) is None:
        return
    choice.pieces += choice.say(value["content"])
    if value.get("stop") is True:
        replies.done = True
        choice.finish = _llama_cpp_finish(value)
        replies.count(value.get("tokens_evaluated"), value.get("tokens_predicted"))


def _llama_cpp_finish(value: Mapping[str, Any]) -> object:
    """Newer releases say `stop_type`, older ones set one of several flags."""
    said = value.get("stop_type")
    if said == "word":
        return "stop"
    if isinstance(said, str):
        return None if said == "none" else said
    return "length" if value.get("stopped_limit") is True else "stop"


def _one(given: object) -> Sequence[Prompt]:
    """Exactly one prompt: these servers number no answers."""
    prompts = prompts_of_input(given)
    if len(prompts) > 1:
        raise DecodeError(DecodeReason.ROWS_MISMATCH, f"{len(prompts)} prompts and one answer")
    return prompts


TRITON: Final = Dialect(asked=_triton_prompts, said=_say_triton, ends=False)
OLLAMA: Final = Dialect(asked=_ollama_prompts, said=_say_ollama)
LLAMA_CPP: Final = Dialect(asked=_llama_cpp_prompts, said=_say_llama_cpp)
_DIALECTS: Final = ((_TRITON, TRITON), (_OLLAMA, OLLAMA), (_LLAMA_CPP, LLAMA_CPP))
