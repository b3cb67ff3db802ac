"""Bytes of a growing file cut into whole lines, each with the place where it ends.

Sans-io. Do not give out a line before its line feed has come: whoever writes the file may be in
the middle of it, and half a line is a wrong row, not a missing one.
"""

from dataclasses import dataclass
from typing import Final

LINE_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    data: bytes  # without its line end
    end: int  # offset in the file of the byte after its line feed


class Lines:
    """Lines of one file from an offset on; what is longer than the limit is counted, not kept.

    >>> lines = Lines()
    >>> lines.feed(b"one\\r\\ntw")
    [Line(data=b'one', end=5)]
    >>> lines.feed(b"o\\n")
    [Line(data=b'two', end=9)]
    """

    def __init__(
        self, *, offset: int = 0, line_bytes_max: int = LINE_BYTES_MAX, skip_first: bool = False
    ) -> None:
        self._line_bytes_max = line_bytes_max
        self._read = offset  # where the next byte that is fed stands in the file
        self._parts: list[bytes] = []  # of the line whose end has not come yet
        self._held = 0
        self._skipping = skip_first  # the offset is in the middle of a line
        self.too_long = 0  # lines that were not kept
        self.ended = offset  # after the last line that ended, kept or not

    @property
    def read(self) -> int:
        """Where the next byte to be fed stands in the file."""
        return self._read

    @property
    def held_bytes(self) -> int:
        """Bytes of a line whose end has not come."""
        return self._held

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end in `data`; empty ones are passed over."""
        found: list[Line] = []
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            self.ended = self._read + end + 1
            line = self._finish(data[at:end])
            if line:
                found.append(Line(data=line, end=self.ended))
            at = end + 1
        self._hold(data[at:])
        self._read += len(data)
        return found

    def _finish(self, rest: bytes) -> bytes:
        """The line that `rest` ends; empty when it was too long."""
        self._hold(rest)
        line = b"" if self._skipping else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        self._skipping = False
        return line.removesuffix(b"\r")

    def _hold(self, part: bytes) -> None:
        if self._skipping or not part:
            return
        if self._held + len(part) > self._line_bytes_max:
            self._skipping = True
            self.too_long += 1
            self._parts.clear()
            self._held = 0
            return
        self._parts.append(part)
        self._held += len(part)
