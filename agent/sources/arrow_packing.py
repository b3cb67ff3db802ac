"""Whether an Arrow stream holds compressed buffers, told from its messages without reading them.

pyarrow unpacks a buffer to whatever size it claims: sixteen megabytes may claim a terabyte. The
claim stands inside the buffer, so a stream with any packed batch is to be refused as a whole. What
cannot be read here counts as packed: do not let doubt pass.
"""

import struct
from typing import Final

_CONTINUATION: Final = b"\xff\xff\xff\xff"
# Of the tables Message, RecordBatch and DictionaryBatch: places of the fields that are looked at.
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_COMPRESSION, _DATA = 3, 1


def is_packed(stream: bytes) -> bool:
    """Whether any batch of an encapsulated IPC stream is compressed, or cannot be read."""
    at = 0
    try:
        while at < len(stream):
            if stream.startswith(_CONTINUATION, at):
                at += 4  # streams from before 0.15 have no such mark
            (size,) = struct.unpack_from("<i", stream, at)
            at += 4
            if size == 0:
                return False  # the end of the stream
            if size < 0 or at + size > len(stream):
                return True
            packed, body = _message(stream[at : at + size])
            if packed or body < 0:
                return True
            at += size + body
    except (struct.error, IndexError):
        return True
    return False


def _message(metadata: bytes) -> tuple[bool, int]:
    """Whether its batch is compressed, and how long its body is."""
    (root,) = struct.unpack_from("<I", metadata, 0)
    body_at = _field(metadata, root, _BODY_LENGTH)
    body = struct.unpack_from("<q", metadata, body_at)[0] if body_at else 0
    kind_at = _field(metadata, root, _HEADER_TYPE)
    kind = metadata[kind_at] if kind_at else 0
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return False, body
    batch = _table(metadata, root, _HEADER)
    if kind == _DICTIONARY_BATCH and batch is not None:
        batch = _table(metadata, batch, _DATA)
    if batch is None:
        return True, body
    return bool(_field(metadata, batch, _COMPRESSION)), body


def _table(data: bytes, table: int, field: int) -> int | None:
    """Where the table stands that a field points to."""
    at = _field(data, table, field)
    if not at:
        return None
    (offset,) = struct.unpack_from("<I", data, at)
    return int(at + offset)


def _field(data: bytes, table: int, field: int) -> int:
    """Where a field of a flatbuffer's table stands; 0 when it is not there."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    if vtable < 0:
        raise IndexError("a table before the beginning")
    (size,) = struct.unpack_from("<H", data, vtable)
    place = 4 + 2 * field
    if place + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + place)
    return int(table + offset) if offset else 0
