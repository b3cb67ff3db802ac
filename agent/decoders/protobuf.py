"""A small strict reader of protobuf's wire format: fields by number, for the few messages we know.

Not Google's `protobuf` package, on purpose. It would add 2.7 MB and a C extension whose version
must suit whatever else is in the environment (servers pin it), it reads a message of strangers
whole into objects before anybody may say that it is too much, and it gives repeated numbers one by
one where they lie in memory as numpy wants them. What is needed here is a dozen fields, all of
whose numbers have been fixed for years. The tests hold it against that package.

What must not break: nothing but `DecodeError` is raised, and a message of millions of tiny fields
is refused before it costs more than a fraction of a second.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.decoders.decoder import DecodeError, DecodeReason

Fields: TypeAlias = Mapping[int, list[tuple[int, int | memoryview]]]  # wire type and value

VARINT, FIXED64, BYTES, _GROUP, _GROUP_END, FIXED32 = range(6)
FIELDS_MAX: Final = 500_000  # of one message with all that is inside it
_VARINT_BYTES_MAX: Final = 10
# How packed numbers lie in memory.
FLOAT: Final[np.dtype[Any]] = np.dtype("<f4")
DOUBLE: Final[np.dtype[Any]] = np.dtype("<f8")


class Reader:
    """Reads messages, and the messages inside them, out of one budget of fields."""

    def __init__(self, *, fields_max: int = FIELDS_MAX) -> None:
        self._fields_left = fields_max

    def fields(self, data: bytes | memoryview) -> Fields:
        """Every field by its number, in order, unknown ones too.

        Raises:
            DecodeError: not_protobuf; too_many_rows when the budget is spent.

        >>> Reader().fields(bytes.fromhex("08960112026869"))[1]
        [(0, 150)]
        """
        view = memoryview(data)
        size = len(view)
        found: dict[int, list[tuple[int, int | memoryview]]] = {}
        at = 0
        while at < size:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise DecodeError(DecodeReason.TOO_MANY_ROWS, "too many fields in one message")
            tag, at = _varint(view, at)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise _broken("a field without a number")
            value: int | memoryview
            if wire == VARINT:
                value, at = _varint(view, at)
            elif wire == BYTES:
                length, start = _varint(view, at)
                at = start + length
                value = view[start:at]
            elif wire == FIXED64:
                value, at = _fixed(view, at, 8)
            elif wire == FIXED32:
                value, at = _fixed(view, at, 4)
            else:
                raise _broken(f"wire type {wire}")
            if at > size:
                raise _broken("a field is longer than its message")
            found.setdefault(number, []).append((wire, value))
        return found

    def message(self, fields: Fields, number: int) -> Fields:
        """A message inside; of several all together, as the format defines it."""
        parts = many(fields, number)
        return self.fields(parts[0] if len(parts) == 1 else b"".join(parts))

    def entries(self, fields: Fields, number: int) -> dict[str, memoryview | bytes]:
        """A map with strings as keys; of a key that comes twice the last value holds."""
        found: dict[str, memoryview | bytes] = {}
        for part in many(fields, number):
            entry = self.fields(part)
            values = many(entry, 2)
            found[text(entry, 1)] = values[-1] if values else b""
        return found


def many(fields: Fields, number: int) -> list[memoryview]:
    """Strings of bytes, or messages not read yet. Raises DecodeError (not_protobuf)."""
    found = []
    for wire, value in fields.get(number, ()):
        if wire != BYTES or isinstance(value, int):
            raise _broken(f"field {number} is no string")
        found.append(value)
    return found


def text(fields: Fields, number: int) -> str:
    """Empty when it is not there. Raises DecodeError (not_protobuf)."""
    found = many(fields, number)
    if not found:
        return ""
    try:
        return bytes(found[-1]).decode()
    except UnicodeDecodeError:
        raise _broken(f"field {number} is no UTF-8") from None


def integer(fields: Fields, number: int) -> int:
    """A signed number, 0 when it is not there. Raises DecodeError (not_protobuf)."""
    found = integers(fields, number)
    return int(found[-1]) if len(found) else 0


def integers(fields: Fields, number: int) -> NDArray[np.int64]:
    """Repeated whole numbers, packed or not; the unsigned ones are to be viewed as such.

    >>> integers(Reader().fields(bytes.fromhex("0a0401029608")), 1).tolist()
    [1, 2, 1046]
    """
    parts: list[NDArray[np.uint64]] = []
    for wire, value in fields.get(number, ()):
        if wire == BYTES and not isinstance(value, int):
            parts.append(_packed_varints(value))
        elif wire == VARINT and isinstance(value, int):
            parts.append(np.array([value], dtype=np.uint64))
        else:
            raise _broken(f"field {number} is no whole number")
    joined = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint64), *parts])
    return joined.view(np.int64)


def floats(fields: Fields, number: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Repeated numbers of four or eight bytes, `FLOAT` or `DOUBLE`, packed or not."""
    parts: list[bytes | memoryview] = []
    fixed = FIXED32 if dtype.itemsize == 4 else FIXED64
    for wire, value in fields.get(number, ()):
        if wire == BYTES and not isinstance(value, int) and len(value) % dtype.itemsize == 0:
            parts.append(value)
        elif wire == fixed and isinstance(value, int):
            parts.append(value.to_bytes(dtype.itemsize, "little"))
        else:
            raise _broken(f"field {number} is no number of {dtype.itemsize} bytes")
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), dtype=dtype)


def _packed_varints(data: memoryview) -> NDArray[np.uint64]:
    raw = np.frombuffer(data, dtype=np.uint8)
    if not len(raw):
        return np.empty(0, np.uint64)
    ends = np.flatnonzero(raw < 0x80)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise _broken("packed numbers end inside of one")
    if len(ends) == len(raw):
        return raw.astype(np.uint64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths.max()) > _VARINT_BYTES_MAX:
        raise _broken("a number without end")
    places = np.arange(len(raw)) - np.repeat(starts, lengths)
    # What is shifted out beyond 64 bits is cut off, as protobuf does it.
    bits = (raw & 0x7F).astype(np.uint64) << (np.minimum(places, 9) * 7).astype(np.uint64)
    found: NDArray[np.uint64] = np.bitwise_or.reduceat(bits, starts)
    return found


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(at, min(at + _VARINT_BYTES_MAX, len(view))):
        byte = view[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place + 1
        shift += 7
    raise _broken("a number without end")


def _fixed(view: memoryview, at: int, size: int) -> tuple[int, int]:
    return int.from_bytes(view[at : at + size], "little"), at + size


def _broken(detail: str) -> DecodeError:
    return DecodeError(DecodeReason.NOT_PROTOBUF, detail)
