"""What a language model was asked and answered, gathered from any dialect, as one inference.

Rows are descriptors of the prompt and of the reply, so that the ordinary detectors watch both;
the prediction is the first output, `finish_reason`. Do not let a word of either leave this file,
in a detail of an error neither: only `text_kept_characters` of `DecoderSettings`, which is 0
unless the operator asked, lets `Inference.texts` carry them.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from agent.decoders.answer_pieces import AnswerPieces
from agent.decoders.body import concluded, request_json
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.text import describe_text
from agent.exchange import Exchange
from agent.generation import FinishReason, Generation, TokenBasis, finish_reason
from agent.inference import Inference, Value, identify
from agent.sampling import kept

CHOICES_MAX: Final = 1_024
_TOKENS_MAX: Final = 1_000_000_000
_TOOL_NAMES_MAX: Final = 16  # remembered of one choice; all calls are counted
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question."""

    text: str  # of all messages, one after the other
    last_length: int = 0  # characters of the last message
    messages: int = 1
    has_system: bool = False
    tools: int = 0
    images: int = 0
    tokens: int | None = None  # where it came as token ids


@dataclass(slots=True, kw_only=True)
class Choice:
    """One answer, growing."""

    texts: list[str] = field(default_factory=list)
    thought_characters: int = 0  # what a reasoning model said to itself
    pieces: int = 0  # of the stream that brought something: a token each, as a rule
    tools: list[str] = field(default_factory=list)
    tool_calls: int = 0
    refused: bool = False
    finish: object = None

    def say(self, text: object) -> bool:
        """Take a piece of text; whether it is one."""
        if not isinstance(text, str) or not text:
            return False
        self.texts.append(text)
        return True

    def think(self, text: object) -> bool:
        if not isinstance(text, str) or not text:
            return False
        self.thought_characters += len(text)
        return True

    def call(self, name: object) -> None:
        """A call of a tool began."""
        self.tool_calls += 1
        if len(self.tools) < _TOOL_NAMES_MAX:
            self.tools.append(_tool_name(name))


@dataclass(slots=True, kw_only=True)
class Replies:
    """All that one answer said, whatever the pieces that it came in."""

    choices: dict[int, Choice] = field(default_factory=dict)
    input_tokens: int | None = None
    output_tokens: int | None = None
    done: bool = False  # a piece said that it was the last
    id: object = None

    def choice(self, index: object) -> Choice | None:
        """The choice of that number; None beyond what any server makes."""
        if type(index) is not int or not 0 <= index < CHOICES_MAX:
            return None
        return self.choices.setdefault(index, Choice())

    def count(self, tokens_in: object, tokens_out: object) -> None:
        """What the server says it has counted; the last word holds, nonsense does not."""
        if (counted := token_count(tokens_in)) is not None:
            self.input_tokens = counted
        if (counted := token_count(tokens_out)) is not None:
            self.output_tokens = counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one kind of server writes: prompts out of a request, what each piece of an answer adds.

    `asked` raises `DecodeError` for what is no request of this dialect; `said` never raises.
    """

    asked: Callable[[dict[str, Any]], Sequence[Prompt]]
    said: Callable[[dict[str, Any], Replies], None]
    ends: bool = True  # a stream has a word for its end, so that one without it was cut


def read(exchange: Exchange, dialect: Dialect, settings: DecoderSettings) -> Inference:
    """The inference of a language model's exchange.

    Raises:
        DecodeError: whatever is wrong; with its `generation` as soon as there was an answer.
    """
    _require_begun(exchange)
    pieces = AnswerPieces(exchange, settings.limits)
    replies = Replies()
    for value in pieces:
        dialect.said(value, replies)
    generation = _generation(exchange, pieces, replies, dialect)
    try:
        _require_whole(exchange, pieces, replies, generation)
        body = _request(exchange, settings.limits)
        prompts = _prompts(body, dialect, settings.limits)
        inference = _inference(exchange, prompts, replies, generation, settings)
        identity, aliases = identify(exchange, body.get("id"), replies.id)
        return replace(inference, id=identity, aliases=aliases, generation=generation)
    except DecodeError as error:
        # Not of what was no answer at all: other endpoints are not a model's failures.
        known = replies.choices or pieces.failed or exchange.outcome != "ok"
        raise DecodeError(
            error.reason, error.detail, generation=generation if known else None
        ) from None


def _require_begun(exchange: Exchange) -> None:
    if exchange.method != "POST":
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, f"{exchange.method} asks no model")
    if exchange.status == 0:
        raise DecodeError(DecodeReason.INCOMPLETE_EXCHANGE, f"it ended as {exchange.outcome}")
    if not 200 <= exchange.status < 300:
        raise DecodeError(DecodeReason.ERROR_STATUS, f"the answer was {exchange.status}")


def _require_whole(
    exchange: Exchange, pieces: AnswerPieces, replies: Replies, generation: Generation
) -> None:
    if pieces.failed:
        raise DecodeError(DecodeReason.ANSWER_FAILED, "the answer holds an error")
    if not generation.whole:
        if exchange.outcome == "ok" and exchange.response_truncated:
            raise DecodeError(DecodeReason.BODY_TRUNCATED, "the response was not kept whole")
        raise DecodeError(DecodeReason.INCOMPLETE_EXCHANGE, "the answer has no end")
    if not replies.choices:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "the answer holds no choice")


def _request(exchange: Exchange, limits: DecodeLimits) -> dict[str, Any]:
    if exchange.request_truncated:
        raise DecodeError(DecodeReason.BODY_TRUNCATED, "the request was not kept whole")
    body = request_json(exchange, limits)
    if not isinstance(body, dict):
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "the request is no object")
    return body


def _prompts(body: dict[str, Any], dialect: Dialect, limits: DecodeLimits) -> Sequence[Prompt]:
    prompts = dialect.asked(body)
    if not prompts:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "no prompts")
    if len(prompts) > limits.rows_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{len(prompts)} > {limits.rows_max}")
    return prompts


def _generation(
    exchange: Exchange, pieces: AnswerPieces, replies: Replies, dialect: Dialect
) -> Generation:
    finished = any(choice.finish is not None for choice in replies.choices.values())
    # A client that has seen the end of a stream may leave before the last byte of its framing.
    # And where the end of the connection is the body's, only its own words tell it from a cut.
    said_its_end = pieces.done or replies.done
    came_whole = exchange.outcome == "ok" and not exchange.response_truncated
    needs_no_word = finished or not pieces.streamed or not dialect.ends
    whole = said_its_end or (came_whole and needs_no_word)
    is_cut = exchange.outcome == "ok" and exchange.response_truncated and not said_its_end
    counted = sum(choice.pieces for choice in replies.choices.values())
    basis: TokenBasis = "unknown"
    input_tokens, output_tokens = _reported(replies, counted)
    if output_tokens is not None and (whole or finished):
        basis = "usage"
    elif pieces.streamed:
        basis = "cut" if is_cut else "counted"
        output_tokens = max(counted, output_tokens or 0)
    first_s = exchange.first_body_s or exchange.first_byte_s
    reasons: tuple[FinishReason, ...] = tuple(
        finish_reason(choice.finish) for choice in replies.choices.values()
    )
    if pieces.failed:
        reasons = ("error",)
    elif not whole and not finished:
        reasons = () if is_cut else ("interrupted",)  # of a cut copy nobody knows how it ended
    return Generation(
        version=exchange.version,
        weight=kept(exchange).weight,
        streamed=pieces.streamed,
        whole=whole and not pieces.failed,
        duration_s=exchange.duration_s,
        first_token_s=first_s if pieces.streamed and replies.choices else None,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        basis=basis,
        finish_reasons=reasons,
    )


def _reported(replies: Replies, spoken: int) -> tuple[int | None, int | None]:
    """What the server counted; no output beside an answer that says something is a form unfilled.

    LitServe sends such zeros unless its model counts: taken as they are, they would be exact.
    """
    if replies.output_tokens == 0 and spoken:
        return replies.input_tokens or None, None
    return replies.input_tokens, replies.output_tokens


def _inference(
    exchange: Exchange,
    prompts: Sequence[Prompt],
    replies: Replies,
    generation: Generation,
    settings: DecoderSettings,
) -> Inference:
    choices = _first_choices(replies, len(prompts))
    is_alone = len(prompts) == 1  # tokens are counted for the request, not for each of its prompts
    rows: list[list[float]] = []
    names: list[str] = []
    for prompt, choice in zip(prompts, choices, strict=True):
        tokens_in = generation.input_tokens if is_alone else prompt.tokens
        tokens_out = generation.output_tokens if is_alone else None
        described = prompt_descriptors(prompt, tokens_in) | _reply_descriptors(choice, tokens_out)
        names = names or list(described)[: settings.limits.columns_max]
        rows.append([described[name] for name in names])
    # The first is the prediction: how answers end says most about a model that changed.
    outputs: dict[str, list[Value]] = {
        "finish_reason": [finish_reason(choice.finish) for choice in choices],
        "tool": [choice.tools[0] if choice.tools else None for choice in choices],
    }
    for place, name in enumerate(names):
        if name.startswith("reply."):
            outputs[name] = [row[place] for row in rows]
    kept_characters = settings.text_read_characters
    texts: dict[str, list[str]] = {}
    if kept_characters:
        texts["prompt"] = [prompt.text[:kept_characters] for prompt in prompts]
        texts["reply"] = ["".join(choice.texts)[:kept_characters] for choice in choices]
    inference = concluded(
        exchange,
        names=tuple(names),
        rows=np.array(rows, dtype=np.float64),
        outputs=outputs,
    )
    return replace(inference, texts=texts)


def _first_choices(replies: Replies, prompts: int) -> list[Choice]:
    """The first choice for each prompt: servers number those of one prompt in a row."""
    each = max(1, (max(replies.choices) + 1) // prompts)
    try:
        if prompts == 1:
            return [replies.choices[min(replies.choices)]]
        return [replies.choices[place * each] for place in range(prompts)]
    except KeyError:
        detail = f"{len(replies.choices)} choices for {prompts} prompts"
        raise DecodeError(DecodeReason.ROWS_MISMATCH, detail) from None


def prompt_descriptors(prompt: Prompt, tokens: int | None) -> dict[str, float]:
    """A question as numbers; of one that came as token ids there is no text to describe."""
    described = _prefixed("prompt", describe_text(prompt.text))
    if prompt.tokens is not None:
        described = dict.fromkeys(described, math.nan)
        tokens = prompt.tokens if tokens is None else tokens
    return described | {
        "prompt.tokens": _number(tokens),
        "prompt.messages": float(prompt.messages),
        "prompt.last_length": float(prompt.last_length),
        "prompt.has_system": float(prompt.has_system),
        "prompt.tools": float(prompt.tools),
        "prompt.images": float(prompt.images),
    }


def _reply_descriptors(choice: Choice, tokens: int | None) -> dict[str, float]:
    return _prefixed("reply", describe_text("".join(choice.texts))) | {
        "reply.tokens": _number(tokens),
        "reply.thought_length": float(choice.thought_characters),
        "reply.tool_calls": float(choice.tool_calls),
        "reply.refused": float(choice.refused),
    }


def _prefixed(prefix: str, described: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}.{name}": value for name, value in described.items()}


def _number(count: int | None) -> float:
    return math.nan if count is None else float(count)


def token_count(said: object) -> int | None:
    """A count that can be one; nonsense from a server must not poison a counter."""
    if type(said) is not int or not 0 <= said <= _TOKENS_MAX:
        return None
    return said


def _tool_name(name: object) -> str:
    """Models make names up, and sentences too: whatever is no plain name is `other`."""
    return name if isinstance(name, str) and _TOOL_NAME.fullmatch(name) else "other"
