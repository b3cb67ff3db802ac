"""OpenAI-compatible completions and chat: vLLM, llama.cpp, Ollama, KServe and most others.

`POST .../chat/completions` and `.../completions`, under `/v1`, `/openai/v1` or anything else, in
one piece or as server-sent events. Do not trust a member to be there: backends leave out or null
`choices`, `index`, `usage`, `finish_reason` and the closing `[DONE]`, each in its own way.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.replies import Choice, Dialect, Prompt, Replies, read
from agent.exchange import Exchange
from agent.inference import Inference

_PATH: Final = re.compile(r"/(chat/)?completions/?$")
_LOOK_BYTES: Final = 512
_SYSTEM: Final = ("system", "developer")


class Chat:
    """One row for each prompt: one of a chat, one or many of completions."""

    name = "chat"

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings

    def matches(self, exchange: Exchange) -> bool:
        if _PATH.search(exchange.path):
            return True
        asked = exchange.request_body[:_LOOK_BYTES]
        if b'"messages"' not in asked and b'"prompt"' not in asked:
            return False
        return b'"choices"' in exchange.response_body[:_LOOK_BYTES]

    def decode(self, exchange: Exchange) -> Inference:
        return read(exchange, OPENAI, self._settings)


def openai_prompts(asked: dict[str, Any]) -> Sequence[Prompt]:
    """The prompts of a request. Raises `DecodeError` for one that asks nothing."""
    messages = asked.get("messages")
    if isinstance(messages, list):
        return [
            prompt_of_messages(messages, tools=_length(asked.get("tools", asked.get("functions"))))
        ]
    if "prompt" not in asked:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "neither messages nor a prompt")
    return prompts_of_input(asked["prompt"])


def prompts_of_input(given: object) -> Sequence[Prompt]:
    """A text, token ids, or a list of either. Raises `DecodeError`: wrong_type."""
    if isinstance(given, str):
        return [_text_prompt(given)]
    if isinstance(given, list):
        kinds = set(map(type, given))
        if kinds == {int}:
            return [Prompt(text="", tokens=len(given))]
        if kinds == {str}:
            return [_text_prompt(text) for text in given]
        if kinds == {list}:
            return [Prompt(text="", tokens=len(ids)) for ids in given]
        if not given:
            return []
    raise DecodeError(DecodeReason.WRONG_TYPE, "a prompt is text, token ids, or a list of these")


def prompt_of_messages(messages: Sequence[object], *, tools: int = 0) -> Prompt:
    """A conversation so far, as one prompt. Raises `DecodeError`: empty_batch."""
    if not messages:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "no messages")
    texts: list[str] = []
    images = 0
    has_system = False
    for message in messages:
        if not isinstance(message, Mapping):
            texts.append("")
            continue
        content = message.get("content")
        texts.append(text_of_content(content))
        images += _images(content) + _length(message.get("images"))
        has_system = has_system or message.get("role") in _SYSTEM
    return Prompt(
        text="\n".join(texts),
        last_length=len(texts[-1]),
        messages=len(messages),
        has_system=has_system,
        tools=tools,
        images=images,
    )


def text_of_content(content: object) -> str:
    """What a message says: a text, or the texts among its parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part if isinstance(part, str) else _part_text(part) for part in content]
    return "\n".join(part for part in parts if part)


def say_openai(value: dict[str, Any], replies: Replies) -> None:
    """What one piece of an answer adds: a whole answer's `message` or a stream's `delta`."""
    if replies.id is None:
        replies.id = value.get("id")
    usage = value.get("usage")
    if isinstance(usage, Mapping):
        replies.count(usage.get("prompt_tokens"), usage.get("completion_tokens"))
    timings = value.get("timings")
    if isinstance(timings, Mapping):  # llama.cpp, which sends no usage unless asked
        replies.count(None, timings.get("predicted_n"))
    choices = value.get("choices")
    if not isinstance(choices, list):
        return
    for place, entry in enumerate(choices):
        if not isinstance(entry, Mapping):
            continue
        index = entry.get("index")
        choice = replies.choice(place if index is None else index)
        if choice is not None:
            _say_choice(entry, choice)


def _say_choice(entry: Mapping[str, Any], choice: Choice) -> None:
    brought = choice.say(entry.get("text"))
    for member in ("delta", "message"):
        message = entry.get(member)
        if isinstance(message, Mapping):
            brought = _say_message(message, choice) or brought
    choice.pieces += brought
    if entry.get("finish_reason") is not None:
        choice.finish = entry["finish_reason"]


def _say_message(message: Mapping[str, Any], choice: Choice) -> bool:
    """Whether the message or delta brought anything that a token was spent on."""
    brought = choice.say(text_of_content(message.get("content")))
    for member in ("reasoning_content", "reasoning", "thinking"):
        if choice.think(message.get(member)):
            brought = True
            break  # vLLM writes it twice while the old name goes out of use
    if choice.say(message.get("refusal")):
        choice.refused = brought = True
    return _say_calls(message, choice) or brought


def _say_calls(message: Mapping[str, Any], choice: Choice) -> bool:
    """Calls of tools: in a stream the first piece of each has its name, later ones arguments."""
    calls = message.get("tool_calls")
    found = calls if isinstance(calls, list) else []
    if isinstance(message.get("function_call"), Mapping):
        found = [*found, {"function": message["function_call"]}]
    brought = False
    for call in found:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            continue
        if function.get("name"):
            choice.call(function["name"])
            brought = True
        brought = brought or bool(function.get("arguments"))
    return brought


def _text_prompt(text: str) -> Prompt:
    return Prompt(text=text, last_length=len(text))


def _part_text(part: object) -> str:
    text = part.get("text") if isinstance(part, Mapping) else None
    return text if isinstance(text, str) else ""


def _images(content: object) -> int:
    parts = content if isinstance(content, list) else []
    kinds = [part.get("type") for part in parts if isinstance(part, Mapping)]
    return sum(kind in ("image_url", "image", "input_image") for kind in kinds)


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


OPENAI: Final = Dialect(asked=openai_prompts, said=say_openai)
