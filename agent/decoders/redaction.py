"""What the operator wants nobody to see is taken out here, before a decoder looks and after.

Before: paths and patterns in JSON, events, lines and other text, so that no decoder, and no detail
of its errors, has ever seen what they name. After: features by name, and patterns once more in
whatever came in another form or was put together from pieces. Every exchange and every row that
came decoded must pass both: `Decoding` sees to it, and nothing may go round it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
import orjson

from agent.decoders.answer_pieces import DONE, form_of, unpacked_so_far
from agent.decoders.body import BINARY_TENSORS_HEADER, parsed
from agent.decoders.decoder import (
    DecodeError,
    DecodeReason,
    DecoderSettings,
    SettingsError,
)
from agent.decoders.path import Each, Path, PathSyntaxError, Step, parse_path
from agent.decoders.patterns import MARKER, Eraser, refusal
from agent.decoders.tabular import unique_names
from agent.exchange import Exchange
from agent.inference import Inference, Value
from agent.wire.event_stream import EventStream, JsonLines

# No text, though its bytes may look like one: what is in it is looked at once it is decoded.
_BINARY: Final = ("application/grpc", "application/x-protobuf", "application/protobuf", "image/")
_DEPTH_MAX: Final = 200  # deeper than any protocol; what lies below is taken out


class Redaction:
    """The rules of one configuration, made once.

    Texts become a constant marker, or have it where a pattern matched; numbers become null; an
    object at a path becomes the marker, a list keeps its length. So rows keep their shape, and a
    redacted feature is a constant that nobody learns from.
    """

    def __init__(self, settings: DecoderSettings) -> None:
        """Raises `SettingsError` for a rule that cannot be kept."""
        self._limits = settings.limits
        self._text_characters = settings.text_kept_characters
        self._paths: list[tuple[Step, ...]] = []
        self._erasers: list[Eraser] = []
        self._features: set[str] = set()
        for number, rule in enumerate(settings.redact):
            if rule.path is not None:
                self._paths.append(_path(number, rule.path).steps)
            if rule.pattern is not None:
                self._erasers.append(_eraser(number, rule.pattern))
            if rule.feature is not None:
                self._features.add(rule.feature)

    @property
    def dropped(self) -> Counter[str]:
        """Values that were taken out whole because a pattern could not be run on them."""
        return sum((eraser.dropped for eraser in self._erasers), Counter())

    # Before decoding.

    def exchange(self, exchange: Exchange) -> Exchange:
        """The same exchange without what paths and patterns name."""
        if not self._paths and not self._erasers:
            return exchange
        asked, asked_headers = self._body(
            exchange.request_body, exchange.request_headers, cut=exchange.request_truncated
        )
        cut = exchange.response_truncated or exchange.outcome != "ok"
        said, said_headers = self._body(exchange.response_body, exchange.response_headers, cut=cut)
        return replace(
            exchange,
            path=self._text(exchange.path),
            query=self._text(exchange.query),
            request_body=asked,
            request_headers=asked_headers,
            response_body=said,
            response_headers=said_headers,
        )

    def _body(
        self, body: bytes, headers: Mapping[str, str], *, cut: bool
    ) -> tuple[bytes, Mapping[str, str]]:
        if not body:
            return body, headers
        try:
            plain = unpacked_so_far(body, headers, self._limits, cut=cut)
        except DecodeError:
            return body, headers  # no decoder can read it either: they unpack by the same rules
        headers = {name: value for name, value in headers.items() if name != "content-encoding"}
        if BINARY_TENSORS_HEADER in headers:
            return self._with_tensors(plain, headers)
        form = form_of(headers, plain)
        if form == "events":
            return self._events(plain), headers
        if form == "lines":
            return self._lines(plain), headers
        if headers.get("content-type", "").startswith(_BINARY):
            return plain, headers
        return self._value_or_text(plain), headers

    def _with_tensors(
        self, body: bytes, headers: dict[str, str]
    ) -> tuple[bytes, Mapping[str, str]]:
        """JSON with raw tensors behind it: what is in those has no path, only names."""
        text = headers[BINARY_TENSORS_HEADER].strip()
        if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) > len(body):
            return body, headers
        head = self._value_or_text(body[: int(text)])
        return head + body[int(text) :], headers | {BINARY_TENSORS_HEADER: str(len(head))}

    def _events(self, body: bytes) -> bytes:
        stream = EventStream(event_bytes_max=self._limits.body_bytes_max)
        events = stream.feed(body)
        if (last := stream.close()) is not None:
            events.append(last)
        parts: list[bytes] = []
        for event in events:
            data = event.data.encode("utf-8", "replace")
            data = data if event.data.strip() == DONE else self._value_or_text(data)
            named = b"" if event.type == "message" else f"event: {event.type}\n".encode()
            lines = b"".join(b"data: " + line + b"\n" for line in data.split(b"\n"))
            parts.append(named + lines + b"\n")
        return b"".join(parts)

    def _lines(self, body: bytes) -> bytes:
        lines = JsonLines(line_bytes_max=self._limits.body_bytes_max)
        found = lines.feed(body)
        if (last := lines.close()) is not None:
            found.append(last)
        return b"".join(self._value_or_text(line) + b"\n" for line in found)

    def _value_or_text(self, data: bytes) -> bytes:
        """JSON without what the rules name; other text without what patterns match."""
        try:
            value = parsed(data, self._limits)
        except DecodeError:
            return self._plain_text(data)
        redacted = self._pattern_free(self._path_free(value), depth=0)
        return data if redacted is value else _written(redacted)

    def _plain_text(self, data: bytes) -> bytes:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return data  # images, protobuf: their words are looked at once they are decoded
        return self._text(text).encode()

    def _path_free(self, value: Any) -> Any:
        for steps in self._paths:
            value = _erased_at(value, steps, 0)
        return value

    def _pattern_free(self, value: Any, *, depth: int) -> Any:
        if not self._erasers:
            return value
        if depth > _DEPTH_MAX:
            return MARKER
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._pattern_free(entry, depth=depth + 1) for entry in value]
        if isinstance(value, dict):
            return {
                self._text(name): self._pattern_free(entry, depth=depth + 1)
                for name, entry in value.items()
            }
        if type(value) is int and any(eraser.found(str(value)) for eraser in self._erasers):
            return None  # the number of a card, written as a number
        return value

    def _text(self, text: str) -> str:
        for eraser in self._erasers:
            text = eraser.erased(text)
        return text

    # After decoding.

    def inference(self, inference: Inference) -> Inference:
        """The same inference without what features and patterns name.

        Raises:
            DecodeError: redacted, when no feature is left.
        """
        if not self._features and not self._erasers:
            return inference
        inference = self._without_features(inference)
        return self._without_matches(inference) if self._erasers else inference

    def _without_features(self, inference: Inference) -> Inference:
        names, rows = inference.names, inference.rows
        if names is not None and not self._features.isdisjoint(names):
            places = [place for place, name in enumerate(names) if name not in self._features]
            if not places:
                raise DecodeError(DecodeReason.REDACTED, "no feature is left")
            names = tuple(names[place] for place in places)
            if isinstance(rows, np.ndarray):
                rows = rows[:, places]
            else:
                rows = [[row[place] for place in places] for row in rows]
        return replace(
            inference,
            names=names,
            rows=rows,
            outputs=_others(inference.outputs, self._features),
            vectors=_others(inference.vectors, self._features),
        )

    def _without_matches(self, inference: Inference) -> Inference:
        names, rows = inference.names, inference.rows
        if names is not None:
            names = unique_names(map(self._text, names))
        if not isinstance(rows, np.ndarray):
            rows = [[self._cell(cell) for cell in row] for row in rows]
        outputs: dict[str, list[Value | Sequence[Value]]] = {}
        for name, entries in inference.outputs.items():
            outputs[self._text(name)] = [self._entry(entry) for entry in entries]
        texts = {
            name: [self._text(text)[: self._text_characters] for text in texts]
            for name, texts in inference.texts.items()
        }
        return replace(inference, names=names, rows=rows, outputs=outputs, texts=texts)

    def _entry(self, entry: Value | Sequence[Value]) -> Value | Sequence[Value]:
        if isinstance(entry, list | tuple):
            return [self._cell(value) for value in entry]
        return self._cell(cast(Value, entry))

    def _cell(self, cell: Value) -> Value:
        return self._text(cell) if isinstance(cell, str) else cell


def _erased_at(value: Any, steps: tuple[Step, ...], place: int) -> Any:
    """The value with what lies at the path blanked; itself when there is nothing."""
    if place == len(steps):
        return _blank(value)
    step = steps[place]
    if isinstance(step, Each):
        if not isinstance(value, list):
            return value
        return [_erased_at(entry, steps, place + 1) for entry in value]
    if isinstance(step, str):
        if not isinstance(value, dict) or step not in value:
            return value
        return value | {step: _erased_at(value[step], steps, place + 1)}
    if not isinstance(value, list) or step >= len(value):
        return value
    return [*value[:step], _erased_at(value[step], steps, place + 1), *value[step + 1 :]]


def _blank(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str | dict) or depth > _DEPTH_MAX:
        return MARKER
    if isinstance(value, list):
        return [_blank(entry, depth + 1) for entry in value]
    return None


def _written(value: Any) -> bytes:
    """As JSON; the tokens NaN and Infinity stay what they were."""
    try:
        text = orjson.dumps(value)
    except TypeError:  # nested deeper than it writes
        text = b""
    if text and b"null" not in text:
        return text
    # orjson writes null for what JSON has no word for, and then nothing tells them apart.
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return orjson.dumps(MARKER)


def _others(entries: Mapping[str, Any], hidden: set[str]) -> Mapping[str, Any]:
    return {name: value for name, value in entries.items() if name not in hidden}


def _path(number: int, text: str) -> Path:
    try:
        return parse_path(text)
    except PathSyntaxError as error:
        raise SettingsError(f"protocol.redact.{number}.path: {error}") from None


def _eraser(number: int, text: str) -> Eraser:
    if (why := refusal(text)) is not None:
        raise SettingsError(f"protocol.redact.{number}.pattern {why}")
    return Eraser(text)
