"""Heads that are alike but for the request's id, its trace and its length.

A client asks the same thing over and over, with an id and a body of its own each time. Both readers
of a head have agreed on one such (`framing.RequestFraming`); what may differ in the next is letters
of an id, hexadecimal digits of a trace and decimal digits of a length, none of which is syntax to
either. What must not break: everything else must be there byte for byte, or the head is read anew.
"""

from collections.abc import Callable
from typing import Final

from agent.edge.heads import (
    AS_LETTERS,
    LENGTH,
    PLAIN_KINDS,
    TRACEPARENT,
    X_REQUEST_ID,
    RequestHead,
    edit_request,
    trace_id,
)

_HEAD_BYTES_MAX: Final = 2_048
_TEMPLATES_MAX: Final = 16


class Template:
    """One kind of head: what stays, and what kind of header's value stands between.

    Comparing piece by piece costs a third of what a regular expression takes for it.
    """

    __slots__ = ("_by_trace", "_edited", "_end", "_steps")

    def __init__(self, fixed: list[bytes], kinds: list[int], *, edited: list[bytes] | None) -> None:
        """`fixed` is what stands before, between and behind the values; `edited` the same as it is
        forwarded, where that is something else."""
        *before, self._end = fixed
        self._steps = tuple(zip(before, map(len, before), kinds, strict=True))
        self._by_trace = X_REQUEST_ID not in kinds
        self._edited = edited

    def fill(self, head: RequestHead, data: bytes) -> bytes | None:
        """What may be forwarded when `data` is one such request, whole; `head` is brought up to it.

        None when it is not, and then `head` is as it was.
        """
        at = length = 0
        id = b""
        edited = self._edited
        values: list[bytes] = []
        for fixed, size, kind in self._steps:
            if not data.startswith(fixed, at):
                return None
            at += size
            stop = data.find(b"\r\n", at)
            value = data[at:stop]
            if kind == LENGTH:
                if not value.isdigit() or len(value) > 15 or (value[0] == 48 and len(value) > 1):
                    return None
                length = int(value)
            elif kind == X_REQUEST_ID:
                if len(value) > 128 or not value.translate(AS_LETTERS).isalnum():
                    return None
                id = value
            else:
                traced = trace_id(value)
                if traced is None:
                    return None
                if self._by_trace:
                    id = traced
            if edited is not None:
                values.append(value)
            at = stop
        if not data.startswith(self._end, at) or at + len(self._end) + length != len(data):
            return None
        head.id = id
        head.size = -1  # its text is that of another request
        return data if edited is None else _joined(edited, values, data[at + len(self._end) :])


def _joined(edited: list[bytes], values: list[bytes], body: bytes) -> bytes:
    parts = [edited[0]]
    for value, part in zip(values, edited[1:], strict=True):
        parts += (value, part)
    parts.append(body)
    return b"".join(parts)


class Templates:
    """The kinds of heads that come again and again, found by looking at one now and then."""

    __slots__ = ("_made", "_strange", "_templates", "learn_every")

    def __init__(self, *, learn_every: int = 16) -> None:
        self.learn_every = learn_every  # heads that no template fits, times how many were made
        self._templates: list[Template] = []
        self._made = 0
        self._strange = 0

    def find(self, data: bytes, head: RequestHead, kind: Callable[[bytes], int]) -> Template | None:
        """A template for requests like `data`, which both readers have accepted as `head`."""
        for template in self._templates:
            if template.fill(head, data) is not None:
                return template
        self._strange += 1
        # Making one costs as much as reading several heads: the more, the more rarely.
        if self._strange < self.learn_every * min(self._made, 1_024):
            return None
        self._strange = 0
        self._made += 1
        made = make(data, head, kind)
        if made is None or made.fill(head, data) is None:
            return None
        self._templates.insert(0, made)
        del self._templates[_TEMPLATES_MAX:]
        return made


def make(data: bytes, head: RequestHead, kind: Callable[[bytes], int]) -> Template | None:
    """None where something in the head has to be read each time."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or end > _HEAD_BYTES_MAX or head.upgrade or head.chunked:
        return None
    holes = _holes(data[:end], kind)
    if holes is None:
        return None
    kinds = [found for found, _, _ in holes]
    edited = None
    if head.edited:
        edited = _edited(data, end, head, holes)
        if edited is None:
            return None
    return Template(_between(data, end, holes), kinds, edited=edited)


_Hole = tuple[int, int, int]  # kind of header, and where its value begins and ends


def _holes(head: bytes, kind: Callable[[bytes], int]) -> list[_Hole] | None:
    holes: list[_Hole] = []
    first, *lines = head.split(b"\r\n")
    at = len(first) + 2
    for line in lines:
        name = line.partition(b":")[0]
        found = kind(name)
        if found in _CHANGING:
            padded = name + b": "
            if not line.startswith(padded):
                return None
            if any(found == other for other, _, _ in holes):
                return None
            holes.append((found, at + len(padded), at + len(line)))
        elif found not in PLAIN_KINDS:
            return None
        at += len(line) + 2
    return holes


_CHANGING: Final = frozenset({LENGTH, X_REQUEST_ID, TRACEPARENT})


def _between(data: bytes, end: int, holes: list[_Hole]) -> list[bytes]:
    """What stands before, between and behind the holes, with the empty line that ends the head."""
    begins = [0, *(stop for _, _, stop in holes)]
    ends = [*(start for _, start, _ in holes), end + 4]
    return [data[start:stop] for start, stop in zip(begins, ends, strict=True)]


def _edited(data: bytes, end: int, head: RequestHead, holes: list[_Hole]) -> list[bytes] | None:
    """The same of the head as it is forwarded; None when a hole is edited away."""
    forwarded = edit_request(data, end, head) + b"\r\n\r\n"
    parts: list[bytes] = []
    at = 0
    for _, start, stop in holes:
        line_start = data.rfind(b"\r\n", 0, start)
        line = data[line_start:stop] + b"\r\n"
        found = forwarded.find(line, at)
        if found < 0 or forwarded.count(line) != 1:
            return None
        parts.append(forwarded[at : found + start - line_start])
        at = found + stop - line_start
    return [*parts, forwarded[at:]]
