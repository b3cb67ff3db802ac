"""The Open Inference protocol (V2) over HTTP with JSON: MLServer, KServe, Triton and others.

`POST /v2/models/<name>/infer` with tensors by name in `inputs` and `outputs`. Do not rely on
absent keys: KServe sends null where MLServer sends nothing. Tensors in binary form (Triton's
extension) are counted as unsupported_encoding.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from agent.decoders.answers import Entries, entries_of
from agent.decoders.body import concluded, request_json, require_answered, response_json
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.tabular import (
    beside_each_other,
    part_names,
    require_names,
    require_width,
    unique_names,
)
from agent.exchange import Exchange
from agent.inference import Inference, Rows

_PATH = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer/?$")
_LOOK_BYTES = 512
_RANK_MAX = 8
_TENSORS_MAX = 5_000
_NUMERIC = frozenset(
    {
        "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
        "FP16", "FP32", "FP64", "BF16",
    }
)  # fmt: skip
# What JSON may hold for each datatype; null is a missing value, whatever the protocol says.
_TYPES: Mapping[str, frozenset[type]] = {
    **dict.fromkeys(_NUMERIC, frozenset({int, float, type(None)})),
    "BOOL": frozenset({bool, int, float, type(None)}),
    "BYTES": frozenset({str, type(None)}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    """One named tensor: `data` is a list, flat or nested; `shape` is what the sender says."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]

    @property
    def entries(self) -> int:
        """The length of the first dimension; a scalar tensor has one entry."""
        return self.shape[0] if self.shape else 1

    @property
    def width(self) -> int:
        return prod(self.shape[1:])


class OpenInference:
    """One input `[n, d]` is d positional features, because what clients call it (`input-0`,
    `predict`) says nothing about its columns. Of several inputs, `[n]` and `[n, 1]` are a
    feature of that name each, and `[n, d]` is `name_0` to `name_<d-1>`.
    """

    name = "open_inference"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits

    def matches(self, exchange: Exchange) -> bool:
        if _PATH.search(exchange.path):
            return True
        asked = exchange.request_body[:_LOOK_BYTES]
        return b'"inputs"' in asked and b'"datatype"' in asked and b'"shape"' in asked

    def decode(self, exchange: Exchange) -> Inference:
        require_answered(exchange)
        asked = request_json(exchange, self._limits)
        names, rows = _table(_tensors(asked, "inputs", self._limits), self._limits)
        said = response_json(exchange, self._limits)
        outputs = _outputs(_tensors(said, "outputs", self._limits), len(rows), self._limits)
        return concluded(
            exchange,
            names=names,
            rows=rows,
            outputs=outputs,
            body_ids=(asked.get("id"), said.get("id")),
        )


def _tensors(body: Any, member: str, limits: DecodeLimits) -> list[_Tensor]:
    if not isinstance(body, dict) or not isinstance(body.get(member), list):
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, f"no array of {member}")
    found = body[member]
    if not found:
        raise DecodeError(DecodeReason.EMPTY_BATCH, f"{member} is empty")
    if len(found) > min(_TENSORS_MAX, limits.columns_max):
        raise DecodeError(DecodeReason.TOO_MANY_COLUMNS, f"{len(found)} {member}")
    tensors = [_tensor(entry) for entry in found]
    require_names([tensor.name for tensor in tensors], 1, limits)
    return tensors


def _tensor(entry: Any) -> _Tensor:
    if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
        raise DecodeError(DecodeReason.WRONG_TYPE, "a tensor without a name")
    datatype = entry.get("datatype")
    if not isinstance(datatype, str) or datatype not in _TYPES:
        raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, f"{datatype!r:.40}")
    parameters = entry.get("parameters")
    if isinstance(parameters, dict) and "binary_data_size" in parameters:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "tensors in binary form")
    data = entry.get("data")
    if not isinstance(data, list):
        data = [data]  # a scalar tensor
    return _Tensor(name=name, datatype=datatype, shape=_shape(entry), data=data)


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    shape = entry.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > _RANK_MAX
        or not all(type(length) is int and length >= 0 for length in shape)
    ):
        raise DecodeError(DecodeReason.WRONG_TYPE, "a shape is a short array of whole numbers")
    return tuple(shape)


def _values(tensor: _Tensor, limits: DecodeLimits) -> list[Any]:
    """The tensor's n x width values in row-major order, as they came.

    Raises:
        DecodeError: wrong_type for values that its datatype or shape cannot have, ragged_rows,
            and the limits' reasons.
    """
    if tensor.entries == 0 or tensor.width == 0:
        raise DecodeError(DecodeReason.EMPTY_BATCH, f"shape {list(tensor.shape)}")
    if tensor.entries > limits.rows_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{tensor.entries} > {limits.rows_max}")
    require_width(tensor.width, limits)
    values = tensor.data
    for _ in range(_RANK_MAX):
        kinds = set(map(type, values))
        if list not in kinds:
            break
        if kinds != {list} or len(set(map(len, values))) > 1:
            raise DecodeError(DecodeReason.RAGGED_ROWS, f"{tensor.name!r:.40} is not rectangular")
        values = list(chain.from_iterable(values))
    if len(values) != tensor.entries * tensor.width:
        detail = f"{len(values)} values for shape {list(tensor.shape)}"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    if not kinds <= _TYPES[tensor.datatype]:
        detail = f"{tensor.name!r:.40} is no {tensor.datatype}"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    if tensor.datatype == "BOOL":
        return [None if value is None else bool(value) for value in values]
    return values


def _cells(tensor: _Tensor, limits: DecodeLimits) -> Rows:
    """An input's values as n x width cells. Raises `DecodeError` as `_values` does."""
    values = _values(tensor, limits)
    if tensor.datatype in _NUMERIC:
        return np.array(values, dtype=np.float64).reshape(tensor.entries, tensor.width)
    return _cut(values, tensor.width)


def _cut(values: list[Any], width: int) -> list[Any]:
    return [values[start : start + width] for start in range(0, len(values), width)]


def _table(tensors: Sequence[_Tensor], limits: DecodeLimits) -> tuple[tuple[str, ...] | None, Rows]:
    if len(tensors) == 1 and len(tensors[0].shape) > 1 and tensors[0].width > 1:
        return None, _cells(tensors[0], limits)
    names: list[str] = []
    parts: list[Rows] = []
    for tensor in tensors:
        names += part_names(tensor.name, tensor.width)
        require_width(len(names), limits)
        parts.append(_cells(tensor, limits))
    require_names(names, len(parts[0]), limits)
    return unique_names(names), beside_each_other(parts)


def _outputs(tensors: Sequence[_Tensor], rows: int, limits: DecodeLimits) -> dict[str, Entries]:
    """The outputs that have an entry for each row.

    Raises:
        DecodeError: rows_mismatch when none has.
    """
    matching = [tensor for tensor in tensors if tensor.entries == rows]
    if not matching:
        found = [list(tensor.shape) for tensor in tensors[:3]]
        raise DecodeError(DecodeReason.ROWS_MISMATCH, f"outputs {found} for {rows} rows")
    outputs: dict[str, Entries] = {}
    for tensor in matching:
        entries = entries_of(_cut(_values(tensor, limits), tensor.width), limits)
        if entries is not None:
            outputs[tensor.name] = entries
    return outputs
