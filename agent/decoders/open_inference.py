"""The Open Inference protocol (V2) over HTTP: MLServer, KServe, Triton and others.

`POST /v2/models/<name>/infer` with tensors by name in `inputs` and `outputs`, as JSON or by the
binary tensor extension: JSON first, then the raw bytes of the tensors that carry
`binary_data_size`, in order. Do not rely on absent keys, nor on a content type: KServe sends
null where MLServer sends nothing, and answers binary tensors without any type at all.
"""

import re
from collections.abc import Mapping
from typing import Any

from agent.decoders.body import (
    BINARY_TENSORS_HEADER,
    concluded,
    parsed,
    require_answered,
    unpacked,
)
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.opaque import binary_table
from agent.decoders.tabular import Table, require_names
from agent.decoders.tensors import (
    DATATYPES,
    RANK_MAX,
    TENSORS_MAX,
    Tensor,
    tensor_outputs,
    tensor_table,
)
from agent.exchange import Exchange
from agent.inference import Inference

_PATH = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer/?$")
_LOOK_BYTES = 512
_LENGTH_DIGITS_MAX = 12


class OpenInference:
    """Columns and names are laid out as `tensor_table` says, however the tensors came."""

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
        if _json_length(exchange.request_headers) == 0:
            asked: dict[str, Any] = {}
            names, rows = _raw_body(exchange, self._limits)
        else:
            asked, inputs = _message(
                exchange.request_body, exchange.request_headers, "inputs", self._limits
            )
            names, rows = tensor_table(inputs, self._limits)
        said, outputs = _message(
            exchange.response_body, exchange.response_headers, "outputs", self._limits
        )
        return concluded(
            exchange,
            names=names,
            rows=rows,
            outputs=tensor_outputs(outputs, len(rows), self._limits),
            body_ids=(asked.get("id"), said.get("id")),
        )


def _json_length(headers: Mapping[str, str]) -> int | None:
    """How long the JSON is that comes before raw tensors; None where there are none.

    Raises:
        DecodeError: wrong_type when it is no number.
    """
    text = headers.get(BINARY_TENSORS_HEADER)
    if text is None:
        return None
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _LENGTH_DIGITS_MAX):
        raise DecodeError(DecodeReason.WRONG_TYPE, f"{BINARY_TENSORS_HEADER} {text[:20]!r}")
    return int(text)


def _raw_body(exchange: Exchange, limits: DecodeLimits) -> Table:
    """A length of zero says that the whole body is the only tensor of a batch of one.

    Its name, type and shape are known to the server alone, so it is described from outside.
    """
    if not exchange.request_body:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "a raw tensor without a byte")
    names, rows = binary_table("body", [exchange.request_body])
    require_names(names, 1, limits)
    return names, rows


def _message(
    body: bytes, headers: Mapping[str, str], member: str, limits: DecodeLimits
) -> tuple[dict[str, Any], list[Tensor]]:
    """One side of the exchange: its JSON, and its tensors with their raw bytes handed out."""
    body = unpacked(body, headers, limits)
    length = _json_length(headers)
    if length is not None and length > len(body):
        detail = f"{length} bytes of JSON in a body of {len(body)}"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    message = parsed(body if length is None else body[:length], limits)
    if not isinstance(message, dict) or not isinstance(message.get(member), list):
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, f"no array of {member}")
    found = message[member]
    if len(found) > min(TENSORS_MAX, limits.columns_max):
        raise DecodeError(DecodeReason.TOO_MANY_COLUMNS, f"{len(found)} {member}")
    rest = memoryview(b"" if length is None else body)[length or 0 :]
    tensors: list[Tensor] = []
    for entry in found:
        tensor = _tensor(entry, rest if length is not None else None)
        if tensor.raw is not None:
            rest = rest[len(tensor.raw) :]
        tensors.append(tensor)
    if len(rest):
        detail = f"{len(rest)} bytes after the last tensor"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    return message, tensors


def _tensor(entry: Any, rest: memoryview | None) -> Tensor:
    """A tensor; `rest` holds the raw bytes of this one and those after it, if there are any."""
    if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
        raise DecodeError(DecodeReason.WRONG_TYPE, "a tensor without a name")
    datatype = entry.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, f"{datatype!r:.40}")
    shape = _shape(entry)
    parameters = entry.get("parameters")
    if isinstance(parameters, dict):
        if "shared_memory_region" in parameters:
            raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "a tensor in shared memory")
        if "binary_data_size" in parameters:
            raw = _raw(parameters["binary_data_size"], rest)
            return Tensor(name=name, datatype=datatype, shape=shape, raw=raw)
    data = entry.get("data")
    listed = data if isinstance(data, list) else [data]  # no list: a scalar tensor
    return Tensor(name=name, datatype=datatype, shape=shape, listed=listed)


def _raw(size: Any, rest: memoryview | None) -> memoryview:
    if rest is None:
        detail = f"tensors in binary form without {BINARY_TENSORS_HEADER}"
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, detail)
    if type(size) is not int or not 0 <= size <= len(rest):
        detail = f"binary_data_size {size!r:.20} with {len(rest)} bytes left"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    return rest[:size]


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    shape = entry.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) > RANK_MAX
        or not all(type(length) is int and length >= 0 for length in shape)
    ):
        raise DecodeError(DecodeReason.WRONG_TYPE, "a shape is a short array of whole numbers")
    return tuple(shape)
