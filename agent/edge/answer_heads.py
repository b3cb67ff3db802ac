"""Heads of responses: what is read in them, and what is taken out before a client sees them.

A server's heads are alike for as long as its clock shows the same second, so the last of them are
remembered whole. Nothing here decides whether a head is valid: llhttp does.
"""

import re
from typing import Final

from agent.edge.answers import REQUEST_ID
from agent.edge.heads import NEVER_OUT, name_of, value_of, without

# A first character in brackets lets the matcher pass over other lines without trying each name.
# The group is there only for a Connection header.
_HOP = re.compile(
    rb"\r\n(?:[cC](?i:onnection):[ \t]*([^\r\n]*)"
    rb"|(?:[kK](?i:eep-alive)|[pP](?i:roxy-[^:\r\n]*)|[xX](?i:-remora-[^:\r\n]*)):[^\r\n]*)"
)
_LENGTH = re.compile(rb"\r\n(?i:content-length):[ \t]*([^\r\n]*)")
_CODING = re.compile(rb"\r\n(?i:transfer-encoding):")
_HEADS_MAX: Final = 64
_HEAD_KEPT_BYTES_MAX: Final = 2_048


class AnswerHead:
    """One head of a response, read and edited."""

    __slots__ = ("code", "end", "opening", "size", "sized", "text", "whole")

    def __init__(self, text: bytes, status: int) -> None:
        """`text` is the head with the empty line that ends it."""
        end = len(text) - 4
        self.text = text
        self.end = end
        self.code = status // 100 - 1  # position in `counters.CODES`
        self.opening = edit_response(text, end) + REQUEST_ID  # all that comes before the id
        lengths = _LENGTH.findall(text, 0, end)
        coded = _CODING.search(text, 0, end) is not None
        # Whether a length or chunks end the body; else it lasts until the connection ends.
        self.sized = coded or bool(lengths)
        # The size of the whole response, where the head alone says it; no response has the size -1.
        self.whole = -1
        if len(lengths) == 1 and not coded and status not in (204, 304):
            digits = lengths[0].rstrip(b" \t")
            if digits.isdigit() and len(digits) <= 18:
                self.whole = len(text) + int(digits)
        # The same, once llhttp has accepted one, found its end there and would keep the connection.
        self.size = -1


class AnswerHeads:
    """The last heads of one upstream."""

    __slots__ = ("_known", "last")

    def __init__(self) -> None:
        self._known: dict[bytes, AnswerHead] = {}
        self.last = AnswerHead(b"\r\n\r\n", 200)  # of the last response that came in one piece

    def find(self, text: bytes, status: int) -> AnswerHead:
        found = self._known.get(text)
        if found is None:
            found = AnswerHead(text, status)
            if len(text) <= _HEAD_KEPT_BYTES_MAX:
                if len(self._known) >= _HEADS_MAX:
                    self._known.clear()
                self._known[text] = found
        return found


def edit_response(data: bytes, end: int) -> bytes:
    """The head up to `end` without hop-by-hop headers, in the version that we speak."""
    if data.startswith(b"HTTP/1.0"):
        # Else a client would not use a connection again that we keep open for it.
        data = b"HTTP/1.1" + data[8:end]
    first = _HOP.search(data, 0, end)
    if first is None:
        return data[:end]
    value = first[1]
    if value == b"keep-alive" or value == b"close":
        # What servers say on every answer: one Connection, and it names nothing.
        at = first.end()
        if _HOP.search(data, at, end) is None:
            return data[: first.start()] + data[at:end]
    return b"\r\n".join(without(data[:end], _named(data[:end]) - NEVER_OUT))


def edit_switching(data: bytes, end: int) -> bytes:
    """As `edit_response`, for a 101, whose Connection and Upgrade are meant for the client."""
    out = _named(data[:end]) - NEVER_OUT - {b"upgrade"}
    return b"\r\n".join([*without(data[:end], out), b"Connection: upgrade"])


def _named(head: bytes) -> frozenset[bytes]:
    values = [value_of(line) for line in head.split(b"\r\n") if name_of(line) == b"connection"]
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))
