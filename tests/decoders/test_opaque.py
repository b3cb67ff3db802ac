"""Images, other binaries and texts become columns that describe them; nothing else gets out."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.decoder import DecodeError, DecodeReason
from agent.decoders.opaque import binary_of, binary_table, text_table

GIF = b"GIF89a" + (3).to_bytes(2, "little") + (2).to_bytes(2, "little") + b"\x80\x00\x00"


@given(data=st.binary(max_size=40), url_safe=st.booleans(), padded=st.booleans())
def test_base64_is_read_as_clients_write_it(data: bytes, url_safe: bool, padded: bool) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    assert binary_of({"b64": text if padded else text.rstrip("=")}) == data


@pytest.mark.parametrize("value", [{"b64": 1}, {"b64": "aGk=", "x": 1}, {}, "aGk=", None, ["b64"]])
def test_other_values_are_no_binaries(value: object) -> None:
    assert binary_of(value) is None


@pytest.mark.parametrize("text", ["a", "é", "aGkaa"])
def test_what_claims_to_be_base64_and_is_not_is_refused(text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        binary_of({"b64": text})
    assert caught.value.reason is DecodeReason.WRONG_TYPE


def test_rows_have_the_columns_of_all_of_them() -> None:
    names, rows = binary_table("x", [b"abc", GIF, None])
    assert names[:3] == ("x.bytes", "x.width", "x.height")
    np.testing.assert_array_equal(
        rows[:, :3], [[3, np.nan, np.nan], [13, 3, 2], [np.nan, np.nan, np.nan]]
    )


def test_nothing_but_missing_values_still_has_a_column() -> None:
    names, rows = binary_table("x", [None])
    assert names == ("x.bytes",)
    assert np.isnan(rows).all()


@given(data=st.binary(max_size=80))
def test_anything_after_the_mark_of_an_image_is_described(data: bytes) -> None:
    for mark in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF    WEBP"):
        names, rows = binary_table("x", [mark + data])
        assert names[0] == "x.bytes"
        assert rows[0][0] == len(mark + data)


def test_texts_are_numbers_that_hold_for_any_language() -> None:
    names, rows = text_table("text", ["one two", ""])
    assert rows.shape == (2, len(names))
    assert dict(zip(names, rows[0], strict=True))["text.length"] == 7.0
