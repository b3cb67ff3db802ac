"""An answer as the JSON objects that it came in: one, or many of a stream of events or lines.

Do not refuse a stream for its end: it may have been cut by the client, the server or the copy,
and what came before still says when the first token came and how many there were.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from agent.decoders.body import parsed, unpacked
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason
from agent.exchange import Exchange
from agent.wire.event_stream import EventStream, JsonLines
from agent.wire.http1 import WireError, decode_content

_EVENT_STREAM: Final = "text/event-stream"
_LINES: Final = frozenset(
    {
        "application/x-ndjson",
        "application/jsonl",
        "application/jsonlines",
        "application/stream+json",
    }
)
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
BodyForm: TypeAlias = Literal["json", "events", "lines"]
DONE: Final = "[DONE]"
_REASONS: Final[Mapping[str, DecodeReason]] = {
    "body_too_large": DecodeReason.BODY_TOO_LARGE,
}


class AnswerPieces:
    """Iterate once; `done` and `failed` hold after that.

    `streamed`: it came as a stream. `done`: the stream said that this was its end. `failed`: a
    piece was an error, in the middle of an answer that had begun as a good one.
    """

    def __init__(self, exchange: Exchange, limits: DecodeLimits) -> None:
        """Raises `DecodeError`: body_too_large, unsupported_encoding."""
        self._limits = limits
        self._cut = exchange.response_truncated or exchange.outcome != "ok"
        headers = exchange.response_headers
        self._body = unpacked_so_far(exchange.response_body, headers, limits, cut=self._cut)
        self._form = form_of(headers, self._body)
        self.streamed = self._form != "json"
        self.done = False
        self.failed = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The objects, in order. Raises `DecodeError`: not_json, too_deep, body_too_large."""
        if self._form == "json":
            values = self._lone()
        elif self._form == "events":
            values = self._of_events()
        else:
            values = self._of_lines()
        for value in values:
            if not isinstance(value, dict):
                continue
            self.failed = self.failed or is_error(value)
            yield value

    def _lone(self) -> Iterator[Any]:
        if self._cut:
            return  # half a JSON value says nothing
        yield parsed(self._body, self._limits)

    def _of_events(self) -> Iterator[Any]:
        stream = EventStream(event_bytes_max=self._limits.body_bytes_max)
        events = stream.feed(self._body)
        if (last := stream.close()) is not None:
            events.append(last)
        malformed = 0
        for event in events:
            if event.data.strip() == DONE:
                self.done = True
                continue
            value = self._tried(event.data.encode("utf-8", "replace"))
            malformed += value is None
            if event.type == "error":
                self.failed = True
            yield value
        self._judge(malformed, len(events))

    def _of_lines(self) -> Iterator[Any]:
        lines = JsonLines(line_bytes_max=self._limits.body_bytes_max)
        found = lines.feed(self._body)
        if (last := lines.close()) is not None:
            found.append(last)
        malformed = 0
        for line in found:
            value = self._tried(line)
            malformed += value is None
            yield value
        self._judge(malformed, len(found))

    def _tried(self, text: bytes) -> Any:
        """One piece; None when it is no JSON: the last of a cut stream is half a piece."""
        try:
            return parsed(text, self._limits)
        except DecodeError:
            return None

    def _judge(self, malformed: int, pieces: int) -> None:
        if malformed == pieces and pieces and not self._cut and not self.done:
            raise DecodeError(DecodeReason.NOT_JSON, f"none of {pieces} pieces")


def is_error(value: Mapping[str, Any]) -> bool:
    """Whether an object is an error's: `{"error": ...}`, or vLLM's `{"object": "error", ...}`."""
    error = value.get("error")
    return (error is not None and error is not False) or value.get("object") == "error"


def unpacked_so_far(
    body: bytes, headers: Mapping[str, str], limits: DecodeLimits, *, cut: bool
) -> bytes:
    """A body without its content encoding; of one that was cut, what there is of it.

    Raises:
        DecodeError: body_too_large, unsupported_encoding.
    """
    encoding = headers.get("content-encoding", "")
    if not cut or encoding in ("", "identity"):
        return unpacked(body, headers, limits)
    try:
        return decode_content(body, encoding, bytes_max=limits.body_bytes_max, truncated=True)
    except WireError as error:
        reason = _REASONS.get(error.reason, DecodeReason.UNSUPPORTED_ENCODING)
        raise DecodeError(reason, "the body's packing") from None


def form_of(headers: Mapping[str, str], body: bytes) -> BodyForm:
    """By its content type, else by its looks: some servers send none, or a wrong one."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == _EVENT_STREAM:
        return "events"
    if content_type in _LINES:
        return "lines"
    start = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(_FIELDS):
        return "events"
    # `{...}\n{...}`: a lone value, however it is laid out, has no line that begins like this
    # behind one that ends like that.
    return "lines" if start.startswith(b"{") and b"}\n{" in start else "json"
