import contextlib
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError as GoogleError
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.decoder import DecodeError, DecodeReason
from agent.decoders.protobuf import DOUBLE, FLOAT, Reader, floats, integer, integers, many, text
from tests.decoders.protos import proto

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans()),
        "int_contents": st.lists(INT32),
        "int64_contents": st.lists(INT64),
        "uint_contents": st.lists(UINT32),
        "uint64_contents": st.lists(UINT64),
        "fp32_contents": st.lists(st.floats(width=32, allow_nan=False)),
        "fp64_contents": st.lists(st.floats(allow_nan=False)),
        "bytes_contents": st.lists(st.binary(max_size=9)),
    },
)


def read(data: bytes) -> dict[str, list[Any]]:
    """The lists of `Contents`, as our reader finds them."""
    fields = Reader().fields(data)
    return {
        "bool_contents": (integers(fields, 1) != 0).tolist(),
        "int_contents": integers(fields, 2).astype(np.int32).tolist(),
        "int64_contents": integers(fields, 3).tolist(),
        "uint_contents": integers(fields, 4).astype(np.uint32).tolist(),
        "uint64_contents": integers(fields, 5).astype(np.uint64).tolist(),
        "fp32_contents": floats(fields, 6, FLOAT).tolist(),
        "fp64_contents": floats(fields, 7, DOUBLE).tolist(),
        "bytes_contents": [bytes(part) for part in many(fields, 8)],
    }


@given(CONTENTS)
def test_every_list_reads_as_google_wrote_it(contents: dict[str, list[Any]]) -> None:
    message = proto("inference.Contents", **contents)
    read_lists = read(message.SerializeToString())
    assert read_lists == {name: list(getattr(message, name)) for name in read_lists}


@given(st.binary(max_size=60))
def test_what_google_refuses_is_refused_and_the_rest_reads_the_same(data: bytes) -> None:
    message = proto("inference.Contents")
    try:
        message.ParseFromString(data)
    except GoogleError:
        message = None
    found: dict[str, list[Any]] | None = None
    with contextlib.suppress(DecodeError):  # nothing else may escape
        found = read(data)
    # It may be stricter: groups, and a known field of another type.
    if message is not None and found is not None:
        # NaN is unlike itself: compared as bits.
        assert repr(found) == repr({name: list(getattr(message, name)) for name in found})


@given(st.lists(CONTENTS, min_size=2, max_size=3))
def test_messages_that_follow_one_another_are_one(parts: list[dict[str, list[Any]]]) -> None:
    messages = [proto("inference.Contents", **part) for part in parts]
    tensors = [proto("inference.Tensor", contents=message) for message in messages]
    data = b"".join(tensor.SerializeToString() for tensor in tensors)
    merged = proto("inference.Tensor")
    merged.ParseFromString(data)
    reader = Reader()
    inside = reader.message(reader.fields(data), 5)
    expected = [value for message in messages for value in message.int64_contents]
    assert integers(inside, 3).tolist() == list(merged.contents.int64_contents) == expected


def test_the_last_of_a_single_field_holds_and_its_absence_is_nothing() -> None:
    data = proto("inference.ModelInferRequest", id="a").SerializeToString()
    fields = Reader().fields(
        data + proto("inference.ModelInferRequest", id="b").SerializeToString()
    )
    assert text(fields, 3) == "b"
    assert text(fields, 1) == ""
    assert integer(fields, 9) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # a tag alone
        b"\x0a\x05hi",  # longer than the message
        b"\x0b\x0c",  # groups
        b"\x0e\x00",  # no such wire type
        b"\x00\x00",  # no field has the number 0
        b"\x08" + b"\xff" * 10 + b"\x01",  # eleven bytes of a number
        b"\x0d\x01\x02",  # a fixed number that is cut
    ],
)
def test_what_is_no_protobuf(data: bytes) -> None:
    with pytest.raises(DecodeError) as refused:
        Reader().fields(data)
    assert refused.value.reason is DecodeReason.NOT_PROTOBUF


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(DecodeError) as refused:
        text(Reader().fields(b"\x0a\x01\xff"), 1)
    assert refused.value.reason is DecodeReason.NOT_PROTOBUF


def test_millions_of_tiny_fields_are_refused_early() -> None:
    with pytest.raises(DecodeError) as refused:
        Reader().fields(b"\x10\x00" * 8_000_000)
    assert refused.value.reason is DecodeReason.TOO_MANY_ROWS


def test_messages_inside_messages_share_the_budget() -> None:
    reader = Reader(fields_max=10)
    inner = b"\x10\x00" * 6
    reader.fields(inner)
    with pytest.raises(DecodeError):
        reader.fields(inner)
