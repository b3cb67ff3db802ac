"""TensorFlow Serving over gRPC: `tensorflow.serving.PredictionService/Predict`.

Inputs and outputs are maps of name to `TensorProto`, whose values stand in `tensor_content` as
they lie in memory, or in the list of their type. Do not expect as many values as the shape has
places: a list that is shorter goes on with its last value, and an empty one is all zeros.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.decoders.body import concluded
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.grpc_open_inference import require_call, shape_of
from agent.decoders.protobuf import DOUBLE, FLOAT, Fields, Reader, floats, integer, integers, many
from agent.decoders.tensors import Tensor, tensor_outputs, tensor_table
from agent.exchange import Exchange
from agent.inference import Inference

_SERVICE: Final = "/tensorflow.serving.PredictionService/"
_METHOD: Final = _SERVICE + "Predict"
_INPUTS: Final = 2  # of PredictRequest
_OUTPUTS: Final = 1  # of PredictResponse
# Of TensorProto.
_DTYPE, _SHAPE, _CONTENT = 1, 2, 4
_FLOAT_VAL, _DOUBLE_VAL, _INT_VAL, _STRING_VAL = 5, 6, 7, 8
_INT64_VAL, _BOOL_VAL, _HALF_VAL, _UINT32_VAL, _UINT64_VAL = 10, 11, 13, 16, 17
# Of TensorShapeProto, and of its dimensions.
_DIM, _UNKNOWN_RANK, _SIZE = 2, 3, 1
_STRING: Final = 7
# TensorFlow's number of a type: our name, the list it stands in, how raw values of it lie.
_TYPES: Final[Mapping[int, tuple[str, int, str]]] = {
    1: ("FP32", _FLOAT_VAL, "<f4"),
    2: ("FP64", _DOUBLE_VAL, "<f8"),
    3: ("INT32", _INT_VAL, "<i4"),
    4: ("UINT8", _INT_VAL, "u1"),
    5: ("INT16", _INT_VAL, "<i2"),
    6: ("INT8", _INT_VAL, "i1"),
    _STRING: ("BYTES", _STRING_VAL, ""),
    9: ("INT64", _INT64_VAL, "<i8"),
    10: ("BOOL", _BOOL_VAL, "u1"),
    14: ("BF16", _HALF_VAL, "<u2"),
    17: ("UINT16", _INT_VAL, "<u2"),
    19: ("FP16", _HALF_VAL, "<u2"),
    22: ("UINT32", _UINT32_VAL, "<u4"),
    23: ("UINT64", _UINT64_VAL, "<u8"),
}


class GrpcTfServing:
    """Rows are positional where there is one input of several columns, else inputs name them. A
    scalar among inputs holds for every row (a keep probability, say).
    """

    name = "tf_serving_grpc"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits

    def matches(self, exchange: Exchange) -> bool:
        return exchange.path.startswith(_SERVICE)

    def decode(self, exchange: Exchange) -> Inference:
        require_call(exchange, _METHOD, self._limits)
        inputs = _tensors(exchange.request_body, _INPUTS, self._limits)
        names, rows = tensor_table(_spread(inputs, self._limits), self._limits)
        outputs = _tensors(exchange.response_body, _OUTPUTS, self._limits)
        return concluded(
            exchange,
            names=names,
            rows=rows,
            outputs=tensor_outputs(outputs, len(rows), self._limits),
        )


def _tensors(body: bytes, number: int, limits: DecodeLimits) -> list[Tensor]:
    """In the order of their names: that of a map on the wire differs from call to call."""
    reader = Reader()
    entries = reader.entries(reader.fields(body), number)
    if not entries:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "no tensors")
    return [_tensor(name, reader, reader.fields(entries[name]), limits) for name in sorted(entries)]


def _tensor(name: str, reader: Reader, fields: Fields, limits: DecodeLimits) -> Tensor:
    type_number = integer(fields, _DTYPE)
    if type_number not in _TYPES:
        raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, f"type {type_number} of TensorFlow")
    datatype, place, dtype = _TYPES[type_number]
    shape = _shape(reader, fields)
    content = many(fields, _CONTENT)
    if content and len(content[-1]):
        return Tensor(name=name, datatype=datatype, shape=shape, raw=content[-1])
    count = prod(shape)
    if count > limits.cells_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"over {limits.cells_max} cells")
    if type_number == _STRING:
        strings = [bytes(part) for part in many(fields, _STRING_VAL)]
        missing = [strings[-1] if strings else b""] * (count - len(strings))
        return Tensor(name=name, datatype=datatype, shape=shape, listed=strings + missing)
    values: NDArray[Any]
    if place in (_FLOAT_VAL, _DOUBLE_VAL):
        values = floats(fields, place, FLOAT if place == _FLOAT_VAL else DOUBLE)
    else:
        values = integers(fields, place).astype(dtype)
    if not len(values):
        values = np.zeros(count, dtype=dtype)
    elif len(values) < count:
        values = np.concatenate([values, np.repeat(values[-1:], count - len(values))])
    return Tensor(name=name, datatype=datatype, shape=shape, raw=values.tobytes())


def _shape(reader: Reader, fields: Fields) -> tuple[int, ...]:
    shape = reader.message(fields, _SHAPE)
    if integer(shape, _UNKNOWN_RANK):
        raise DecodeError(DecodeReason.WRONG_TYPE, "a tensor without a rank")
    return shape_of([integer(reader.fields(dim), _SIZE) for dim in many(shape, _DIM)])


def _spread(tensors: list[Tensor], limits: DecodeLimits) -> list[Tensor]:
    rows = max(tensor.entries for tensor in tensors)
    if rows > limits.rows_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{rows} > {limits.rows_max}")
    return [
        tensor
        if tensor.shape or rows == 1
        else replace(
            tensor,
            shape=(rows,),
            listed=list(tensor.listed) * rows,
            raw=None if tensor.raw is None else bytes(tensor.raw) * rows,
        )
        for tensor in tensors
    ]
