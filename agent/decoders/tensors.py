"""Typed tensors by name, raw or as lists, laid out as rows of features and as outputs.

Shared by every protocol that speaks Open Inference datatypes (JSON, binary, gRPC). Do not loop
over the values of a numeric raw tensor in Python: `np.frombuffer` reads a thousand in the time
that a loop reads one, and `raw` is what large batches come as.
"""

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.decoders.answers import Entries
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason
from agent.decoders.opaque import binary_table
from agent.decoders.tabular import (
    Table,
    beside_each_other,
    part_names,
    require_cells,
    require_names,
    require_width,
    unique_names,
)
from agent.inference import Rows

RANK_MAX = 8
TENSORS_MAX = 5_000
# How raw values lie in memory. BF16 is the upper half of a float32; BYTES has lengths inside.
_RAW: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("u1"),
    "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
}  # fmt: skip
_NUMERIC = frozenset(_RAW) - {"BOOL"}
DATATYPES = frozenset(_RAW) | {"BYTES"}
# What a list may hold for each datatype; null is a missing value, whatever the protocol says.
_LISTED: Mapping[str, frozenset[type]] = {
    **dict.fromkeys(_NUMERIC, frozenset({int, float, type(None)})),
    "BOOL": frozenset({bool, int, float, type(None)}),
    "BYTES": frozenset({str, bytes, type(None)}),
}
_LENGTH = struct.Struct("<I")
_PACKED_MAX = 65_536  # values given to struct at once: it wants them as arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One named tensor. Its values are `raw` when that is not None, else `listed`, flat or nested.

    `shape` is what the sender says: nothing is believed of it before `require_shape`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    listed: Sequence[Any] = ()
    raw: bytes | memoryview | None = None

    @property
    def entries(self) -> int:
        """The length of the first dimension; a scalar tensor has one entry."""
        return self.shape[0] if self.shape else 1

    @property
    def width(self) -> int:
        return prod(self.shape[1:])


def tensor_values(datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> NDArray[Any]:
    """Raw little-endian row-major values as an array of this shape.

    Numbers keep their own dtype (FP16, FP32 and FP64 as they are, BF16 as float32), BOOL is
    bool, BYTES is an array of objects: str where the bytes are UTF-8, else bytes. Numeric
    arrays may be views of `raw`, and are read-only then.

    Raises:
        DecodeError: unsupported_datatype; wrong_type when shape and bytes do not fit each
            other; empty_batch for a shape without values.

    >>> tensor_values("INT16", [2, 1], b"\\x01\\x00\\xff\\xff").tolist()
    [[1], [-1]]
    >>> tensor_values("BYTES", [2], b"\\x02\\x00\\x00\\x00hi\\x00\\x00\\x00\\x00").tolist()
    ['hi', '']
    """
    if datatype not in DATATYPES:
        raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, f"{datatype!r:.40}")
    if len(shape) > RANK_MAX or any(length < 0 for length in shape):
        raise DecodeError(DecodeReason.WRONG_TYPE, "a shape is a short array of whole numbers")
    count = prod(shape)
    if count == 0:
        raise DecodeError(DecodeReason.EMPTY_BATCH, f"shape {list(shape)}")
    if datatype == "BYTES":
        texts = np.empty(count if count * _LENGTH.size <= len(raw) else 0, dtype=object)
        texts[:] = _elements(raw, count)
        return texts.reshape(tuple(shape))
    if count * _RAW[datatype].itemsize != len(raw):
        detail = f"{len(raw)} bytes for {datatype} of shape {list(shape)}"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    values = np.frombuffer(raw, dtype=_RAW[datatype]).reshape(tuple(shape))
    if datatype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.bool_) if datatype == "BOOL" else values


def _elements(raw: bytes | memoryview, count: int) -> list[str | bytes]:
    """BYTES values, each after its length in four bytes."""
    elements: list[str | bytes] = []
    place = 0
    while place < len(raw) and len(elements) < count:
        if place + _LENGTH.size > len(raw):
            break
        (length,) = _LENGTH.unpack_from(raw, place)
        start = place + _LENGTH.size
        place = start + length
        elements.append(_text(bytes(raw[start:place])))
    if len(elements) != count or place != len(raw):
        raise DecodeError(DecodeReason.WRONG_TYPE, f"BYTES of {count} values end elsewhere")
    return elements


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def require_shape(tensor: Tensor, limits: DecodeLimits) -> None:
    """A shape that is worth laying out: some values, and within the limits.

    Raises:
        DecodeError: empty_batch, too_many_rows, too_many_columns.
    """
    if tensor.entries == 0 or tensor.width == 0:
        raise DecodeError(DecodeReason.EMPTY_BATCH, f"shape {list(tensor.shape)}")
    if tensor.entries > limits.rows_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{tensor.entries} > {limits.rows_max}")
    require_width(tensor.width, limits)
    require_cells(tensor.entries, tensor.width, limits)


def _listed(tensor: Tensor) -> list[Any]:
    """The n x width values of a listed tensor, flat, in row-major order.

    Raises:
        DecodeError: wrong_type for values that its datatype or shape cannot have, ragged_rows.
    """
    values: Sequence[Any] = tensor.listed
    for _ in range(RANK_MAX):
        kinds = _kinds(values)
        if list not in kinds:
            break
        if kinds != {list} or len(set(map(len, values))) > 1:
            raise DecodeError(DecodeReason.RAGGED_ROWS, f"{tensor.name!r:.40} is not rectangular")
        values = list(chain.from_iterable(values))
    if len(values) != tensor.entries * tensor.width:
        detail = f"{len(values)} values for shape {list(tensor.shape)}"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    if not kinds <= _LISTED[tensor.datatype]:
        detail = f"{tensor.name!r:.40} is no {tensor.datatype}"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    if tensor.datatype == "BOOL":
        return [None if value is None else bool(value) for value in values]
    if tensor.datatype == "BYTES" and bytes in kinds:
        return [_text(value) if isinstance(value, bytes) else value for value in values]
    return values if isinstance(values, list) else list(values)


def _values(tensor: Tensor, limits: DecodeLimits) -> list[Any]:
    require_shape(tensor, limits)
    if tensor.raw is None:
        return _listed(tensor)
    values: list[Any] = tensor_values(tensor.datatype, tensor.shape, tensor.raw).ravel().tolist()
    return values


def _cells(tensor: Tensor, limits: DecodeLimits) -> Rows:
    """An input's values as n x width cells, a float64 matrix for numbers."""
    require_shape(tensor, limits)
    if tensor.datatype not in _NUMERIC:
        return _cut(_values(tensor, limits), tensor.width)
    if tensor.raw is None:
        numbers = _numbers(_listed(tensor))
    else:
        values = tensor_values(tensor.datatype, tensor.shape, tensor.raw)
        numbers = np.array(values, dtype=np.float64)
    return numbers.reshape(tensor.entries, tensor.width)


def _kinds(values: Sequence[Any]) -> set[type]:
    """The types among values; found in half the time where all are floats, as they mostly are."""
    types = list(map(type, values))
    return {float} if types and types.count(float) == len(types) else set(types)


def _numbers(values: list[Any]) -> NDArray[np.float64]:
    """Numbers and None as float64; by way of struct in a third of numpy's time."""
    if len(values) <= _PACKED_MAX:
        with suppress(struct.error):  # a None among them
            return np.frombuffer(bytearray(struct.pack(f"{len(values)}d", *values)))
    return np.array(values, dtype=np.float64)


def _cut(values: list[Any], width: int) -> list[Any]:
    return [values[start : start + width] for start in range(0, len(values), width)]


def tensor_table(tensors: Sequence[Tensor], limits: DecodeLimits) -> Table:
    """Input tensors as rows.

    One input `[n, d]` is d positional features, because what clients call it (`input-0`,
    `predict`) says nothing about its columns. Of several inputs, `[n]` and `[n, 1]` are a
    feature of that name each, and `[n, d]` is `name_0` to `name_<d-1>`. Values of BYTES that
    are no text are described: `name.bytes`, of images `name.width` and more.

    Raises:
        DecodeError: what `tensor_values` and `require_shape` say; ragged_rows, rows_mismatch.
    """
    _require_few(tensors, limits)
    if len(tensors) == 1 and len(tensors[0].shape) > 1 and tensors[0].width > 1:
        cells: Rows = _cells(tensors[0], limits)
        if not _is_binary(cells):
            return None, cells
    names: list[str] = []
    parts: list[Rows] = []
    for tensor in tensors:
        require_width(len(names) + tensor.width, limits)
        cells = _cells(tensor, limits)
        named: Sequence[str] = part_names(tensor.name, tensor.width)
        if _is_binary(cells):
            named, cells = _described(tensor, cells)
        names += named
        parts.append(cells)
    require_names(names, len(parts[0]), limits)
    return unique_names(names), beside_each_other(parts)


def _is_binary(cells: Rows) -> bool:
    return not isinstance(cells, np.ndarray) and bytes in set(map(type, chain.from_iterable(cells)))


def _described(tensor: Tensor, cells: Rows) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Descriptors of all of a tensor's values when some are no text: its columns stay of one
    kind."""
    names: list[str] = []
    parts: list[NDArray[np.float64]] = []
    values: list[list[Any]] = [list(column) for column in zip(*cells, strict=True)]
    for name, column in zip(part_names(tensor.name, tensor.width), values, strict=True):
        binary = [value.encode() if isinstance(value, str) else value for value in column]
        described, part = binary_table(name, binary)
        names += described
        parts.append(part)
    return tuple(names), np.hstack(parts)


def tensor_outputs(
    tensors: Sequence[Tensor], rows: int, limits: DecodeLimits
) -> dict[str, Entries]:
    """The outputs that have an entry for each row; those whose values are no text are left out.

    Raises:
        DecodeError: rows_mismatch when none has; else as `tensor_table`.
    """
    _require_few(tensors, limits)
    matching = [tensor for tensor in tensors if tensor.entries == rows]
    if not matching:
        found = [list(tensor.shape) for tensor in tensors[:3]]
        raise DecodeError(DecodeReason.ROWS_MISMATCH, f"outputs {found} for {rows} rows")
    outputs: dict[str, Entries] = {}
    for tensor in matching:
        values = _values(tensor, limits)
        if tensor.datatype == "BYTES" and bytes in set(map(type, values)):
            continue
        outputs[tensor.name] = values if tensor.width == 1 else _cut(values, tensor.width)
    return outputs


def _require_few(tensors: Sequence[Tensor], limits: DecodeLimits) -> None:
    if not tensors:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "no tensors")
    if len(tensors) > min(TENSORS_MAX, limits.columns_max):
        raise DecodeError(DecodeReason.TOO_MANY_COLUMNS, f"{len(tensors)} tensors")
    require_names([tensor.name for tensor in tensors], 1, limits)
    for tensor in tensors:
        if tensor.datatype not in DATATYPES:
            raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, f"{tensor.datatype!r:.40}")
        if len(tensor.shape) > RANK_MAX or any(length < 0 for length in tensor.shape):
            raise DecodeError(DecodeReason.WRONG_TYPE, "a shape is a short array of whole numbers")
