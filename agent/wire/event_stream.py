"""Server-sent events and JSON Lines, out of bytes that come in pieces.

Sans-io: bytes in, events out, by the algorithm of the HTML standard ("interpreting an event
stream"). How the bytes were cut never changes what comes out, and no sender makes this hold more
than one event of `event_bytes_max`: longer ones are passed over and counted.
"""

from dataclasses import dataclass
from typing import Final

EVENT_BYTES_MAX: Final = 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_RETRY_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event as a browser would dispatch it."""

    type: str  # "message" where the sender gave none
    data: str
    last_id: str  # what a client would send when it comes back


class LineSplitter:
    """Lines ended by CR, LF or CRLF; one that grows beyond the limit is given up, and counted."""

    def __init__(self, *, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._rest = b""
        self._after_cr = False  # a LF that comes now ends nothing: its CR already did
        self._giving_up = False
        self.oversized = 0

    def feed(self, data: bytes) -> list[bytes | None]:
        """The lines that are whole now, without their ends; None for one that was too long."""
        if not data:
            return []
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
            if not data:
                return []
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, rest = data.split(b"\n")
        lines: list[bytes | None] = list(whole)
        if whole:
            lines[0] = None if self._giving_up else self._rest + whole[0]
            self._rest, self._giving_up = b"", False
        self._keep(rest)
        for place, line in enumerate(lines):
            if line is not None and len(line) > self._line_bytes_max:
                lines[place] = None
                self.oversized += 1
        return lines

    def close(self) -> bytes | None:
        """The last line, which nothing ended; None when there is none."""
        rest, self._rest = self._rest, b""
        self._giving_up = False
        return rest or None

    def _keep(self, rest: bytes) -> None:
        if self._giving_up or not rest:
            return
        if len(self._rest) + len(rest) > self._line_bytes_max:
            self._rest, self._giving_up = b"", True
            self.oversized += 1
        else:
            self._rest += rest


class EventStream:
    """A stream of server-sent events.

    `retry_ms` is the last reconnection time that the sender asked for, `oversized` how many
    events were passed over because a line or all their data together were too long.
    """

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._lines = LineSplitter(line_bytes_max=event_bytes_max)
        self._head: bytes | None = b""  # the first bytes, until it is known whether they are a BOM
        self._type = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._too_long = False
        self._last_id = ""
        self.oversized = 0
        self.retry_ms: int | None = None

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that these bytes complete."""
        if self._head is not None:
            data = self._head + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._head = data
                return []
            self._head = None
            data = data.removeprefix(_BOM)
        return self._taken(data)

    def close(self) -> ServerEvent | None:
        """At the end of the stream: the event that no empty line has ended.

        The standard throws it away. Some servers forget the last empty line, though, and what
        stands there is worth reading to whoever can tell a whole event from a cut one.
        """
        if self._head:
            self._taken(self._head)
        self._head = b""
        line = self._lines.close()
        if line is not None:
            self._line(line)
        return self._dispatch()

    def _taken(self, data: bytes) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        for line in self._lines.feed(data):
            if line is None:
                self._too_long = True
            elif line:
                self._line(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _line(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._event_bytes_max:
                self._too_long = True
                self._data.clear()
            elif not self._too_long:
                self._data.append(value)
        elif field == b"event":
            self._type = value.decode("utf-8", "replace")
        elif field == b"id":
            if b"\0" not in value:
                self._last_id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS_MAX:
            self.retry_ms = int(value)
        # An empty field name is a comment, an unknown one is for somebody else.

    def _dispatch(self) -> ServerEvent | None:
        kind, data, too_long = self._type, self._data, self._too_long
        self._type, self._data, self._data_bytes, self._too_long = "", [], 0, False
        if too_long:
            self.oversized += 1
            return None
        if not data:
            return None
        return ServerEvent(
            type=kind or "message",
            data=b"\n".join(data).decode("utf-8", "replace"),
            last_id=self._last_id,
        )


class JsonLines:
    """JSON Lines, also known as NDJSON: one value in a line, empty lines between them allowed."""

    def __init__(self, *, line_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._lines = LineSplitter(line_bytes_max=line_bytes_max)

    @property
    def oversized(self) -> int:
        return self._lines.oversized

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now, without empty ones."""
        return [line for line in self._lines.feed(data) if line and not line.isspace()]

    def close(self) -> bytes | None:
        """What stands behind the last line end; perhaps it is a whole value all the same."""
        line = self._lines.close()
        return line if line and not line.isspace() else None
