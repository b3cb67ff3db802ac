"""Open Inference (V2) over gRPC: `inference.GRPCInferenceService/ModelInfer`, as MLServer, KServe
and Triton serve it.

Tensors hold their values in `contents`, a list for each type, or all of them stand raw, in order,
in `raw_input_contents` and `raw_output_contents`; FP16 and BF16 only raw. Do not mix the two: a
server that is sent both refuses the call.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from agent.decoders.body import concluded, require_answered
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.protobuf import DOUBLE, FLOAT, Fields, Reader, floats, integers, many, text
from agent.decoders.tensors import RANK_MAX, Tensor, tensor_outputs, tensor_table
from agent.exchange import Exchange
from agent.inference import Inference

_SERVICE: Final = "/inference.GRPCInferenceService/"
_METHOD: Final = _SERVICE + "ModelInfer"
# Field numbers of ModelInferRequest and ModelInferResponse.
_ID: Final = 3
_INPUTS, _RAW_INPUTS = 5, 7
_OUTPUTS, _RAW_OUTPUTS = 5, 6
# Of a tensor in either.
_NAME, _DATATYPE, _SHAPE, _CONTENTS = 1, 2, 3, 5
# Of InferTensorContents, where each type has a list of its own; and how raw values of it lie.
_WHOLE: Final = {
    "BOOL": (1, "u1"),
    "INT8": (2, "i1"), "INT16": (2, "<i2"), "INT32": (2, "<i4"), "INT64": (3, "<i8"),
    "UINT8": (4, "u1"), "UINT16": (4, "<u2"), "UINT32": (4, "<u4"), "UINT64": (5, "<u8"),
}  # fmt: skip
_FLOATS: Final[Mapping[str, tuple[int, np.dtype[Any]]]] = {"FP32": (6, FLOAT), "FP64": (7, DOUBLE)}
_STRINGS: Final = 8


class GrpcOpenInference:
    """Columns and names are laid out as `tensor_table` says, just as over HTTP."""

    name = "open_inference_grpc"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits

    def matches(self, exchange: Exchange) -> bool:
        return exchange.path.startswith(_SERVICE)

    def decode(self, exchange: Exchange) -> Inference:
        require_call(exchange, _METHOD, self._limits)
        asked_by, said_by = Reader(), Reader()
        asked = asked_by.fields(exchange.request_body)
        inputs = _tensors(asked_by, asked, _INPUTS, _RAW_INPUTS)
        names, rows = tensor_table(inputs, self._limits)
        said = said_by.fields(exchange.response_body)
        outputs = _tensors(said_by, said, _OUTPUTS, _RAW_OUTPUTS)
        return concluded(
            exchange,
            names=names,
            rows=rows,
            outputs=tensor_outputs(outputs, len(rows), self._limits),
            body_ids=(text(asked, _ID), text(said, _ID)),
        )


def require_call(exchange: Exchange, method: str, limits: DecodeLimits) -> None:
    """Passes a call of that method with a good answer, both whole and not too long.

    Raises:
        DecodeError: as `require_answered`; not_an_inference for other methods, body_too_large.
    """
    if exchange.path != method:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, f"{exchange.path:.60} asks no model")
    require_answered(exchange)
    if max(len(exchange.request_body), len(exchange.response_body)) > limits.body_bytes_max:
        raise DecodeError(DecodeReason.BODY_TOO_LARGE, f"over {limits.body_bytes_max} bytes")


def _tensors(reader: Reader, message: Fields, number: int, raw_number: int) -> list[Tensor]:
    found = [reader.fields(part) for part in many(message, number)]
    raw: Sequence[memoryview | None] = many(message, raw_number)
    if raw and len(raw) != len(found):
        detail = f"{len(raw)} raw contents for {len(found)} tensors"
        raise DecodeError(DecodeReason.WRONG_TYPE, detail)
    if not found:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "no tensors")
    return [
        _tensor(reader, fields, given)
        for fields, given in zip(found, raw or [None] * len(found), strict=True)
    ]


def _tensor(reader: Reader, fields: Fields, raw: memoryview | None) -> Tensor:
    name, datatype = text(fields, _NAME), text(fields, _DATATYPE)
    shape = shape_of(integers(fields, _SHAPE).tolist())
    if raw is not None:
        return Tensor(name=name, datatype=datatype, shape=shape, raw=raw)
    contents = reader.message(fields, _CONTENTS)
    if datatype in _WHOLE:
        place, dtype = _WHOLE[datatype]
        values = integers(contents, place)
        return Tensor(name=name, datatype=datatype, shape=shape, raw=values.astype(dtype).tobytes())
    if datatype in _FLOATS:
        place, float_dtype = _FLOATS[datatype]
        raw_floats = floats(contents, place, float_dtype).tobytes()
        return Tensor(name=name, datatype=datatype, shape=shape, raw=raw_floats)
    if datatype == "BYTES":
        strings = [bytes(part) for part in many(contents, _STRINGS)]
        return Tensor(name=name, datatype=datatype, shape=shape, listed=strings)
    raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, f"{datatype!r:.40} in contents")


def shape_of(lengths: list[int]) -> tuple[int, ...]:
    """Raises DecodeError (wrong_type) for what can be no shape."""
    if len(lengths) > RANK_MAX or any(length < 0 for length in lengths):
        raise DecodeError(DecodeReason.WRONG_TYPE, "a shape is a short list of whole numbers")
    return tuple(lengths)
