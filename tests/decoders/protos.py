"""Google's own protobuf, with the messages of three servers described in Python: what our reader is
held against, and what makes the bodies of tests. Nothing here is used outside of tests."""

from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TYPES = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9,
    "bytes": 12, "uint32": 13, "enum": 5,
}  # fmt: skip

# message -> its fields as "name number type"; "*" before the type repeats it, "%" makes a map of
# strings to it. Types that are no scalars are messages of the same package.
_MESSAGES: dict[str, dict[str, str]] = {
    "inference": {
        "InferParameter": "bool_param 1 bool, int64_param 2 int64, string_param 3 string",
        "Contents": "bool_contents 1 *bool, int_contents 2 *int32, int64_contents 3 *int64, "
        "uint_contents 4 *uint32, uint64_contents 5 *uint64, fp32_contents 6 *float, "
        "fp64_contents 7 *double, bytes_contents 8 *bytes",
        "Tensor": "name 1 string, datatype 2 string, shape 3 *int64, parameters 4 %InferParameter, "
        "contents 5 Contents",
        "Requested": "name 1 string",
        "ModelInferRequest": "model_name 1 string, model_version 2 string, id 3 string, "
        "parameters 4 %InferParameter, inputs 5 *Tensor, outputs 6 *Requested, "
        "raw_input_contents 7 *bytes",
        "ModelInferResponse": "model_name 1 string, model_version 2 string, id 3 string, "
        "parameters 4 %InferParameter, outputs 5 *Tensor, raw_output_contents 6 *bytes",
    },
    "tensorflow": {
        "Dim": "size 1 int64, name 2 string",
        "Shape": "dim 2 *Dim, unknown_rank 3 bool",
        "TensorProto": "dtype 1 enum, tensor_shape 2 Shape, version_number 3 int32, "
        "tensor_content 4 bytes, float_val 5 *float, double_val 6 *double, int_val 7 *int32, "
        "string_val 8 *bytes, int64_val 10 *int64, bool_val 11 *bool, half_val 13 *int32, "
        "uint32_val 16 *uint32, uint64_val 17 *uint64",
        "ModelSpec": "name 1 string, signature_name 3 string",
        "PredictRequest": "model_spec 1 ModelSpec, inputs 2 %TensorProto",
        "PredictResponse": "outputs 1 %TensorProto, model_spec 2 ModelSpec",
    },
    "pytorch": {
        "PredictionsRequest": "model_name 1 string, model_version 2 string, input 3 %bytes",
        "PredictionResponse": "prediction 1 bytes",
    },
}


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for package, messages in _MESSAGES.items():
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto", package=package, syntax="proto3"
        )
        for name, fields in messages.items():
            message = file.message_type.add(name=name)
            for field in fields.split(", "):
                _add_field(message, package, *field.split())
        pool.Add(file)
    return pool


def _add_field(message: Any, package: str, name: str, number: str, kind: str) -> None:
    field = message.field.add(name=name, number=int(number), label=1 + 2 * (kind[0] in "*%"))
    if kind[0] == "%":
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=9, label=1)
        _typed(entry.field.add(name="value", number=2, label=1), package, kind[1:])
        field.type = 11
        field.type_name = f".{package}.{message.name}.{entry.name}"
    else:
        _typed(field, package, kind.lstrip("*"))


def _typed(field: Any, package: str, kind: str) -> None:
    field.type = _TYPES.get(kind, 11)
    if kind not in _TYPES:
        field.type_name = f".{package}.{kind}"


_POOL = _pool()


def proto(full_name: str, /, **fields: Any) -> Any:
    """A message by its full name: `proto("inference.ModelInferRequest", id="a")`."""
    made: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full_name))
    return made(**fields)


def infer_tensor(name: str, datatype: str, shape: Sequence[int], **contents: Any) -> Any:
    tensor = proto("inference.Tensor", name=name, datatype=datatype, shape=list(shape))
    if contents:
        tensor.contents.CopyFrom(proto("inference.Contents", **contents))
    return tensor


def tf_tensor(dtype: int, shape: Sequence[int], **values: Any) -> Any:
    dims = [proto("tensorflow.Dim", size=size) for size in shape]
    return proto(
        "tensorflow.TensorProto",
        dtype=dtype,
        tensor_shape=proto("tensorflow.Shape", dim=dims),
        **values,
    )
