"""CloudEvents 1.0 over HTTP, in binary, structured and batch mode, as their bytes and attributes.

Sans-io. Nothing but `EventError` escapes, whatever the bytes are, and nothing is unpacked without
a bound: a kilobyte of gzip can hold a gigabyte. One bad event of a batch never costs the others.
Version 0.3, which Seldon's servers still send, differs in nothing that is read here.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import unquote

import orjson

from agent.wire.http1 import WireError, decode_content

EventReason: TypeAlias = Literal[
    "event_not_json",
    "event_malformed",
    "event_version",
    "event_data",
    "event_encoding",
    "event_too_large",
    "too_many_events",
]
EVENT_REASONS: Final[tuple[EventReason, ...]] = get_args(EventReason)

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
ATTRIBUTES_MAX: Final = 64
ATTRIBUTE_CHARACTERS_MAX: Final = 16_384  # KServe writes a request's headers into one
_GZIP_MAGIC: Final = b"\x1f\x8b"
# What the specification defines; every other attribute is an extension.
_CORE: Final = frozenset(
    {"id", "type", "source", "time", "specversion", "datacontenttype", "subject", "dataschema"}
)
_BODY: Final = frozenset({"data", "data_base64"})


class EventError(ValueError):
    """Bytes that are no event. The caller counts it by reason and moves on."""

    def __init__(self, reason: EventReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: EventReason = reason  # a metric label: the set is closed
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """One event; `data` is what it carries, unpacked, whatever the mode it came in."""

    id: str
    type: str
    source: str
    time: float | None  # unix seconds; None when absent or no time
    content_type: str  # of the data; empty when it was not said
    extensions: Mapping[str, str]
    data: bytes

    @property
    def size(self) -> int:
        """About how many bytes it keeps in memory."""
        return len(self.data) + sum(map(len, self.extensions.values())) + 512


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLimits:
    """How much a sender may make of one body."""

    data_bytes_max: int = 16 * 1024 * 1024  # all events of a body together, unpacked
    nan_bytes_max: int = 1024 * 1024  # bodies with NaN tokens take a ten times slower parser
    events_max: int = 10_000


def parse_events(
    body: bytes, headers: Mapping[str, str], limits: EventLimits
) -> tuple[list[CloudEvent], list[EventError]]:
    """The events of one HTTP request, and those of a batch that are none.

    Parameters
    ----------
    body: as it came; gzip is also recognised without its header, which Knative may strip.
    headers: lower-case names.

    Raises `EventError` when the body as a whole is no event.
    """
    body = unpacked(body, headers.get("content-encoding", ""), limits.data_bytes_max)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == BATCH:
        return _batch(body, limits)
    if kind == STRUCTURED:
        return [event_of(parsed_json(body, limits), limits)], []
    return [_binary(body, headers)], []


def unpacked(data: bytes, encoding: str, bytes_max: int) -> bytes:
    """The data without its encoding, at most `bytes_max` long. Raises `EventError`."""
    try:
        if encoding.strip().lower() not in ("", "identity"):
            data = decode_content(data, encoding, bytes_max=bytes_max)
        elif data.startswith(_GZIP_MAGIC):
            data = decode_content(data, "gzip", bytes_max=bytes_max)
    except WireError as error:
        large = error.reason == "body_too_large"
        raise EventError("event_too_large" if large else "event_encoding", str(error)) from None
    if len(data) > bytes_max:
        raise EventError("event_too_large", f"more than {bytes_max} bytes")
    return data


def parsed_json(body: bytes, limits: EventLimits) -> Any:
    """The body as JSON, NaN and Infinity tolerated. Raises `EventError`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Infinity" not in body:
            raise EventError("event_not_json", str(error)) from None
    except RecursionError:
        raise EventError("event_not_json", "nested without end") from None
    if len(body) > limits.nan_bytes_max:
        raise EventError("event_too_large", "NaN tokens in a body this long")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise EventError("event_not_json", str(error)[:200]) from None


def json_attribute(text: str | None) -> Any:
    """An attribute that holds JSON, raw or percent-encoded; None when it holds none.

    >>> json_attribute('{"a": 1}'), json_attribute("%7B%22a%22%3A1%7D"), json_attribute("x")
    ({'a': 1}, {'a': 1}, None)
    """
    for candidate in (text or "", unquote(text or "")):
        try:
            return orjson.loads(candidate)
        except (orjson.JSONDecodeError, RecursionError, UnicodeError):
            continue
    return None


def _batch(body: bytes, limits: EventLimits) -> tuple[list[CloudEvent], list[EventError]]:
    entries = parsed_json(body, limits)
    if not isinstance(entries, list):
        raise EventError("event_malformed", "a batch is an array")
    if len(entries) > limits.events_max:
        raise EventError("too_many_events", f"more than {limits.events_max} in one batch")
    events: list[CloudEvent] = []
    bad: list[EventError] = []
    room = limits.data_bytes_max
    for entry in entries:
        try:
            event = event_of(entry, limits, bytes_max=room)
        except EventError as error:
            bad.append(error)
            continue
        room -= len(event.data)
        events.append(event)
    return events, bad


def event_of(entry: Any, limits: EventLimits, *, bytes_max: int | None = None) -> CloudEvent:
    """One event of the JSON format. Raises `EventError`."""
    if not isinstance(entry, dict):
        raise EventError("event_malformed", "an event is an object")
    attributes = {
        name.lower(): _text(value)
        for name, value in entry.items()
        if name not in _BODY and value is not None
    }
    content_type = attributes.get("datacontenttype", "")
    room = limits.data_bytes_max if bytes_max is None else bytes_max
    return _event(attributes, content_type, unpacked(_data(entry, content_type), "", room))


def _data(entry: Mapping[str, Any], content_type: str) -> bytes:
    encoded = entry.get("data_base64")
    value = entry.get("data")
    if encoded is None and entry.get("datacontentencoding") == "base64":
        encoded = value  # version 0.3
    if encoded is not None:
        if not isinstance(encoded, str):
            raise EventError("event_data", "data_base64 is no text")
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:
            raise EventError("event_data", "data_base64 is no base64") from None
    if value is None:
        return b""
    if isinstance(value, str) and not is_json(content_type):
        return _bytes(value)
    return _bytes(_dumped(value))


def _dumped(value: Any) -> str:
    try:
        # Not orjson: it would write null for the NaN that a tolerant parser let through.
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise EventError("event_data", str(error)[:200]) from None


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise EventError("event_data", "half a surrogate in a text") from None


def is_json(content_type: str) -> bool:
    """Whether data of that type is JSON; without a type it is, by the specification."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("", "application/json", "text/json") or kind.endswith("+json")


def _binary(body: bytes, headers: Mapping[str, str]) -> CloudEvent:
    attributes = {
        name[3:]: _header_text(value) for name, value in headers.items() if name.startswith("ce-")
    }
    if not attributes:
        raise EventError("event_malformed", "no ce- header, and no content type of an event")
    return _event(attributes, headers.get("content-type", ""), body)


def _event(attributes: Mapping[str, str], content_type: str, data: bytes) -> CloudEvent:
    version = attributes.get("specversion", "")
    if not version.startswith(("1.", "0.3")):
        raise EventError("event_version", f"specversion {version[:16]!r} is not 1.0")
    if len(attributes) > ATTRIBUTES_MAX:
        raise EventError("event_malformed", f"more than {ATTRIBUTES_MAX} attributes")
    if any(len(value) > ATTRIBUTE_CHARACTERS_MAX for value in attributes.values()):
        raise EventError("event_malformed", "an attribute is too long to be one")
    id, type = attributes.get("id", ""), attributes.get("type", "")
    if not id or not type:
        raise EventError("event_malformed", "id and type must be there")
    return CloudEvent(
        id=id,
        type=type,
        source=attributes.get("source", ""),
        time=moment(attributes.get("time")),
        content_type=content_type,
        extensions={name: value for name, value in attributes.items() if name not in _CORE},
        data=data,
    )


def _header_text(value: str) -> str:
    """The value of a header by the binding: perhaps quoted, perhaps percent-encoded."""
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return unquote(value) if "%" in value else value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    # Extensions are scalars by the specification; some senders put objects there all the same.
    return _dumped(value)


def moment(text: str | None) -> float | None:
    """RFC 3339 as unix seconds; None for anything else.

    >>> moment("2026-08-21T10:00:00.5Z"), moment("yesterday")
    (1787306400.5, None)
    """
    try:
        found = datetime.fromisoformat(text or "")
        # Without an offset nobody knows which moment is meant.
        return None if found.tzinfo is None else found.timestamp()
    except (ValueError, OverflowError):
        return None
