"""Typed tensors: every datatype raw as it lies in memory, and what does not fit."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason
from agent.decoders.tensors import (
    DATATYPES,
    Tensor,
    tensor_outputs,
    tensor_table,
    tensor_values,
)

R = DecodeReason
LIMITS = DecodeLimits()
NUMPY = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


def words(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def reason(*given: Any) -> DecodeReason:
    with pytest.raises(DecodeError) as caught:
        tensor_values(*given)
    return caught.value.reason


@pytest.mark.parametrize("datatype", sorted(NUMPY))
@given(data=st.data())
def test_raw_numbers_are_the_numbers_that_were_written(datatype: str, data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(max_dims=4, max_side=4))
    values = data.draw(arrays.arrays(np.dtype(NUMPY[datatype]), shape))
    read = tensor_values(datatype, shape, values.tobytes())
    np.testing.assert_array_equal(read, values)
    assert read.shape == shape


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=9))
def test_bfloat_is_the_upper_half_of_a_float(values: list[float]) -> None:
    whole = np.array(values, dtype="<f4")
    halves = (whole.view("<u4") >> 16).astype("<u2")
    read = tensor_values("BF16", [len(values)], halves.tobytes())
    expected = (halves.astype("<u4") << 16).view("<f4")
    np.testing.assert_array_equal(read, expected)
    assert tensor_values("BF16", [1], b"\x20\x3e").tolist() == [0.15625]


@given(values=st.lists(st.text(max_size=4) | st.binary(max_size=4), min_size=1, max_size=6))
def test_words_are_text_where_they_can_be(values: list[str | bytes]) -> None:
    coded = [value.encode() if isinstance(value, str) else value for value in values]
    read = tensor_values("BYTES", [len(values)], words(*coded)).tolist()
    assert [value.encode() if isinstance(value, str) else value for value in read] == coded
    for value in read:
        assert isinstance(value, str) or not _is_text(value)


def _is_text(value: bytes) -> bool:
    try:
        return isinstance(value.decode(), str)
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("FP8", [1], b"1"), R.UNSUPPORTED_DATATYPE),
        (("FP32", [0, 4], b""), R.EMPTY_BATCH),
        (("FP32", [10**30, 0], b""), R.EMPTY_BATCH),
        (("FP32", [2], b"1234567"), R.WRONG_TYPE),
        (("FP32", [10**30], b"1234"), R.WRONG_TYPE),
        (("FP32", [-1, -1], b"1234"), R.WRONG_TYPE),
        (("FP32", [1] * 9, b"1234"), R.WRONG_TYPE),
        (("BYTES", [10**30], words(b"a")), R.WRONG_TYPE),
        (("BYTES", [2], words(b"a")), R.WRONG_TYPE),
        (("BYTES", [1], words(b"a", b"b")), R.WRONG_TYPE),
        (("BYTES", [1], words(b"abc")[:-1]), R.WRONG_TYPE),
        (("BYTES", [1], words(b"abc")[:3]), R.WRONG_TYPE),
        (("BYTES", [1], words(b"abc") + b"\x00"), R.WRONG_TYPE),
        (("BYTES", [1], b"\xff\xff\xff\xff"), R.WRONG_TYPE),
    ],
)
def test_bytes_that_do_not_fit_are_named(given: Any, expected: DecodeReason) -> None:
    assert reason(*given) is expected


@given(
    datatype=st.sampled_from(sorted(DATATYPES)),
    shape=st.lists(st.integers(-1, 5), max_size=4),
    raw=st.binary(max_size=60),
)
def test_nothing_else_escapes(datatype: str, shape: list[int], raw: bytes) -> None:
    tensor = Tensor(name="x", datatype=datatype, shape=tuple(shape), raw=raw)
    for read in (
        lambda: tensor_values(datatype, shape, raw),
        lambda: tensor_table([tensor, tensor], LIMITS),
        lambda: tensor_outputs([tensor], tensor.entries, LIMITS),
    ):
        try:
            read()
        except DecodeError:
            continue


def made(
    name: str, datatype: str, *shape: int, raw: bytes | None = None, listed: Any = ()
) -> Tensor:
    return Tensor(name=name, datatype=datatype, shape=shape, raw=raw, listed=listed)


def test_raw_and_listed_tensors_stand_beside_each_other() -> None:
    pair = np.array([[1.5, 2], [3, 4]], dtype="<f4")
    names, rows = tensor_table(
        [
            made("x", "FP32", 2, 2, raw=pair.tobytes()),
            made("age", "INT64", 2, listed=[41, None]),
            made("job", "BYTES", 2, 1, raw=words(b"clerk", b"smith")),
            made("own", "BOOL", 2, raw=b"\x01\x00"),
            made("town", "BYTES", 2, listed=[b"Bern", "Ulm"]),
        ],
        LIMITS,
    )
    assert names == ("x_0", "x_1", "age", "job", "own", "town")
    assert list(rows[0]) == [1.5, 2.0, 41.0, "clerk", True, "Bern"]
    assert [repr(cell) for cell in rows[1]] == ["3.0", "4.0", "nan", "'smith'", "False", "'Ulm'"]


def test_a_numeric_table_is_a_matrix_of_its_own() -> None:
    raw = bytearray(np.arange(6, dtype="<f8").tobytes())
    names, rows = tensor_table([made("x", "FP64", 2, 3, raw=bytes(raw))], LIMITS)
    assert names is None
    assert isinstance(rows, np.ndarray)
    assert rows.dtype == np.float64
    assert rows.flags.writeable
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_words_that_are_no_text_are_described_and_never_given_out() -> None:
    tensors = [made("photo", "BYTES", 2, raw=words(b"\xff\xfe", b"abc"))]
    names, rows = tensor_table(tensors, LIMITS)
    assert names == ("photo.bytes",)
    assert np.asarray(rows).tolist() == [[2.0], [3.0]]
    label = made("label", "INT32", 2, listed=[1, 0])
    assert tensor_outputs([*tensors, label], 2, LIMITS) == {"label": [1, 0]}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"rows_max": 3}, R.TOO_MANY_ROWS), ({"columns_max": 3}, R.TOO_MANY_COLUMNS),
     ({"cells_max": 15}, R.TOO_MANY_ROWS), ({"name_characters_max": 2}, R.WRONG_TYPE)],
)  # fmt: skip
def test_limits_hold_for_raw_tensors(limits: dict[str, int], expected: DecodeReason) -> None:
    tensor = made("xyz", "UINT8", 4, 4, raw=bytes(16))
    for read in (
        lambda: tensor_table([tensor], DecodeLimits(**limits)),
        lambda: tensor_outputs([tensor], 4, DecodeLimits(**limits)),
    ):
        with pytest.raises(DecodeError) as caught:
            read()
        assert caught.value.reason is expected


@given(
    values=st.lists(st.none() | st.floats() | st.integers(-(2**63), 2**64 - 1), min_size=1),
    repeated=st.sampled_from([1, 40_000]),
)
def test_listed_numbers_are_what_numpy_makes_of_them(values: list[Any], repeated: int) -> None:
    values = (values * repeated)[: max(len(values), 70_000)]
    tensor = Tensor(name="x", datatype="FP64", shape=(len(values), 1), listed=values)
    _, rows = tensor_table([tensor], DecodeLimits(rows_max=len(values)))
    assert isinstance(rows, np.ndarray)
    assert rows.flags.writeable
    np.testing.assert_array_equal(rows[:, 0], np.array(values, dtype=np.float64))


@pytest.mark.parametrize(
    ("odd", "expected"), [("a", R.WRONG_TYPE), (True, R.WRONG_TYPE), ([1.0], R.RAGGED_ROWS)]
)
def test_one_odd_value_among_floats_is_seen(odd: Any, expected: DecodeReason) -> None:
    tensor = Tensor(name="x", datatype="FP64", shape=(3, 1), listed=[0.5, odd, 1.5])
    with pytest.raises(DecodeError) as caught:
        tensor_table([tensor], LIMITS)
    assert caught.value.reason is expected
